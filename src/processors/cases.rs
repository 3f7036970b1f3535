//! From cases to exceptions.

use super::emitter::Emitter;
use crate::contract::event::{
    BusinessException, ErrorClass, EventRef, ExceptionStatus, Money as WireMoney,
    Severity as WireSeverity, Text,
};
use crate::contract::topic;
use crate::domain::cases::{CaseChange, CaseStatus, Severity};
use crate::domain::money::Money;
use crate::domain::{Timestamp, exception_id};
use crate::pipeline::{Context, Inbound};

/// What a case is about, beyond the key under which it was found.
#[derive(Default)]
pub(super) struct About {
    pub order: Option<Text>,
    pub sku: Option<Text>,
    pub location: Option<Text>,
    pub channel: Option<Text>,
    /// What the order is worth.
    pub value: Option<WireMoney>,
    /// What its customer was told.
    pub promise: Option<Timestamp>,
}

impl About {
    /// About an order of which nothing else is known.
    pub(super) fn order(id: &str) -> Self {
        About {
            order: Some(id.into()),
            ..About::default()
        }
    }
}

/// Tells what became of the cases of the emitter's entity. Evidence is the emitter's cause.
pub(super) fn emit(
    about: &About,
    changes: Vec<CaseChange>,
    emitter: &Emitter<'_>,
    context: &mut Context<'_>,
) {
    for change in changes {
        let id = exception_id(&change.code, emitter.entity, &change.cause);
        let resolved = change.status == CaseStatus::Resolved;
        let record_id = format!("{id}#{}", change.version);
        let finding = change.finding;
        let event = BusinessException {
            meta: emitter.meta("BusinessException", &record_id, change.version),
            exception_id: id,
            exception_version: change.version,
            error_class: class(&change.code),
            code: change.code,
            severity: finding
                .as_ref()
                .map_or(WireSeverity::Info, |f| severity(f.severity)),
            status: match change.status {
                CaseStatus::Open => ExceptionStatus::Open,
                CaseStatus::Regressed => ExceptionStatus::Regressed,
                CaseStatus::Resolved => ExceptionStatus::Resolved,
            },
            processor: emitter.processor.into(),
            order_id: about.order.clone(),
            sku: about.sku.clone(),
            location_id: about.location.clone(),
            channel_id: about.channel.clone(),
            order_value: about.value.clone(),
            revenue_at_risk: finding.as_ref().and_then(|f| f.at_risk).map(money),
            customer_promise_at: about.promise,
            expected: finding.as_ref().map(|f| f.expected.as_str().into()),
            actual: finding.as_ref().map(|f| f.actual.as_str().into()),
            delta: finding.as_ref().and_then(|f| f.delta),
            suggested_actions: finding
                .iter()
                .flat_map(|f| f.actions)
                .map(|action| Text::from(*action))
                .collect(),
            evidence: emitter.cause.map(reference).into_iter().collect(),
            orders_affected: i32::from(about.order.is_some()),
            occurrences: change.version,
            first_seen_at: change.first_seen,
            last_seen_at: context.now(),
            cause_key: change.cause,
            healed_by: emitter
                .cause
                .filter(|_| resolved)
                .map(|cause| cause.event.meta().event_id),
            ..BusinessException::default()
        };
        context.emit(
            topic::OPS_EXCEPTION,
            compact_str::format_compact!("{id}"),
            event,
        );
    }
}

/// Where a record stands, for whoever asks for evidence.
pub(super) fn reference(inbound: &Inbound) -> EventRef {
    let origin = &inbound.record.origin;
    EventRef {
        topic: Text::from(&*origin.topic),
        partition: origin.partition,
        offset: origin.offset,
        event_id: Some(inbound.event.meta().event_id),
    }
}

fn money(money: Money) -> WireMoney {
    WireMoney {
        amount: money.amount(),
        currency: money.currency().code().into(),
    }
}

fn class(code: &str) -> ErrorClass {
    match code {
        "ILLEGAL_TRANSITION" => ErrorClass::IllegalTransition,
        "UNKNOWN_LINE" | "ORPHAN" => ErrorClass::UnknownReference,
        _ => ErrorClass::Contradiction,
    }
}

fn severity(severity: Severity) -> WireSeverity {
    match severity {
        Severity::Low => WireSeverity::Low,
        Severity::Medium => WireSeverity::Medium,
        Severity::High => WireSeverity::High,
        Severity::Critical => WireSeverity::Critical,
    }
}
