//! Every metric of the platform, named once.
//!
//! Names are `crossdock_` + noun + base unit; labels come from configuration or enums only, never
//! from data.

use crate::contract::event::Outcome;
use prometheus::{
    Encoder, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};
use std::time::Duration;

/// The metrics of a process.
pub struct Telemetry {
    registry: Registry,
    outcomes: IntCounterVec,
    records: IntCounterVec,
    faults: IntCounterVec,
    commits: HistogramVec,
    event_age: GaugeVec,
    restore: IntGaugeVec,
    ready: IntGaugeVec,
    calls: IntCounterVec,
    target_down: IntGaugeVec,
    parked_keys: IntGaugeVec,
    parked_records: IntGaugeVec,
    calls_given_up: IntCounter,
    calls_hanging: IntGauge,
}

/// What a committed transaction did.
pub struct Committed {
    /// Records settled.
    pub records: u64,
    /// Of these, by outcome.
    pub outcomes: std::collections::BTreeMap<&'static str, u64>,
    /// Time from the first record handled to the commit.
    pub took: Duration,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self::new()
    }
}

impl Telemetry {
    /// Metrics at zero.
    ///
    /// # Panics
    /// Never: the names below are valid and distinct, as a test shows.
    pub fn new() -> Self {
        let registry = Registry::new();
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let metric = IntCounterVec::new(Opts::new(name, help), labels).expect("a valid name");
            registry
                .register(Box::new(metric.clone()))
                .expect("a name of its own");
            metric
        };
        let outcomes = counter(
            "crossdock_outcomes_total",
            "Records settled, by outcome",
            &["reader", "outcome"],
        );
        let records = counter(
            "crossdock_records_total",
            "Records read and settled in committed transactions",
            &["reader"],
        );
        let faults = counter(
            "crossdock_faults_total",
            "Faults of tasks and rejected records, by code",
            &["reader", "code"],
        );
        let calls = counter(
            "crossdock_calls_total",
            "Requests that a sink has sent to its target",
            &["reader"],
        );
        let gauge = |name: &str, help: &str| {
            let metric = IntGaugeVec::new(Opts::new(name, help), &["task"]).expect("a valid name");
            registry
                .register(Box::new(metric.clone()))
                .expect("a name of its own");
            metric
        };
        let target_down = gauge(
            "crossdock_target_down",
            "1 while the target answers nobody and is only probed",
        );
        let parked_keys = gauge(
            "crossdock_parked_keys",
            "Keys that are held up while all others go on, those that wait for a dead letter included",
        );
        let parked_records = gauge(
            "crossdock_parked_records",
            "Records that wait in the lines of parked keys",
        );
        let calls_given_up = IntCounter::new(
            "crossdock_log_calls_given_up_total",
            "Calls of the log that did not come back in time and were given up, each with its producer",
        )
        .expect("a valid name");
        let calls_hanging = IntGauge::new(
            "crossdock_log_calls_hanging",
            "Calls of the log that were given up and still hang: a thread and a client each",
        )
        .expect("a valid name");
        let buckets = vec![
            0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0,
        ];
        let options = HistogramOpts::new(
            "crossdock_transaction_seconds",
            "Time from the first record of a transaction handled to its commit",
        );
        let commits =
            HistogramVec::new(options.buckets(buckets), &["reader"]).expect("a valid name");
        let event_age = GaugeVec::new(
            Opts::new(
                "crossdock_event_age_seconds",
                "Age of the oldest record that was read and was not settled, by the log's time; 0 when none was left",
            ),
            &["task"],
        )
        .expect("a valid name");
        let restore = IntGaugeVec::new(
            Opts::new(
                "crossdock_restore_records",
                "Changelog records still to be read before the task can work",
            ),
            &["task"],
        )
        .expect("a valid name");
        let ready = IntGaugeVec::new(
            Opts::new(
                "crossdock_task_ready",
                "1 when the task works, 0 while it restores, waits or has failed",
            ),
            &["task"],
        )
        .expect("a valid name");
        for metric in [
            Box::new(commits.clone()) as Box<dyn prometheus::core::Collector>,
            Box::new(event_age.clone()),
            Box::new(restore.clone()),
            Box::new(ready.clone()),
            Box::new(calls_given_up.clone()),
            Box::new(calls_hanging.clone()),
        ] {
            registry.register(metric).expect("a name of its own");
        }
        Telemetry {
            registry,
            outcomes,
            records,
            faults,
            commits,
            event_age,
            restore,
            ready,
            calls,
            target_down,
            parked_keys,
            parked_records,
            calls_given_up,
            calls_hanging,
        }
    }

    /// Makes every series of `reader` exist at zero, so that an alert on it works from the start.
    pub fn declare(&self, reader: &str) {
        for outcome in Outcome::ALL {
            self.outcomes.with_label_values(&[reader, outcome.symbol()]);
        }
        for code in crate::pipeline::Code::ALL {
            self.faults.with_label_values(&[reader, code.as_str()]);
        }
        self.records.with_label_values(&[reader]);
        self.commits.with_label_values(&[reader]);
        self.calls.with_label_values(&[reader]);
    }

    /// Makes the series of a task exist: not ready yet.
    pub fn declare_task(&self, task: &str) {
        self.ready.with_label_values(&[task]);
        self.restore.with_label_values(&[task]);
        self.event_age.with_label_values(&[task]);
    }

    /// Counts requests to a target.
    pub fn calls(&self, reader: &str, requests: u32) {
        self.calls
            .with_label_values(&[reader])
            .inc_by(u64::from(requests));
    }

    /// Says whether a sink task's target is down, and what is parked.
    pub fn delivery(&self, task: &str, is_down: bool, keys: usize, records: usize) {
        let set = |gauge: &IntGaugeVec, number: usize| {
            let number = i64::try_from(number).unwrap_or(i64::MAX);
            gauge.with_label_values(&[task]).set(number);
        };
        set(&self.target_down, usize::from(is_down));
        set(&self.parked_keys, keys);
        set(&self.parked_records, records);
    }

    /// Counts a transaction, once it has committed.
    pub fn committed(&self, reader: &str, committed: &Committed) {
        self.records
            .with_label_values(&[reader])
            .inc_by(committed.records);
        self.commits
            .with_label_values(&[reader])
            .observe(committed.took.as_secs_f64());
        for (outcome, count) in &committed.outcomes {
            self.outcomes
                .with_label_values(&[reader, outcome])
                .inc_by(*count);
        }
    }

    /// Records that `reader` has settled in committed transactions.
    pub fn settled(&self, reader: &str) -> u64 {
        self.records.with_label_values(&[reader]).get()
    }

    /// Records that `reader` has settled with `outcome`; one that waited first counts again when it
    /// has ended.
    pub fn settled_as(&self, reader: &str, outcome: Outcome) -> u64 {
        let labels = [reader, outcome.symbol()];
        self.outcomes.with_label_values(&labels).get()
    }

    /// How long the oldest record that was read has waited for its outcome.
    pub fn event_age(&self, task: &str, age: Duration) {
        self.event_age
            .with_label_values(&[task])
            .set(age.as_secs_f64());
    }

    /// How many changelog records a task must read before it can work.
    pub fn restoring(&self, task: &str, records: u64) {
        self.restore
            .with_label_values(&[task])
            .set(i64::try_from(records).unwrap_or(i64::MAX));
    }

    /// Counts a fault: of a task, or of a record that was rejected.
    pub fn fault(&self, reader: &str, code: crate::pipeline::Code) {
        self.faults
            .with_label_values(&[reader, code.as_str()])
            .inc();
    }

    /// Says how many calls of the log were given up since the process began, and how many of them hang.
    pub fn given_up(&self, ever: u64, hanging: u64) {
        let before = self.calls_given_up.get();
        self.calls_given_up.inc_by(ever.saturating_sub(before));
        self.calls_hanging
            .set(i64::try_from(hanging).unwrap_or(i64::MAX));
    }

    /// Says whether a task works.
    pub fn ready(&self, task: &str, ready: bool) {
        self.ready.with_label_values(&[task]).set(i64::from(ready));
    }

    /// All metrics in Prometheus' text format.
    pub fn render(&self) -> String {
        let mut out = Vec::new();
        // Writing to memory cannot fail, and the text encoder writes UTF-8.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut out);
        String::from_utf8(out).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_and_code_exists_at_zero() {
        let telemetry = Telemetry::new();
        telemetry.declare("stock-ledger");
        telemetry.declare_task("stock-ledger/0");
        let text = telemetry.render();
        assert!(
            text.contains(
                "crossdock_outcomes_total{outcome=\"DEAD_LETTERED\",reader=\"stock-ledger\"} 0"
            ),
            "{text}"
        );
        assert!(text.contains("code=\"WRONG_KEY\""));
        for series in [
            "crossdock_records_total{reader=\"stock-ledger\"} 0",
            "crossdock_event_age_seconds{task=\"stock-ledger/0\"} 0",
            "crossdock_restore_records{task=\"stock-ledger/0\"} 0",
            "crossdock_task_ready{task=\"stock-ledger/0\"} 0",
            "crossdock_log_calls_given_up_total 0",
            "crossdock_log_calls_hanging 0",
        ] {
            assert!(text.contains(series), "{series}: {text}");
        }
    }

    #[test]
    fn calls_that_were_given_up_are_counted_once_and_hang_until_they_come_back() {
        let telemetry = Telemetry::new();
        for (ever, hanging) in [(2, 2), (2, 2), (3, 1)] {
            telemetry.given_up(ever, hanging);
        }
        let text = telemetry.render();
        assert!(
            text.contains("crossdock_log_calls_given_up_total 3"),
            "{text}"
        );
        assert!(text.contains("crossdock_log_calls_hanging 1"), "{text}");
    }
}
