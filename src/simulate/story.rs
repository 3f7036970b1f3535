//! What happened, in the order in which it did: kept only where somebody wants to read it.

use super::time::BEGIN;
use crate::demo::systems::open;
use crate::domain::Timestamp;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// Lines kept at most: the last ones count.
const LINES_MAX: usize = 4_000;

#[derive(Default)]
pub(super) struct Story {
    wanted: AtomicBool,
    lines: Mutex<Vec<String>>,
}

impl Story {
    pub fn new(wanted: bool) -> Story {
        Story {
            wanted: AtomicBool::new(wanted),
            lines: Mutex::default(),
        }
    }

    /// Adds a line, which is made only where it is kept.
    pub fn tell(&self, at: Timestamp, line: impl FnOnce() -> String) {
        if !self.wanted.load(Ordering::Relaxed) {
            return;
        }
        let mut lines = open(&self.lines);
        if lines.len() < LINES_MAX {
            let line = format!("{}  {}", clock(at), line());
            if lines.last() != Some(&line) {
                lines.push(line);
            }
        }
    }

    pub fn lines(&self) -> Vec<String> {
        open(&self.lines).clone()
    }
}

/// Time since the beginning: hours, minutes, seconds, milliseconds.
fn clock(at: Timestamp) -> String {
    let ms = at.since(BEGIN).as_millis();
    let (seconds, ms) = (ms / 1_000, ms % 1_000);
    format!(
        "{:02}:{:02}:{:02}.{ms:03}",
        seconds / 3_600,
        seconds / 60 % 60,
        seconds % 60
    )
}
