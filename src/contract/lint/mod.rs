//! Lints `schemas/`, `schemas/published.lock` and `topics.yaml`: every mistake at once, each with file, line, field, cause
//! and remedy.
//!
//! Pure: [`Sources::read`] reads the files, [`lint`] judges their texts.

mod catalogue;
mod lines;
mod lock;
mod schemas;

pub use lines::Lines;
pub use lock::digest;

use std::fmt;
use std::io;
use std::path::Path;

/// Where the digests of published schemas stand.
const LOCK: &str = "schemas/published.lock";

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// File, as it was named to the linter.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Path to the field within the file, such as `fields.3.type`; empty for the whole.
    pub field: String,
    /// What is wrong.
    pub cause: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.file, self.line)?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        write!(f, "{}; {}", self.cause, self.remedy)
    }
}

/// A file's name and text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Path from the project's folder, with `/`.
    pub path: String,
    /// Its text.
    pub text: String,
}

/// What is linted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources {
    /// Schema files, by path.
    pub schemas: Vec<Source>,
    /// The catalogue.
    pub topics: Source,
    /// Digests of the published schemas, [`digest`] for each.
    pub lock: Source,
}

impl Sources {
    /// Reads `schemas/<domain>/*.avsc`, `schemas/published.lock` and `topics.yaml` of a project.
    ///
    /// # Errors
    /// When a file or folder cannot be read, with its path.
    pub fn read(project: &Path) -> io::Result<Sources> {
        let mut schemas = Vec::new();
        for domain in entries(&project.join("schemas"))? {
            if !domain.is_dir() {
                continue;
            }
            for path in entries(&domain)? {
                if path.extension().is_some_and(|e| e == "avsc") {
                    schemas.push(source(project, &path)?);
                }
            }
        }
        Ok(Sources {
            schemas,
            topics: source(project, &project.join("topics.yaml"))?,
            lock: match source(project, &project.join(LOCK)) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => Source {
                    path: LOCK.to_owned(),
                    text: String::new(),
                },
                lock => lock?,
            },
        })
    }
}

fn entries(folder: &Path) -> io::Result<Vec<std::path::PathBuf>> {
    let mut paths = std::fs::read_dir(folder)
        .and_then(|all| {
            all.map(|entry| Ok(entry?.path()))
                .collect::<io::Result<Vec<_>>>()
        })
        .map_err(|e| named(folder, &e))?;
    paths.sort();
    Ok(paths)
}

fn source(project: &Path, path: &Path) -> io::Result<Source> {
    let text = std::fs::read_to_string(path).map_err(|e| named(path, &e))?;
    let path = path.strip_prefix(project).unwrap_or(path);
    Ok(Source {
        path: path.to_string_lossy().replace('\\', "/"),
        text,
    })
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Every mistake, by file and line. `readers` are the names that may stand as a reader in the
/// catalogue, besides `sinks`.
pub fn lint(sources: &Sources, readers: &[&str]) -> Vec<Finding> {
    let mut found = Vec::new();
    let contracts = schemas::lint(&sources.schemas, &mut found);
    catalogue::lint(&sources.topics, &contracts, readers, &mut found);
    lock::lint(&sources.lock, &sources.schemas, &sources.topics, &mut found);
    found.sort();
    found.dedup();
    found
}

/// How sensitive personal data is: tags in ascending order (DOMAIN.md §2, "PII").
const PII: [&str; 4] = ["none", "INDIRECT", "FINANCIAL", "DIRECT"];

/// Rank of a tag in [`PII`]; `None` when it is none.
fn pii_rank(tag: &str) -> Option<usize> {
    PII.iter().position(|t| *t == tag)
}

/// Collects the findings of one file.
struct Reporter<'a> {
    file: &'a str,
    lines: lines::Lines,
    found: &'a mut Vec<Finding>,
}

impl Reporter<'_> {
    /// A mistake at `field`, a path with dots.
    fn at(&mut self, field: &str, cause: impl Into<String>, remedy: impl Into<String>) {
        self.found.push(Finding {
            file: self.file.to_owned(),
            line: self.lines.of(field),
            field: field.to_owned(),
            cause: cause.into(),
            remedy: remedy.into(),
        });
    }
}

#[cfg(test)]
mod tests;
