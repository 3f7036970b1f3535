//! What is to happen in a run: who trades what when, and what goes wrong when. All of it follows from
//! the seed and is written down beforehand, so that parts of it can be left out.

use super::cast::{Role, Trade};
use super::port::{Call, Strike};
use super::target::Answer;
use rand::prelude::*;
use rand_chacha::ChaCha8Rng;
use std::fmt;
use std::time::Duration;

/// Everybody knows what is offered where.
pub(super) const OPENING: Duration = Duration::from_secs(20);
/// Trade of an hour.
const DEEDS_IN_HOUR: usize = 60;
/// Time in which one thing follows closely upon the other; then there is a pause.
const BURST: Duration = Duration::from_secs(120);
/// Faults of an hour.
const FAULTS_IN_HOUR: usize = 16;
/// A session: a member that is stopped for longer is expelled.
pub(super) const SESSION: Duration = Duration::from_secs(10);

/// Somebody outside does something.
#[derive(Clone, Debug)]
pub(super) enum Deed {
    /// Goods come in.
    Receive { node: usize, sku: usize, units: i32 },
    /// Goods go over the counter.
    Sell { node: usize, sku: usize, units: i32 },
    /// Somebody counts, and finds so many more or fewer than the node thought.
    Count { node: usize, sku: usize, off: i32 },
    /// A shopper holds goods for so long, and then comes for them, gives them back, or does neither.
    Basket {
        node: usize,
        sku: usize,
        units: i32,
        hold: Duration,
        then: Then,
    },
    /// What was reserved and confirmed is handed out.
    HandOut,
    /// Somebody writes what nobody can read among the facts.
    Junk { sku: usize },
    /// The market goes on by a round: customers order, nodes work, goods and money go back.
    Round(usize),
}

/// What a shopper does with what is held.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Then {
    Confirms,
    Releases,
    WalksAway,
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Deed::Receive { node, sku, units } => {
                write!(f, "node {node} receives {units} of S{sku}")
            }
            Deed::Sell { node, sku, units } => write!(f, "node {node} sells {units} of S{sku}"),
            Deed::Count { node, sku, off } => write!(f, "node {node} counts S{sku}, {off:+} off"),
            Deed::Basket {
                node,
                sku,
                units,
                then,
                ..
            } => write!(
                f,
                "a shopper holds {units} of S{sku} at node {node} and then {}",
                match then {
                    Then::Confirms => "takes them",
                    Then::Releases => "gives them back",
                    Then::WalksAway => "walks away",
                }
            ),
            Deed::HandOut => f.write_str("what is confirmed is handed out"),
            Deed::Junk { sku } => write!(f, "somebody writes junk among the facts of S{sku}"),
            Deed::Round(n) => write!(f, "round {n} of the market"),
        }
    }
}

/// Something goes wrong.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// It happens to the call that the instance makes so many such calls later.
    Strike {
        role: usize,
        slot: usize,
        call: Call,
        skip: u32,
        what: Strike,
    },
    /// The instance ends between two steps, and comes back after a while.
    Crash { role: usize, slot: usize },
    /// The instance ends in order, and comes back after a while.
    Leave { role: usize, slot: usize },
    /// The group goes on without the instance, which does not know.
    Expel { role: usize, slot: usize },
    /// One more instance, for a while.
    Join { role: usize, stays: Duration },
    /// The instance's clock is set so many milliseconds ahead or behind.
    Clock {
        role: usize,
        slot: usize,
        ahead_ms: i64,
    },
    /// The registry does not answer.
    Registry { lasts: Duration },
    /// A system answers the next calls like this.
    Answers { system: usize, answers: Vec<Answer> },
    /// A system does not answer at all.
    Down { system: usize, lasts: Duration },
    /// A source takes so long over its next reads, or fails at them.
    Reading {
        system: usize,
        reads: u32,
        takes: Duration,
        fails: bool,
    },
    /// What a system tells comes so much later.
    Delay {
        system: usize,
        by: Duration,
        lasts: Duration,
    },
    /// A system fails at whatever it is called for about one key, the next that it is called for, while it
    /// answers for others.
    Stubborn { system: usize, lasts: Duration },
    /// A source begins further back than where it was: it tells the last records once more.
    Repeats { system: usize, records: usize },
    /// The log compacts what it keeps of state.
    Compact,
}

impl Fault {
    /// What kind it is, for the count.
    pub fn kind(&self) -> &'static str {
        match self {
            Fault::Strike { what, .. } => match what {
                Strike::Fail => "a call fails",
                Strike::AnswerLost => "an answer is lost",
                Strike::CrashBefore => "crash before a call",
                Strike::CrashAfter => "crash after a call",
                Strike::StopBefore(_) | Strike::StopAfter(_) => "stopped in a call",
                Strike::Outlived(_) => "expelled in a call",
            },
            Fault::Crash { .. } => "crash between steps",
            Fault::Leave { .. } => "orderly end",
            Fault::Expel { .. } => "expelled",
            Fault::Join { .. } => "one more instance",
            Fault::Clock { .. } => "clock set",
            Fault::Registry { .. } => "registry away",
            Fault::Answers { .. } => "odd answers",
            Fault::Down { .. } => "system away",
            Fault::Reading { .. } => "slow or failing source",
            Fault::Delay { .. } => "late facts",
            Fault::Stubborn { .. } => "a key fails",
            Fault::Repeats { .. } => "facts told again",
            Fault::Compact => "compaction",
        }
    }
}

/// A run as it is planned.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub seed: u64,
    pub trade: Trade,
    /// When trade ends.
    pub length: Duration,
    /// Instances of each reader at first.
    pub slots: usize,
    /// Whether state is kept in checkpoints as well.
    pub checkpoints: bool,
    /// How far clocks are apart at first, in milliseconds.
    pub skew_ms: i64,
    /// Share of facts that are told twice and out of order.
    pub twice: f64,
    pub deeds: Vec<(Duration, Deed)>,
    pub faults: Vec<(Duration, Fault)>,
}

impl Plan {
    /// The plan of a seed for so many hours.
    pub fn of(seed: u64, trade: Trade, hours: f64) -> Plan {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let length = OPENING + Duration::from_secs_f64(hours * 3_600.0);
        let mut plan = Plan {
            seed,
            trade,
            length,
            slots: random.random_range(1..=2),
            checkpoints: random.random_bool(0.25),
            skew_ms: *[0, 0, 200, 4_000].choose(&mut random).unwrap_or(&0),
            twice: *[0.0, 0.1, 0.4].choose(&mut random).unwrap_or(&0.0),
            deeds: Vec::new(),
            faults: Vec::new(),
        };
        let count = |in_hour: usize| (in_hour as f64 * hours).ceil() as usize;
        plan.deeds = match trade {
            Trade::Stock => stock_deeds(&mut random, count(DEEDS_IN_HOUR), length),
            Trade::Orders => rounds(&mut random, length),
        };
        let faults = random.random_range(0..=count(2 * FAULTS_IN_HOUR));
        let roles = trade.roles();
        let systems: Vec<bool> = trade.systems().into_iter().map(|(_, told)| told).collect();
        for _ in 0..faults {
            // Most of them when there is something to go wrong.
            let near = plan.deeds.choose(&mut random).map(|(at, _)| *at);
            let at = near.unwrap_or(OPENING) + Duration::from_millis(random.random_range(0..3_000));
            let fault = fault(&mut random, &roles, &systems);
            plan.faults.push((at, fault));
        }
        // Groups are struck while they form as well.
        for _ in 0..random.random_range(0..4) {
            let at = Duration::from_millis(random.random_range(0..4_000));
            plan.faults.push((at, strike(&mut random, &roles)));
        }
        plan.faults.sort_by_key(|(at, _)| *at);
        plan
    }
}

fn stock_deeds(random: &mut ChaCha8Rng, count: usize, length: Duration) -> Vec<(Duration, Deed)> {
    let mut deeds: Vec<(Duration, Deed)> = Vec::new();
    let span = length.saturating_sub(OPENING).as_millis() as u64;
    let bursts: Vec<u64> = (0..count.div_ceil(20))
        .map(|_| random.random_range(0..span))
        .collect();
    for _ in 0..count {
        let burst = bursts.choose(random).copied().unwrap_or_default();
        let within = random.random_range(0..BURST.as_millis() as u64);
        let at = OPENING + Duration::from_millis((burst + within).min(span));
        let (node, sku) = (random.random_range(0..2), random.random_range(0..5));
        let units = random.random_range(1..6);
        let deed = match random.random_range(0..21) {
            0..4 => Deed::Receive { node, sku, units },
            4..10 => Deed::Sell { node, sku, units },
            10..12 => Deed::Count {
                node,
                sku,
                off: random.random_range(-2..=2),
            },
            12..18 => Deed::Basket {
                node,
                sku,
                units,
                hold: Duration::from_secs(random.random_range(20..1_500)),
                then: match random.random_range(0..10) {
                    0..6 => Then::Confirms,
                    6..8 => Then::Releases,
                    _ => Then::WalksAway,
                },
            },
            18 => Deed::Junk { sku },
            _ => Deed::HandOut,
        };
        deeds.push((at, deed));
    }
    deeds.sort_by_key(|(at, _)| *at);
    deeds
}

/// Rounds of the market, more or less evenly.
fn rounds(random: &mut ChaCha8Rng, length: Duration) -> Vec<(Duration, Deed)> {
    let span = length.saturating_sub(OPENING);
    let step = (span / 40).clamp(Duration::from_secs(5), Duration::from_secs(40));
    let count = (span.as_secs_f64() / step.as_secs_f64()) as u32;
    let at = |n: u32, random: &mut ChaCha8Rng| {
        OPENING + step * n + step.mul_f64(random.random_range(0.0..0.9))
    };
    (0..count)
        .map(|n| (at(n, random), Deed::Round(n as usize)))
        .collect()
}

/// `systems` says of each whether it is told anything.
fn fault(random: &mut ChaCha8Rng, roles: &[Role], systems: &[bool]) -> Fault {
    let role = random.random_range(0..roles.len());
    let slot = random.random_range(0..2);
    let seconds = |random: &mut ChaCha8Rng, range: std::ops::Range<u64>| {
        Duration::from_millis(random.random_range(range.start * 1_000..range.end * 1_000))
    };
    let system = random.random_range(0..systems.len());
    let told = (0..systems.len()).filter(|s| systems[*s]);
    let told = told.choose(random).unwrap_or(system);
    match random.random_range(0..100) {
        0..52 => strike(random, roles),
        52..58 => Fault::Crash { role, slot },
        58..61 => Fault::Leave { role, slot },
        61..65 => Fault::Expel { role, slot },
        65..69 => Fault::Join {
            role,
            stays: seconds(random, 5..600),
        },
        69..72 => Fault::Clock {
            role,
            slot,
            ahead_ms: random.random_range(-5_000..5_000),
        },
        72..75 => Fault::Registry {
            lasts: seconds(random, 2..90),
        },
        75..86 => {
            let answers = (0..random.random_range(1..6)).map(|_| Answer::any(random));
            Fault::Answers {
                system: told,
                answers: answers.collect(),
            }
        }
        86..89 => Fault::Stubborn {
            system: told,
            lasts: seconds(random, 10..900),
        },
        89..92 => Fault::Down {
            system,
            lasts: seconds(random, 5..240),
        },
        92..94 => Fault::Reading {
            system,
            reads: random.random_range(1..4),
            takes: seconds(random, 0..30),
            fails: random.random_bool(0.5),
        },
        94..96 => Fault::Repeats {
            system,
            records: random.random_range(1..30),
        },
        96..98 => Fault::Delay {
            system,
            by: seconds(random, 1..120),
            lasts: seconds(random, 10..120),
        },
        _ => Fault::Compact,
    }
}

fn strike(random: &mut ChaCha8Rng, roles: &[Role]) -> Fault {
    use Call::{
        Abort, Begin, Commit, Committed, Flush, Join, OpenProducer, OpenReader, Pause, Poll, Read,
        Resume, Seek, Send, SendOffsets, Watermarks,
    };
    let weights = [
        (Commit, 30),
        (SendOffsets, 12),
        (Send, 14),
        (Poll, 10),
        (Begin, 4),
        (Abort, 3),
        (Seek, 5),
        (Committed, 5),
        (Read, 4),
        (OpenProducer, 4),
        (OpenReader, 3),
        (Watermarks, 3),
        (Pause, 1),
        (Resume, 1),
        (Flush, 2),
        (Join, 1),
    ];
    let chosen = weights.choose_weighted(random, |(_, weight)| *weight);
    let call = chosen.map_or(Commit, |(call, _)| *call);
    let stop = |random: &mut ChaCha8Rng| {
        let seconds = *[2, 15, 40, 320].choose(random).unwrap_or(&2);
        Duration::from_millis(random.random_range(seconds * 500..seconds * 1_000))
    };
    let what = match random.random_range(0..100) {
        0..25 => Strike::Fail,
        25..45 => Strike::AnswerLost,
        45..60 => Strike::CrashBefore,
        60..80 => Strike::CrashAfter,
        80..87 => Strike::StopBefore(stop(random)),
        87..94 => Strike::StopAfter(stop(random)),
        // Not for as long as its transaction lasts: it comes back with one that is open.
        _ => Strike::Outlived(Duration::from_millis(random.random_range(1_000..8_000))),
    };
    Fault::Strike {
        role: random.random_range(0..roles.len()),
        slot: random.random_range(0..2),
        call,
        skip: *[0, 0, 0, 1, 2, 5].choose(random).unwrap_or(&0),
        what,
    }
}
