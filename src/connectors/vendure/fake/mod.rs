//! A stand-in for Vendure's admin API: login, stock locations, variants, stock, orders.

mod orders;

use crate::connectors::fake::{FakeAnswer, FakeApi, FakeRequest, FakeServer};
use crate::pipeline::{Fake, FakeCall, FakeFault, FakeOptions};
use orders::Book;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io;

const PASSWORD: &str = "stand-in";
const TOKEN: &str = "stand-in-session";
const CHANNEL: &str = "stand-in-channel";

/// Calls that change something.
const CHANGING: [&str; 5] = [
    "updateProductVariants(",
    "addFulfillmentToOrder(",
    "transitionFulfillmentToState(",
    "cancelOrder(",
    "refundOrder(",
];

struct Api {
    locations: Vec<String>,
    variants: BTreeMap<String, Variant>,
    /// Variant ids by SKU.
    ids: BTreeMap<String, Vec<String>>,
    /// Sessions that were ended so far.
    session: u32,
    book: Book,
    /// Whether faults are shown on reads of orders too.
    reads_fail: bool,
    /// As the API shows them.
    customers: Vec<Value>,
}

#[derive(Clone, Default)]
struct Variant {
    sku: String,
    /// By location id.
    on_hand: BTreeMap<String, i64>,
    /// Held for open orders, at the first location.
    allocated: i64,
    untracked: bool,
    /// Minor units by currency, without tax.
    prices: BTreeMap<String, i64>,
    /// By language.
    names: BTreeMap<String, String>,
    withdrawn: bool,
}

impl Variant {
    fn of(sku: &str, price: i64) -> Self {
        Variant {
            sku: sku.to_owned(),
            prices: BTreeMap::from([("EUR".to_owned(), price)]),
            names: BTreeMap::from([("en".to_owned(), format!("Product {sku}"))]),
            ..Variant::default()
        }
    }
}

pub(super) struct VendureFake(FakeServer<Api>);

pub(super) fn start(options: &FakeOptions) -> io::Result<Box<dyn Fake>> {
    let mut ids: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut variants = BTreeMap::new();
    for (i, sku) in options.skus.iter().enumerate() {
        let id = (i + 1).to_string();
        ids.entry(sku.clone()).or_default().push(id.clone());
        variants.insert(id, Variant::of(sku, 503 + i as i64));
    }
    let locations = if options.locations.is_empty() {
        vec!["Warehouse".to_owned()]
    } else {
        options.locations.clone()
    };
    let api = Api {
        locations,
        variants,
        ids,
        session: 0,
        book: Book::default(),
        reads_fail: false,
        customers: Vec::new(),
    };
    Ok(Box::new(VendureFake(FakeServer::start(api)?)))
}

fn graphql_error(code: &str, message: &str) -> FakeAnswer {
    FakeAnswer::new(
        200,
        json!({"errors": [{"message": message, "extensions": {"code": code}}], "data": null}),
    )
}

impl FakeApi for Api {
    fn changes(&self, request: &FakeRequest) -> bool {
        let query = request.body["query"].as_str().unwrap_or_default();
        CHANGING.iter().any(|name| query.contains(name))
    }

    fn fails(&self, request: &FakeRequest) -> bool {
        let query = request.body["query"].as_str().unwrap_or_default();
        let reads = query.contains("orders(") || query.contains("customers(");
        self.changes(request) || self.reads_fail && reads
    }

    fn unauthorised(&self) -> FakeAnswer {
        graphql_error(
            "FORBIDDEN",
            "You are not currently authorized to perform this action",
        )
    }

    fn answer(&mut self, request: &FakeRequest) -> FakeAnswer {
        if request.path != "/admin-api" {
            return FakeAnswer::new(404, json!({"message": "not found"}));
        }
        let (query, variables) = (
            request.body["query"].as_str().unwrap_or_default(),
            &request.body["variables"],
        );
        if query.contains("login(") {
            if variables["password"] != PASSWORD {
                return FakeAnswer::new(
                    200,
                    json!({"data": {"login": {"__typename": "InvalidCredentialsError", "errorCode": "INVALID_CREDENTIALS_ERROR", "message": "The provided credentials are invalid"}}}),
                );
            }
            let mut answer = FakeAnswer::new(
                200,
                json!({"data": {"login": {"__typename": "CurrentUser"}}}),
            );
            answer
                .headers
                .push(("vendure-auth-token", format!("{TOKEN}-{}", self.session)));
            return answer;
        }
        let bearer = format!("Bearer {TOKEN}-{}", self.session);
        if request.headers.get("authorization") != Some(&bearer) {
            return self.unauthorised();
        }
        if query.contains("stockLocations(") {
            let named = self.locations.iter().enumerate();
            let items: Vec<Value> = named
                .map(|(i, name)| json!({"id": (i + 1).to_string(), "name": name}))
                .collect();
            return FakeAnswer::new(
                200,
                json!({"data": {"activeChannel": {"token": CHANNEL}, "stockLocations": {"items": items}}}),
            );
        }
        if query.contains("permissions") {
            return FakeAnswer::new(
                200,
                json!({"data": {"activeChannel": {"token": CHANNEL}, "me": {"channels": [{"token": CHANNEL, "permissions": ["UpdateCatalog", "ReadOrder", "UpdateOrder"]}]}}}),
            );
        }
        if query.contains("productVariants(") {
            let wanted = variables["skus"].as_array().into_iter().flatten();
            let wanted = wanted.chain([&variables["sku"]]);
            let wanted: BTreeSet<&str> = wanted.filter_map(Value::as_str).collect();
            let ids = wanted.iter().filter_map(|sku| self.ids.get(*sku)).flatten();
            let items: Vec<Value> = ids.map(|id| show(id, &self.variants[id])).collect();
            return FakeAnswer::new(
                200,
                json!({"data": {"activeChannel": {"pricesIncludeTax": false}, "productVariants": {"items": items}}}),
            );
        }
        if query.contains("updateProductVariants(") {
            return self.update(variables["input"].as_array().map_or(&[], Vec::as_slice));
        }
        let input = &variables["input"];
        if query.contains("customers(") {
            let options = &variables["options"];
            let after = options["filter"]["updatedAt"]["after"]
                .as_str()
                .unwrap_or_default();
            let ids = options["filter"]["id"]["in"].as_array();
            let wanted = |c: &&Value| match ids {
                Some(ids) => ids.contains(&c["id"]),
                None => c["updatedAt"].as_str().is_some_and(|at| at > after),
            };
            let mut items: Vec<&Value> = self.customers.iter().filter(wanted).collect();
            items.sort_by_key(|c| (c["updatedAt"].as_str(), c["id"].as_str()));
            let skip = options["skip"].as_u64().unwrap_or_default() as usize;
            let take = options["take"].as_u64().unwrap_or(100) as usize;
            let items: Vec<&Value> = items.into_iter().skip(skip).take(take).collect();
            return FakeAnswer::new(200, json!({"data": {"customers": {"items": items}}}));
        }
        if query.contains("orders(") {
            let found = self.book.list(&variables["options"]);
            return FakeAnswer::new(200, json!({"data": {"orders": found}}));
        }
        if query.contains("addFulfillmentToOrder(") {
            return self.book.fulfil(input);
        }
        if query.contains("transitionFulfillmentToState(") {
            return self.book.step(&variables["id"], &variables["state"]);
        }
        if query.contains("cancelOrder(") {
            return self.book.cancel(input);
        }
        if query.contains("refundOrder(") {
            return self.book.refund(input);
        }
        FakeAnswer::new(
            400,
            json!({"errors": [{"message": "unknown query", "extensions": {"code": "GRAPHQL_VALIDATION_FAILED"}}]}),
        )
    }
}

impl Api {
    /// One transaction: all items or none.
    fn update(&mut self, input: &[Value]) -> FakeAnswer {
        let mut changes = Vec::new();
        for item in input {
            let id = item["id"].as_str().unwrap_or_default();
            if !self.variants.contains_key(id) {
                return graphql_error(
                    "ENTITY_NOT_FOUND",
                    &format!("No ProductVariant with the id \"{id}\" could be found"),
                );
            }
            for level in item["stockLevels"].as_array().into_iter().flatten() {
                let location = level["stockLocationId"].as_str().unwrap_or_default();
                let known = location
                    .parse::<usize>()
                    .is_ok_and(|n| (1..=self.locations.len()).contains(&n));
                if !known {
                    return FakeAnswer::new(
                        200,
                        json!({"errors": [{"message": "SqliteError: FOREIGN KEY constraint failed"}], "data": null}),
                    );
                }
                match level["stockOnHand"]
                    .as_i64()
                    .filter(|q| i32::try_from(*q).is_ok())
                {
                    Some(on_hand) => changes.push((id, location, on_hand)),
                    None => {
                        return graphql_error("BAD_USER_INPUT", "Int cannot represent the value");
                    }
                }
            }
        }
        for (id, location, on_hand) in changes {
            if let Some(variant) = self.variants.get_mut(id) {
                variant.on_hand.insert(location.to_owned(), on_hand);
            }
        }
        for item in input {
            let id = item["id"].as_str().unwrap_or_default();
            let Some(variant) = self.variants.get_mut(id) else {
                continue;
            };
            for price in item["prices"].as_array().into_iter().flatten() {
                let currency = price["currencyCode"].as_str().unwrap_or_default();
                if currency != "EUR" {
                    return graphql_error("USER_INPUT_ERROR", "currency is not available");
                }
                let units = price["price"].as_i64().unwrap_or_default();
                variant.prices.insert(currency.to_owned(), units);
            }
            for name in item["translations"].as_array().into_iter().flatten() {
                let text = |field: &str| name[field].as_str().unwrap_or_default().to_owned();
                variant.names.insert(text("languageCode"), text("name"));
            }
            if let Some(enabled) = item["enabled"].as_bool() {
                variant.withdrawn = !enabled;
            }
        }
        let updated: Vec<Value> = input.iter().map(|i| json!({"id": i["id"]})).collect();
        FakeAnswer::new(200, json!({"data": {"updateProductVariants": updated}}))
    }
}

impl Api {
    /// `None` when it is nothing about orders; `Some(None)` when it cannot be done.
    fn act_on_orders(&mut self, action: &Value) -> Option<Option<Value>> {
        let done = |answer: &FakeAnswer| {
            let result = answer.body["data"]
                .as_object()
                .and_then(|d| d.values().next());
            result.filter(|r| r["errorCode"].is_null()).cloned()
        };
        if let Some(wanted) = action["place"].as_object() {
            let price = |sku: &str| {
                let id = self.ids.get(sku)?.first()?;
                self.variants.get(id)?.prices.get("EUR").copied()
            };
            let wanted = wanted
                .iter()
                .map(|(sku, n)| Some((sku.clone(), price(sku)?, n.as_i64()?)));
            let wanted: Option<Vec<_>> = wanted.collect();
            let captured = action["captured"] == true;
            return Some(wanted.map(|w| self.book.place(&w, captured)));
        }
        if let Some(frozen) = action["freeze"].as_bool() {
            self.book.frozen = frozen;
            return Some(Some(Value::Null));
        }
        if let Some(fail) = action["reads_fail"].as_bool() {
            self.reads_fail = fail;
            return Some(Some(Value::Null));
        }
        let names = ["show", "capture", "refund", "take_out", "cancel_order"];
        let (what, code) = names.iter().find_map(|n| Some((*n, action.get(*n)?)))?;
        Some(match what {
            "show" => self.book.show(code),
            "capture" => self.book.capture(code).map(|()| Value::Null),
            "refund" => {
                let amount = action["amount"].as_str().and_then(|a| a.parse().ok());
                let units = amount.and_then(|a| super::orders::Places(2).units(a));
                let payment = self
                    .book
                    .order_of(code)
                    .map(|o| o["payments"][0]["id"].clone());
                let input = json!({"paymentId": payment, "amount": units, "reason": "goodwill", "lines": []});
                done(&self.book.refund(&input))
            }
            _ => {
                let lines = match what {
                    "take_out" => self
                        .book
                        .line(code, &action["sku"])
                        .map(|id| json!([{"orderLineId": id, "quantity": action["quantity"]}])),
                    _ => self.book.order_of(code).map(|order| {
                        let lines = order["lines"].as_array().into_iter().flatten();
                        let left = lines.filter(|l| l["quantity"] != 0);
                        left.map(|l| json!({"orderLineId": l["id"], "quantity": l["quantity"]}))
                            .collect()
                    }),
                };
                let id = self.book.order_of(code).map(|o| o["id"].clone());
                let whole = what == "cancel_order";
                let input = json!({"orderId": id, "lines": lines, "reason": "asked for", "cancelShipping": whole});
                done(&self.book.cancel(&input))
            }
        })
    }
}

fn show(id: &str, variant: &Variant) -> Value {
    let levels = variant.on_hand.iter().map(|(location, q)| {
        let allocated = if location == "1" {
            variant.allocated
        } else {
            0
        };
        json!({"stockLocationId": location, "stockOnHand": q, "stockAllocated": allocated})
    });
    let tracked = if variant.untracked {
        "FALSE"
    } else {
        "INHERIT"
    };
    let prices = variant.prices.iter();
    let prices: Vec<Value> = prices
        .map(|(currency, units)| json!({"currencyCode": currency, "price": units}))
        .collect();
    let names = variant.names.iter();
    let names: Vec<Value> = names
        .map(|(language, name)| json!({"languageCode": language, "name": name}))
        .collect();
    json!({
        "id": id, "sku": variant.sku, "trackInventory": tracked, "enabled": !variant.withdrawn,
        "prices": prices, "translations": names, "stockLevels": levels.collect::<Vec<_>>(),
    })
}

impl Fake for VendureFake {
    fn url(&self) -> String {
        self.0.url()
    }
    fn settings(&self) -> Value {
        let locations = self.0.api().locations.clone();
        json!({"url": self.0.url(), "username": "superadmin", "password": self.0.secret_reference(PASSWORD), "channel": "web", "location": locations[0], "empty_locations": locations[1..], "catalogue": {"price_list": "list", "products": true}, "timeout_ms": 2_000})
    }
    fn inject(&self, faults: Vec<FakeFault>) {
        self.0.inject(faults);
    }
    fn set_down(&self, down: bool) {
        self.0.set_down(down);
    }
    fn heal(&self) {
        self.0.heal();
    }
    fn calls(&self) -> Vec<FakeCall> {
        self.0.calls()
    }
    fn calls_taken(&self) -> u64 {
        self.0.calls_taken()
    }
    /// What customers can buy, by SKU.
    fn books(&self) -> Value {
        let api = self.0.api();
        let shown = api.variants.values().filter(|v| !v.on_hand.is_empty());
        shown
            .map(|v| {
                let on_hand: i64 = v.on_hand.values().sum();
                (v.sku.clone(), json!(on_hand - v.allocated))
            })
            .collect()
    }
    /// `{"hold": SKU, "quantity": N}`: an open order of the shop holds N units. `{"stock": SKU,
    /// "location": NAME, "quantity": N}`: somebody sets the stock there. `{"untrack": SKU}`: its stock
    /// is no longer counted. `{"product": SKU}` tells what it costs and is called, and whether it is
    /// sold. `{"end_sessions": true}`: whoever is logged in must log in again.
    ///
    /// `{"customer": ID, "given": NAME, "family": NAME, "email": …, "phone": …, "street": …, "city": …}`:
    /// a customer registers or changes.
    ///
    /// Of orders, as of every stand-in of a storefront: `{"place": {SKU: N, …}, "captured": BOOL}` gives
    /// the order's number; `{"capture": NUMBER}`, `{"refund": NUMBER, "amount": "1.25"}`, `{"take_out":
    /// NUMBER, "sku": SKU, "quantity": N}` and `{"cancel_order": NUMBER}` are done by people;
    /// `{"show": NUMBER}` tells how it stands. `{"freeze": BOOL}`: what happens shares a stamp.
    /// `{"reads_fail": BOOL}`: faults are shown on reads of orders too.
    fn act(&self, action: &Value) -> Result<Value, String> {
        let mut api = self.0.api();
        if action["end_sessions"] == true {
            api.session += 1;
            return Ok(Value::Null);
        }
        if let Some(id) = action["customer"].as_str() {
            let text = |field: &str| action[field].clone();
            let at = api.book.now();
            let customer = json!({
                "id": id, "updatedAt": at, "firstName": text("given"), "lastName": text("family"),
                "emailAddress": text("email"), "phoneNumber": text("phone"), "addresses": [{
                    "streetLine1": text("street"), "streetLine2": "", "city": text("city"), "province": "",
                    "postalCode": "1", "country": {"code": "DE"}, "phoneNumber": "",
                    "defaultBillingAddress": true, "defaultShippingAddress": true,
                }],
            });
            api.customers.retain(|c| c["id"] != id);
            api.customers.push(customer);
            return Ok(Value::Null);
        }
        if let Some(done) = api.act_on_orders(action) {
            return done.ok_or_else(|| format!("no such order, line or amount: {action}"));
        }
        let names = ["hold", "stock", "untrack", "product"];
        let (what, sku) = names
            .into_iter()
            .find_map(|n| Some((n, action[n].as_str()?)))
            .ok_or_else(|| format!("one of {names:?} is wanted"))?;
        let location = api
            .locations
            .iter()
            .position(|name| action["location"] == **name);
        let variant = api
            .variants
            .values_mut()
            .find(|v| v.sku == sku)
            .ok_or_else(|| format!("no SKU {sku}"))?;
        if what == "product" {
            let price = variant.prices.get("EUR").copied().unwrap_or_default();
            let price = format!("{}.{:02}", price / 100, price % 100);
            return Ok(
                json!({"price": price, "title": variant.names.get("en"), "for_sale": !variant.withdrawn}),
            );
        }
        if what == "untrack" {
            variant.untracked = true;
            return Ok(Value::Null);
        }
        let quantity = action["quantity"].as_i64().ok_or("quantity is missing")?;
        if what == "hold" {
            variant.allocated += quantity;
        } else {
            let location = location.ok_or("no such location")? + 1;
            variant.on_hand.insert(location.to_string(), quantity);
        }
        Ok(Value::Null)
    }
}
