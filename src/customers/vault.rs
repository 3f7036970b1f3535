//! The vault over the topic of keys.

use super::meta;
use crate::codec::{self, Codec};
use crate::config::Secret;
use crate::config::seal::{CUSTOMERS, DataKey, OpenFault, Seal};
use crate::contract::event::{Blob, CustomerChanged, CustomerKey, Event, Text};
use crate::contract::topic;
use crate::domain::{Timestamp, compound_key, key_part};
use crate::log::{
    Isolation, Log, LogError, Offset, Outgoing, Producer, ProducerSpec, Reader, TopicPartition,
};
use crate::pipeline::{Clock, Code, Fault, Person, Stage, SystemClock, Vault, Verdict};
use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use uuid::Uuid;

/// What the configured keys belong to.
const OWNER: &str = "customers";
const POLL_RECORDS: usize = 10_000;
/// How long one read waits while the end is known to be further on.
const POLL_WAIT: Duration = Duration::from_millis(20);
/// Reads without a record before the log is taken not to answer.
const EMPTY_POLLS_MAX: u32 = 500;

/// What an erasure found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forgotten {
    /// Keys that were destroyed now.
    pub keys: usize,
    /// Whether the person had been erased before.
    pub before: bool,
}

/// The keys of persons, as the log has them.
pub struct LogVault {
    log: Arc<dyn Log>,
    codec: Arc<Codec>,
    seal: Option<Seal>,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    reader: Option<Box<dyn Reader>>,
    partitions: Vec<TopicPartition>,
    persons: HashMap<Text, Known, FxBuildHasher>,
    /// Persons whose keys have to be swept.
    left: Vec<Text>,
}

#[derive(Default)]
struct Known {
    erased: bool,
    /// Ids and sealed keys, in the order in which they were read.
    keys: Vec<(Text, Blob)>,
}

impl LogVault {
    /// The vault whose keys these secrets open, the first of which seals. Nothing is asked of the log
    /// until it is used.
    ///
    /// # Errors
    /// All that is wrong with the secrets.
    pub fn new(
        log: Arc<dyn Log>,
        codec: Arc<Codec>,
        secrets: &[Secret],
    ) -> Result<Self, Vec<String>> {
        let seal = Seal::new(CUSTOMERS, OWNER, secrets)?;
        Ok(LogVault {
            seal: Some(seal),
            ..LogVault::without_keys(log, codec)
        })
    }

    /// A vault that can only forget.
    pub fn without_keys(log: Arc<dyn Log>, codec: Arc<Codec>) -> Self {
        LogVault {
            log,
            codec,
            seal: None,
            held: Mutex::default(),
        }
    }

    /// Destroys every key of a person, for good.
    ///
    /// # Errors
    /// When the log does not answer: some keys may be destroyed and the person marked; again goes on.
    pub fn forget(
        &self,
        channel: &str,
        customer: &str,
        now: Timestamp,
    ) -> Result<Forgotten, Fault> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        self.read(&mut held)?;
        let person = compound_key(&[channel, customer]);
        let before = held.persons.get(&person).is_some_and(|k| k.erased);
        let mark = CustomerKey {
            erased_at: Some(now),
            ..key_of(&person, "", None, now)
        };
        self.write(&[mark])?;
        let mut keys = 0;
        loop {
            // From here on whoever makes a key for the person finds the mark.
            self.take_in(&mut held)?;
            let live = held.persons.get(&person).map_or(0, |k| k.keys.len());
            if live == 0 {
                return Ok(Forgotten { keys, before });
            }
            keys += live;
            self.sweep(&mut held, now)?;
        }
    }

    /// Reads up to where the log ends now, and sweeps.
    fn read(&self, held: &mut Held) -> Result<(), Fault> {
        self.take_in(held)?;
        if !held.left.is_empty() {
            self.sweep(held, SystemClock.now())?;
            self.take_in(held)?;
        }
        Ok(())
    }

    fn take_in(&self, held: &mut Held) -> Result<(), Fault> {
        if held.reader.is_none() {
            let topics = self.log.admin().topics()?;
            let found = topics.iter().find(|t| t.name == topic::CUSTOMER_KEY);
            let found = found.ok_or_else(|| LogError::UnknownTopic {
                topic: topic::CUSTOMER_KEY.into(),
            })?;
            let at = |partition| TopicPartition::new(topic::CUSTOMER_KEY, partition);
            held.partitions = (0..found.partitions).map(at).collect();
            held.persons.clear();
            let from = held.partitions.iter();
            let from: Vec<_> = from.map(|p| (p.clone(), Offset::Beginning)).collect();
            held.reader = Some(self.log.reader(&from, Isolation::ReadCommitted)?);
        }
        let mut ends = Vec::with_capacity(held.partitions.len());
        for partition in &held.partitions {
            ends.push((partition.clone(), self.log.admin().watermarks(partition)?.1));
        }
        let taken = self.take_to(held, &ends);
        if taken.is_err() {
            // It may have lost what it has read: the next begins anew.
            held.reader = None;
        }
        taken
    }

    fn take_to(&self, held: &mut Held, ends: &[(TopicPartition, i64)]) -> Result<(), Fault> {
        let (mut records, mut empty) = (Vec::new(), 0);
        loop {
            let Some(reader) = held.reader.as_mut() else {
                return Ok(());
            };
            let is_read = |(p, end): &(TopicPartition, i64)| {
                reader.position(p).is_some_and(|at| at >= *end) || *end == 0
            };
            if ends.iter().all(is_read) {
                return Ok(());
            }
            reader.poll(POLL_RECORDS, POLL_WAIT, &mut records)?;
            empty = if records.is_empty() { empty + 1 } else { 0 };
            if empty > EMPTY_POLLS_MAX {
                let message = format!("{} does not give what it holds", topic::CUSTOMER_KEY);
                return Err(Fault::retry(Stage::Read, Code::Log, message));
            }
            for record in records.drain(..) {
                if record.value.is_none() {
                    continue;
                }
                // Not the fault of whoever is asked after: nobody's key counts until it is mended.
                let event = self.codec.decode(&record).map_err(|fault| match fault.verdict {
                    Verdict::Reject => Fault::halt(Stage::Read, fault.code, format!(
                        "{} holds what is no customer's key: {}; write a tombstone under its key, then start again",
                        record.origin, fault.message
                    )),
                    _ => fault,
                })?;
                if let Event::CustomerKey(key) = event {
                    note(held, key);
                }
            }
        }
    }

    /// Destroys keys of persons who were erased.
    fn sweep(&self, held: &mut Held, now: Timestamp) -> Result<(), Fault> {
        let mut destroyed = Vec::new();
        for person in std::mem::take(&mut held.left) {
            let keys = held.persons.get(&person).map_or(&[][..], |k| &k.keys);
            destroyed.extend(keys.iter().map(|(id, _)| key_of(&person, id, None, now)));
        }
        self.write(&destroyed)
    }

    /// Writes keys; they are durable when it returns.
    fn write(&self, keys: &[CustomerKey]) -> Result<(), Fault> {
        if keys.is_empty() {
            return Ok(());
        }
        self.codec.prepare(&[topic::CUSTOMER_KEY])?;
        let mut producer = self.log.producer(&ProducerSpec::default())?;
        for key in keys {
            let name = compound_key(&[&key.channel_id, &key.customer_id, &key.key_id]);
            let (event, now) = (Event::from(key.clone()), key.meta.recorded_at);
            send(
                producer.as_mut(),
                &self.codec,
                topic::CUSTOMER_KEY,
                &name,
                &event,
                now,
            )?;
        }
        producer.flush()?;
        Ok(())
    }

    /// Id and bytes of a person's key, made where there is none; `None` when the person was erased.
    fn key_for(&self, person: &Text) -> Result<Option<(Text, DataKey)>, Fault> {
        let seal = self.seal()?;
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        self.read(&mut held)?;
        let newest = |held: &Held| {
            let known = held.persons.get(person);
            let key = known.and_then(|k| k.keys.last()).cloned();
            (known.is_some_and(|k| k.erased), key)
        };
        let (mut erased, mut key) = newest(&held);
        if !erased && key.is_none() {
            let now = SystemClock.now();
            let bytes = DataKey::fresh();
            let id = Uuid::new_v5(&crate::domain::NAMESPACE, &bytes).to_string();
            let wrapped = seal.seal(&compound_key(&[person, &id]), &bytes);
            let wrapped = wrapped.ok_or_else(|| broken("a key cannot be sealed"))?;
            self.write(&[key_of(person, &id, Some(Blob(wrapped.into())), now)])?;
            // The person may have been erased meanwhile: then the mark is there by now.
            self.read(&mut held)?;
            (erased, key) = newest(&held);
        }
        match key.filter(|_| !erased) {
            Some((id, wrapped)) => Ok(Some((id.clone(), unwrap(seal, person, &id, &wrapped)?))),
            None if erased => Ok(None),
            None => Err(broken("a key that was written is not there")),
        }
    }

    /// The key that an event names; `None` when the person was erased.
    fn key_named(&self, person: &Text, id: &str) -> Result<Option<DataKey>, Fault> {
        let seal = self.seal()?;
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        self.read(&mut held)?;
        let known = held.persons.get(person);
        if known.is_some_and(|k| k.erased) {
            return Ok(None);
        }
        let key = known.and_then(|k| k.keys.iter().find(|(known, _)| known == id));
        match key {
            Some((id, wrapped)) => unwrap(seal, person, id, wrapped).map(Some),
            None => {
                let message = format!(
                    "{} has no key {id} for this customer; what is sealed with it cannot be read by anybody, so have its source tell it again",
                    topic::CUSTOMER_KEY
                );
                Err(Fault::reject(
                    Stage::Decode,
                    Code::UnknownReference,
                    message,
                ))
            }
        }
    }

    fn seal(&self) -> Result<&Seal, Fault> {
        self.seal.as_ref().ok_or_else(|| {
            let message = format!("{} names no key; give one", CUSTOMERS.setting);
            Fault::halt(Stage::Process, Code::Configuration, message)
        })
    }
}

impl Vault for LogVault {
    fn seal(&self, person: &Person, event: &mut CustomerChanged) -> Result<bool, Fault> {
        let name = compound_key(&[&event.channel_id, &event.customer_id]);
        let Some((id, key)) = self.key_for(&name)? else {
            return Ok(false);
        };
        let seal = |field: &str, text: &Option<String>| {
            let text = text.as_ref().filter(|t| !t.is_empty());
            let sealed = text.map(|t| key.seal(&compound_key(&[&name, field]), t.as_bytes()));
            match sealed {
                None => Ok(None),
                Some(Some(bytes)) => Ok(Some(Blob(bytes.into()))),
                Some(None) => Err(broken("a field cannot be sealed")),
            }
        };
        let address = person.address.as_ref().map(serde_json::to_string);
        let address = address
            .transpose()
            .map_err(|_| broken("an address cannot be written"))?;
        event.email = seal("email", &person.email)?;
        event.phone = seal("phone", &person.phone)?;
        event.given_name = seal("givenName", &person.given_name)?;
        event.family_name = seal("familyName", &person.family_name)?;
        event.address = seal("address", &address)?;
        event.tax_id = seal("taxId", &person.tax_id)?;
        event.key_id = id;
        Ok(true)
    }

    fn open(&self, event: &CustomerChanged) -> Result<Option<Person>, Fault> {
        let name = compound_key(&[&event.channel_id, &event.customer_id]);
        let Some(key) = self.key_named(&name, &event.key_id)? else {
            return Ok(None);
        };
        let open = |field: &str, sealed: &Option<Blob>| {
            let opened = sealed.as_ref().map(|s| {
                let bytes = key.open(&compound_key(&[&name, field]), &s.0)?;
                String::from_utf8(bytes).ok()
            });
            match opened {
                None => Ok(None),
                Some(Some(text)) => Ok(Some(text)),
                Some(None) => Err(damaged(field)),
            }
        };
        let address = open("address", &event.address)?;
        let address =
            address.map(|text| serde_json::from_str(&text).map_err(|_| damaged("address")));
        Ok(Some(Person {
            email: open("email", &event.email)?,
            phone: open("phone", &event.phone)?,
            given_name: open("givenName", &event.given_name)?,
            family_name: open("familyName", &event.family_name)?,
            address: address.transpose()?,
            tax_id: open("taxId", &event.tax_id)?,
        }))
    }
}

fn note(held: &mut Held, key: CustomerKey) {
    let person = compound_key(&[&key.channel_id, &key.customer_id]);
    let known = held.persons.entry(person.clone()).or_default();
    if key.key_id.is_empty() {
        known.erased = true;
    } else {
        known.keys.retain(|(id, _)| *id != key.key_id);
        known
            .keys
            .extend(key.wrapped.map(|wrapped| (key.key_id, wrapped)));
    }
    if known.erased && !known.keys.is_empty() && !held.left.contains(&person) {
        held.left.push(person);
    }
}

fn key_of(person: &str, id: &str, wrapped: Option<Blob>, now: Timestamp) -> CustomerKey {
    let what = match wrapped {
        Some(_) => "made",
        None => "destroyed",
    };
    CustomerKey {
        meta: meta("CustomerKey", &format!("{person}|{id}#{what}"), now),
        channel_id: key_part(person, 0),
        customer_id: key_part(person, 1),
        key_id: id.into(),
        wrapped,
        erased_at: None,
    }
}

fn unwrap(seal: &Seal, person: &str, id: &str, wrapped: &Blob) -> Result<DataKey, Fault> {
    let bytes = seal.open(&compound_key(&[person, id]), &wrapped.0);
    let bytes = bytes.map_err(|fault| {
        let message = format!("key {id} of a customer cannot be opened: {fault}");
        match fault {
            OpenFault::KeyMissing(_) => {
                let message = format!("{message} to `{}`", CUSTOMERS.setting);
                Fault::halt(Stage::Decode, Code::Configuration, message)
            }
            OpenFault::Damaged => Fault::reject(Stage::Decode, Code::Malformed, message),
        }
    })?;
    DataKey::of(&bytes).ok_or_else(|| broken("a key is not as long as a key"))
}

fn damaged(field: &str) -> Fault {
    let message = format!("{field} is damaged, or was sealed for another customer");
    Fault::reject(Stage::Decode, Code::Malformed, message)
}

fn broken(what: &str) -> Fault {
    Fault::halt(Stage::Process, Code::Bug, what)
}

/// Sends one event under its key.
pub(super) fn send(
    producer: &mut dyn Producer,
    codec: &Codec,
    topic: &'static str,
    key: &str,
    event: &Event,
    now: Timestamp,
) -> Result<(), Fault> {
    let mut value = Vec::new();
    codec.encode(topic, event, &mut value)?;
    producer.send(Outgoing {
        topic,
        partition: None,
        key: Some(key.as_bytes()),
        value: Some(&value),
        headers: &codec::headers(topic, event, key, None),
        timestamp_ms: now.as_millis(),
    })?;
    Ok(())
}
