//! Tryton's own traps, on its stand-in.

use super::erps::{moved, opened};
use super::sources::{Reader, act, small};
use crossdock::connectors;
use crossdock::contract::event::{Event, StockReason, StockState};
use crossdock::domain::Decimal;
use crossdock::pipeline::{Code, ConnectorDescriptor};
use serde_json::{Value, json};

fn tryton() -> &'static ConnectorDescriptor {
    connectors::find("tryton").expect("the connector")
}

#[tokio::test]
async fn a_planned_move_is_told_when_it_is_done_and_taken_back_when_it_is_cancelled() {
    let (fake, mut reader) = opened("tryton").await;
    act(
        fake.as_ref(),
        json!({"receive": "S01", "location": "Store", "quantity": 9}),
    );
    let plan = || {
        act(
            fake.as_ref(),
            json!({"plan": "S01", "location": "Store", "quantity": 4}),
        )[0]
        .clone()
    };
    let (done, dropped, deleted) = (plan(), plan(), plan());
    reader.drain().await;
    let events = moved(fake.as_ref(), &mut reader, json!({"do": done})).await;
    assert_eq!(events.len(), 1);
    for action in [
        json!({"cancel": dropped}),
        json!({"touch": "stock.move", "id": dropped}),
        json!({"delete": deleted}),
    ] {
        let events = moved(fake.as_ref(), &mut reader, action.clone()).await;
        assert!(events.is_empty(), "{action}: {events:?}");
    }
    let corrections = moved(fake.as_ref(), &mut reader, json!({"cancel": done})).await;
    assert_eq!(corrections.len(), 1);
    assert_eq!(corrections[0].reason, StockReason::ReconCorrection);
    assert_eq!(
        corrections[0].meta.corrects_event_id,
        Some(events[0].meta.event_id)
    );
    let again = moved(
        fake.as_ref(),
        &mut reader,
        json!({"touch": "stock.move", "id": done}),
    )
    .await;
    assert!(again.is_empty(), "{again:?}");
    reader.agrees_with(fake.as_ref());
}

#[tokio::test]
async fn a_cancelled_transfer_is_undone_at_both_ends() {
    let (fake, mut reader) = opened("tryton").await;
    act(
        fake.as_ref(),
        json!({"receive": "S01", "location": "Warehouse", "quantity": 9}),
    );
    let transfer = json!({"transfer": "S01", "from": "Warehouse", "to": "Store", "quantity": 3});
    let id = act(fake.as_ref(), transfer)[0].clone();
    reader.drain().await;
    let events = moved(fake.as_ref(), &mut reader, json!({"cancel": id})).await;
    assert!(events.len() >= 2, "{events:?}");
    reader.agrees_with(fake.as_ref());
    let incoming: Decimal = reader
        .records()
        .into_iter()
        .filter_map(|r| match &r.event {
            Event::StockChanged(e) if e.location_id == "Store" => Some(e),
            _ => None,
        })
        .map(|e| match (e.from_state, e.to_state) {
            (StockState::Supplier, StockState::InTransit) => e.qty,
            (StockState::InTransit, _) => -e.qty,
            _ => Decimal::ZERO,
        })
        .sum();
    assert!(
        incoming.is_zero(),
        "nothing is on the way any more, but {incoming} is"
    );
}

#[tokio::test]
async fn a_move_that_cannot_be_told_does_not_stop_its_neighbours_and_is_told_once_mended() {
    let (fake, mut reader) = opened("tryton").await;
    let template = act(
        fake.as_ref(),
        json!({"create": "product.template", "values": {"name": "New", "active": true, "type": "goods"}}),
    );
    let values = json!({"template": template[0], "active": true, "default_uom": 1, "code": null});
    let product = act(
        fake.as_ref(),
        json!({"create": "product.product", "values": values}),
    )[0]
    .clone();
    act(
        fake.as_ref(),
        json!({"write": "product.product", "id": product, "values": {"code": "TEMP"}}),
    );
    act(
        fake.as_ref(),
        json!({"receive": "TEMP", "location": "Store", "quantity": 5}),
    );
    act(
        fake.as_ref(),
        json!({"write": "product.product", "id": product, "values": {"code": null}}),
    );
    act(
        fake.as_ref(),
        json!({"receive": "S01", "location": "Store", "quantity": 9}),
    );
    reader.drain().await;
    let rejects: Vec<_> = reader
        .polls
        .iter()
        .flat_map(|(_, _, b)| &b.rejects)
        .collect();
    let moves: Vec<_> = rejects
        .iter()
        .filter(|r| r.origin.container == "stock.move")
        .collect();
    assert!(
        !moves.is_empty() && moves.iter().all(|r| r.fault.code == Code::UnknownReference),
        "{rejects:?}"
    );
    assert!(
        serde_json::from_slice::<Value>(&moves[0].raw).is_ok_and(|row| row["id"].is_i64()),
        "the row itself"
    );
    assert!(
        reader.stock()["S01"]["Store"] == Decimal::from(9),
        "the neighbour is told"
    );
    let before = rejects.len();
    act(
        fake.as_ref(),
        json!({"write": "product.product", "id": product, "values": {"code": "NEW"}}),
    );
    reader.drain().await;
    assert_eq!(
        reader.stock()["NEW"]["Store"],
        Decimal::from(5),
        "told once it can be"
    );
    let rejects = reader.polls.iter().flat_map(|(_, _, b)| &b.rejects).count();
    assert_eq!(rejects, before, "and dead-lettered once only");
}

#[tokio::test]
async fn products_locations_and_order_points_are_told_when_they_or_their_parts_change() {
    let (fake, mut reader) = opened("tryton").await;
    let count = |reader: &Reader, from: usize, name: &str| -> Vec<String> {
        let records = reader.polls[from..].iter().flat_map(|(_, _, b)| &b.records);
        let named = records.filter(|r| r.event.contract().ends_with(name));
        named.map(|r| format!("{:?}", r.event)).collect()
    };
    // The shop's 25, and what stands for delivery.
    assert_eq!(count(&reader, 0, "ProductChanged").len(), 26);
    assert_eq!(count(&reader, 0, "Location").len(), 2);
    let from = reader.polls.len();
    act(
        fake.as_ref(),
        json!({"write": "product.template", "id": 3, "values": {"name": "Renamed"}}),
    );
    reader.drain().await;
    let products = count(&reader, from, "ProductChanged");
    assert!(
        products.len() == 1 && products[0].contains("Renamed"),
        "{products:?}"
    );

    let from = reader.polls.len();
    let gtin = json!({"product": 4, "type": "ean", "code": "4006381333931"});
    act(
        fake.as_ref(),
        json!({"create": "product.identifier", "values": gtin}),
    );
    reader.drain().await;
    let products = count(&reader, from, "ProductChanged");
    assert!(
        products.len() == 1 && products[0].contains("4006381333931"),
        "{products:?}"
    );

    let from = reader.polls.len();
    act(
        fake.as_ref(),
        json!({"write": "product.product", "id": 5, "values": {"active": false}}),
    );
    reader.drain().await;
    let products = count(&reader, from, "ProductChanged");
    assert!(
        products.len() == 1 && products[0].contains("Discontinued"),
        "{products:?}"
    );

    let from = reader.polls.len();
    let point =
        json!({"product": 1, "type": "purchase", "warehouse_location": 5, "min_quantity": 4.0});
    act(
        fake.as_ref(),
        json!({"create": "stock.order_point", "values": point}),
    );
    reader.drain().await;
    let policies = count(&reader, from, "StockPolicy");
    assert!(
        policies.len() == 1 && policies[0].contains("Warehouse"),
        "{policies:?}"
    );
}

#[tokio::test]
async fn another_version_of_the_server_is_named_so() {
    let (fake, mut settings) = small(tryton()).await;
    settings["database"] = "another".into();
    let mut reader = Reader::new(tryton(), settings);
    let fault = reader
        .poll("stock", false)
        .await
        .expect_err("no such database");
    assert!(fault.to_string().contains("`database`"), "{fault}");
    let refused = fake.act(&json!({"sell": "no such", "location": "Store", "quantity": 1}));
    assert!(refused.is_err());
}
