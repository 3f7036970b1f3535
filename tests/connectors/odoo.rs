//! Odoo's own traps, on its stand-in.

use super::erps::{movements, opened};
use super::sources::{Reader, act, small};
use crossdock::connectors;
use crossdock::contract::event::Event;
use crossdock::pipeline::{ConnectorDescriptor, Verdict};
use serde_json::json;

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
