//! The connector's source on the real ERP: its users buy, sell, move, count and take back, and what is
//! told must add up to what the ERP itself reports.

use crate::erp::{Erp, STORE, WAREHOUSE};
use crate::systems::Systems;
use crossdock::connectors;
use crossdock::contract::event::{
    Event, Origin, StockChanged, StockReason, StockSnapshot, StockState,
};
use crossdock::domain::Decimal;
use crossdock::pipeline::{Connector, Cursor, Source, SourceRecord};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Polls without anything new after which everything is read.
const IDLE_POLLS: usize = 21;

pub struct Reader {
    pub runtime: tokio::runtime::Runtime,
    pub connector: Arc<dyn Connector>,
    source: Box<dyn Source>,
    cursors: BTreeMap<String, Cursor>,
    pub records: Vec<SourceRecord>,
}

impl Reader {
    /// Of Tryton.
    pub fn new(settings: Value) -> Reader {
        Reader::of("tryton", settings)
    }

    /// Of a connector of this kind.
    pub fn of(kind: &str, settings: Value) -> Reader {
        let kind = connectors::find(kind).expect("the connector");
        let connector = (kind.build)("erp", settings).expect("built");
        Reader {
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime"),
            source: connector.source().expect("a source"),
            connector,
            cursors: BTreeMap::new(),
            records: Vec::new(),
        }
    }

    /// As after a crash.
    pub fn restart(&mut self) {
        self.source = self.connector.source().expect("a source");
    }

    /// Reads until there is nothing more; gives the movements and snapshots that were new.
    pub fn drain(&mut self) -> (Vec<StockChanged>, Vec<StockSnapshot>) {
        let from = self.records.len();
        for shard in self.source.shards() {
            let mut idle = 0;
            while idle < IDLE_POLLS {
                let before = self.cursors.get(&shard);
                let batch = self
                    .runtime
                    .block_on(self.source.poll(&shard, before))
                    .expect("polled");
                assert!(batch.rejects.is_empty(), "{:?}", batch.rejects);
                idle = match batch.more || before != Some(&batch.cursor) {
                    true => 0,
                    false => idle + 1,
                };
                self.cursors.insert(shard.clone(), batch.cursor);
                self.records.extend(batch.records);
            }
        }
        let (mut moves, mut snapshots) = (Vec::new(), Vec::new());
        for record in &self.records[from..] {
            match &record.event {
                Event::StockChanged(e) => moves.push(e.clone()),
                Event::StockSnapshot(e) => snapshots.push(e.clone()),
                _ => {}
            }
        }
        (moves, snapshots)
    }

    /// Stock by location and SKU, folded from all movements told.
    pub fn stock(&self) -> BTreeMap<(String, String), Decimal> {
        let (mut stock, mut seen): (BTreeMap<_, Decimal>, _) = (BTreeMap::new(), BTreeSet::new());
        for record in &self.records {
            let Event::StockChanged(e) = &record.event else {
                continue;
            };
            assert!(seen.insert(e.meta.event_id), "told twice: {e:?}");
            let held = stock
                .entry((e.location_id.to_string(), e.sku.to_string()))
                .or_default();
            if e.from_state == StockState::Sellable {
                *held -= e.qty;
            }
            if e.to_state == StockState::Sellable {
                *held += e.qty;
            }
        }
        stock
    }

    fn agrees_with(&self, erp: &Erp) {
        let stock = self.stock();
        for warehouse in [WAREHOUSE, STORE] {
            let reported = erp.on_hand(warehouse);
            assert!(reported.len() >= 300, "{} products", reported.len());
            for (sku, units) in reported {
                let told = stock
                    .get(&(warehouse.code.to_owned(), sku.clone()))
                    .copied();
                let told = told.unwrap_or_default().to_f64();
                assert_eq!(told, units as f64, "{sku} at {}", warehouse.code);
            }
        }
    }
}

fn short(e: &StockChanged) -> (&str, StockState, StockState, StockReason, String) {
    (
        &e.location_id,
        e.from_state,
        e.to_state,
        e.reason,
        e.qty.to_string(),
    )
}

#[test]
fn what_is_told_is_what_the_erp_itself_reports() {
    use StockReason as R;
    use StockState::{Customer, InTransit, Loss, Sellable, Supplier};
    let Some(systems) = Systems::find() else {
        return;
    };
    let erp = Erp::log_in(&systems);
    let mut reader = Reader::new(erp.settings());
    let checks = reader.runtime.block_on(reader.connector.check());
    assert!(checks.iter().all(|c| c.result.is_ok()), "{checks:?}");

    // The opening: all moves since there are any.
    reader.drain();
    reader.agrees_with(&erp);
    let named = |reader: &Reader, name: &str| {
        let records = reader.records.iter();
        records
            .filter(|r| r.event.contract().ends_with(name))
            .count()
    };
    assert!(named(&reader, "ProductChanged") >= 300);
    assert_eq!(named(&reader, ".Location"), 2);

    let sku = "SKU-0250";
    let (warehouse, store) = (erp.on_hand(WAREHOUSE)[sku], erp.on_hand(STORE)[sku]);
    erp.receive(WAREHOUSE, sku, 7);
    let (moves, _) = reader.drain();
    let told: Vec<_> = moves.iter().map(short).collect();
    assert_eq!(
        told,
        [("WH", Supplier, Sellable, R::Receipt, "7".to_owned())]
    );

    erp.sell(WAREHOUSE, sku, 2);
    let (moves, _) = reader.drain();
    let told: Vec<_> = moves.iter().map(short).collect();
    assert_eq!(
        told,
        [("WH", Sellable, Customer, R::Shipment, "2".to_owned())]
    );

    erp.ring_up(sku, 3);
    let (moves, _) = reader.drain();
    let told: Vec<_> = moves.iter().map(short).collect();
    assert_eq!(
        told,
        [("STORE", Sellable, Customer, R::Sale, "3".to_owned())]
    );

    erp.take_back(WAREHOUSE, sku, 1);
    let (moves, _) = reader.drain();
    let told: Vec<_> = moves.iter().map(short).collect();
    assert_eq!(
        told,
        [("WH", Customer, Sellable, R::Return, "1".to_owned())]
    );

    erp.transfer(WAREHOUSE, STORE, sku, 4);
    reader.restart();
    let (moves, _) = reader.drain();
    let mut told: Vec<_> = moves.iter().map(short).collect();
    told.sort_by_key(|t| (t.0, t.1 as i32));
    let four = || "4".to_owned();
    let mut expected = vec![
        ("WH", Sellable, InTransit, R::TransferOut, four()),
        ("STORE", Supplier, InTransit, R::TransferIn, four()),
        ("STORE", InTransit, Sellable, R::TransferIn, four()),
    ];
    expected.sort_by_key(|t| (t.0, t.1 as i32));
    assert_eq!(told, expected);
    assert!(
        moves.iter().all(|e| e.movement_id == moves[0].movement_id),
        "{moves:?}"
    );

    let counted = store - 3 + 4 - 2;
    erp.count(STORE, sku, counted);
    let (moves, snapshots) = reader.drain();
    let told: Vec<_> = moves.iter().map(short).collect();
    assert_eq!(
        told,
        [("STORE", Sellable, Loss, R::CountAdjustment, "2".to_owned())]
    );
    assert_eq!(snapshots.len(), 1, "{snapshots:?}");
    let snapshot = &snapshots[0];
    assert_eq!((&*snapshot.sku, &*snapshot.location_id), (sku, "STORE"));
    assert_eq!(snapshot.sellable.to_f64(), counted as f64);
    assert_eq!(
        snapshot.meta.origin,
        Origin::Reconciliation,
        "compared only"
    );
    assert_eq!(snapshot.as_of_position, moves[0].meta.source_position);

    reader.agrees_with(&erp);
    assert_eq!(erp.on_hand(WAREHOUSE)[sku], warehouse + 7 - 2 + 1 - 4);
    assert_eq!(erp.on_hand(STORE)[sku], counted);

    // A second reader that begins now tells the same facts under the same ids.
    let mut second = Reader::new(erp.settings());
    second.drain();
    second.agrees_with(&erp);
    let ids = |reader: &Reader| -> BTreeSet<_> {
        let events = reader.records.iter().filter_map(|r| match &r.event {
            Event::StockChanged(e) => Some(e.meta.event_id),
            _ => None,
        });
        events.collect()
    };
    assert_eq!(ids(&second), ids(&reader));
}
