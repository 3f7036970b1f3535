//! The payment provider: money is told as it moved, once, whichever way it is heard of; refunds are
//! paid once whatever happens to the calls; payouts are the sum of their lines.

use super::inbox::MemoryInbox;
use super::sources::{Reader, act};
use super::{build, fake};
use crossdock::connectors;
use crossdock::contract::event::{
    Event, EventMeta, Money, PaymentEvent, PaymentKind, RefundEvent, RefundStatus, SettlementEvent,
    SettlementKind, SinkOutcome,
};
use crossdock::contract::topic;
use crossdock::domain::{Decimal, order_id};
use crossdock::pipeline::{
    Code, ConnectorDescriptor, Delivery, Fake, FakeFault, Headers, Inbound, Origin, Record, Sink,
    Verdict,
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use uuid::Uuid;

fn psp() -> &'static ConnectorDescriptor {
    connectors::find("psp").expect("the kind")
}

async fn provider() -> Box<dyn Fake> {
    fake(psp()).await.expect("a stand-in")
}

fn order(number: &str) -> String {
    order_id("default", "web", number).to_string()
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

/// What was told of payments: kind, reference and amount, by event id.
fn payments(reader: &Reader) -> BTreeMap<Uuid, PaymentEvent> {
    let mut told = BTreeMap::new();
    for record in reader.records() {
        if let Event::PaymentEvent(e) = &record.event {
            assert_eq!(record.key, e.order_id);
            told.insert(e.meta.event_id, e.clone());
        }
    }
    told
}

fn kinds(reader: &Reader, number: &str) -> Vec<(PaymentKind, String)> {
    let mut told: Vec<_> = payments(reader)
        .into_values()
        .filter(|e| e.order_id == order(number))
        .map(|e| (e.kind, e.amount.amount.to_string()))
        .collect();
    told.sort();
    told
}

fn settlements(reader: &Reader) -> Vec<SettlementEvent> {
    let told = reader.records().into_iter();
    told.filter_map(|r| match &r.event {
        Event::SettlementEvent(e) => Some(e.clone()),
        _ => None,
    })
    .collect()
}

/// A day of payments, refunds and disputes.
fn trade(fake: &dyn Fake) {
    for n in 0..20 {
        let number = format!("R{n}");
        let paid = act(
            fake,
            json!({"pay": number, "amount": 10_000 + n, "capture": n % 2 == 0}),
        );
        let charge = text(&paid["id"]);
        match n % 10 {
            1 => drop(act(fake, json!({"capture": charge, "amount": 5_000}))),
            2 => drop(act(fake, json!({"refund": charge, "amount": 700}))),
            3 => drop(act(fake, json!({"expire": charge}))),
            4 => {
                let dispute = act(fake, json!({"dispute": charge}));
                act(fake, json!({"win": dispute["id"]}));
            }
            5 => drop(act(fake, json!({"decline": number, "amount": 1}))),
            6 => {
                let refund = act(fake, json!({"refund": charge, "amount": 800}));
                act(fake, json!({"end_refund": refund["id"], "good": false}));
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn each_movement_of_money_is_told_as_it_was() {
    let fake = provider().await;
    let fake = fake.as_ref();
    trade(fake);
    let mut reader = Reader::new(psp(), fake.settings());
    reader.drain().await;
    use PaymentKind::*;
    let of = |kind, amount: &str| (kind, amount.to_owned());
    assert_eq!(kinds(&reader, "R0"), [of(Captured, "100")]);
    assert_eq!(
        kinds(&reader, "R1"),
        [of(Authorised, "100.01"), of(Captured, "50")]
    );
    assert_eq!(
        kinds(&reader, "R2"),
        [of(Captured, "100.02"), of(Refunded, "7")]
    );
    assert_eq!(
        kinds(&reader, "R3"),
        [of(Authorised, "100.03"), of(Voided, "100.03")]
    );
    assert_eq!(
        kinds(&reader, "R4"),
        [
            of(Captured, "100.04"),
            of(Chargeback, "100.04"),
            of(ChargebackReversed, "100.04")
        ]
    );
    assert_eq!(
        kinds(&reader, "R6"),
        [
            of(Captured, "100.06"),
            of(Refunded, "8"),
            of(RefundReversed, "8")
        ]
    );
    for event in payments(&reader).into_values() {
        assert_eq!(event.psp, "stripe");
        let is_of_card = event.kind == Captured;
        assert!(!is_of_card || event.pan_last4.as_deref() == Some("4242"));
    }
}

#[tokio::test]
async fn webhooks_shuffled_repeated_and_lost_tell_the_same_as_the_list_alone() {
    for seed in 0..6 {
        let fake = provider().await;
        let mut settings = fake.settings();
        // The list alone.
        let mut alone = Reader::new(psp(), settings.clone());
        settings["webhook"] = json!({
            "listen": "127.0.0.1:0", "path": "/hooks", "secrets": [settings["api_key"]],
            "inbox_keys": [settings["api_key"]],
        });
        let inbox = Arc::new(MemoryInbox::default());
        // The list is not looked at before the webhooks have been.
        let (late, month_s) = (settings.clone(), 30 * 86_400);
        settings["lag_s"] = month_s.into();
        let mut reader = Reader::with_inbox(psp(), settings, inbox.clone());
        for _ in 0..3 {
            trade(fake.as_ref());
            let port = reader.address().expect("an address").port();
            let url = format!("http://127.0.0.1:{port}/hooks");
            let sent = act(
                fake.as_ref(),
                json!({"webhooks": url, "shuffle": seed, "repeat": 2, "lose": 0.3}),
            );
            let sent = sent.as_array().expect("statuses");
            assert!(sent.iter().all(|s| *s == 200), "seed {seed}: {sent:?}");
            reader.drain().await;
            if seed % 2 == 0 {
                reader.restart();
            }
        }
        let heard = payments(&reader).len();
        let mut reader = reader.reconfigured(late);
        reader.drain().await;
        let gap = payments(&reader).len() - heard;
        assert!(
            heard > 0 && gap > 0,
            "seed {seed}: {heard} heard, {gap} missed"
        );
        alone.drain().await;
        let comparable = |reader: &Reader| -> BTreeSet<String> {
            payments(reader)
                .into_values()
                .map(|mut e| {
                    e.meta.source_position = 0;
                    format!("{e:?}")
                })
                .collect()
        };
        assert_eq!(comparable(&reader), comparable(&alone), "seed {seed}");
        let told: Vec<Uuid> = reader
            .records()
            .iter()
            .map(|r| r.event.meta().event_id)
            .collect();
        let once: BTreeSet<&Uuid> = told.iter().collect();
        // A refund that came back is told whole by each of its two events.
        let again = told.len() - once.len();
        let came_back = kinds_of(&reader, PaymentKind::RefundReversed);
        assert!(again <= came_back, "seed {seed}: {again} events came twice");
        assert!(
            !inbox.kept().is_empty(),
            "seed {seed}: nothing was delivered"
        );
    }
}

fn kinds_of(reader: &Reader, kind: PaymentKind) -> usize {
    let told = payments(reader);
    told.values().filter(|e| e.kind == kind).count()
}

#[tokio::test]
async fn a_payment_that_names_no_order_is_left_out_and_the_next_is_told() {
    let fake = provider().await;
    act(fake.as_ref(), json!({"pay": "", "amount": 100}));
    act(fake.as_ref(), json!({"pay": "A", "amount": 100}));
    act(
        fake.as_ref(),
        json!({"pay": "B", "amount": 100, "currency": "xyz"}),
    );
    act(
        fake.as_ref(),
        json!({"pay": "C", "amount": 100, "currency": "jpy"}),
    );
    let mut reader = Reader::new(psp(), fake.settings());
    reader.drain().await;
    assert_eq!(
        kinds(&reader, "A"),
        [(PaymentKind::Captured, "1".to_owned())]
    );
    assert_eq!(
        kinds(&reader, "C"),
        [(PaymentKind::Captured, "100".to_owned())]
    );
    let rejects: Vec<_> = reader
        .polls
        .iter()
        .flat_map(|(_, _, b)| &b.rejects)
        .collect();
    let codes: Vec<Code> = rejects.iter().map(|r| r.fault.code).collect();
    assert_eq!(codes, [Code::UnknownReference, Code::UnknownReference]);
    assert!(rejects[0].fault.message.contains("order_metadata"));
}

#[tokio::test]
async fn a_payout_is_told_when_it_is_complete_and_is_the_sum_of_its_lines() {
    let fake = provider().await;
    let fake = fake.as_ref();
    trade(fake);
    act(fake, json!({"fee": 299}));
    let open = act(fake, json!({"payout": "eur", "reconciled": false}));
    trade(fake);
    let second = act(fake, json!({"payout": "eur"}));
    let mut settings = fake.settings();
    settings["page_rows"] = 7.into();
    let mut reader = Reader::new(psp(), settings);
    reader.drain().await;
    let is_told = |reader: &Reader| {
        let told = settlements(reader);
        told.iter().any(|e| open["id"] == *e.payout_id)
    };
    assert!(!is_told(&reader), "it may still change");
    act(fake, json!({"reconcile": open["id"]}));
    reader.drain().await;
    assert!(is_told(&reader));
    let told = settlements(&reader);
    let mut ids = BTreeSet::new();
    for payout in [&open, &second] {
        let id = text(&payout["id"]);
        let of_payout: Vec<_> = told.iter().filter(|e| e.payout_id == id).collect();
        let (controls, lines): (Vec<_>, Vec<_>) = of_payout
            .into_iter()
            .partition(|e| e.kind == SettlementKind::PayoutControl);
        assert_eq!(controls.len(), 1);
        let net: Decimal = lines.iter().map(|l| l.net).sum();
        assert_eq!(controls[0].control_net, Some(net));
        assert_eq!(controls[0].control_count, Some(lines.len() as i64));
        for line in lines {
            assert_eq!(line.gross - line.fee, line.net);
            assert!(ids.insert(line.line_id.clone()), "{} twice", line.line_id);
        }
    }
    let ledger = fake.books()["ledger"].clone();
    let ledger = ledger.as_array().expect("a ledger");
    let of_provider = ledger.iter().filter(|l| l["kind"] == "payout-line");
    assert_eq!(of_provider.count(), ids.len());
    // Each movement of a customer's money that was told has the line that settles it, named alike.
    for movement in payments(&reader).values() {
        let kind = match movement.kind {
            PaymentKind::Captured => SettlementKind::Capture,
            PaymentKind::Refunded => SettlementKind::Refund,
            PaymentKind::RefundReversed => SettlementKind::RefundReversed,
            PaymentKind::Chargeback => SettlementKind::Chargeback,
            PaymentKind::ChargebackReversed => SettlementKind::ChargebackReversed,
            _ => continue,
        };
        let settles = |l: &&SettlementEvent| {
            l.kind == kind && l.psp_reference.as_ref() == Some(&movement.psp_reference)
        };
        assert!(told.iter().any(|l| settles(&l)), "{movement:?}");
    }
}

#[tokio::test]
async fn a_restart_from_any_cursor_and_any_fault_tell_the_same() {
    let fake = provider().await;
    trade(fake.as_ref());
    act(fake.as_ref(), json!({"payout": "eur"}));
    let mut settings = fake.settings();
    settings["page_rows"] = 5.into();
    let ids = |reader: &Reader| -> BTreeSet<Uuid> {
        let records = reader.records().into_iter();
        records.map(|r| r.event.meta().event_id).collect()
    };
    let mut whole = Reader::new(psp(), settings.clone());
    whole.drain().await;
    for (at, (shard, before, _)) in whole.polls.iter().enumerate() {
        let mut again = Reader::new(psp(), settings.clone());
        again
            .cursors
            .extend(before.clone().map(|c| (shard.clone(), c)));
        for crash in [true, false, true, false] {
            again.poll(shard, crash).await.expect("polled");
        }
        let of_shard = whole.polls[at..].iter().filter(|(s, _, _)| s == shard);
        let expected: BTreeSet<Uuid> = of_shard
            .flat_map(|(_, _, b)| b.records.iter().map(|r| r.event.meta().event_id))
            .collect();
        assert!(ids(&again).is_subset(&expected), "{shard} from {before:?}");
    }
    fake.set_down(true);
    let mut reader = Reader::new(psp(), settings.clone());
    for shard in reader.shards() {
        let fault = reader.poll(&shard, false).await.expect_err("down");
        assert!(matches!(fault.verdict, Verdict::Retry { .. }), "{fault}");
    }
    fake.set_down(false);
    reader.drain().await;
    assert_eq!(ids(&reader), ids(&whole));
}

/// A refund to be paid: `number` names the order and the refund.
fn refund(number: &str, attempt: i32, charge: &str, cents: i64) -> Delivery {
    let event = RefundEvent {
        meta: EventMeta {
            event_id: Uuid::new_v5(&Uuid::NAMESPACE_OID, number.as_bytes()),
            event_type: "RefundEvent".into(),
            ..EventMeta::default()
        },
        order_id: order(number).into(),
        refund_id: Uuid::new_v5(&Uuid::NAMESPACE_OID, number.as_bytes()),
        refund_version: 3,
        status: RefundStatus::Submitted,
        attempt,
        amount: Money {
            amount: Decimal::from_units(cents * 100),
            currency: "EUR".into(),
        },
        psp: Some("stripe".into()),
        payment_id: Some("p".into()),
        capture_references: vec![charge.into()],
        ..RefundEvent::default()
    };
    let record = Record {
        origin: Origin {
            topic: topic::REFUND_EVENT.into(),
            partition: 0,
            offset: 1,
        },
        timestamp_ms: 0,
        key: Some(order(number).into_bytes().into()),
        value: None,
        headers: Headers::default(),
    };
    Delivery {
        key: order(number).into(),
        inbound: Inbound {
            record,
            event: Event::RefundEvent(event),
        },
        sent: None,
        attempt: 1,
        in_doubt: false,
    }
}

fn paid(fake: &dyn Fake, number: &str, cents: i64) -> String {
    let charge = act(fake, json!({"pay": number, "amount": cents}));
    text(&charge["id"])
}

fn refunded(fake: &dyn Fake, charge: &str) -> i64 {
    fake.books()["charges"][charge]["amount_refunded"]
        .as_i64()
        .expect("an amount")
}

fn sink(fake: &dyn Fake) -> Arc<dyn Sink> {
    build(psp(), fake.settings()).sink().expect("a sink")
}

#[tokio::test]
async fn a_refund_is_paid_once_whatever_happens_to_the_calls() {
    let fake = provider().await;
    let fake = fake.as_ref();
    let sink = sink(fake);
    let faults = [
        FakeFault::Status(500, None),
        FakeFault::Status(429, Some(std::time::Duration::from_secs(3))),
        FakeFault::Cut,
        FakeFault::AppliedThenCut,
        FakeFault::Garbage,
        FakeFault::Status(409, None),
    ];
    for (n, fault) in faults.into_iter().enumerate() {
        let number = format!("F{n}");
        let charge = paid(fake, &number, 10_000);
        let delivery = refund(&number, 1, &charge, 4_000);
        fake.inject(vec![fault.clone()]);
        let first = sink.write(std::slice::from_ref(&delivery)).await.remove(0);
        let verdict = first.expect_err("a fault").verdict;
        assert!(
            matches!(verdict, Verdict::Retry { .. }),
            "{fault:?}: {verdict:?}"
        );
        for _ in 0..2 {
            let taken = sink.write(std::slice::from_ref(&delivery)).await.remove(0);
            let taken = taken.unwrap_or_else(|f| panic!("after {fault:?}: {f}"));
            assert!(taken.external_id.is_some());
        }
        assert_eq!(refunded(fake, &charge), 4_000, "{fault:?}");
    }
}

#[tokio::test]
async fn a_timed_out_refund_is_looked_up_and_not_paid_again() {
    let fake = provider().await;
    let charge = paid(fake.as_ref(), "T", 10_000);
    let mut settings = fake.settings();
    settings["timeout_ms"] = 300.into();
    let sink = build(psp(), settings).sink().expect("a sink");
    fake.inject(vec![FakeFault::Slow(std::time::Duration::from_secs(1))]);
    let delivery = refund("T", 1, &charge, 2_500);
    let fault = sink
        .write(std::slice::from_ref(&delivery))
        .await
        .remove(0)
        .expect_err("late");
    assert_eq!(fault.code, Code::OutcomeUnknown);
    let taken = sink.write(&[delivery]).await.remove(0).expect("found");
    assert_eq!(taken.outcome, SinkOutcome::DuplicateAcked);
    assert_eq!(refunded(fake.as_ref(), &charge), 2_500);
}

#[tokio::test]
async fn what_the_provider_refuses_for_good_is_told_as_a_failure_of_the_attempt() {
    let fake = provider().await;
    let fake = fake.as_ref();
    let sink = sink(fake);
    let charge = paid(fake, "R", 1_000);
    act(fake, json!({"dispute": charge}));
    let delivery = refund("R", 1, &charge, 500);
    let fault = sink
        .write(std::slice::from_ref(&delivery))
        .await
        .remove(0)
        .expect_err("refused");
    assert_eq!(
        (fault.verdict, fault.code),
        (Verdict::Reject, Code::Refused)
    );
    let facts = sink.refused(&delivery.inbound, &fault);
    let Event::PaymentEvent(told) = &facts[0].event else {
        panic!("{facts:?}")
    };
    let key = format!("{}|1", Uuid::new_v5(&Uuid::NAMESPACE_OID, b"R"));
    assert_eq!(told.kind, PaymentKind::RefundFailed);
    assert_eq!(told.refund_key.as_deref(), Some(key.as_str()));
    assert_eq!(facts[0].key, order("R"));
    // Not heard of yet is not refused.
    let facts = sink.doubted(&delivery.inbound);
    let Event::PaymentEvent(told) = &facts[0].event else {
        panic!("{facts:?}")
    };
    assert_eq!(told.kind, PaymentKind::RefundUnknown);
    assert_eq!(told.refund_key.as_deref(), Some(key.as_str()));
    // More than what is left, as when somebody paid back by hand.
    let other = paid(fake, "S", 1_000);
    act(fake, json!({"refund": other, "amount": 800}));
    let fault = sink.write(&[refund("S", 1, &other, 500)]).await.remove(0);
    assert_eq!(fault.expect_err("refused").code, Code::Refused);
    assert_eq!(refunded(fake, &other), 800);
}

#[tokio::test]
async fn only_what_this_provider_is_to_pay_is_wanted() {
    let fake = provider().await;
    let sink = sink(fake.as_ref());
    let with = |change: &dyn Fn(&mut RefundEvent)| {
        let mut delivery = refund("W", 1, "ch", 1);
        if let Event::RefundEvent(refund) = &mut delivery.inbound.event {
            change(refund);
        }
        sink.wants(&delivery.inbound)
    };
    assert!(with(&|_| {}));
    assert!(with(&|r| r.status = RefundStatus::OutcomeUnknown));
    assert!(!with(&|r| r.status = RefundStatus::Completed));
    assert!(!with(&|r| r.status = RefundStatus::Approved));
    assert!(!with(&|r| r.psp = Some("other".into())));
    assert!(!with(&|r| r.issued_elsewhere = true));
}

#[tokio::test]
async fn a_refund_that_was_paid_under_a_key_is_told_with_the_key() {
    let fake = provider().await;
    let fake = fake.as_ref();
    let charge = paid(fake, "K", 10_000);
    let delivery = refund("K", 2, &charge, 1_000);
    sink(fake).write(&[delivery]).await.remove(0).expect("paid");
    let mut reader = Reader::new(psp(), fake.settings());
    reader.drain().await;
    let told = payments(&reader);
    let refund = told.values().find(|e| e.kind == PaymentKind::Refunded);
    let key = format!("{}|2", Uuid::new_v5(&Uuid::NAMESPACE_OID, b"K"));
    assert_eq!(
        refund.expect("told").refund_key.as_deref(),
        Some(key.as_str())
    );
    let ledger = fake.books()["ledger"].clone();
    let line = ledger
        .as_array()
        .expect("a ledger")
        .iter()
        .find(|l| l["kind"] == "refund");
    let line = line.expect("a line");
    assert_eq!((&line["key"], &line["amount"]), (&json!(key), &json!("10")));
    assert_eq!(line["order"], json!(order("K")));
}

#[tokio::test]
async fn the_stand_in_enforces_what_the_provider_does() {
    let fake = provider().await;
    let fake = fake.as_ref();
    let held = act(fake, json!({"pay": "H", "amount": 1_000, "capture": false}));
    let charge = text(&held["id"]);
    let refusal = |action: Value| fake.act(&action).expect_err("refused");
    refusal(json!({"capture": charge, "amount": 1_001}));
    refusal(json!({"refund": charge, "amount": 1}));
    act(fake, json!({"capture": charge, "amount": 600}));
    refusal(json!({"capture": charge, "amount": 100}));
    refusal(json!({"refund": charge, "amount": 601}));
    let client = reqwest::Client::new();
    let call = async |key: &str, amount: &str| {
        let form = [("charge", charge.as_str()), ("amount", amount)];
        let request = client
            .post(format!("{}/v1/refunds", fake.url()))
            .form(&form);
        let request = request.bearer_auth("sk_test_of_a_stand_in");
        let answer = request
            .header("idempotency-key", key)
            .send()
            .await
            .expect("an answer");
        let is_replay = answer.headers().contains_key("idempotent-replayed");
        let status = answer.status().as_u16();
        (
            status,
            is_replay,
            answer.json::<Value>().await.expect("JSON"),
        )
    };
    let (status, is_replay, first) = call("k1", "200").await;
    assert_eq!((status, is_replay), (200, false));
    assert_eq!(call("k1", "200").await, (200, true, first));
    let (status, _, other) = call("k1", "300").await;
    assert_eq!(
        (status, &other["error"]["type"]),
        (400, &json!("idempotency_error"))
    );
    // A refusal is remembered like any answer.
    let (status, is_replay, refused) = call("k2", "500").await;
    assert_eq!((status, is_replay), (400, false));
    assert_eq!(call("k2", "500").await, (400, true, refused));
    assert_eq!(refunded(fake, &charge), 200);
    let ledger = fake.books()["ledger"].clone();
    let of = |kind: &str| {
        ledger
            .as_array()
            .expect("lines")
            .iter()
            .filter(|l| l["kind"] == kind)
            .count()
    };
    assert_eq!((of("refund"), of("repeated")), (1, 2));
}
