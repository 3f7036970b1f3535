//! A registry that keeps its schemas in a compacted topic of one partition, so that a log is all a
//! deployment needs.
//!
//! Any number of instances may serve one topic. Two never hand out the same id: whoever writes
//! first takes over the one transactional id, then reads the topic to its end, decides, and
//! commits. Had another instance written between reading and committing, it would have taken over
//! the id, and the commit is refused; the write then starts again.

use super::normal;
use super::store::{Change, Store};
use super::{Level, Registered, Registry, RegistryError, Version};
use crate::log::{
    Isolation, Log, LogError, Offset, Outgoing, Producer, ProducerSpec, TopicPartition, TopicSpec,
};
use crate::pipeline::Headers;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant, SystemTime};

/// The topic of the embedded registry: compacted, one partition.
pub const TOPIC: &str = "retail.rt.registry.v1";

/// The one transactional id of all instances on a log.
const TRANSACTIONAL_ID: &str = "crossdock-registry";
/// Reading the rest of the topic takes no longer.
const READ_TIME_MAX: Duration = Duration::from_secs(10);
/// A transaction that is open for longer is aborted; others wait for it.
const TRANSACTION_TIME_MAX: Duration = Duration::from_secs(5);
/// Takes of the transactional id for one write, before another instance is given up on.
const WRITE_ATTEMPTS_MAX: u32 = 8;
/// Records taken from the log at once.
const READ_RECORDS_MAX: usize = 1_000;
/// A record holds a schema as JSON text in JSON, which escapes it.
const RECORD_BYTES_MAX: usize = 2 * super::BODY_BYTES_MAX;

/// An embedded registry. Share it by `Arc`; every method may be called from any thread, and takes
/// at most some seconds.
pub struct EmbeddedRegistry {
    log: Arc<dyn Log>,
    at: TopicPartition,
    store: RwLock<Store>,
    /// Held while the topic is read on.
    cursor: Mutex<Cursor>,
    /// Held from claiming the transactional id to the end of the write.
    writer: Mutex<Option<Box<dyn Producer>>>,
}

struct Cursor {
    /// Where reading goes on.
    next: i64,
    /// High watermark when the topic was last read to its end.
    end: i64,
}

/// The registry's topic as it should exist with this many copies.
pub fn topic_spec(replication: i32) -> TopicSpec {
    let settings = [
        ("cleanup.policy", "compact".to_owned()),
        ("retention.ms", "-1".to_owned()),
        ("max.message.bytes", RECORD_BYTES_MAX.to_string()),
        ("min.insync.replicas", replication.min(2).to_string()),
    ];
    TopicSpec {
        name: TOPIC.to_owned(),
        partitions: 1,
        replication,
        settings: settings.map(|(k, v)| (k.to_owned(), v)).into(),
    }
}

impl EmbeddedRegistry {
    /// Opens the registry of a log, and reads its topic whole; creates the topic where it is
    /// missing, with up to three copies.
    ///
    /// # Errors
    /// [`RegistryError::Unavailable`] when the log does not answer, [`RegistryError::Refused`] when
    /// the topic is not one of a registry.
    pub fn open(log: Arc<dyn Log>) -> Result<Self, RegistryError> {
        let registry = EmbeddedRegistry {
            at: TopicPartition::new(TOPIC, 0),
            store: RwLock::default(),
            cursor: Mutex::new(Cursor { next: 0, end: -1 }),
            writer: Mutex::new(None),
            log,
        };
        registry.ensure_topic()?;
        drop(registry.refreshed()?);
        Ok(registry)
    }

    fn ensure_topic(&self) -> Result<(), RegistryError> {
        let admin = self.log.admin();
        let find = || admin.partitions(TOPIC).map_err(|e| self.unavailable(&e));
        let partitions = match find()? {
            Some(partitions) => partitions,
            None => {
                let brokers = admin.brokers().map_err(|e| self.unavailable(&e))?;
                match admin.create(&topic_spec(brokers.clamp(1, 3) as i32)) {
                    Ok(()) => 1,
                    // Another instance may have been quicker.
                    Err(error) => find()?.ok_or_else(|| self.unavailable(&error))?,
                }
            }
        };
        if partitions != 1 {
            return Err(RegistryError::Refused {
                code: 50001,
                message: format!(
                    "{TOPIC} has {partitions} partitions, a registry's topic has one: delete or rename it"
                ),
            });
        }
        Ok(())
    }

    /// What is known once every record that the topic holds now was read.
    fn refreshed(&self) -> Result<RwLockReadGuard<'_, Store>, RegistryError> {
        let mut cursor = lock(&self.cursor);
        let (first, end) = self
            .log
            .admin()
            .watermarks(&self.at)
            .map_err(|e| self.unavailable(&e))?;
        if cursor.end == end {
            return Ok(self.known());
        }
        let from = Offset::At(cursor.next.max(first));
        let mut reader = self
            .log
            .reader(&[(self.at.clone(), from)], Isolation::ReadCommitted)
            .map_err(|e| self.unavailable(&e))?;
        let deadline = Instant::now() + READ_TIME_MAX;
        let mut records = Vec::new();
        loop {
            let wait = deadline.saturating_duration_since(Instant::now());
            if wait.is_zero() {
                return Err(RegistryError::Unavailable {
                    address: self.address().to_owned(),
                    cause: format!("{TOPIC} could not be read to its end within {READ_TIME_MAX:?}"),
                });
            }
            if reader.caught_up() {
                break;
            }
            reader
                .poll(
                    READ_RECORDS_MAX,
                    wait.min(Duration::from_millis(100)),
                    &mut records,
                )
                .map_err(|e| self.unavailable(&e))?;
            let mut store = self.store.write().unwrap_or_else(PoisonError::into_inner);
            for record in records.drain(..) {
                cursor.next = record.origin.offset + 1;
                let key = record.key.as_deref().unwrap_or_default();
                if let Err(cause) = store.apply(key, record.value.as_deref()) {
                    tracing::warn!(origin = %record.origin, cause, "passed over a record that is none of a registry");
                }
            }
        }
        cursor.end = end;
        Ok(self.known())
    }

    /// What was known when the topic was last read.
    fn known(&self) -> RwLockReadGuard<'_, Store> {
        // A panic while the lock is held leaves a store that is whole: records apply one by one.
        self.store.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides on the newest state and writes what comes of it, as often as another instance
    /// comes in between.
    fn write<T>(
        &self,
        decide: impl Fn(&Store) -> Result<(T, Vec<Change>), RegistryError>,
    ) -> Result<T, RegistryError> {
        // Most calls change nothing, and need not take the transactional id from anybody.
        let (answer, changes) = decide(&*self.refreshed()?)?;
        if changes.is_empty() {
            return Ok(answer);
        }
        let mut writer = lock(&self.writer);
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.write_once(&mut writer, &decide) {
                Ok(answer) => return Ok(answer),
                Err(Failed::Decided(error)) => return Err(error),
                Err(Failed::Log(error)) => {
                    // Whatever went wrong, this producer may be in doubt; the next one's take-over
                    // settles its transaction, and the topic tells how.
                    *writer = None;
                    let again = matches!(
                        error,
                        LogError::Fenced(_)
                            | LogError::Abort(_)
                            | LogError::Fatal(_)
                            | LogError::TimedOut(_)
                    );
                    if !again || attempt == WRITE_ATTEMPTS_MAX {
                        return Err(self.unavailable(&error));
                    }
                    tracing::debug!(attempt, %error, "another instance of the registry wrote first");
                    std::thread::sleep(Duration::from_millis(u64::from(rand::random_range(
                        1..=10 * attempt,
                    ))));
                }
            }
        }
    }

    fn write_once<T>(
        &self,
        writer: &mut Option<Box<dyn Producer>>,
        decide: &impl Fn(&Store) -> Result<(T, Vec<Change>), RegistryError>,
    ) -> Result<T, Failed> {
        let producer = match writer {
            Some(producer) => producer,
            None => writer.insert(self.log.producer(&ProducerSpec {
                transactional_id: Some(TRANSACTIONAL_ID.to_owned()),
                transaction_timeout: TRANSACTION_TIME_MAX,
                linger: Duration::ZERO,
            })?),
        };
        let (answer, changes) =
            decide(&*self.refreshed().map_err(Failed::Decided)?).map_err(Failed::Decided)?;
        if changes.is_empty() {
            return Ok(answer);
        }
        producer.begin()?;
        for change in &changes {
            producer.send(Outgoing {
                topic: TOPIC,
                partition: Some(0),
                key: Some(change.key.as_bytes()),
                value: Some(change.value.as_bytes()),
                headers: &Headers::default(),
                timestamp_ms: now_ms(),
            })?;
        }
        producer.commit()?;
        Ok(answer)
    }

    fn unavailable(&self, error: &LogError) -> RegistryError {
        let address = self.address().to_owned();
        let cause = error.to_string();
        match error {
            LogError::Unauthorised { .. } => RegistryError::Unauthorised { address, cause },
            _ => RegistryError::Unavailable { address, cause },
        }
    }

    /// Subjects and versions in which the schema with this id stands.
    ///
    /// # Errors
    /// As [`Registry::by_id`].
    pub fn places(&self, id: u32) -> Result<Vec<(String, u32)>, RegistryError> {
        self.refreshed()?.places(id)
    }

    /// What keeps `schema` from being compatible with one version of `subject`.
    ///
    /// # Errors
    /// As [`Registry::version`] and [`Registry::objections`].
    pub fn objections_to(
        &self,
        subject: &str,
        version: Version,
        schema: &str,
    ) -> Result<Vec<String>, RegistryError> {
        let normal = normal::parse(schema)?;
        self.refreshed()?.objections_to(subject, version, &normal)
    }

    /// The level of a subject that has one of its own.
    ///
    /// # Errors
    /// When the log does not answer.
    pub fn own_level(&self, subject: &str) -> Result<Option<Level>, RegistryError> {
        Ok(self.refreshed()?.own_level(subject))
    }

    /// The level of subjects without one of their own.
    ///
    /// # Errors
    /// When the log does not answer.
    pub fn global_level(&self) -> Result<Level, RegistryError> {
        Ok(self.refreshed()?.global_level())
    }

    /// Sets the level of subjects without one of their own.
    ///
    /// # Errors
    /// When the log does not answer.
    pub fn set_global_level(&self, level: Level) -> Result<(), RegistryError> {
        self.write(|store| {
            if store.global_level() == level {
                return Ok(((), Vec::new()));
            }
            Ok(((), vec![Store::level_change(None, level)?]))
        })
    }
}

impl Registry for EmbeddedRegistry {
    fn address(&self) -> &str {
        self.log.address()
    }
    fn options(&self) -> String {
        match self.log.address() {
            "embedded" => String::new(),
            address => format!("--bootstrap {address}"),
        }
    }
    fn subjects(&self) -> Result<Vec<String>, RegistryError> {
        Ok(self.refreshed()?.subjects())
    }
    fn versions(&self, subject: &str) -> Result<Vec<u32>, RegistryError> {
        self.refreshed()?.versions(subject)
    }
    fn version(&self, subject: &str, version: Version) -> Result<Registered, RegistryError> {
        self.refreshed()?.version(subject, version)
    }
    fn by_id(&self, id: u32) -> Result<String, RegistryError> {
        // What an id means never changes, so what is known is answered even without the log.
        if let Ok(text) = self.known().by_id(id) {
            return Ok(text);
        }
        self.refreshed()?.by_id(id)
    }
    fn lookup(&self, subject: &str, schema: &str) -> Result<Registered, RegistryError> {
        let normal = normal::parse(schema)?;
        self.refreshed()?.lookup(subject, &normal)
    }
    fn objections(&self, subject: &str, schema: &str) -> Result<Vec<String>, RegistryError> {
        let normal = normal::parse(schema)?;
        Ok(self.refreshed()?.objections(subject, &normal))
    }
    fn register(&self, subject: &str, schema: &str) -> Result<u32, RegistryError> {
        let ids = self.register_all(&[(subject, schema)])?;
        ids.into_iter()
            .next()
            .ok_or_else(|| RegistryError::NoSuchSubject(subject.to_owned()))
    }
    /// In one transaction, for each costs a take of the topic's end and some round trips.
    fn register_all(&self, schemas: &[(&str, &str)]) -> Result<Vec<u32>, RegistryError> {
        let mut wanted = Vec::with_capacity(schemas.len());
        for (subject, schema) in schemas {
            wanted.push((*subject, *schema, normal::parse(schema)?));
        }
        self.write(|store| store.registrations(&wanted))
    }
    fn level(&self, subject: &str) -> Result<Level, RegistryError> {
        Ok(self.refreshed()?.level(subject))
    }
    fn set_level(&self, subject: &str, level: Level) -> Result<(), RegistryError> {
        self.write(|store| {
            if store.own_level(subject) == Some(level) {
                return Ok(((), Vec::new()));
            }
            Ok(((), vec![Store::level_change(Some(subject), level)?]))
        })
    }
}

/// Why one attempt to write ended.
enum Failed {
    /// Trying again would end the same.
    Decided(RegistryError),
    /// The log failed, perhaps because another instance took over.
    Log(LogError),
}

impl From<LogError> for Failed {
    fn from(error: LogError) -> Self {
        Failed::Log(error)
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
