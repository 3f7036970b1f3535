//! Lists of the orders that a system has: told by every storefront, and by an ERP that lists its sales.

use super::orders::storefronts;
use super::sales::{delivery, id_of, placed};
use super::sources::{Reader, act, small};
use super::{build, fake};
use crossdock::connectors;
use crossdock::contract::event::{Event, ManifestEntry, OrderEventType, ReconManifest, SystemRole};
use crossdock::contract::topic;
use crossdock::domain::Decimal;
use serde_json::json;
use std::collections::BTreeMap;

const LISTING: &str = "listing";

/// Reads what is due of the list as if the last one had been `since` microseconds after 1970.
async fn listed(reader: &mut Reader, since: i64) -> Vec<ReconManifest> {
    let from = reader.polls.len();
    reader.poll(LISTING, false).await.expect("polled");
    let cursor = reader.cursors.get_mut(LISTING).expect("a cursor");
    cursor.bookmark["lists"]["until"] = since.into();
    for polls in 0.. {
        assert!(polls < 100, "the list never ends");
        reader.poll(LISTING, false).await.expect("polled");
        let (.., batch) = reader.polls.last().expect("a poll");
        if !batch.more {
            break;
        }
    }
    let polls = reader.polls[from..].iter();
    let records = polls.flat_map(|(.., batch)| &batch.records);
    let lists = records.map(|r| match &r.event {
        Event::ReconManifest(e) => {
            assert_eq!(
                (r.topic, &*r.key),
                (topic::RECON_MANIFEST, "under-test|order")
            );
            e.clone()
        }
        other => panic!("{other:?}"),
    });
    lists.collect()
}

/// The entries of one list, which is whole.
fn whole(parts: &[ReconManifest], role: SystemRole) -> BTreeMap<String, ManifestEntry> {
    let last = parts.last().expect("a list");
    assert_eq!(last.chunks as usize, parts.len());
    for (at, part) in parts.iter().enumerate() {
        assert_eq!((part.chunk as usize, part.role), (at, role));
        assert_eq!(part.manifest_id, last.manifest_id);
        assert!(part.window_start < part.window_end);
    }
    let all: Vec<_> = parts.iter().flat_map(|part| &part.entries).collect();
    assert_eq!(last.total_count as usize, all.len());
    let amount: Decimal = all.iter().filter_map(|e| e.amount).sum();
    assert_eq!(last.total_amount, Some(amount));
    let by_order = all.iter().map(|e| (e.entity_key.to_string(), (*e).clone()));
    let by_order: BTreeMap<_, _> = by_order.collect();
    assert_eq!(by_order.len(), all.len(), "an order is listed once");
    by_order
}

#[tokio::test]
async fn a_storefront_lists_the_orders_that_it_has() {
    for descriptor in storefronts() {
        let (fake, mut settings) = small(descriptor).await;
        settings["timeout_ms"] = 60_000.into();
        let fake = fake.as_ref();
        act(fake, json!({"freeze": true}));
        for n in 0..70 {
            let order = act(fake, json!({"place": {"S00": 1 + n % 2}, "captured": true}));
            if n == 7 {
                act(fake, json!({"freeze": false}));
                act(fake, json!({"cancel_order": order}));
            }
        }
        let mut reader = Reader::new(descriptor, settings);
        let orders = reader.shards().remove(0);
        for _ in 0..5 {
            reader.poll(&orders, false).await.expect("polled");
        }
        let records = reader.records().into_iter();
        let placed: BTreeMap<String, Decimal> = records
            .filter_map(|r| match &r.event {
                Event::OrderEvent(e) if e.r#type == OrderEventType::Placed => {
                    let order = e.order.as_ref().expect("an order");
                    Some((e.order_id.to_string(), order.grand_total))
                }
                Event::ReconManifest(e) => panic!("nothing is due: {e:?}"),
                _ => None,
            })
            .collect();
        assert_eq!(placed.len(), 70, "{}", descriptor.kind);
        let parts = listed(&mut reader, 0).await;
        assert!(parts.len() > 1, "{}", descriptor.kind);
        let entries = whole(&parts, SystemRole::Channel);
        let amounts = entries
            .iter()
            .map(|(k, e)| (k.clone(), e.amount.expect("a total")));
        assert_eq!(
            amounts.collect::<BTreeMap<_, _>>(),
            placed,
            "{}",
            descriptor.kind
        );
        let gone = entries
            .values()
            .filter(|e| e.status.as_deref() == Some("CANCELLED"));
        assert_eq!(gone.count(), 1, "{}", descriptor.kind);
        // What was listed is listed again when it has changed, and not before.
        let end = parts[0].window_end.0;
        let nothing = listed(&mut reader, end - 3 * 86_400_000_000).await;
        let recent = whole(&nothing, SystemRole::Channel);
        assert!(recent.is_empty(), "{}: {recent:?}", descriptor.kind);
    }
}

/// ERPs that list the orders that they keep.
const ERPS: [&str; 2] = ["tryton", "odoo"];

#[tokio::test]
async fn an_erp_lists_the_orders_that_it_has() {
    for kind in ERPS {
        let descriptor = connectors::find(kind).expect("the kind");
        let fake = fake(descriptor).await.expect("a stand-in");
        let mut settings = fake.settings();
        settings["page_rows"] = 10.into();
        let sink = build(descriptor, settings.clone()).sink().expect("a sink");
        for n in 0..25 {
            let order = placed(&format!("L{n}"), &[("A", "2", "10", "4", "24")]);
            let delivery = delivery(topic::ORDER_LIFECYCLE, &order.order_id, order.clone());
            sink.write(&[delivery]).await.remove(0).expect("taken");
        }
        let mut reader = Reader::new(descriptor, settings.clone());
        let parts = listed(&mut reader, 0).await;
        assert!(parts.len() > 2, "{kind}: {}", parts.len());
        let entries = whole(&parts, SystemRole::Erp);
        assert_eq!(entries.len(), 25, "{kind}");
        let one = &entries[&id_of("L3")];
        assert_eq!(
            (one.amount, one.status.as_deref()),
            (Some("24".parse().expect("24")), None),
            "{kind}"
        );
        assert!(one.external_id.is_some(), "{kind}");
        settings["list_hours"] = 0.into();
        let silent = Reader::new(descriptor, settings);
        assert!(!silent.shards().contains(&LISTING.to_owned()), "{kind}");
    }
}

/// Odoo shows whole seconds, and rows of one sort by what it does not show.
#[tokio::test]
async fn sales_of_one_second_are_all_listed_whatever_a_page_holds() {
    let descriptor = connectors::find("odoo").expect("the kind");
    let fake = fake(descriptor).await.expect("a stand-in");
    let mut settings = fake.settings();
    settings["page_rows"] = 10.into();
    let sink = build(descriptor, settings.clone()).sink().expect("a sink");
    for n in 0..40 {
        let order = placed(&format!("S{n}"), &[("A", "2", "10", "4", "24")]);
        let delivery = delivery(topic::ORDER_LIFECYCLE, &order.order_id, order.clone());
        sink.write(&[delivery]).await.remove(0).expect("taken");
    }
    // All but the first are written in one second, the last of them first; one is there twice.
    let second = 1_790_200_000_000_000_i64;
    for (at, id) in (2..=40).rev().enumerate() {
        let micros = second + at as i64 * 1_000;
        act(
            fake.as_ref(),
            json!({"touch": "sale.order", "id": id, "at": micros}),
        );
    }
    let copy = json!({
        "name": "S00999", "state": "draft", "origin": id_of("S7"), "amount_total": 24.0, "company_id": 1,
    });
    act(
        fake.as_ref(),
        json!({"create": "sale.order", "values": copy, "at": second + 500}),
    );
    let mut reader = Reader::new(descriptor, settings);
    let parts = listed(&mut reader, 0).await;
    let mut told: Vec<(String, String)> = parts
        .iter()
        .flat_map(|part| &part.entries)
        .map(|e| {
            let number = e.external_id.as_deref().expect("its number");
            (number.to_owned(), e.entity_key.to_string())
        })
        .collect();
    told.sort();
    assert_eq!(told.len(), 41, "{told:?}");
    told.dedup();
    assert_eq!(told.len(), 41, "each is listed once");
    let twice = told.iter().filter(|(_, order)| *order == id_of("S7"));
    assert_eq!(twice.count(), 2, "the order that has two sales");
}
