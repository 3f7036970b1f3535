//! Idempotent and transactional producers.

use super::super::{GroupGeneration, LogError, Offsets, Outgoing, Producer, ProducerSpec};
use super::consumer::offset_list;
use super::{CALL_TIME_MAX, KafkaSettings, forward, forward_error, log_error};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{
    BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext, PurgeConfig,
};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Largest record that the client takes; topics say less, and are checked before.
const RECORD_BYTES_MAX: usize = 16 << 20;
/// Delivery reports are taken in after so many records.
const REPORTS_EVERY: u32 = 512;
/// A new transactional producer waits this long for the end of what its predecessor left.
const INIT_TIME_MAX: Duration = Duration::from_secs(30);

/// Remembers the first delivery that failed.
#[derive(Default)]
struct Deliveries(Arc<Mutex<Option<String>>>);

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
            let words = format!(
                "a record for {} was not delivered: {error}",
                message.topic()
            );
            self.0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get_or_insert(words);
        }
    }
}

pub(super) struct KafkaProducer {
    producer: BaseProducer<Deliveries>,
    failed: Arc<Mutex<Option<String>>>,
    address: String,
    transactional: bool,
    sent: u32,
}

impl KafkaProducer {
    pub fn new(settings: &KafkaSettings, spec: &ProducerSpec) -> Result<Self, LogError> {
        let mut config = settings.client();
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("partitioner", "murmur2_random")
            .set("compression.type", "lz4")
            .set("linger.ms", spec.linger.as_millis().to_string())
            // The markers of the last transaction are awaited in steps of this.
            .set("retry.backoff.ms", "20")
            .set("retry.backoff.max.ms", "1000")
            .set("message.max.bytes", RECORD_BYTES_MAX.to_string())
            .set("queue.buffering.max.messages", "200000")
            .set("queue.buffering.max.kbytes", "65536");
        if let Some(id) = &spec.transactional_id {
            let timeout = spec.transaction_timeout.as_millis().to_string();
            config
                .set("transactional.id", id)
                .set("transaction.timeout.ms", &timeout)
                .set("message.timeout.ms", &timeout);
        }
        let failed = Arc::new(Mutex::new(None));
        let error = |e: KafkaError| log_error(&settings.bootstrap, None, &e);
        let producer: BaseProducer<Deliveries> = settings
            .with_extra(config)
            .create_with_context(Deliveries(failed.clone()))
            .map_err(error)?;
        let transactional = spec.transactional_id.is_some();
        let made = KafkaProducer {
            producer,
            failed,
            address: settings.bootstrap.clone(),
            transactional,
            sent: 0,
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

    /// Waits until no record is under way. The client's own flush waits in steps of 100 ms, and its
    /// poll for all the time it is given.
    fn drained(&self) -> bool {
        let deadline = Instant::now() + CALL_TIME_MAX;
        while self.producer.in_flight_count() > 0 {
            if Instant::now() > deadline {
                return false;
            }
            self.producer.poll(Duration::from_millis(1));
        }
        self.producer.poll(Duration::ZERO);
        true
    }

    fn delivery_failure(&self) -> Option<LogError> {
        let failed = self
            .failed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        failed.map(|words| {
            if self.transactional {
                LogError::Abort(words)
            } else {
                LogError::Other(words)
            }
        })
    }
}

impl Producer for KafkaProducer {
    fn begin(&mut self) -> Result<(), LogError> {
        self.failed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        self.producer
            .begin_transaction()
            .map_err(|e| self.transaction_error(&e))
    }

    fn send(&mut self, record: Outgoing<'_>) -> Result<(), LogError> {
        self.sent = self.sent.wrapping_add(1);
        if self.sent.is_multiple_of(REPORTS_EVERY) {
            self.producer.poll(Duration::ZERO);
        }
        let mut out: BaseRecord<'_, [u8], [u8]> =
            BaseRecord::to(record.topic).timestamp(record.timestamp_ms);
        if let Some(partition) = record.partition {
            out = out.partition(partition);
        }
        if let Some(key) = record.key {
            out = out.key(key);
        }
        if let Some(value) = record.value {
            out = out.payload(value);
        }
        if !record.headers.is_empty() {
            let mut headers = OwnedHeaders::new_with_capacity(8);
            for (key, value) in record.headers.iter() {
                headers = headers.insert(Header { key, value });
            }
            out = out.headers(headers);
        }
        match self.producer.send(out) {
            Ok(()) => Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                Err(LogError::QueueFull)
            }
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge), _)) => {
                Err(LogError::Oversize {
                    topic: record.topic.to_owned(),
                    bytes: record.value.map_or(0, <[u8]>::len) + record.key.map_or(0, <[u8]>::len),
                    limit: RECORD_BYTES_MAX,
                })
            }
            Err((error, _)) if self.transactional => {
                match log_error(&self.address, Some(record.topic), &error) {
                    unknown @ LogError::UnknownTopic { .. } => Err(unknown),
                    other => Err(LogError::Abort(other.to_string())),
                }
            }
            Err((error, _)) => Err(log_error(&self.address, Some(record.topic), &error)),
        }
    }

    fn poll(&mut self, wait: Duration) {
        self.producer.poll(wait);
    }

    fn send_offsets(
        &mut self,
        offsets: &Offsets,
        generation: &GroupGeneration,
    ) -> Result<(), LogError> {
        let Some(metadata) = generation.0.downcast_ref::<ConsumerGroupMetadata>() else {
            return Err(LogError::Other("the generation is of another log".into()));
        };
        let sent = self.producer.send_offsets_to_transaction(
            &offset_list(offsets),
            metadata,
            CALL_TIME_MAX,
        );
        sent.map_err(|e| self.transaction_error(&e))
    }

    fn commit(&mut self) -> Result<(), LogError> {
        let committed = self
            .producer
            .commit_transaction(CALL_TIME_MAX)
            .map_err(|e| self.transaction_error(&e));
        match (committed, self.delivery_failure()) {
            (Ok(()), None) => Ok(()),
            (Ok(()), Some(failure)) => Err(LogError::Fatal(failure.to_string())),
            (Err(error), _) => Err(error),
        }
    }

    fn abort(&mut self) -> Result<(), LogError> {
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
