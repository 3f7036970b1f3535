//! Corrections of stock that an ERP repeats after another system: what they ask for, and whether it is still to
//! be done. Pure.

use super::orders::reject;
use crate::contract::event::{Correction, CorrectionKind, SinkOutcome};
use crate::domain::Decimal;
use crate::pipeline::{Ack, Code, Fault};

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
