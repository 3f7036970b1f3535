//! Odoo's own traps, on its stand-in.

use super::erps::{movements, opened};
use super::sources::{Reader, act, small};
use crossdock::connectors;
use crossdock::contract::event::{ChannelType, DeliveryMethod, Event};
use crossdock::domain::{Decimal, order_id};
use crossdock::pipeline::{ConnectorDescriptor, SourceRecord, Verdict};
use serde_json::json;
use std::collections::BTreeSet;

fn odoo() -> &'static ConnectorDescriptor {
    connectors::find("odoo").expect("the connector")
}

/// Titles of products told since so many polls.
fn titles(reader: &Reader, polls: usize) -> Vec<String> {
    let records = reader.polls[polls..]
        .iter()
        .flat_map(|(_, _, b)| &b.records);
    records
        .filter_map(|r| match &r.event {
            Event::ProductChanged(e) => Some(format!("{:?}", e.title)),
            _ => None,
        })
        .collect()
}

#[tokio::test]
async fn a_row_that_is_written_twice_within_a_second_is_told_as_it_is() {
    let (fake, mut reader) = opened("odoo").await;
    let second = 1_790_100_000_000_000_i64;
    let name = |name: &str, at: i64| {
        let values = json!({"name": name});
        json!({"write": "product.product", "id": 3, "values": values, "at": at})
    };
    act(fake.as_ref(), name("First", second));
    let before = reader.polls.len();
    for _ in 0..5 {
        reader.poll("products", false).await.expect("polled");
    }
    assert!(titles(&reader, before)[0].contains("First"));
    // Its stamp stays the same.
    act(fake.as_ref(), name("Second", second + 200_000));
    let before = reader.polls.len();
    reader.drain().await;
    let told = titles(&reader, before);
    assert!(told.len() == 1 && told[0].contains("Second"), "{told:?}");
    // Also when the transaction that began within the second ended much later.
    act(
        fake.as_ref(),
        json!({"begin": "slow", "at": second + 1_000_000}),
    );
    act(fake.as_ref(), name("Third", second + 1_100_000));
    reader.drain().await;
    let mut slow = name("Fourth", second + 30_000_000);
    slow["in"] = "slow".into();
    act(fake.as_ref(), slow);
    act(
        fake.as_ref(),
        json!({"touch": "product.product", "id": 4, "at": second + 40_000_000}),
    );
    reader.drain().await;
    act(fake.as_ref(), json!({"commit": "slow"}));
    let before = reader.polls.len();
    for _ in 0..200 {
        reader.poll("products", false).await.expect("polled");
    }
    let told = titles(&reader, before);
    assert!(told.len() == 1 && told[0].contains("Fourth"), "{told:?}");
}

#[tokio::test]
async fn what_is_written_again_without_a_change_is_not_told_again() {
    let (fake, mut reader) = opened("odoo").await;
    act(fake.as_ref(), json!({"touch": "product.product", "id": 3}));
    reader.drain().await;
    let before = reader.polls.len();
    act(fake.as_ref(), json!({"touch": "product.product", "id": 3}));
    act(fake.as_ref(), json!({"touch": "product.template", "id": 3}));
    reader.drain().await;
    assert_eq!(titles(&reader, before), Vec::<String>::new());
}

#[tokio::test]
async fn many_rows_of_one_second_are_all_told() {
    let (fake, mut reader) = opened("odoo").await;
    act(fake.as_ref(), json!({"begin": "large"}));
    for n in 0..45 {
        let sku = format!("S{:02}", n % 25);
        act(
            fake.as_ref(),
            json!({"in": "large", "receive": sku, "location": "Store", "quantity": 1}),
        );
    }
    act(fake.as_ref(), json!({"commit": "large"}));
    let before = reader.polls.len();
    reader.drain().await;
    assert_eq!(movements(&reader, before).len(), 45);
    reader.agrees_with(fake.as_ref());
}

#[tokio::test]
async fn a_count_that_found_what_was_expected_is_compared_and_moves_nothing() {
    let (fake, mut reader) = opened("odoo").await;
    for act_now in [
        json!({"receive": "S01", "location": "Store", "quantity": 9}),
        json!({"count": "S01", "location": "Store", "quantity": 9}),
    ] {
        act(fake.as_ref(), act_now);
    }
    reader.drain().await;
    let records = reader.records();
    let snapshots = records.iter().filter_map(|r| match &r.event {
        Event::StockSnapshot(e) => Some((e.sku.to_string(), e.sellable.to_string())),
        _ => None,
    });
    assert_eq!(
        snapshots.collect::<Vec<_>>(),
        [("S01".to_owned(), "9".to_owned())]
    );
    reader.agrees_with(fake.as_ref());
}

#[tokio::test]
async fn a_name_that_odoo_does_not_have_is_no_reason_to_try_again() {
    let (fake, settings) = small(odoo()).await;
    let mut other = settings.clone();
    other["locations"] = json!({"Attic": {}});
    let checks = super::build(odoo(), other).check().await;
    let said: Vec<_> = checks
        .iter()
        .filter_map(|c| c.result.as_ref().err())
        .collect();
    assert!(said.len() == 1 && said[0].contains("Attic"), "{said:?}");
    let secret = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(secret.path(), "another key").expect("written");
    let mut other = settings;
    other["api_key"] = json!(format!("${{file:{}}}", secret.path().display()));
    let mut reader = Reader::new(odoo(), other);
    let fault = reader.poll("stock", false).await.expect_err("refused");
    assert_eq!(fault.verdict, Verdict::Halt);
    assert!(fault.to_string().contains("`api_key`"), "{fault}");
    assert!(!fault.to_string().contains("another key"), "{fault}");
    let refused = fake.act(&json!({"sell": "no such", "location": "Store", "quantity": 1}));
    assert!(refused.is_err());
}

#[tokio::test]
async fn a_replenishment_rule_is_stock_that_is_not_promised_until_it_is_archived() {
    let (fake, mut reader) = opened("odoo").await;
    let policies = |reader: &Reader, polls: usize| -> Vec<String> {
        let records = reader.polls[polls..].iter().flat_map(|(_, _, b)| {
            assert!(b.rejects.is_empty(), "{:?}", b.rejects);
            &b.records
        });
        let policies = records.filter_map(|r| match &r.event {
            Event::StockPolicy(e) => Some(format!("{} {}", r.key, e.safety_stock)),
            _ => None,
        });
        policies.collect()
    };
    // Locations of the stand-in: four outside, then view and stock of Warehouse and of Store.
    let rule_at = |stock: i64| json!({"product_id": 4, "location_id": stock, "product_min_qty": 7.0, "active": true, "company_id": 1});
    let before = reader.polls.len();
    let rule = json!({"create": "stock.warehouse.orderpoint", "values": rule_at(8)});
    let id = act(fake.as_ref(), rule)[0].clone();
    let mut other = rule_at(6);
    other["company_id"] = json!(2);
    act(
        fake.as_ref(),
        json!({"create": "stock.warehouse.orderpoint", "values": other}),
    );
    reader.drain().await;
    assert_eq!(policies(&reader, before), ["S03|Store 7"]);
    let before = reader.polls.len();
    let archived = json!({"active": false});
    act(
        fake.as_ref(),
        json!({"write": "stock.warehouse.orderpoint", "id": id, "values": archived}),
    );
    reader.drain().await;
    assert_eq!(policies(&reader, before), ["S03|Store 0"]);
}

/// What a receipt is told as: each fact in short, under the order that it is of.
fn receipt_facts(reader: &Reader, polls: usize) -> Vec<(String, String)> {
    let records = reader.polls[polls..].iter().flat_map(|(_, _, batch)| {
        assert!(batch.rejects.is_empty(), "{:?}", batch.rejects);
        &batch.records
    });
    let short = |event: &Event| match event {
        Event::OrderEvent(e) => {
            let total = e.order.as_ref().map(|o| o.grand_total.to_string());
            Some(format!("{} {}", e.r#type, total.unwrap_or_default()))
        }
        Event::PaymentEvent(e) => Some(format!("{} {} {}", e.kind, e.psp, e.amount.amount)),
        Event::InvoiceEvent(e) => Some(format!("{} {}", e.kind, e.gross)),
        Event::ReturnEvent(e) => Some(format!("{} {}", e.status, e.lines[0].accepted)),
        Event::RefundRequest(e) => {
            let sum: Decimal = e.allocations.iter().map(|a| a.net + a.tax).sum();
            assert!(e.already_issued && sum == e.amount.amount, "{e:?}");
            Some(format!("refund {}", e.amount.amount))
        }
        Event::StockChanged(e) => {
            let of = e.return_id.as_ref().map_or("", |_| " of a return");
            Some(format!("{} {}{of}", e.reason, e.qty))
        }
        _ => None,
    };
    let of = |event: &Event| match event {
        Event::StockChanged(e) => e.order_id.as_deref().map(str::to_owned),
        _ => None,
    };
    let fact = |r: &SourceRecord| {
        let order = of(&r.event).unwrap_or_else(|| r.key.to_string());
        Some((order, short(&r.event)?.trim_end().to_owned()))
    };
    let mut facts: Vec<_> = records.filter_map(fact).collect();
    facts.sort_unstable();
    facts
}

fn expected(order: &str, facts: &[&str]) -> Vec<(String, String)> {
    let own = facts.iter().map(|f| (order.to_owned(), (*f).to_owned()));
    let mut own: Vec<_> = own.collect();
    own.sort_unstable();
    own
}

#[tokio::test]
async fn a_receipt_is_an_order_and_what_comes_back_on_one_is_a_return_of_it() {
    let (fake, mut reader) = opened("odoo").await;
    let number = |n: u32| order_id("default", "store", &format!("260-1-{n:06}")).to_string();
    let prices = json!({"write": "product.product", "id": 1, "values": {"lst_price": 10.0}});
    act(fake.as_ref(), prices);
    let prices = json!({"write": "product.product", "id": 2, "values": {"lst_price": 5.0}});
    act(fake.as_ref(), prices);
    reader.drain().await;

    let before = reader.polls.len();
    let sold = json!({"ring_up": {"S00": 3, "S01": 1}, "paid": {"Card": 40.0, "Cash": 2.0}});
    let receipt = act(fake.as_ref(), sold)[0].clone();
    reader.drain().await;
    let facts = receipt_facts(&reader, before);
    let sold = [
        "PLACED 42",
        "ACCEPTED",
        "CAPTURED Card 40",
        "CAPTURED Cash 2",
        "INVOICE 42",
        "SALE 3",
        "SALE 1",
    ];
    assert_eq!(facts, expected(&number(1), &sold));
    let records = reader.records();
    let placed = records.iter().find_map(|r| match &r.event {
        Event::OrderEvent(e) => e.order.as_ref(),
        _ => None,
    });
    let placed = placed.expect("told");
    assert_eq!(
        (placed.channel_type, &*placed.channel_order_id),
        (ChannelType::Pos, "260-1-000001")
    );
    assert_eq!(
        (
            placed.delivery_groups[0].method,
            placed.delivery_groups[0].pickup_location_id.as_deref()
        ),
        (DeliveryMethod::CarryOut, Some("Store"))
    );
    drop(records);

    let before = reader.polls.len();
    act(
        fake.as_ref(),
        json!({"ring_up": {}, "back": {"S00": 1}, "of": receipt, "paid": {"Cash": -12.0}}),
    );
    reader.drain().await;
    let facts = receipt_facts(&reader, before);
    let returned = [
        "INSPECTED 1",
        "CREDIT_NOTE 12",
        "REFUNDED Cash 12",
        "refund 12",
        "RETURN 1 of a return",
    ];
    assert_eq!(facts, expected(&number(1), &returned));

    // One comes back for another: what is owed for the one pays for the other.
    let before = reader.polls.len();
    act(
        fake.as_ref(),
        json!({"ring_up": {"S01": 3}, "back": {"S00": 1}, "of": receipt, "paid": {"Card": 6.0}}),
    );
    reader.drain().await;
    let facts = receipt_facts(&reader, before);
    let mut exchange = expected(
        &number(1),
        &[
            "INSPECTED 1",
            "CREDIT_NOTE 12",
            "REFUNDED exchange 12",
            "refund 12",
            "RETURN 1 of a return",
        ],
    );
    exchange.extend(expected(
        &number(3),
        &[
            "PLACED 18",
            "ACCEPTED",
            "CAPTURED Card 6",
            "CAPTURED exchange 12",
            "INVOICE 18",
            "SALE 3",
        ],
    ));
    exchange.sort_unstable();
    assert_eq!(facts, exchange);

    // The session is closed: nothing new.
    let before = reader.polls.len();
    let closed = json!({"write": "pos.order", "id": receipt, "values": {"state": "done"}});
    act(fake.as_ref(), closed);
    reader.drain().await;
    let told = |polls: std::ops::Range<usize>| -> BTreeSet<_> {
        let records = reader.polls[polls].iter().flat_map(|(_, _, b)| &b.records);
        records.map(|r| r.event.meta().event_id).collect()
    };
    let again = told(before..reader.polls.len());
    assert!(again.is_subset(&told(0..before)), "the same facts, if any");
    reader.agrees_with(fake.as_ref());
}

#[tokio::test]
async fn what_comes_back_without_a_receipt_is_named_and_its_goods_are_told() {
    let (fake, mut reader) = opened("odoo").await;
    let before = reader.polls.len();
    act(
        fake.as_ref(),
        json!({"ring_up": {}, "back": {"S00": 1}, "paid": {"Cash": -6.0}}),
    );
    reader.drain().await;
    let rejects = reader.polls[before..]
        .iter()
        .flat_map(|(_, _, b)| &b.rejects);
    let said: Vec<String> = rejects.map(|r| r.fault.to_string()).collect();
    assert!(
        said.len() == 1 && said[0].contains("pos.order.line"),
        "{said:?}"
    );
    reader.agrees_with(fake.as_ref());
}
