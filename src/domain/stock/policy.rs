//! The rules that a retailer sets for a position.

use crate::domain::Decimal;
use compact_str::CompactString as Text;

/// What a policy says when stock does not suffice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Oversell {
    /// Refuse.
    #[default]
    Block,
    /// Accept without stock while backorders stay within the limit.
    BackorderToLimit,
    /// Accept without stock.
    Allow,
}

/// A channel's part in a location's stock.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Allocation {
    /// The channel.
    pub channel: Text,
    /// Units kept for the channel.
    pub hard: Option<Decimal>,
    /// Most of the stock that the channel may take, in percent; `None` is no cap.
    pub share_percent: Option<f64>,
    /// Cushion against the channel's delay, subtracted when availability is published.
    pub buffer: Option<Decimal>,
}

/// The rules that hold at one position.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policy {
    /// Version; older ones are superseded.
    pub version: i64,
    /// Units that are never promised.
    pub safety: Decimal,
    /// Parts of the channels. A channel without one draws on what the others leave.
    pub allocations: Vec<Allocation>,
    /// What to do when stock does not suffice.
    pub oversell: Oversell,
    /// Most backordered units under [`Oversell::BackorderToLimit`]; `None` is none.
    pub backorder_limit: Option<Decimal>,
}

impl Policy {
    /// Where nobody set any rules: all stock is for everybody, and nothing is sold beyond it.
    pub const NONE: Policy = Policy {
        version: 0,
        safety: Decimal::ZERO,
        allocations: Vec::new(),
        oversell: Oversell::Block,
        backorder_limit: None,
    };

    /// The part of `channel`.
    pub fn allocation(&self, channel: &str) -> Option<&Allocation> {
        self.allocations.iter().find(|a| a.channel == channel)
    }

    /// Whether `wanted` more units may be accepted without stock when `backordered` are already.
    pub fn may_backorder(&self, backordered: Decimal, wanted: Decimal) -> bool {
        match self.oversell {
            Oversell::Block => false,
            Oversell::Allow => true,
            Oversell::BackorderToLimit => {
                backordered + wanted <= self.backorder_limit.unwrap_or_default()
            }
        }
    }
}
