//! Calls of the client library that its binding lacks, or offers only at a price: the one place with
//! `unsafe`.
//!
//! The binding's `send` copies the topic's name and the name of every header for each record, looks
//! the topic up by its name, and panics at a header name with a zero byte.
#![allow(unsafe_code)]

use crate::log::Outgoing;
use crate::pipeline::Headers;
use rdkafka::bindings as sys;
use rdkafka::client::ClientContext;
use rdkafka::error::{IsError as _, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, Producer as _, ProducerContext};
use rdkafka::types::{RDKafka, RDKafkaRespErr};
use std::ffi::{CString, c_void};
use std::ptr::{self, NonNull};
use std::time::Duration;

/// `RD_KAFKA_PARTITION_UA`: the partitioner chooses.
const PARTITION_BY_KEY: i32 = -1;
/// Headers that a list has room for from the beginning.
const USUAL_HEADERS: usize = 8;

/// The topics that a producer has sent to. To be dropped before the producer.
#[derive(Default)]
pub(super) struct Topics(Vec<Topic>);

struct Topic {
    name: Box<str>,
    handle: NonNull<sys::rd_kafka_topic_t>,
}

// SAFETY: the client library's handles may be used from any thread.
unsafe impl Send for Topic {}

impl Drop for Topic {
    fn drop(&mut self) {
        // SAFETY: the handle is this value's own, and its client still lives.
        unsafe { sys::rd_kafka_topic_destroy(self.handle.as_ptr()) }
    }
}

impl Topics {
    fn handle(
        &mut self,
        client: *mut RDKafka,
        name: &str,
    ) -> Result<*mut sys::rd_kafka_topic_t, RDKafkaErrorCode> {
        if let Some(topic) = self.0.iter().find(|t| *t.name == *name) {
            return Ok(topic.handle.as_ptr());
        }
        let words = CString::new(name).map_err(|_| RDKafkaErrorCode::InvalidTopic)?;
        // SAFETY: `words` ends with a zero byte; without settings the topic takes the client's.
        let handle = unsafe { sys::rd_kafka_topic_new(client, words.as_ptr(), ptr::null_mut()) };
        let handle = NonNull::new(handle).ok_or(RDKafkaErrorCode::InvalidTopic)?;
        self.0.push(Topic {
            name: name.into(),
            handle,
        });
        Ok(handle.as_ptr())
    }
}

/// Hands a record to the client, which copies it.
///
/// # Errors
/// Why the client does not take it; nothing of it is kept then.
pub(super) fn send<C>(
    producer: &BaseProducer<C>,
    topics: &mut Topics,
    record: &Outgoing<'_>,
) -> Result<(), RDKafkaErrorCode>
where
    C: ProducerContext<DeliveryOpaque = ()>,
{
    let client = producer.client().native_ptr();
    let topic = topics.handle(client, record.topic)?;
    let (key, key_length) = parts(record.key);
    let (value, value_length) = parts(record.value);
    let headers = headers(record.headers)?;
    // SAFETY: the tags announce what follows each, in the types that the library's documentation
    // asks for, up to the end tag; `client` and `topic` live as long as `producer` and `topics`;
    // key and value are copied before the call returns.
    let answer = unsafe {
        sys::rd_kafka_producev(
            client,
            sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_RKT,
            topic,
            sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_PARTITION,
            record.partition.unwrap_or(PARTITION_BY_KEY),
            sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_MSGFLAGS,
            sys::RD_KAFKA_MSG_F_COPY,
            sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_VALUE,
            value,
            value_length,
            sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_KEY,
            key,
            key_length,
            sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_TIMESTAMP,
            record.timestamp_ms,
            sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_HEADERS,
            headers,
            sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_END,
        )
    };
    if !answer.is_error() {
        return Ok(());
    }
    if !headers.is_null() {
        // SAFETY: a record that is not taken leaves its headers to the caller.
        unsafe { sys::rd_kafka_headers_destroy(headers) }
    }
    Err(answer.into())
}

/// Address and length; no address at all when there is nothing, which is not the same as no bytes.
fn parts(bytes: Option<&[u8]>) -> (*mut c_void, usize) {
    bytes.map_or((ptr::null_mut(), 0), |b| {
        (b.as_ptr().cast_mut().cast(), b.len())
    })
}

/// The client's own list of headers; null when there are none.
fn headers(given: &Headers) -> Result<*mut sys::rd_kafka_headers_t, RDKafkaErrorCode> {
    if given.is_empty() {
        return Ok(ptr::null_mut());
    }
    // SAFETY: the call has no conditions.
    let list = unsafe { sys::rd_kafka_headers_new(USUAL_HEADERS) };
    for (name, value) in given.entries() {
        let (value, length) = parts(value);
        // SAFETY: name and value are as long as is said, and are copied.
        let answer: RDKafkaRespErr = unsafe {
            sys::rd_kafka_header_add(
                list,
                name.as_ptr().cast(),
                name.len() as isize,
                value,
                length as isize,
            )
        };
        if answer.is_error() {
            // SAFETY: the list has not been handed to anybody.
            unsafe { sys::rd_kafka_headers_destroy(list) }
            return Err(answer.into());
        }
    }
    Ok(list)
}

/// Sends at once what waits for its request to fill, and waits at most so long for the answers. The
/// binding's flush passes no time on, and is over before it is noticed.
pub(super) fn push_out<C: ClientContext + ProducerContext>(
    producer: &BaseProducer<C>,
    wait: Duration,
) {
    let milliseconds = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the client lives as long as `producer`, and may be called from any thread.
    unsafe {
        sys::rd_kafka_flush(producer.client().native_ptr(), milliseconds);
    }
}
