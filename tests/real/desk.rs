//! What customers and people of a storefront do with orders, over the storefront's own APIs.

use crate::support::{Shop, json_of, text};
use serde_json::{Value, json};

const ERRORS: &str = "{__typename ... on ErrorResult{errorCode message}}";

impl Shop {
    /// A customer orders and pays; gives the order's number.
    pub fn buy(&self, wanted: &[(&str, i64)]) -> String {
        match self.kind {
            "vendure" => self.buy_in_vendure(wanted),
            _ => self.buy_in_medusa(wanted),
        }
    }

    fn buy_in_vendure(&self, wanted: &[(&str, i64)]) -> String {
        self.token.take();
        let call = |query: &str, variables: Value| {
            let answer = self.graphql("shop-api", query, variables);
            let (_, value) = answer
                .as_object()
                .and_then(|o| o.iter().next())
                .expect("an answer");
            assert!(value["errorCode"].is_null(), "{query}: {value}");
            value.clone()
        };
        for (sku, quantity) in wanted {
            let product = call(
                "query($slug:String!){product(slug:$slug){variants{id}}}",
                json!({"slug": sku.to_lowercase()}),
            );
            call(
                &format!(
                    "mutation($id:ID!,$quantity:Int!){{addItemToOrder(productVariantId:$id,quantity:$quantity){ERRORS}}}"
                ),
                json!({"id": product["variants"][0]["id"], "quantity": quantity}),
            );
        }
        call(
            &format!(
                "mutation{{setCustomerForOrder(input:{{firstName:\"A\",lastName:\"B\",emailAddress:\"ab@example.com\"}}){ERRORS}}}"
            ),
            json!({}),
        );
        call(
            &format!(
                "mutation{{setOrderShippingAddress(input:{{streetLine1:\"1 Main Street\",countryCode:\"FR\"}}){ERRORS}}}"
            ),
            json!({}),
        );
        let methods = call("{eligibleShippingMethods{id}}", json!({}));
        call(
            &format!(
                "mutation($id:[ID!]!){{setOrderShippingMethod(shippingMethodId:$id){ERRORS}}}"
            ),
            json!({"id": [methods[0]["id"]]}),
        );
        call(
            &format!("mutation{{transitionOrderToState(state:\"ArrangingPayment\"){ERRORS}}}"),
            json!({}),
        );
        let order = call(
            "mutation{addPaymentToOrder(input:{method:\"dummy\",metadata:{}}){__typename ... on Order{code} ... on ErrorResult{errorCode message}}}",
            json!({}),
        );
        text(&order["code"])
    }

    fn buy_in_medusa(&self, wanted: &[(&str, i64)]) -> String {
        let post = |path: &str, body: Value| {
            let request = self.http.post(format!("{}{path}", self.url));
            let request = request.header("x-publishable-api-key", self.publishable_key.trim());
            json_of(request.json(&body))
        };
        let get = |path: &str, query: &[(&str, &str)]| {
            let request = self.http.get(format!("{}{path}", self.url));
            let request = request.header("x-publishable-api-key", self.publishable_key.trim());
            json_of(request.query(query))
        };
        let region = &get("/store/regions", &[])["regions"][0]["id"];
        let address = json!({
            "first_name": "A", "last_name": "B", "address_1": "1 Main Street", "city": "Paris",
            "postal_code": "75001", "country_code": "fr",
        });
        let cart = json!({
            "region_id": region, "email": "ab@example.com", "shipping_address": address,
            "billing_address": address,
        });
        let cart = text(&post("/store/carts", cart)["cart"]["id"]);
        for (sku, quantity) in wanted {
            let query = [("sku", *sku), ("fields", "id")];
            let variants = self.admin_get("/admin/product-variants", &query);
            let item = json!({"variant_id": variants["variants"][0]["id"], "quantity": quantity});
            post(&format!("/store/carts/{cart}/line-items"), item);
        }
        let options = get("/store/shipping-options", &[("cart_id", &cart)]);
        let option = json!({"option_id": options["shipping_options"][0]["id"]});
        post(&format!("/store/carts/{cart}/shipping-methods"), option);
        let collection = post("/store/payment-collections", json!({"cart_id": cart}));
        let collection = text(&collection["payment_collection"]["id"]);
        let path = format!("/store/payment-collections/{collection}/payment-sessions");
        post(&path, json!({"provider_id": "pp_system_default"}));
        let order = post(&format!("/store/carts/{cart}/complete"), json!({}));
        let number = text(&order["order"]["id"]);
        let payment = self.medusa_order(&number)["payment_collections"][0]["payments"][0].clone();
        self.admin_post(
            &format!("/admin/payments/{}/capture", text(&payment["id"])),
            json!({}),
        );
        number
    }

    fn secret(&self) -> String {
        let key = std::fs::read_to_string(&self.secret_key).expect("the secret key");
        key.trim().to_owned()
    }

    fn admin_get(&self, path: &str, query: &[(&str, &str)]) -> Value {
        let request = self.http.get(format!("{}{path}", self.url));
        json_of(request.basic_auth(self.secret(), Some("")).query(query))
    }

    fn admin_post(&self, path: &str, body: Value) -> Value {
        let request = self.http.post(format!("{}{path}", self.url));
        json_of(request.basic_auth(self.secret(), Some("")).json(&body))
    }

    fn medusa_order(&self, number: &str) -> Value {
        let fields = "id,total,*items,*fulfillments,*fulfillments.items,*fulfillments.labels,*payment_collections.payments,*payment_collections.payments.refunds";
        let path = format!("/admin/orders/{number}");
        self.admin_get(&path, &[("fields", fields)])["order"].clone()
    }

    fn vendure_admin(&self, query: &str, variables: Value) -> Value {
        self.token.take();
        self.graphql(
            "admin-api",
            "mutation{login(username:\"superadmin\",password:\"superadmin\"){__typename}}",
            json!({}),
        );
        let answer = self.graphql("admin-api", query, variables);
        self.token.take();
        answer
    }

    fn vendure_order(&self, number: &str) -> Value {
        let query = "query($code:String!){orders(options:{filter:{code:{eq:$code}}}){items{id lines{id quantity orderPlacedQuantity productVariant{sku}} fulfillments{state trackingCode} payments{id amount refunds{id state total}}}}}";
        let found = self.vendure_admin(query, json!({"code": number}));
        found["orders"]["items"][0].clone()
    }

    /// Id and quantity of the line of a SKU; units of it that were cancelled are not counted.
    pub fn line(&self, number: &str, sku: &str) -> (String, i64) {
        let (order, lines, name) = match self.kind {
            "vendure" => (self.vendure_order(number), "lines", "/productVariant/sku"),
            _ => (self.medusa_order(number), "items", "/variant_sku"),
        };
        let lines = order[lines].as_array().expect("lines");
        let line = lines
            .iter()
            .find(|l| l.pointer(name).is_some_and(|s| s == sku));
        let line = line.unwrap_or_else(|| panic!("no line of {sku}: {order}"));
        (text(&line["id"]), line["quantity"].as_i64().expect("units"))
    }

    /// State and tracking of each parcel.
    pub fn parcels(&self, number: &str) -> Vec<(String, String)> {
        if self.kind == "vendure" {
            let order = self.vendure_order(number);
            let parcels = order["fulfillments"]
                .as_array()
                .expect("fulfilments")
                .iter();
            return parcels
                .map(|p| (text(&p["state"]), text(&p["trackingCode"])))
                .collect();
        }
        let order = self.medusa_order(number);
        let parcels = order["fulfillments"]
            .as_array()
            .expect("fulfilments")
            .iter();
        let state = |p: &Value| match (p["shipped_at"].is_null(), p["delivered_at"].is_null()) {
            (_, false) => "Delivered",
            (false, _) => "Shipped",
            _ => "Pending",
        };
        parcels
            .map(|p| {
                let tracking = p["labels"][0]["tracking_number"].as_str();
                (state(p).to_owned(), tracking.unwrap_or_default().to_owned())
            })
            .collect()
    }

    /// Amounts of the refunds of an order, as the shop writes them.
    pub fn refunds(&self, number: &str) -> Vec<String> {
        match self.kind {
            "vendure" => {
                let order = self.vendure_order(number);
                let refunds = order["payments"][0]["refunds"]
                    .as_array()
                    .expect("refunds")
                    .iter();
                let cents = refunds.map(|r| r["total"].as_i64().expect("cents"));
                cents
                    .map(|c| format!("{}.{:02}", c / 100, c % 100))
                    .collect()
            }
            _ => {
                let order = self.medusa_order(number);
                let refunds = &order["payment_collections"][0]["payments"][0]["refunds"];
                let refunds = refunds.as_array().expect("refunds").iter();
                refunds.map(|r| text(&r["raw_amount"]["value"])).collect()
            }
        }
    }

    /// People of the shop pay what it owes: Vendure's dummy method cannot by itself.
    pub fn pay_refunds(&self, number: &str) {
        if self.kind != "vendure" {
            return;
        }
        let order = self.vendure_order(number);
        for refund in order["payments"][0]["refunds"].as_array().expect("refunds") {
            if refund["state"] == "Pending" {
                let input = json!({"id": refund["id"], "transactionId": format!("paid-{}-{}", number, text(&refund["id"]))});
                let query = "mutation($input:SettleRefundInput!){settleRefund(input:$input){__typename ... on Refund{state}}}";
                let settled = self.vendure_admin(query, json!({"input": input}));
                assert_eq!(settled["settleRefund"]["state"], "Settled");
            }
        }
    }

    /// People of the shop take one unit of a SKU out of an order.
    pub fn take_out(&self, number: &str, sku: &str) {
        let (line, quantity) = self.line(number, sku);
        if self.kind == "vendure" {
            let order = self.vendure_order(number);
            let input = json!({"orderId": order["id"], "reason": "asked for", "lines": [{"orderLineId": line, "quantity": 1}]});
            let query = "mutation($input:CancelOrderInput!){cancelOrder(input:$input){__typename ... on ErrorResult{errorCode message}}}";
            let done = self.vendure_admin(query, json!({"input": input}));
            assert_eq!(done["cancelOrder"]["__typename"], "Order", "{done}");
            return;
        }
        self.admin_post("/admin/order-edits", json!({"order_id": number}));
        let path = format!("/admin/order-edits/{number}/items/item/{line}");
        self.admin_post(&path, json!({"quantity": quantity - 1}));
        self.admin_post(&format!("/admin/order-edits/{number}/confirm"), json!({}));
    }
}
