//! Records of a file, plain or gzip, from a byte offset on. A record is a line, or several where a
//! quoted CSV field holds line breaks.
//!
//! Lines are looked at before they are taken, so that a quote that is never closed costs one line
//! and not all that follow it.

use flate2::read::MultiGzDecoder;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// An open file.
pub struct Lines {
    input: Box<dyn BufRead + Send>,
    /// Offset of the next line that is not taken, after decompression.
    pub offset: u64,
    /// Its number, from 1.
    pub line: u64,
    /// Lines that were read ahead.
    ahead: VecDeque<Physical>,
}

/// A line as it stands in the file.
struct Physical {
    /// Its bytes with the line break; of a line that is too long, the beginning.
    bytes: Vec<u8>,
    /// Its length with the line break.
    length: u64,
    /// Whether it ends with a line break.
    ended: bool,
}

/// What comes next.
#[derive(Debug, PartialEq)]
pub enum Next {
    /// A record: its bytes without the last line break, and how many lines it takes.
    Record(Vec<u8>, usize),
    /// A line that begins a quoted field which is closed nowhere within what a record may have, or
    /// not at a field's end.
    OpenQuote(Vec<u8>),
    /// A line longer than allowed; the beginning of it.
    TooLong(Vec<u8>),
    /// A last line without a line break, which may still be written on.
    Unfinished,
    /// The file ends.
    End,
}

/// How records are told apart.
#[derive(Clone, Copy, Debug)]
pub struct Form {
    /// Byte between two CSV fields; `None` where a line is a record whatever it holds.
    pub delimiter: Option<u8>,
    /// Longest record, in bytes.
    pub bytes_max: usize,
    /// Whether a last line without a line break is whole.
    pub finished: bool,
}

impl Lines {
    /// Opens a file at a place where a line begins.
    pub fn open(path: &Path, offset: u64, line: u64) -> io::Result<Lines> {
        let mut file = File::open(path)?;
        let input: Box<dyn BufRead + Send> = if is_compressed(path) {
            let mut input = BufReader::with_capacity(1 << 16, MultiGzDecoder::new(file));
            // A compressed file has no other way to a place in it.
            let skipped = io::copy(&mut Read::by_ref(&mut input).take(offset), &mut io::sink())?;
            check_length(skipped, offset)?;
            Box::new(input)
        } else {
            check_length(file.metadata()?.len(), offset)?;
            file.seek(SeekFrom::Start(offset))?;
            Box::new(BufReader::with_capacity(1 << 16, file))
        };
        Ok(Lines {
            input,
            offset,
            line,
            ahead: VecDeque::new(),
        })
    }

    /// Looks at the next record without taking it.
    pub fn peek(&mut self, form: Form) -> io::Result<Next> {
        let mut record = Vec::new();
        let (mut quote, mut is_torn) = (Quote::FieldStart, false);
        for count in 1.. {
            if self.ahead.len() < count && !self.read_line(form.bytes_max)? {
                if record.is_empty() {
                    return Ok(Next::End);
                }
                return Ok(self.open_quote(form.finished));
            }
            let line = &self.ahead[count - 1];
            if !line.ended && !form.finished {
                return Ok(Next::Unfinished);
            }
            let (mut bytes, mut length) = (line.bytes.as_slice(), line.length);
            if count == 1 && self.offset == 0 && bytes.starts_with(BYTE_ORDER_MARK) {
                bytes = &bytes[BYTE_ORDER_MARK.len()..];
                length -= BYTE_ORDER_MARK.len() as u64;
            }
            let too_long = record.len() as u64 + length > form.bytes_max as u64 + 2;
            if too_long && count == 1 {
                return Ok(Next::TooLong(bytes.to_vec()));
            }
            if too_long {
                return Ok(self.open_quote(true));
            }
            record.extend_from_slice(bytes);
            if let Some(delimiter) = form.delimiter {
                is_torn |= quote.follow(bytes, delimiter);
            }
            if !quote.is_open() {
                // The quote that closes the field was meant to open another.
                if is_torn && count > 1 {
                    return Ok(self.open_quote(true));
                }
                let broken = |b: &u8| matches!(b, b'\n' | b'\r');
                while record.last().is_some_and(broken) {
                    record.pop();
                }
                return Ok(match record.len() > form.bytes_max {
                    true => Next::TooLong(record),
                    false => Next::Record(record, count),
                });
            }
        }
        Ok(Next::End)
    }

    fn open_quote(&self, finished: bool) -> Next {
        match self.ahead.front() {
            Some(first) if finished => Next::OpenQuote(first.bytes.clone()),
            _ => Next::Unfinished,
        }
    }

    /// Takes `count` lines that were looked at.
    pub fn take(&mut self, count: usize) {
        for line in self.ahead.drain(..count.min(self.ahead.len())) {
            self.offset += line.length;
            self.line += 1;
        }
    }

    /// Reads one more line ahead; `false` at the end. Of a line that is too long, the rest is
    /// passed over without being kept.
    fn read_line(&mut self, bytes_max: usize) -> io::Result<bool> {
        let room = (bytes_max + BYTE_ORDER_MARK.len() + 2) as u64;
        let mut bytes = Vec::new();
        let read = Read::by_ref(&mut self.input)
            .take(room)
            .read_until(b'\n', &mut bytes)?;
        let mut length = read as u64;
        let mut ended = bytes.last() == Some(&b'\n');
        while !ended && length >= room {
            let buffer = self.input.fill_buf()?;
            if buffer.is_empty() {
                break;
            }
            let end = buffer.iter().position(|b| *b == b'\n');
            let used = end.map_or(buffer.len(), |at| at + 1);
            ended = end.is_some();
            self.input.consume(used);
            length += used as u64;
        }
        if length > 0 {
            self.ahead.push_back(Physical {
                bytes,
                length,
                ended,
            });
        }
        Ok(length > 0)
    }
}

/// Whether a file is gzip, by its name.
pub fn is_compressed(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "gz")
}

/// Where in a CSV record its quotes stand: a quote opens at the beginning of a field only, and two
/// within quotes are one of the text (RFC 4180).
#[derive(Clone, Copy, PartialEq)]
enum Quote {
    FieldStart,
    Plain,
    Open,
    /// Behind a quote within quotes: the end of the field, or half of a doubled one.
    Closing,
}

impl Quote {
    /// Whether a closing quote was followed by something else than the end of the field.
    fn follow(&mut self, bytes: &[u8], delimiter: u8) -> bool {
        let mut is_torn = false;
        for byte in bytes {
            is_torn |= *self == Quote::Closing && ![b'"', b'\r', b'\n', delimiter].contains(byte);
            *self = match (*self, *byte) {
                (Quote::FieldStart, b'"') => Quote::Open,
                (Quote::Open, b'"') => Quote::Closing,
                (Quote::Open, _) => Quote::Open,
                (Quote::Closing, b'"') => Quote::Open,
                (_, b) if b == delimiter => Quote::FieldStart,
                _ => Quote::Plain,
            };
        }
        is_torn
    }
    fn is_open(self) -> bool {
        self == Quote::Open
    }
}

fn check_length(length: u64, offset: u64) -> io::Result<()> {
    if length >= offset {
        return Ok(());
    }
    let message = format!(
        "it has {length} bytes, but {offset} were read of it before: it was cut; put the whole file back, or remove it and give what is new under another name"
    );
    Err(io::Error::new(io::ErrorKind::InvalidData, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    fn form(finished: bool) -> Form {
        Form {
            delimiter: Some(b','),
            bytes_max: 100,
            finished,
        }
    }

    fn compressed(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).expect("compressed");
        encoder.finish().expect("finished")
    }

    /// Everything that a file holds, each record with the number of its first line.
    fn read_all(path: &Path, reopen: bool, finished: bool) -> Vec<(u64, String)> {
        let mut lines = Lines::open(path, 0, 1).expect("opened");
        let mut found = Vec::new();
        loop {
            let number = lines.line;
            let (what, taken) = match lines.peek(form(finished)).expect("read") {
                Next::Record(bytes, count) => (String::from_utf8_lossy(&bytes).into_owned(), count),
                Next::OpenQuote(_) => ("open quote".to_owned(), 1),
                Next::TooLong(bytes) => (format!("too long: {}", bytes.len() > 100), 1),
                Next::Unfinished | Next::End => return found,
            };
            found.push((number, what));
            lines.take(taken);
            if reopen {
                lines = Lines::open(path, lines.offset, lines.line).expect("opened again");
            }
        }
    }

    #[test]
    fn records_are_the_same_from_every_place_plain_and_compressed() {
        let folder = tempfile::tempdir().expect("folder");
        let text = format!(
            "\u{feff}a,b\r\n1,\"two\nlines\"\n{}\n5\" pipe,\"say \"\"hi\"\"\"\nlast,1\n",
            "x".repeat(500)
        );
        let plain = folder.path().join("a.csv");
        std::fs::write(&plain, &text).expect("written");
        let packed = folder.path().join("a.csv.gz");
        std::fs::write(&packed, compressed(text.as_bytes())).expect("written");
        let expected = vec![
            (1, "a,b".to_owned()),
            (2, "1,\"two\nlines\"".into()),
            (4, "too long: true".into()),
            (5, "5\" pipe,\"say \"\"hi\"\"\"".into()),
            (6, "last,1".into()),
        ];
        for path in [&plain, &packed] {
            assert_eq!(read_all(path, false, true), expected);
            assert_eq!(read_all(path, true, true), expected);
        }
    }

    #[test]
    fn a_quote_that_is_never_closed_costs_its_line_only() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("quote.csv");
        std::fs::write(&path, "a,1\n\"b,2\nc,3\nd,4\n").expect("written");
        let expected = [(1, "a,1"), (2, "open quote"), (3, "c,3"), (4, "d,4")];
        let expected = expected.map(|(n, t)| (n, t.to_owned())).to_vec();
        assert_eq!(read_all(&path, false, true), expected);
        assert_eq!(read_all(&path, true, true), expected);
        // Also when the file goes on beyond what a record may have.
        let rest: String = (0..100).map(|n| format!("row,{n}\n")).collect();
        std::fs::write(&path, format!("\"b,2\n{rest}")).expect("written");
        let found = read_all(&path, false, true);
        assert_eq!((found.len(), found[0].1.as_str()), (101, "open quote"));
    }

    #[test]
    fn a_last_line_without_break_waits_until_it_is_whole() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("growing.csv");
        std::fs::write(&path, "one\ntw").expect("written");
        let mut lines = Lines::open(&path, 0, 1).expect("opened");
        assert_eq!(
            lines.peek(form(false)).expect("read"),
            Next::Record(b"one".to_vec(), 1)
        );
        lines.take(1);
        assert_eq!(lines.peek(form(false)).expect("read"), Next::Unfinished);
        assert_eq!(
            lines.peek(form(true)).expect("read"),
            Next::Record(b"tw".to_vec(), 1)
        );
        std::fs::write(&path, "one\ntwo\n").expect("grown");
        let mut lines = Lines::open(&path, lines.offset, lines.line).expect("opened");
        assert_eq!(
            lines.peek(form(false)).expect("read"),
            Next::Record(b"two".to_vec(), 1)
        );
    }

    #[test]
    fn a_file_that_was_cut_is_named_so() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("cut.csv");
        std::fs::write(&path, "one\n").expect("written");
        let error = Lines::open(&path, 10, 3)
            .err()
            .expect("refused")
            .to_string();
        assert!(error.contains("it was cut"), "{error}");
    }

    proptest! {
        /// Whatever the bytes are, every line is seen once, plain as compressed, in one go as
        /// reopened at every record.
        #[test]
        fn no_byte_is_lost_whatever_the_file_holds(
            text in proptest::collection::vec(
                prop_oneof![Just(b'"'), Just(b','), Just(b'\n'), Just(b'\r'), Just(b'a'), any::<u8>()],
                0..400,
            )
        ) {
            let folder = tempfile::tempdir().expect("folder");
            let plain = folder.path().join("a.csv");
            std::fs::write(&plain, &text).expect("written");
            let packed = folder.path().join("a.csv.gz");
            std::fs::write(&packed, compressed(&text)).expect("written");
            let expected = read_all(&plain, false, true);
            prop_assert_eq!(&read_all(&plain, true, true), &expected);
            prop_assert_eq!(&read_all(&packed, false, true), &expected);
            let mut lines = Lines::open(&plain, 0, 1).expect("opened");
            loop {
                match lines.peek(form(true)).expect("read") {
                    Next::Record(_, count) => lines.take(count),
                    Next::OpenQuote(_) | Next::TooLong(_) => lines.take(1),
                    Next::Unfinished | Next::End => break,
                }
            }
            prop_assert_eq!(lines.offset, text.len() as u64);
            let breaks = text.iter().filter(|b| **b == b'\n').count() as u64;
            let open_end = u64::from(text.last().is_some_and(|b| *b != b'\n'));
            prop_assert_eq!(lines.line, 1 + breaks + open_end);
        }
    }
}
