//! How the lines of an order get their stock: claims that are asked for, answered, made firm and given
//! back.
//!
//! What is to be done is computed from what is wanted and what the claims cover ([`Saga::advance`]);
//! each step is written down as it is taken, so that the same facts heard again take none. A line
//! whose stock is missing somewhere (refused, not found, given up by the node) is tried at the next
//! location, then accepted without stock where that is allowed, else asked to be cancelled.

use super::facts::{Quantities, Said};
use crate::domain::encoding::{kept, stored, stored_enum};
use crate::domain::{Decimal, Taken, Timestamp, reservation_id};
use compact_str::CompactString as Text;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long a claim binds stock for an order that is neither paid nor accepted: longer than an ERP is
/// usually away.
pub const HOLD: Duration = Duration::from_secs(2 * 3_600);
/// How long an order is remembered after the last thing that happened to it.
pub const SAGA_RETENTION: Duration = Duration::from_secs(30 * 86_400);
/// Tries for one line: an order does not wander for ever.
pub const ATTEMPTS_MAX: u32 = 50;
/// Claims and fulfilments of one order.
const OBJECTS_MAX: usize = 5_000;

/// A line that wants stock.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Want {
    /// Name of the line.
    pub line: Text,
    /// What.
    pub sku: Text,
    /// How much.
    pub quantity: Decimal,
    /// The only location that will do, as for a pick-up.
    pub location: Option<Text>,
    /// Whether the customer waits when there is no stock.
    pub may_wait: bool,
    /// What was promised.
    pub promise: Option<Timestamp>,
}

/// An order as far as stock is concerned.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Where it was sold.
    pub channel: Text,
    /// Sold beyond recall, as on a marketplace: claims are never refused.
    pub forced: bool,
    /// All of it or nothing.
    pub complete: bool,
    /// Its lines. Those that need no claim are left out.
    pub wants: Vec<Want>,
}

/// State of a claim as stock-ledger tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Answer {
    /// Asked for and not answered.
    #[default]
    None,
    Granted,
    Refused,
    Expired,
    /// Over: used up or given back.
    Over,
}

/// A claim.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Held {
    /// For which line.
    pub line: Text,
    /// What.
    pub sku: Text,
    /// Where.
    pub location: Text,
    /// On behalf of which channel.
    pub channel: Text,
    /// How much.
    pub quantity: Decimal,
    /// How much of it has left.
    pub consumed: Decimal,
    /// How it stands.
    pub answer: Answer,
    /// Whether it is never refused.
    pub forced: bool,
    /// Whether it is firm, or asked to be.
    pub firm: bool,
    /// Whether it was asked to be given back.
    pub released: bool,
    /// When stock-ledger said so.
    pub said: Said,
}

/// What a node did not find or gave up, by claim.
#[derive(Clone, Debug, Default, PartialEq)]
struct Missed {
    said: Said,
    units: Vec<(u128, Decimal)>,
}

/// What is known of an order and its stock.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Saga {
    due: Option<Timestamp>,
    placed: Option<(Said, Plan)>,
    amended: Option<(Said, Plan)>,
    /// Accepted or rejected by the ERP.
    verdict: Option<(Said, bool)>,
    paid: bool,
    cancelled: BTreeMap<u128, Quantities>,
    claims: BTreeMap<u128, Held>,
    missed: BTreeMap<Text, Missed>,
    attempts: BTreeMap<Text, u32>,
    /// Units of each line that were asked to be cancelled.
    given_up: BTreeMap<Text, Decimal>,
    requests: i64,
}

stored_enum!(Answer [None, Granted, Refused, Expired, Over]);
stored!(Want {
    line,
    sku,
    quantity,
    location,
    may_wait,
    promise
});
stored!(Plan {
    channel,
    forced,
    complete,
    wants
});
stored!(Held {
    line,
    sku,
    location,
    channel,
    quantity,
    consumed,
    answer,
    forced,
    firm,
    released,
    said
});
stored!(Missed { said, units });
kept!(Saga {
    due,
    placed,
    amended,
    verdict,
    paid,
    cancelled,
    claims,
    missed,
    attempts,
    given_up,
    requests,
});

/// Something to be asked of stock-ledger or of the order.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Claim stock.
    Hold {
        /// Id of the claim.
        id: u128,
        /// The claim.
        claim: Held,
        /// When it ends by itself.
        expires_at: Option<Timestamp>,
        /// What was promised.
        promise: Option<Timestamp>,
    },
    /// Make a claim firm.
    Confirm(u128, Held),
    /// Give a claim back.
    Release(u128, Held),
    /// Cancel units that cannot be had; none named means all of the order.
    Cancel {
        /// Counts the requests, from 1.
        version: i64,
        /// What.
        units: Quantities,
        /// Why.
        reason: &'static str,
    },
}

impl Saga {
    /// The channel placed or amended the order; or the ERP took or amended it, whose word counts then.
    pub fn placed(&mut self, said: Said, plan: Plan, by_erp: bool) -> Taken {
        match by_erp {
            true => newer(&mut self.amended, said, plan),
            false => newer(&mut self.placed, said, plan),
        }
    }

    /// The ERP accepted or rejected the order.
    pub fn judged(&mut self, said: Said, accepted: bool) -> Taken {
        newer(&mut self.verdict, said, accepted)
    }

    /// Money was promised or taken.
    pub fn paid(&mut self) -> Taken {
        match std::mem::replace(&mut self.paid, true) {
            true => Taken::Duplicate,
            false => Taken::Applied,
        }
    }

    /// A cancellation was decided.
    pub fn cancelled(&mut self, decision: u128, units: Quantities) -> Taken {
        if self.cancelled.len() >= OBJECTS_MAX {
            return Taken::TooMany;
        }
        match self.cancelled.insert(decision, units.clone()) {
            Some(known) if known == units => Taken::Duplicate,
            _ => Taken::Applied,
        }
    }

    /// stock-ledger tells how a claim stands. A claim that somebody else asked for counts like one of
    /// ours.
    pub fn answered(&mut self, said: Said, id: u128, told: Held) -> Taken {
        if self.claims.len() >= OBJECTS_MAX && !self.claims.contains_key(&id) {
            return Taken::TooMany;
        }
        let claim = self.claims.entry(id).or_default();
        if claim.answer != Answer::None {
            match said.at.cmp(&claim.said.at) {
                std::cmp::Ordering::Less => return Taken::Superseded,
                std::cmp::Ordering::Equal => return Taken::Duplicate,
                std::cmp::Ordering::Greater => {}
            }
        }
        let (firm, released) = (claim.firm || told.firm, claim.released);
        // A tombstone names no quantity: nothing was asked for yet.
        *claim = Held {
            firm,
            released,
            said,
            ..told
        };
        Taken::Applied
    }

    /// A node tells what it did not find, or gave up, of claims.
    pub fn missed(&mut self, said: Said, shipment: Text, units: Vec<(u128, Decimal)>) -> Taken {
        if self.missed.len() >= OBJECTS_MAX && !self.missed.contains_key(&shipment) {
            return Taken::TooMany;
        }
        if let Some(known) = self.missed.get(&shipment) {
            match said.at.cmp(&known.said.at) {
                std::cmp::Ordering::Less => return Taken::Superseded,
                std::cmp::Ordering::Equal => return Taken::Duplicate,
                std::cmp::Ordering::Greater => {}
            }
        }
        self.missed.insert(shipment, Missed { said, units });
        Taken::Applied
    }

    /// The order as it is to be supplied, once it is known.
    pub fn plan(&self) -> Option<&Plan> {
        let newest = self.amended.as_ref().or(self.placed.as_ref());
        newest.map(|(_, plan)| plan)
    }

    fn is_firm(&self) -> bool {
        self.paid || self.verdict.as_ref().is_some_and(|(_, accepted)| *accepted)
    }

    fn is_rejected(&self) -> bool {
        self.verdict
            .as_ref()
            .is_some_and(|(_, accepted)| !*accepted)
    }

    /// What is to be done now. `order` names the order, `locations` those that serve its channel, best
    /// first.
    pub fn advance(&mut self, order: &str, locations: &[Text], now: Timestamp) -> Vec<Step> {
        let mut steps = Vec::new();
        let Some(plan) = self.plan().cloned() else {
            return steps;
        };
        let missed = self.missed_by_claim();
        let mut lacking = Quantities::new();
        let mut reason = "";
        for want in &plan.wants {
            let wanted = self.still_wanted(want);
            let covered = self.covered(want, &missed);
            self.give_back(want, covered - wanted, &missed, &mut steps);
            let given_up = self.given_up.get(&want.line).copied().unwrap_or_default();
            let cancelled = want.quantity.min(self.cancelled_of(&want.line));
            // What was asked to be cancelled and is not yet is not looked for again.
            let need = wanted - covered - (given_up - cancelled).or_zero();
            if !need.is_positive() {
                continue;
            }
            match self.next_hold(order, want, &plan, need, locations, now) {
                Some(step) => steps.push(step),
                None => {
                    reason = self.why(&want.line);
                    lacking.push((want.line.clone(), need));
                }
            }
        }
        self.confirm(&mut steps);
        self.give_up(&plan, lacking, reason, &mut steps);
        steps
    }

    fn missed_by_claim(&self) -> BTreeMap<u128, Decimal> {
        let mut missed: BTreeMap<u128, Decimal> = BTreeMap::new();
        for (claim, units) in self.missed.values().flat_map(|m| &m.units) {
            *missed.entry(*claim).or_default() += *units;
        }
        missed
    }

    fn cancelled_of(&self, line: &str) -> Decimal {
        let all = self.cancelled.values().flatten();
        all.filter(|(l, _)| l == line)
            .map(|(_, units)| *units)
            .sum()
    }

    fn still_wanted(&self, want: &Want) -> Decimal {
        match self.is_rejected() {
            true => Decimal::ZERO,
            false => (want.quantity - self.cancelled_of(&want.line)).or_zero(),
        }
    }

    /// Units of a line that have left or that a claim answers for.
    fn covered(&self, want: &Want, missed: &BTreeMap<u128, Decimal>) -> Decimal {
        let of_line = self.claims.iter().filter(|(_, c)| c.line == want.line);
        let covers = |(id, claim): (&u128, &Held)| match claim.is_open() {
            true => {
                let missed = missed.get(id).copied().unwrap_or_default();
                (claim.quantity - missed).or_zero().max(claim.consumed)
            }
            false => claim.consumed,
        };
        of_line.map(covers).sum()
    }

    /// Gives back claims that are not needed. One of which a part is needed is given back once that
    /// part has left: to ask for a smaller one in its place could lose the stock to somebody else.
    fn give_back(
        &mut self,
        want: &Want,
        excess: Decimal,
        missed: &BTreeMap<u128, Decimal>,
        steps: &mut Vec<Step>,
    ) {
        let mut excess = excess.or_zero();
        let of_line = self
            .claims
            .iter_mut()
            .filter(|(_, c)| c.line == want.line && c.is_open());
        for (id, claim) in of_line {
            let missed = missed.get(id).copied().unwrap_or_default();
            let useful = (claim.quantity - claim.consumed - missed).or_zero();
            let useless = missed.is_positive() && useful.is_zero();
            if useless || (excess.is_positive() && useful <= excess) {
                excess -= useful;
                claim.released = true;
                steps.push(Step::Release(*id, claim.clone()));
            }
        }
    }

    fn next_hold(
        &mut self,
        order: &str,
        want: &Want,
        plan: &Plan,
        quantity: Decimal,
        locations: &[Text],
        now: Timestamp,
    ) -> Option<Step> {
        let attempt = self.attempts.get(&want.line).copied().unwrap_or_default() + 1;
        let expired = |c: &Held| c.line == want.line && c.answer == Answer::Expired;
        if attempt > ATTEMPTS_MAX || (!self.is_firm() && self.claims.values().any(expired)) {
            return None;
        }
        let possible = match &want.location {
            Some(location) => std::slice::from_ref(location),
            None => locations,
        };
        let tried: BTreeSet<&Text> = self
            .claims
            .values()
            .filter(|c| c.line == want.line && c.answer == Answer::Refused)
            .map(|c| &c.location)
            .chain(self.missing_at(&want.line))
            .collect();
        let (location, forced) = match possible.iter().find(|l| !tried.contains(l)) {
            Some(location) => (location.clone(), plan.forced),
            // Nobody has it: who may wait gets a claim that cannot be refused, once.
            None if want.may_wait || plan.forced => {
                let waits = |c: &Held| c.line == want.line && c.forced;
                if self.claims.values().any(waits) {
                    return None;
                }
                (possible.first()?.clone(), true)
            }
            None => return None,
        };
        self.attempts.insert(want.line.clone(), attempt);
        let id = reservation_id(order, &want.line, &location, attempt).as_u128();
        let claim = Held {
            line: want.line.clone(),
            sku: want.sku.clone(),
            location,
            channel: plan.channel.clone(),
            quantity,
            forced,
            ..Held::default()
        };
        self.claims.insert(id, claim.clone());
        let expires_at = (!forced && !self.is_firm()).then(|| now.plus(HOLD));
        Some(Step::Hold {
            id,
            claim,
            expires_at,
            promise: want.promise,
        })
    }

    /// Locations at which units of a line were not found.
    fn missing_at<'a>(&'a self, line: &'a str) -> impl Iterator<Item = &'a Text> {
        let missed = self.missed.values().flat_map(|m| &m.units);
        let claims = missed.filter(|(_, units)| units.is_positive());
        let claims = claims.filter_map(move |(id, _)| self.claims.get(id));
        claims.filter(move |c| c.line == line).map(|c| &c.location)
    }

    fn confirm(&mut self, steps: &mut Vec<Step>) {
        if !self.is_firm() || self.is_rejected() {
            return;
        }
        let granted = |c: &&mut Held| c.answer == Answer::Granted && !c.firm && !c.released;
        for (id, claim) in self.claims.iter_mut().filter(|(_, c)| granted(c)) {
            claim.firm = true;
            steps.push(Step::Confirm(*id, claim.clone()));
        }
    }

    fn why(&self, line: &str) -> &'static str {
        let expired = |c: &Held| c.line == line && c.answer == Answer::Expired;
        match !self.is_firm() && self.claims.values().any(expired) {
            true => "HOLD_EXPIRED",
            false => "OUT_OF_STOCK",
        }
    }

    fn give_up(
        &mut self,
        plan: &Plan,
        lacking: Quantities,
        reason: &'static str,
        steps: &mut Vec<Step>,
    ) {
        if lacking.is_empty() {
            return;
        }
        self.requests += 1;
        let units = match plan.complete {
            true => Quantities::new(),
            false => lacking.clone(),
        };
        let given_up: Quantities = match plan.complete {
            true => plan
                .wants
                .iter()
                .map(|w| (w.line.clone(), w.quantity))
                .collect(),
            false => lacking,
        };
        for (line, units) in given_up {
            *self.given_up.entry(line).or_default() += units;
        }
        steps.push(Step::Cancel {
            version: self.requests,
            units,
            reason,
        });
    }

    /// Sets when the order may be forgotten, and returns it.
    pub fn set_due(&mut self, now: Timestamp) -> Option<Timestamp> {
        let open = self.claims.values().any(Held::is_open);
        self.due = Some(now.plus(SAGA_RETENTION)).filter(|_| !open);
        self.due
    }
}

impl Held {
    /// Whether it binds stock, or may.
    pub fn is_open(&self) -> bool {
        !self.released && matches!(self.answer, Answer::None | Answer::Granted)
    }
}

fn newer<T>(known: &mut Option<(Said, T)>, said: Said, value: T) -> Taken {
    let taken = match known {
        None => Taken::Applied,
        Some((known, _)) => match said.at.cmp(&known.at) {
            std::cmp::Ordering::Greater => Taken::Applied,
            std::cmp::Ordering::Equal => Taken::Duplicate,
            std::cmp::Ordering::Less => Taken::Superseded,
        },
    };
    if taken == Taken::Applied {
        *known = Some((said, value));
    }
    taken
}
