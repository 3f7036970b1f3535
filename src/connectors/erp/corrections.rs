//! Corrections: of stock that an ERP repeats after another system, what they ask for and whether it is still to
//! be done; of an order that it lacks, that it is told again. Pure.

use super::orders::reject;
use crate::contract::event::{Correction, CorrectionKind, SinkOutcome};
use crate::domain::Decimal;
use crate::pipeline::{Ack, Code, Fault, Replay};

/// Stock of a position that is to be set.
pub struct SetStock<'a> {
    /// Of what.
    pub sku: &'a str,
    /// Where.
    pub location: &'a str,
    /// What the ERP was compared to have.
    shows: Decimal,
    /// What it should have.
    pub should: Decimal,
    /// In words for people.
    pub who: String,
    attempt: i32,
}

/// Whether a correction sets stock of the connector `instance`.
pub fn sets_stock(instance: &str, e: &Correction) -> bool {
    e.kind == CorrectionKind::SetStock && *e.target == *instance
}

/// The order that the connector `instance` is to be told again, where a correction asks for that. Where nobody
/// knows which ERP lacks it, each is asked: one that has no business with the order finds nothing to do.
pub fn tells_again(instance: &str, keeps_orders: bool, e: &Correction) -> Option<Replay> {
    let is_meant = e.target.is_empty() || *e.target == *instance;
    let asked = e.kind == CorrectionKind::ReplayOrder && keeps_orders && is_meant;
    asked.then(|| Replay {
        order: e.order_id.as_ref().unwrap_or(&e.entity_key).clone(),
        name: format!("correction-{}", e.correction_id),
        attempt: i64::from(e.attempt),
        asked_by: e.meta.source.clone(),
        reason: e.reason.clone(),
        told_under: compact_str::format_compact!("{}", e.exception_id),
    })
}

impl<'a> SetStock<'a> {
    /// What a correction that [`sets_stock`] asks for.
    ///
    /// # Errors
    /// A reject when it does not say what is where.
    pub fn of(e: &'a Correction) -> Result<SetStock<'a>, Fault> {
        match (&e.sku, &e.location_id, e.shows, e.should) {
            (Some(sku), Some(location), Some(shows), Some(should)) => Ok(SetStock {
                sku,
                location,
                shows,
                should,
                who: format!("correction of {sku} at {location}"),
                attempt: e.attempt,
            }),
            _ => {
                let message = format!("correction {} does not say what is where", e.correction_id);
                Err(reject(Code::DataQuality, message))
            }
        }
    }

    /// How it ended.
    pub fn ack(&self, outcome: SinkOutcome) -> Ack {
        Ack {
            outcome,
            version: i64::from(self.attempt),
            external_id: None,
            digest: None,
            status: None,
        }
    }

    /// How it ends where the ERP has `now`; `None` while it is to be done.
    pub fn ended(&self, now: Decimal) -> Option<Ack> {
        if now == self.should {
            return Some(self.ack(SinkOutcome::DuplicateAcked));
        }
        // It has changed since it was compared: the next comparison says what is right now.
        (now != self.shows).then(|| self.ack(SinkOutcome::StaleSkipped))
    }
}
