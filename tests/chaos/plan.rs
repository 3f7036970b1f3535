//! What goes wrong, from a seed. Three hands work side by side: one at the workers, one at the brokers and
//! the network before them, one at the target. Each has a deck of deeds, shuffled anew whenever it has been
//! played, so that every kind comes about before any comes twice as often.

use rand::prelude::*;
use rand_chacha::ChaCha8Rng;
use std::time::Duration;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Kind {
    /// `kill -9` of one to three workers at once; they return at once, or when their sessions are over.
    Kill,
    /// All workers of a kind end in good order and return, one after the other.
    RollingRestart,
    /// One instance, four, two, under the range assignor with static members.
    StormRange,
    /// The same under the cooperative-sticky assignor.
    StormCooperative,
    /// The same where the brokers assign (KIP-848).
    StormServer,
    /// A worker stands still for longer than a session and `max.poll.interval.ms`, and goes on.
    Zombie,
    /// No room is left where a worker keeps its state, while it ends and begins.
    DiskFull,
    /// The schema registry is killed; a worker begins meanwhile.
    RegistryOutage,
    /// A broker stands still.
    BrokerStopped,
    /// `kill -9` of a broker, which returns.
    BrokerKilled,
    /// `kill -9` of the broker that coordinates a transaction, when it is told to end it.
    CoordinatorKilled,
    /// Every request and answer of a broker is held up.
    SlowNetwork,
    /// Connections to a broker are open and nothing passes.
    HalfOpenNetwork,
    /// Connections to a broker are cut.
    CutNetwork,
    /// A connection is cut before the broker is told to end a transaction.
    EndTxnLost,
    /// A connection is cut before the broker's answer that a transaction has ended.
    EndTxnUnanswered,
    /// A broker is told late to end a transaction.
    EndTxnLate,
    /// A connection is half open from the moment at which a transaction should end.
    EndTxnSwallowed,
    /// The target answers 429.
    Target429,
    /// The target answers 500.
    Target500,
    /// The target does what it is asked and never answers.
    TargetCut,
    /// The target does what it is asked and answers late.
    TargetLate,
    /// The target answers what is no answer.
    TargetGarbage,
    /// The target is down.
    TargetDown,
}

/// Who does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hand {
    Workers,
    Brokers,
    Target,
}

impl Hand {
    pub const ALL: [Hand; 3] = [Hand::Workers, Hand::Brokers, Hand::Target];

    /// Rests of the hand between two deeds.
    fn rest_ms(self) -> std::ops::Range<u64> {
        match self {
            Hand::Workers | Hand::Brokers => 200..1_500,
            Hand::Target => 500..3_000,
        }
    }
}

impl Kind {
    pub fn hand(self) -> Hand {
        use Kind::*;
        match self {
            Kill | RollingRestart | StormRange | StormCooperative | StormServer | Zombie
            | DiskFull | RegistryOutage => Hand::Workers,
            BrokerStopped | BrokerKilled | CoordinatorKilled | SlowNetwork | HalfOpenNetwork
            | CutNetwork | EndTxnLost | EndTxnUnanswered | EndTxnLate | EndTxnSwallowed => {
                Hand::Brokers
            }
            Target429 | Target500 | TargetCut | TargetLate | TargetGarbage | TargetDown => {
                Hand::Target
            }
        }
    }

    /// As it is written in options and reports.
    pub fn name(self) -> String {
        use clap::ValueEnum;
        let value = self.to_possible_value().expect("none is hidden");
        value.get_name().to_owned()
    }
}

/// One deed. What it is done to comes from `dice`, so that a deed does not depend on those before it.
pub struct Deed {
    pub kind: Kind,
    /// After the deed before it.
    pub rest: Duration,
    pub dice: ChaCha8Rng,
}

/// The deeds of one hand, without end.
pub struct Plan {
    kinds: Vec<Kind>,
    deck: Vec<Kind>,
    random: ChaCha8Rng,
    hand: Hand,
}

impl Plan {
    pub fn new(seed: u64, hand: Hand, chosen: &[Kind]) -> Plan {
        let kinds = chosen.iter().copied().filter(|k| k.hand() == hand);
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(hand as u64);
        Plan {
            kinds: kinds.collect(),
            deck: Vec::new(),
            random,
            hand,
        }
    }
}

impl Iterator for Plan {
    type Item = Deed;

    /// `None` where none of the hand's kinds was chosen.
    fn next(&mut self) -> Option<Deed> {
        if self.deck.is_empty() {
            self.deck = self.kinds.clone();
            self.deck.shuffle(&mut self.random);
        }
        let kind = self.deck.pop()?;
        Some(Deed {
            kind,
            rest: Duration::from_millis(self.random.random_range(self.hand.rest_ms())),
            dice: ChaCha8Rng::seed_from_u64(self.random.random()),
        })
    }
}
