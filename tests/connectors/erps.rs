//! What the sources of ERPs with warehouses promise, tried on each of them with a stand-in.
//!
//! Beside the acts of `sources` their stand-ins understand `ship`, `scrap`, `plan` with `do` and
//! `delete`, `"in_transit": true` with `arrive`, and `touch`.

use super::sources::{Reader, act, small};
use crossdock::connectors;
use crossdock::contract::event::{
    Event, Origin, StockChanged, StockReason, StockSnapshot, StockState,
};
use crossdock::domain::Decimal;
use crossdock::pipeline::{ConnectorDescriptor, Fake};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

/// An ERP under test: its kind, the table of what moves stock, and whether what was done can be cancelled.
struct Erp {
    kind: &'static str,
    moves: &'static str,
    cancels: bool,
}

const ERPS: [Erp; 2] = [
    Erp {
        kind: "tryton",
        moves: "stock.move",
        cancels: true,
    },
    Erp {
        kind: "odoo",
        moves: "stock.move.line",
        cancels: false,
    },
];

fn descriptor(kind: &str) -> &'static ConnectorDescriptor {
    connectors::find(kind).expect("the connector")
}

/// A stand-in and a reader that has read it.
pub async fn opened(kind: &str) -> (Box<dyn Fake>, Reader) {
    let (fake, settings) = small(descriptor(kind)).await;
    let mut reader = Reader::new(descriptor(kind), settings);
    reader.drain().await;
    (fake, reader)
}

/// The movements that `action` made.
pub async fn moved(fake: &dyn Fake, reader: &mut Reader, action: Value) -> Vec<StockChanged> {
    let before = reader.polls.len();
    act(fake, action);
    reader.drain().await;
    movements(reader, before)
}

/// The movements told since so many polls.
pub fn movements(reader: &Reader, polls: usize) -> Vec<StockChanged> {
    let records = reader.polls[polls..]
        .iter()
        .flat_map(|(_, _, b)| &b.records);
    records
        .filter_map(|r| match &r.event {
            Event::StockChanged(e) => Some(e.clone()),
            _ => None,
        })
        .collect()
}

pub fn told(events: &[StockChanged]) -> Vec<(String, StockState, StockState, StockReason, String)> {
    let short = |e: &StockChanged| {
        (
            e.location_id.to_string(),
            e.from_state,
            e.to_state,
            e.reason,
            e.qty.to_string(),
        )
    };
    events.iter().map(short).collect()
}

#[tokio::test]
async fn each_kind_of_move_says_what_happened() {
    use StockReason as R;
    use StockState::{Customer, InTransit, Loss, Sellable, Supplier};
    for erp in &ERPS {
        let (fake, mut reader) = opened(erp.kind).await;
        let cases = [
            (
                json!({"receive": "S01", "location": "Warehouse", "quantity": 9}),
                Supplier,
                Sellable,
                R::Receipt,
                "9",
            ),
            (
                json!({"sell": "S01", "location": "Warehouse", "quantity": 1}),
                Sellable,
                Customer,
                R::Sale,
                "1",
            ),
            (
                json!({"ship": "S01", "location": "Warehouse", "quantity": 2}),
                Sellable,
                Customer,
                R::Shipment,
                "2",
            ),
            (
                json!({"return": "S01", "location": "Warehouse", "quantity": 1}),
                Customer,
                Sellable,
                R::Return,
                "1",
            ),
            (
                json!({"scrap": "S01", "location": "Warehouse", "quantity": 1}),
                Sellable,
                Loss,
                R::Shrink,
                "1",
            ),
            (
                json!({"count": "S01", "location": "Warehouse", "quantity": 4}),
                Sellable,
                Loss,
                R::CountAdjustment,
                "2",
            ),
            (
                json!({"count": "S01", "location": "Warehouse", "quantity": 10.5}),
                Loss,
                Sellable,
                R::CountAdjustment,
                "6.5",
            ),
        ];
        for (action, from, to, reason, quantity) in cases {
            let events = moved(fake.as_ref(), &mut reader, action.clone()).await;
            let expected = vec![(
                "Warehouse".to_owned(),
                from,
                to,
                reason,
                quantity.to_owned(),
            )];
            assert_eq!(told(&events), expected, "{action}");
        }
        let transfer =
            json!({"transfer": "S01", "from": "Warehouse", "to": "Store", "quantity": 3});
        let events = moved(fake.as_ref(), &mut reader, transfer).await;
        let legs = |quantity: &str| {
            let q = quantity.to_owned();
            vec![
                (
                    "Warehouse".to_owned(),
                    Sellable,
                    InTransit,
                    R::TransferOut,
                    q.clone(),
                ),
                (
                    "Store".to_owned(),
                    Supplier,
                    InTransit,
                    R::TransferIn,
                    q.clone(),
                ),
                ("Store".to_owned(), InTransit, Sellable, R::TransferIn, q),
            ]
        };
        assert_eq!(told(&events), legs("3"));
        assert!(
            events
                .iter()
                .all(|e| e.movement_id == events[0].movement_id)
        );

        // Goods that are on the way for a while: leaving, announced; later arriving.
        let leaving = json!({"transfer": "S01", "from": "Warehouse", "to": "Store", "quantity": 2, "in_transit": true});
        let before = reader.polls.len();
        let ids = act(fake.as_ref(), leaving);
        reader.drain().await;
        assert_eq!(told(&movements(&reader, before)), legs("2")[..2]);
        act(fake.as_ref(), json!({"arrive": ids[1]}));
        reader.drain().await;
        let events = movements(&reader, before);
        assert_eq!(told(&events), legs("2"));
        assert!(
            events
                .iter()
                .all(|e| e.movement_id == events[0].movement_id)
        );
        reader.agrees_with(fake.as_ref());
    }
}

#[tokio::test]
async fn a_count_is_told_as_moves_and_compared_as_a_snapshot() {
    for erp in &ERPS {
        let (fake, mut reader) = opened(erp.kind).await;
        act(
            fake.as_ref(),
            json!({"receive": "S01", "location": "Warehouse", "quantity": 9}),
        );
        reader.drain().await;
        let before = reader.polls.len();
        act(
            fake.as_ref(),
            json!({"count": "S01", "location": "Warehouse", "quantity": 7}),
        );
        // Sold before the count is compared: the snapshot is as of after the sale.
        act(
            fake.as_ref(),
            json!({"sell": "S01", "location": "Warehouse", "quantity": 1}),
        );
        reader.drain().await;
        let records: Vec<_> = reader.polls[before..]
            .iter()
            .flat_map(|(_, _, b)| &b.records)
            .collect();
        let snapshots: Vec<&StockSnapshot> = records
            .iter()
            .filter_map(|r| match &r.event {
                Event::StockSnapshot(e) => Some(e),
                _ => None,
            })
            .collect();
        let last = records
            .iter()
            .filter_map(|r| match &r.event {
                Event::StockChanged(e) => Some(e.meta.source_position),
                _ => None,
            })
            .max();
        assert_eq!(snapshots.len(), 1);
        assert_eq!(snapshots[0].sellable, Decimal::from(6));
        assert_eq!(
            snapshots[0].meta.origin,
            Origin::Reconciliation,
            "compared only"
        );
        assert_eq!(Some(snapshots[0].as_of_position), last);
        reader.agrees_with(fake.as_ref());
    }
}

#[tokio::test]
async fn a_done_move_is_told_once_however_often_its_stamp_moves() {
    for erp in &ERPS {
        let (fake, mut reader) = opened(erp.kind).await;
        act(
            fake.as_ref(),
            json!({"receive": "S01", "location": "Store", "quantity": 9}),
        );
        act(
            fake.as_ref(),
            json!({"sell": "S01", "location": "Store", "quantity": 2}),
        );
        reader.drain().await;
        for id in [1, 2] {
            let events = moved(
                fake.as_ref(),
                &mut reader,
                json!({"touch": erp.moves, "id": id}),
            )
            .await;
            assert!(events.is_empty(), "{events:?}");
        }
        // Also when it is far behind the overlap and after a restart.
        let far = 1_790_000_000_000_000_i64 + 10 * 24 * 3_600 * 1_000_000;
        act(
            fake.as_ref(),
            json!({"sell": "S01", "location": "Store", "quantity": 1, "at": far}),
        );
        reader.drain().await;
        reader.restart();
        let events = moved(
            fake.as_ref(),
            &mut reader,
            json!({"touch": erp.moves, "id": 2}),
        )
        .await;
        assert!(events.is_empty(), "{events:?}");
        reader.agrees_with(fake.as_ref());
    }
}

/// Shops, warehouses and bookkeepers at work in any order, with transactions left open for a while,
/// crashes before anything is durable, and restarts: everything is told exactly once.
#[tokio::test]
async fn whatever_happens_in_whatever_order_everything_is_told_exactly_once() {
    for (erp, seed) in ERPS
        .iter()
        .flat_map(|erp| (0..12).map(move |seed| (erp, seed)))
    {
        println!("{} seed {seed}", erp.kind);
        let (fake, mut settings) = small(descriptor(erp.kind)).await;
        settings["overlap_s"] = 60.into();
        let fake = fake.as_ref();
        let mut reader = Reader::new(descriptor(erp.kind), settings);
        let mut random = StdRng::seed_from_u64(seed);
        let mut open: Vec<(String, u64)> = Vec::new();
        let mut planned: Vec<Value> = Vec::new();
        let mut moves: Vec<Value> = Vec::new();
        for step in 0..200_u64 {
            let sku = format!("S{:02}", random.random_range(0..6));
            let location = ["Warehouse", "Store"][random.random_range(0..2)];
            let other = ["Store", "Warehouse"][usize::from(location == "Store")];
            let quantity = random.random_range(1..9);
            let mut action = match random.random_range(0..16) {
                0..3 => json!({"receive": sku, "location": location, "quantity": quantity}),
                3..6 => json!({"sell": sku, "location": location, "quantity": quantity}),
                6 => json!({"ship": sku, "location": location, "quantity": quantity}),
                7 => json!({"return": sku, "location": location, "quantity": quantity}),
                8 => json!({"count": sku, "location": location, "quantity": quantity}),
                9 => json!({"transfer": sku, "from": location, "to": other, "quantity": quantity}),
                10 => json!({"plan": sku, "location": location, "quantity": quantity}),
                11 if !planned.is_empty() => {
                    let id = planned.swap_remove(random.random_range(0..planned.len()));
                    match random.random_range(0..4) {
                        0 => json!({"cancel": id}),
                        1 => json!({"delete": id}),
                        _ => {
                            moves.push(id.clone());
                            json!({"do": id})
                        }
                    }
                }
                12 if !moves.is_empty() => {
                    json!({"touch": erp.moves, "id": moves[random.random_range(0..moves.len())]})
                }
                13 if !moves.is_empty() && erp.cancels => {
                    json!({"cancel": moves.swap_remove(random.random_range(0..moves.len()))})
                }
                14 => {
                    let name = format!("t{step}");
                    open.push((name.clone(), step));
                    json!({"begin": name})
                }
                _ => json!({"receive": sku, "location": location, "quantity": quantity}),
            };
            let fresh = ["receive", "sell", "ship", "return", "count", "transfer"]
                .iter()
                .any(|v| action.get(v).is_some());
            if fresh && !open.is_empty() && random.random_bool(0.4) {
                action["in"] = open[random.random_range(0..open.len())].0.clone().into();
                act(fake, action);
            } else {
                let plans = action.get("plan").is_some();
                let makes = ["receive", "sell", "ship", "return", "transfer"]
                    .iter()
                    .any(|v| action.get(v).is_some());
                let ids = act(fake, action);
                let ids = ids.as_array().cloned().unwrap_or_default();
                match (plans, makes) {
                    (true, _) => planned.extend(ids),
                    (_, true) => moves.extend(ids),
                    _ => {}
                }
            }
            // No transaction lasts longer than the overlap.
            while let Some((name, since)) = open.first().cloned() {
                if step - since < 40 && random.random_bool(0.9) {
                    break;
                }
                open.remove(0);
                let end = if random.random_bool(0.2) {
                    "rollback"
                } else {
                    "commit"
                };
                act(fake, json!({end: name}));
            }
            if random.random_bool(0.3) {
                let crash = random.random_bool(0.2);
                reader
                    .poll("stock", crash)
                    .await
                    .unwrap_or_else(|f| panic!("seed {seed}: {f}"));
            }
            if random.random_bool(0.05) {
                reader.restart();
            }
        }
        for (name, _) in open {
            act(fake, json!({"commit": name}));
        }
        reader.drain().await;
        reader.agrees_with(fake);
        let mut last = 0;
        for record in reader.records() {
            if let Event::StockChanged(e) = &record.event {
                assert_eq!(
                    e.meta.source_position,
                    last + 1,
                    "seed {seed}: positions follow the order of reading"
                );
                last = e.meta.source_position;
            }
        }
    }
}
