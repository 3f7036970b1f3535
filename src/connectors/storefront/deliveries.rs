//! What a storefront has announced, and what it should have.
//!
//! A change that the list shows and no delivery announces within a minute is a gap: the webhook is lost,
//! or its sender is mute. Gaps are one case for each connector, open while there are any.

use super::{Head, Terms};
use crate::contract::event::{
    BusinessException, ErrorClass, EventMeta, ExceptionStatus, Origin, PositionKind, Severity, Text,
};
use crate::contract::topic;
use crate::domain::{Timestamp, event_id, exception_id};
use crate::pipeline::SourceRecord;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a delivery may take.
const GRACE: Duration = Duration::from_secs(60);
/// Changes that wait for their delivery, at most: the bookmark must fit into one record.
const WAITING_MAX: usize = 500;
const CODE: &str = "WEBHOOK_GAP";

/// What is remembered of deliveries.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Announced {
    /// Where the inbox is read on.
    pub position: i64,
    /// Changes stamped after this are expected to be announced: when the list was first read to its end.
    since: Option<i64>,
    /// Orders whose change no delivery has announced yet, and when it was found.
    waiting: BTreeMap<String, i64>,
    /// Gaps so far, and the last of them.
    gaps: i64,
    last: Option<String>,
    /// When the case was opened first.
    first_at: Option<i64>,
    /// Counts what was said of the case.
    version: i64,
    is_open: bool,
    /// Whether a delivery has come since the last gap.
    heard: bool,
}

impl Announced {
    /// Whether there were no deliveries and nothing waits for one.
    pub fn is_nothing(&self) -> bool {
        *self == Announced::default()
    }

    /// A delivery has named an order.
    pub fn heard(&mut self, order: &str, received_at: Timestamp) {
        self.waiting.remove(order);
        self.since.get_or_insert(received_at.0);
        self.heard = true;
    }

    /// The list has shown news of these orders; `high` is its newest stamp, and `drained` whether it was
    /// read to its end.
    pub fn found(&mut self, news: &[&Head], high: Timestamp, drained: bool) {
        if let Some(since) = self.since {
            for head in news.iter().filter(|h| h.stamp.0 > since) {
                if self.waiting.len() < WAITING_MAX {
                    self.waiting.insert(head.order.clone(), 0);
                }
            }
        } else if drained {
            self.since = Some(high.0);
        }
    }

    /// What is to be said of gaps `now`.
    pub fn judge(&mut self, terms: &Terms, now: Timestamp) -> Option<SourceRecord> {
        let mut overdue = Vec::new();
        for (order, found) in &mut self.waiting {
            match *found {
                0 => *found = now.0,
                at if now.since(Timestamp(at)) >= GRACE => overdue.push(order.clone()),
                _ => {}
            }
        }
        for order in &overdue {
            self.waiting.remove(order);
            tracing::warn!(
                source = terms.instance,
                order,
                "a change was not announced; the list has shown it"
            );
        }
        if let Some(last) = overdue.pop() {
            self.gaps += 1 + overdue.len() as i64;
            self.last = Some(last);
            self.first_at.get_or_insert(now.0);
            (self.is_open, self.heard) = (true, false);
        } else if self.is_open && self.waiting.is_empty() && self.heard {
            self.is_open = false;
        } else {
            return None;
        }
        self.version += 1;
        Some(self.case(terms, now))
    }

    fn case(&self, terms: &Terms, now: Timestamp) -> SourceRecord {
        let id = exception_id(CODE, &terms.instance, "");
        let record_id = format!("{id}#{}", self.version);
        let source = &terms.instance;
        let event = BusinessException {
            meta: EventMeta {
                event_id: event_id(source, 0, &record_id, "", "BusinessException"),
                event_type: "BusinessException".into(),
                source: source.as_str().into(),
                source_position: self.version,
                position_kind: PositionKind::Version,
                occurred_at: now,
                tenant_id: "default".into(),
                correlation_id: id.to_string().into(),
                origin: Origin::Source,
                ..EventMeta::default()
            },
            exception_id: id,
            exception_version: self.version,
            code: CODE.into(),
            error_class: ErrorClass::Contradiction,
            severity: match self.is_open {
                true => Severity::Medium,
                false => Severity::Info,
            },
            status: match self.is_open {
                true => ExceptionStatus::Open,
                false => ExceptionStatus::Resolved,
            },
            processor: source.as_str().into(),
            channel_id: Some(terms.channel.as_str().into()),
            expected: Some("a webhook for every change".into()),
            actual: self
                .last
                .as_ref()
                .map(|order| format!("order {order} changed without one").into()),
            suggested_actions: [
                "look whether the shop sends to the right address and with the right secret",
                "nothing is missing: the list has shown it",
            ]
            .map(Text::from)
            .into(),
            occurrences: self.gaps,
            first_seen_at: Timestamp(self.first_at.unwrap_or(now.0)),
            last_seen_at: now,
            ..BusinessException::default()
        };
        SourceRecord {
            topic: topic::OPS_EXCEPTION,
            key: id.to_string().into(),
            event: event.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connectors::storefront::CatalogueSettings;
    use crate::connectors::storefront::OrderSettings;
    use crate::contract::event::Event;

    const SECOND: i64 = 1_000_000;

    fn terms() -> Terms {
        Terms::new(
            "web",
            "web",
            &OrderSettings::default(),
            &CatalogueSettings::default(),
            false,
        )
        .expect("settings")
    }

    fn head(order: &str, at_s: i64) -> Head {
        Head {
            id: order.into(),
            stamp: Timestamp(at_s * SECOND),
            order: order.into(),
        }
    }

    /// What is said `at_s` seconds after the beginning: status and number of gaps.
    fn judged(announced: &mut Announced, at_s: i64) -> Option<(ExceptionStatus, i64)> {
        let said = announced.judge(&terms(), Timestamp(at_s * SECOND))?;
        match said.event {
            Event::BusinessException(e) => Some((e.status, e.occurrences)),
            other => panic!("{}", other.contract()),
        }
    }

    #[test]
    fn what_the_list_shows_and_nobody_announces_within_a_minute_is_a_gap_until_deliveries_come_again()
     {
        let mut announced = Announced::default();
        // What was there at the beginning was never to be announced.
        announced.found(&[&head("old", 5)], Timestamp(10 * SECOND), true);
        assert_eq!(judged(&mut announced, 100), None);
        announced.found(
            &[&head("late", 110), &head("lost", 111)],
            Timestamp(111 * SECOND),
            true,
        );
        assert_eq!(judged(&mut announced, 111), None);
        announced.heard("late", Timestamp(130 * SECOND));
        assert_eq!(judged(&mut announced, 140), None);
        let gap = Some((ExceptionStatus::Open, 1));
        assert_eq!(judged(&mut announced, 171), gap);
        assert_eq!(judged(&mut announced, 300), None, "told once");
        announced.heard("next", Timestamp(301 * SECOND));
        let healed = Some((ExceptionStatus::Resolved, 1));
        assert_eq!(judged(&mut announced, 302), healed);
        announced.found(&[&head("again", 400)], Timestamp(400 * SECOND), true);
        assert_eq!(judged(&mut announced, 400), None);
        assert_eq!(
            judged(&mut announced, 460),
            Some((ExceptionStatus::Open, 2))
        );
    }
}
