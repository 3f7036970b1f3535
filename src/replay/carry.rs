//! Replays that records ask for: a sink that carries them out, around the one that writes.
//!
//! It is the replay that an operator starts, told by a record of the log: what the sink's topics hold of the
//! order is found, held against what the target has, and what differs is put into the lines of its keys.
//! So an order is told again by the very records that told it the first time, in their order, by the owner of its
//! key; nothing else has to keep orders for the day on which one is missing. What came of it stands in the
//! audit, with those records, in one transaction.
//!
//! To find the records the partitions of the order's key are read: one order at a time, beside the calls of
//! others. Whoever asks meanwhile is told to come again.

use super::judge::CANNOT_TELL;
use super::send::{Sender, tell};
use super::{Ask, Refusal, Target, Verdict};
use crate::contract::event::{Audit, Event, SinkOutcome};
use crate::desk;
use crate::dlq::Actor;
use crate::domain::Timestamp;
use crate::pipeline::{
    self, Ack, Capabilities, Clock, Code, Delivery, Fault, Inbound, Replay, Sink, SourceRecord,
    Stage, requests,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

/// Records of an order that are given again in one transaction, at most: more has no order.
const RECORDS_MAX: usize = 1_000;
/// When an order whose turn it is not is tried next.
const NEXT_TURN: Duration = Duration::from_secs(1);
/// Who writes what came of it.
const SOURCE: &str = "crossdock/replay";
const ACTION: &str = "REPLAY";

/// The sink of `target`, which also carries out the replays that records ask it for.
pub fn carrying_out(target: Target, clock: Arc<dyn Clock>) -> Arc<dyn Sink> {
    Arc::new(Carrier {
        target,
        clock,
        turn: Mutex::new(()),
    })
}

struct Carrier {
    target: Target,
    clock: Arc<dyn Clock>,
    /// Held by the replay that is carried out.
    turn: Mutex<()>,
}

/// What came of a replay.
struct Came {
    outcome: SinkOutcome,
    /// For the audit: one word, and more behind a colon.
    words: String,
}

impl Carrier {
    async fn carry_out(&self, asked: &Replay) -> Result<Ack, Fault> {
        let Ok(_turn) = self.turn.try_lock() else {
            let message = format!(
                "order {}: another order is being told again just now",
                asked.order
            );
            return Err(Fault {
                verdict: pipeline::Verdict::Retry {
                    after: Some(NEXT_TURN),
                },
                ..Fault::retry(Stage::Write, Code::TooEarly, message)
            });
        };
        let now = self.clock.now();
        let came = match self.find(asked, now).await? {
            Ok(sender) => self.send(asked, sender, now).await?,
            Err(Refusal(why)) => {
                let came = Came {
                    outcome: SinkOutcome::StaleSkipped,
                    words: format!("REFUSED: {why}"),
                };
                let word = self.word(asked, &came, now);
                tell(&self.target, (&asked.told_under, &word), now)?;
                came
            }
        };
        tracing::info!(sink = self.target.name, order = %asked.order, replay = asked.name, came = came.words, "told again");
        Ok(Ack {
            outcome: came.outcome,
            version: asked.attempt,
            external_id: None,
            digest: None,
            status: None,
        })
    }

    /// What the log has of the order. Takes as long as reading a partition of each topic.
    async fn find(&self, asked: &Replay, now: Timestamp) -> Result<Result<Sender, Refusal>, Fault> {
        let (target, name) = (self.target.clone(), asked.name.clone());
        let ask = Ask {
            order: Some(asked.order.to_string()),
            ..Ask::default()
        };
        let actor = Actor {
            name: asked.asked_by.to_string(),
            reason: asked.reason.as_ref().map(ToString::to_string),
        };
        let found = tokio::task::spawn_blocking(move || {
            Sender::new(target, &ask, actor, &name, false, now)
        });
        found.await.map_err(|cause| {
            Fault::halt(Stage::Read, Code::Bug, "looking for an order has ended").caused_by(cause)
        })?
    }

    /// Puts what the target lacks into its lines.
    async fn send(
        &self,
        asked: &Replay,
        mut sender: Sender,
        now: Timestamp,
    ) -> Result<Came, Fault> {
        let (mut records, mut left, mut is_repeated) = (Vec::new(), Vec::new(), false);
        while let Some((judged, candidate)) = sender.next().await? {
            match &judged.verdict {
                Verdict::Changes { .. } | Verdict::Unknown { .. } => {
                    records.push((judged, candidate));
                }
                Verdict::Left { code, why } => match *code {
                    "DONE" => is_repeated = true,
                    "ASKS" | "SUPERSEDED" => {}
                    CANNOT_TELL => return Err(unwell(asked, why)),
                    _ => left.push(format!("{code}: {}: {why}", judged.record)),
                },
                Verdict::Unchanged { .. } => {}
            }
        }
        // An end that no look has come before would say that the target is well.
        if let Some(why) = sender.look().await? {
            return Err(unwell(asked, &why));
        }
        (0..sender.requests()).for_each(|_| requests::count());
        let (order, name) = (&asked.order, &self.target.name);
        let came = match (records.len(), left.is_empty()) {
            // Whoever sent it came to its end before that was written down: the word is out.
            (0, _) if is_repeated => {
                return Ok(Came {
                    outcome: SinkOutcome::Acked,
                    words: "DONE".to_owned(),
                });
            }
            (0, true) => Came {
                outcome: SinkOutcome::DuplicateAcked,
                words: format!("UNCHANGED: {name} has all that is told of order {order}"),
            },
            (0, false) => Came {
                outcome: SinkOutcome::StaleSkipped,
                words: format!("LEFT: {}", left.join("; ")),
            },
            (RECORDS_MAX.., _) => {
                let many = records.len();
                records.clear();
                Came {
                    outcome: SinkOutcome::StaleSkipped,
                    words: format!(
                        "REFUSED: {many} records tell of order {order}; look at it with `crossdock replay --order {order} --to {name} --dry-run`"
                    ),
                }
            }
            (many, _) => Came {
                outcome: SinkOutcome::Acked,
                words: format!("DONE: {many} records given to {name} once more"),
            },
        };
        let word = self.word(asked, &came, now);
        sender.put(&records, Some((&asked.told_under, &word)), now)?;
        Ok(came)
    }

    fn word(&self, asked: &Replay, came: &Came, now: Timestamp) -> Event {
        let name = &self.target.name;
        let id = format!("{}#{name}", asked.name);
        let mut meta = desk::meta(SOURCE, "Audit", &id, now);
        meta.correlation_id = asked.name.as_str().into();
        let audit = Audit {
            meta,
            actor: name.as_str().into(),
            action: ACTION.into(),
            target: compact_str::format_compact!("order {} in {name}", asked.order),
            reason: asked.reason.clone(),
            before: None,
            after: None,
            outcome: came.words.as_str().into(),
        };
        audit.into()
    }
}

fn unwell(asked: &Replay, why: &str) -> Fault {
    let message = format!("order {}: {why}", asked.order);
    Fault::retry(Stage::Write, Code::Unavailable, message)
}

#[async_trait::async_trait]
impl Sink for Carrier {
    fn capabilities(&self) -> Capabilities {
        self.target.sink.capabilities()
    }

    async fn write(&self, batch: &[Delivery]) -> Vec<Result<Ack, Fault>> {
        let sink = &self.target.sink;
        let asked = batch.iter().map(|d| sink.replays(&d.inbound));
        let asked: Vec<Option<Replay>> = asked.collect();
        if asked.iter().all(Option::is_none) {
            return sink.write(batch).await;
        }
        let mut results = Vec::with_capacity(batch.len());
        for (delivery, asked) in batch.iter().zip(&asked) {
            match asked {
                Some(asked) => results.push(self.carry_out(asked).await),
                None => results.extend(sink.write(std::slice::from_ref(delivery)).await),
            }
        }
        results
    }

    fn wants(&self, inbound: &Inbound) -> bool {
        self.target.sink.wants(inbound)
    }
    fn refused(&self, inbound: &Inbound, fault: &Fault) -> Vec<SourceRecord> {
        self.target.sink.refused(inbound, fault)
    }
    fn is_meant_first(&self, inbound: &Inbound) -> bool {
        self.target.sink.is_meant_first(inbound)
    }
    fn doubted(&self, inbound: &Inbound) -> Vec<SourceRecord> {
        self.target.sink.doubted(inbound)
    }
    fn looks_first(&self, inbound: &Inbound) -> bool {
        self.target.sink.looks_first(inbound)
    }
    fn replays(&self, inbound: &Inbound) -> Option<Replay> {
        self.target.sink.replays(inbound)
    }
    fn urgency(&self, inbound: &Inbound) -> u8 {
        self.target.sink.urgency(inbound)
    }
}
