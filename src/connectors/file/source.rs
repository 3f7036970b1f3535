//! Reads the files of a connector one after another, and on as they grow.

use super::lines::{Form, Lines, Next, is_compressed};
use super::map::{Mapping, Place};
use super::settings::{Content, Format, PositionBy, Settings};
use super::totals::Totals;
use crate::connectors::mapping::bad;
use crate::domain::{NAMESPACE, Timestamp};
use crate::pipeline::{
    Code, Cursor, Fault, Source, SourceBatch, SourceOrigin, SourceReject, Stage,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use uuid::Uuid;

/// Files of which it is remembered how far they were read; of more, those first by name are taken
/// as read.
const FILES_MAX: usize = 1_000;
/// Bytes by which a file is known again.
const HEAD_BYTES_MAX: u64 = 4_096;
/// Bytes of lines in one batch at most.
const BATCH_BYTES_MAX: usize = 8 << 20;

/// How far the files were read.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
struct Bookmark {
    /// By name, without folder.
    #[serde(default)]
    files: BTreeMap<String, Stand>,
    /// Names up to here that are not in `files` were read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    through: Option<String>,
}

/// How far one file was read.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
struct Stand {
    /// Bytes, after decompression.
    offset: u64,
    /// Number of the next line, from 1.
    line: u64,
    /// How many other files had its name before.
    #[serde(default, skip_serializing_if = "is_zero")]
    generation: u32,
    /// How it begins.
    #[serde(default)]
    head: Head,
    /// What its size and time were when it was read to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ended: Option<Stamp>,
    /// What its lines come to so far.
    #[serde(default, skip_serializing_if = "Totals::is_nothing")]
    totals: Totals,
}

/// The beginning of a file, by which it is known again.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
struct Head {
    bytes: u64,
    digest: Uuid,
}

/// A file's size and when it was last changed.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
struct Stamp {
    size: u64,
    modified: i64,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// A file that is there.
struct Found {
    name: String,
    path: PathBuf,
    stamp: Stamp,
}

/// A file that is open.
struct Open {
    name: String,
    generation: u32,
    lines: Lines,
    columns: Vec<String>,
}

pub(super) struct FileSource {
    instance: String,
    settings: Settings,
    mapping: Option<Mapping>,
    open: Option<Open>,
}

impl FileSource {
    pub fn new(instance: &str, settings: Settings) -> Self {
        FileSource {
            instance: instance.to_owned(),
            settings,
            mapping: None,
            open: None,
        }
    }

    /// Reads one batch. What is wrong with a file is said when the others have nothing more, so
    /// that it does not stop them; only where the order of reading is the order of the facts that
    /// are there, no file is read before those with earlier names.
    pub fn read(&mut self, cursor: Option<&Cursor>) -> Result<SourceBatch, Fault> {
        let mapping = match self.mapping.take() {
            Some(mapping) => mapping,
            None => Mapping::new(&self.instance, &self.settings)?,
        };
        let result = self.read_with(&mapping, cursor);
        self.mapping = Some(mapping);
        result
    }

    fn read_with(
        &mut self,
        mapping: &Mapping,
        cursor: Option<&Cursor>,
    ) -> Result<SourceBatch, Fault> {
        let before = self.bookmark(cursor)?;
        let mut bookmark = before.clone();
        let mut batch = SourceBatch::default();
        batch.cursor.sequence = cursor.map_or(1, |c| c.sequence);
        let mut wrong = None;
        let mut bytes = 0;
        for found in files(&self.settings.path, mapping)? {
            let known = bookmark.files.get(&found.name);
            if known.is_none() && bookmark.through.as_ref() >= Some(&found.name) {
                continue;
            }
            let mut stand = known.cloned().unwrap_or(Stand {
                line: 1,
                ..Stand::default()
            });
            let result = self.read_file(&found, &mut stand, mapping, &mut batch, &mut bytes);
            bookmark.files.insert(found.name, stand);
            let Err(fault) = result else { continue };
            wrong.get_or_insert(fault);
            if !self.may_pass_over() {
                break;
            }
        }
        for (name, stand) in &bookmark.files {
            let is_begun = stand.offset > 0 && stand.ended.is_none();
            if is_begun && wrong.is_none() && !self.exists(name) {
                wrong = Some(unavailable(format!(
                    "{name} went from {} before it was read to its end (line {} is next); put it back or, where it is lost, an empty file of its name",
                    self.settings.path.display(),
                    stand.line
                )));
            }
        }
        bookmark.forget();
        let moved = bookmark != before;
        if let Some(fault) = wrong.filter(|_| !moved) {
            return Err(fault);
        }
        batch.more = moved;
        batch.cursor.bookmark = serde_json::to_value(&bookmark)
            .map_err(|e| defect("a bookmark is not JSON".to_owned()).caused_by(e))?;
        Ok(batch)
    }

    fn bookmark(&self, cursor: Option<&Cursor>) -> Result<Bookmark, Fault> {
        match cursor.map(|c| &c.bookmark) {
            None | Some(serde_json::Value::Null) => Ok(Bookmark::default()),
            Some(value) => Bookmark::deserialize(value).map_err(|e| {
                defect(format!(
                    "the bookmark of {} is not one of a file connector",
                    self.instance
                ))
                .caused_by(e)
            }),
        }
    }

    fn may_pass_over(&self) -> bool {
        self.settings.ordered_by() == PositionBy::Time || self.settings.content != Content::Stock
    }

    fn exists(&self, name: &str) -> bool {
        match self.settings.path.is_dir() {
            true => self.settings.path.join(name).exists(),
            false => self.settings.path.exists(),
        }
    }

    /// Reads on in a file until it ends or the batch is full.
    fn read_file(
        &mut self,
        found: &Found,
        stand: &mut Stand,
        mapping: &Mapping,
        batch: &mut SourceBatch,
        bytes: &mut usize,
    ) -> Result<(), Fault> {
        let lines_max = self.settings.batch_lines_max;
        let is_full = |batch: &SourceBatch, listed: usize, bytes: usize| {
            let lines = batch.records.len() + batch.rejects.len() + listed;
            lines >= lines_max || bytes >= BATCH_BYTES_MAX
        };
        if stand.ended == Some(found.stamp) || is_full(batch, 0, *bytes) {
            return Ok(());
        }
        let form = self.form(found, mapping);
        let Some(mut open) = self.reopen(found, stand, mapping, form)? else {
            return Ok(());
        };
        stand.ended = None;
        let mut listed = Vec::new();
        let whole = Place {
            file: &found.name,
            generation: stand.generation,
            line: 0,
            modified: Timestamp(found.stamp.modified),
        };
        let result = loop {
            if is_full(batch, listed.len(), *bytes) {
                break Ok(true);
            }
            let line = open.lines.line;
            let next = match open.lines.peek(form) {
                Ok(next) => next,
                Err(error) => break Err(unreadable(&found.path, error)),
            };
            let (mut raw, mut taken, mut mapped) = match next {
                Next::Unfinished => break Ok(false),
                Next::End => {
                    stand.ended = Some(found.stamp);
                    break Ok(false);
                }
                Next::TooLong(raw) => {
                    let max = self.settings.line_bytes_max;
                    let message = format!("the line is longer than {max} bytes");
                    let fault = Fault::reject(Stage::Read, Code::Oversize, message);
                    (raw, 1, Err(fault))
                }
                Next::OpenQuote(raw) => {
                    let message =
                        "a quoted field begins here and is not closed as it must be".to_owned();
                    (raw, 1, Err(bad(message)))
                }
                Next::Record(raw, taken) if raw.is_empty() => {
                    open.lines.take(taken);
                    continue;
                }
                Next::Record(raw, taken) => {
                    let row = mapping.splitter.row(&raw, &open.columns);
                    (raw, taken, row.map(Some))
                }
            };
            if mapped.is_err() && taken > 1 {
                // A stray quote has joined lines that do not belong together.
                raw.truncate(raw.iter().position(|b| *b == b'\n').unwrap_or(raw.len()));
                taken = 1;
            }
            *bytes += raw.len();
            let place = Place { line, ..whole };
            if let Ok(Some(row)) = &mapped
                && mapping.skips(row)
            {
                mapped = Ok(None);
            }
            let fact = mapped.and_then(|row| match row {
                None => Ok(None),
                Some(row) => mapping.fact(&row, &place, batch.cursor.sequence).map(Some),
            });
            match fact {
                Ok(None) => {}
                Ok(Some(fact)) => {
                    let at = (&place, batch.cursor.sequence);
                    let told = stand.totals.take(fact, &mut listed, mapping, at);
                    batch.cursor.sequence += i64::from(told.is_some());
                    batch.records.extend(told);
                }
                Err(fault) => batch.rejects.push(SourceReject {
                    origin: SourceOrigin {
                        container: found.name.clone(),
                        item: format!("line {line}"),
                    },
                    raw: Bytes::from(raw),
                    fault,
                }),
            }
            open.lines.take(taken);
        };
        let has_ended = stand.ended.is_some();
        let totals = &mut stand.totals;
        if let Err(fault) = totals.close(listed, has_ended, mapping, &whole, batch) {
            batch.rejects.push(SourceReject {
                origin: SourceOrigin {
                    container: found.name.clone(),
                    item: "its end".to_owned(),
                },
                raw: Bytes::new(),
                fault,
            });
        }
        (stand.offset, stand.line) = (open.lines.offset, open.lines.line);
        stand.head = head(found, stand)?;
        // What was looked at beyond here may be written on: it is read anew.
        if result? {
            self.open = Some(open);
        }
        Ok(())
    }

    fn form(&self, found: &Found, mapping: &Mapping) -> Form {
        let changed = UNIX_EPOCH + Duration::from_micros(found.stamp.modified.unsigned_abs());
        let still = SystemTime::now()
            .duration_since(changed)
            .unwrap_or_default();
        Form {
            delimiter: mapping.splitter.delimiter(),
            bytes_max: self.settings.line_bytes_max,
            finished: is_compressed(&found.path)
                || still >= Duration::from_secs(self.settings.last_line_after_s),
        }
    }

    /// The file, open where it stands; `None` while its line of columns is not whole. A file that
    /// is another than the one that was read begins anew.
    fn reopen(
        &mut self,
        found: &Found,
        stand: &mut Stand,
        mapping: &Mapping,
        form: Form,
    ) -> Result<Option<Open>, Fault> {
        let is_same = |open: &Open| {
            open.name == found.name
                && open.generation == stand.generation
                && open.lines.offset == stand.offset
        };
        if let Some(open) = self.open.take().filter(is_same) {
            return Ok(Some(open));
        }
        let begins = digest(found, stand.head.bytes)?;
        let is_told_anew = self.settings.content != Content::Movements && stand.ended.is_some();
        if stand.offset > 0 && (begins != stand.head || is_told_anew) {
            tracing::info!(
                source = self.instance,
                file = found.name,
                lines = stand.line - 1,
                "a file of this name was read before and is another now: it is read from its start"
            );
            *stand = Stand {
                line: 1,
                generation: stand.generation + 1,
                ..Stand::default()
            };
        }
        let open_at = |offset, line| {
            Lines::open(&found.path, offset, line).map_err(|e| unreadable(&found.path, e))
        };
        let mut columns = self.settings.columns.clone();
        let mut start = None;
        if self.settings.format == Format::Csv && columns.is_empty() {
            let mut lines = open_at(0, 1)?;
            let taken = match lines.peek(form).map_err(|e| unreadable(&found.path, e))? {
                Next::Unfinished | Next::End => return Ok(None),
                Next::TooLong(_) | Next::OpenQuote(_) => {
                    return Err(self.no_columns(found, "its first line is not one of names"));
                }
                Next::Record(line, taken) => {
                    columns = mapping.splitter.columns(&line)?;
                    taken
                }
            };
            lines.take(taken);
            start = Some(lines);
        }
        let missing = mapping.missing(&columns);
        if self.settings.format == Format::Csv && !missing.is_empty() {
            let what = format!(
                "it has no column {}; its columns are {}",
                missing.join(", "),
                columns.join(", ")
            );
            return Err(self.no_columns(found, &what));
        }
        let lines = match start {
            Some(lines) if stand.offset == 0 => lines,
            _ => open_at(stand.offset, stand.line)?,
        };
        Ok(Some(Open {
            name: found.name.clone(),
            generation: stand.generation,
            lines,
            columns,
        }))
    }

    fn no_columns(&self, found: &Found, what: &str) -> Fault {
        unavailable(format!(
            "{}: {what}; correct the settings of {} (fields, delimiter, columns, or names to leave the file out), or replace the file",
            found.path.display(),
            self.instance
        ))
    }
}

impl Bookmark {
    /// Keeps what is remembered bounded.
    fn forget(&mut self) {
        while self.files.len() > FILES_MAX {
            let oldest = self.files.iter().find(|(_, stand)| stand.ended.is_some());
            let Some(name) = oldest.map(|(name, _)| name.clone()) else {
                return;
            };
            self.files.remove(&name);
            self.through = self.through.take().max(Some(name));
        }
    }
}

#[async_trait::async_trait]
impl Source for FileSource {
    fn source_name(&self) -> Option<&str> {
        self.settings.source.as_deref()
    }

    async fn poll(&mut self, _shard: &str, cursor: Option<&Cursor>) -> Result<SourceBatch, Fault> {
        self.read(cursor)
    }
}

/// The files of a connector in the order of their names. A file whose name begins with a dot is
/// still being written.
fn files(path: &Path, mapping: &Mapping) -> Result<Vec<Found>, Fault> {
    let listed = || -> io::Result<Vec<Found>> {
        let mut found = Vec::new();
        let is_folder = std::fs::metadata(path)?.is_dir();
        let paths: Vec<PathBuf> = match is_folder {
            false => vec![path.to_owned()],
            true => std::fs::read_dir(path)?
                .map(|entry| entry.map(|e| e.path()))
                .collect::<io::Result<_>>()?,
        };
        for path in paths {
            let name = path.file_name().unwrap_or_default();
            let name = name.to_string_lossy().into_owned();
            if is_folder && (name.starts_with('.') || !mapping.names.matches(&name)) {
                continue;
            }
            let metadata = match std::fs::metadata(&path) {
                Ok(metadata) if metadata.is_file() => metadata,
                Ok(_) => continue,
                // It went since it was listed.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(e),
            };
            let modified = metadata.modified()?.duration_since(UNIX_EPOCH);
            found.push(Found {
                name,
                path,
                stamp: Stamp {
                    size: metadata.len(),
                    modified: modified.unwrap_or_default().as_micros() as i64,
                },
            });
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    };
    listed().map_err(|e| unreadable(path, e))
}

/// How a file begins, as far as it was read.
fn head(found: &Found, stand: &Stand) -> Result<Head, Fault> {
    if stand.head.bytes == HEAD_BYTES_MAX {
        return Ok(stand.head.clone());
    }
    let known = match is_compressed(&found.path) {
        true => found.stamp.size,
        false => stand.offset,
    };
    digest(found, known.min(HEAD_BYTES_MAX))
}

fn digest(found: &Found, bytes: u64) -> Result<Head, Fault> {
    let mut begins = Vec::new();
    let file = std::fs::File::open(&found.path);
    let read = file.and_then(|file| file.take(bytes.max(2)).read_to_end(&mut begins));
    read.map_err(|e| unreadable(&found.path, e))?;
    if matches!(begins.as_slice(), [0xff, 0xfe, ..] | [0xfe, 0xff, ..]) {
        return Err(unavailable(format!(
            "{} is UTF-16; have it written as UTF-8",
            found.path.display()
        )));
    }
    begins.truncate(bytes as usize);
    Ok(Head {
        bytes: begins.len() as u64,
        digest: Uuid::new_v5(&NAMESPACE, &begins),
    })
}

fn unreadable(path: &Path, error: io::Error) -> Fault {
    let path = path.display();
    unavailable(match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            format!("{path} ends within its gzip stream; where it is not still being written, replace it")
        }
        _ => format!("{path} cannot be read: {error}"),
    })
    .caused_by(error)
}

/// Something that is wrong with a file: it is tried again until somebody has mended it.
fn unavailable(message: String) -> Fault {
    Fault::retry(Stage::Read, Code::Unavailable, message)
}

fn defect(message: String) -> Fault {
    Fault::halt(Stage::Read, Code::Bug, message)
}
