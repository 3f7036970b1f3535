//! `Gate`: the one place that decides whether money goes back to a customer.
//!
//! A request becomes a refund that waits until what it needs is there: the capture, the accepted
//! return, the cancellation ([`Gate::verdict`]). It is decided once, and the decision is remembered:
//! replay never decides again. What a provider or a storefront has paid already is not decided but
//! taken in as a fact, whoever tells of it first, and counted against every later request.
//!
//! A provider is called with the key `refundId|attempt`. An attempt whose outcome is unknown is asked
//! about under the same key; only a definite failure opens the next.

use super::facts::{Payment, PaymentKind, ReturnFact};
use super::limits::{Verdict, Waiting};
use super::machine::{Illegal, RefundMove, RefundStatus};
use super::refund::{Answer, AnswerKind, Change, Refund, Request};
use super::rulings::{Ruling, Rulings};
use super::{HORIZON, RETENTION};
use crate::domain::FACTS_MAX;
use crate::domain::cases::{CaseChange, Cases};
use crate::domain::encoding::kept;
use crate::domain::{Decimal, Latest, Taken, Timestamp};
use compact_str::CompactString as Text;
use std::collections::BTreeMap;

/// The refunds of one order, and the facts that they are decided by.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gate {
    // First, so that it is read without the rest.
    due: Option<Timestamp>,
    heard_at: Timestamp,
    pub(super) payments: Latest<Payment>,
    pub(super) returns: Latest<ReturnFact>,
    cancelled_version: Option<i64>,
    pub(super) cancelled: BTreeMap<Text, Decimal>,
    pub(super) refunds: BTreeMap<u128, Refund>,
    cases: Cases,
}
kept!(Gate {
    due,
    heard_at,
    payments,
    returns,
    cancelled_version,
    cancelled,
    refunds,
    cases
});

impl Gate {
    /// Every refund by id.
    pub fn refunds(&self) -> &BTreeMap<u128, Refund> {
        &self.refunds
    }

    /// Natural keys of the captures of a payment, in order.
    pub fn captures<'a>(&'a self, payment: &'a str) -> impl Iterator<Item = &'a Text> {
        let of_payment =
            move |fact: &Payment| fact.kind == PaymentKind::Captured && fact.payment == payment;
        let all = self.payments.iter();
        all.filter(move |(_, fact)| of_payment(fact))
            .map(|(key, _)| key)
    }

    /// A movement of the customer's money; `key` names it whatever system tells of it.
    pub fn payment(&mut self, key: &str, version: i64, id: u128, payment: Payment) -> Taken {
        self.payments.take(key, version, id, payment)
    }
    /// A return.
    pub fn returned(&mut self, key: &str, version: i64, id: u128, fact: ReturnFact) -> Taken {
        self.returns.take(key, version, id, fact)
    }
    /// Units cancelled of each line, as of a version of the order's state.
    pub fn cancelled(&mut self, version: i64, lines: BTreeMap<Text, Decimal>) -> Taken {
        match self.cancelled_version {
            Some(known) if known == version => return Taken::Duplicate,
            Some(known) if known > version => return Taken::Superseded,
            _ => self.cancelled_version = Some(version),
        }
        self.cancelled = lines;
        Taken::Applied
    }

    /// Takes a request in. It is decided in [`Gate::settle`], or waits there.
    pub fn request(&mut self, request: Request, changes: &mut Vec<Change>) -> Taken {
        if self.refunds.contains_key(&request.refund) {
            return self.request_again(request, changes);
        }
        if request.issued
            && let Some(known) = self.same_payment(&request)
        {
            // Told by the provider before: the storefront only adds what it was for.
            self.enrich(known, &request, changes);
            return Taken::Duplicate;
        }
        if self.refunds.len() >= FACTS_MAX {
            return Taken::TooMany;
        }
        let status = match request.issued {
            true => RefundStatus::Completed,
            false => RefundStatus::Requested,
        };
        let refund = Refund {
            status,
            version: 1,
            attempt: 0,
            money: request.money,
            payment: request.payment,
            reference: request.reference,
            return_id: request.return_id,
            allocations: request.allocations,
            reason: request.reason,
            issued: request.issued,
            twin: None,
            asked_at: request.at,
            since: request.at,
            until: (!request.issued).then(|| request.at.plus(HORIZON)),
            answered: 0,
            waiting: (!request.issued).then_some(request.place),
        };
        changes.push(Change {
            id: request.refund,
            refund: refund.clone(),
        });
        self.refunds.insert(request.refund, refund);
        Taken::Applied
    }

    /// A request of a refund that is known. That it has been paid is news all the same.
    fn request_again(&mut self, request: Request, changes: &mut Vec<Change>) -> Taken {
        let id = request.refund;
        let Some(refund) = self.refunds.get_mut(&id) else {
            return Taken::Duplicate;
        };
        let paid = matches!(
            refund.status,
            RefundStatus::Completed | RefundStatus::Reversed
        );
        if !request.issued || paid {
            if request.issued {
                self.enrich(id, &request, changes);
            }
            return Taken::Duplicate;
        }
        refund.status = RefundStatus::Completed;
        refund.issued = true;
        refund.until = None;
        refund.since = request.at;
        refund.version += 1;
        refund.reference = request.reference.or(refund.reference.take());
        changes.push(Change {
            id,
            refund: refund.clone(),
        });
        Taken::Applied
    }

    /// The refund that a provider told of and that the storefront now tells of too.
    fn same_payment(&self, request: &Request) -> Option<u128> {
        if let Some(reference) = &request.reference {
            return self.with_reference(reference);
        }
        let mut known = self.refunds.iter();
        let found = known.find(|(_, r)| r.is_unexplained() && r.money == request.money);
        found.map(|(id, _)| *id)
    }

    fn enrich(&mut self, id: u128, request: &Request, changes: &mut Vec<Change>) {
        let Some(refund) = self.refunds.get_mut(&id) else {
            return;
        };
        let before = refund.clone();
        if refund.allocations.is_empty() {
            refund.allocations.clone_from(&request.allocations);
        }
        refund.return_id = refund.return_id.take().or(request.return_id.clone());
        refund.reason = refund.reason.take().or(request.reason.clone());
        refund.reference = refund.reference.take().or(request.reference.clone());
        if *refund != before {
            refund.version += 1;
            changes.push(Change {
                id,
                refund: refund.clone(),
            });
        }
    }

    /// Takes in what a provider says.
    ///
    /// # Errors
    /// When the refund cannot make that move: the provider contradicts itself.
    pub fn answer(&mut self, answer: Answer, changes: &mut Vec<Change>) -> Result<Taken, Illegal> {
        let told_before = self.with_reference(&answer.reference);
        let asked = answer.key.filter(|(id, _)| self.refunds.contains_key(id));
        let Some(id) = told_before.or(asked.map(|(id, _)| id)) else {
            return Ok(self.unasked(answer, None, changes));
        };
        let Some(refund) = self.refunds.get_mut(&id) else {
            return Ok(Taken::Superseded);
        };
        let attempt = match (told_before, asked) {
            (None, Some((_, attempt))) => attempt,
            _ => refund.attempt,
        };
        let pays = matches!(answer.kind, AnswerKind::Completed | AnswerKind::Reversed);
        let same = refund.reference.as_ref() == Some(&answer.reference);
        let open = matches!(
            refund.status,
            RefundStatus::Submitted | RefundStatus::OutcomeUnknown
        );
        if attempt == refund.attempt && answer.version < refund.answered {
            return Ok(Taken::Superseded);
        }
        if attempt != refund.attempt || !(open || same || !pays) {
            // An attempt that was over has paid after all, or a second payment was made.
            return Ok(match pays && !same {
                true => self.unasked(answer, Some(id), changes),
                false => Taken::Superseded,
            });
        }
        let moves: &[RefundMove] = match (answer.kind, refund.status) {
            (AnswerKind::Completed, RefundStatus::Completed | RefundStatus::Reversed)
            | (AnswerKind::Failed, RefundStatus::Failed)
            | (AnswerKind::Unknown, RefundStatus::OutcomeUnknown)
            | (AnswerKind::Reversed, RefundStatus::Reversed) => {
                refund.answered = refund.answered.max(answer.version);
                return Ok(Taken::Duplicate);
            }
            (AnswerKind::Unknown, status) if status != RefundStatus::Submitted => {
                return Ok(Taken::Superseded);
            }
            (AnswerKind::Completed, _) => &[RefundMove::Complete],
            (AnswerKind::Failed, _) => &[RefundMove::Fail],
            (AnswerKind::Unknown, _) => &[RefundMove::Doubt],
            (AnswerKind::Reversed, RefundStatus::Completed) => &[RefundMove::Reverse],
            // What has come back was paid.
            (AnswerKind::Reversed, _) => &[RefundMove::Complete, RefundMove::Reverse],
        };
        let mut moved = refund.clone();
        moved.answered = answer.version;
        if pays {
            moved.reference = Some(answer.reference);
        }
        let mut made = Vec::new();
        for on in moves {
            moved.go(*on, answer.at)?;
            made.push(Change {
                id,
                refund: moved.clone(),
            });
        }
        *refund = moved;
        changes.append(&mut made);
        Ok(Taken::Applied)
    }

    /// The refund that a provider knows by this reference.
    fn with_reference(&self, reference: &Text) -> Option<u128> {
        let mut known = self.refunds.iter();
        let found = known.find(|(_, r)| r.reference.as_ref() == Some(reference));
        found.map(|(id, _)| *id)
    }

    /// Money went back that nobody here had asked for, or a second time for `twin`.
    fn unasked(&mut self, answer: Answer, twin: Option<u128>, changes: &mut Vec<Change>) -> Taken {
        if matches!(answer.kind, AnswerKind::Failed | AnswerKind::Unknown) {
            // Nothing has happened.
            return Taken::Superseded;
        }
        let status = match answer.kind {
            AnswerKind::Reversed => RefundStatus::Reversed,
            _ => RefundStatus::Completed,
        };
        // A storefront may have told of it without the provider's reference.
        let told = |(_, r): &(&u128, &mut Refund)| {
            twin.is_none() && r.issued && r.reference.is_none() && r.money == answer.money
        };
        if let Some((id, refund)) = self.refunds.iter_mut().find(told) {
            refund.reference = Some(answer.reference);
            refund.payment = refund.payment.take().or(Some(answer.payment));
            refund.status = status;
            refund.answered = answer.version;
            refund.version += 1;
            changes.push(Change {
                id: *id,
                refund: refund.clone(),
            });
            return Taken::Applied;
        }
        if self.refunds.len() >= FACTS_MAX {
            return Taken::TooMany;
        }
        let refund = Refund {
            status,
            version: 1,
            attempt: 0,
            money: answer.money,
            payment: Some(answer.payment),
            reference: Some(answer.reference),
            return_id: None,
            allocations: Vec::new(),
            reason: None,
            issued: true,
            twin,
            asked_at: answer.at,
            since: answer.at,
            until: None,
            answered: answer.version,
            waiting: None,
        };
        changes.push(Change {
            id: answer.fresh,
            refund: refund.clone(),
        });
        self.refunds.insert(answer.fresh, refund);
        Taken::Applied
    }

    /// Decides what can be decided and gives up what has waited long enough. Gives what became of the
    /// order's cases, and into `decided` the records that waited and are decided now. What was `recorded`
    /// before is followed instead of being decided anew. Sets the next timer. `None` when the order is over for good and may be forgotten.
    pub fn settle(
        &mut self,
        now: Timestamp,
        recorded: Option<&Rulings>,
        changes: &mut Vec<Change>,
        decided: &mut Vec<(i32, i64)>,
    ) -> Option<Vec<CaseChange>> {
        let forgotten_at = self.heard_at.plus(RETENTION);
        if forgotten_at <= now {
            return None;
        }
        let mut order: Vec<(Timestamp, u128)> = self
            .refunds
            .iter()
            .map(|(id, r)| (r.asked_at, *id))
            .collect();
        order.sort_unstable();
        for (_, id) in order {
            self.decide(id, now, recorded, changes, decided);
        }
        let findings = self.findings(now);
        let cases = self.cases.follow(findings, now);
        let waits = self.refunds.values().filter_map(|r| r.next_look(now));
        self.due = waits.chain([forgotten_at]).min();
        Some(cases)
    }

    fn decide(
        &mut self,
        id: u128,
        now: Timestamp,
        recorded: Option<&Rulings>,
        changes: &mut Vec<Change>,
        decided: &mut Vec<(i32, i64)>,
    ) {
        let Some(mut refund) = self.refunds.get(&id).cloned() else {
            return;
        };
        // Paid by others while it waited.
        if refund.status != RefundStatus::Requested
            && let Some(place) = refund.waiting.take()
        {
            decided.push(place);
        }
        let over = refund.until.is_some_and(|until| until <= now);
        let moves: &[RefundMove] = match refund.status {
            RefundStatus::Requested => match self.ruled(id, &refund, recorded) {
                Verdict::Grant(payment) => {
                    refund.payment = Some(payment);
                    &[RefundMove::Approve, RefundMove::Submit]
                }
                Verdict::Wait(_) if !over || recorded.is_some_and(|r| r.knows(id)) => &[],
                Verdict::Wait(waiting) => {
                    refund.reason = Some(waiting.code().into());
                    &[RefundMove::Reject]
                }
                Verdict::Refuse(reason) => {
                    refund.reason = Some(reason);
                    &[RefundMove::Reject]
                }
            },
            RefundStatus::Failed if over && self.tries_again(id, &refund, recorded) => {
                &[RefundMove::Reopen, RefundMove::Submit]
            }
            _ => &[],
        };
        for on in moves {
            // Both lists start from a status that they are legal in; what is not is left as it is.
            if refund.go(*on, now).is_err() {
                return;
            }
            changes.push(Change {
                id,
                refund: refund.clone(),
            });
        }
        if refund.status != RefundStatus::Requested {
            decided.extend(refund.waiting.take());
        }
        self.refunds.insert(id, refund);
    }

    /// What was decided about a refund that is asked for, where that was recorded; else what the facts say.
    fn ruled(&self, id: u128, refund: &Refund, recorded: Option<&Rulings>) -> Verdict {
        let Some(recorded) = recorded.filter(|r| r.knows(id)) else {
            return self.verdict(id, refund);
        };
        match recorded.of(id, refund.version + 1) {
            Some(Ruling {
                status: RefundStatus::Approved,
                payment: Some(payment),
                ..
            }) => Verdict::Grant(payment.clone()),
            Some(Ruling {
                status: RefundStatus::Rejected,
                reason: Some(reason),
                ..
            }) => Verdict::Refuse(reason.clone()),
            _ => Verdict::Wait(Waiting::Capture),
        }
    }

    fn tries_again(&self, id: u128, refund: &Refund, recorded: Option<&Rulings>) -> bool {
        match recorded.filter(|r| r.knows(id)) {
            Some(recorded) => recorded.of(id, refund.version + 1).is_some(),
            None => self.may_try_again(id, refund),
        }
    }

    /// Whether the record of `refund` waits to be decided.
    pub fn waits(&self, refund: u128) -> bool {
        let known = self.refunds.get(&refund);
        known.is_some_and(|r| r.status == RefundStatus::Requested)
    }
}
