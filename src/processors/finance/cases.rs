//! From cases to exceptions.

use super::Emitter;
use crate::contract::event::{
    BusinessException, ErrorClass, EventRef, ExceptionStatus, Money as WireMoney,
    Severity as WireSeverity, Text,
};
use crate::contract::topic;
use crate::domain::exception_id;
use crate::domain::finance::{CaseChange, CaseStatus, Severity};
use crate::pipeline::{Context, Inbound};

/// Tells what became of the cases of the emitter's entity; `order` is the order that they are about.
/// `evidence` are the records of this call.
pub(crate) fn emit(
    order: Option<&str>,
    changes: Vec<CaseChange>,
    evidence: &[Inbound],
    emitter: &Emitter<'_>,
    context: &mut Context<'_>,
) {
    let evidence = evidence.last().map(|inbound| EventRef {
        topic: Text::from(&*inbound.record.origin.topic),
        partition: inbound.record.origin.partition,
        offset: inbound.record.origin.offset,
        event_id: Some(inbound.event.meta().event_id),
    });
    for change in changes {
        let id = exception_id(&change.code, emitter.entity, &change.cause);
        let resolved = change.status == CaseStatus::Resolved;
        let record_id = format!("{id}#{}", change.version);
        let finding = change.finding;
        let event = BusinessException {
            meta: emitter.meta("BusinessException", &record_id, change.version),
            exception_id: id,
            exception_version: change.version,
            code: change.code,
            error_class: ErrorClass::Contradiction,
            severity: finding
                .as_ref()
                .map_or(WireSeverity::Info, |f| severity(f.severity)),
            status: match change.status {
                CaseStatus::Open => ExceptionStatus::Open,
                CaseStatus::Regressed => ExceptionStatus::Regressed,
                CaseStatus::Resolved => ExceptionStatus::Resolved,
            },
            processor: emitter.processor.into(),
            order_id: order.map(Text::from),
            revenue_at_risk: finding.as_ref().and_then(|f| f.at_risk).map(|m| WireMoney {
                amount: m.amount(),
                currency: m.currency().code().into(),
            }),
            expected: finding.as_ref().map(|f| f.expected.as_str().into()),
            actual: finding.as_ref().map(|f| f.actual.as_str().into()),
            delta: finding.as_ref().and_then(|f| f.delta),
            suggested_actions: finding
                .iter()
                .flat_map(|f| f.actions)
                .map(|action| Text::from(*action))
                .collect(),
            evidence: evidence.iter().cloned().collect(),
            orders_affected: i32::from(order.is_some()),
            occurrences: 1,
            first_seen_at: change.first_seen,
            last_seen_at: context.now(),
            cause_key: change.cause,
            healed_by: emitter.cause.filter(|_| resolved).map(|m| m.event_id),
            ..BusinessException::default()
        };
        context.emit(
            topic::OPS_EXCEPTION,
            compact_str::format_compact!("{id}"),
            event,
        );
    }
}

fn severity(severity: Severity) -> WireSeverity {
    match severity {
        Severity::Medium => WireSeverity::Medium,
        Severity::High => WireSeverity::High,
        Severity::Critical => WireSeverity::Critical,
    }
}
