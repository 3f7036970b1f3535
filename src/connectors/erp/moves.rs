//! From the stock moves of an ERP to the facts that they are.

use super::events::meta;
use super::places::Place;
use crate::contract::event::{EventMeta, StockChanged, StockReason, StockState, Text};
use crate::contract::topic;
use crate::domain::{Date, Decimal, Timestamp, compound_key, event_id};
use crate::pipeline::SourceRecord;

/// The order that goods are sold by or come back from.
#[derive(Clone, Debug, PartialEq)]
pub struct OfOrder {
    /// The order.
    pub order: Text,
    /// The channel's name of the line; empty where there is none.
    pub line: Text,
    /// The return that they come back by.
    pub returned_by: Option<Text>,
}

/// A move of goods.
#[derive(Clone, Debug)]
pub struct Move {
    /// The ERP's own name of it.
    pub record_id: String,
    /// What moves.
    pub sku: Text,
    /// How much of it, in `unit`.
    pub quantity: Decimal,
    /// UN/ECE code of the unit that stock is counted in.
    pub unit: Text,
    /// Where from.
    pub from: Place,
    /// Where to.
    pub to: Place,
    /// When.
    pub at: Timestamp,
    /// The ERP's day.
    pub date: Option<Date>,
    /// The shipment that it is a part of.
    pub shipment: Option<String>,
    /// What else it is for.
    pub origin: Option<String>,
    /// Whether a count found it out.
    pub counted: bool,
    /// Where goods that are on the way go, when the shipment tells.
    pub destination: Option<Place>,
    /// The order that they are sold by or come back from.
    pub order: Option<OfOrder>,
    /// What stands before the type of a location in `meta.ext`.
    pub system: &'static str,
}

/// A change at one position: one leg of a move.
struct Leg {
    name: &'static str,
    location: Text,
    from: StockState,
    to: StockState,
    reason: StockReason,
}

impl Move {
    /// The facts that it is, in order; `position` gives each its place.
    pub fn events(&self, instance: &str, position: &mut i64) -> Vec<SourceRecord> {
        let legs = self.legs();
        legs.iter()
            .map(|leg| self.event(instance, leg, None, position))
            .collect()
    }

    /// The facts that take back what [`Move::events`] told: a done move was cancelled.
    pub fn corrections(&self, instance: &str, position: &mut i64) -> Vec<SourceRecord> {
        let mut records = Vec::new();
        for leg in self.legs() {
            for (name, from, to) in inverse(&leg) {
                let correction = Leg {
                    name,
                    from,
                    to,
                    location: leg.location.clone(),
                    reason: StockReason::ReconCorrection,
                };
                records.push(self.event(instance, &correction, Some(leg.name), position));
            }
        }
        records
    }

    fn legs(&self) -> Vec<Leg> {
        use StockReason as R;
        use StockState as S;
        if !self.quantity.is_positive() {
            // Such as is kept where a shipment was short, or a count found what was expected.
            return Vec::new();
        }
        let leg = |name, location: &Text, from, to, reason| Leg {
            name,
            location: location.clone(),
            from,
            to,
            reason,
        };
        let announced = |at: &Text| leg("announced", at, S::Supplier, S::InTransit, R::TransferIn);
        match (&self.from, &self.to) {
            (
                Place::Stock { location, state },
                Place::Stock {
                    location: other,
                    state: after,
                },
            ) => {
                if location != other {
                    vec![
                        leg("out", location, *state, S::InTransit, R::TransferOut),
                        announced(other),
                        leg("in", other, S::InTransit, *after, R::TransferIn),
                    ]
                } else if state != after {
                    let reason = match after {
                        S::Damaged => R::Damage,
                        S::QualityHold => R::QcHold,
                        _ => R::QcRelease,
                    };
                    vec![leg("", location, *state, *after, reason)]
                } else {
                    Vec::new()
                }
            }
            (Place::Stock { location, state }, Place::Transit) => {
                let mut legs = vec![leg("out", location, *state, S::InTransit, R::TransferOut)];
                if let Some(Place::Stock { location, .. }) = &self.destination {
                    legs.push(announced(location));
                }
                legs
            }
            (Place::Transit, Place::Stock { location, state }) => {
                let arrives = leg("in", location, S::InTransit, *state, R::TransferIn);
                match &self.destination {
                    Some(Place::Stock { location: to, .. }) if to == location => vec![arrives],
                    _ => vec![announced(location), arrives],
                }
            }
            (Place::Transit, Place::Outside { state, .. }) => match &self.destination {
                Some(Place::Stock { location, .. }) => {
                    vec![leg("lost", location, S::InTransit, *state, R::Shrink)]
                }
                _ => Vec::new(),
            },
            (Place::Stock { location, state }, Place::Outside { state: to, kind }) => {
                vec![leg("", location, *state, *to, self.reason_out(*to, kind))]
            }
            (Place::Outside { state: from, .. }, Place::Stock { location, state }) => {
                let reason = match from {
                    S::Customer => R::Return,
                    S::Loss => R::CountAdjustment,
                    _ => R::Receipt,
                };
                vec![leg("", location, *from, *state, reason)]
            }
            _ => Vec::new(),
        }
    }

    fn reason_out(&self, to: StockState, kind: &str) -> StockReason {
        match (to, kind) {
            (StockState::Loss, _) if self.counted => StockReason::CountAdjustment,
            (StockState::Loss, _) => StockReason::Shrink,
            (StockState::Customer, _) if self.shipment.is_some() => StockReason::Shipment,
            (StockState::Customer, _) => StockReason::Sale,
            // Components of production; the contract has no word of its own for them.
            (_, "production") => StockReason::Unknown,
            _ => StockReason::Return,
        }
    }

    fn event(
        &self,
        instance: &str,
        leg: &Leg,
        corrects: Option<&str>,
        position: &mut i64,
    ) -> SourceRecord {
        let record_id = &self.record_id;
        let told = |leg: &str| event_id(instance, 0, record_id, leg, "StockChanged");
        let id = match corrects {
            Some(leg_before) => told(&format!("{leg_before}/{}", leg.name)),
            None => told(leg.name),
        };
        // The two halves of a transfer that is on the way for a while are different moves.
        let on_the_way = self.from == Place::Transit || self.to == Place::Transit;
        let movement_id = match &self.shipment {
            Some(shipment) if on_the_way => format!("{shipment}/{}", self.sku),
            _ => record_id.clone(),
        };
        let mut event = StockChanged {
            meta: EventMeta {
                business_date: self.date,
                corrects_event_id: corrects.map(told),
                ..meta(instance, "StockChanged", id, *position, self.at)
            },
            movement_id: movement_id.as_str().into(),
            sku: self.sku.clone(),
            location_id: leg.location.clone(),
            from_state: leg.from,
            to_state: leg.to,
            qty: self.quantity,
            uom: self.unit.clone(),
            reason: leg.reason,
            document_ref: self
                .shipment
                .as_deref()
                .or(self.origin.as_deref())
                .map(Text::from),
            ..StockChanged::default()
        };
        if let Some(of) = &self.order {
            event.order_id = Some(of.order.clone());
            event.order_line_id = Some(of.line.clone()).filter(|l| !l.is_empty());
            event.return_id = of.returned_by.clone();
        }
        event.meta.correlation_id = match &event.document_ref {
            Some(document) => document.clone(),
            None => record_id.as_str().into(),
        };
        for side in [&self.from, &self.to] {
            if let Place::Outside { kind, .. } = side {
                let name = compact_str::format_compact!("{}.locationType", self.system);
                event.meta.ext.insert(name, kind.clone());
            }
        }
        *position += 1;
        SourceRecord {
            topic: topic::STOCK_CHANGE,
            key: compound_key(&[&self.sku, &leg.location]),
            event: event.into(),
        }
    }
}

/// What undoes a leg. Goods that left for another location never count as on the way *here*, so
/// what undoes that brings them back from outside.
fn inverse(leg: &Leg) -> Vec<(&'static str, StockState, StockState)> {
    use StockState as S;
    match (leg.from, leg.to) {
        (from, S::InTransit) if from != S::Supplier => vec![("cancelled", S::Supplier, from)],
        (S::InTransit, to) if leg.name == "in" => vec![
            ("cancelled", to, S::Supplier),
            ("announced-again", S::Supplier, S::InTransit),
        ],
        (from, to) => vec![("cancelled", to, from)],
    }
}
