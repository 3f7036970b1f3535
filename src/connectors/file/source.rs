//! Reads the files of a connector one after another.

use super::lines::{Line, Lines};
use super::map::{self, Mapping};
use super::{Format, Settings};
use crate::contract::topic;
use crate::domain::compound_key;
use crate::pipeline::{
    Code, Cursor, Fault, Source, SourceBatch, SourceOrigin, SourceRecord, SourceReject, Stage,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where reading goes on.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
struct Bookmark {
    /// Name of the file, without folder.
    file: String,
    /// Bytes read of it, after decompression.
    offset: u64,
    /// Number of the next line, from 1.
    line: u64,
}

pub(super) struct FileSource {
    instance: String,
    settings: Arc<Settings>,
    /// The file that is open, where it stands, and its columns.
    open: Option<(Bookmark, Lines, Vec<String>)>,
}

impl FileSource {
    pub fn new(instance: &str, settings: Settings) -> Self {
        FileSource {
            instance: instance.to_owned(),
            settings: Arc::new(settings),
            open: None,
        }
    }

    fn read(&mut self, cursor: Option<&Cursor>) -> Result<SourceBatch, Fault> {
        let settings = self.settings.clone();
        let mapping = Mapping::new(&self.instance, &settings)?;
        let mut cursor = cursor.cloned().unwrap_or(Cursor {
            bookmark: serde_json::Value::Null,
            sequence: 1,
        });
        let bookmark: Option<Bookmark> = match &cursor.bookmark {
            serde_json::Value::Null => None,
            value => Some(serde_json::from_value(value.clone()).map_err(|e| {
                Fault::halt(
                    Stage::Read,
                    Code::Bug,
                    format!(
                        "the bookmark of {} is not one of a file connector",
                        self.instance
                    ),
                )
                .caused_by(e)
            })?),
        };
        let files = files(&settings.path).map_err(|e| unreadable(&settings.path, e))?;
        let mut batch = SourceBatch::default();
        let Some(at) = self.place(&files, bookmark)? else {
            batch.cursor = cursor;
            return Ok(batch);
        };
        let (lines, columns) = self.opened(&files, &at)?;
        let file = at.file.clone();
        let mut ended = false;
        while batch.records.len() + batch.rejects.len() < settings.batch_lines_max {
            let number = lines.line;
            let quoted = settings.format == Format::Csv;
            let (line, too_long) = match lines
                .next(settings.line_bytes_max, quoted)
                .map_err(|e| unreadable(Path::new(&file), e))?
            {
                Line::End => {
                    ended = true;
                    break;
                }
                Line::Whole(line) => (line, false),
                Line::TooLong(line) => (line, true),
            };
            if line.is_empty() {
                continue;
            }
            let mapped = if too_long {
                let message = format!("the line is longer than {} bytes", settings.line_bytes_max);
                Err(Fault::reject(Stage::Read, Code::Oversize, message))
            } else {
                mapping
                    .row(&line, columns)
                    .and_then(|row| match mapping.skips(&row) {
                        true => Ok(None),
                        false => mapping
                            .movement(&row, &file, number, cursor.sequence)
                            .map(Some),
                    })
            };
            match mapped {
                Ok(None) => {}
                Ok(Some(event)) => {
                    cursor.sequence += 1;
                    let key = compound_key(&[&event.sku, &event.location_id]);
                    batch.records.push(SourceRecord {
                        topic: topic::STOCK_CHANGE,
                        key,
                        event: event.into(),
                    });
                }
                Err(fault) => batch.rejects.push(SourceReject {
                    origin: SourceOrigin {
                        container: file.clone(),
                        item: format!("line {number}"),
                    },
                    raw: Bytes::from(line),
                    fault,
                }),
            }
        }
        let stands = Bookmark {
            file: file.clone(),
            offset: lines.offset,
            line: lines.line,
        };
        let later = files.iter().any(|f| name_of(f) > file);
        batch.more = !ended || later;
        if let Some((at, _, _)) = &mut self.open {
            *at = stands.clone();
        }
        cursor.bookmark = serde_json::to_value(&stands).map_err(|e| {
            Fault::halt(Stage::Read, Code::Bug, "a bookmark is not JSON").caused_by(e)
        })?;
        batch.cursor = cursor;
        Ok(batch)
    }

    /// Where to read: on in the bookmark's file or, when that is at its end, in the next one.
    fn place(
        &mut self,
        files: &[PathBuf],
        bookmark: Option<Bookmark>,
    ) -> Result<Option<Bookmark>, Fault> {
        let beginning = |f: &PathBuf| Bookmark {
            file: name_of(f),
            offset: 0,
            line: 1,
        };
        let Some(at) = bookmark else {
            return Ok(files.first().map(beginning));
        };
        let next = files.iter().find(|f| name_of(f) > at.file);
        let Some(next) = next else {
            return Ok(files.iter().any(|f| name_of(f) == at.file).then_some(at));
        };
        let bytes_max = self.settings.line_bytes_max;
        let (lines, _) = self.opened(files, &at)?;
        let before = (lines.offset, lines.line);
        let ended = lines
            .next(bytes_max, true)
            .map_err(|e| unreadable(Path::new(&at.file), e))?
            == Line::End;
        if ended {
            return Ok(Some(beginning(next)));
        }
        self.open = None;
        Ok(Some(Bookmark {
            file: at.file,
            offset: before.0,
            line: before.1,
        }))
    }

    /// The open file at `at`, with its columns; opened anew unless it stands there already.
    fn opened(
        &mut self,
        files: &[PathBuf],
        at: &Bookmark,
    ) -> Result<(&mut Lines, &[String]), Fault> {
        // A plain file is opened again for each batch: it may have grown, and the cost is a seek.
        let reuse =
            at.file.ends_with(".gz") && self.open.as_ref().is_some_and(|(open, _, _)| open == at);
        if !reuse {
            let Some(path) = files.iter().find(|f| name_of(f) == at.file) else {
                let message = format!(
                    "{} is gone from {} before it was read to its end; put it back",
                    at.file,
                    self.settings.path.display()
                );
                return Err(Fault::halt(Stage::Read, Code::Configuration, message));
            };
            let mut columns = Vec::new();
            let mut lines = Lines::open(path, 0, 1).map_err(|e| unreadable(path, e))?;
            if self.settings.format == Format::Csv {
                let first = lines
                    .next(self.settings.line_bytes_max, true)
                    .map_err(|e| unreadable(path, e))?;
                if let Line::Whole(line) = first {
                    let text = String::from_utf8_lossy(&line);
                    columns =
                        map::split(text.trim_start_matches('\u{feff}'), self.settings.delimiter)?;
                }
            }
            if at.offset > 0 {
                lines = Lines::open(path, at.offset, at.line).map_err(|e| unreadable(path, e))?;
            }
            self.open = Some((at.clone(), lines, columns));
        }
        match &mut self.open {
            Some((_, lines, columns)) => Ok((lines, columns)),
            None => Err(Fault::halt(
                Stage::Read,
                Code::Bug,
                "a file was opened and is not open",
            )),
        }
    }
}

#[async_trait::async_trait]
impl Source for FileSource {
    async fn poll(&mut self, _shard: &str, cursor: Option<&Cursor>) -> Result<SourceBatch, Fault> {
        self.read(cursor)
    }
}

/// The files of a connector in the order of their names. A file whose name begins with a dot is
/// still being written.
pub(super) fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        std::fs::metadata(path)?;
        return Ok(vec![path.to_owned()]);
    }
    let mut files: Vec<PathBuf> = std::fs::read_dir(path)?
        .filter_map(|e| e.ok().map(|e| e.path()))
        .filter(|p| p.is_file() && !name_of(p).starts_with('.'))
        .collect();
    files.sort_by_key(|p| name_of(p));
    Ok(files)
}

fn name_of(path: &Path) -> String {
    path.file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default()
}

fn unreadable(path: &Path, error: io::Error) -> Fault {
    let message = format!("{} cannot be read: {error}", path.display());
    match error.kind() {
        // A file that was cut stays cut: reading on would mix two contents.
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
            Fault::halt(Stage::Read, Code::Configuration, message)
        }
        io::ErrorKind::UnexpectedEof => Fault::halt(Stage::Read, Code::Truncated, message),
        _ => Fault::retry(Stage::Read, Code::Unavailable, message),
    }
}
