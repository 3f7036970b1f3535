//! `stock-recon`: whether the systems that repeat the stock of a position say what its authority says.
//!
//! stock-ledger passes on the counts of sources that are not the authority of their position; here they
//! are compared with the level at a common cut. A mirror that is off twice is to be corrected, by
//! compare-and-set, a few times and never by much; the authority never. The rules are in
//! [`crate::domain::recon::Mirrors`].

use super::cases::{self, About};
use super::checks::{check_key, check_times, no_use};
use super::keyed::{Call, Fate, Heard, Keyed, Rules};
use crate::contract::event::{
    Confidence, Correction, CorrectionKind, Event, SnapshotBasis, StockSnapshot,
};
use crate::contract::topic;
use crate::domain::recon::{Count, Level, Mirrors, StockRepair};
use crate::domain::{Decimal, compound_key, event_id, exception_id, key_part};
use crate::pipeline::{Fault, ProcessorDescriptor};

/// What `stock-recon` is.
pub const DESCRIPTOR: ProcessorDescriptor = ProcessorDescriptor {
    name: "stock-recon",
    purpose: "compares what mirrors of the stock say with the authority's level, and corrects them",
    inputs: &[topic::STOCK_LEDGER_MIRROR, topic::STOCK_LEVEL],
    tables: &[],
    outputs: &[topic::RECON_CORRECTION, topic::OPS_EXCEPTION],
};

/// The processor.
pub type StockRecon = Keyed<OfMirrors>;

/// Its rules.
#[derive(Default)]
pub struct OfMirrors;

impl Rules for OfMirrors {
    const DESCRIPTOR: &'static ProcessorDescriptor = &DESCRIPTOR;
    const SOURCE: &'static str = "crossdock/stock-recon";
    type Known = Mirrors;
    type Gathered = ();

    fn take(
        &self,
        index: usize,
        mirrors: &mut Mirrors,
        _: &mut (),
        call: &mut Call<'_, '_>,
    ) -> Result<Heard, Fault> {
        let now = call.now();
        match &call.inbound[index].event {
            Event::StockLevel(e) => {
                check_key(call.key, &compound_key(&[&e.sku, &e.location_id]))?;
                let level = Level {
                    version: e.level_version,
                    sellable: e.sellable,
                    as_of: e.as_of,
                    complete: e.confidence != Confidence::Degraded,
                };
                Ok(Heard::Taken(mirrors.level(level)))
            }
            Event::StockSnapshot(e) => {
                check_key(call.key, &compound_key(&[&e.sku, &e.location_id]))?;
                check_times(&e.meta)?;
                Ok(match count(e) {
                    Some(count) => Heard::Taken(mirrors.count(&e.meta.source, count, now)),
                    None => Heard::Nothing("what is available says nothing without the claims"),
                })
            }
            other => Err(no_use(DESCRIPTOR.name, other)),
        }
    }

    fn finish(
        &self,
        mirrors: &mut Mirrors,
        (): (),
        call: &mut Call<'_, '_>,
    ) -> Result<Fate, Fault> {
        let (repairs, changes) = mirrors.settle(call.now());
        for repair in repairs {
            let correction = correction(repair, call);
            let key = correction.entity_key.clone();
            call.context.emit(topic::RECON_CORRECTION, key, correction);
        }
        let about = About {
            sku: Some(key_part(call.key, 0)),
            location: Some(key_part(call.key, 1)),
            ..About::default()
        };
        cases::emit(&about, changes, &call.emitter(), call.context);
        Ok(Fate::Kept)
    }
}

fn count(e: &StockSnapshot) -> Option<Count> {
    let claims = match e.basis {
        SnapshotBasis::AvailableNet => e.source_reserved?,
        _ => Decimal::ZERO,
    };
    Some(Count {
        id: e.meta.event_id.as_u128(),
        place: (e.as_of_epoch, e.as_of_position),
        cut: e.as_of,
        sellable: e.sellable + claims,
        claims,
    })
}

fn correction(repair: StockRepair, call: &Call<'_, '_>) -> Correction {
    let StockRepair {
        source,
        shows,
        should,
        attempt,
    } = repair;
    // Tries are counted anew for each drift, so the moment tells them apart.
    let record_id = format!("{}|{source}|{}|{attempt}", call.key, call.now().0);
    let emitter = call.emitter();
    Correction {
        meta: emitter.meta("Correction", &record_id, i64::from(attempt)),
        correction_id: event_id(emitter.source, 0, &record_id, "correction", "Correction"),
        kind: CorrectionKind::SetStock,
        target: source.clone(),
        entity_key: call.key.into(),
        sku: Some(key_part(call.key, 0)),
        location_id: Some(key_part(call.key, 1)),
        shows: Some(shows),
        should: Some(should),
        attempt: attempt as i32,
        exception_id: exception_id("STOCK_DRIFT", call.key, &source),
        reason: Some("two counts in a row differ from the authority's level".into()),
        ..Correction::default()
    }
}
