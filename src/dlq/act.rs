//! Doing something about dead letters, each in one transaction with its audit record.

use super::history::{self, Deed, Done, History};
use super::judge::{Judge, Refusal, SUPERSEDED, digest};
use super::mend::Mended;
use super::{Filter, Letter, Letters, Part};
use crate::contract::event::{
    Audit, Blob, DeadLetter, DispositionRecord, EventMeta, Outcome, Settled, Text,
};
use crate::contract::{SINKS, park_key, topic};
use crate::desk;
use crate::domain::{Timestamp, compound_key};
use crate::log::{LogError, Outgoing, Producer, ProducerSpec};
use crate::pipeline::{
    Clock, Fault, Headers, HeadersBuilder, Origin, REDRIVEN_FROM_HEADER, REDRIVES_HEADER,
    REPLAY_HEADER, Record, SystemClock,
};
use crate::processors;
use serde::Serialize;
use std::collections::HashSet;
use std::time::{Duration, Instant};

/// Letters in one transaction.
const BATCH_LETTERS_MAX: usize = 200;
/// A transaction that is open for longer is aborted by the broker.
const TRANSACTION_TIME_MAX: Duration = Duration::from_secs(30);
/// How soon a wait ends when the end is asked for.
const PAUSE: Duration = Duration::from_millis(20);
const SOURCE: &str = "crossdock/dlq";

/// Who acts, and why.
#[derive(Clone, Debug)]
pub struct Actor {
    /// A person or a machine.
    pub name: String,
    /// Why; for the audit.
    pub reason: Option<String>,
}

/// How far a run may go.
#[derive(Clone, Copy)]
pub struct Limits<'a> {
    /// Records a second, at most; `None` for as many as there are.
    pub records_per_second: Option<u32>,
    /// Redrives of one record, at most.
    pub redrives_max: i32,
    /// Whether to say only what would be done.
    pub dry_run: bool,
    /// Whether the end is asked for. What is in hand is finished or taken back.
    pub stop: &'a dyn Fn() -> bool,
}

/// What was done, or would be, about a letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Act {
    /// Its place.
    pub letter: String,
    /// Its key.
    pub key: String,
    /// Its code.
    pub code: String,
    /// Where the record goes; absent when it goes nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Why nothing is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refusal>,
}

/// What a run came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Letters that were done, or would be.
    pub done: u64,
    /// Letters that were left as they are.
    pub refused: u64,
    /// Whether it ended before its end.
    pub stopped: bool,
}

/// Why a run ended early.
enum End {
    Stopped,
    Failed(Fault),
}

impl From<Fault> for End {
    fn from(fault: Fault) -> End {
        End::Failed(fault)
    }
}

impl From<LogError> for End {
    fn from(error: LogError) -> End {
        End::Failed(error.into())
    }
}

/// Sends the records of the letters that `filter` wants once more, in order, and tells `told` of each
/// once it is committed.
///
/// # Errors
/// When the log or the registry does not answer, or another run on the same topic has begun; what is
/// committed stays done, and running again goes on behind it.
pub fn redrive(
    letters: &Letters<'_>,
    filter: &Filter,
    actor: &Actor,
    limits: Limits<'_>,
    told: &mut dyn FnMut(&Act) -> Result<(), Fault>,
) -> Result<Report, Fault> {
    Run::new(letters, actor, limits, Deed::Redriven, told).over(filter)
}

/// Puts the letters that `filter` wants aside: nothing will come of them.
///
/// # Errors
/// As [`redrive`].
pub fn discard(
    letters: &Letters<'_>,
    filter: &Filter,
    actor: &Actor,
    limits: Limits<'_>,
    told: &mut dyn FnMut(&Act) -> Result<(), Fault>,
) -> Result<Report, Fault> {
    Run::new(letters, actor, limits, Deed::Discarded, told).over(filter)
}

/// Puts a letter with a changed record in the place of this one. Whoever calls has judged the record.
///
/// # Errors
/// As [`redrive`].
pub fn edit(
    letters: &Letters<'_>,
    letter: &Letter,
    mended: &Mended,
    actor: &Actor,
) -> Result<(), Fault> {
    let reader = letters
        .catalogue
        .reader_of_dead_letter_topic(&letter.at.topic);
    let now = SystemClock.now();
    let mut producer = producer(letters, reader.unwrap_or_default())?;
    producer.begin()?;
    let value = mended.record.value.as_ref();
    let successor = DeadLetter {
        meta: EventMeta {
            corrects_event_id: Some(letter.dead.meta.event_id),
            ..desk::meta(SOURCE, "DeadLetter", &format!("{}#edit", letter.at), now)
        },
        key: mended.record.key.as_deref().map(Blob::from),
        value: value.map(|v| Blob::from(&v[..])),
        schema_id: value
            .and_then(|v| v.get(1..5)?.try_into().ok())
            .map(i32::from_be_bytes),
        ..letter.dead.clone()
    };
    let key = mended.record.key.as_deref().map(String::from_utf8_lossy);
    let key = key.unwrap_or_default().into_owned();
    let to = (&*letter.at.topic, Some(letter.at.partition));
    desk::send_event(
        letters.codec,
        producer.as_mut(),
        to,
        &key,
        &successor.into(),
        now,
    )?;
    // What waits under the old key waits for nothing any more.
    if key != letter.key() {
        release(letters, producer.as_mut(), letter, &letter.key(), now)?;
    }
    let change = (Some(mended.before.clone()), Some(mended.after.clone()));
    audit(
        letters,
        producer.as_mut(),
        letter,
        Deed::Edited,
        actor,
        change,
        now,
    )?;
    producer.commit()?;
    Ok(())
}

/// One run over dead letters.
struct Run<'a> {
    letters: &'a Letters<'a>,
    actor: &'a Actor,
    limits: Limits<'a>,
    deed: Deed,
    told: &'a mut dyn FnMut(&Act) -> Result<(), Fault>,
    judge: Judge<'a>,
    report: Report,
    started: Instant,
    sent: u64,
}

/// A letter that is to be done in the next transaction.
struct Staged {
    letter: Letter,
    /// What is sent; `None` when it is only put aside.
    record: Option<Record>,
    act: Act,
}

impl<'a> Run<'a> {
    fn new(
        letters: &'a Letters<'a>,
        actor: &'a Actor,
        limits: Limits<'a>,
        deed: Deed,
        told: &'a mut dyn FnMut(&Act) -> Result<(), Fault>,
    ) -> Run<'a> {
        Run {
            judge: Judge::new(letters, limits.redrives_max),
            letters,
            actor,
            limits,
            deed,
            told,
            report: Report::default(),
            started: Instant::now(),
            sent: 0,
        }
    }

    fn over(mut self, filter: &Filter) -> Result<Report, Fault> {
        let parts = self.letters.parts(filter)?;
        let mut at = 0;
        while at < parts.len() {
            let topic = parts[at].at.topic.clone();
            let of_topic = parts[at..].iter().take_while(|p| p.at.topic == topic);
            let count = of_topic.count();
            match self.topic(&parts[at..at + count], filter) {
                Ok(()) => at += count,
                Err(End::Stopped) => {
                    self.report.stopped = true;
                    break;
                }
                Err(End::Failed(fault)) => return Err(fault),
            }
        }
        Ok(self.report)
    }

    /// All partitions of one dead-letter topic.
    fn topic(&mut self, parts: &[Part], filter: &Filter) -> Result<(), End> {
        // From here on whoever began before cannot commit any more: what the audit says then is final.
        let mut producer = match self.limits.dry_run {
            true => None,
            false => Some(producer(self.letters, &parts[0].reader)?),
        };
        for part in parts {
            let history = History::read(self.letters, &part.at)?;
            let letters = self.letters;
            let mut batch: Vec<Staged> = Vec::new();
            // Keys of which a letter was left as it is, where that holds up the key.
            let mut held: HashSet<u64> = HashSet::new();
            letters
                .visit(part, &history, filter, |letter, already| {
                    if (self.limits.stop)() {
                        return Err(End::Stopped);
                    }
                    let staged = self.judged(letter, already, &mut held)?;
                    let Some(staged) = staged else { return Ok(()) };
                    batch.push(staged);
                    if batch.len() >= self.batch_max() {
                        self.finish(&mut batch, producer.as_deref_mut())?;
                    }
                    Ok::<(), End>(())
                })
                .or_else(|end| match end {
                    // What is in hand is finished first.
                    End::Stopped => self
                        .finish(&mut batch, producer.as_deref_mut())
                        .and(Err(End::Stopped)),
                    failed => Err(failed),
                })?;
            self.finish(&mut batch, producer.as_deref_mut())?;
        }
        Ok(())
    }

    /// About five transactions a second, so that a budget is kept without bursts.
    fn batch_max(&self) -> usize {
        let budget = self.limits.records_per_second.map(|r| r as usize / 5);
        budget.map_or(BATCH_LETTERS_MAX, |b| b.clamp(1, BATCH_LETTERS_MAX))
    }

    /// What is to be done about a letter; nothing when it is refused, which is told.
    fn judged(
        &mut self,
        letter: Letter,
        already: Option<&Done>,
        held: &mut HashSet<u64>,
    ) -> Result<Option<Staged>, End> {
        let mut act = Act {
            letter: letter.at.to_string(),
            key: letter.key(),
            code: letter.dead.code.to_string(),
            to: None,
            refused: None,
        };
        let key = digest(letter.dead.key.as_ref().map(|k| &*k.0));
        let refused = match already {
            Some(done) => Some(Refusal {
                code: "DONE",
                why: format!("{} has {} it at {}", done.by, done.deed.as_str(), done.at),
            }),
            None if self.deed == Deed::Discarded => None,
            None if held.contains(&key) => Some(Refusal {
                code: "BEHIND",
                why: "an earlier letter of its key is left as it is, and the order of the key would be lost; redrive, edit or discard that one first".to_owned(),
            }),
            None => match self.judge.redriven(&letter, SystemClock.now())? {
                Ok(record) => {
                    act.to = Some(record.origin.topic.to_string());
                    return Ok(Some(Staged {
                        letter,
                        record: Some(record),
                        act,
                    }));
                }
                Err(refusal) => Some(refusal),
            },
        };
        let Some(refusal) = refused else {
            return Ok(Some(Staged {
                letter,
                record: None,
                act,
            }));
        };
        // What a newer state has replaced holds nothing up.
        let holds_up = already.is_none() && refusal.code != SUPERSEDED;
        if holds_up && self.judge.blocks_key(&letter) {
            held.insert(key);
        }
        self.report.refused += 1;
        act.refused = Some(refusal);
        (self.told)(&act)?;
        Ok(None)
    }

    /// Commits what is staged, and tells of it.
    fn finish(
        &mut self,
        batch: &mut Vec<Staged>,
        producer: Option<&mut (dyn Producer + 'static)>,
    ) -> Result<(), End> {
        if batch.is_empty() {
            return Ok(());
        }
        if let Some(producer) = producer {
            let now = SystemClock.now();
            self.commit(batch, producer, now)
                .map_err(|fault| desk::told_apart(fault, "another run on these dead letters"))?;
        }
        for staged in batch.drain(..) {
            self.report.done += 1;
            self.sent += 1;
            (self.told)(&staged.act)?;
        }
        if !self.limits.dry_run {
            self.keep_pace();
        }
        Ok(())
    }

    /// Waits as long as what was sent so far should have taken.
    fn keep_pace(&self) {
        let Some(rate) = self.limits.records_per_second.filter(|r| *r > 0) else {
            return;
        };
        let due = self.started + Duration::from_secs_f64(self.sent as f64 / f64::from(rate));
        while Instant::now() < due && !(self.limits.stop)() {
            std::thread::sleep(PAUSE.min(due.saturating_duration_since(Instant::now())));
        }
    }

    fn commit(
        &self,
        batch: &[Staged],
        producer: &mut (dyn Producer + 'static),
        now: Timestamp,
    ) -> Result<(), Fault> {
        producer.begin()?;
        for staged in batch {
            let letter = &staged.letter;
            if let Some(record) = &staged.record {
                send_again(producer, letter, record, now)?;
                compensate(self.letters, producer, letter, now)?;
            }
            if self.deed == Deed::Discarded {
                release(self.letters, producer, letter, &letter.key(), now)?;
            }
            audit(
                self.letters,
                producer,
                letter,
                self.deed,
                self.actor,
                (None, None),
                now,
            )?;
        }
        producer.commit()?;
        Ok(())
    }
}

/// One run at a time on a dead-letter topic: the transactional id is the topic's.
pub(super) fn producer(letters: &Letters<'_>, reader: &str) -> Result<Box<dyn Producer>, Fault> {
    let made = letters.log.producer(&ProducerSpec {
        transactional_id: Some(format!("{}-{reader}-dlq", letters.application)),
        transaction_timeout: TRANSACTION_TIME_MAX,
        linger: Duration::from_millis(5),
    });
    Ok(made?)
}

/// The record as it was, with the number of its redrives and the letter it comes from.
fn send_again(
    producer: &mut (dyn Producer + 'static),
    letter: &Letter,
    record: &Record,
    now: Timestamp,
) -> Result<(), Fault> {
    let mut headers = HeadersBuilder::default();
    let ours = [REDRIVES_HEADER, REDRIVEN_FROM_HEADER, REPLAY_HEADER];
    for (name, value) in record
        .headers
        .iter()
        .filter(|(name, _)| !ours.contains(name))
    {
        headers.push(name, value);
    }
    headers.push_text(REDRIVES_HEADER, letter.dead.redrive_count + 1);
    headers.push_text(REDRIVEN_FROM_HEADER, &letter.at);
    let headers = headers.build();
    desk::send(
        producer,
        Outgoing {
            topic: &record.origin.topic,
            partition: None,
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: &headers,
            timestamp_ms: now.as_millis(),
        },
    )
}

/// Tells a sink that keeps `key` waiting for the letter that nothing comes of it.
fn release(
    letters: &Letters<'_>,
    producer: &mut (dyn Producer + 'static),
    letter: &Letter,
    key: &str,
    now: Timestamp,
) -> Result<(), Fault> {
    let reader = &letter.dead.processor;
    let (Some(original), None) = (&letter.dead.original, processors::find(reader)) else {
        return Ok(());
    };
    if !letters.catalogue.blocks_key(&original.topic, SINKS) {
        return Ok(());
    }
    let topic = letters.catalogue.park_topic(reader);
    let park_key = park_key(&original.topic, key, original.offset);
    desk::send(
        producer,
        Outgoing {
            topic: &topic,
            partition: Some(original.partition),
            key: Some(park_key.as_bytes()),
            value: None,
            headers: &Headers::default(),
            timestamp_ms: now.as_millis(),
        },
    )
}

/// Books that the original was undone by a later record.
fn compensate(
    letters: &Letters<'_>,
    producer: &mut (dyn Producer + 'static),
    letter: &Letter,
    now: Timestamp,
) -> Result<(), Fault> {
    let dead = &letter.dead;
    let Some(original) = &dead.original else {
        return Ok(());
    };
    let record = DispositionRecord {
        meta: desk::meta(
            SOURCE,
            "DispositionRecord",
            &format!("{}#redrive", letter.at),
            now,
        ),
        reader: dead.processor.clone(),
        topic: original.topic.clone(),
        partition: original.partition,
        first_offset: original.offset,
        last_offset: original.offset,
        others: vec![Settled {
            offset: original.offset,
            outcome: Outcome::Compensated,
            reason: Some(compact_str::format_compact!("redriven from {}", letter.at)),
            ..Settled::default()
        }],
        ..DispositionRecord::default()
    };
    let number = original.partition.to_string();
    let key = compound_key(&[&dead.processor, &original.topic, &number]);
    let to = (topic::OPS_DISPOSITION, None);
    desk::send_event(letters.codec, producer, to, &key, &record.into(), now)
}

fn audit(
    letters: &Letters<'_>,
    producer: &mut (dyn Producer + 'static),
    letter: &Letter,
    deed: Deed,
    actor: &Actor,
    change: (Option<String>, Option<String>),
    now: Timestamp,
) -> Result<(), Fault> {
    audit_of(
        letters,
        producer,
        &letter.at,
        deed.action(),
        actor,
        change,
        now,
    )
}

/// Says who did what to what stands at `at`, and why.
pub(super) fn audit_of(
    letters: &Letters<'_>,
    producer: &mut (dyn Producer + 'static),
    at: &Origin,
    action: &str,
    actor: &Actor,
    (before, after): (Option<String>, Option<String>),
    now: Timestamp,
) -> Result<(), Fault> {
    let record = Audit {
        meta: desk::meta(SOURCE, "Audit", &format!("{at}#{action}"), now),
        actor: actor.name.as_str().into(),
        action: action.into(),
        target: compact_str::format_compact!("{at}"),
        reason: actor.reason.as_deref().map(Text::from),
        before: before.map(Text::from),
        after: after.map(Text::from),
        outcome: "DONE".into(),
    };
    let partition = crate::log::TopicPartition {
        topic: at.topic.clone(),
        partition: at.partition,
    };
    let key = history::key(&partition);
    let to = (topic::OPS_AUDIT, None);
    desk::send_event(letters.codec, producer, to, &key, &record.into(), now)
}
