//! A stand-in for Odoo: its JSON-2 over tables that people in shops and warehouses write to.
//!
//! It is as strict as the server (Odoo 19): a model or field that does not exist is the error that Odoo
//! answers, a wrong key is a 401. And it has the same traps: stamps are shown and compared in whole
//! seconds while rows sort by microseconds, several transactions have one second, rows of a transaction that
//! is still open appear later with its old stamp, and what is empty is `false`.

mod acts;
mod ledger;
mod pickings;
mod sales;
mod store;
mod tills;

use crate::connectors::erp::Tables;
use crate::connectors::fake::{FakeAnswer, FakeApi, FakeRequest, FakeServer};
use crate::pipeline::{Fake, FakeCall, FakeFault, FakeOptions};
use acts::Shop;
use sales::SALE_LINE;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::io;
use store::{Query, Refused};

const KEY: &str = "stand-in-key";

struct Api {
    shop: Shop,
    /// Whether only calls that change something show faults.
    faults_on_changes: bool,
}

pub(super) struct OdooFake(FakeServer<Api>);

pub(super) fn start(options: &FakeOptions) -> io::Result<Box<dyn Fake>> {
    let api = Api {
        shop: Shop::open(options),
        faults_on_changes: false,
    };
    Ok(Box::new(OdooFake(FakeServer::start(api)?)))
}

/// Model and method of a call.
fn called(request: &FakeRequest) -> Option<(&str, &str)> {
    request.path.strip_prefix("/json/2/")?.split_once('/')
}

impl FakeApi for Api {
    fn changes(&self, request: &FakeRequest) -> bool {
        called(request).is_some_and(|(_, method)| sales::changes(method))
    }

    fn fails(&self, request: &FakeRequest) -> bool {
        if self.faults_on_changes {
            return self.changes(request);
        }
        called(request).is_some_and(|(model, _)| model != "res.users")
    }

    fn unauthorised(&self) -> FakeAnswer {
        said(&Refused(
            401,
            "werkzeug.exceptions.Unauthorized",
            "Invalid apikey".into(),
        ))
    }

    fn answer(&mut self, request: &FakeRequest) -> FakeAnswer {
        let key = request.headers.get("authorization").map(String::as_str);
        if key != Some(&format!("Bearer {KEY}")) {
            return self.unauthorised();
        }
        let Some((model, method)) = called(request) else {
            return FakeAnswer::new(404, json!("<html>Not Found</html>"));
        };
        match self.call(model, method, &request.body) {
            Ok(answer) => FakeAnswer::new(200, answer),
            Err(refused) => said(&refused),
        }
    }
}

fn said(Refused(status, name, message): &Refused) -> FakeAnswer {
    let body = json!({"name": name, "message": message, "arguments": [message], "context": {}, "debug": "Traceback"});
    FakeAnswer::new(*status, body)
}

impl Api {
    fn call(&mut self, model: &str, method: &str, arguments: &Value) -> Result<Value, Refused> {
        let model = store::model(model)?;
        if sales::changes(method) {
            return self.shop.change(model, method, arguments);
        }
        let tables = self.tables(model);
        let archived = arguments["context"]["active_test"] == false;
        let query = Query {
            model,
            domain: &arguments["domain"],
            order: arguments["order"].as_str().unwrap_or_default(),
            limit: arguments["limit"]
                .as_u64()
                .map_or(usize::MAX, |l| l as usize),
            archived,
        };
        match method {
            "context_get" if model == "res.users" => {
                Ok(json!({"lang": "en_US", "tz": false, "uid": 1}))
            }
            "fields_get" => {
                let names = arguments["allfields"].as_array().into_iter().flatten();
                let names = names.filter_map(Value::as_str);
                let known = names.filter(|name| store::field(model, name).is_ok());
                Ok(known.map(|n| (n.to_owned(), json!({}))).collect())
            }
            "search_read" => {
                let found = store::search(&tables, &query)?;
                store::read(&tables, model, &found, &arguments["fields"])
            }
            "formatted_read_group" => {
                if arguments["groupby"] != json!([])
                    || arguments["aggregates"] != json!(["__count", "id:sum"])
                {
                    return Err(Refused(
                        500,
                        "builtins.ValueError",
                        "Invalid aggregate".into(),
                    ));
                }
                let found = store::search(&tables, &query)?;
                let sum = match found.is_empty() {
                    true => json!(false),
                    false => json!(found.iter().sum::<i64>()),
                };
                Ok(
                    json!([{"__extra_domain": [[1, "=", 1]], "__count": found.len(), "id:sum": sum}]),
                )
            }
            "search_count" => Ok(json!(store::search(&tables, &query)?.len())),
            _ => Err(Refused::not_found(format!(
                "the method '{model}.{method}' does not exist"
            ))),
        }
    }

    /// The tables, with those that are reckoned.
    fn tables(&self, model: &'static str) -> Cow<'_, Tables> {
        let tables = &self.shop.books.tables;
        let reckoned = match model {
            "stock.quant" => store::quants(tables),
            SALE_LINE => self.shop.lines_with_delivered(),
            _ => return Cow::Borrowed(tables),
        };
        let mut all = tables.clone();
        all.insert(model, reckoned);
        Cow::Owned(all)
    }
}

impl Fake for OdooFake {
    fn url(&self) -> String {
        self.0.url()
    }
    fn settings(&self) -> Value {
        json!({
            "url": self.0.url(), "api_key": self.0.secret_reference(KEY), "timeout_ms": 5_000,
            "channels": {"web": {"warehouse": "Warehouse", "walk_in_customer": "WALK-IN"}},
            "charges": {"SHIPPING": "DELIVERY"}, "taxes": {"STANDARD": "VAT 20%"}, "correct_stock": true,
            "order_points_are_safety_stock": true,
            "payments": {"journal": "MISC", "clearing_account": "101403", "receivable_account": "121000"},
            "tills": {"Store": {"channel": "store"}},
        })
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
    /// Stock by SKU and warehouse, as the ERP's own reports sum it up.
    fn books(&self) -> Value {
        self.0.api().shop.stock()
    }
    /// One of, each one transaction:
    ///
    /// - `{"receive" | "sell" | "ship" | "return" | "scrap": SKU, "location": WAREHOUSE, "quantity": N}`
    /// - `{"count": SKU, "location": WAREHOUSE, "quantity": N}`
    /// - `{"transfer": SKU, "from": WAREHOUSE, "to": WAREHOUSE, "quantity": N}`, at once; with
    ///   `"in_transit": true` goods leave and `{"arrive": ID}` brings them
    /// - `{"plan": SKU, "location": WAREHOUSE, "quantity": N}`: a sale not yet done; then `{"do": ID}`,
    ///   `{"cancel": ID}` or `{"delete": ID}` of a move's line
    /// - `{"touch": MODEL, "id": ID}`: something is written that no event tells of
    /// - `{"write": MODEL, "id": ID, "values": {…}}`, `{"create": MODEL, "values": {…}}`
    ///
    /// - `{"sales": REFERENCE}`: the sales of that reference and their lines, to look at
    /// - `{"press": ORDER, "button": NAME}` of a sale; `{"fulfil": ORDER, "buttons": […], "reference": TEXT}` of its
    ///   deliveries: `assign_force` reserves, `pick`, `pack`, and `do` sends
    /// - `{"bill": ORDER}` invoices what was delivered of a sale, or credits what came back of it; `{"bill": RETURN}`
    ///   does so by the picking; `{"credit": ORDER}` reverses its invoice
    /// - `{"return_of": ORDER, "line": NAME, "quantity": N}` opens a return, then `{"take_back": ID, "buttons": ["receive",
    ///   "do"]}`
    /// - `{"entries": true}` and `{"credited": REFERENCE}`: entries that are no invoices, and what credit notes of that
    ///   reference come to, to look at
    /// - `{"ring_up": {SKU: N, …}, "location": WAREHOUSE, "back": {SKU: N, …}, "of": RECEIPT, "paid": {METHOD: AMOUNT, …}}`:
    ///   a receipt of a till; what comes back was sold by that receipt
    /// - `{"party": REFERENCE}`: name, address, e-mail and phone of a contact, to look at
    /// - `{"faults_on": "changes"}`: from now on only calls that change something show faults
    ///
    /// `"in": NAME` makes it part of a transaction begun by `{"begin": NAME}`, whose rows appear with
    /// `{"commit": NAME}` and never with `{"rollback": NAME}`. `"at": MICROSECONDS` sets the clock,
    /// which otherwise goes on by 0.3 s with each transaction. Answers the ids of lines or rows.
    fn act(&self, action: &Value) -> Result<Value, String> {
        let mut api = self.0.api();
        if let Some(code) = action["party"].as_str() {
            return Ok(api.shop.party(code));
        }
        if action["faults_on"] == "changes" {
            api.faults_on_changes = true;
            return Ok(Value::Null);
        }
        api.shop.act(action)
    }
}
