//! A stand-in for Stripe's API, over books that hold to what the real one enforces.
//!
//! Captures and refunds stay within what was promised and taken; a key has one effect and its answer
//! is given again, errors included; other parameters under a known key are refused; so are parameters
//! that the API does not have. What happens, also by the acts of customers, banks and the provider,
//! is written to a ledger that [`Fake::books`] shows under `ledger`, and becomes events, which are
//! sent as signed webhooks when an act says so: late, shuffled, repeated or not at all.

mod acts;
mod reports;
mod store;

use crate::connectors::fake::{FakeAnswer, FakeApi, FakeRequest, FakeServer};
use crate::pipeline::{Clock, Fake, FakeCall, FakeFault, FakeOptions, SystemClock};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io;
use store::{CHANNEL, Refused, Store, refused};

/// Key of the account, and secret of its webhooks.
const SECRET: &str = "sk_test_of_a_stand_in";
/// How long before now the account begins, in seconds: what happens is in the past.
const BEGUN_S: i64 = 20 * 86_400;

struct Api {
    store: Store,
    /// Requests by idempotency key: what was asked, and what was answered.
    keys: BTreeMap<String, (Value, u16, Value)>,
}

pub(super) struct PspFake(FakeServer<Api>);

pub(super) fn start(_options: &FakeOptions) -> io::Result<Box<dyn Fake>> {
    let api = Api {
        store: Store::new(SystemClock.now().0 / 1_000_000 - BEGUN_S),
        keys: BTreeMap::new(),
    };
    Ok(Box::new(PspFake(FakeServer::start(api)?)))
}

impl FakeApi for Api {
    fn changes(&self, request: &FakeRequest) -> bool {
        request.method == "POST"
    }

    fn unauthorised(&self) -> FakeAnswer {
        error(&Refused {
            status: 401,
            code: "api_key_invalid",
            message: "Invalid API Key provided.".to_owned(),
        })
    }

    fn answer(&mut self, request: &FakeRequest) -> FakeAnswer {
        let given = request.headers.get("authorization").map(String::as_str);
        if given != Some(&format!("Bearer {SECRET}")) {
            return self.unauthorised();
        }
        match request.method.as_str() {
            "GET" => answer(self.read(request)),
            "POST" => self.change(request),
            _ => error(&refused("method", "Unrecognized request URL.")),
        }
    }
}

impl Api {
    fn read(&self, request: &FakeRequest) -> Result<Value, Refused> {
        let path = request.path.strip_prefix("/v1/").unwrap_or_default();
        let (kind, id) = path.split_once('/').unwrap_or((path, ""));
        let store = &self.store;
        let (objects, filters): (&BTreeMap<String, Value>, &[&str]) = match kind {
            "charges" => (&store.charges, &["payment_intent"]),
            "refunds" => (&store.refunds, &["charge", "payment_intent"]),
            "events" => (&store.events, &["type", "types[]"]),
            "payouts" => (&store.payouts, &["status"]),
            "balance_transactions" => (&store.transactions, &["payout", "type", "source"]),
            _ => return Err(missing(&request.path)),
        };
        if !id.is_empty() {
            return objects.get(id).cloned().ok_or_else(|| missing(id));
        }
        let mut found: Vec<&Value> = objects.values().rev().collect();
        let (mut limit, mut expands) = (10, false);
        let mut one_of: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (name, value) in &request.query {
            let number = || {
                value
                    .parse::<i64>()
                    .map_err(|_| refused("parameter_invalid_integer", name))
            };
            match name.as_str() {
                "limit" => limit = number()?,
                "created[gt]" => {
                    let bound = number()?;
                    found.retain(|o| o["created"].as_i64() > Some(bound));
                }
                "created[lte]" => {
                    let bound = number()?;
                    found.retain(|o| o["created"].as_i64() <= Some(bound));
                }
                "starting_after" => {
                    let at = found.iter().position(|o| o["id"] == *value);
                    let at = at.ok_or_else(|| missing(value))?;
                    found.drain(..=at);
                }
                "expand[]" if value == "data.source" => expands = true,
                known if filters.contains(&known) => one_of.entry(known).or_default().push(value),
                unknown => {
                    let message = format!("Received unknown parameter: {unknown}");
                    return Err(refused("parameter_unknown", message));
                }
            }
        }
        if !(1..=100).contains(&limit) {
            return Err(refused(
                "parameter_invalid_integer",
                "limit is from 1 to 100",
            ));
        }
        for (name, values) in one_of {
            let field = if name == "types[]" { "type" } else { name };
            found.retain(|o| o[field].as_str().is_some_and(|v| values.contains(&v)));
        }
        let has_more = found.len() > limit as usize;
        let data = found.into_iter().take(limit as usize);
        let data: Vec<Value> = match expands {
            true => data.map(|o| self.expanded(o)).collect(),
            false => data.cloned().collect(),
        };
        Ok(json!({"object": "list", "url": request.path, "has_more": has_more, "data": data}))
    }

    fn expanded(&self, transaction: &Value) -> Value {
        let mut expanded = transaction.clone();
        let source = transaction["source"].as_str().unwrap_or_default();
        let store = &self.store;
        let all = [
            &store.charges,
            &store.refunds,
            &store.disputes,
            &store.payouts,
        ];
        if let Some(object) = all.iter().find_map(|objects| objects.get(source)) {
            expanded["source"] = object.clone();
        }
        if let Some(fields) = expanded.as_object_mut() {
            fields.remove("payout");
        }
        expanded
    }

    fn change(&mut self, request: &FakeRequest) -> FakeAnswer {
        let asked = json!([request.path, request.body]);
        let key = request.headers.get("idempotency-key").cloned();
        if let Some(known) = key.as_ref().and_then(|key| self.keys.get(key)) {
            let (before, status, body) = known.clone();
            if before != asked {
                self.store.note(
                    "refused",
                    "refund",
                    json!({"key": key, "reason": "idempotency_error"}),
                );
                return FakeAnswer::new(
                    400,
                    json!({"error": {
                        "type": "idempotency_error",
                        "message": "Keys for idempotent requests can only be used with the same parameters they were first used with.",
                    }}),
                );
            }
            self.store.note(
                "repeated",
                "refund",
                json!({"key": key, "reference": body["id"]}),
            );
            let mut replayed = FakeAnswer::new(status, body);
            replayed
                .headers
                .push(("idempotent-replayed", "true".to_owned()));
            return replayed;
        }
        let result = self.execute(request);
        if let Err(refused) = &result {
            let reason = refused.code;
            self.store
                .note("refused", "refund", json!({"key": key, "reason": reason}));
        }
        let answered = answer(result);
        // What was not begun is not remembered.
        let begun = answered.status != 404 && answered.body["error"]["code"] != "parameter_unknown";
        if let Some(key) = key.filter(|_| begun) {
            let body = answered.body.clone();
            self.keys.insert(key, (asked, answered.status, body));
        }
        answered
    }

    fn execute(&mut self, request: &FakeRequest) -> Result<Value, Refused> {
        let form = &request.body;
        let integer = |name: &str| match form[name].as_str() {
            None => Ok(None),
            Some(text) => text.parse::<i64>().map(Some).map_err(|_| {
                refused(
                    "parameter_invalid_integer",
                    format!("Invalid integer: {name}"),
                )
            }),
        };
        let mut metadata = json!({});
        for (name, value) in form.as_object().into_iter().flatten() {
            let key = name
                .strip_prefix("metadata[")
                .and_then(|n| n.strip_suffix(']'));
            match (key, name.as_str()) {
                (Some(key), _) => metadata[key] = value.clone(),
                (None, "charge" | "amount" | "reason" | "amount_to_capture") => {}
                (None, unknown) => {
                    let message = format!("Received unknown parameter: {unknown}");
                    return Err(refused("parameter_unknown", message));
                }
            }
        }
        if request.path == "/v1/refunds" {
            let charge = form["charge"].as_str();
            let charge =
                charge.ok_or_else(|| refused("parameter_missing", "Must provide charge."))?;
            return self.store.refund(charge, integer("amount")?, metadata);
        }
        let charge = request.path.strip_prefix("/v1/charges/");
        match charge.and_then(|rest| rest.strip_suffix("/capture")) {
            Some(charge) => self.store.capture(charge, integer("amount")?),
            None => Err(missing(&request.path)),
        }
    }
}

fn missing(what: &str) -> Refused {
    Refused {
        status: 404,
        code: "resource_missing",
        message: format!("No such object: '{what}'"),
    }
}

fn answer(result: Result<Value, Refused>) -> FakeAnswer {
    match result {
        Ok(object) => FakeAnswer::new(200, object),
        Err(refused) => error(&refused),
    }
}

fn error(refused: &Refused) -> FakeAnswer {
    let body = json!({"error": {
        "type": "invalid_request_error", "code": refused.code, "message": refused.message,
    }});
    FakeAnswer::new(refused.status, body)
}

impl Fake for PspFake {
    fn url(&self) -> String {
        self.0.url()
    }
    fn settings(&self) -> Value {
        json!({
            "url": self.0.url(), "api_key": self.0.secret_reference(SECRET), "channel": CHANNEL,
            "lag_s": 1, "poll_s": 0,
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
    fn calls_taken(&self) -> u64 {
        self.0.calls_taken()
    }
    /// `charges`, `refunds` and `payouts` by id, and the `ledger` in order.
    fn books(&self) -> Value {
        let api = self.0.api();
        let store = &api.store;
        json!({
            "charges": store.charges, "refunds": store.refunds, "payouts": store.payouts,
            "ledger": store.ledger,
        })
    }
    fn act(&self, action: &Value) -> Result<Value, String> {
        acts::act(&self.0, action)
    }
}
