//! What a record would change at the target, and whether it is sent.

use super::send::sent_by;
use super::{Candidate, Target};
use crate::contract::event::{Event, SinkOutcome, SinkReceipt, Text};
use crate::contract::{receipt_key, topic};
use crate::dlq::{self, Letters};
use crate::log::scan::{Stretch, scan};
use crate::log::{Offset, Offsets, TopicPartition};
use crate::parked::{self, ParkedKeys};
use crate::pipeline::{
    self, Code, Delivery, Fault, Inbound, Origin, Verdict as FaultVerdict, rehearsal, requests,
};
use crate::runtime::group_id;
use serde::Serialize;
use std::collections::{BTreeSet, HashMap, HashSet};
use uuid::Uuid;

/// The target does not answer now.
pub(super) const CANNOT_TELL: &str = "CANNOT_TELL";

/// What becomes of a record that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "camelCase")]
pub enum Verdict {
    /// It would change something at the target, and is sent.
    Changes {
        /// What, in words.
        what: String,
    },
    /// The target has what it says.
    Unchanged {
        /// How that is known.
        why: String,
    },
    /// Nobody can tell before it is sent; it is sent.
    Unknown {
        /// Why.
        why: String,
    },
    /// It is not sent.
    Left {
        /// A code.
        code: &'static str,
        /// Cause and remedy.
        why: String,
    },
}

impl Verdict {
    /// Whether the record is sent.
    pub fn is_sent(&self) -> bool {
        matches!(self, Verdict::Changes { .. } | Verdict::Unknown { .. })
    }

    fn left(code: &'static str, why: impl Into<String>) -> Verdict {
        Verdict::Left {
            code,
            why: why.into(),
        }
    }
}

/// A record, and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Judged {
    /// Its place.
    pub record: String,
    /// Its key.
    pub key: String,
    /// What it is.
    pub event: String,
    /// What becomes of it.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// Judges the records of one replay, in order.
pub(super) struct Judge {
    target: Target,
    /// Send also what receipts say the target has taken.
    again: bool,
    passed: Offsets,
    parked: HashSet<(String, String)>,
    letters: HashMap<String, String>,
    receipts: HashMap<Text, SinkReceipt>,
    /// Records that this very replay has sent before.
    done: HashSet<String>,
    /// Newest version of each refund that was seen.
    refunds: HashMap<Uuid, i64>,
    /// Keys of topics of which a record is sent; and keys, whatever the topic.
    sent: HashSet<(String, Text)>,
    sent_keys: HashSet<Text>,
    /// Requests that looking has taken.
    pub requests: u64,
    /// Whether the target was looked at.
    pub has_looked: bool,
}

impl Judge {
    /// Reads what is known of the target from the log.
    pub fn new(
        target: Target,
        candidates: &[Candidate],
        again: bool,
        run: &str,
    ) -> Result<Judge, Fault> {
        let of = |c: &Candidate| {
            let origin = &c.record().origin;
            TopicPartition::new(origin.topic.clone(), origin.partition)
        };
        let partitions: BTreeSet<TopicPartition> = candidates.iter().map(of).collect();
        let partitions: Vec<TopicPartition> = partitions.into_iter().collect();
        let group = group_id(&target.application, &target.name);
        let passed = target.log.admin().group_offsets(&group, &partitions)?;
        let mut judge = Judge {
            again,
            passed,
            parked: HashSet::new(),
            letters: HashMap::new(),
            receipts: HashMap::new(),
            done: sent_by(&target, run)?,
            refunds: HashMap::new(),
            sent: HashSet::new(),
            sent_keys: HashSet::new(),
            requests: 0,
            has_looked: false,
            target,
        };
        judge.hear_parked()?;
        judge.hear_letters()?;
        judge.hear_refunds(candidates)?;
        judge.hear_receipts(candidates)?;
        Ok(judge)
    }

    fn hear_parked(&mut self) -> Result<(), Fault> {
        let parked = ParkedKeys {
            log: self.target.log.as_ref(),
            codec: &self.target.codec,
            catalogue: self.target.catalogue,
        };
        let filter = parked::Filter {
            sink: Some(self.target.name.clone()),
            ..parked::Filter::default()
        };
        let keys = parked.list(&filter)?.into_iter();
        self.parked = keys.map(|k| (k.topic, k.key)).collect();
        Ok(())
    }

    fn hear_letters(&mut self) -> Result<(), Fault> {
        let letters = Letters {
            log: self.target.log.as_ref(),
            codec: &self.target.codec,
            catalogue: self.target.catalogue,
            application: &self.target.application,
        };
        let filter = dlq::Filter {
            topic: Some(self.target.catalogue.dead_letter_topic(&self.target.name)),
            ..dlq::Filter::default()
        };
        let open = &mut self.letters;
        letters.list(&filter, |listed| {
            if let Some(record) = listed.letter.record() {
                open.insert(record.origin.to_string(), listed.letter.at.to_string());
            }
            Ok::<(), Fault>(())
        })
    }

    /// A refund's older versions must not be paid again: what stands in the log behind them counts,
    /// whether this sink wants it or not.
    fn hear_refunds(&mut self, candidates: &[Candidate]) -> Result<(), Fault> {
        let refunds = candidates
            .iter()
            .filter(|c| *c.record().origin.topic == *topic::REFUND_EVENT);
        let mut keys: HashMap<TopicPartition, HashSet<Vec<u8>>> = HashMap::new();
        for c in refunds {
            let origin = &c.record().origin;
            let at = TopicPartition::new(origin.topic.clone(), origin.partition);
            keys.entry(at)
                .or_default()
                .insert(c.key.as_bytes().to_vec());
        }
        let stretches: Vec<Stretch> = keys
            .into_iter()
            .map(|(at, keys)| Stretch::of_keys(at, Offset::Beginning, keys))
            .collect();
        let (codec, newest) = (&self.target.codec, &mut self.refunds);
        scan(self.target.log.as_ref(), &stretches, |record| {
            match codec.decode(record) {
                Ok(Event::RefundEvent(e)) => {
                    let version = newest.entry(e.refund_id).or_insert(e.refund_version);
                    *version = (*version).max(e.refund_version);
                }
                Err(fault) if fault.verdict != FaultVerdict::Reject => return Err(fault),
                _ => {}
            }
            Ok(())
        })?;
        Ok(())
    }

    /// The receipts of the keys of which the sink cannot look at the target.
    fn hear_receipts(&mut self, candidates: &[Candidate]) -> Result<(), Fault> {
        let receipts = self.target.catalogue.receipt_topic(&self.target.name);
        let mut keys: HashMap<i32, HashSet<Vec<u8>>> = HashMap::new();
        for c in candidates {
            let looks = |i: &Inbound| self.target.sink.looks_first(i);
            if c.inbound.as_ref().is_ok_and(|i| !looks(i)) {
                let origin = &c.record().origin;
                let key = receipt_key(&origin.topic, &c.key);
                let keys = keys.entry(origin.partition).or_default();
                keys.insert(key.as_bytes().to_vec());
            }
        }
        let stretches: Vec<Stretch> = keys
            .into_iter()
            .map(|(number, keys)| {
                let at = TopicPartition::new(receipts.as_str(), number);
                Stretch::of_keys(at, Offset::Beginning, keys)
            })
            .collect();
        let (codec, known) = (&self.target.codec, &mut self.receipts);
        scan(self.target.log.as_ref(), &stretches, |record| {
            if let Event::SinkReceipt(receipt) = codec.decode(record)? {
                let key = receipt_key(&receipt.operation, &receipt.entity_key);
                known.insert(key, receipt);
            }
            Ok::<(), Fault>(())
        })?;
        Ok(())
    }

    /// Judges the next record. Nothing of one that was written after what was asked for and is not sent.
    ///
    /// # Errors
    /// When the target refuses the credentials or the like: nothing can be told then.
    pub async fn judged(&mut self, candidate: &Candidate) -> Result<Option<Judged>, Fault> {
        let verdict = self.verdict(candidate).await?;
        if candidate.is_later && !verdict.is_sent() {
            return Ok(None);
        }
        let origin = &candidate.record().origin;
        if verdict.is_sent() {
            let place = (origin.topic.to_string(), candidate.key.clone());
            self.sent.insert(place);
            self.sent_keys.insert(candidate.key.clone());
        }
        let event = candidate.inbound.as_ref();
        Ok(Some(Judged {
            record: origin.to_string(),
            key: candidate.key.to_string(),
            event: event.map_or_else(|_| String::new(), |i| i.event.contract().to_owned()),
            verdict,
        }))
    }

    async fn verdict(&mut self, candidate: &Candidate) -> Result<Verdict, Fault> {
        let origin = &candidate.record().origin;
        let inbound = match &candidate.inbound {
            Ok(inbound) => inbound,
            Err((_, why)) => return Ok(Verdict::left("UNREADABLE", why)),
        };
        if let Some(verdict) = self.left(origin, &candidate.key, inbound) {
            return Ok(verdict);
        }
        let is_state = self.target.catalogue.is_compacted(&origin.topic);
        let place = (origin.topic.to_string(), candidate.key.clone());
        if !is_state && self.sent.contains(&place) {
            return Ok(Verdict::Unknown {
                why: "it follows a record of its key that is sent".to_owned(),
            });
        }
        if candidate.is_later {
            return Ok(Verdict::left("LATER", "it was written later"));
        }
        match self.target.sink.looks_first(inbound) {
            true => self.rehearsed(candidate, inbound).await,
            false => Ok(self.received(candidate, origin)),
        }
    }

    /// Why a record is not sent, whatever the target has.
    fn left(&self, origin: &Origin, key: &Text, inbound: &Inbound) -> Option<Verdict> {
        if !self.target.sink.wants(inbound) {
            let why = format!(
                "a newer state of the key stands in its place, which is none of {}'s business",
                self.target.name
            );
            return Some(Verdict::left("SUPERSEDED", why));
        }
        if self.target.sink.replays(inbound).is_some() {
            let why = "it asks for what is done here, and was carried out in its time";
            return Some(Verdict::left("ASKS", why));
        }
        if self.done.contains(&origin.to_string()) {
            return Some(Verdict::left("DONE", "this replay has sent it already"));
        }
        let at = TopicPartition::new(origin.topic.clone(), origin.partition);
        let passed = self.passed.get(&at).copied().unwrap_or(0);
        if origin.offset >= passed {
            let why = format!(
                "{} has yet to come to it: it will be sent by itself",
                self.target.name
            );
            return Some(Verdict::left("NOT_READ", why));
        }
        if let Some(letter) = self.letters.get(&origin.to_string()) {
            let why = format!(
                "it is a dead letter: `crossdock dlq show '{letter}'`, then edit or redrive it"
            );
            return Some(Verdict::left("DEAD_LETTERED", why));
        }
        let place = (origin.topic.to_string(), key.to_string());
        if self.parked.contains(&place) {
            let why = format!(
                "its key is held up in {}, and goes on by itself: `crossdock parked show '{key}'`",
                self.target.name
            );
            return Some(Verdict::left("PARKED", why));
        }
        if let Event::RefundEvent(e) = &inbound.event
            && self
                .refunds
                .get(&e.refund_id)
                .is_some_and(|newest| *newest > e.refund_version)
        {
            let why = "the refund has gone on since; to ask for it again could pay it twice";
            return Some(Verdict::left("SUPERSEDED", why));
        }
        None
    }

    /// Looks at the target for the first of these records that it can be asked for; why it does not answer now.
    ///
    /// # Errors
    /// As [`Judge::judged`].
    pub async fn look(&mut self, candidates: &[Candidate]) -> Result<Option<String>, Fault> {
        for candidate in candidates {
            let Ok(inbound) = &candidate.inbound else {
                continue;
            };
            let sink = &self.target.sink;
            if sink.looks_first(inbound) && sink.replays(inbound).is_none() {
                return Ok(match self.rehearsed(candidate, inbound).await? {
                    Verdict::Left { code, why } if code == CANNOT_TELL => Some(why),
                    _ => None,
                });
            }
        }
        Ok(None)
    }

    /// Lets the sink do it, up to the first request that would change something.
    async fn rehearsed(
        &mut self,
        candidate: &Candidate,
        inbound: &Inbound,
    ) -> Result<Verdict, Fault> {
        self.has_looked = true;
        let delivery = [Delivery {
            key: candidate.key.clone(),
            inbound: inbound.clone(),
            sent: None,
            attempt: 1,
            in_doubt: true,
        }];
        let work = rehearsal::rehearsed(self.target.sink.write(&delivery));
        let ((mut results, change), requests) = requests::counted(work).await;
        self.requests += u64::from(requests);
        if let Some(change) = change {
            let what = match change.words.is_empty() {
                true => change.request,
                false => change.words.join("; "),
            };
            return Ok(Verdict::Changes { what });
        }
        let fault = match results.pop() {
            Some(Ok(ack)) if ack.outcome == SinkOutcome::StaleSkipped => {
                return Ok(Verdict::Unchanged {
                    why: "the target has gone on since".to_owned(),
                });
            }
            Some(Ok(_)) => {
                return Ok(Verdict::Unchanged {
                    why: "the target has it".to_owned(),
                });
            }
            Some(Err(fault)) => fault,
            None => {
                let words = format!("{} gave no answer for a record", self.target.name);
                return Err(Fault::halt(pipeline::Stage::Write, Code::Bug, words));
            }
        };
        Ok(match fault.verdict {
            FaultVerdict::Halt => return Err(fault),
            FaultVerdict::Reject => Verdict::left("REFUSED", fault.message),
            FaultVerdict::Retry { .. } if fault.code == Code::TooEarly => {
                match self.sent_keys.contains(&candidate.key) {
                    true => Verdict::Unknown {
                        why: "what it needs there is sent before it".to_owned(),
                    },
                    false => Verdict::left("TOO_EARLY", fault.message),
                }
            }
            FaultVerdict::Retry { .. } => {
                let why = format!(
                    "cannot tell: {}; run it again when the target answers",
                    fault.message
                );
                Verdict::left(CANNOT_TELL, why)
            }
        })
    }

    /// What the receipts say, where nobody can look at the target.
    fn received(&self, candidate: &Candidate, origin: &Origin) -> Verdict {
        let blind = format!("{} cannot be asked what it has", self.target.name);
        let receipt = self
            .receipts
            .get(&receipt_key(&origin.topic, &candidate.key));
        let Some(receipt) = receipt else {
            let why = format!("{blind}, and no receipt says that the record was sent");
            return Verdict::Unknown { why };
        };
        let at = receipt.source_event.offset;
        let is_taken = matches!(
            receipt.outcome,
            SinkOutcome::Acked | SinkOutcome::DuplicateAcked | SinkOutcome::StaleSkipped
        );
        // Records of a key are sent in order: what was before the last was answered.
        match at > origin.offset || (at == origin.offset && is_taken) {
            true if self.again => Verdict::Unknown {
                why: format!(
                    "{blind}; its receipts say that it has taken it, and it is sent again"
                ),
            },
            true => Verdict::Unchanged {
                why: format!(
                    "{blind}; its receipts say that it has taken it (--again sends it all the same)"
                ),
            },
            false => Verdict::Unknown {
                why: format!(
                    "{blind}; the last receipt says {}",
                    receipt.outcome.symbol()
                ),
            },
        }
    }
}
