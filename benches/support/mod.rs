//! What the benches share: how large a run is, what it ran on, how numbers are shown.
#![allow(dead_code, reason = "each bench uses a part")]

pub mod bare;
pub mod kafka;
pub mod load;
pub mod orders;
pub mod process;

use std::fmt::Write as _;
use std::fs;

/// A full-size number, or the part of it that `CROSSDOCK_BENCH_SCALE` asks for.
pub fn scaled(full: usize) -> usize {
    (full as f64 * scale()) as usize
}

/// `CROSSDOCK_BENCH_SCALE`; 1 is the full size.
pub fn scale() -> f64 {
    let given = std::env::var("CROSSDOCK_BENCH_SCALE").ok();
    given.and_then(|s| s.parse().ok()).unwrap_or(1.0)
}

/// Prints what the bench is and what it runs on.
pub fn announce(what: &str) {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|l| l.starts_with(name));
        line.and_then(|l| l.split(':').nth(1))
            .map_or_else(String::new, |v| v.trim().to_owned())
    };
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let load = read("/proc/loadavg");
    let mut line = format!("# {what}\n# {cpus} cores");
    let _ = write!(line, " {}", field(&read("/proc/cpuinfo"), "model name"));
    let _ = write!(line, ", {}", field(&read("/proc/meminfo"), "MemTotal"));
    let _ = write!(
        line,
        ", load {} before",
        load.split(' ').next().unwrap_or("?")
    );
    println!("{line}, scale {}", scale());
}

/// The middle of `values`; the mean of the two in the middle where there are two.
pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The value that `part` of `values` do not exceed, by linear interpolation.
pub fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else {
        return f64::NAN;
    };
    let at = part * last as f64;
    let (low, high) = (sorted[at as usize], sorted[(at.ceil() as usize).min(last)]);
    low + (high - low) * at.fract()
}
