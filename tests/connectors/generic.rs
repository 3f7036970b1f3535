//! Systems that are joined by configuration alone: deliveries become typed events, records become
//! requests, and what does not fit is named without touching its neighbours.

use super::build;
use super::inbox::MemoryInbox;
use super::sources::Reader;
use crossdock::connectors::fake::{FakeAnswer, FakeApi, FakeRequest, FakeServer};
use crossdock::connectors::{self, webhook};
use crossdock::contract::event::{
    Event, EventMeta, Fulfilment, PaymentKind, ShipmentState, ShipmentStatus, SinkOutcome,
    StockReason, StockState,
};
use crossdock::contract::topic;
use crossdock::domain::{Decimal, order_id};
use crossdock::pipeline::{
    Code, ConnectorDescriptor, Delivery, FakeFault, Headers, Inbound, Origin, Record, SourceRecord,
    Verdict,
};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const SECRET: &str = "the secret of a warehouse";

fn generic() -> &'static ConnectorDescriptor {
    connectors::find("http").expect("the kind")
}

/// A file with the secret, and the reference to it.
fn secret() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("secret");
    std::fs::write(&path, SECRET).expect("written");
    let reference = format!("${{file:{}}}", path.display());
    (folder, reference)
}

/// A warehouse of a third party: shipments with lines, movements in lists, payments at its desk.
fn warehouse(secret: &str) -> Value {
    json!({
        "webhook": {
            "listen": "127.0.0.1:0", "path": "/wms", "secrets": [secret], "inbox_keys": [secret],
        },
        "signature": {"header": "x-wms-signature", "delivery_id": {"pointer": "/message"}},
        "time_format": "%Y-%m-%d %H:%M:%S",
        "time_zone": "Europe/Berlin",
        "decimal_mark": ",",
        "ignore": [{"/type": ["ping"]}],
        "events": [
            {
                "topic": "retail.shipment.event.v1",
                "when": {"/type": ["shipment"]},
                "identity": ["/shipment/id", "/shipment/version"],
                "time": {"column": "/at"},
                "order": {"channel": {"constant": "web"}, "number": {"column": "/shipment/order"}},
                "fields": {
                    "shipmentId": {"column": "/shipment/id"},
                    "shipmentVersion": {"column": "/shipment/version"},
                    "nodeId": {"column": "/site", "map": {"HH": "dc-hamburg"}},
                    "nodeType": {"constant": "DC"},
                    "status": {"column": "/shipment/state", "map": {"out": "SHIPPED", "in work": "PICKED"}},
                },
                "lists": {"lines": {"each": "/shipment/lines", "fields": {
                    "lineId": {"column": "/line"}, "sku": {"column": "/article"},
                    "allocated": {"column": "/quantity"}, "picked": {"column": "/quantity"},
                    "short": {"constant": "0"}, "shipped": {"column": "/quantity"},
                    "delivered": {"constant": "0"}, "cancelled": {"constant": "0"},
                }}},
            },
            {
                "topic": "retail.stock.change.v1",
                "when": {"/type": ["moves"]},
                "each": "/moves",
                "identity": ["/no"],
                "time": {"column": "$/at"},
                "fields": {
                    "movementId": {"column": "/no"}, "sku": {"column": "/article"},
                    "locationId": {"constant": "dc-hamburg"}, "qty": {"column": "/quantity"},
                    "fromState": {"column": "/kind", "map": {"in": "SUPPLIER", "broken": "SELLABLE"}},
                    "toState": {"column": "/kind", "map": {"in": "SELLABLE", "broken": "DAMAGED"}},
                    "reason": {"column": "/kind", "map": {"in": "RECEIPT", "broken": "DAMAGE"}},
                },
            },
            {
                "topic": "retail.payment.event.v1",
                "when": {"/type": ["paid"]},
                "identity": ["/receipt"],
                "time": {"column": "/at"},
                "order": {"channel": {"constant": "web"}, "number": {"column": "/order"}},
                "fields": {
                    "paymentId": {"column": "/receipt"}, "paymentVersion": {"constant": "1"},
                    "kind": {"constant": "CAPTURED"}, "psp": {"constant": "desk"},
                    "pspReference": {"column": "/receipt"}, "tender": {"column": "/tender"},
                    "amount.amount": {"column": "/sum"}, "amount.currency": {"constant": "EUR"},
                },
            },
        ],
    })
}

async fn deliver(reader: &Reader, body: &Value) -> u16 {
    let body = body.to_string();
    let url = format!("http://{}/wms", reader.address().expect("an address"));
    let request = reqwest::Client::new().post(url);
    let request = request.header("x-wms-signature", webhook::sign(SECRET, body.as_bytes()));
    let answer = request.body(body).send().await.expect("an answer");
    answer.status().as_u16()
}

fn told(reader: &Reader) -> Vec<SourceRecord> {
    reader.records().into_iter().cloned().collect()
}

fn shipment(message: &str, version: i64, quantity: &str) -> Value {
    json!({"message": message, "type": "shipment", "site": "HH", "at": "2026-11-26 10:00:00", "shipment": {
        "id": "S-1", "version": version, "order": "1001", "state": "out",
        "lines": [{"line": "1", "article": "A|1", "quantity": quantity}, {"line": "2", "article": "B", "quantity": 1}],
    }})
}

#[tokio::test]
async fn deliveries_become_events_typed_by_their_contracts() {
    let (_folder, secret) = secret();
    let inbox = Arc::new(MemoryInbox::default());
    let mut reader = Reader::with_inbox(generic(), warehouse(&secret), inbox);
    assert_eq!(deliver(&reader, &shipment("m1", 3, "2,5")).await, 200);
    let moves = json!({"message": "m2", "type": "moves", "at": "2026-11-26 11:00:00", "moves": [
        {"no": 7, "kind": "in", "article": "A|1", "quantity": 10},
        {"no": 8, "kind": "broken", "article": "B", "quantity": "0,5"},
    ]});
    assert_eq!(deliver(&reader, &moves).await, 200);
    let paid = json!({"message": "m3", "type": "paid", "at": "2026-11-26 12:00:00", "order": "1001", "receipt": "R9", "sum": "1234,50", "tender": null});
    assert_eq!(deliver(&reader, &paid).await, 200);
    let ping = json!({"message": "m4", "type": "ping"});
    assert_eq!(deliver(&reader, &ping).await, 200);
    // Sent again, as senders do.
    assert_eq!(deliver(&reader, &moves).await, 200);
    reader.drain().await;
    let told = told(&reader);
    assert_eq!(told.len(), 4, "{told:#?}");
    let order = order_id("default", "web", "1001").to_string();
    let Event::ShipmentEvent(e) = &told[0].event else {
        panic!("{told:?}")
    };
    assert_eq!(
        (told[0].topic, told[0].key.as_str()),
        (topic::SHIPMENT_EVENT, order.as_str())
    );
    assert_eq!(
        (e.order_id.as_str(), e.node_id.as_str()),
        (order.as_str(), "dc-hamburg")
    );
    assert_eq!((e.status, e.shipment_version), (ShipmentStatus::Shipped, 3));
    assert_eq!(e.lines.len(), 2);
    assert_eq!(e.lines[0].shipped, "2.5".parse().expect("a number"));
    assert_eq!(e.meta.occurred_at.to_string(), "2026-11-26T09:00:00Z");
    let Event::StockChanged(e) = &told[1].event else {
        panic!("{told:?}")
    };
    assert_eq!(told[1].key, "A%7C1|dc-hamburg");
    assert_eq!(
        (e.from_state, e.to_state),
        (StockState::Supplier, StockState::Sellable)
    );
    assert_eq!((e.qty, e.reason), (Decimal::from(10), StockReason::Receipt));
    assert_eq!(e.uom, "EA", "the contract's own default");
    let Event::StockChanged(e) = &told[2].event else {
        panic!("{told:?}")
    };
    assert_eq!(e.qty, "0.5".parse().expect("a number"));
    assert_eq!(e.meta.source_position, 3);
    let Event::PaymentEvent(e) = &told[3].event else {
        panic!("{told:?}")
    };
    assert_eq!(
        (e.kind, e.amount.currency.as_str()),
        (PaymentKind::Captured, "EUR")
    );
    assert_eq!(e.amount.amount, "1234.5".parse().expect("a number"));
    assert_eq!(e.tender, None);
}

#[tokio::test]
async fn what_does_not_fit_is_named_and_its_neighbours_are_told() {
    let (_folder, secret) = secret();
    let inbox = Arc::new(MemoryInbox::default());
    let mut reader = Reader::with_inbox(generic(), warehouse(&secret), inbox);
    let mut bad = Vec::new();
    for (change, said) in [
        (
            json!({"/shipment/state": "lost"}),
            "status \"lost\" is not a word of the contract",
        ),
        (json!({"/at": "yesterday"}), "is not of the form"),
        (
            json!({"/shipment/version": "three"}),
            "shipmentVersion \"three\" is not a whole number",
        ),
        (
            json!({"/shipment/lines/1/quantity": "1.5"}),
            "lines 2: allocated \"1.5\" has a point",
        ),
        (
            json!({"/shipment/lines/0/article": null}),
            "lines 1: sku is empty or missing",
        ),
        (json!({"/shipment/order": null}), "order.number is empty"),
        (
            json!({"/shipment/id": null}),
            "/shipment/id, which identity names, is empty",
        ),
        (
            json!({"/shipment/lines": 1}),
            "lines: there is no list at /shipment/lines",
        ),
        (
            json!({"/type": "strange"}),
            "none of the declared events fits it",
        ),
    ] {
        let mut body = shipment(&format!("bad {}", bad.len()), 1, "1");
        for (path, value) in change.as_object().expect("changes") {
            *body.pointer_mut(path).expect("a place") = value.clone();
        }
        bad.push(said);
        assert_eq!(deliver(&reader, &body).await, 200);
        let good = shipment(&format!("good {}", bad.len()), bad.len() as i64, "1");
        assert_eq!(deliver(&reader, &good).await, 200);
    }
    reader.drain().await;
    assert_eq!(told(&reader).len(), bad.len());
    let rejects = reader.polls.iter().flat_map(|(_, _, b)| &b.rejects);
    for (reject, said) in rejects.zip(&bad) {
        assert_eq!(reject.fault.verdict, Verdict::Reject);
        assert!(
            reject.fault.message.contains(said),
            "{said}: {}",
            reject.fault
        );
        assert!(
            !reject.raw.windows(7).any(|w| w == b"article"),
            "a dead letter is sealed"
        );
    }
    let count = reader
        .polls
        .iter()
        .map(|(_, _, b)| b.rejects.len())
        .sum::<usize>();
    assert_eq!(count, bad.len());
}

#[tokio::test]
async fn a_restart_from_any_cursor_tells_the_same() {
    let (_folder, secret) = secret();
    let inbox = Arc::new(MemoryInbox::default());
    let settings = warehouse(&secret);
    let mut reader = Reader::with_inbox(generic(), settings.clone(), inbox.clone());
    for n in 0..12 {
        let message = format!("m{}", n % 9);
        assert_eq!(deliver(&reader, &shipment(&message, n % 9, "1")).await, 200);
        if n % 3 == 0 {
            reader.drain().await;
        }
        if n % 5 == 0 {
            reader.restart();
        }
    }
    reader.drain().await;
    assert_eq!(told(&reader).len(), 9);
    for (at, (shard, before, _)) in reader.polls.iter().enumerate() {
        let mut again = Reader::with_inbox(generic(), settings.clone(), inbox.clone());
        again
            .cursors
            .extend(before.clone().map(|c| (shard.clone(), c)));
        again.drain().await;
        let expected: Vec<SourceRecord> = reader.polls[at..]
            .iter()
            .flat_map(|(_, _, b)| b.records.clone())
            .collect();
        assert_eq!(told(&again), expected, "from {before:?}");
    }
}

#[test]
fn every_mistake_in_a_declared_mapping_is_told_at_once() {
    let (_folder, secret) = secret();
    let mut settings = warehouse(&secret);
    settings["events"] = json!([
        {"topic": "retail.shipment.event.v1", "identity": [], "time": {}, "fields": {"colour": {"column": "/c"}}},
        {"topic": "retail.nonsense.v1", "identity": ["/id"], "time": {"column": "/t"}},
        {"topic": "retail.payment.event.v1", "identity": ["/id"], "time": {"column": "/t"}, "lists": {"amount": {"each": "/a", "fields": {}}}},
    ]);
    let fault = (generic().build)("wms", settings).err().expect("refused");
    assert_eq!(
        (fault.verdict, fault.code),
        (Verdict::Halt, Code::Configuration)
    );
    for said in [
        "events.0: identity names nothing",
        "events.0: time needs one of column and constant",
        "has no field colour",
        "events.0: orderId must be given",
        "events.1: topic \"retail.nonsense.v1\" cannot be written",
        "events.2: amount is no list",
        "events.2: pspReference must be given",
    ] {
        assert!(fault.message.contains(said), "{said}: {fault}");
    }
    for (remove, said) in [
        ("signature", "webhook needs signature"),
        ("events", "webhook has no events"),
        ("webhook", "events need webhook"),
    ] {
        let mut settings = warehouse(&secret);
        settings.as_object_mut().expect("settings").remove(remove);
        let fault = (generic().build)("wms", settings).err().expect("refused");
        assert!(fault.message.contains(said), "{said}: {fault}");
    }
}

/// A system that keeps whatever it is sent, one effect for each key.
#[derive(Default)]
struct Recorder {
    taken: Vec<(String, String, Value)>,
    keys: Vec<String>,
}

impl FakeApi for Recorder {
    fn changes(&self, request: &FakeRequest) -> bool {
        request.method != "GET"
    }
    fn answer(&mut self, request: &FakeRequest) -> FakeAnswer {
        if request.headers.get("authorization") != Some(&format!("Bearer {SECRET}")) {
            return FakeAnswer::new(401, Value::Null);
        }
        if request.method == "GET" {
            return FakeAnswer::new(200, Value::Null);
        }
        let key = request
            .headers
            .get("idempotency-key")
            .cloned()
            .unwrap_or_default();
        if !self.keys.contains(&key) {
            self.keys.push(key);
            let operation = format!("{} {}", request.method, request.path);
            let channel = request
                .headers
                .get("x-channel")
                .cloned()
                .unwrap_or_default();
            self.taken.push((operation, channel, request.body.clone()));
        }
        FakeAnswer::new(200, json!({"object": {"id": self.taken.len()}}))
    }
}

fn customer_service(url: &str, secret: &str) -> Value {
    json!({
        "url": url, "bearer": secret, "check_path": "/health",
        "requests": [
            {
                "topic": "retail.shipment.state.v1", "method": "PUT",
                "path": "/orders/{/orderId}/shipments/{/fulfilments/0/shipmentId}",
                "when": {"/fulfilments/0/status": ["SHIPPED"]},
                "headers": {"X-Channel": "{/channelId}"},
                "body": {"order": "{/channelOrderId}", "note": "order {/channelOrderId} of {key}", "version": "{/stateVersion}", "all": ["{/fulfilments}"], "kind": "shipped"},
                "answer_id": "/object/id",
            },
            {"topic": "retail.shipment.state.v1", "path": "/others", "when": {"/fulfilments/0/status": ["DELIVERED"]}},
        ],
    })
}

fn state(order: &str, version: i64, status: ShipmentStatus) -> Delivery {
    let event = ShipmentState {
        meta: EventMeta {
            event_id: uuid::Uuid::from_u128(version as u128),
            event_type: "ShipmentState".into(),
            ..EventMeta::default()
        },
        order_id: order.into(),
        channel_id: "web".into(),
        channel_order_id: "10/01".into(),
        state_version: version,
        fulfilments: vec![Fulfilment {
            shipment_id: "S 1".into(),
            status,
            ..Fulfilment::default()
        }],
    };
    let record = Record {
        origin: Origin {
            topic: topic::SHIPMENT_STATE.into(),
            partition: 0,
            offset: version,
        },
        timestamp_ms: 0,
        key: Some(order.as_bytes().to_vec().into()),
        value: None,
        headers: Headers::default(),
    };
    Delivery {
        key: order.into(),
        inbound: Inbound {
            record,
            event: Event::ShipmentState(event),
        },
        sent: None,
        attempt: 1,
        in_doubt: false,
    }
}

#[tokio::test]
async fn records_become_the_declared_requests_with_one_effect_each() {
    let (_folder, secret) = secret();
    let server = FakeServer::start(Recorder::default()).expect("started");
    let connector = build(generic(), customer_service(&server.url(), &secret));
    let checks = connector.check().await;
    assert!(checks.iter().all(|c| c.result.is_ok()), "{checks:?}");
    let sink = connector.sink().expect("a sink");
    let wait = Duration::from_secs(7);
    let faults = [
        (
            FakeFault::Status(429, Some(wait)),
            Verdict::Retry { after: Some(wait) },
        ),
        (FakeFault::Status(503, None), Verdict::Retry { after: None }),
        (FakeFault::Cut, Verdict::Retry { after: None }),
        (FakeFault::AppliedThenCut, Verdict::Retry { after: None }),
        (FakeFault::Garbage, Verdict::Retry { after: None }),
        (FakeFault::Status(422, None), Verdict::Reject),
        (FakeFault::Unauthorised, Verdict::Halt),
    ];
    for (n, (fault, verdict)) in faults.into_iter().enumerate() {
        let delivery = state("o 1", n as i64 + 1, ShipmentStatus::Shipped);
        assert!(sink.wants(&delivery.inbound));
        server.inject(vec![fault.clone()]);
        let refused = sink
            .write(std::slice::from_ref(&delivery))
            .await
            .remove(0)
            .expect_err("a fault");
        assert_eq!(refused.verdict, verdict, "{fault:?}");
        assert!(!refused.to_string().contains(SECRET));
        let taken = sink.write(&[delivery]).await.remove(0).expect("taken");
        assert_eq!(
            (taken.outcome, taken.external_id),
            (SinkOutcome::Acked, Some(format!("{}", n + 1)))
        );
    }
    {
        let api = server.api();
        assert_eq!(api.taken.len(), 7, "one effect each");
        let (operation, channel, body) = &api.taken[0];
        assert_eq!(operation, "PUT /orders/o%201/shipments/S%201");
        assert_eq!(channel, "web");
        assert_eq!(
            (&body["order"], &body["version"]),
            (&json!("10/01"), &json!(1))
        );
        assert_eq!(body["note"], "order 10/01 of o 1");
        assert_eq!(body["all"][0][0]["shipmentId"], "S 1");
    }
    assert!(!sink.wants(&state("o", 1, ShipmentStatus::Picked).inbound));
    // A path that cannot be filled in is this record's own fault.
    let nameless = state("", 99, ShipmentStatus::Shipped);
    let fault = sink
        .write(&[nameless])
        .await
        .remove(0)
        .expect_err("refused");
    assert_eq!(
        (fault.verdict, fault.code),
        (Verdict::Reject, Code::DataQuality)
    );
}

#[test]
fn every_mistake_in_a_declared_request_is_told_at_once() {
    let (_folder, secret) = secret();
    let mut settings = customer_service("nowhere", &secret);
    settings["requests"] = json!([{"topic": "retail.ops.audit.v1", "method": "GET", "path": "x"}]);
    let fault = (generic().build)("crm", settings).err().expect("refused");
    for said in [
        "requests.0: topic",
        "method \"GET\"",
        "path must begin with /",
        "requests need url",
    ] {
        assert!(fault.message.contains(said), "{said}: {fault}");
    }
}
