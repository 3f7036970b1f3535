//! What a log holds and hands out: one record, its headers, and where it stands.

use bytes::{BufMut, Bytes, BytesMut};
use std::fmt::{self, Write as _};
use std::sync::Arc;

/// Header that counts how often a record was redriven from a dead-letter topic.
pub const REDRIVES_HEADER: &str = "crossdock-redrives";
/// Header that names the dead letter which a record was redriven from.
pub const REDRIVEN_FROM_HEADER: &str = "crossdock-redriven-from";
/// Header of a record that a sink is given once more, for itself alone: the name of the replay.
pub const REPLAY_HEADER: &str = "crossdock-replay";

/// Where a record stands in the log: enough to find it again.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    /// Topic name.
    pub topic: Arc<str>,
    /// Partition number, from 0.
    pub partition: i32,
    /// Offset in the partition.
    pub offset: i64,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]@{}", self.topic, self.partition, self.offset)
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One record as read from the log. The byte fields are slices of a buffer shared by the records
/// of one poll: cheap to clone, and worth a [`Record::detached`] copy before keeping one for long.
#[derive(Clone, Debug)]
pub struct Record {
    /// Topic, partition and offset.
    pub origin: Origin,
    /// Kafka's record timestamp in milliseconds: the time of ingest, not of the event.
    pub timestamp_ms: i64,
    /// Key bytes; `None` when the record has no key.
    pub key: Option<Bytes>,
    /// Value bytes; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// Header names and values, in order.
    pub headers: Headers,
}

impl Record {
    /// Whether it is given to a sink once more.
    pub fn is_replayed(&self) -> bool {
        self.headers.text(REPLAY_HEADER).is_some()
    }

    /// A copy that shares no buffer with other records.
    pub fn detached(&self) -> Record {
        Record {
            origin: self.origin.clone(),
            timestamp_ms: self.timestamp_ms,
            key: self.key.as_deref().map(Bytes::copy_from_slice),
            value: self.value.as_deref().map(Bytes::copy_from_slice),
            headers: Headers(Bytes::copy_from_slice(&self.headers.0)),
        }
    }
}

/// The headers of a record, kept packed until somebody looks: most readers never do.
///
/// Layout, private to this type: for each header `u16` name length, name, `i32` value length
/// (-1 = null), value; big-endian.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers(Bytes);

impl Headers {
    /// Wraps bytes laid out by [`HeadersBuilder`].
    pub fn from_packed(packed: Bytes) -> Self {
        Headers(packed)
    }
    /// The packed form, for logs that store it.
    pub fn packed(&self) -> &Bytes {
        &self.0
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// Names and values in order; a null value is `None`, and a name that is not UTF-8 is `?`.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
        self.entries()
            .map(|(name, value)| (std::str::from_utf8(name).unwrap_or("?"), value))
    }
    /// As [`Headers::iter`], with the bytes of the names as they are.
    pub fn entries(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        let mut rest: &[u8] = &self.0;
        std::iter::from_fn(move || {
            let (length, tail) = rest.split_first_chunk::<2>()?;
            let (name, tail) = tail.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
            let (length, tail) = tail.split_first_chunk::<4>()?;
            let length = i32::from_be_bytes(*length);
            let (value, tail) = match usize::try_from(length) {
                Ok(length) => {
                    let (value, tail) = tail.split_at_checked(length)?;
                    (Some(value), tail)
                }
                Err(_) => (None, tail),
            };
            rest = tail;
            Some((name, value))
        })
    }
    /// The last value under `name`, as text.
    pub fn text(&self, name: &str) -> Option<&str> {
        let (_, value) = self.iter().filter(|(n, _)| *n == name).last()?;
        std::str::from_utf8(value?).ok()
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(
                self.iter()
                    .map(|(n, v)| (n, v.map(String::from_utf8_lossy))),
            )
            .finish()
    }
}

impl<'a> FromIterator<(&'a str, Option<&'a [u8]>)> for Headers {
    fn from_iter<I: IntoIterator<Item = (&'a str, Option<&'a [u8]>)>>(iter: I) -> Self {
        let mut builder = HeadersBuilder::default();
        for (name, value) in iter {
            builder.push(name, value);
        }
        builder.build()
    }
}

/// Packs headers one by one.
#[derive(Default)]
pub struct HeadersBuilder(BytesMut);

impl HeadersBuilder {
    /// With room for packed headers of this many bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        HeadersBuilder(BytesMut::with_capacity(bytes))
    }
    /// Adds a header. Names longer than 65,535 bytes are cut.
    pub fn push(&mut self, name: &str, value: Option<&[u8]>) -> &mut Self {
        pack_header(&mut self.0, name, value);
        self
    }
    /// Adds a header whose value is text, written in place.
    pub fn push_text(&mut self, name: &str, value: impl fmt::Display) -> &mut Self {
        pack_header(&mut self.0, name, Some(b""));
        let from = self.0.len();
        // Writing to memory cannot fail.
        let _ = write!(self.0, "{value}");
        let length = (self.0.len() - from) as i32;
        self.0[from - 4..from].copy_from_slice(&length.to_be_bytes());
        self
    }
    /// The packed headers.
    pub fn build(self) -> Headers {
        Headers(self.0.freeze())
    }
}

/// Appends one header in the packed layout of [`Headers`] to `buffer`; for logs that copy many
/// records into one buffer.
pub(crate) fn pack_header(buffer: &mut BytesMut, name: &str, value: Option<&[u8]>) {
    let name = &name.as_bytes()[..name.len().min(usize::from(u16::MAX))];
    buffer.put_u16(name.len() as u16);
    buffer.put_slice(name);
    match value {
        Some(value) => {
            buffer.put_i32(value.len() as i32);
            buffer.put_slice(value);
        }
        None => buffer.put_i32(-1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_keep_order_repeats_and_nulls() {
        let given: [(&str, Option<&[u8]>); 4] = [
            ("a", Some(b"1")),
            ("b", None),
            ("a", Some(b"")),
            ("c", Some(b"x")),
        ];
        let headers: Headers = given.into_iter().collect();
        assert_eq!(headers.iter().collect::<Vec<_>>(), given);
        assert_eq!(headers.text("a"), Some(""));
        assert_eq!(headers.text("b"), None);
    }

    #[test]
    fn text_written_in_place_is_as_text_given() {
        let mut given = HeadersBuilder::default();
        given.push("a", Some(b"12.5")).push("b", Some(b""));
        let mut written = HeadersBuilder::with_capacity(8);
        written.push_text("a", 12.5).push_text("b", "");
        assert_eq!(given.build(), written.build());
    }

    #[test]
    fn packed_bytes_that_lie_about_their_length_end_the_list() {
        let headers = Headers::from_packed(Bytes::from_static(&[0, 1, b'a', 0, 0, 0, 9, b'x']));
        assert_eq!(headers.iter().count(), 0);
    }
}
