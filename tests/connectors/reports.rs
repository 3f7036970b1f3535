//! What comes as files besides stock: a provider's reports, a bank's statement, a system's list of orders.

use super::fake;
use super::sources::{Reader, act};
use crossdock::connectors;
use crossdock::contract::event::{
    Event, ReconManifest, SettlementEvent, SettlementKind, SystemRole,
};
use crossdock::contract::topic;
use crossdock::domain::{Decimal, order_id};
use crossdock::pipeline::{Code, Verdict};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// The settings of a connector of an example configuration, reading `folder`.
fn example(name: &str, folder: &Path) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/settlement-files.yaml");
    let text = std::fs::read_to_string(path).expect("the example");
    let whole: Value = serde_norway::from_str(&text).expect("YAML");
    let all = whole["connectors"].as_array().expect("connectors");
    let one = all.iter().find(|c| c["name"] == name).expect("there");
    let mut settings = one["settings"].clone();
    settings["path"] = json!(folder);
    settings
}

/// Writes a file that was last changed an hour ago.
fn put(folder: &Path, name: &str, content: &[u8]) {
    let path = folder.join(name);
    std::fs::write(&path, content).expect("written");
    let file = std::fs::File::options().append(true).open(&path);
    let then = SystemTime::now() - Duration::from_secs(3_600);
    file.expect("opened").set_modified(then).expect("time set");
}

async fn read(settings: Value) -> Reader {
    let descriptor = connectors::find("file").expect("the kind");
    let mut reader = Reader::new(descriptor, settings);
    reader.drain().await;
    reader
}

fn settlements(reader: &Reader) -> Vec<SettlementEvent> {
    let mut told = Vec::new();
    for record in reader.records() {
        let Event::SettlementEvent(e) = &record.event else {
            panic!("{record:?}");
        };
        let expected = match &e.psp_reference {
            Some(reference) => (
                topic::SETTLEMENT_EVENT,
                crossdock::domain::compound_key(&[&e.psp, reference]),
            ),
            None => (topic::SETTLEMENT_PAYOUT, e.payout_id.clone()),
        };
        assert_eq!((record.topic, record.key.clone()), expected);
        told.push(e.clone());
    }
    told
}

/// Where rejected lines stand, and why.
fn rejects(reader: &Reader) -> Vec<(String, Code, String)> {
    let batches = reader.polls.iter().map(|(.., batch)| batch);
    let all = batches.flat_map(|b| &b.rejects);
    all.map(|r| {
        assert_eq!(r.fault.verdict, Verdict::Reject);
        (
            format!("{} of {}", r.origin.item, r.origin.container),
            r.fault.code,
            r.fault.message.clone(),
        )
    })
    .collect()
}

#[tokio::test]
async fn a_providers_reports_tell_the_same_lines_as_its_api() {
    let psp = connectors::find("psp").expect("the kind");
    let fake = fake(psp).await.expect("a stand-in");
    let fake = fake.as_ref();
    for n in 0..12 {
        let paid = act(fake, json!({"pay": format!("R{n}"), "amount": 10_000 + n}));
        match n % 4 {
            1 => drop(act(fake, json!({"refund": paid["id"], "amount": 700}))),
            2 => {
                let dispute = act(fake, json!({"dispute": paid["id"]}));
                act(fake, json!({"win": dispute["id"]}));
            }
            3 => {
                let refund = act(fake, json!({"refund": paid["id"], "amount": 800}));
                act(fake, json!({"end_refund": refund["id"], "good": false}));
            }
            _ => {}
        }
    }
    act(fake, json!({"fee": 299}));
    let payout = act(fake, json!({"payout": "eur"}));
    act(fake, json!({"arrive": payout["id"]}));
    let mut api = Reader::new(psp, fake.settings());
    api.drain().await;
    let of_api: BTreeMap<_, _> = api
        .records()
        .into_iter()
        .filter_map(|r| match &r.event {
            Event::SettlementEvent(e) if e.kind != SettlementKind::PayoutControl => {
                Some((e.meta.event_id, (r.topic, r.key.clone(), e.clone())))
            }
            _ => None,
        })
        .collect();

    let folder = tempfile::tempdir().expect("folder");
    let report = |what| {
        let csv = act(fake, json!({"report": what}));
        csv.as_str().expect("CSV").to_owned()
    };
    let lines = "payout_reconciliation.itemized.csv";
    put(folder.path(), lines, report("lines").as_bytes());
    put(
        folder.path(),
        "payouts.itemized.csv",
        report("payouts").as_bytes(),
    );
    let read_lines = read(example("payout-lines", folder.path())).await;
    assert_eq!(rejects(&read_lines), []);
    let told = settlements(&read_lines);
    assert_eq!(told.len(), of_api.len());
    for line in &told {
        // The same fact, whichever way it comes: one id, one place, one meaning.
        let (.., api) = &of_api[&line.meta.event_id];
        let facts = |e: &SettlementEvent| {
            (
                (
                    e.kind,
                    e.psp.clone(),
                    e.payout_id.clone(),
                    e.line_id.clone(),
                ),
                (e.gross, e.fee, e.net, e.currency.clone()),
                (e.psp_reference.clone(), e.value_date),
            )
        };
        assert_eq!(facts(line), facts(api));
    }
    let kinds: BTreeSet<_> = told.iter().map(|e| e.kind).collect();
    assert_eq!(kinds.len(), 6, "{kinds:?}");

    let sums = settlements(&read(example("payout-sums", folder.path())).await);
    let net: Decimal = told.iter().map(|l| l.net).sum();
    let [control] = sums.as_slice() else {
        panic!("{sums:?}");
    };
    assert_eq!(
        (control.kind, control.control_net, control.control_count),
        (SettlementKind::PayoutControl, Some(net), None)
    );

    let bank = tempfile::tempdir().expect("folder");
    let statement = report("statement").replace('ä', "\u{0}");
    // Windows' encoding, as banks have it.
    let bytes: Vec<u8> = statement
        .bytes()
        .map(|b| if b == 0 { 0xe4 } else { b })
        .collect();
    put(bank.path(), "umsaetze.csv", &bytes);
    let came = read(example("bank-statement", bank.path())).await;
    assert_eq!(rejects(&came), []);
    let came = settlements(&came);
    let [credit] = came.as_slice() else {
        panic!("the rent is no payout: {came:?}");
    };
    assert_eq!(
        (credit.kind, &credit.payout_id, credit.net),
        (SettlementKind::BankCredit, &control.payout_id, net)
    );
}

/// A report that has debits and credits in columns of their own, and the payout as its last row.
const DETAILS: &str = "\
Psp Reference,Modification Reference,Type,Creation Date,Net Currency,Gross Debit (NC),Gross Credit (NC),Net Debit (NC),Net Credit (NC),Batch Number
8815,8815a,Settled,2026-11-20 10:00:00,EUR,,100.00,,98.50,17
8816,8816a,Refunded,2026-11-20 11:00:00,EUR,20.00,,20.10,,17
8817,8817a,Chargeback,2026-11-21 11:00:00,EUR,30.00,,45.00,,17
,,Fee,2026-11-22 00:00:00,EUR,,,3.40,,17
,,MerchantPayout,2026-11-22 00:00:00,EUR,,,30.00,,17
8818,8818a,Settled,2026-11-23 10:00:00,EUR,,50.00,,49.00,18
8819,8819a,Dispute,2026-11-23 10:00:00,EUR,,50.00,,49.00,18
8820,8820a,Settled,2026-11-23 10:00:00,EUR,,fifty,,49.00,18
";

fn details(folder: &Path) -> Value {
    json!({
        "path": folder, "format": "csv", "content": "settlement", "time_format": "%Y-%m-%d %H:%M:%S",
        "identity": ["Psp Reference", "Modification Reference", "Type", "Net Debit (NC)"],
        "fields": {
            "psp": {"constant": "adyen"},
            "payout": {"column": "Batch Number"},
            "reference": {"column": "Modification Reference"},
            "kind": {"column": "Type", "map": {
                "Settled": "capture", "Refunded": "refund", "Chargeback": "chargeback", "Fee": "fee",
                "MerchantPayout": "payout",
            }},
            "currency": {"column": "Net Currency"},
            "gross": {"column": "Gross Credit (NC)"}, "gross_debit": {"column": "Gross Debit (NC)"},
            "net": {"column": "Net Credit (NC)"}, "net_debit": {"column": "Net Debit (NC)"},
            "time": {"column": "Creation Date"},
        },
    })
}

#[tokio::test]
async fn debits_credits_and_the_payouts_own_row_are_understood() {
    let folder = tempfile::tempdir().expect("folder");
    put(
        folder.path(),
        "settlement_detail_report.csv",
        DETAILS.as_bytes(),
    );
    let mut settings = details(folder.path());
    let reader = read(settings.clone()).await;
    let told = settlements(&reader);
    let shown: Vec<String> = told
        .iter()
        .map(|e| {
            let count = e.control_count.map(|c| format!(", {c} lines"));
            let net = e.control_net.unwrap_or(e.net);
            let count = count.unwrap_or_default();
            format!(
                "{} {} {} {} {net}{count}",
                e.payout_id, e.kind, e.gross, e.fee
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            "17 CAPTURE 100 1.5 98.5",
            "17 REFUND -20 0.1 -20.1",
            "17 CHARGEBACK -30 15 -45",
            "17 FEE -3.4 0 -3.4",
            "18 CAPTURE 50 1 49",
            "17 PAYOUT_CONTROL 0 0 30, 4 lines",
        ]
    );
    let refused = rejects(&reader);
    let places: Vec<_> = refused
        .iter()
        .map(|(place, code, _)| (&**place, *code))
        .collect();
    assert_eq!(
        places,
        [
            ("line 8 of settlement_detail_report.csv", Code::DataQuality),
            ("line 9 of settlement_detail_report.csv", Code::DataQuality),
        ]
    );
    assert!(
        refused[0].2.contains("\"Dispute\"") && refused[0].2.contains("name it in the map"),
        "{refused:?}"
    );
    assert!(refused[1].2.contains("\"fifty\""), "{refused:?}");
    // However it is cut into batches, and when it comes again under another name, the facts are the same.
    let ids = |told: &[SettlementEvent]| -> BTreeSet<_> {
        told.iter().map(|e| e.meta.event_id).collect()
    };
    put(
        folder.path(),
        "settlement_detail_report_again.csv",
        DETAILS.as_bytes(),
    );
    settings["batch_lines_max"] = 2.into();
    let again = settlements(&read(settings).await);
    assert_eq!(again.len(), 2 * told.len());
    assert_eq!(ids(&again), ids(&told));
}

fn manifests(reader: &Reader) -> Vec<ReconManifest> {
    let records = reader.records().into_iter();
    records
        .map(|r| match &r.event {
            Event::ReconManifest(e) => {
                assert_eq!((r.topic, &*r.key), (topic::RECON_MANIFEST, "old-erp|order"));
                e.clone()
            }
            other => panic!("{other:?}"),
        })
        .collect()
}

fn listing(folder: &Path, batch: usize) -> Value {
    json!({
        "path": folder, "format": "csv", "content": "orders", "role": "erp", "source": "old-erp",
        "batch_lines_max": batch, "time_format": "orders-%Y%m%d-%H%M.csv",
        "fields": {
            "channel": {"constant": "web"}, "number": {"column": "web_number"},
            "external": {"column": "sale"}, "amount": {"column": "total"},
            "status": {"column": "state", "map": {"open": "ACCEPTED", "sent": "SHIPPED", "void": "CANCELLED"}},
            "time": {"file": "name"},
        },
    })
}

#[tokio::test]
async fn a_list_of_orders_is_whole_or_known_not_to_be() {
    let folder = tempfile::tempdir().expect("folder");
    let mut csv = "sale;web_number;state;total\n".replace(';', ",");
    for n in 0..7 {
        let state = ["open", "sent", "void"][n % 3];
        csv += &format!("S{n},W{n},{state},{}.50\n", 10 + n);
    }
    csv += "S9,W9,lost,1\n";
    put(folder.path(), "orders-20261125-2300.csv", csv.as_bytes());
    for batch in [1_000, 3, 1] {
        let reader = read(listing(folder.path(), batch)).await;
        let told = manifests(&reader);
        let entries: Vec<_> = told.iter().flat_map(|m| &m.entries).collect();
        assert_eq!(entries.len(), 7);
        assert_eq!(
            entries[1].entity_key,
            order_id("default", "web", "W1").to_string()
        );
        let first = (
            entries[1].external_id.as_deref(),
            entries[1].status.as_deref(),
        );
        assert_eq!(first, (Some("S1"), Some("SHIPPED")));
        assert_eq!(entries[1].amount, Some("11.5".parse().expect("a number")));
        let (last, before) = told.split_last().expect("chunks");
        for (at, chunk) in told.iter().enumerate() {
            assert_eq!((chunk.chunk, chunk.role), (at as i32, SystemRole::Erp));
            assert_eq!(chunk.manifest_id, last.manifest_id);
            assert_eq!(chunk.window_end.to_string(), "2026-11-25T23:00:00Z");
        }
        // Until the last has come, more are awaited.
        assert!(before.iter().all(|c| c.chunks == c.chunk + 2), "{told:?}");
        assert_eq!(last.chunks as usize, told.len());
        let amount: Decimal = entries.iter().filter_map(|e| e.amount).sum();
        assert_eq!((last.total_count, last.total_amount), (7, Some(amount)));
        let refused = rejects(&reader);
        assert!(
            refused.len() == 1 && refused[0].2.contains("\"lost\""),
            "{refused:?}"
        );
    }
    let ids = |reader: &Reader| -> BTreeSet<_> {
        manifests(reader).iter().map(|m| m.meta.event_id).collect()
    };
    let once = read(listing(folder.path(), 3)).await;
    assert_eq!(ids(&once), ids(&read(listing(folder.path(), 3)).await));
    // A night without orders is a list, too.
    put(
        folder.path(),
        "orders-20261126-2300.csv",
        b"sale,web_number,state,total\n",
    );
    let empty = manifests(&read(listing(folder.path(), 1_000)).await);
    let last = empty.last().expect("a list");
    assert_eq!(
        (last.entries.len(), last.chunks, last.total_count),
        (0, 1, 0)
    );
}

#[test]
fn settings_that_cannot_be_are_refused_by_name() {
    let folder = tempfile::tempdir().expect("folder");
    let descriptor = connectors::find("file").expect("the kind");
    let refused = |settings: Value| {
        let fault = (descriptor.build)("x", settings).err().expect("refused");
        assert_eq!(
            (fault.verdict, fault.code),
            (Verdict::Halt, Code::Configuration)
        );
        fault.message
    };
    let mut settings = details(folder.path());
    settings["identity"] = json!([]);
    assert!(refused(settings).contains("line"));
    let mut settings = details(folder.path());
    settings["fields"]["sku"] = json!({"constant": "A"});
    let why = refused(settings);
    assert!(
        why.contains("field sku is of content: movements and stock only"),
        "{why}"
    );
    let mut settings = details(folder.path());
    settings["fields"]["payout"] = json!({"column": "x", "pattern": "po_("});
    let why = refused(settings);
    assert!(why.contains("no regular expression"), "{why}");
    let mut settings = listing(folder.path(), 1);
    settings["role"] = Value::Null;
    assert!(refused(settings).contains("role"));
    let mut settings = listing(folder.path(), 1);
    settings["fields"]["time"] = json!({"column": "at"});
    assert!(refused(settings).contains("has one time"));
}
