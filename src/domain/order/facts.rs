//! What an order is told by the systems around it.

use super::machine::ShipmentStatus;
use crate::domain::encoding::{Corrupt, Reader, Stored, Write, stored, stored_enum};
use crate::domain::{Decimal, Position, Timestamp};
use compact_str::CompactString as Text;

/// When and by whom something was said: enough to tell old from new, and one fact from another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Said {
    /// Version in its source's own count.
    pub at: Position,
    /// Identity of the fact.
    pub event: u128,
}

/// How the goods of a line reach the customer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Handover {
    /// Sent.
    #[default]
    Ship,
    /// Picked up in a shop or at the kerb.
    Pickup,
    /// Carried out of the shop when it was paid: delivered from the beginning.
    CarryOut,
}

/// A line as it was ordered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Line {
    /// Name of the line within the order.
    pub id: Text,
    /// What.
    pub sku: Text,
    /// How much, with what was cancelled since.
    pub quantity: Decimal,
    /// How it reaches the customer.
    pub handover: Handover,
}

/// An order as one system has it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Where it was sold.
    pub channel: Text,
    /// Its number there.
    pub channel_order: Text,
    /// Currency of every amount.
    pub currency: Text,
    /// What it costs.
    pub grand_total: Decimal,
    /// When it was placed.
    pub placed_at: Timestamp,
    /// Earliest promise to the customer.
    pub promise: Option<Timestamp>,
    /// What was ordered. Names of lines are unique.
    pub lines: Vec<Line>,
}

/// What an order event says, apart from cancellations.
#[derive(Clone, Debug, PartialEq)]
pub enum Statement {
    /// The channel placed or amended it.
    Placed(Snapshot),
    /// The ERP accepted it, or amended it later; without a snapshot it took it as it was.
    Accepted(Option<Snapshot>),
    /// The ERP refused it.
    Rejected,
    /// It must wait (true), or no longer (false).
    Held(bool),
    /// Its books are closed.
    Closed,
}

/// Quantities of lines.
pub type Quantities = Vec<(Text, Decimal)>;

/// A movement of money: each capture, authorisation, chargeback is one, not a running total.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Payment {
    /// What happened.
    pub kind: PaymentKind,
    /// How much.
    pub amount: Decimal,
    /// In which currency.
    pub currency: Text,
}

/// What happened to money.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum PaymentKind {
    #[default]
    Authorised,
    Captured,
    Voided,
    Chargeback,
    ChargebackReversed,
    /// Of no account here: it failed, or is told by the refund that it belongs to.
    Other,
}

/// A claim on stock for a line.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reservation {
    /// For which line.
    pub line: Text,
    /// Units granted and not given back, those that left included.
    pub granted: Decimal,
    /// Units accepted without stock and still owed.
    pub backordered: Decimal,
    /// Whether it still binds stock.
    pub open: bool,
}

/// A fulfilment: the work of one node. Counters are running totals.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shipment {
    /// Where it stands.
    pub status: ShipmentStatus,
    /// What it has of each line.
    pub lines: Vec<ShipmentLine>,
}

/// What a fulfilment has of a line.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct ShipmentLine {
    pub line: Text,
    /// The claim that the units are taken from.
    pub reservation: Option<Text>,
    pub allocated: Decimal,
    pub picked: Decimal,
    pub short: Decimal,
    pub shipped: Decimal,
    pub delivered: Decimal,
    pub cancelled: Decimal,
}

/// Goods that come back: units of each line that are here, or that the customer may keep.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Return {
    /// Units of each line.
    pub returned: Quantities,
}

/// Money on its way back.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Refund {
    /// How far it is.
    pub progress: Progress,
    /// How much.
    pub amount: Decimal,
    /// In which currency.
    pub currency: Text,
    /// Units of each line that it pays for.
    pub units: Quantities,
}

/// How far a refund is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Progress {
    /// Nothing has been set in motion, or it came to nothing.
    #[default]
    Idle,
    /// Approved or sent; it may have had its effect.
    InFlight,
    /// Paid.
    Done,
}

/// A document of the books.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Invoice {
    /// Whether it counts: not cancelled.
    pub valid: bool,
    /// Whether it gives back.
    pub credit: bool,
    /// Amount with tax.
    pub gross: Decimal,
    /// In which currency.
    pub currency: Text,
}

impl Stored for Position {
    fn store(&self, out: &mut Vec<u8>) {
        out.position(*self);
    }
    fn read(reader: &mut Reader<'_>) -> Result<Self, Corrupt> {
        reader.position()
    }
    fn tell(&self) -> serde_json::Value {
        self.to_string().into()
    }
}

stored_enum!(Handover [Ship, Pickup, CarryOut]);
stored_enum!(PaymentKind [Authorised, Captured, Voided, Chargeback, ChargebackReversed, Other]);
stored_enum!(Progress [Idle, InFlight, Done]);
stored!(Said { at, event });
stored!(Line {
    id,
    sku,
    quantity,
    handover
});
stored!(Snapshot {
    channel,
    channel_order,
    currency,
    grand_total,
    placed_at,
    promise,
    lines
});
stored!(Payment {
    kind,
    amount,
    currency
});
stored!(Reservation {
    line,
    granted,
    backordered,
    open
});
stored!(Shipment { status, lines });
stored!(ShipmentLine {
    line,
    reservation,
    allocated,
    picked,
    short,
    shipped,
    delivered,
    cancelled
});
stored!(Return { returned });
stored!(Refund {
    progress,
    amount,
    currency,
    units
});
stored!(Invoice {
    valid,
    credit,
    gross,
    currency
});
