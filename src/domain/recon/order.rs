//! Whether an order is in every system once, with one total and in one state.
//!
//! The channel that sold it and the ERP list what they have; the order's state is what Crossdock knows.
//! States are compared only where the list is not older than the last change of the order: before that
//! it cannot know. What a system said that it had and its whole lists leave out it does not have.

use super::{Coverage, PATIENCE, Repairs};
use crate::domain::cases::{CaseChange, Cases, Finding, Severity};
use crate::domain::encoding::{kept, stored, stored_enum};
use crate::domain::money::Money;
use crate::domain::{Decimal, FACTS_MAX, Latest, Taken, Timestamp};
use compact_str::CompactString as Text;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long an order is compared after it was last heard of.
const RETENTION: Duration = Duration::from_secs(400 * 24 * 3_600);
/// After which time, at least and at most, it is looked whether lists that leave an order out have become
/// whole. The longer nothing was heard of the order, the longer it may take.
const LOOK_AGAIN: (Duration, Duration) =
    (Duration::from_secs(3_600), Duration::from_secs(24 * 3_600));

/// What a system is to an order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// It sold it.
    #[default]
    Channel,
    /// It keeps its books.
    Erp,
}
stored_enum!(Role [Channel, Erp]);

/// How far an order is, as coarse as every system knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Somebody stopped it for now.
    Held,
    /// It is to be supplied.
    #[default]
    Open,
    /// Some of it has left.
    Sent,
    /// It is not to be supplied.
    Cancelled,
}
stored_enum!(Phase [Held, Open, Sent, Cancelled]);

/// The order as its state has it.
#[derive(Clone, Debug, PartialEq)]
pub struct KnownOrder {
    /// Version of the state.
    pub version: i64,
    /// How far it is.
    pub phase: Phase,
    /// Whether nothing more happens to it.
    pub closed: bool,
    /// What it costs.
    pub total: Money,
    /// Its lines: each may differ by a minor unit.
    pub lines: u32,
    /// Whether some of it was cancelled: then some systems take that off their total, and others do not.
    pub is_reduced: bool,
    /// When the newest fact in it happened.
    pub changed_at: Timestamp,
    /// The ERP's names for it, from acceptances.
    pub erp_orders: Vec<Text>,
    /// Where it was sold.
    pub channel: Text,
    /// What its customer was told.
    pub promise: Option<Timestamp>,
}
stored!(KnownOrder {
    version,
    phase,
    closed,
    total,
    lines,
    is_reduced,
    changed_at,
    erp_orders,
    channel,
    promise
});

/// The order as a system lists it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entry {
    /// What the system is.
    pub role: Role,
    /// The system.
    pub source: Text,
    /// Its name for the order.
    pub external: Text,
    /// How far it is; nothing where the system's word is not known.
    pub phase: Option<Phase>,
    /// What it costs there.
    pub amount: Option<Decimal>,
    /// Until when the list knows.
    pub as_of: Timestamp,
}
stored!(Entry {
    role,
    source,
    external,
    phase,
    amount,
    as_of
});

/// What a system itself said: that the order is there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Told {
    /// What the system is.
    pub role: Role,
    /// The system.
    pub source: Text,
    /// Its name for the order.
    pub external: Text,
    /// Since when it has it, at the latest.
    pub at: Timestamp,
    /// The lists that leave it out, until one names it: what happens to the order later does not bring back
    /// what was deleted.
    pub gone: Option<Coverage>,
}
stored!(Told {
    role,
    source,
    external,
    at,
    gone
});

/// Something to be put right at the ERP.
#[derive(Clone, Debug, PartialEq)]
pub enum OrderRepair {
    /// It does not have the order: it is told again.
    Replay {
        /// The ERP that said that it had it; empty where none did.
        source: Text,
        /// The number of the try.
        attempt: u32,
    },
    /// It has it more than once: this one is to be cancelled there.
    Cancel {
        /// The ERP's name for it.
        external: Text,
        /// The system; empty where only an acceptance told of it.
        source: Text,
        /// The number of the try.
        attempt: u32,
    },
}

/// One order in every system.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Agreement {
    // First, so that it is read without the rest.
    due: Option<Timestamp>,
    heard_at: Timestamp,
    order: Option<KnownOrder>,
    entries: Latest<Entry>,
    told: BTreeMap<Text, Told>,
    repairs: Repairs,
    cases: Cases,
}
kept!(Agreement as 2 {
    due,
    heard_at,
    order,
    entries,
    told,
    repairs,
    cases
});

const REPLAY: &str = "replay";

impl Agreement {
    /// The order's state has changed.
    pub fn state(&mut self, order: KnownOrder) -> Taken {
        match &self.order {
            Some(known) if known.version == order.version => Taken::Duplicate,
            Some(known) if known.version > order.version => Taken::Superseded,
            _ => {
                self.order = Some(order);
                Taken::Applied
            }
        }
    }

    /// A system lists the order; `version` counts what it listed.
    pub fn listed(&mut self, version: i64, id: u128, entry: Entry) -> Taken {
        let key = crate::domain::compound_key(&[&entry.source, &entry.external]);
        self.entries.take(&key, version, id, entry)
    }

    /// A system said that it has the order; the first time counts, whichever came first.
    pub fn told(&mut self, told: Told) -> Taken {
        let role = if told.role == Role::Erp {
            "erp"
        } else {
            "channel"
        };
        let key = crate::domain::compound_key(&[role, &told.source, &told.external]);
        if let Some(known) = self.told.get_mut(key.as_str()) {
            if known.at <= told.at {
                return Taken::Duplicate;
            }
            *known = told;
        } else if self.told.len() >= FACTS_MAX {
            return Taken::TooMany;
        } else {
            self.told.insert(key.as_str().into(), told);
        }
        Taken::Applied
    }

    /// The order as its state has it.
    pub fn known(&self) -> Option<&KnownOrder> {
        self.order.as_ref()
    }

    /// What is to be put right, and what became of the cases; `covered` says for which time a system's lists are
    /// whole. Sets the next timer. `None` in place of the cases when the order is over for good and may be
    /// forgotten.
    pub fn settle(
        &mut self,
        now: Timestamp,
        covered: impl Fn(&str) -> Option<Coverage>,
    ) -> (Vec<OrderRepair>, Option<Vec<CaseChange>>) {
        let forgotten_at = self.heard_at.plus(RETENTION);
        if forgotten_at <= now {
            return (Vec::new(), None);
        }
        self.look(covered);
        let absent = self.absent();
        let lacking = absent.iter().find(|(told, _)| told.role == Role::Erp);
        let lacking = lacking.map(|(told, _)| told.source.clone());
        let mut findings = self.findings(&absent);
        let spare = self.spare(&absent);
        let open: BTreeSet<String> = self.cases.open().map(|(code, _)| code.into()).collect();
        // What turns into a case in this very call is put right at once, too.
        let before = self.cases.clone();
        let changes = self.cases.follow(findings.clone(), now);
        let is_open = |code: &str| {
            open.contains(code) && findings.iter().any(|f| f.code == code)
                || changes
                    .iter()
                    .any(|c| c.code == code && c.finding.is_some())
        };
        let missing = is_open("MISSING_IN_ERP");
        let twice = is_open("DUPLICATE_IN_ERP");
        let wrong: Vec<Text> = spare
            .iter()
            .filter(|_| twice)
            .map(|(external, _)| external.clone())
            .chain(missing.then(|| REPLAY.into()))
            .collect();
        self.repairs
            .forget(|cause| wrong.iter().any(|w| w == cause));
        let mut repairs = Vec::new();
        for cause in &wrong {
            let Some(attempt) = self.repairs.again(cause, now) else {
                continue;
            };
            let of = spare.iter().find(|(external, _)| external == cause);
            repairs.push(match of {
                None => OrderRepair::Replay {
                    source: lacking.clone().unwrap_or_default(),
                    attempt,
                },
                Some((external, source)) => OrderRepair::Cancel {
                    external: external.clone(),
                    source: source.clone(),
                    attempt,
                },
            });
        }
        // Told with what was tried, in one version.
        for finding in &mut findings {
            let tried: u32 = match finding.code {
                "MISSING_IN_ERP" => self.repairs.tried(REPLAY),
                "DUPLICATE_IN_ERP" => spare.iter().map(|(e, _)| self.repairs.tried(e)).sum(),
                _ => 0,
            };
            if tried > 0 {
                finding.actual += &format!("; put right {tried} times");
            }
        }
        self.cases = before;
        let changes = self.cases.follow(findings, now);
        let trying = wrong.iter().filter_map(|cause| self.repairs.next(cause));
        let soon = trying.filter(|at| *at > now).chain(self.cases.due());
        let next = soon.chain(self.look_again(now)).min();
        self.due = Some(next.map_or(forgotten_at, |at| at.min(forgotten_at)));
        (repairs, Some(changes))
    }

    /// When to look again whether lists have become whole: as long as something may still happen to an order
    /// that somebody said was there.
    fn look_again(&self, now: Timestamp) -> Option<Timestamp> {
        let order = self.order.as_ref()?;
        let is_over = order.closed || order.phase == Phase::Cancelled || self.told.is_empty();
        let quiet = now.since(self.heard_at).clamp(LOOK_AGAIN.0, LOOK_AGAIN.1);
        (!is_over).then(|| now.plus(quiet))
    }

    /// Looks which of what systems said that they had their lists leave out. It takes an order's state to know
    /// until when something happened.
    fn look(&mut self, covered: impl Fn(&str) -> Option<Coverage>) {
        let Some(order) = &self.order else { return };
        for told in self.told.values_mut() {
            let listed = self.entries.facts().filter(|e| {
                // An ERP may have several of one order; a channel has it once, under whatever name.
                let alike = told.role == Role::Channel || e.external == told.external;
                e.role == told.role && e.source == told.source && alike
            });
            let ends: Vec<Timestamp> = listed.map(|e| e.as_of).collect();
            let lacks =
                |c: &Coverage, changed_at| c.lacks(told.at, changed_at, ends.iter().copied());
            if told.gone.is_some_and(|c| lacks(&c, told.at)) {
                continue;
            }
            told.gone = covered(&told.source).filter(|c| lacks(c, order.changed_at));
        }
    }

    /// What systems said that they had and do not have by their lists, each with the end of the list that left
    /// it out.
    fn absent(&self) -> Vec<(&Told, Timestamp)> {
        let all = self.told.values();
        all.filter_map(|told| Some((told, told.gone?.until)))
            .collect()
    }

    fn findings(&self, absent: &[(&Told, Timestamp)]) -> Vec<Finding> {
        let mut findings = Vec::new();
        let Some(order) = &self.order else {
            for entry in self.entries.facts().filter(|e| e.is_live()) {
                findings.push(unknown(entry));
            }
            return findings;
        };
        let erp = self.erp_orders(absent);
        let wanted = matches!(order.phase, Phase::Open | Phase::Sent) && !order.closed;
        let channels = absent.iter().filter(|(told, _)| told.role == Role::Channel);
        for (told, until) in channels.filter(|_| wanted) {
            findings.push(forgotten(order, told, *until));
        }
        if erp.is_empty() && wanted {
            let lists = absent.iter().filter(|(told, _)| told.role == Role::Erp);
            let said: Vec<String> = lists.map(|(told, until)| left_out(told, *until)).collect();
            findings.push(Finding {
                code: "MISSING_IN_ERP",
                cause: Text::default(),
                severity: Severity::High,
                patience: PATIENCE,
                expected: "the ERP has the order".into(),
                actual: match said.is_empty() {
                    true => "neither accepted nor listed by an ERP".into(),
                    false => said.join(", "),
                },
                delta: None,
                at_risk: Some(order.total),
                actions: &["replay", "accept it by hand"],
            });
        }
        if erp.len() > 1 {
            let names: Vec<&str> = erp.iter().map(Text::as_str).collect();
            findings.push(Finding {
                code: "DUPLICATE_IN_ERP",
                cause: Text::default(),
                severity: Severity::Critical,
                patience: PATIENCE,
                expected: "one live order in the ERP".into(),
                actual: names.join(", "),
                delta: Some(Decimal::from_units(
                    (erp.len() as i64 - 1) * Decimal::ONE.units(),
                )),
                at_risk: Some(order.total),
                actions: &["cancel newest"],
            });
        }
        for entry in self.entries.facts() {
            // A list that is older than the last change cannot know of it.
            if entry.as_of < order.changed_at {
                continue;
            }
            let name = compact_str::format_compact!("{}:{}", entry.source, entry.external);
            findings.extend(total(order, entry, &name));
            findings.extend(status(order, entry, &name, !erp.is_empty()));
        }
        findings
    }

    /// The ERP's names of the order, as far as they are live and not left out by its whole lists.
    fn erp_orders(&self, absent: &[(&Told, Timestamp)]) -> BTreeSet<Text> {
        let is_absent = |name: &Text| {
            let mut told = absent.iter().map(|(told, _)| told);
            told.any(|told| told.role == Role::Erp && told.external == *name)
        };
        let listed = self.entries.facts().filter(|e| e.role == Role::Erp);
        let (live, gone): (Vec<&Entry>, Vec<&Entry>) = listed.partition(|e| e.is_live());
        let accepted = self.order.iter().flat_map(|o| &o.erp_orders);
        let accepted = accepted.filter(|name| !gone.iter().any(|e| e.external == **name));
        live.iter()
            .map(|e| &e.external)
            .chain(accepted)
            .filter(|name| !is_absent(name))
            .cloned()
            .collect()
    }

    /// The ERP's orders that are too many: all but the oldest, as far as nothing of them has left. ERPs
    /// number upwards, so of two names the longer and then the larger is the newer.
    fn spare(&self, absent: &[(&Told, Timestamp)]) -> Vec<(Text, Text)> {
        let names = self.erp_orders(absent);
        let entry = |name: &Text| {
            let mut all = self.entries.facts();
            all.find(|e| e.role == Role::Erp && e.external == *name)
        };
        let sent = |name: &Text| entry(name).is_some_and(|e| e.phase == Some(Phase::Sent));
        let mut names: Vec<Text> = names.into_iter().collect();
        names.sort_by_key(|name| (!sent(name), name.len(), name.clone()));
        let spare = names.into_iter().skip(1).filter(|name| !sent(name));
        spare
            .map(|name| {
                let source = entry(&name).map(|e| e.source.clone());
                (name, source.unwrap_or_default())
            })
            .collect()
    }
}

impl Entry {
    fn is_live(&self) -> bool {
        self.phase != Some(Phase::Cancelled)
    }
}

/// A system has an order of which nobody told.
fn unknown(entry: &Entry) -> Finding {
    let cause = compact_str::format_compact!("{}:{}", entry.source, entry.external);
    let (code, expected, actions): (_, _, &'static [&'static str]) = match entry.role {
        Role::Erp => (
            "ORPHAN",
            "an order that was placed in a channel",
            &["look for its channel", "cancel it in the ERP"],
        ),
        Role::Channel => (
            "MISSING_ORDER",
            "the order was told when it was placed",
            &["read the order again from its channel"],
        ),
    };
    Finding {
        code,
        cause,
        severity: Severity::High,
        patience: PATIENCE,
        expected: expected.into(),
        actual: format!("{} lists it as {}", entry.source, entry.external),
        delta: entry.amount,
        at_risk: None,
        actions,
    }
}

/// The channel that placed an order does not have it.
fn forgotten(order: &KnownOrder, told: &Told, until: Timestamp) -> Finding {
    Finding {
        code: "ORPHAN",
        cause: told.source.clone(),
        severity: Severity::High,
        patience: PATIENCE,
        expected: "the channel that placed the order has it".into(),
        actual: left_out(told, until),
        delta: None,
        at_risk: Some(order.total),
        actions: &["look for it in the channel", "cancel it"],
    }
}

fn left_out(told: &Told, until: Timestamp) -> String {
    let Told {
        source, external, ..
    } = told;
    format!(
        "{source} told of it as {external}, and its whole lists do not have it, one until {until}"
    )
}

fn total(order: &KnownOrder, entry: &Entry, name: &Text) -> Option<Finding> {
    let amount = entry.amount?;
    let currency = order.total.currency();
    let tolerance =
        Decimal::from_units(currency.minor_unit().units() * i64::from(order.lines.max(1)));
    let delta = amount - order.total.amount();
    let is_less = delta.is_negative() && !amount.is_negative();
    if Decimal::from_units(delta.units().abs()) <= tolerance || (order.is_reduced && is_less) {
        return None;
    }
    Some(Finding {
        code: "TOTAL_MISMATCH",
        cause: name.clone(),
        severity: Severity::High,
        patience: PATIENCE,
        expected: order.total.to_string(),
        actual: format!("{amount} {currency} in {}", entry.source),
        delta: Some(delta),
        at_risk: Money::new(Decimal::from_units(delta.units().abs()), currency).ok(),
        actions: &["compare the lines"],
    })
}

fn status(order: &KnownOrder, entry: &Entry, name: &Text, elsewhere: bool) -> Option<Finding> {
    let (phase, known) = (entry.phase?, order.phase);
    let agrees = match (known, phase) {
        (Phase::Held, Phase::Open) | (Phase::Open, Phase::Held) => true,
        // One of two in the ERP was cancelled because it was one too many.
        (_, Phase::Cancelled) if elsewhere && entry.role == Role::Erp => true,
        (known, phase) => known == phase,
    };
    if agrees || (entry.role == Role::Erp && order.closed) {
        return None;
    }
    Some(Finding {
        code: "STATUS_MISMATCH",
        cause: name.clone(),
        severity: match phase == Phase::Sent || known == Phase::Sent {
            true => Severity::High,
            false => Severity::Medium,
        },
        patience: PATIENCE,
        expected: format!("{known:?}"),
        actual: format!("{phase:?} in {}", entry.source),
        delta: None,
        at_risk: None,
        actions: &["ask which is right", "replay"],
    })
}
