//! Scenarios: stories of retail in files that a retailer can write, played on the real processors with
//! the systems around them, and judged.
//!
//! A file names where stock lies and tells in sentences what happens and what must then be
//! (`file` reads it, `words` knows the sentences). `stage` is what it is played on: either log,
//! time that passes only when the story says so. At the end the invariants are judged as in the demo,
//! and whatever was refused or left open without a sentence expecting it is an error.

mod expect;
mod file;
mod money;
mod phrase;
mod stage;
mod words;

use super::Cluster;
use crate::contract::lint::Finding;
use crate::pipeline::Fault;
use std::fmt;

/// Why a scenario did not go as it is written.
#[derive(Debug)]
pub enum Failed {
    /// The file is not a scenario: every mistake in it.
    Written(Vec<Finding>),
    /// A step could not be taken, or what it expects is not so.
    Played {
        /// The file.
        file: String,
        /// The line of the step.
        line: usize,
        /// The step.
        step: String,
        /// What went wrong.
        why: String,
    },
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failed::Written(found) => {
                let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
                f.write_str(&lines.join("\n"))
            }
            Failed::Played {
                file,
                line,
                step,
                why,
            } => write!(f, "{file}:{line}: {step}\n    {why}"),
        }
    }
}

impl std::error::Error for Failed {}

/// A scenario that went as it is written.
pub struct Played {
    /// What it is about, in a line.
    pub title: String,
    /// What the systems did, as JSON lines by system.
    pub ledgers: Vec<(String, String)>,
}

/// Plays the scenario in `text`; `name` is that of its file. On the log of this process, or on a part
/// of a cluster that holds nothing yet.
///
/// # Errors
/// Every mistake in the file, or the first step that did not go as it is written.
pub async fn play(name: &str, text: &str, cluster: Option<&Cluster>) -> Result<Played, Failed> {
    let story = file::read(name, text).map_err(Failed::Written)?;
    let failed = |(line, step, why): (usize, String, String)| Failed::Played {
        file: name.to_owned(),
        line,
        step,
        why,
    };
    let mut stage = stage::Stage::set(&story.world, cluster)
        .await
        .map_err(|fault| failed((1, "the stage is set".into(), told(&fault))))?;
    for step in &story.steps {
        let place = |why: String| failed((step.line, step.sentence.clone(), why));
        stage.take(&step.act).await.map_err(place)?;
    }
    let last = story.steps.last().map_or(1, |s| s.line);
    let ended = stage.end().await;
    ended.map_err(|why| failed((last, "the end".into(), why)))?;
    Ok(Played {
        title: story.title,
        ledgers: stage.ledgers(),
    })
}

fn told(fault: &Fault) -> String {
    match &fault.source {
        Some(source) => format!("{}: {source}", fault.message),
        None => fault.message.clone(),
    }
}

/// The sentences that a scenario may have, with what each means.
pub fn vocabulary() -> Vec<(&'static str, &'static str)> {
    let all = words::PHRASES
        .iter()
        .chain(expect::PHRASES)
        .chain(money::PHRASES);
    all.map(|p| (p.form, p.means)).collect()
}

/// Every mistake in the text of a scenario.
pub fn mistakes(name: &str, text: &str) -> Vec<Finding> {
    file::read(name, text).err().unwrap_or_default()
}
