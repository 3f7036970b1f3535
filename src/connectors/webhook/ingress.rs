//! From the door to the source: deliveries in the order of arrival, each once.

use super::door::{Door, Expected};
use super::settings::{Signing, Webhook};
use super::signature::{Headers, Refused, Verifier};
use crate::config::seal::{self, OpenFault, Seal};
use crate::contract::event::Text;
use crate::domain::Timestamp;
use crate::pipeline::{
    Code, Fault, Inbox, RawDelivery, SourceOrigin, SourceReject, Stage, SystemClock,
};
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

/// Deliveries before one within which another of its name makes it a repetition.
pub const REMEMBERED: i64 = 10_000;
/// Largest body that can be allowed: sealed it still fits into a record of the inbox.
const BODY_BYTES_MAX: usize = 1_500_000;
/// Names read back at a time.
const PAGE: usize = 1_000;
/// Reads that bring nothing after which reading back is given up for now.
const EMPTY_READS_MAX: usize = 250;

/// The way in for deliveries to one connector.
pub struct Ingress {
    instance: String,
    listen: String,
    expected: Arc<Expected>,
    open: Option<(Arc<dyn Inbox>, Door)>,
    memory: Memory,
}

/// A delivery that was verified when it came.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Its place in the order of arrival.
    pub position: i64,
    /// The sender's name for it.
    pub id: Text,
    /// When it came.
    pub received_at: Timestamp,
    /// Path that it was sent to.
    pub path: String,
    /// Headers, names in lower case; without those that hold credentials.
    pub headers: Headers,
    /// The exact body.
    pub body: Bytes,
    sealed: Bytes,
}

/// Deliveries taken from the inbox.
#[derive(Debug, Default)]
pub struct Taken {
    /// In the order of arrival, without repetitions.
    pub deliveries: Vec<Delivery>,
    /// What stands in the inbox and cannot be read; to be handed on in the batch.
    pub rejects: Vec<SourceReject>,
    /// Where to go on: to be kept in the bookmark.
    pub next: i64,
    /// Whether there is more.
    pub more: bool,
}

impl Ingress {
    /// Checks the settings. Listens to nothing yet.
    ///
    /// # Errors
    /// All that is wrong with the settings.
    pub fn new(instance: &str, webhook: &Webhook, signing: &Signing) -> Result<Self, Fault> {
        let mut wrong = Vec::new();
        if !webhook.path.starts_with('/') {
            wrong.push(format!("path {:?} must begin with /", webhook.path));
        }
        if !(1..=BODY_BYTES_MAX).contains(&webhook.body_bytes_max) {
            wrong.push(format!("body_bytes_max must be from 1 to {BODY_BYTES_MAX}"));
        }
        let verifier = Verifier::new(webhook, signing);
        let seal = Seal::new(seal::INBOX, instance, &webhook.inbox_keys);
        match (verifier, seal) {
            (Ok(verifier), Ok(seal)) if wrong.is_empty() => Ok(Ingress {
                instance: instance.to_owned(),
                listen: webhook.listen.clone(),
                expected: Arc::new(Expected {
                    instance: instance.to_owned(),
                    path: webhook.path.clone(),
                    body_bytes_max: webhook.body_bytes_max,
                    verifier,
                    seal,
                    clock: Arc::new(SystemClock),
                }),
                open: None,
                memory: Memory::default(),
            }),
            (verifier, seal) => {
                wrong.extend(verifier.err().into_iter().flatten());
                wrong.extend(seal.err().into_iter().flatten());
                let message = format!("webhook of {instance}: {}", wrong.join("; "));
                Err(Fault::halt(Stage::Read, Code::Configuration, message))
            }
        }
    }

    /// Listens, and keeps in `inbox` what comes, until it is dropped.
    ///
    /// # Errors
    /// When the address cannot be listened at.
    pub fn open(&mut self, inbox: Arc<dyn Inbox>) -> Result<(), Fault> {
        let door = Door::open(&self.listen, self.expected.clone(), inbox.clone());
        let door = door.map_err(|e| {
            let message = format!(
                "{} cannot take deliveries at {}; free the address, or give another with `listen`",
                self.instance, self.listen
            );
            Fault::retry(Stage::Read, Code::Unavailable, message).caused_by(e)
        })?;
        tracing::info!(source = self.instance, listen = %door.address(), path = self.expected.path, "takes deliveries");
        self.open = Some((inbox, door));
        Ok(())
    }

    /// What the door makes of a delivery: judged, and sealed for the inbox. Header names in lower case.
    ///
    /// # Errors
    /// Why it is not taken.
    pub fn accept(&self, headers: Headers, body: &[u8]) -> Result<RawDelivery, Refused> {
        self.expected.accept(headers, body)
    }

    /// Where deliveries are taken; `None` before [`Ingress::open`].
    pub fn address(&self) -> Option<SocketAddr> {
        self.open.as_ref().map(|(_, door)| door.address())
    }

    /// Ends when something was kept since it ended last. Cancel-safe.
    pub async fn woken(&self) {
        match &self.open {
            Some((_, door)) => door.woken().await,
            None => std::future::pending().await,
        }
    }

    /// At most about `max` deliveries from `position` on, 0 being the beginning. Asking again from
    /// the same position gives the same, for as long as it is kept.
    ///
    /// # Errors
    /// A retry when the log is unwell; a halt when a delivery was sealed with a key that the settings
    /// no longer name.
    pub fn take(&mut self, position: i64, max: usize) -> Result<Taken, Fault> {
        let Some((inbox, _)) = &self.open else {
            let message = format!("{} takes from an inbox that is not open", self.instance);
            return Err(Fault::halt(Stage::Read, Code::Bug, message));
        };
        let inbox = inbox.clone();
        self.memory.recall(position, inbox.as_ref())?;
        let page = inbox.read(position, max)?;
        let mut taken = Taken {
            rejects: page.unreadable,
            next: page.next,
            more: page.more,
            ..Taken::default()
        };
        for (at, raw) in page.deliveries {
            let is_first = self.memory.is_first(at, &raw.id);
            self.memory.note(at, &raw.id);
            if !is_first {
                tracing::info!(
                    source = self.instance,
                    position = at,
                    "a delivery was repeated"
                );
                continue;
            }
            match self.unseal(at, raw)? {
                Ok(delivery) => taken.deliveries.push(delivery),
                Err(reject) => taken.rejects.push(reject),
            }
        }
        self.memory.to = page.next;
        Ok(taken)
    }

    fn unseal(
        &self,
        position: i64,
        raw: RawDelivery,
    ) -> Result<Result<Delivery, SourceReject>, Fault> {
        let opened = self.expected.seal.open(&raw.id, &raw.sealed);
        let why = match opened {
            Ok(content) => match unpack(&content) {
                Some((path, headers, body)) => {
                    return Ok(Ok(Delivery {
                        position,
                        id: raw.id,
                        received_at: raw.received_at,
                        path,
                        headers,
                        body,
                        sealed: raw.sealed,
                    }));
                }
                None => OpenFault::Damaged,
            },
            Err(why) => why,
        };
        let message = format!("delivery {} of {}: {why}", raw.id, self.instance);
        match why {
            OpenFault::KeyMissing(_) => Err(Fault::halt(Stage::Read, Code::Configuration, message)),
            _ => Ok(Err(SourceReject {
                origin: origin(&self.expected.path, &raw.id),
                raw: raw.sealed,
                fault: Fault::reject(Stage::Read, Code::Malformed, message),
            })),
        }
    }
}

impl Delivery {
    /// The body as JSON.
    ///
    /// # Errors
    /// A reject; of a delivery that came through the door never.
    pub fn json(&self) -> Result<serde_json::Value, Fault> {
        serde_json::from_slice(&self.body).map_err(|e| {
            let message = format!("delivery {} is not JSON", self.id);
            Fault::reject(Stage::Read, Code::Malformed, message).caused_by(e)
        })
    }

    /// A header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The dead letter of a delivery that can never become an event: sealed, as it was kept.
    pub fn reject(&self, fault: Fault) -> SourceReject {
        SourceReject {
            origin: origin(&self.path, &self.id),
            raw: self.sealed.clone(),
            fault,
        }
    }
}

fn origin(path: &str, id: &str) -> SourceOrigin {
    SourceOrigin {
        container: format!("webhook {path}"),
        item: id.to_owned(),
    }
}

/// What is sealed: length and JSON of path and headers, then the body.
pub(super) fn pack(path: &str, headers: &Headers, body: &[u8]) -> Vec<u8> {
    let head = serde_json::json!({"path": path, "headers": headers}).to_string();
    let mut content = Vec::with_capacity(4 + head.len() + body.len());
    content.extend_from_slice(&(head.len() as u32).to_be_bytes());
    content.extend_from_slice(head.as_bytes());
    content.extend_from_slice(body);
    content
}

fn unpack(content: &[u8]) -> Option<(String, Headers, Bytes)> {
    #[derive(serde::Deserialize)]
    struct Head {
        path: String,
        headers: Headers,
    }
    let (length, rest) = content.split_first_chunk::<4>()?;
    let (head, body) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    let head: Head = serde_json::from_slice(head).ok()?;
    Some((head.path, head.headers, Bytes::copy_from_slice(body)))
}

/// The names of deliveries before a position, as the inbox has them.
#[derive(Default)]
struct Memory {
    /// Everything from here to `to` is known.
    from: i64,
    to: i64,
    names: BTreeMap<i64, Text>,
    /// Where each name of `names` stands last.
    last: HashMap<Text, i64>,
}

impl Memory {
    /// Knows exactly what stands before `position`, as far back as it counts.
    fn recall(&mut self, position: i64, inbox: &dyn Inbox) -> Result<(), Fault> {
        let begin = (position - REMEMBERED).max(0);
        if begin < self.from || position > self.to {
            *self = Memory {
                from: begin,
                to: begin,
                ..Memory::default()
            };
            self.read_back(position, inbox)?;
        }
        if position < self.to {
            // What was taken beyond has not become durable work, and is asked for again.
            drop(self.names.split_off(&position));
            self.last = self
                .names
                .iter()
                .map(|(at, id)| (id.clone(), *at))
                .collect();
            self.to = position;
        }
        // Twice as much as counts, for what is asked for again.
        let kept = self.to - 2 * REMEMBERED;
        while let Some(first) = self.names.first_entry().filter(|e| *e.key() < kept) {
            let (at, id) = first.remove_entry();
            if self.last.get(&id) == Some(&at) {
                self.last.remove(&id);
            }
        }
        self.from = self.from.max(kept);
        Ok(())
    }

    fn read_back(&mut self, position: i64, inbox: &dyn Inbox) -> Result<(), Fault> {
        let mut empty_reads = 0;
        while self.to < position {
            let count = (position - self.to).min(PAGE as i64) as usize;
            let page = inbox.read(self.to, count)?;
            empty_reads += usize::from(page.next <= self.to);
            if empty_reads > EMPTY_READS_MAX {
                let message = "the names of earlier deliveries cannot be read back yet";
                return Err(Fault::retry(Stage::Read, Code::Log, message));
            }
            for (at, raw) in page.deliveries {
                self.note(at, &raw.id);
            }
            self.to = self.to.max(page.next);
        }
        Ok(())
    }

    fn note(&mut self, at: i64, id: &Text) {
        self.names.insert(at, id.clone());
        self.last.insert(id.clone(), at);
    }

    fn is_first(&self, position: i64, id: &str) -> bool {
        self.last
            .get(id)
            .is_none_or(|at| *at < position - REMEMBERED)
    }
}
