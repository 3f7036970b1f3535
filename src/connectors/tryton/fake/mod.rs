//! A stand-in for Tryton: its JSON-RPC over tables that people in shops and warehouses write to.
//!
//! It is as strict as the server (trytond 8.2): a model, field or method that does not exist is the
//! error that Tryton answers, a call without a session is a 401. And it has the same traps: all rows
//! of a transaction carry the time of its start, rows of a transaction that is still open appear
//! later with that old stamp, ids of one that was given up are never used, and a count is moves.

mod acts;
mod counts;
mod desk;
mod sales;
mod store;

use crate::connectors::fake::{FakeAnswer, FakeApi, FakeRequest, FakeServer};
use crate::pipeline::{Fake, FakeCall, FakeFault, FakeOptions};
use acts::Shop;
use base64::Engine as _;
use serde_json::{Value, json};
use std::io;
use store::{Query, Refused};

const USER: &str = "crossdock";
const PASSWORD: &str = "stand-in";
const TOKEN: &str = "stand-in-session";
const DATABASE: &str = "stand-in";
/// Rows of one call, as `records_limit` of a server's configuration.
const ROWS_MAX: usize = 2_000;

struct Api {
    shop: Shop,
    /// Whether only calls that change something show faults.
    faults_on_changes: bool,
}

pub(super) struct TrytonFake(FakeServer<Api>);

pub(super) fn start(options: &FakeOptions) -> io::Result<Box<dyn Fake>> {
    let api = Api {
        shop: Shop::open(options),
        faults_on_changes: false,
    };
    Ok(Box::new(TrytonFake(FakeServer::start(api)?)))
}

impl FakeApi for Api {
    fn changes(&self, request: &FakeRequest) -> bool {
        let method = request.body["method"].as_str().unwrap_or_default();
        let called = method
            .strip_prefix("model.")
            .and_then(|m| m.rsplit_once('.'));
        called.is_some_and(|(model, method)| sales::changes(model, method))
    }

    fn fails(&self, request: &FakeRequest) -> bool {
        if self.faults_on_changes {
            return self.changes(request);
        }
        let method = request.body["method"].as_str().unwrap_or_default();
        method.starts_with("model.") && !method.starts_with("model.res.user.")
    }

    fn unauthorised(&self) -> FakeAnswer {
        FakeAnswer::new(401, Value::Null)
    }

    fn answer(&mut self, request: &FakeRequest) -> FakeAnswer {
        if request.path != format!("/{DATABASE}/rpc/") {
            return FakeAnswer::new(404, json!("no such database"));
        }
        let method = request.body["method"].as_str().unwrap_or_default();
        let params = request.body["params"]
            .as_array()
            .map_or(&[][..], Vec::as_slice);
        let result = if method == "common.db.login" {
            let right = params.first().is_some_and(|u| u == USER)
                && params.get(1).is_some_and(|p| p["password"] == PASSWORD);
            if !right {
                return self.unauthorised();
            }
            json!([1, TOKEN, null])
        } else if !is_authorised(request) {
            return self.unauthorised();
        } else {
            match self.call(method, params) {
                Ok(result) => result,
                Err(Refused::Method) => return FakeAnswer::new(403, json!("Forbidden")),
                Err(Refused::Error(kind, detail)) => {
                    return FakeAnswer::new(
                        200,
                        json!({"id": request.body["id"], "error": [kind, detail]}),
                    );
                }
            }
        };
        FakeAnswer::new(200, json!({"id": request.body["id"], "result": result}))
    }
}

fn is_authorised(request: &FakeRequest) -> bool {
    let session = format!("{USER}:1:{TOKEN}");
    let session = base64::engine::general_purpose::STANDARD.encode(session);
    request.headers.get("authorization") == Some(&format!("Session {session}"))
}

impl Api {
    fn call(&mut self, method: &str, params: &[Value]) -> Result<Value, Refused> {
        if method == "model.res.user.get_preferences" {
            return Ok(
                json!({"company": 1, "company.rec_name": "Stand-in", "companies": [1], "language": "en"}),
            );
        }
        let (model, method) = method
            .strip_prefix("model.")
            .and_then(|m| m.rsplit_once('.'))
            .ok_or(Refused::Method)?;
        // The context comes last, and a call without one is refused by the server.
        let (context, params) = params
            .split_last()
            .filter(|(context, _)| context.is_object())
            .ok_or_else(|| Refused::error("missing context"))?;
        let archived = context["active_test"] == false;
        if sales::changes(model, method) {
            return self.shop.change(model, method, params, context);
        }
        let store = &self.shop.store;
        match (method, params) {
            ("fields_get", [names]) => {
                let names = names.as_array().into_iter().flatten();
                let names = names.filter_map(Value::as_str);
                let known = names.filter(|name| store.field(model, name).is_ok());
                Ok(known.map(|n| (n.to_owned(), json!({}))).collect())
            }
            ("search_read", [domain, offset, limit, order, fields]) => {
                let query = Query {
                    model,
                    domain,
                    order,
                    offset: offset.as_u64().unwrap_or_default() as usize,
                    limit: limit.as_u64().map_or(ROWS_MAX, |l| l as usize),
                    archived,
                };
                if query.limit > ROWS_MAX {
                    return Err(Refused::error("Too many records"));
                }
                let rows = store.search(&query)?;
                store.read(model, &rows, fields, context)
            }
            ("search_count", [domain]) => {
                let query = Query {
                    model,
                    domain,
                    order: &Value::Null,
                    offset: 0,
                    limit: usize::MAX,
                    archived,
                };
                Ok(json!(store.search(&query)?.len()))
            }
            ("read", [ids, fields]) => {
                let ids: Vec<i64> = ids
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_i64)
                    .collect();
                store.read(model, &ids, fields, context)
            }
            ("search_read" | "search_count" | "read", _) => {
                store.fields(model)?;
                Err(Refused::error("wrong number of arguments"))
            }
            _ => {
                store.fields(model)?;
                Err(Refused::Method)
            }
        }
    }
}

impl Fake for TrytonFake {
    fn url(&self) -> String {
        self.0.url()
    }
    fn settings(&self) -> Value {
        json!({
            "url": self.0.url(), "database": DATABASE, "username": USER,
            "password": self.0.secret_reference(PASSWORD),
            "order_points_are_safety_stock": true, "correct_stock": true, "timeout_ms": 5_000,
            "channels": {"web": {"shop": "web", "walk_in_party": "WALK-IN"}},
            "payments": {"journal": "PSP", "clearing_account": "CLEARING", "receivable_account": "RECEIVABLE"},
            "charges": {"SHIPPING": "DELIVERY"}, "taxes": {"STANDARD": "VAT 20%"},
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
        self.0.api().shop.books()
    }
    /// One of, each one transaction:
    ///
    /// - `{"receive" | "sell" | "ship" | "return" | "scrap": SKU, "location": WAREHOUSE, "quantity": N}`
    /// - `{"count": SKU, "location": WAREHOUSE, "quantity": N}`
    /// - `{"transfer": SKU, "from": WAREHOUSE, "to": WAREHOUSE, "quantity": N}`, at once; with
    ///   `"in_transit": true` goods leave and `{"arrive": ID}` brings them
    /// - `{"plan": SKU, "location": WAREHOUSE, "quantity": N}`: a sale not yet done; then `{"do": ID}`,
    ///   `{"cancel": ID}` or `{"delete": ID}` of a move
    /// - `{"touch": MODEL, "id": ID}`: something is written that no event tells of
    /// - `{"write": MODEL, "id": ID, "values": {…}}`, `{"create": MODEL, "values": {…}}`
    ///
    /// - `{"sales": REFERENCE}`: the sales of that reference and their lines, to look at
    /// - `{"press": ORDER, "button": NAME}` of a sale; `{"fulfil": ORDER, "buttons": […], "reference": TEXT}` of its
    ///   shipments, `{"take_back": …}` of its returns; `{"bill": ORDER}` posts its invoices
    /// - `{"return_of": ORDER, "line": NOTE, "quantity": N}`: a sale that takes goods back;
    ///   `{"credit": ORDER}`: a credit note of its invoices. ORDER is a web id, or the id of a sale
    /// - `{"credited": REFERENCE}`: what credit notes of that reference come to
    /// - `{"entries": true}`: the moves of the ledger, to look at
    /// - `{"party": CODE}`: name, address, e-mail and phone of a party, to look at
    /// - `{"faults_on": "changes"}`: from now on only calls that change something show faults
    ///
    /// `"in": NAME` makes it part of a transaction begun by `{"begin": NAME}`, whose rows appear with
    /// `{"commit": NAME}` and never with `{"rollback": NAME}`. `"at": MICROSECONDS` sets the clock,
    /// which otherwise goes on a second with each transaction. Answers the ids of what was written.
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
