//! `exception-enricher`: the cases that operations work, ranked.
//!
//! What processors raise, what is known of the order, and what operators do come together under the
//! exception's id; one case goes out, ranked by revenue at risk × urgency of the promise × severity, and
//! again whenever its urgency rises. What is at risk is what the exception says, else its order's value,
//! else what its units of a product cost. Every act of an operator is audited, the refused ones too. The
//! rules are in [`crate::domain::exceptions`].

use super::cases::reference;
use super::checks::{check_key, check_times, damaged, no_use, unknown};
use super::emitter::Emitter;
use super::keyed::{Call, Fate, Heard, Keyed, Rules};
use super::prices::Prices;
use crate::contract::event::{
    Audit, BusinessException, Contract as _, Correction, CorrectionKind, Event, ExceptionContext,
    ExceptionStatus, Money, Note as WireNote, NoteAction, RankFactor, Severity, Text,
};
use crate::contract::topic;
use crate::domain::exceptions::{
    CaseMove, CaseState, Note, OrderContext, Rank, Seen, Worked, urgency,
};
use crate::domain::{Decimal, Taken, Timestamp, event_id};
use crate::pipeline::{Fault, ProcessorDescriptor};

/// What `exception-enricher` is.
pub const DESCRIPTOR: ProcessorDescriptor = ProcessorDescriptor {
    name: "exception-enricher",
    purpose: "ranks exceptions by what is at risk, and keeps what operators do to them",
    inputs: &[
        topic::OPS_EXCEPTION,
        topic::OPS_NOTE,
        topic::EXCEPTION_CONTEXT_ORDER,
    ],
    tables: &[topic::PRICE_CHANGE],
    outputs: &[
        topic::OPS_CASE,
        topic::EXCEPTION_ENRICHER_BY_ORDER,
        topic::RECON_CORRECTION,
        topic::OPS_AUDIT,
    ],
};

/// The processor.
pub type ExceptionEnricher = Keyed<Ranking>;

/// Its rules.
#[derive(Default)]
pub struct Ranking {
    prices: Prices,
}

impl Rules for Ranking {
    const DESCRIPTOR: &'static ProcessorDescriptor = &DESCRIPTOR;
    const SOURCE: &'static str = "crossdock/exception-enricher";
    type Known = Worked;
    type Gathered = ();

    fn take(
        &self,
        index: usize,
        case: &mut Worked,
        _: &mut (),
        call: &mut Call<'_, '_>,
    ) -> Result<Heard, Fault> {
        let event = &call.inbound[index].event;
        check_times(event.meta())?;
        match event {
            Event::BusinessException(e) => {
                check_key(call.key, &e.exception_id.to_string())?;
                raise(e, case, call)
            }
            Event::ExceptionContext(e) => {
                check_key(call.key, &e.exception_id.to_string())?;
                Ok(Heard::Taken(case.learn(context(e))))
            }
            Event::Note(e) => {
                check_key(call.key, &e.exception_id.to_string())?;
                act(index, e, case, call)
            }
            other => Err(no_use(DESCRIPTOR.name, other)),
        }
    }

    fn finish(&self, case: &mut Worked, (): (), call: &mut Call<'_, '_>) -> Result<Fate, Fault> {
        let now = call.now();
        if case.is_over(now) {
            return Ok(Fate::Forgotten);
        }
        // What is known of the order alone is no case yet.
        let raised = told(call.key, case)?;
        let version = case.next_version(now);
        if let Some(raised) = raised {
            let event = ranked(raised, version, case, &self.prices, call);
            call.context.emit(topic::OPS_CASE, call.key, event);
        }
        Ok(Fate::Kept)
    }

    /// A case counts the price that stands when it is told next.
    fn table(&mut self, key: &str, event: Option<&Event>) {
        self.prices.follow(key, event);
    }
}

/// What the units of a product cost that a case is about.
fn priced(told: &BusinessException, prices: &Prices, now: Timestamp) -> Option<Money> {
    let price = prices.highest(told.sku.as_deref()?, now)?;
    let off = told.delta.unwrap_or(Decimal::ONE);
    let units = off.or_zero().max((-off).or_zero());
    Some(Money {
        amount: (price.amount.times(units)).min(Decimal::from_units(Decimal::LIMIT)),
        currency: price.currency.clone(),
    })
}

fn raise(
    e: &BusinessException,
    case: &mut Worked,
    call: &mut Call<'_, '_>,
) -> Result<Heard, Fault> {
    let by = match e.status {
        ExceptionStatus::Unknown => return Err(unknown("status")),
        ExceptionStatus::AutoHealing => CaseMove::Mending,
        ExceptionStatus::Resolved | ExceptionStatus::Compensated | ExceptionStatus::Accepted => {
            CaseMove::Gone
        }
        _ => CaseMove::Raised,
    };
    let mut bytes = Vec::new();
    match (by, told(call.key, case)?) {
        // That it is over says nothing of what it was: what was told before stands.
        (CaseMove::Gone, Some(before)) => BusinessException {
            meta: e.meta.clone(),
            severity: before.severity,
            healed_by: e.healed_by,
            evidence: e.evidence.clone(),
            last_seen_at: e.last_seen_at,
            ..before
        }
        .encode(&mut bytes),
        _ => e.encode(&mut bytes),
    }
    let seen = Seen {
        first: e.first_seen_at,
        occurrences: e.occurrences,
        promise: e.customer_promise_at,
    };
    let taken = case.raise(e.exception_version, by, bytes, seen);
    if let (Taken::Applied, Some(order)) = (taken, &e.order_id) {
        let topic = topic::EXCEPTION_ENRICHER_BY_ORDER;
        call.context.emit(topic, order.clone(), e.clone());
    }
    Ok(Heard::Taken(taken))
}

fn context(e: &ExceptionContext) -> OrderContext {
    OrderContext {
        version: e.state_version,
        status: e.status.clone(),
        channel: e.channel_id.clone(),
        value: e.order_value.amount,
        currency: e.order_value.currency.clone(),
        promise: e.customer_promise_at,
    }
}

/// An operator does something; whether it was done stands in the audit.
fn act(
    index: usize,
    e: &WireNote,
    case: &mut Worked,
    call: &mut Call<'_, '_>,
) -> Result<Heard, Fault> {
    let act = match e.action {
        NoteAction::Unknown => return Err(unknown("action")),
        NoteAction::Note => CaseMove::Note,
        NoteAction::Assign => CaseMove::Assign,
        NoteAction::Snooze => CaseMove::Snooze,
        NoteAction::Act => CaseMove::Act,
        NoteAction::Resolve => CaseMove::Resolve,
        NoteAction::Accept => CaseMove::Accept,
        NoteAction::Reopen => CaseMove::Reopen,
    };
    let before = case.state();
    let note = Note {
        id: e.meta.event_id.as_u128(),
        act,
        seen: e.case_version,
        assignee: e.assignee.clone(),
        snoozed_until: e.snoozed_until,
    };
    let Some(done) = case.act(&note) else {
        return Ok(Heard::Taken(Taken::Duplicate));
    };
    let emitter = Emitter {
        cause: Some(&call.inbound[index]),
        ..call.emitter()
    };
    let outcome = match &done {
        Ok(()) => "DONE".into(),
        Err(refused) => format!("REFUSED: {refused}"),
    };
    let audit = Audit {
        meta: emitter.meta(
            "Audit",
            &e.meta.event_id.to_string(),
            e.meta.source_position,
        ),
        actor: e.author.clone(),
        action: e.action.symbol().into(),
        target: compact_str::format_compact!("exception {}", call.key),
        reason: e.text.clone(),
        before: Some(symbol(before).into()),
        after: Some(symbol(case.state()).into()),
        outcome: outcome.into(),
    };
    call.context.emit(topic::OPS_AUDIT, call.key, audit);
    if done.is_err() {
        return Ok(Heard::Nothing("refused: the audit says why"));
    }
    if act == CaseMove::Act
        && let Some(before) = told(call.key, case)?
        && let Some(correction) = asked(e, &before, call)
    {
        let key = correction.entity_key.clone();
        call.context.emit(topic::RECON_CORRECTION, key, correction);
    }
    Ok(Heard::Taken(Taken::Applied))
}

/// The correction that an operator asked for, where Crossdock can do it; other actions are a person's,
/// and only recorded.
fn asked(e: &WireNote, case: &BusinessException, call: &Call<'_, '_>) -> Option<Correction> {
    let kind = match (case.code.as_str(), e.text.as_deref()?) {
        ("MISSING_IN_ERP" | "STATUS_MISMATCH", "replay") => CorrectionKind::ReplayOrder,
        _ => return None,
    };
    let order = case.order_id.clone()?;
    let record_id = e.meta.event_id.to_string();
    let emitter = call.emitter();
    Some(Correction {
        meta: emitter.meta("Correction", &record_id, 0),
        correction_id: event_id(emitter.source, 0, &record_id, "correction", "Correction"),
        kind,
        entity_key: order.clone(),
        order_id: Some(order),
        exception_id: case.exception_id,
        reason: Some(compact_str::format_compact!("asked for by {}", e.author)),
        ..Correction::default()
    })
}

/// The exception as it was told last.
fn told(key: &str, case: &Worked) -> Result<Option<BusinessException>, Fault> {
    let read = |mut bytes: &[u8]| BusinessException::decode(&mut bytes);
    let told = case.told().map(read).transpose();
    told.map_err(|cause| damaged(key, cause))
}

fn ranked(
    told: BusinessException,
    version: i64,
    case: &Worked,
    prices: &Prices,
    call: &Call<'_, '_>,
) -> BusinessException {
    let emitter = call.emitter();
    let of_order = case.context();
    let order_value = told.order_value.clone().or(of_order.map(|c| Money {
        amount: c.value,
        currency: c.currency.clone(),
    }));
    let at_risk = told.revenue_at_risk.clone().or(order_value.clone());
    let at_risk = at_risk.or_else(|| priced(&told, prices, call.now()));
    let state = case.state();
    let rank = Rank {
        revenue: at_risk
            .as_ref()
            .map_or(1.0, |money| money.amount.to_f64().max(1.0)),
        urgency: urgency(case.promise(), call.now()),
        severity: match state.is_live() {
            true => weight(told.severity),
            false => 0.0,
        },
    };
    let (occurrences, first_seen_at) = case.seen();
    let mut evidence = told.evidence.clone();
    if let Some(cause) = call.cause() {
        let place = reference(cause);
        if *place.topic == *topic::OPS_EXCEPTION {
            evidence.push(place);
        }
    }
    BusinessException {
        meta: emitter.meta(
            "BusinessException",
            &format!("{}#{version}", call.key),
            version,
        ),
        exception_version: version,
        status: status(state),
        order_value,
        revenue_at_risk: at_risk,
        customer_promise_at: case.promise(),
        channel_id: told
            .channel_id
            .clone()
            .or(of_order.map(|c| c.channel.clone())),
        evidence,
        occurrences,
        first_seen_at,
        assignee: case.assignee().cloned(),
        snoozed_until: case.snoozed_until(),
        rank_factors: factors(&rank),
        ..told
    }
}

fn factors(rank: &Rank) -> Vec<RankFactor> {
    let all = [
        ("rank", rank.value()),
        ("revenueAtRisk", rank.revenue),
        ("urgency", rank.urgency),
        ("severity", rank.severity),
    ];
    all.into_iter()
        .map(|(name, value)| RankFactor {
            name: Text::from(name),
            value,
        })
        .collect()
}

fn weight(severity: Severity) -> f64 {
    match severity {
        Severity::Unknown | Severity::Info => 0.5,
        Severity::Low => 1.0,
        Severity::Medium => 2.0,
        Severity::High => 4.0,
        Severity::Critical => 8.0,
    }
}

fn status(state: CaseState) -> ExceptionStatus {
    match state {
        CaseState::Open => ExceptionStatus::Open,
        CaseState::Healing => ExceptionStatus::AutoHealing,
        CaseState::Assigned => ExceptionStatus::Assigned,
        CaseState::Regressed => ExceptionStatus::Regressed,
        CaseState::Resolved => ExceptionStatus::Resolved,
        CaseState::Accepted => ExceptionStatus::Accepted,
    }
}

fn symbol(state: CaseState) -> &'static str {
    status(state).symbol()
}
