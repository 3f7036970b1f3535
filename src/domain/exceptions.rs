//! The cases of all processors as operations work them: what a case's status may become, and which case
//! comes first.

use crate::domain::encoding::{kept, stored, stored_enum};
use crate::domain::{Decimal, FACTS_MAX, Taken, Timestamp};
use compact_str::CompactString as Text;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a case is remembered after it was last heard of.
const RETENTION: Duration = Duration::from_secs(400 * 24 * 3_600);
/// How long a case that heals by itself may recur before it counts as healed.
const HEALED_AFTER: Duration = Duration::from_secs(72 * 3_600);
/// Operators' events by which a repetition is known.
const NOTES_KEPT: usize = 32;

/// Where a case stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum CaseState {
    #[default]
    Open,
    /// What raised it expects it to go away.
    Healing,
    Assigned,
    /// It had gone away, or been closed, and is back.
    Regressed,
    Resolved,
    /// Somebody decided to live with it.
    Accepted,
}
stored_enum!(CaseState [Open, Healing, Assigned, Regressed, Resolved, Accepted]);

impl CaseState {
    /// Whether somebody still has to do something.
    pub fn is_live(self) -> bool {
        !matches!(self, CaseState::Resolved | CaseState::Accepted)
    }
}

/// What can happen to a case: by facts, then by operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum CaseMove {
    Raised,
    Mending,
    Gone,
    Note,
    Assign,
    Snooze,
    Act,
    Resolve,
    Accept,
    Reopen,
}

/// What a move leads to. What does not stand here is illegal; facts are legal always.
pub const CASE: &[(CaseState, CaseMove, CaseState)] = {
    use CaseMove::*;
    use CaseState::*;
    &[
        (Open, Raised, Open),
        (Healing, Raised, Open),
        (Assigned, Raised, Assigned),
        (Regressed, Raised, Regressed),
        (Resolved, Raised, Regressed),
        (Accepted, Raised, Accepted),
        (Open, Mending, Healing),
        (Healing, Mending, Healing),
        (Assigned, Mending, Assigned),
        (Regressed, Mending, Healing),
        (Resolved, Mending, Healing),
        (Accepted, Mending, Accepted),
        (Open, Gone, Resolved),
        (Healing, Gone, Resolved),
        (Assigned, Gone, Resolved),
        (Regressed, Gone, Resolved),
        (Resolved, Gone, Resolved),
        (Accepted, Gone, Resolved),
        (Open, Note, Open),
        (Healing, Note, Healing),
        (Assigned, Note, Assigned),
        (Regressed, Note, Regressed),
        (Resolved, Note, Resolved),
        (Accepted, Note, Accepted),
        (Open, Assign, Assigned),
        (Healing, Assign, Assigned),
        (Assigned, Assign, Assigned),
        (Regressed, Assign, Assigned),
        (Open, Snooze, Open),
        (Healing, Snooze, Healing),
        (Assigned, Snooze, Assigned),
        (Regressed, Snooze, Regressed),
        (Open, Act, Open),
        (Healing, Act, Healing),
        (Assigned, Act, Assigned),
        (Regressed, Act, Regressed),
        (Open, Resolve, Resolved),
        (Healing, Resolve, Resolved),
        (Assigned, Resolve, Resolved),
        (Regressed, Resolve, Resolved),
        (Open, Accept, Accepted),
        (Healing, Accept, Accepted),
        (Assigned, Accept, Accepted),
        (Regressed, Accept, Accepted),
        (Resolved, Reopen, Regressed),
        (Accepted, Reopen, Regressed),
    ]
};

/// What `by` makes of a case that is `from`; nothing where that is illegal.
pub fn moved(from: CaseState, by: CaseMove) -> Option<CaseState> {
    let found = CASE.iter().find(|(f, b, _)| (*f, *b) == (from, by));
    found.map(|(_, _, to)| *to)
}

/// What ranks a case; the first three multiplied are the rank.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rank {
    /// Money that may be lost, at least 1.
    pub revenue: f64,
    /// How soon the customer's promise is over.
    pub urgency: f64,
    /// How bad the kind of case is.
    pub severity: f64,
}

impl Rank {
    /// The rank: the larger comes first.
    pub fn value(&self) -> f64 {
        self.revenue * self.urgency * self.severity
    }
}

/// How soon before a promise a case becomes more urgent, and by how much.
const URGENCY: [(Duration, f64); 4] = [
    (Duration::ZERO, 10.0),
    (Duration::from_secs(4 * 3_600), 8.0),
    (Duration::from_secs(24 * 3_600), 4.0),
    (Duration::from_secs(72 * 3_600), 2.0),
];

/// How urgent a case is whose customer was promised something; 1 without a promise or far from it.
pub fn urgency(promise: Option<Timestamp>, now: Timestamp) -> f64 {
    let passed = |(before, _): &&(Duration, f64)| promise.is_some_and(|p| p.minus(*before) <= now);
    URGENCY.iter().find(passed).map_or(1.0, |(_, by)| *by)
}

/// When the urgency changes next.
fn next_urgency(promise: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
    let promise = promise?;
    let steps = URGENCY.iter().map(|(before, _)| promise.minus(*before));
    steps.filter(|at| *at > now).min()
}

/// What is known of the order that a case is about.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OrderContext {
    /// Version of its state.
    pub version: i64,
    /// Its status, as contracts name it.
    pub status: Text,
    /// Where it was sold.
    pub channel: Text,
    /// What it costs.
    pub value: Decimal,
    /// In which currency.
    pub currency: Text,
    /// What its customer was told.
    pub promise: Option<Timestamp>,
}
stored!(OrderContext {
    version: told,
    status,
    channel,
    value,
    currency,
    promise
});

/// What an exception says of its history.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Seen {
    /// When it was met first.
    pub first: Timestamp,
    /// How often it was told.
    pub occurrences: i64,
    /// What its customer was told.
    pub promise: Option<Timestamp>,
}

/// What an operator did.
#[derive(Clone, Debug, PartialEq)]
pub struct Note {
    /// Its event.
    pub id: u128,
    /// What was done.
    pub act: CaseMove,
    /// The version of the case that was looked at.
    pub seen: i64,
    /// To whom the case goes.
    pub assignee: Option<Text>,
    /// Until when nobody has to look at it.
    pub snoozed_until: Option<Timestamp>,
}

/// Why an operator's act was refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refused {
    /// Nobody raised such a case.
    #[error("there is no such case")]
    NoCase,
    /// Somebody else did something since.
    #[error("the case was changed since version {0} was looked at; look at it again")]
    Changed(i64),
    /// Not from where it stands.
    #[error("{0:?} is not possible: the case is {1:?}")]
    Illegal(CaseMove, CaseState),
}

/// One case, as it was raised and as it is worked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Worked {
    // First, so that it is read without the rest.
    due: Option<Timestamp>,
    heard_at: Timestamp,
    /// The version that raised it last, and that exception as it was told.
    raised: Option<(i64, Vec<u8>)>,
    /// Money at risk and promise, as the exception has them.
    promise: Option<Timestamp>,
    context: Option<OrderContext>,
    state: CaseState,
    assignee: Option<Text>,
    snoozed_until: Option<Timestamp>,
    /// Counts what was told of the case.
    version: i64,
    /// The version that an operator's act made last.
    acted: i64,
    occurrences: i64,
    first_seen: Timestamp,
    notes: Vec<u128>,
}
kept!(Worked {
    due,
    heard_at,
    raised,
    promise,
    context,
    state,
    assignee,
    snoozed_until,
    version: told,
    acted: told,
    occurrences,
    first_seen,
    notes
});

impl Worked {
    /// A processor tells of it: `by` is what happened, `told` the exception itself.
    pub fn raise(&mut self, version: i64, by: CaseMove, told: Vec<u8>, seen: Seen) -> Taken {
        match &self.raised {
            Some((known, _)) if *known == version => return Taken::Duplicate,
            Some((known, _)) if *known > version => return Taken::Superseded,
            Some(_) => self.first_seen = self.first_seen.min(seen.first),
            None => self.first_seen = seen.first,
        }
        self.raised = Some((version, told));
        self.promise = seen.promise;
        // Facts are legal always.
        self.state = moved(self.state, by).unwrap_or(self.state);
        self.occurrences = self.occurrences.max(seen.occurrences);
        Taken::Applied
    }

    /// What is known of its order has changed.
    pub fn learn(&mut self, context: OrderContext) -> Taken {
        match &self.context {
            Some(known) if known.version == context.version => Taken::Duplicate,
            Some(known) if known.version > context.version => Taken::Superseded,
            _ => {
                self.context = Some(context);
                Taken::Applied
            }
        }
    }

    /// An operator does something. `None` when it was done before.
    ///
    /// # Errors
    /// When it cannot be done to the case as it is now.
    pub fn act(&mut self, note: &Note) -> Option<Result<(), Refused>> {
        if self.notes.contains(&note.id) {
            return None;
        }
        self.notes.push(note.id);
        if self.notes.len() > NOTES_KEPT {
            self.notes.remove(0);
        }
        Some(self.try_act(note))
    }

    fn try_act(&mut self, note: &Note) -> Result<(), Refused> {
        if self.raised.is_none() {
            return Err(Refused::NoCase);
        }
        // That facts went on does not invalidate what an operator decided; that another operator did
        // something does.
        if note.act != CaseMove::Note && note.seen < self.acted {
            return Err(Refused::Changed(note.seen));
        }
        let state = moved(self.state, note.act).ok_or(Refused::Illegal(note.act, self.state))?;
        self.state = state;
        self.acted = self.version + 1;
        match note.act {
            CaseMove::Assign => self.assignee = note.assignee.clone(),
            CaseMove::Snooze => self.snoozed_until = note.snoozed_until,
            _ => {}
        }
        Ok(())
    }

    /// Counts a version that is told, and sets the next timer. What was to heal by itself and has not
    /// recurred is over.
    pub fn next_version(&mut self, now: Timestamp) -> i64 {
        self.version += 1;
        let healed_at = self.heard_at.plus(HEALED_AFTER);
        if self.state == CaseState::Healing && healed_at <= now {
            self.state = CaseState::Resolved;
        }
        if self.snoozed_until.is_some_and(|until| until <= now) || !self.state.is_live() {
            self.snoozed_until = None;
        }
        self.due = match self.state.is_live() {
            // A case that is open is kept, however long nobody hears of it.
            true => {
                let healed_at = Some(healed_at).filter(|_| self.state == CaseState::Healing);
                let urgent = next_urgency(self.promise(), now);
                let all = [urgent, healed_at, self.snoozed_until];
                all.into_iter().flatten().min()
            }
            false => Some(self.heard_at.plus(RETENTION)),
        };
        self.version
    }

    /// Whether it need not be remembered any longer.
    pub fn is_over(&self, now: Timestamp) -> bool {
        !self.state.is_live() && self.heard_at.plus(RETENTION) <= now
    }

    /// The exception as it was told last.
    pub fn told(&self) -> Option<&[u8]> {
        self.raised.as_ref().map(|(_, told)| told.as_slice())
    }
    /// Where it stands.
    pub fn state(&self) -> CaseState {
        self.state
    }
    /// Who works on it.
    pub fn assignee(&self) -> Option<&Text> {
        self.assignee.as_ref()
    }
    /// Until when nobody has to look at it.
    pub fn snoozed_until(&self) -> Option<Timestamp> {
        self.snoozed_until
    }
    /// How often it was raised, and when first.
    pub fn seen(&self) -> (i64, Timestamp) {
        (self.occurrences, self.first_seen)
    }
    /// What is known of its order.
    pub fn context(&self) -> Option<&OrderContext> {
        self.context.as_ref()
    }
    /// What its customer was told.
    pub fn promise(&self) -> Option<Timestamp> {
        let of_order = self.context.as_ref().and_then(|c| c.promise);
        self.promise.or(of_order)
    }
}

/// An order and the exceptions about it that are open.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attached {
    // First, so that it is read without the rest.
    due: Option<Timestamp>,
    heard_at: Timestamp,
    order: Option<OrderContext>,
    /// The version of each exception, whether it is open, and what it was told of the order.
    exceptions: BTreeMap<u128, (i64, (bool, Option<OrderContext>))>,
}
kept!(Attached {
    due,
    heard_at,
    order,
    exceptions
});

impl Attached {
    /// An exception about the order is open, or over.
    pub fn exception(&mut self, id: u128, version: i64, open: bool) -> Taken {
        if self.exceptions.len() >= FACTS_MAX && !self.exceptions.contains_key(&id) {
            return Taken::TooMany;
        }
        let known = self.exceptions.entry(id).or_default();
        match known.0.cmp(&version) {
            std::cmp::Ordering::Equal => Taken::Duplicate,
            std::cmp::Ordering::Greater => Taken::Superseded,
            std::cmp::Ordering::Less => {
                (known.0, known.1.0) = (version, open);
                Taken::Applied
            }
        }
    }

    /// The order's state has changed.
    pub fn order(&mut self, order: OrderContext) -> Taken {
        match &self.order {
            Some(known) if known.version == order.version => Taken::Duplicate,
            Some(known) if known.version > order.version => Taken::Superseded,
            _ => {
                self.order = Some(order);
                Taken::Applied
            }
        }
    }

    /// What each open exception has to be told that it was not told before. Sets the next timer.
    /// Nothing when the order is over for good and may be forgotten.
    pub fn settle(&mut self, now: Timestamp) -> Option<Vec<(u128, OrderContext)>> {
        let forgotten_at = self.heard_at.plus(RETENTION);
        if forgotten_at <= now {
            return None;
        }
        self.due = Some(forgotten_at);
        let mut told = Vec::new();
        let Some(order) = &self.order else {
            return Some(told);
        };
        for (id, (_, (open, known))) in &mut self.exceptions {
            let same = |known: &OrderContext| known.says_as(order);
            if *open && !known.as_ref().is_some_and(same) {
                *known = Some(order.clone());
                told.push((*id, order.clone()));
            }
        }
        Some(told)
    }
}

impl OrderContext {
    /// Whether it says the same, whatever the version.
    fn says_as(&self, other: &OrderContext) -> bool {
        let version = self.version;
        *self
            == OrderContext {
                version,
                ..other.clone()
            }
    }
}
