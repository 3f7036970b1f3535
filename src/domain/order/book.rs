//! One order: the newest of what every system said of it, and what was decided.
//!
//! Everything but decisions is a function of the *set* of facts heard: of each object the highest
//! version counts. Decisions, which depend on what was known when they were made, are in `cancel`.

use super::cancel::Cancel;
use super::facts::{
    Invoice, Payment, Refund, Reservation, Return, Said, Shipment, Snapshot, Statement,
};
use super::machine::ShipmentStatus;
use crate::domain::cases::Cases;
use crate::domain::encoding::{self, Corrupt, kept, stored};
use crate::domain::{Position, Timestamp};
use compact_str::CompactString as Text;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long an order is remembered after the last thing that happened to it once it was final.
pub const RETENTION: Duration = Duration::from_secs(400 * 86_400);
/// Facts that may wait for an order of which nothing is known.
pub const WAITING_MAX: usize = 100;
/// Lines, steps and objects that one order may have altogether: keeps its state within a record.
pub const WEIGHT_MAX: usize = 10_000;
/// Statuses of one fulfilment that are kept in order to judge its way.
const PATH_MAX: usize = 40;

/// A fact about an order.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact {
    /// What `source` says of the order itself, and the ERP's number of it where it has one.
    Order {
        /// Who says it.
        source: Text,
        /// The ERP's number.
        erp_order: Option<Text>,
        /// What.
        statement: Statement,
    },
    /// The movement of money with this id.
    Payment(Text, Payment),
    /// The reservation with this id.
    Reservation(Text, Reservation),
    /// The fulfilment with this id.
    Shipment(Text, Shipment),
    /// The return with this id.
    Return(Text, Return),
    /// The refund with this id.
    Refund(Text, Refund),
    /// The document with this id.
    Invoice(Text, Invoice),
}

impl Fact {
    /// Kind and id of the object that it is about.
    pub fn entity(&self) -> Text {
        let (kind, id) = match self {
            Fact::Order { source, .. } => ("order", source),
            Fact::Payment(id, _) => ("payment", id),
            Fact::Reservation(id, _) => ("reservation", id),
            Fact::Shipment(id, _) => ("shipment", id),
            Fact::Return(id, _) => ("return", id),
            Fact::Refund(id, _) => ("refund", id),
            Fact::Invoice(id, _) => ("invoice", id),
        };
        compact_str::format_compact!("{kind}:{id}")
    }

    fn weight(&self) -> usize {
        1 + match self {
            Fact::Order {
                statement: Statement::Placed(s) | Statement::Accepted(Some(s)),
                ..
            } => s.lines.len(),
            Fact::Shipment(_, s) => s.lines.len(),
            Fact::Return(_, r) => r.returned.len(),
            Fact::Refund(_, r) => r.units.len(),
            _ => 0,
        }
    }
}

/// What became of a fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It counts now.
    Applied,
    /// It was known.
    Duplicate,
    /// Something newer was known.
    Superseded,
    /// Another fact of the same version was known. The one with the greater identity counts, so that
    /// the order in which they come does not matter; `taken` tells whether it is this one.
    Conflicting {
        /// Whether it counts now.
        taken: bool,
    },
    /// The order has more of everything than any order: nothing has changed.
    TooMuch,
}

/// The newest of an object.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Latest<T> {
    pub said: Said,
    pub value: T,
}

impl<T: encoding::Stored> encoding::Stored for Latest<T> {
    fn store(&self, out: &mut Vec<u8>) {
        self.said.store(out);
        self.value.store(out);
    }
    fn read(reader: &mut encoding::Reader<'_>) -> Result<Self, Corrupt> {
        Ok(Latest {
            said: Said::read(reader)?,
            value: T::read(reader)?,
        })
    }
    fn tell(&self) -> serde_json::Value {
        serde_json::json!({"said": self.said.tell(), "value": self.value.tell()})
    }
    fn adopt(&mut self, other: &Self) {
        self.value.adopt(&other.value);
    }
}

/// What one source says of the order itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Side {
    pub newest: Position,
    pub placed: Option<Latest<Snapshot>>,
    /// Accepted or rejected.
    pub accepted: Option<Latest<bool>>,
    pub amended: Option<Latest<Snapshot>>,
    pub held: Option<Latest<bool>>,
    pub closed: Option<Latest<bool>>,
    pub erp_orders: Vec<Text>,
}

/// A record that waits for the order to be known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Waiting {
    /// Its topic.
    pub topic: Text,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    entity: Text,
    at: Position,
    /// Whether something newer has come since.
    pub superseded: bool,
    /// Whether it is parked: the order did not become known in time.
    pub parked: bool,
}

/// Everything known of one order. Begins empty: an order may be heard of by its payment first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Order {
    pub(super) due: Option<Timestamp>,
    pub(super) sides: BTreeMap<Text, Side>,
    pub(super) payments: BTreeMap<Text, Latest<Payment>>,
    pub(super) reservations: BTreeMap<Text, Latest<Reservation>>,
    pub(super) shipments: BTreeMap<Text, Latest<Shipment>>,
    /// The statuses that each fulfilment was heard to be in, by version.
    pub(super) paths: BTreeMap<Text, Vec<(Position, ShipmentStatus)>>,
    pub(super) returns: BTreeMap<Text, Latest<Return>>,
    pub(super) refunds: BTreeMap<Text, Latest<Refund>>,
    pub(super) invoices: BTreeMap<Text, Latest<Invoice>>,
    /// Objects of which two facts of one version are known.
    pub(super) conflicts: BTreeMap<Text, Position>,
    pub(super) cancels: BTreeMap<u128, Cancel>,
    pub(super) decisions: i64,
    /// What does not agree, as it was told.
    pub cases: Cases,
    waiting: Vec<Waiting>,
    state_version: i64,
    pub(super) changed_at: Timestamp,
}

stored!(Side {
    newest,
    placed,
    accepted,
    amended,
    held,
    closed,
    erp_orders
});
stored!(Waiting {
    topic,
    partition,
    offset,
    entity,
    at,
    superseded,
    parked
});
kept!(Order {
    due,
    sides,
    payments,
    reservations,
    shipments,
    paths,
    returns,
    refunds,
    invoices,
    conflicts,
    cancels,
    decisions,
    cases,
    waiting,
    state_version: told,
    changed_at: told,
});

impl Order {
    /// Whether somebody has told what was ordered.
    pub fn is_known(&self) -> bool {
        self.snapshot().is_some()
    }

    /// The version of the state that was emitted last; 0 before the first.
    pub fn state_version(&self) -> i64 {
        self.state_version
    }

    /// Counts a state that is emitted.
    pub fn next_state_version(&mut self) -> i64 {
        self.state_version += 1;
        self.state_version
    }

    /// What was ordered: as the ERP has it once it has accepted, else as the channel has it.
    pub(super) fn snapshot(&self) -> Option<&Snapshot> {
        let amended = self
            .sides
            .iter()
            .filter_map(|(source, s)| Some((s.amended.as_ref()?, source)));
        let placed = self
            .sides
            .iter()
            .filter_map(|(source, s)| Some((s.placed.as_ref()?, source)));
        let newest = |a: &(&Latest<Snapshot>, &Text)| (a.0.said, a.1.clone());
        let found = amended
            .max_by_key(newest)
            .or_else(|| placed.max_by_key(newest));
        found.map(|(latest, _)| &latest.value)
    }

    /// Takes in a fact at `now`.
    pub fn hear(&mut self, said: Said, fact: Fact, now: Timestamp) -> Heard {
        if self.weight() + fact.weight() > WEIGHT_MAX {
            return Heard::TooMuch;
        }
        let entity = fact.entity();
        let heard = match fact {
            Fact::Order {
                source,
                erp_order,
                statement,
            } => {
                let side = self.sides.entry(source).or_default();
                side.newest = side.newest.max(said.at);
                if let Some(number) = erp_order
                    && let Err(place) = side.erp_orders.binary_search(&number)
                {
                    side.erp_orders.insert(place, number);
                }
                state(side, said, statement)
            }
            Fact::Payment(id, value) => newest(&mut self.payments, id, said, value),
            Fact::Reservation(id, value) => newest(&mut self.reservations, id, said, value),
            Fact::Shipment(id, value) => {
                let status = value.status;
                let heard = newest(&mut self.shipments, id.clone(), said, value);
                self.walk(id, said.at, status, heard);
                heard
            }
            Fact::Return(id, value) => newest(&mut self.returns, id, said, value),
            Fact::Refund(id, value) => newest(&mut self.refunds, id, said, value),
            Fact::Invoice(id, value) => newest(&mut self.invoices, id, said, value),
        };
        match heard {
            Heard::Applied => {
                if self.conflicts.get(&entity).is_some_and(|at| *at < said.at) {
                    self.conflicts.remove(&entity);
                }
                let older = |w: &&mut Waiting| w.entity == entity && w.at < said.at;
                self.waiting
                    .iter_mut()
                    .filter(older)
                    .for_each(|w| w.superseded = true);
            }
            Heard::Conflicting { .. } => {
                self.conflicts.insert(entity, said.at);
            }
            _ => return heard,
        }
        self.changed_at = now;
        heard
    }

    fn walk(&mut self, id: Text, at: Position, status: ShipmentStatus, heard: Heard) {
        let path = self.paths.entry(id).or_default();
        match path.binary_search_by_key(&at, |(at, _)| *at) {
            Ok(place) if heard == (Heard::Conflicting { taken: true }) => path[place].1 = status,
            Ok(_) => {}
            Err(place) => path.insert(place, (at, status)),
        }
        if path.len() > PATH_MAX {
            path.remove(0);
        }
    }

    /// Lets a record wait for the order to be known. Returns false when no more can.
    pub fn wait(
        &mut self,
        topic: &str,
        partition: i32,
        offset: i64,
        entity: &str,
        at: Position,
        parked: bool,
    ) -> bool {
        if self.waiting.len() >= WAITING_MAX {
            return false;
        }
        self.waiting.push(Waiting {
            topic: topic.into(),
            partition,
            offset,
            entity: entity.into(),
            at,
            superseded: false,
            parked,
        });
        true
    }

    /// Whether another record could wait.
    pub fn can_wait(&self) -> bool {
        self.waiting.len() < WAITING_MAX
    }

    /// The records that waited in vain: they are parked from now on.
    pub fn park_waiting(&mut self) -> impl Iterator<Item = &Waiting> {
        let all = self.waiting.iter_mut().filter(|w| !w.parked);
        all.map(|waiting| {
            waiting.parked = true;
            &*waiting
        })
    }

    /// The records that waited, once the order is known; each is told once.
    pub fn take_waiting(&mut self) -> Vec<Waiting> {
        match self.is_known() {
            true => std::mem::take(&mut self.waiting),
            false => Vec::new(),
        }
    }

    /// The version that each object is known in, by kind and id. Of a numbering that has begun anew,
    /// the generation stands behind the id.
    pub fn source_versions(&self) -> BTreeMap<Text, i64> {
        let mut versions = BTreeMap::new();
        let mut add = |kind: &str, id: &str, at: Position| {
            let key = match at.epoch {
                0 => compact_str::format_compact!("{kind}:{id}"),
                epoch => compact_str::format_compact!("{kind}:{id}@{epoch}"),
            };
            let known = versions.entry(key).or_insert(at.sequence);
            *known = at.sequence.max(*known);
        };
        self.sides
            .iter()
            .for_each(|(id, s)| add("order", id, s.newest));
        self.payments
            .iter()
            .for_each(|(id, l)| add("payment", id, l.said.at));
        self.reservations
            .iter()
            .for_each(|(id, l)| add("reservation", id, l.said.at));
        self.shipments
            .iter()
            .for_each(|(id, l)| add("shipment", id, l.said.at));
        self.returns
            .iter()
            .for_each(|(id, l)| add("return", id, l.said.at));
        self.refunds
            .iter()
            .for_each(|(id, l)| add("refund", id, l.said.at));
        self.invoices
            .iter()
            .for_each(|(id, l)| add("invoice", id, l.said.at));
        if self.decisions > 0 {
            add(
                "cancel",
                "decisions",
                Position {
                    epoch: 0,
                    sequence: self.decisions,
                },
            );
        }
        versions
    }

    /// The ERP's numbers of the order.
    pub fn erp_orders(&self) -> BTreeSet<&Text> {
        self.sides.values().flat_map(|s| &s.erp_orders).collect()
    }

    /// Sets when the order wants to be looked at again, and returns it: the next case that turns from
    /// a suspicion into an exception, else the end of what has to be remembered.
    pub fn set_due(&mut self, is_final: bool) -> Option<Timestamp> {
        let patience = self.cases.due();
        let end = (is_final || !self.is_known()).then(|| self.changed_at.plus(RETENTION));
        self.due = [patience, end].into_iter().flatten().min();
        self.due
    }

    /// Notes that the timer has fired: none is set.
    pub fn set_fired(&mut self) {
        self.due = None;
    }

    /// Whether the order need not be remembered any longer.
    pub fn is_over(&self, is_final: bool, now: Timestamp) -> bool {
        (is_final || !self.is_known()) && now >= self.changed_at.plus(RETENTION)
    }

    pub(super) fn weight(&self) -> usize {
        let lines = |s: &Option<Latest<Snapshot>>| s.as_ref().map_or(0, |l| l.value.lines.len());
        let sides = self
            .sides
            .values()
            .map(|s| 2 + lines(&s.placed) + lines(&s.amended) + s.erp_orders.len());
        let shipments = self.shipments.values().map(|s| 2 + s.value.lines.len());
        let returns = self.returns.values().map(|r| 1 + r.value.returned.len());
        let refunds = self.refunds.values().map(|r| 1 + r.value.units.len());
        let cancels = self
            .cancels
            .values()
            .map(|c| 1 + c.granted.as_ref().map_or(0, Vec::len));
        sides
            .chain(shipments)
            .chain(returns)
            .chain(refunds)
            .chain(cancels)
            .sum::<usize>()
            + self.payments.len()
            + self.reservations.len()
            + self.invoices.len()
    }
}

/// Takes in what a source says of the order itself.
fn state(side: &mut Side, said: Said, statement: Statement) -> Heard {
    match statement {
        Statement::Placed(snapshot) => newer(&mut side.placed, said, snapshot),
        Statement::Accepted(snapshot) => {
            if let Some(snapshot) = snapshot {
                newer(&mut side.amended, said, snapshot);
            }
            newer(&mut side.accepted, said, true)
        }
        Statement::Rejected => newer(&mut side.accepted, said, false),
        Statement::Held(held) => newer(&mut side.held, said, held),
        Statement::Closed => newer(&mut side.closed, said, true),
    }
}

fn newer<T>(known: &mut Option<Latest<T>>, said: Said, value: T) -> Heard {
    let heard = match known {
        None => Heard::Applied,
        Some(known) => rank(known.said, said),
    };
    if matches!(heard, Heard::Applied | Heard::Conflicting { taken: true }) {
        *known = Some(Latest { said, value });
    }
    heard
}

fn newest<T>(known: &mut BTreeMap<Text, Latest<T>>, id: Text, said: Said, value: T) -> Heard {
    let heard = known
        .get(&id)
        .map_or(Heard::Applied, |known| rank(known.said, said));
    if matches!(heard, Heard::Applied | Heard::Conflicting { taken: true }) {
        known.insert(id, Latest { said, value });
    }
    heard
}

fn rank(known: Said, said: Said) -> Heard {
    match said.at.cmp(&known.at) {
        std::cmp::Ordering::Greater => Heard::Applied,
        std::cmp::Ordering::Less => Heard::Superseded,
        std::cmp::Ordering::Equal if said.event == known.event => Heard::Duplicate,
        std::cmp::Ordering::Equal => Heard::Conflicting {
            taken: said.event > known.event,
        },
    }
}
