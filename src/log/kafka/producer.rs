//! Idempotent and transactional producers.

use super::super::{GivenUp, GroupGeneration, LogError, Offsets, Outgoing, Producer, ProducerSpec};
use super::consumer::offset_list;
use super::native::{self, Topics};
use super::{CALL_TIME_MAX, KafkaSettings, forward, forward_error, log_error};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{
    BaseProducer, DeliveryResult, Producer as _, ProducerContext, PurgeConfig,
};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Largest record that the client takes; topics say less, and are checked before.
const RECORD_BYTES_MAX: usize = 16 << 20;
/// Records under way: enough to fill requests to a dozen partitions while the last ones are answered.
/// Each costs the client a kilobyte beside its own bytes.
const QUEUE_RECORDS_MAX: usize = 16_000;
/// Reports of failure are taken in after so many records.
const REPORTS_EVERY: u32 = 512;
/// While records are awaited, reports of failure are looked for this often.
const REPORTS_INTERVAL: Duration = Duration::from_millis(20);
/// A new transactional producer waits this long for the end of what its predecessor left.
const INIT_TIME_MAX: Duration = Duration::from_secs(30);

/// What a call may take beyond the time that it was given, before it is given up.
const GRACE: Duration = Duration::from_secs(2);

/// Remembers the first delivery that failed.
#[derive(Default)]
struct Deliveries(Arc<Mutex<Option<LogError>>>);

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        forward(level, facility, message);
    }
    fn error(&self, error: KafkaError, reason: &str) {
        forward_error(&error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();
    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, message)) = result {
            use rdkafka::message::Message;
            let topic = message.topic().to_owned();
            let failure = match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::MessageSizeTooLarge) => LogError::Oversize {
                    topic,
                    bytes: message.payload_len() + message.key_len(),
                    limit: None,
                },
                _ => LogError::Abort(format!("a record for {topic} was not delivered: {error}")),
            };
            self.0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get_or_insert(failure);
        }
    }
}

pub(super) struct KafkaProducer {
    /// Before `producer`, which must outlive them.
    topics: Topics,
    /// Shared with a call that hangs, which keeps its client.
    producer: Arc<BaseProducer<Deliveries>>,
    failed: Arc<Mutex<Option<LogError>>>,
    calls: Calls,
    address: String,
    transactional: bool,
    sent: u32,
    /// Why the producer can no longer be used. The broker may still act on a call that was not
    /// answered, even in a later transaction; so there is none.
    spent: Cell<Option<Spent>>,
}

/// Counts the calls that were given up by all producers of a connection, and those that came back
/// all the same.
#[derive(Clone, Default)]
pub(super) struct Calls(Arc<Counts>);

#[derive(Default)]
struct Counts {
    given_up: AtomicU64,
    came_back: AtomicU64,
}

impl Calls {
    /// A call is no longer waited for. `met` belongs to it: the call's end and this come in either
    /// order, and whichever is second counts that it came back.
    fn give_up(&self, met: &AtomicBool) {
        self.0.given_up.fetch_add(1, Ordering::SeqCst);
        self.end(met);
    }

    /// A call has come back, awaited or not.
    fn end(&self, met: &AtomicBool) {
        if met.swap(true, Ordering::SeqCst) {
            self.0.came_back.fetch_add(1, Ordering::SeqCst);
        }
    }

    pub fn so_far(&self) -> GivenUp {
        // In this order: what comes back in between was given up before.
        let came_back = self.0.came_back.load(Ordering::SeqCst);
        let ever = self.0.given_up.load(Ordering::SeqCst);
        GivenUp {
            ever,
            hanging: ever - came_back,
        }
    }
}

#[derive(Clone, Copy)]
enum Spent {
    Fenced,
    Unknown,
}

impl KafkaProducer {
    pub fn new(
        settings: &KafkaSettings,
        spec: &ProducerSpec,
        calls: Calls,
    ) -> Result<Self, LogError> {
        let mut config = settings.client();
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("partitioner", "murmur2_random")
            // Nobody asks after a record that was delivered.
            .set("delivery.report.only.error", "true")
            .set("compression.type", "lz4")
            .set("linger.ms", spec.linger.as_millis().to_string())
            // The markers of the last transaction are awaited in steps of this.
            .set("retry.backoff.ms", "20")
            .set("retry.backoff.max.ms", "1000")
            .set("message.max.bytes", RECORD_BYTES_MAX.to_string())
            .set(
                "queue.buffering.max.messages",
                QUEUE_RECORDS_MAX.to_string(),
            )
            .set("queue.buffering.max.kbytes", "32768");
        if let Some(id) = &spec.transactional_id {
            let timeout = spec.transaction_timeout.as_millis().to_string();
            config
                .set("transactional.id", id)
                .set("transaction.timeout.ms", &timeout)
                .set("message.timeout.ms", &timeout)
                // The client wants no answer to be waited for longer than a transaction may last.
                .set(
                    "socket.timeout.ms",
                    spec.transaction_timeout
                        .min(CALL_TIME_MAX)
                        .as_millis()
                        .to_string(),
                );
        }
        let failed = Arc::new(Mutex::new(None));
        let error = |e: KafkaError| log_error(&settings.bootstrap, None, &e);
        let producer: BaseProducer<Deliveries> = settings
            .with_extra(config)
            .create_with_context(Deliveries(failed.clone()))
            .map_err(error)?;
        let transactional = spec.transactional_id.is_some();
        let made = KafkaProducer {
            topics: Topics::default(),
            producer: Arc::new(producer),
            failed,
            calls,
            address: settings.bootstrap.clone(),
            transactional,
            sent: 0,
            spent: Cell::new(None),
        };
        if transactional {
            made.producer
                .init_transactions(INIT_TIME_MAX)
                .map_err(|e| made.transaction_error(&e))?;
        }
        Ok(made)
    }

    /// What an error of a transaction call means. Only an error that says that the transaction can
    /// be aborted leaves the producer usable: after anything else the broker may still act on the
    /// call, perhaps in the producer's next transaction.
    fn transaction_error(&self, error: &KafkaError) -> LogError {
        let error = self.meaning(error);
        match error {
            LogError::Fenced(_) => self.spent.set(Some(Spent::Fenced)),
            LogError::Fatal(_) | LogError::Unauthorised { .. } => {
                self.spent.set(Some(Spent::Unknown))
            }
            _ => {}
        }
        error
    }

    /// Refuses any further use of a producer that is spent.
    fn check(&self) -> Result<(), LogError> {
        match self.spent.get() {
            None => Ok(()),
            Some(Spent::Fenced) => Err(LogError::Fenced("as an earlier call told".into())),
            Some(Spent::Unknown) => Err(LogError::Fatal("an earlier call did not end".into())),
        }
    }

    fn meaning(&self, error: &KafkaError) -> LogError {
        use RDKafkaErrorCode as E;
        let words = error.to_string();
        match error.rdkafka_error_code() {
            Some(E::Fenced | E::ProducerFenced | E::InvalidProducerEpoch) => {
                LogError::Fenced(words)
            }
            Some(
                E::Authentication
                | E::SaslAuthenticationFailed
                | E::TransactionalIdAuthorizationFailed,
            ) => LogError::Unauthorised {
                address: self.address.clone(),
                cause: words,
            },
            _ => match error {
                KafkaError::Transaction(e) if e.is_fatal() => LogError::Fatal(words),
                KafkaError::Transaction(e) if e.txn_requires_abort() => LogError::Abort(words),
                _ => LogError::Fatal(words),
            },
        }
    }

    /// Waits until no record is under way.
    fn drained(&self) -> bool {
        let deadline = Instant::now() + CALL_TIME_MAX;
        loop {
            // Records whose report of failure was not taken in are still under way.
            self.producer.poll(Duration::ZERO);
            if self.producer.in_flight_count() == 0 {
                return true;
            }
            if Instant::now() > deadline {
                return false;
            }
            native::push_out(&self.producer, REPORTS_INTERVAL);
        }
    }

    fn delivery_failure(&self) -> Option<LogError> {
        let failed = self
            .failed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        failed.map(|failure| match failure {
            LogError::Abort(words) if !self.transactional => LogError::Other(words),
            failure => failure,
        })
    }
}

impl Producer for KafkaProducer {
    fn begin(&mut self) -> Result<(), LogError> {
        self.check()?;
        self.failed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        self.producer
            .begin_transaction()
            .map_err(|e| self.transaction_error(&e))
    }

    fn send(&mut self, record: Outgoing<'_>) -> Result<(), LogError> {
        self.check()?;
        self.sent = self.sent.wrapping_add(1);
        if self.sent.is_multiple_of(REPORTS_EVERY) {
            self.producer.poll(Duration::ZERO);
        }
        match native::send(&self.producer, &mut self.topics, &record) {
            Ok(()) => Ok(()),
            Err(RDKafkaErrorCode::QueueFull) => Err(LogError::QueueFull),
            Err(RDKafkaErrorCode::MessageSizeTooLarge) => Err(LogError::Oversize {
                topic: record.topic.to_owned(),
                bytes: record.value.map_or(0, <[u8]>::len) + record.key.map_or(0, <[u8]>::len),
                limit: Some(RECORD_BYTES_MAX),
            }),
            Err(code) => {
                let error = KafkaError::MessageProduction(code);
                let meaning = log_error(&self.address, Some(record.topic), &error);
                Err(match meaning {
                    LogError::UnknownTopic { .. } => meaning,
                    _ if self.transactional => LogError::Abort(meaning.to_string()),
                    _ => meaning,
                })
            }
        }
    }

    fn poll(&mut self, wait: Duration) {
        let before = self.producer.in_flight_count();
        self.producer.poll(Duration::ZERO);
        if self.producer.in_flight_count() == before {
            std::thread::sleep(wait);
        }
    }

    fn send_offsets(
        &mut self,
        offsets: &Offsets,
        generation: &GroupGeneration,
    ) -> Result<(), LogError> {
        self.check()?;
        if !generation.0.is::<ConsumerGroupMetadata>() {
            return Err(LogError::Other("the generation is of another log".into()));
        }
        // The client does not keep to the time that it is given here: it waits for ever for a
        // coordinator of the group that cannot be found, or not be reached
        // (https://github.com/confluentinc/librdkafka/issues/5456). Nobody can call it back, so a
        // call that hangs is left to itself, and the producer with it.
        let (producer, generation) = (self.producer.clone(), generation.0.clone());
        let list = offset_list(offsets);
        let (answer, answered) = mpsc::sync_channel(1);
        let (calls, met) = (self.calls.clone(), Arc::new(AtomicBool::new(false)));
        let meets = met.clone();
        let call = move || {
            if let Some(metadata) = generation.downcast_ref::<ConsumerGroupMetadata>() {
                let sent = producer.send_offsets_to_transaction(&list, metadata, CALL_TIME_MAX);
                // Before the answer: whoever has it may be about to let go of the client.
                drop(producer);
                let _ = answer.send(sent);
            }
            calls.end(&meets);
        };
        let thread = std::thread::Builder::new().name("send-offsets".into());
        if let Err(error) = thread.spawn(call) {
            return Err(LogError::Abort(format!("no thread for a call: {error}")));
        }
        match answered.recv_timeout(CALL_TIME_MAX + GRACE) {
            Ok(sent) => sent.map_err(|e| self.transaction_error(&e)),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                self.spent.set(Some(Spent::Unknown));
                self.calls.give_up(&met);
                Err(LogError::Fatal(format!(
                    "the group's coordinator has not taken offsets into the transaction for {:?}: it cannot be \
                     found, or not be reached; this producer is given up, and a new one tries again",
                    CALL_TIME_MAX + GRACE
                )))
            }
        }
    }

    fn commit(&mut self) -> Result<(), LogError> {
        self.check()?;
        let committed = self
            .producer
            .commit_transaction(CALL_TIME_MAX)
            .map_err(|e| self.transaction_error(&e));
        match (committed, self.delivery_failure()) {
            (Ok(()), None) => Ok(()),
            (Ok(()), Some(failure)) => {
                self.spent.set(Some(Spent::Unknown));
                Err(LogError::Fatal(failure.to_string()))
            }
            (Err(error), _) => Err(error),
        }
    }

    fn abort(&mut self) -> Result<(), LogError> {
        self.check()?;
        // Nobody else takes in delivery reports, and the client waits for those of what it drops.
        self.producer
            .purge(PurgeConfig::default().queue().inflight());
        self.drained();
        let aborted = self
            .producer
            .abort_transaction(CALL_TIME_MAX)
            .map_err(|e| self.transaction_error(&e));
        self.delivery_failure();
        aborted
    }

    fn flush(&mut self) -> Result<(), LogError> {
        self.check()?;
        if !self.drained() {
            let words = "records were not acknowledged in time".to_owned();
            // Nothing has been asked of the transaction yet: it can be aborted.
            return Err(if self.transactional {
                LogError::Abort(words)
            } else {
                LogError::TimedOut(words)
            });
        }
        self.delivery_failure().map_or(Ok(()), Err)
    }
}
