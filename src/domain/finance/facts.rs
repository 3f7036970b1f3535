//! What is heard of an order's money.

use super::machine::RefundStatus;
use crate::domain::encoding::{stored, stored_enum};
use crate::domain::money::Money;
use crate::domain::{Decimal, Timestamp};
use compact_str::CompactString as Text;

/// What a provider did with a customer's money.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum PaymentKind {
    Captured,
    Chargeback,
    ChargebackReversed,
}
stored_enum!(PaymentKind [Captured, Chargeback, ChargebackReversed]);

/// One movement of a customer's money: a capture (each partial one its own), a chargeback, its end.
#[derive(Clone, Debug, PartialEq)]
pub struct Payment {
    /// What happened.
    pub kind: PaymentKind,
    /// The payment that it belongs to.
    pub payment: Text,
    /// How much.
    pub money: Money,
}
stored!(Payment {
    kind,
    payment,
    money
});

/// Kind of a document of the ERP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum InvoiceKind {
    Invoice,
    CreditNote,
    DebitNote,
}
stored_enum!(InvoiceKind [Invoice, CreditNote, DebitNote]);

/// A document of the ERP.
#[derive(Clone, Debug, PartialEq)]
pub struct Invoice {
    /// Its kind.
    pub kind: InvoiceKind,
    /// Whether it counts: it was not cancelled.
    pub live: bool,
    /// The refund that a credit note is for, if it names one.
    pub refund: Option<u128>,
    /// The return that a credit note is for, if it names one.
    pub return_id: Option<Text>,
    /// Without tax.
    pub net: Money,
    /// The tax, in the same currency.
    pub tax: Money,
}
stored!(Invoice {
    kind,
    live,
    refund,
    return_id,
    net,
    tax
});

/// What a part of a refund is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AllocationKind {
    /// Goods that came back.
    Item,
    /// Delivery.
    Shipping,
    /// Goods that were never sent.
    Cancellation,
    /// Goodwill, without goods.
    Appeasement,
    /// Kept back for handling a return: less than zero.
    Fee,
    /// Tax alone.
    TaxAdjustment,
}
stored_enum!(AllocationKind [Item, Shipping, Cancellation, Appeasement, Fee, TaxAdjustment]);

/// A part of a refund.
#[derive(Clone, Debug, PartialEq)]
pub struct Allocation {
    /// The order line, where it is for one.
    pub line: Option<Text>,
    /// Units of the line.
    pub quantity: Decimal,
    /// Without tax.
    pub net: Decimal,
    /// The tax.
    pub tax: Decimal,
    /// What it is for.
    pub kind: AllocationKind,
}
stored!(Allocation {
    line,
    quantity,
    net,
    tax,
    kind
});

impl Allocation {
    /// Net and tax.
    pub fn gross(&self) -> Decimal {
        self.net + self.tax
    }
    /// Whether it gives money back for units of an order line.
    pub fn is_for_goods(&self) -> bool {
        matches!(
            self.kind,
            AllocationKind::Item | AllocationKind::Cancellation
        )
    }
}

/// A refund as refund-gate tells it.
#[derive(Clone, Debug, PartialEq)]
pub struct RefundFact {
    /// Where it stands.
    pub status: RefundStatus,
    /// The return that it is for, if it names one.
    pub return_id: Option<Text>,
    /// How much.
    pub money: Money,
    /// For what.
    pub allocations: Vec<Allocation>,
}
stored!(RefundFact {
    status,
    return_id,
    money,
    allocations
});

/// What becomes of goods that came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Disposition {
    /// They are sold again.
    Restock,
    /// The customer keeps them.
    Keep,
    /// Anything else: nothing becomes sellable.
    Other,
}
stored_enum!(Disposition [Restock, Keep, Other]);

/// A line of a return.
#[derive(Clone, Debug, PartialEq)]
pub struct ReturnLine {
    /// The order line that comes back.
    pub line: Text,
    /// Units accepted so far.
    pub accepted: Decimal,
    /// What becomes of them.
    pub disposition: Disposition,
}
stored!(ReturnLine {
    line,
    accepted,
    disposition
});

/// A return, its quantities cumulative.
#[derive(Clone, Debug, PartialEq)]
pub struct ReturnFact {
    /// Whether it counts: it was neither declined nor cancelled.
    pub live: bool,
    /// Its lines.
    pub lines: Vec<ReturnLine>,
}
stored!(ReturnFact { live, lines });

impl ReturnFact {
    /// Units of `line` accepted.
    pub fn accepted(&self, line: &str) -> Decimal {
        let of_line = self.lines.iter().filter(|l| self.live && l.line == line);
        of_line.map(|l| l.accepted.or_zero()).sum()
    }
    /// Units accepted of all lines.
    pub fn accepted_in_all(&self) -> Decimal {
        let live = self.lines.iter().filter(|_| self.live);
        live.map(|l| l.accepted.or_zero()).sum()
    }
}

/// Goods of a return put where they can be sold, or held for a look at them.
#[derive(Clone, Debug, PartialEq)]
pub struct Restock {
    /// The return, if the movement names it.
    pub return_id: Option<Text>,
    /// The order line, if the movement names it.
    pub line: Option<Text>,
    /// Units.
    pub quantity: Decimal,
}
stored!(Restock {
    return_id,
    line,
    quantity
});

/// What was agreed for a line of an order.
#[derive(Clone, Debug, PartialEq)]
pub struct OrderLine {
    /// Which line.
    pub line: Text,
    /// Units ordered.
    pub quantity: Decimal,
    /// What the customer pays for them, tax included.
    pub total: Money,
    /// The tax in it.
    pub tax: Money,
}
stored!(OrderLine {
    line,
    quantity,
    total,
    tax
});

/// What was agreed for an order.
#[derive(Clone, Debug, PartialEq)]
pub struct OrderTerms {
    /// Its lines.
    pub lines: Vec<OrderLine>,
    /// When it was agreed.
    pub at: Timestamp,
}
stored!(OrderTerms { lines, at });
