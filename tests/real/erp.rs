//! The ERP as its users have it: documents by its own API, and the quantities that it says it has.

use crate::systems::{Systems, url};
use base64::Engine as _;
use serde_json::{Value, json};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A session of the administrator.
pub struct Erp {
    http: reqwest::blocking::Client,
    authorization: String,
    context: Value,
    calls: Cell<u64>,
    password: PathBuf,
}

/// A warehouse: the places that documents name.
#[derive(Clone, Copy)]
pub struct Warehouse {
    pub code: &'static str,
    input: &'static str,
    storage: &'static str,
}

pub const WAREHOUSE: Warehouse = Warehouse {
    code: "WH",
    input: "IN",
    storage: "STO",
};
pub const STORE: Warehouse = Warehouse {
    code: "STORE",
    input: "STORE-IN",
    storage: "STORE-STO",
};

impl Erp {
    pub fn log_in(systems: &Systems) -> Erp {
        let password = systems.file("tryton/password");
        let mut erp = Erp {
            http: reqwest::blocking::Client::new(),
            authorization: String::new(),
            context: json!({}),
            calls: Cell::new(0),
            password,
        };
        let secret = std::fs::read_to_string(&erp.password).expect("the password");
        let login = erp.raw(
            "common.db.login",
            json!(["admin", {"password": secret.trim()}, "en"]),
        );
        let (user, token) = (&login[0], login[1].as_str().expect("a session"));
        let session = format!("admin:{user}:{token}");
        erp.authorization = format!(
            "Session {}",
            base64::engine::general_purpose::STANDARD.encode(session)
        );
        erp.context = erp.raw("model.res.user.get_preferences", json!([true, {}]));
        erp
    }

    /// Settings of a connector that reads it.
    pub fn settings(&self) -> Value {
        json!({"url": url("tryton"), "database": "tryton", "username": "admin", "password": format!("${{file:{}}}", self.password.display())})
    }

    /// What is on hand in a warehouse, by SKU, as the ERP itself counts it.
    pub fn on_hand(&self, warehouse: Warehouse) -> BTreeMap<String, i64> {
        let mut context = self.context.clone();
        context["locations"] = json!([self.location(warehouse.storage)]);
        context["stock_date_end"] = self.today();
        let domain = json!([["code", "like", "SKU-%"]]);
        let parameters = json!([domain, 0, null, null, ["code", "quantity"], context]);
        let rows = self.raw("model.product.product.search_read", parameters);
        let rows = rows.as_array().expect("products").iter();
        rows.map(|row| {
            let units = row["quantity"].as_f64().expect("a quantity");
            (
                row["code"].as_str().expect("a code").to_owned(),
                units as i64,
            )
        })
        .collect()
    }

    /// A customer orders, and everything is shipped.
    pub fn sell(&self, warehouse: Warehouse, sku: &str, units: i64) {
        let sale = self.sale(warehouse, sku, units);
        let shipments = self.field("sale.sale", &sale, "shipments");
        for step in ["assign_force", "pick", "pack", "do"] {
            self.call(&format!("stock.shipment.out.{step}"), json!([shipments]));
        }
        self.must_be_done("stock.shipment.out", &shipments);
    }

    /// A customer sends back what was bought.
    pub fn take_back(&self, warehouse: Warehouse, sku: &str, units: i64) {
        let sale = self.sale(warehouse, sku, -units);
        let returns = self.field("sale.sale", &sale, "shipment_returns");
        for step in ["receive", "do"] {
            self.call(
                &format!("stock.shipment.out.return.{step}"),
                json!([returns]),
            );
        }
        self.must_be_done("stock.shipment.out.return", &returns);
    }

    fn sale(&self, warehouse: Warehouse, sku: &str, units: i64) -> Value {
        let (party, address) = self.party("C001");
        let line = json!({"type": "line", "product": self.product(sku), "quantity": units as f64, "unit": 1, "unit_price": decimal("10")});
        let sale = self.create(
            "sale.sale",
            json!({
                "party": party, "invoice_address": address, "shipment_address": address,
                "warehouse": self.location(warehouse.code), "currency": 1, "payment_term": self.payment_term(),
                "invoice_method": "order", "shipment_method": "order", "shipment_cost_method": null,
                "lines": [["create", [line]]],
            }),
        );
        for step in ["quote", "confirm", "process"] {
            self.call(&format!("sale.sale.{step}"), json!([[sale]]));
        }
        sale
    }

    /// Goods are ordered from a supplier and arrive.
    pub fn receive(&self, warehouse: Warehouse, sku: &str, units: i64) {
        let (party, address) = self.party("SUPPLIER");
        let at = self.location(warehouse.code);
        let line = json!({"type": "line", "product": self.product(sku), "quantity": units as f64, "unit": 1, "unit_price": decimal("5")});
        let purchase = self.create(
            "purchase.purchase",
            json!({
                "party": party, "invoice_address": address, "warehouse": at, "currency": 1,
                "payment_term": self.payment_term(), "invoice_method": "order", "lines": [["create", [line]]],
            }),
        );
        for step in ["quote", "confirm", "process"] {
            self.call(&format!("purchase.purchase.{step}"), json!([[purchase]]));
        }
        let moves = self.ids("stock.move", json!([["purchase", "=", purchase]]));
        let shipment = self.create(
            "stock.shipment.in",
            json!({
                "supplier": party, "warehouse": at, "warehouse_input": self.location(warehouse.input),
                "warehouse_storage": self.location(warehouse.storage), "incoming_moves": [["add", moves]],
            }),
        );
        for step in ["receive", "do"] {
            self.call(&format!("stock.shipment.in.{step}"), json!([[shipment]]));
        }
        self.must_be_done("stock.shipment.in", &json!([shipment]));
    }

    /// Goods go from one warehouse to the other, over the place for what is on the way.
    pub fn transfer(&self, from: Warehouse, to: Warehouse, sku: &str, units: i64) {
        let (from, to) = (self.location(from.storage), self.location(to.storage));
        let goods = json!({"product": self.product(sku), "quantity": units as f64, "unit": 1, "from_location": from, "to_location": to});
        let shipment = self.create(
            "stock.shipment.internal",
            json!({"from_location": from, "to_location": to, "moves": [["create", [goods]]]}),
        );
        for step in ["wait", "assign_force", "pack", "ship", "do"] {
            self.call(
                &format!("stock.shipment.internal.{step}"),
                json!([[shipment]]),
            );
        }
        self.must_be_done("stock.shipment.internal", &json!([shipment]));
    }

    /// Somebody counts.
    pub fn count(&self, warehouse: Warehouse, sku: &str, units: i64) {
        let line = json!({"product": self.product(sku), "quantity": units as f64});
        let inventory = self.create(
            "stock.inventory",
            json!({"location": self.location(warehouse.storage), "date": self.today(), "empty_quantity": "keep", "lines": [["create", [line]]]}),
        );
        self.call("stock.inventory.confirm", json!([[inventory]]));
        self.must_be_done("stock.inventory", &json!([inventory]));
    }

    /// A customer buys at the till of the store.
    pub fn ring_up(&self, sku: &str, units: i64) {
        let till = &self.ids("sale.point", json!([["name", "=", "Till 1"]]))[0];
        let line = json!({"product": self.product(sku), "quantity": units as f64, "unit_list_price": decimal("10"), "unit_gross_price": decimal("12")});
        let sale = self.create(
            "sale.point.sale",
            json!({"point": till, "lines": [["create", [line]]]}),
        );
        let method = &self.ids("sale.point.payment.method", json!([]))[0];
        let amount = self.field("sale.point.sale", &sale, "total");
        self.create(
            "sale.point.payment",
            json!({"sale": sale, "method": method, "amount": amount}),
        );
        for step in ["process", "post"] {
            self.call(&format!("sale.point.sale.{step}"), json!([[sale]]));
        }
        assert_eq!(self.field("sale.point.sale", &sale, "state"), "posted");
    }

    /// The web shop with this name; opened where there is none.
    pub fn web_shop(&self, name: &str) {
        let found = self.call("web.shop.search", json!([[["name", "=", name]]]));
        if found == json!([]) {
            let warehouse = self.location("WH");
            let values = json!({"name": name, "company": 1, "currency": 1, "warehouses": [["add", [warehouse]]]});
            self.create("web.shop", values);
        }
    }

    /// A currency beside the company's own, and what its books need for it; a product that stands for
    /// delivery.
    pub fn sells_abroad(&self) {
        let euro = json!([[["code", "=", "EUR"]]]);
        if self.call("currency.currency.search", euro) == json!([]) {
            let day = json!({"__class__": "date", "year": 2020, "month": 1, "day": 1});
            let rate = json!({"date": day, "rate": decimal("0.9")});
            let values = json!({"name": "Euro", "code": "EUR", "symbol": "EUR", "digits": 2, "rounding": decimal("0.01"), "rates": [["create", [rate]]]});
            self.create("currency.currency", values);
        }
        let account = |kind: &str| {
            let domain = json!([[format!("type.{kind}"), "=", true], ["closed", "!=", true]]);
            self.ids("account.account", domain)[0].clone()
        };
        let accounts = json!({"currency_exchange_debit_account": account("expense"), "currency_exchange_credit_account": account("revenue")});
        self.call("account.configuration.write", json!([[1], accounts]));
        let known = self.call(
            "product.product.search",
            json!([[["code", "=", "DELIVERY"]]]),
        );
        if known == json!([]) {
            let category =
                self.ids("product.category", json!([["accounting", "=", true]]))[0].clone();
            let unit = self.ids("product.uom", json!([["name", "=", "Unit"]]))[0].clone();
            let values = json!({
                "name": "Delivery", "code": "DELIVERY", "type": "service", "default_uom": unit, "sale_uom": unit, "salable": true,
                "list_price": decimal("0"), "account_category": category, "products": [["create", [{}]]],
            });
            self.create("product.template", values);
        }
    }

    /// Sales that an order became.
    pub fn sales_of(&self, order: &str) -> Vec<Value> {
        let found = self.call("sale.sale.search", json!([[["web_id", "=", order]]]));
        found.as_array().expect("ids").clone()
    }

    /// A field of the one sale that an order became.
    pub fn of_sale(&self, order: &str, field: &str) -> Value {
        let sales = self.sales_of(order);
        assert_eq!(sales.len(), 1, "{order}: {sales:?}");
        self.field("sale.sale", &sales[0], field)
    }

    /// How many parties have this code.
    pub fn parties(&self, code: &str) -> usize {
        let found = self.call("party.party.search", json!([[["code", "=", code]]]));
        found.as_array().expect("ids").len()
    }

    /// A step of the sale of an order.
    pub fn press(&self, order: &str, step: &str) {
        self.call(&format!("sale.sale.{step}"), json!([self.sales_of(order)]));
    }

    /// The warehouse sends what was ordered.
    pub fn fulfil(&self, order: &str, tracking: &str) {
        let shipments = self.of_sale(order, "shipments");
        let reference = json!({"reference": tracking});
        for step in ["assign_force", "pick", "pack"] {
            self.call(&format!("stock.shipment.out.{step}"), json!([shipments]));
        }
        self.call("stock.shipment.out.write", json!([shipments, reference]));
        self.call("stock.shipment.out.do", json!([shipments]));
        self.must_be_done("stock.shipment.out", &shipments);
    }

    /// Its invoices go to the customer.
    pub fn bill(&self, order: &str) {
        let invoices = self.of_sale(order, "invoices");
        self.call("account.invoice.post", json!([invoices]));
    }

    /// Units of the first line come back, are put on the shelf and credited.
    pub fn take_back_of(&self, order: &str, units: i64) {
        let sale = &self.sales_of(order)[0];
        let made = self.wizard("sale.return_sale", "return_", "sale.sale", sale);
        let back = made["actions"][0][1]["res_id"][0].clone();
        let lines = self.field("sale.sale", &back, "lines");
        let (first, others) = lines
            .as_array()
            .and_then(|l| l.split_first())
            .expect("lines");
        self.call("sale.line.delete", json!([others]));
        let quantity = json!({"quantity": -(units as f64)});
        self.call("sale.line.write", json!([[first], quantity]));
        for step in ["quote", "confirm"] {
            self.call(&format!("sale.sale.{step}"), json!([[back]]));
        }
        let returns = self.field("sale.sale", &back, "shipment_returns");
        for step in ["receive", "do"] {
            self.call(
                &format!("stock.shipment.out.return.{step}"),
                json!([returns]),
            );
        }
        self.must_be_done("stock.shipment.out.return", &returns);
        let notes = self.field("sale.sale", &back, "invoices");
        self.call("account.invoice.post", json!([notes]));
    }

    fn wizard(&self, name: &str, state: &str, model: &str, id: &Value) -> Value {
        let session = self.raw(&format!("wizard.{name}.create"), json!([self.context]));
        let mut context = self.context.clone();
        context["active_model"] = json!(model);
        context["active_id"] = id.clone();
        context["active_ids"] = json!([id]);
        let parameters = json!([session[0], {"start": {}}, state, context]);
        self.raw(&format!("wizard.{name}.execute"), parameters)
    }

    fn product(&self, sku: &str) -> Value {
        self.ids("product.product", json!([["code", "=", sku]]))[0].clone()
    }

    fn location(&self, code: &str) -> Value {
        self.ids("stock.location", json!([["code", "=", code]]))[0].clone()
    }

    fn party(&self, code: &str) -> (Value, Value) {
        let party = self.ids("party.party", json!([["code", "=", code]]))[0].clone();
        let address = self.field("party.party", &party, "addresses")[0].clone();
        (party, address)
    }

    fn payment_term(&self) -> Value {
        self.ids("account.invoice.payment_term", json!([]))[0].clone()
    }

    /// Today, by the ERP's calendar.
    fn today(&self) -> Value {
        self.call("ir.date.today", json!([]))
    }

    fn must_be_done(&self, model: &str, ids: &Value) {
        for id in ids.as_array().expect("documents") {
            assert_eq!(self.field(model, id, "state"), "done", "{model} {id}");
        }
        assert_ne!(ids, &json!([]), "{model}: there is none");
    }

    fn create(&self, model: &str, values: Value) -> Value {
        self.call(&format!("{model}.create"), json!([[values]]))[0].clone()
    }

    fn ids(&self, model: &str, domain: Value) -> Vec<Value> {
        let found = self.call(&format!("{model}.search"), json!([domain]));
        let found = found.as_array().expect("ids").clone();
        assert!(!found.is_empty(), "{model}: none is {domain}");
        found
    }

    fn field(&self, model: &str, id: &Value, name: &str) -> Value {
        self.call(&format!("{model}.read"), json!([[id], [name]]))[0][name].clone()
    }

    fn call(&self, method: &str, parameters: Value) -> Value {
        let mut parameters = parameters.as_array().expect("parameters").clone();
        parameters.push(self.context.clone());
        self.raw(&format!("model.{method}"), parameters.into())
    }

    fn raw(&self, method: &str, parameters: Value) -> Value {
        self.calls.set(self.calls.get() + 1);
        let request = self.http.post(format!("{}/tryton/rpc/", url("tryton")));
        let request = request.header("authorization", &self.authorization);
        let body = json!({"id": self.calls.get(), "method": method, "params": parameters});
        let answer = request.json(&body).send().expect("the ERP answers");
        let status = answer.status();
        let mut answer: Value = answer.json().expect("JSON");
        assert!(
            status.is_success() && answer["error"].is_null(),
            "{method} {parameters}: {status} {answer}"
        );
        match answer.get_mut("result") {
            Some(result) => result.take(),
            None => answer,
        }
    }
}

fn decimal(text: &str) -> Value {
    json!({"__class__": "Decimal", "decimal": text})
}
