//! One position under work: each record through the rules, its outcome settled.

use super::{damaged, input};
use crate::contract::event::{
    Event, EventMeta, EventRef, Origin as FactOrigin, Outcome, ReservationCommand, StockChanged,
    StockPolicy, StockSnapshot, Text,
};
use crate::contract::topic;
use crate::domain::stock::{Applied, Journal, Ledger, Level, Refusal, Resolved, Verdict, Waited};
use crate::domain::{Timestamp, key_part};
use crate::pipeline::{Code, Context, Fault, Inbound, Origin, Stage};
use crate::processors::shelf::StateShelf;

/// One position under work.
pub(super) struct Position<'k> {
    pub key: &'k str,
    pub sku: Text,
    pub location: Text,
    pub ledger: Ledger,
    /// Whose facts count here, where that is declared.
    pub declared: Option<Text>,
    /// The level last emitted.
    pub before: Option<Level>,
    /// The timer that is set.
    pub timer: Option<Timestamp>,
    pub journal: Journal,
    /// Record time of the newest record of this call: what follows from records carries it.
    pub newest: Timestamp,
    /// The newest fact of this call.
    pub cause: Option<EventRef>,
}

impl<'k> Position<'k> {
    pub(super) fn load(
        key: &'k str,
        mut journal: Journal,
        context: &mut Context<'_>,
    ) -> Result<Self, Fault> {
        let ledger = match context.state().get(key.as_bytes()) {
            Some(bytes) => {
                Ledger::from_state(bytes).map_err(|e| damaged(key, Refusal::Damaged(e)))?
            }
            None => Ledger::default(),
        };
        journal.clear();
        Ok(Position {
            key,
            sku: key_part(key, 0),
            location: key_part(key, 1),
            declared: None,
            before: ledger.emitted(),
            timer: ledger.next_expiry(),
            ledger,
            journal,
            newest: Timestamp::default(),
            cause: None,
        })
    }

    pub(super) fn seek(
        &mut self,
        inbound: &[Inbound],
        context: &mut Context<'_>,
    ) -> Result<(), Fault> {
        let ids = inbound.iter().filter_map(|i| match &i.event {
            Event::StockChanged(e) => Some(e.meta.event_id.as_u128()),
            Event::StockSnapshot(e) => Some(e.meta.event_id.as_u128()),
            _ => None,
        });
        let shelf = StateShelf::new(self.key, context.state());
        let sought = self.ledger.seek(ids, &shelf);
        sought.map_err(|refusal| damaged(self.key, refusal))
    }

    fn is_authority(&mut self, source: &str) -> bool {
        let declared = self.declared.as_deref();
        self.ledger.is_authority(source, declared)
    }

    fn hear(&mut self, meta: &EventMeta, origin: &Origin) {
        self.newest = self.newest.max(meta.recorded_at);
        self.cause = Some(EventRef {
            topic: Text::from(&*origin.topic),
            partition: origin.partition,
            offset: origin.offset,
            event_id: Some(meta.event_id),
        });
    }

    pub(super) fn changed(
        &mut self,
        index: usize,
        e: &StockChanged,
        origin: &Origin,
        context: &mut Context<'_>,
    ) -> Result<(), Fault> {
        if let Err(fault) = self
            .check_key(&e.sku, &e.location_id)
            .and_then(|()| input::check_changed(e))
        {
            context.reject(index, fault);
            return Ok(());
        }
        if !self.is_authority(&e.meta.source) {
            let reason = "for reconciliation only: another source is the authority here";
            context.settle(index, Outcome::Superseded, Some(reason));
            return Ok(());
        }
        self.hear(&e.meta, origin);
        let mut movement = input::movement(e, origin);
        let (mut shelf, ledger) = (StateShelf::new(self.key, context.state()), &mut self.ledger);
        let claim = ledger
            .claim_among(input::claims_of(e), &shelf)
            .map_err(|refusal| damaged(self.key, refusal))?;
        movement.consumes = movement.consumes.or(claim.map(|id| (id, e.qty)));
        let moved = match ledger.movement(&movement, &mut shelf, &mut self.journal) {
            Ok(moved) => moved,
            Err(refusal) => {
                let what = format_args!("position {}", movement.position);
                return self.refuse(index, refusal, what, &e.meta.source, context);
            }
        };
        let reason = match moved.physical {
            Applied::Superseded => Some("a snapshot includes it"),
            Applied::Buffered => Some("waits for the snapshot of its epoch"),
            Applied::Applied | Applied::Duplicate => None,
        };
        context.settle(index, outcome_of(moved.physical), reason);
        if let Some(verdict) = moved.claim {
            let (outcome, reason) = input::claim_effect(verdict);
            context.settle_effect(index, "reservation", outcome, reason);
        }
        if moved.physical != Applied::Duplicate
            && let Some(order) = &e.order_id
        {
            context.emit(topic::STOCK_BY_ORDER, order.clone(), e.clone());
        }
        self.report(Some(&e.meta), context);
        Ok(())
    }

    pub(super) fn snapshot(
        &mut self,
        index: usize,
        e: &StockSnapshot,
        origin: &Origin,
        context: &mut Context<'_>,
    ) -> Result<(), Fault> {
        if let Err(fault) = self
            .check_key(&e.sku, &e.location_id)
            .and_then(|()| input::check_snapshot(e))
        {
            context.reject(index, fault);
            return Ok(());
        }
        let snapshot = input::snapshot(e);
        // A snapshot that is only compared makes nobody an authority.
        let compared = e.meta.origin == FactOrigin::Reconciliation || snapshot.is_none();
        let authority = match (compared, self.ledger.authority()) {
            (true, known) => known == Some(&e.meta.source),
            (false, _) => self.is_authority(&e.meta.source),
        };
        let (mut shelf, ledger) = (StateShelf::new(self.key, context.state()), &mut self.ledger);
        let Some(snapshot) = snapshot.filter(|_| authority && !compared) else {
            return self.compare(index, e, authority, origin, context);
        };
        let rebased = match ledger.snapshot(&snapshot, &mut shelf, &mut self.journal) {
            Ok(rebased) => rebased,
            Err(refusal) => {
                let what = format_args!("position {}", snapshot.as_of);
                return self.refuse(index, refusal, what, &e.meta.source, context);
            }
        };
        self.hear(&e.meta, origin);
        let reason = match rebased.outcome {
            Applied::Superseded => Some("a newer snapshot is known"),
            _ => None,
        };
        context.settle(index, outcome_of(rebased.outcome), reason);
        if let Some(drift) = rebased.drift.filter(|d| !d.is_zero()) {
            self.raise_drift(drift, e, true, context);
        }
        self.report(Some(&e.meta), context);
        Ok(())
    }

    /// A snapshot that is not taken in says at most how far it is from what is known. Positions of
    /// two sources have no common order, and what is available says nothing about what is there
    /// unless claims are known: then there is nothing to compare.
    fn compare(
        &mut self,
        index: usize,
        e: &StockSnapshot,
        authority: bool,
        origin: &Origin,
        context: &mut Context<'_>,
    ) -> Result<(), Fault> {
        if let Some(snapshot) = input::snapshot(e).filter(|_| authority) {
            let shelf = StateShelf::new(self.key, context.state());
            let drift = self
                .ledger
                .compare(snapshot.as_of, snapshot.sellable, &shelf);
            let drift = drift.map_err(|refusal| damaged(self.key, refusal))?;
            if let Some(drift) = drift.filter(|d| !d.is_zero()) {
                self.hear(&e.meta, origin);
                self.raise_drift(drift, e, false, context);
            }
        }
        if !authority {
            // Positions of two sources have no common order: it is compared by time.
            context.emit(topic::STOCK_LEDGER_MIRROR, self.key, e.clone());
        }
        context.settle(index, Outcome::Applied, Some("compared only"));
        Ok(())
    }

    pub(super) fn policy(
        &mut self,
        index: usize,
        e: &StockPolicy,
        origin: &Origin,
        context: &mut Context<'_>,
    ) -> Result<(), Fault> {
        let checked = self
            .check_key(&e.sku, &e.location_id)
            .and_then(|()| input::check_policy(e));
        let policy = match checked {
            Ok(policy) => policy,
            Err(fault) => {
                context.reject(index, fault);
                return Ok(());
            }
        };
        self.hear(&e.meta, origin);
        let (mut shelf, ledger) = (StateShelf::new(self.key, context.state()), &mut self.ledger);
        let at = e.meta.recorded_at;
        let outcome = match ledger.set_policy(policy, at, &mut shelf, &mut self.journal) {
            Ok(outcome) => outcome,
            Err(refusal) => {
                let what = format_args!("policy version {}", e.policy_version);
                return self.refuse(index, refusal, what, &e.meta.source, context);
            }
        };
        let reason = match outcome {
            Applied::Superseded => Some("a newer policy is known"),
            _ => None,
        };
        context.settle(index, outcome_of(outcome), reason);
        self.report(Some(&e.meta), context);
        Ok(())
    }

    pub(super) fn command(
        &mut self,
        index: usize,
        e: &ReservationCommand,
        origin: &Origin,
        context: &mut Context<'_>,
    ) -> Result<(), Fault> {
        let checked = self
            .check_key(&e.sku, &e.location_id)
            .and_then(|()| input::check_command(e));
        let action = match checked {
            Ok(action) => action,
            Err(fault) => {
                context.reject(index, fault);
                return Ok(());
            }
        };
        let command = input::command(e, origin);
        let (mut shelf, ledger) = (StateShelf::new(self.key, context.state()), &mut self.ledger);
        let verdict = match ledger.command(action, &command, &mut shelf, &mut self.journal) {
            Ok(verdict) => verdict,
            Err(refusal) => {
                let what = format_args!("{} of reservation {}", e.action, e.reservation_id);
                return self.refuse(index, refusal, what, &e.meta.source, context);
            }
        };
        self.hear(&e.meta, origin);
        match verdict {
            Verdict::Applied => context.settle(index, Outcome::Applied, None),
            Verdict::Duplicate => context.settle(index, Outcome::Duplicate, None),
            Verdict::Superseded => {
                context.settle(index, Outcome::Superseded, Some("the claim is over"))
            }
            Verdict::Buffered => {
                context.settle(index, Outcome::Buffered, Some("waits for the hold"));
            }
        }
        self.report(Some(&e.meta), context);
        Ok(())
    }

    /// Emits what the journal says and forgets it.
    pub(super) fn report(&mut self, cause: Option<&EventMeta>, context: &mut Context<'_>) {
        let mut journal = std::mem::take(&mut self.journal);
        for decision in &journal.decisions {
            self.emit_decision(decision, cause, context);
        }
        for resolved in journal.resolved.drain(..) {
            resolve(&resolved, context);
        }
        journal.clear();
        self.journal = journal;
    }

    /// `what` names the record by its place in its source's order.
    fn refuse(
        &mut self,
        index: usize,
        refusal: Refusal,
        what: impl std::fmt::Display,
        source: &str,
        context: &mut Context<'_>,
    ) -> Result<(), Fault> {
        let (code, message) = match refusal {
            Refusal::Damaged(_) => return Err(damaged(self.key, refusal)),
            Refusal::LateBeyondHorizon => (
                Code::LateBeyondHorizon,
                format!(
                    "{what} of {source} is older than what the ledger remembers (72 h): whether it had its effect cannot be known; count the stock, then discard this record"
                ),
            ),
            Refusal::TooManyWaiting => (
                Code::EpochUntrusted,
                format!(
                    "{what} of {source} is of an epoch whose snapshot has not come, and no more can wait for it; send a snapshot of that epoch, then redrive"
                ),
            ),
        };
        context.reject(index, Fault::reject(Stage::Process, code, message));
        Ok(())
    }

    fn check_key(&self, sku: &str, location: &str) -> Result<(), Fault> {
        if *sku == *self.sku && *location == *self.location {
            return Ok(());
        }
        let message = format!(
            "the key is {}, the value is of {}",
            self.key,
            crate::domain::compound_key(&[sku, location])
        );
        Err(Fault::reject(Stage::Validate, Code::WrongKey, message))
    }
}

fn resolve(resolved: &Resolved, context: &mut Context<'_>) {
    let (topic, place) = match resolved.waited {
        Waited::Movement(place) => (topic::STOCK_CHANGE, place),
        Waited::Confirm(place) => (topic::RESERVATION_COMMAND, place),
    };
    let origin = Origin {
        topic: topic.into(),
        partition: place.partition,
        offset: place.offset,
    };
    if let Some(verdict) = resolved.claim {
        let (outcome, _) = input::claim_effect(verdict);
        context.resolve(origin.clone(), "reservation", outcome);
    }
    context.resolve(origin, "", outcome_of(resolved.outcome));
}

fn outcome_of(applied: Applied) -> Outcome {
    match applied {
        Applied::Applied => Outcome::Applied,
        Applied::Duplicate => Outcome::Duplicate,
        Applied::Superseded => Outcome::Superseded,
        Applied::Buffered => Outcome::Buffered,
    }
}
