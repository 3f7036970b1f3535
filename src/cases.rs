//! The cases that operations work: read from the log, and acted on through it.
//!
//! exception-enricher writes them; an act is a [`Note`] to it, which it carries out or refuses and
//! audits. Nothing else changes a case, so whoever acts is known.

use crate::codec::{self, Codec};
use crate::contract::event::{
    Audit, BusinessException, Event, EventMeta, ExceptionStatus, Note, NoteAction, Origin,
    PositionKind, Text,
};
use crate::contract::topic;
use crate::domain::exceptions::urgency;
use crate::domain::{Timestamp, event_id};
use crate::log::scan::{self, Stretch};
use crate::log::{Log, Offset, Outgoing, ProducerSpec, TopicPartition, partition_for};
use crate::pipeline::{Code, Fault, Origin as Place, Record, Stage};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

const SOURCE: &str = "crossdock/exceptions";
/// How often it is looked for.
const POLL_WAIT: Duration = Duration::from_millis(100);
/// How long the answer to an act is waited for.
const ANSWER_MAX: Duration = Duration::from_secs(15);

/// A case, and where its newest version stands in the log.
#[derive(Clone, Debug)]
pub struct Case {
    /// The case.
    pub exception: BusinessException,
    /// Topic, partition and offset of its newest version.
    pub place: Place,
}

impl Case {
    /// Whether somebody has to do something.
    pub fn is_live(&self) -> bool {
        !matches!(
            self.exception.status,
            ExceptionStatus::Resolved | ExceptionStatus::Accepted | ExceptionStatus::Compensated
        )
    }

    /// One of the factors of its rank; 0 where it has none.
    fn factor(&self, name: &str) -> f64 {
        let factors = &self.exception.rank_factors;
        factors
            .iter()
            .find(|f| f.name == name)
            .map_or(0.0, |f| f.value)
    }

    /// Its rank at this time: revenue at risk × urgency of the promise × severity.
    pub fn rank(&self, now: Timestamp) -> f64 {
        let urgency = urgency(self.exception.customer_promise_at, now);
        self.factor("revenueAtRisk") * urgency * self.factor("severity")
    }
}

/// Every case, the highest rank first.
///
/// # Errors
/// When the log or the registry does not answer, or there is no topic of cases.
pub fn all(log: &Arc<dyn Log>, codec: &Codec, now: Timestamp) -> Result<Vec<Case>, Fault> {
    let mut newest: HashMap<Uuid, Case> = HashMap::new();
    read(log, topic::OPS_CASE, None, |record| {
        if let Event::BusinessException(exception) = codec.decode(record)? {
            let place = record.origin.clone();
            newest.insert(exception.exception_id, Case { exception, place });
        }
        Ok(())
    })?;
    let mut cases: Vec<Case> = newest.into_values().collect();
    cases.sort_by(|a, b| {
        let by_rank = b.rank(now).total_cmp(&a.rank(now));
        by_rank.then(a.exception.exception_id.cmp(&b.exception.exception_id))
    });
    Ok(cases)
}

/// What became of a case, in order: its versions, and what operators did.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Every version that the log still has.
    pub versions: Vec<BusinessException>,
    /// Acts, the refused ones too.
    pub acts: Vec<Audit>,
}

/// The history of one case.
///
/// # Errors
/// As [`all`].
pub fn history(log: &Arc<dyn Log>, codec: &Codec, id: Uuid) -> Result<History, Fault> {
    let (key, mut history) = (id.to_string(), History::default());
    read(log, topic::OPS_CASE, Some(&key), |record| {
        if let Event::BusinessException(version) = codec.decode(record)? {
            history.versions.push(version);
        }
        Ok(())
    })?;
    read(log, topic::OPS_AUDIT, Some(&key), |record| {
        if let Event::Audit(act) = codec.decode(record)? {
            history.acts.push(act);
        }
        Ok(())
    })?;
    Ok(history)
}

/// What an operator does to a case.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Act {
    /// What.
    pub action: NoteAction,
    /// Who does it.
    pub actor: String,
    /// Why; of an action that was taken, which one.
    pub text: Option<String>,
    /// To whom the case goes.
    pub assignee: Option<String>,
    /// Until when nobody has to look at it.
    pub snoozed_until: Option<Timestamp>,
}

/// Asks for an act on `case`, as it was looked at, and waits for the answer. The same act on the same
/// version is one, however often it is asked for. `None` when nobody has answered in time: the act stands
/// in the log and is carried out once exception-enricher runs.
///
/// # Errors
/// When the log or the registry does not answer.
pub fn act(
    log: &Arc<dyn Log>,
    codec: &Codec,
    case: &BusinessException,
    act: &Act,
    now: Timestamp,
) -> Result<Option<Audit>, Fault> {
    codec.prepare(&[topic::OPS_NOTE])?;
    let note = note(case, act, now);
    let (id, key) = (note.meta.event_id, case.exception_id.to_string());
    let event = Event::from(note);
    let mut value = Vec::new();
    codec.encode(topic::OPS_NOTE, &event, &mut value)?;
    let mut producer = log.producer(&ProducerSpec::default())?;
    producer.send(Outgoing {
        topic: topic::OPS_NOTE,
        partition: None,
        key: Some(key.as_bytes()),
        value: Some(&value),
        headers: &codec::headers(topic::OPS_NOTE, &event, &key, None),
        timestamp_ms: now.as_millis(),
    })?;
    producer.flush()?;
    let since = Instant::now();
    loop {
        let mut answer = None;
        read(log, topic::OPS_AUDIT, Some(&key), |record| {
            match codec.decode(record)? {
                Event::Audit(audit) if audit.meta.causation_id == Some(id) => answer = Some(audit),
                _ => {}
            }
            Ok(())
        })?;
        if answer.is_some() || since.elapsed() > ANSWER_MAX {
            return Ok(answer);
        }
        std::thread::sleep(POLL_WAIT);
    }
}

fn note(case: &BusinessException, act: &Act, now: Timestamp) -> Note {
    let text = |t: &Option<String>| t.as_deref().map(Text::from);
    let record_id = format!(
        "{}#{}|{}|{}|{}|{}|{:?}",
        case.exception_id,
        case.exception_version,
        act.action,
        act.actor,
        act.text.as_deref().unwrap_or_default(),
        act.assignee.as_deref().unwrap_or_default(),
        act.snoozed_until,
    );
    Note {
        meta: EventMeta {
            event_id: event_id(SOURCE, 0, &record_id, "", "Note"),
            event_type: "Note".into(),
            source: SOURCE.into(),
            source_position: case.exception_version,
            position_kind: PositionKind::Version,
            occurred_at: now,
            recorded_at: now,
            tenant_id: "default".into(),
            correlation_id: case.meta.correlation_id.clone(),
            causation_id: Some(case.meta.event_id),
            origin: Origin::Manual,
            ..EventMeta::default()
        },
        exception_id: case.exception_id,
        action: act.action,
        case_version: case.exception_version,
        author: act.actor.as_str().into(),
        text: text(&act.text),
        assignee: text(&act.assignee),
        snoozed_until: act.snoozed_until,
    }
}

/// Hands the committed records of a topic to `visit`, or those of one key.
fn read(
    log: &Arc<dyn Log>,
    topic: &str,
    key: Option<&str>,
    mut visit: impl FnMut(&Record) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let topics = log.admin().topics()?;
    let Some(found) = topics.iter().find(|t| t.name == topic) else {
        let message = format!(
            "there is no topic {topic}; create it with `crossdock topics apply`, and run exception-enricher"
        );
        return Err(Fault::halt(Stage::Read, Code::Configuration, message));
    };
    let stretches = match key {
        Some(key) => {
            let number = partition_for(key.as_bytes(), found.partitions);
            let at = TopicPartition::new(topic, number);
            let keys = [key.as_bytes().to_vec()].into();
            vec![Stretch::of_keys(at, Offset::Beginning, keys)]
        }
        None => Stretch::whole(topic, found.partitions),
    };
    scan::scan(log.as_ref(), &stretches, |record| match record.value {
        Some(_) => visit(record),
        None => Ok(()),
    })?;
    Ok(())
}
