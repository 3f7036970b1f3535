//! A connector's inbox in the log: a topic of one partition, whose order is the order of arrival.
//!
//! Keeping is outside of transactions: a delivery is durable when the log has acknowledged it. What
//! makes one effect of a delivery that was kept twice is its reader, by the delivery's name.

use super::outbox::Outbox;
use crate::codec::Codec;
use crate::contract::Catalogue;
use crate::contract::event::{Blob, Delivery, Event};
use crate::log::{Isolation, Log, Offset, Producer, ProducerSpec, Reader, TopicPartition};
use crate::pipeline::{
    Clock, Code, Fault, Inbox, InboxPage, RawDelivery, Record, SourceOrigin, SourceReject, Stage,
    Verdict,
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a read waits for the first record.
const READ_WAIT: Duration = Duration::from_millis(20);

/// The inbox of one connector instance.
pub struct LogInbox {
    name: String,
    place: TopicPartition,
    log: Arc<dyn Log>,
    clock: Arc<dyn Clock>,
    codec: Arc<Codec>,
    writer: Mutex<Writer>,
    reader: Mutex<Option<Box<dyn Reader>>>,
}

struct Writer {
    outbox: Outbox,
    /// `None` before the first delivery, and after a failure that left its state unknown.
    producer: Option<Box<dyn Producer>>,
}

impl LogInbox {
    /// The inbox of the connector instance `name`. Nothing is asked of the log until it is used.
    pub fn new(
        name: &str,
        log: Arc<dyn Log>,
        clock: Arc<dyn Clock>,
        codec: Arc<Codec>,
        catalogue: &Catalogue,
    ) -> Self {
        LogInbox {
            name: name.to_owned(),
            place: TopicPartition::new(catalogue.inbox_topic(name), 0),
            log,
            clock,
            writer: Mutex::new(Writer {
                outbox: Outbox::new(codec.clone(), catalogue, name),
                producer: None,
            }),
            codec,
            reader: Mutex::new(None),
        }
    }

    fn send(
        &self,
        outbox: &mut Outbox,
        producer: &mut dyn Producer,
        deliveries: &[RawDelivery],
    ) -> Result<(), super::outbox::Failed> {
        for delivery in deliveries {
            let now = self.clock.now();
            let event = Delivery {
                meta: outbox.meta("Delivery", &delivery.id, delivery.received_at.0, now),
                connector: self.name.as_str().into(),
                delivery_id: delivery.id.clone(),
                received_at: delivery.received_at,
                sealed: Blob(delivery.sealed.clone()),
            };
            let topic = &self.place.topic;
            outbox.send_to(
                producer,
                topic,
                Some(self.place.partition),
                &delivery.id,
                &event.into(),
                None,
                now,
            )?;
        }
        producer.flush()?;
        Ok(())
    }

    /// A reader that stands at `position`, or at the first delivery that is still there.
    fn reader_at(
        &self,
        held: &mut Option<Box<dyn Reader>>,
        position: i64,
    ) -> Result<Box<dyn Reader>, Fault> {
        if let Some(reader) = held.take()
            && reader.position(&self.place) == Some(position)
        {
            return Ok(reader);
        }
        let (first, end) = self.log.admin().watermarks(&self.place)?;
        if position < first {
            tracing::warn!(
                connector = self.name,
                position,
                first,
                "deliveries have gone by age before they were read"
            );
        }
        if position > end {
            let message = format!(
                "{} ends at {end}, before {position}, where its reader stands: it is not the topic that was read; write a record without a value under the connector's key into the cursor topic to read it from its beginning",
                self.place
            );
            return Err(Fault::halt(Stage::Read, Code::Configuration, message));
        }
        let from = Offset::At(position.max(first));
        let from = [(self.place.clone(), from)];
        Ok(self.log.reader(&from, Isolation::ReadCommitted)?)
    }

    fn decode(&self, record: &Record) -> Result<RawDelivery, Fault> {
        match self.codec.decode(record)? {
            Event::Delivery(kept) => Ok(RawDelivery {
                id: kept.delivery_id,
                received_at: kept.received_at,
                sealed: kept.sealed.0,
            }),
            other => Err(Fault::reject(
                Stage::Decode,
                Code::WrongContract,
                format!("{} holds a {}", record.origin, other.contract()),
            )),
        }
    }
}

impl Inbox for LogInbox {
    fn keep(&self, deliveries: &[RawDelivery]) -> Result<(), Fault> {
        let Writer { outbox, producer } = &mut *lock(&self.writer);
        let mut usable = match producer.take() {
            Some(producer) => producer,
            None => self.log.producer(&ProducerSpec::default())?,
        };
        match self.send(outbox, usable.as_mut(), deliveries) {
            Ok(()) => {
                *producer = Some(usable);
                Ok(())
            }
            // A new producer is made for the next: this one may still hold what it was given.
            Err(failed) => Err(failed.fault),
        }
    }

    fn read(&self, position: i64, max: usize) -> Result<InboxPage, Fault> {
        let mut held = lock(&self.reader);
        let mut reader = self.reader_at(&mut held, position)?;
        let mut records = Vec::new();
        reader.poll(max, READ_WAIT, &mut records)?;
        let mut page = InboxPage {
            more: records.len() >= max,
            next: reader.position(&self.place).unwrap_or(position),
            ..InboxPage::default()
        };
        for record in records {
            match self.decode(&record) {
                Ok(delivery) => page.deliveries.push((record.origin.offset, delivery)),
                Err(fault) if fault.verdict == Verdict::Reject => {
                    page.unreadable.push(SourceReject {
                        origin: SourceOrigin {
                            container: record.origin.topic.to_string(),
                            item: record.origin.offset.to_string(),
                        },
                        raw: record.value.unwrap_or_default(),
                        fault,
                    });
                }
                Err(fault) => return Err(fault),
            }
        }
        *held = Some(reader);
        Ok(page)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
