//! Putting records into the lines of their keys, and hearing what becomes of them.

use super::find::{Found, find};
use super::judge::{Judge, Judged};
use super::{Ask, Candidate, Refusal, Target};
use crate::codec;
use crate::contract::event::{Audit, Blob, DeadLetter, ErrorClass, Event, Text};
use crate::contract::{park_key, topic};
use crate::desk;
use crate::dlq::Actor;
use crate::domain::{Timestamp, compound_key};
use crate::log::scan::{Stretch, scan};
use crate::log::{
    Isolation, LogError, Offset, Outgoing, Producer, ProducerSpec, Reader, TopicPartition,
    partition_for,
};
use crate::pipeline::{Fault, HeadersBuilder, REPLAY_HEADER, Record};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

const SOURCE: &str = "crossdock/replay";
/// What the audit says was done.
const ACTION: &str = "replay.send";
/// Code of a record in its line that is given to the sink once more.
const CODE: &str = "REPLAYED";
/// A transaction that is open for longer is aborted by the broker.
const TRANSACTION_TIME_MAX: Duration = Duration::from_secs(30);
/// Records taken from the log at a time.
const POLL_RECORDS: usize = 1_000;
/// Records that wait in lines at a time, at most: the sink has room for others.
pub const WAITING_MAX: usize = 1_000;

/// What became of a record that was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "became", rename_all = "camelCase")]
pub enum Ended {
    /// The sink has done it, or has found that there is nothing to do any more.
    Done {
        /// Its place.
        record: String,
    },
    /// The target does not take it now; it is tried again, further and further apart.
    Waits {
        /// Its place.
        record: String,
        /// Why.
        why: String,
    },
    /// The target has refused it for good.
    Refused {
        /// Its place.
        record: String,
        /// Why.
        why: String,
        /// The dead letter.
        letter: String,
    },
}

/// One replay: what it found, and what it has sent.
pub struct Sender {
    target: Target,
    actor: Actor,
    /// Its name.
    run: String,
    judge: Judge,
    found: Found,
    next: usize,
    producer: Option<Box<dyn Producer>>,
    /// Follows the park topic.
    reader: Option<Box<dyn Reader>>,
    /// Ends of the dead-letter topic when it began.
    letters_from: Vec<(TopicPartition, i64)>,
    /// What was sent and has not ended: by partition and park key.
    waiting: BTreeMap<(i32, Text), String>,
}

impl Sender {
    /// Finds what is asked for. `run` names the replay: one that was interrupted goes on under its name.
    ///
    /// # Errors
    /// When the log or the registry does not answer. Within: why nothing can be replayed.
    pub fn new(
        target: Target,
        ask: &Ask,
        actor: Actor,
        run: &str,
        again: bool,
        now: Timestamp,
    ) -> Result<Result<Sender, Refusal>, Fault> {
        let found = match find(&target, ask, now)? {
            Ok(found) => found,
            Err(refusal) => return Ok(Err(refusal)),
        };
        Ok(Ok(Sender {
            judge: Judge::new(target.clone(), &found.candidates, again, run)?,
            target,
            actor,
            run: run.to_owned(),
            found,
            next: 0,
            producer: None,
            reader: None,
            letters_from: Vec::new(),
            waiting: BTreeMap::new(),
        }))
    }

    /// What was found.
    pub fn found(&self) -> &Found {
        &self.found
    }

    /// Requests that looking at the target has taken.
    pub fn requests(&self) -> u64 {
        self.judge.requests
    }

    /// Records that were sent and have not ended.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Judges the next record, and gives it back where it is to be sent. `None` when there is none left.
    ///
    /// # Errors
    /// When the target refuses the credentials or the like.
    pub async fn next(&mut self) -> Result<Option<(Judged, Candidate)>, Fault> {
        while let Some(candidate) = self.found.candidates.get(self.next) {
            self.next += 1;
            if let Some(judged) = self.judge.judged(candidate).await? {
                return Ok(Some((judged, candidate.clone())));
            }
        }
        Ok(None)
    }

    /// Why the target does not answer now, where nothing so far has asked it.
    ///
    /// # Errors
    /// As [`Sender::next`].
    pub(super) async fn look(&mut self) -> Result<Option<String>, Fault> {
        match self.judge.has_looked {
            true => Ok(None),
            false => self.judge.look(&self.found.candidates).await,
        }
    }

    /// Puts records into the lines of their keys, with who asked for it, in one transaction.
    ///
    /// # Errors
    /// When the log does not answer, or another replay to the same target has begun; what is committed
    /// stays done.
    pub fn send(&mut self, records: &[(Judged, Candidate)], now: Timestamp) -> Result<(), Fault> {
        if records.is_empty() {
            return Ok(());
        }
        self.follow()?;
        self.put(records, None, now)?;
        for (judged, candidate) in records {
            let origin = &candidate.record().origin;
            let name = park_key(&origin.topic, &candidate.key, origin.offset);
            self.waiting
                .insert((origin.partition, name), judged.record.clone());
        }
        Ok(())
    }

    /// As [`Sender::send`], with a word of what came of the whole; nobody follows what becomes of the records.
    ///
    /// # Errors
    /// As [`Sender::send`].
    pub(super) fn put(
        &mut self,
        records: &[(Judged, Candidate)],
        word: Option<(&str, &Event)>,
        now: Timestamp,
    ) -> Result<(), Fault> {
        let mut producer = match self.producer.take() {
            Some(producer) => producer,
            None => producer(&self.target)?,
        };
        in_transaction(producer.as_mut(), |producer| {
            for (judged, candidate) in records {
                self.park(producer, candidate, now)?;
                self.audit(producer, judged, now)?;
            }
            match word {
                Some((key, word)) => audited(&self.target, producer, key, word, now),
                None => Ok(()),
            }
        })?;
        self.producer = Some(producer);
        Ok(())
    }

    fn park(
        &self,
        producer: &mut dyn Producer,
        candidate: &Candidate,
        now: Timestamp,
    ) -> Result<(), Fault> {
        let record = candidate.record();
        let origin = &record.origin;
        let mut letter = codec::letter_of(record);
        let run = Blob::from(self.run.as_bytes());
        letter.headers.insert(REPLAY_HEADER.into(), run);
        let letter = DeadLetter {
            meta: desk::meta(SOURCE, "DeadLetter", &format!("{}#{origin}", self.run), now),
            processor: self.target.name.as_str().into(),
            processor_version: env!("CARGO_PKG_VERSION").into(),
            error_class: ErrorClass::Unknown,
            code: CODE.into(),
            message: format!("replayed by {}, and not tried yet", self.actor.name).into(),
            first_failed_at: now,
            next_retry_at: Some(now),
            key_blocked: true,
            ..letter
        };
        let to = self.target.catalogue.park_topic(&self.target.name);
        let mut value = Vec::new();
        self.target.codec.encode(&to, &letter.into(), &mut value)?;
        let mut headers = HeadersBuilder::default();
        headers.push(REPLAY_HEADER, Some(self.run.as_bytes()));
        let name = park_key(&origin.topic, &candidate.key, origin.offset);
        desk::send(
            producer,
            Outgoing {
                topic: &to,
                partition: Some(origin.partition),
                key: Some(name.as_bytes()),
                value: Some(&value),
                headers: &headers.build(),
                timestamp_ms: now.as_millis(),
            },
        )
    }

    fn audit(
        &self,
        producer: &mut dyn Producer,
        judged: &Judged,
        now: Timestamp,
    ) -> Result<(), Fault> {
        let id = format!("{}#{}", self.run, judged.record);
        let mut meta = desk::meta(SOURCE, "Audit", &id, now);
        meta.correlation_id = self.run.as_str().into();
        let audit = Audit {
            meta,
            actor: self.actor.name.as_str().into(),
            action: ACTION.into(),
            target: judged.record.as_str().into(),
            reason: self.actor.reason.as_deref().map(Text::from),
            before: None,
            after: Some(format!("given to {} once more", self.target.name).into()),
            outcome: "DONE".into(),
        };
        let key = audit_key(&self.target.name);
        audited(&self.target, producer, &key, &audit.into(), now)
    }

    /// Begins to follow what becomes of what will be sent.
    fn follow(&mut self) -> Result<(), Fault> {
        if self.reader.is_some() {
            return Ok(());
        }
        let (log, catalogue) = (self.target.log.as_ref(), self.target.catalogue);
        let ends = |topic: String| -> Result<Vec<(TopicPartition, i64)>, LogError> {
            let unknown = LogError::UnknownTopic {
                topic: topic.clone(),
            };
            let count = log.admin().partitions(&topic)?.ok_or(unknown)?;
            let all = (0..count).map(|number| TopicPartition::new(topic.as_str(), number));
            all.map(|at| Ok((at.clone(), log.admin().watermarks(&at)?.1)))
                .collect()
        };
        let parked = ends(catalogue.park_topic(&self.target.name))?;
        self.letters_from = ends(catalogue.dead_letter_topic(&self.target.name))?;
        let from: Vec<_> = parked
            .into_iter()
            .map(|(at, end)| (at, Offset::At(end)))
            .collect();
        self.reader = Some(log.reader(&from, Isolation::ReadCommitted)?);
        Ok(())
    }

    /// Hears what has become of records that were sent, waiting at most `wait` for news.
    ///
    /// # Errors
    /// When the log does not answer.
    pub fn hear(&mut self, wait: Duration) -> Result<Vec<Ended>, Fault> {
        let Some(reader) = &mut self.reader else {
            return Ok(Vec::new());
        };
        let (mut records, mut news) = (Vec::new(), Vec::new());
        reader.poll(POLL_RECORDS, wait, &mut records)?;
        for record in &records {
            let Some(Ok(name)) = record.key.as_deref().map(std::str::from_utf8) else {
                continue;
            };
            let place = (record.origin.partition, Text::from(name));
            let Some(of) = self.waiting.get(&place) else {
                continue;
            };
            if record.value.is_none() {
                news.push(Ended::Done { record: of.clone() });
                self.waiting.remove(&place);
            } else if !record.is_replayed()
                && let Event::DeadLetter(letter) = self.target.codec.decode(record)?
                && letter.attempts > 0
            {
                news.push(Ended::Waits {
                    record: of.clone(),
                    why: format!("{}: {}", letter.code, letter.message),
                });
            }
        }
        self.refused(&mut news)?;
        Ok(news)
    }

    /// Tells apart what was refused: its letter was written with its end.
    fn refused(&self, news: &mut [Ended]) -> Result<(), Fault> {
        if !news.iter().any(|n| matches!(n, Ended::Done { .. })) {
            return Ok(());
        }
        let mut refused: HashMap<String, Ended> = HashMap::new();
        let stretches: Vec<Stretch> = self
            .letters_from
            .iter()
            .map(|(at, from)| Stretch {
                at: at.clone(),
                from: Offset::At(*from),
                wanted: None,
            })
            .collect();
        scan(self.target.log.as_ref(), &stretches, |record: &Record| {
            let Ok(Event::DeadLetter(letter)) = self.target.codec.decode(record) else {
                return Ok::<(), Fault>(());
            };
            let run = letter.headers.get(REPLAY_HEADER);
            let is_ours = run.is_some_and(|run| *run.0 == *self.run.as_bytes());
            if let Some(original) = codec::original(&letter).filter(|_| is_ours) {
                let of = original.origin.to_string();
                let ended = Ended::Refused {
                    record: of.clone(),
                    why: format!("{}: {}", letter.code, letter.message),
                    letter: record.origin.to_string(),
                };
                refused.insert(of, ended);
            }
            Ok(())
        })?;
        for ended in news {
            if let Ended::Done { record } = ended
                && let Some(refused) = refused.remove(record)
            {
                *ended = refused;
            }
        }
        Ok(())
    }
}

/// What writes into the lines of a target.
fn producer(target: &Target) -> Result<Box<dyn Producer>, Fault> {
    let (application, name, writer) = (&target.application, &target.name, &target.writer);
    Ok(target.log.producer(&ProducerSpec {
        transactional_id: Some(format!("{application}-{name}-{writer}")),
        transaction_timeout: TRANSACTION_TIME_MAX,
        linger: Duration::from_millis(5),
    })?)
}

fn in_transaction(
    producer: &mut dyn Producer,
    work: impl FnOnce(&mut dyn Producer) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let done = match producer.begin() {
        Ok(()) => work(producer).and_then(|()| Ok(producer.commit()?)),
        Err(error) => Err(error.into()),
    };
    done.map_err(|fault: Fault| {
        // Where that fails too, readers wait until the broker ends the transaction.
        let _ = producer.abort();
        desk::told_apart(fault, "another replay to this target")
    })
}

fn audited(
    target: &Target,
    producer: &mut dyn Producer,
    key: &str,
    audit: &Event,
    now: Timestamp,
) -> Result<(), Fault> {
    let to = (topic::OPS_AUDIT, None);
    desk::send_event(&target.codec, producer, to, key, audit, now)
}

/// Writes down what came of a replay that has sent nothing.
///
/// # Errors
/// As [`Sender::send`].
pub(super) fn tell(
    target: &Target,
    (key, word): (&str, &Event),
    now: Timestamp,
) -> Result<(), Fault> {
    let mut producer = producer(target)?;
    in_transaction(producer.as_mut(), |producer| {
        audited(target, producer, key, word, now)
    })
}

/// The key under which the replays to a target are audited.
fn audit_key(target: &str) -> Text {
    compound_key(&["replay", target])
}

/// The records that a replay of this name has sent.
pub(super) fn sent_by(target: &Target, run: &str) -> Result<HashSet<String>, Fault> {
    let key = audit_key(&target.name);
    let unknown = || LogError::UnknownTopic {
        topic: topic::OPS_AUDIT.to_owned(),
    };
    let partitions = target.log.admin().partitions(topic::OPS_AUDIT)?;
    let number = partition_for(key.as_bytes(), partitions.ok_or_else(unknown)?);
    let stretch = Stretch::of_keys(
        TopicPartition::new(topic::OPS_AUDIT, number),
        Offset::Beginning,
        HashSet::from([key.as_bytes().to_vec()]),
    );
    let mut sent = HashSet::new();
    scan(target.log.as_ref(), &[stretch], |record| {
        if let Event::Audit(audit) = target.codec.decode(record)?
            && audit.action == ACTION
            && audit.meta.correlation_id == run
        {
            sent.insert(audit.target.to_string());
        }
        Ok::<(), Fault>(())
    })?;
    Ok(sent)
}
