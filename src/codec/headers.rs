//! CloudEvents 1.0 headers in binary mode, and W3C trace context.

use crate::contract::event::Event;
use crate::pipeline::{Headers, HeadersBuilder};
use uuid::Uuid;

/// Packed headers are seldom larger.
const USUAL_BYTES: usize = 448;
/// Packed, a `traceparent` alone.
const TRACE_BYTES: usize = 72;

/// Topics between parts of Crossdock.
const INTERNAL: &str = "retail.rt.";

/// The headers of an event written to `topic` under `key`, continuing the trace of `parent` when
/// there is one. What only Crossdock itself reads carries the trace alone: the rest repeats what
/// the value says, for readers that do not open it, and costs more than the value.
pub fn headers(topic: &str, event: &Event, key: &str, parent: Option<&str>) -> Headers {
    let meta = event.meta();
    let traceparent = Child::of(parent, &meta.event_id).text();
    if topic.starts_with(INTERNAL) {
        let mut headers = HeadersBuilder::with_capacity(TRACE_BYTES);
        headers.push("traceparent", Some(&traceparent));
        return headers.build();
    }
    let mut digits = Uuid::encode_buffer();
    let id = meta
        .event_id
        .hyphenated()
        .encode_lower(&mut digits)
        .as_bytes();
    let mut headers = HeadersBuilder::with_capacity(USUAL_BYTES);
    headers
        .push("ce_specversion", Some(b"1.0"))
        .push("ce_id", Some(id))
        .push("ce_type", Some(event.contract().as_bytes()))
        .push("ce_source", Some(meta.source.as_bytes()))
        .push_text("ce_time", meta.occurred_at)
        .push("ce_subject", Some(key.as_bytes()))
        .push("content-type", Some(b"application/vnd.confluent.avro"))
        .push("traceparent", Some(&traceparent));
    headers.build()
}

/// A `traceparent` for the work that made the event `id`: of the trace of `parent`, or of a trace
/// of its own named after the event, so that the same work is the same span wherever it is done.
pub fn child_traceparent(parent: Option<&str>, id: &Uuid) -> compact_str::CompactString {
    let text = Child::of(parent, id).text();
    compact_str::CompactString::from_utf8(text).unwrap_or_default()
}

/// A child's `traceparent`.
struct Child {
    trace: u128,
    span: u64,
}

impl Child {
    fn of(parent: Option<&str>, id: &Uuid) -> Self {
        let own = id.as_u128();
        Child {
            trace: parent.and_then(trace_id).unwrap_or(own).max(1),
            span: ((own >> 64) as u64 ^ own as u64).max(1),
        }
    }

    /// `00-`, 32 digits of the trace, `-`, 16 of the span, `-01`.
    fn text(&self) -> [u8; 55] {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-01";
        // The digits of an id are written faster than those of a number.
        let digits = |number| Uuid::from_u128(number).simple();
        digits(self.trace).encode_lower(&mut text[3..35]);
        let mut span = [0; 32];
        digits(u128::from(self.span)).encode_lower(&mut span);
        text[36..52].copy_from_slice(&span[16..]);
        text
    }
}

/// The trace id of a well-formed `traceparent` (W3C Trace Context, version 00).
fn trace_id(traceparent: &str) -> Option<u128> {
    let mut parts = traceparent.split('-');
    let (version, trace) = (parts.next()?, parts.next()?);
    (version == "00" && trace.len() == 32)
        .then(|| u128::from_str_radix(trace, 16).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_keeps_the_trace_and_has_a_span_of_its_own() {
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let child = child_traceparent(Some(parent), &Uuid::from_u128(7));
        assert!(child.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"));
        assert_ne!(child, parent);
        assert_eq!(child.len(), parent.len());
        assert_eq!(
            child_traceparent(Some("nonsense"), &Uuid::from_u128(7)),
            child_traceparent(None, &Uuid::from_u128(7))
        );
    }
}
