//! Lines of a file, plain or gzip, from a byte offset on. A quoted CSV field may hold line breaks.

use flate2::read::MultiGzDecoder;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

/// An open file.
pub struct Lines {
    input: Box<dyn BufRead + Send>,
    /// Offset of the next byte, after decompression.
    pub offset: u64,
    /// Number of the next line, from 1.
    pub line: u64,
    compressed: bool,
}

/// One line.
#[derive(Debug, PartialEq)]
pub enum Line {
    /// Its bytes, without the line break.
    Whole(Vec<u8>),
    /// It is longer than allowed; the beginning of it.
    TooLong(Vec<u8>),
    /// The file ends; a last line without a break is still being written.
    End,
}

impl Lines {
    /// Opens a file at a place where a line begins.
    pub fn open(path: &Path, offset: u64, line: u64) -> io::Result<Lines> {
        let mut file = File::open(path)?;
        let compressed = path.extension().is_some_and(|e| e == "gz");
        let input: Box<dyn BufRead + Send> = if compressed {
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
            compressed,
        })
    }

    /// Takes the next line. `quoted`: a break within double quotes does not end it.
    pub fn next(&mut self, bytes_max: usize, quoted: bool) -> io::Result<Line> {
        let mut bytes = Vec::new();
        let mut breaks = 0;
        loop {
            let room = (bytes_max + 2).saturating_sub(bytes.len()) as u64;
            let read = Read::by_ref(&mut self.input)
                .take(room)
                .read_until(b'\n', &mut bytes)?;
            let ended = bytes.last() == Some(&b'\n');
            breaks += u64::from(ended && read > 0);
            if read == 0 || !ended {
                if bytes.len() > bytes_max {
                    return self.too_long(bytes, breaks);
                }
                if bytes.is_empty() || !self.compressed {
                    return Ok(Line::End);
                }
            }
            let open_quote = quoted && bytes.iter().filter(|b| **b == b'"').count() % 2 == 1;
            if open_quote && ended && bytes.len() <= bytes_max {
                continue;
            }
            self.offset += bytes.len() as u64;
            self.line += breaks.max(1);
            while bytes.last().is_some_and(|b| matches!(b, b'\n' | b'\r')) {
                bytes.pop();
            }
            return Ok(if bytes.len() > bytes_max {
                Line::TooLong(bytes)
            } else {
                Line::Whole(bytes)
            });
        }
    }

    /// Passes over the rest of a line without keeping it.
    fn too_long(&mut self, bytes: Vec<u8>, breaks: u64) -> io::Result<Line> {
        self.offset += bytes.len() as u64;
        loop {
            let buffer = self.input.fill_buf()?;
            if buffer.is_empty() {
                break;
            }
            let (used, done) = match buffer.iter().position(|b| *b == b'\n') {
                Some(at) => (at + 1, true),
                None => (buffer.len(), false),
            };
            self.input.consume(used);
            self.offset += used as u64;
            if done {
                break;
            }
        }
        self.line += breaks + 1;
        Ok(Line::TooLong(bytes))
    }
}

fn check_length(length: u64, offset: u64) -> io::Result<()> {
    if length >= offset {
        return Ok(());
    }
    let message = format!(
        "it has {length} bytes, but {offset} were read of it before: it was cut or replaced"
    );
    Err(io::Error::new(io::ErrorKind::InvalidData, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn read_all(path: &Path, mut offset: u64, mut line: u64, reopen: bool) -> Vec<(u64, String)> {
        let mut lines = Lines::open(path, offset, line).expect("opened");
        let mut found = Vec::new();
        loop {
            let number = lines.line;
            match lines.next(100, true).expect("read") {
                Line::Whole(bytes) => found.push((number, String::from_utf8(bytes).expect("text"))),
                Line::TooLong(bytes) => {
                    found.push((number, format!("too long: {}", bytes.len() > 100)))
                }
                Line::End => return found,
            }
            (offset, line) = (lines.offset, lines.line);
            if reopen {
                lines = Lines::open(path, offset, line).expect("opened again");
            }
        }
    }

    #[test]
    fn lines_are_the_same_from_every_place_plain_and_compressed() {
        let folder = tempfile::tempdir().expect("folder");
        let text = format!("a,b\r\n1,\"two\nlines\"\n{}\nlast,1\n", "x".repeat(500));
        let plain = folder.path().join("a.csv");
        std::fs::write(&plain, &text).expect("written");
        let packed = folder.path().join("a.csv.gz");
        let mut encoder = flate2::write::GzEncoder::new(
            File::create(&packed).expect("file"),
            flate2::Compression::fast(),
        );
        encoder.write_all(text.as_bytes()).expect("compressed");
        encoder.finish().expect("finished");
        let expected = vec![
            (1, "a,b".to_owned()),
            (2, "1,\"two\nlines\"".into()),
            (4, "too long: true".into()),
            (5, "last,1".into()),
        ];
        for path in [&plain, &packed] {
            assert_eq!(read_all(path, 0, 1, false), expected);
            assert_eq!(read_all(path, 0, 1, true), expected);
        }
    }

    #[test]
    fn a_last_line_without_break_waits_until_it_is_whole() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("growing.csv");
        std::fs::write(&path, "one\ntw").expect("written");
        let mut lines = Lines::open(&path, 0, 1).expect("opened");
        assert_eq!(
            lines.next(100, true).expect("read"),
            Line::Whole(b"one".to_vec())
        );
        assert_eq!(lines.next(100, true).expect("read"), Line::End);
        std::fs::write(&path, "one\ntwo\n").expect("grown");
        let mut lines = Lines::open(&path, lines.offset, lines.line).expect("opened");
        assert_eq!(
            lines.next(100, true).expect("read"),
            Line::Whole(b"two".to_vec())
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
        assert!(error.contains("cut or replaced"), "{error}");
    }
}
