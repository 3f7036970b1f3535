//! What follows from everything known of an order: where its units are, its status, its money.
//!
//! Pure: the same facts and decisions give the same view, in whatever order they came. Where sources
//! contradict each other, goods decide: what left the house has left it.

use super::book::Order;
use super::facts::{Handover, Line, PaymentKind, Progress, ShipmentLine};
use super::machine::{Bucket, OrderStatus, SHIPMENT, ShipmentStatus};
use crate::domain::cases::{Finding, Severity};
use crate::domain::{Decimal, Timestamp};
use compact_str::CompactString as Text;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long facts may overtake each other before what contradicts is an exception. What costs money by
/// the minute is one at once.
pub const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// How many units of a line are in each bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Buckets([Decimal; Bucket::ALL.len()]);

impl Buckets {
    /// Units in a bucket.
    pub fn of(&self, bucket: Bucket) -> Decimal {
        self.0[bucket as usize]
    }
    /// Units in all of them: what was ordered.
    pub fn sum(&self) -> Decimal {
        self.0.iter().copied().sum()
    }
    fn fill(&mut self, bucket: Bucket, wanted: Decimal, rest: &mut Decimal) {
        let taken = wanted.or_zero().min(*rest);
        self.0[bucket as usize] = taken;
        *rest -= taken;
    }
}

/// Where a line stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LineState {
    /// Name of the line.
    pub id: Text,
    /// What.
    pub sku: Text,
    /// How much was ordered.
    pub ordered: Decimal,
    /// Where it is: sums to `ordered` always.
    pub buckets: Buckets,
    /// Units that came back, or that the customer may keep.
    pub returned: Decimal,
    /// Units whose money was paid back.
    pub refunded: Decimal,
    handover: Handover,
    /// Units that wait for the customer.
    ready: Decimal,
    /// Units that left, more than were ordered included.
    gone: Decimal,
    /// Units that left although they were cancelled.
    gone_cancelled: Decimal,
    /// Units that a node did not find, and nobody else supplies.
    short: Decimal,
}

impl LineState {
    /// Units that left the house.
    fn left(&self) -> Decimal {
        self.buckets.of(Bucket::Shipped) + self.buckets.of(Bucket::Delivered)
    }
    /// Units still wanted: ordered and not cancelled.
    fn wanted(&self) -> Decimal {
        self.ordered - self.buckets.of(Bucket::Cancelled)
    }
}

/// An order as a whole. Amounts are in its currency.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct View {
    pub status: OrderStatus,
    pub closed: bool,
    pub channel: Text,
    pub channel_order: Text,
    pub currency: Text,
    pub grand_total: Decimal,
    pub placed_at: Timestamp,
    pub promise: Option<Timestamp>,
    pub lines: Vec<LineState>,
    pub authorised: Decimal,
    pub captured: Decimal,
    pub charged_back: Decimal,
    pub refunded: Decimal,
    pub refund_in_flight: Decimal,
    pub invoiced: Decimal,
    pub credited: Decimal,
}

/// What all sources together say of one line.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    at_node: Decimal,
    short: Decimal,
    picked: Decimal,
    ready: Decimal,
    gone: Decimal,
    delivered: Decimal,
    granted: Decimal,
    backordered: Decimal,
    returned: Decimal,
    refunded: Decimal,
}

impl Order {
    /// The order as it stands, and what contradicts in it. No view while nobody has told what was
    /// ordered; that is a contradiction too when there are facts that wait for it.
    pub fn project(&self) -> (Option<View>, Vec<Finding>) {
        let mut found = Vec::new();
        let Some(snapshot) = self.snapshot() else {
            if let Some(orphan) = self.orphan() {
                found.push(orphan);
            }
            return (None, found);
        };
        let lines = self.line_states();
        for line in &lines {
            contradictions_of(line, &mut found);
        }
        self.contradictions_of_objects(&mut found);
        let currency = snapshot.currency.clone();
        let mut view = View {
            status: OrderStatus::Placed,
            closed: self.sides.values().any(|s| s.closed.is_some()),
            channel: snapshot.channel.clone(),
            channel_order: snapshot.channel_order.clone(),
            grand_total: snapshot.grand_total,
            placed_at: snapshot.placed_at,
            promise: snapshot.promise,
            lines,
            currency,
            ..View::default()
        };
        self.add_money(&mut view, &mut found);
        view.status = self.status(&view.lines);
        (Some(view), found)
    }

    /// The lines with their buckets.
    pub(super) fn line_states(&self) -> Vec<LineState> {
        let sums = self.sums();
        let cancelled = self.cancelled();
        let lines = self
            .snapshot()
            .map(|s| s.lines.as_slice())
            .unwrap_or_default();
        let state = |line: &Line| {
            let sums = sums.get(&*line.id).copied().unwrap_or_default();
            let cancelled = cancelled.get(&*line.id).copied().unwrap_or_default();
            line_state(line, sums, cancelled)
        };
        lines.iter().map(state).collect()
    }

    fn sums(&self) -> BTreeMap<&str, Sums> {
        let mut sums: BTreeMap<&str, Sums> = BTreeMap::new();
        for shipment in self.shipments.values().map(|l| &l.value) {
            let counted = shipment.lines.iter().any(|l| l.delivered.is_positive());
            for line in &shipment.lines {
                let at = counters(shipment.status, counted, line);
                let sum = sums.entry(&line.line).or_default();
                sum.at_node += at.at_node;
                sum.short += at.short;
                sum.picked += at.picked;
                sum.ready += at.ready;
                sum.gone += at.gone;
                sum.delivered += at.delivered;
            }
        }
        let missed = self.missed();
        for (id, claim) in self.reservations.iter().map(|(id, l)| (id, &l.value)) {
            let missed = missed.get(&**id).filter(|_| claim.open).copied();
            let sum = sums.entry(&claim.line).or_default();
            sum.granted += (claim.granted - missed.unwrap_or_default()).or_zero();
            sum.backordered += claim.backordered;
        }
        for (line, quantity) in self.returns.values().flat_map(|l| &l.value.returned) {
            sums.entry(line).or_default().returned += *quantity;
        }
        let paid = self
            .refunds
            .values()
            .filter(|l| l.value.progress == Progress::Done);
        for (line, quantity) in paid.flat_map(|l| &l.value.units) {
            sums.entry(line).or_default().refunded += *quantity;
        }
        sums
    }

    /// Units of each claim that a node had and did not find or gave up: the claim still binds stock,
    /// but there is none behind it.
    fn missed(&self) -> BTreeMap<&str, Decimal> {
        let mut missed: BTreeMap<&str, Decimal> = BTreeMap::new();
        for shipment in self.shipments.values().map(|l| &l.value) {
            for line in &shipment.lines {
                let Some(claim) = &line.reservation else {
                    continue;
                };
                let units = match shipment.status {
                    ShipmentStatus::Cancelled => line.allocated - line.shipped.max(line.delivered),
                    _ => line.short + line.cancelled,
                };
                *missed.entry(claim).or_default() += units.or_zero();
            }
        }
        missed
    }

    fn add_money(&self, view: &mut View, found: &mut Vec<Finding>) {
        let mut foreign = Vec::new();
        for (id, p) in self.payments.iter().map(|(id, l)| (id, &l.value)) {
            if p.kind == PaymentKind::Other {
                continue;
            }
            if p.currency != view.currency {
                foreign.push(("payment", id, &p.currency));
                continue;
            }
            match p.kind {
                PaymentKind::Authorised => view.authorised += p.amount,
                PaymentKind::Voided => view.authorised -= p.amount,
                PaymentKind::Captured => view.captured += p.amount,
                PaymentKind::Chargeback => view.charged_back += p.amount,
                PaymentKind::ChargebackReversed => view.charged_back -= p.amount,
                PaymentKind::Other => {}
            }
        }
        for (id, refund) in self.refunds.iter().map(|(id, l)| (id, &l.value)) {
            if refund.currency != view.currency {
                foreign.push(("refund", id, &refund.currency));
                continue;
            }
            match refund.progress {
                Progress::Idle => {}
                Progress::InFlight => view.refund_in_flight += refund.amount,
                Progress::Done => view.refunded += refund.amount,
            }
        }
        let valid = self.invoices.iter().filter(|(_, l)| l.value.valid);
        for (id, invoice) in valid.map(|(id, l)| (id, &l.value)) {
            if invoice.currency != view.currency {
                foreign.push(("invoice", id, &invoice.currency));
                continue;
            }
            match invoice.credit {
                true => view.credited += invoice.gross,
                false => view.invoiced += invoice.gross,
            }
        }
        found.extend(foreign.into_iter().map(|(kind, id, currency)| Finding {
            code: "CURRENCY_MISMATCH",
            cause: compact_str::format_compact!("{kind}:{id}"),
            severity: Severity::High,
            patience: PATIENCE,
            expected: format!("amounts in {}", view.currency),
            actual: format!("{kind} {id} is in {currency}, and is not counted"),
            delta: None,
            at_risk: None,
            actions: &["correct the amount at its source"],
        }));
    }

    fn status(&self, lines: &[LineState]) -> OrderStatus {
        use Bucket::*;
        let of = |bucket| move |line: &LineState| line.buckets.of(bucket).is_positive();
        let left = |line: &LineState| line.left().is_positive();
        let accepted = self.sides.values().filter_map(|s| s.accepted.as_ref());
        let (accepted, rejected) = accepted.fold((false, false), |(yes, no), l| {
            (yes || l.value, no || !l.value)
        });
        let held = self
            .sides
            .values()
            .any(|s| s.held.as_ref().is_some_and(|l| l.value));
        if lines.iter().any(|l| l.gone_cancelled.is_positive()) {
            OrderStatus::Conflict
        } else if rejected && !accepted && !lines.iter().any(left) {
            OrderStatus::Rejected
        } else if held {
            OrderStatus::OnHold
        } else if lines.iter().all(|l| l.buckets.of(Cancelled) == l.ordered) {
            OrderStatus::Cancelled
        } else if lines.iter().any(|l| l.returned.is_positive()) {
            match lines.iter().all(|l| l.returned >= l.wanted()) {
                true => OrderStatus::Returned,
                false => OrderStatus::PartiallyReturned,
            }
        } else if lines.iter().all(|l| l.buckets.of(Delivered) == l.wanted()) {
            OrderStatus::Completed
        } else if is_ready(lines) {
            OrderStatus::ReadyForPickup
        } else if lines.iter().all(|l| l.left() == l.wanted()) {
            OrderStatus::Shipped
        } else if lines.iter().any(left) {
            OrderStatus::PartiallyShipped
        } else if lines.iter().any(of(Released)) || lines.iter().any(of(Picked)) {
            OrderStatus::InFulfilment
        } else if lines.iter().any(of(Backordered)) {
            OrderStatus::Backordered
        } else if accepted {
            OrderStatus::Accepted
        } else {
            OrderStatus::Placed
        }
    }

    fn contradictions_of_objects(&self, found: &mut Vec<Finding>) {
        for (id, path) in &self.paths {
            let illegal = path.windows(2).find(|w| !SHIPMENT.leads(w[0].1, w[1].1));
            if let Some([(_, from), (at, to)]) = illegal {
                found.push(Finding {
                    code: "ILLEGAL_TRANSITION",
                    cause: compact_str::format_compact!("shipment:{id}"),
                    severity: Severity::Medium,
                    patience: PATIENCE,
                    expected: format!("what a {} that is {from:?} can become", SHIPMENT.name),
                    actual: format!("{to:?} in version {at}"),
                    delta: None,
                    at_risk: None,
                    actions: &["ask the node what is right"],
                });
            }
        }
        for (entity, at) in &self.conflicts {
            found.push(Finding {
                code: "VERSION_CONFLICT",
                cause: entity.clone(),
                severity: Severity::High,
                patience: PATIENCE,
                expected: format!("one fact of version {at}"),
                actual: "two that differ; one of them counts".into(),
                delta: None,
                at_risk: None,
                actions: &["compare with the source"],
            });
        }
        let known: std::collections::BTreeSet<&str> = self
            .snapshot()
            .into_iter()
            .flat_map(|s| s.lines.iter().map(|l| &*l.id))
            .collect();
        let shipped = self.shipments.iter().flat_map(|(id, l)| {
            l.value
                .lines
                .iter()
                .map(move |line| ("shipment", id, &line.line))
        });
        let returned = self.returns.iter().flat_map(|(id, l)| {
            l.value
                .returned
                .iter()
                .map(move |(line, _)| ("return", id, line))
        });
        let mut strangers: Vec<_> = shipped
            .chain(returned)
            .filter(|(_, _, line)| !known.contains(line.as_str()))
            .collect();
        strangers.dedup_by(|a, b| (a.0, a.1) == (b.0, b.1));
        for (kind, id, line) in strangers {
            found.push(Finding {
                code: "UNKNOWN_LINE",
                cause: compact_str::format_compact!("{kind}:{id}"),
                severity: Severity::High,
                patience: PATIENCE,
                expected: "lines of the order".into(),
                actual: format!("line {line}, which the order does not have"),
                delta: None,
                at_risk: None,
                actions: &["correct the line at its source", "amend the order"],
            });
        }
    }

    fn orphan(&self) -> Option<Finding> {
        let versions = self.source_versions();
        let first = versions.keys().next()?;
        Some(Finding {
            code: "ORPHAN",
            cause: Text::default(),
            severity: Severity::High,
            patience: PATIENCE,
            expected: "an order that was placed".into(),
            actual: format!(
                "{} facts about it, of {first} first, and no order",
                versions.len()
            ),
            delta: None,
            at_risk: None,
            actions: &["read the order again from its channel"],
        })
    }
}

/// A line's units, put into buckets: first what left, then what was cancelled, then what is at a
/// node, then what has a claim on stock.
fn line_state(line: &Line, sums: Sums, cancelled: Decimal) -> LineState {
    let (mut gone, mut delivered) = (sums.gone, sums.delivered);
    if line.handover == Handover::CarryOut {
        (gone, delivered) = (gone.max(line.quantity), line.quantity);
    }
    let mut buckets = Buckets::default();
    let mut rest = line.quantity;
    buckets.fill(Bucket::Delivered, delivered, &mut rest);
    buckets.fill(Bucket::Shipped, gone - delivered, &mut rest);
    buckets.fill(Bucket::Cancelled, cancelled, &mut rest);
    buckets.fill(Bucket::Picked, sums.picked, &mut rest);
    buckets.fill(Bucket::Released, sums.at_node - sums.picked, &mut rest);
    buckets.fill(
        Bucket::Reserved,
        sums.granted - sums.at_node - gone,
        &mut rest,
    );
    buckets.fill(Bucket::Backordered, sums.backordered, &mut rest);
    buckets.fill(Bucket::Open, rest, &mut rest.clone());
    let gone_cancelled = cancelled.min(line.quantity) - buckets.of(Bucket::Cancelled);
    LineState {
        id: line.id.clone(),
        sku: line.sku.clone(),
        ordered: line.quantity,
        buckets,
        returned: sums.returned,
        refunded: sums.refunded,
        handover: line.handover,
        ready: sums.ready.min(buckets.of(Bucket::Picked)),
        gone,
        gone_cancelled: (gone_cancelled - sums.returned).or_zero(),
        short: sums.short.min(buckets.of(Bucket::Open)),
    }
}

/// What the counters of one fulfilment say of a line. `counted`: some line of the fulfilment tells
/// how much was delivered, so that zero means none; else the status speaks for all of them.
fn counters(status: ShipmentStatus, counted: bool, line: &ShipmentLine) -> Sums {
    let mut gone = line.shipped.max(line.delivered);
    if status == ShipmentStatus::Collected && gone.is_zero() && !counted {
        gone = (line.picked - line.cancelled).or_zero();
    }
    let delivered = match status {
        ShipmentStatus::Collected => gone,
        ShipmentStatus::Delivered if !counted => gone,
        _ => line.delivered,
    };
    let here = match status {
        ShipmentStatus::Cancelled | ShipmentStatus::Collected => Decimal::ZERO,
        _ => line.allocated.max(line.picked + line.short) - line.short - line.cancelled - gone,
    };
    let at_node = here.or_zero();
    let picked = (line.picked - gone).or_zero().min(at_node);
    Sums {
        at_node,
        short: match status {
            ShipmentStatus::Cancelled => Decimal::ZERO,
            _ => line.short,
        },
        picked,
        ready: match status {
            ShipmentStatus::ReadyForPickup => picked,
            _ => Decimal::ZERO,
        },
        gone,
        delivered,
        ..Sums::default()
    }
}

/// Whether every pick-up that is not over yet waits for the customer, and there is one.
fn is_ready(lines: &[LineState]) -> bool {
    let pending = |l: &LineState| l.wanted() - l.left();
    let mut pickups = lines
        .iter()
        .filter(|l| l.handover == Handover::Pickup && pending(l).is_positive())
        .peekable();
    pickups.peek().is_some() && pickups.all(|l| l.ready >= pending(l))
}

fn contradictions_of(line: &LineState, found: &mut Vec<Finding>) {
    let mut add = |code, severity, expected: String, actual: String, delta: Decimal, actions| {
        if delta.is_positive() {
            found.push(Finding {
                code,
                cause: line.id.clone(),
                severity,
                patience: match severity {
                    Severity::Critical => Duration::ZERO,
                    _ => PATIENCE,
                },
                expected,
                actual,
                delta: Some(delta),
                at_risk: None,
                actions,
            });
        }
    };
    add(
        "SHIPPED_AFTER_CANCEL",
        Severity::Critical,
        format!("line {}: nothing sent of what was cancelled", line.id),
        format!(
            "{} of {} left although cancelled",
            line.gone_cancelled, line.sku
        ),
        line.gone_cancelled,
        &["intercept the parcel", "open a return", "stop the refund"][..],
    );
    let over = line.gone - line.ordered;
    add(
        "OVER_SHIPPED",
        Severity::High,
        format!("line {}: at most {} sent", line.id, line.ordered),
        format!("{} of {} left", line.gone, line.sku),
        over - line.returned,
        &["open a return", "invoice the rest"],
    );
    add(
        "SHORT_PICK",
        Severity::High,
        format!("line {}: what was claimed is found", line.id),
        format!(
            "{} of {} were not, and nobody else has them",
            line.short, line.sku
        ),
        line.short,
        &[
            "send it from another store",
            "ship it to the customer",
            "cancel it",
            "count",
        ],
    );
    let unsent = line.returned - line.gone;
    add(
        "RETURN_EXCEEDS_SHIPPED",
        Severity::High,
        format!("line {}: at most {} returned", line.id, line.gone),
        format!("{} of {} came back", line.returned, line.sku),
        unsent,
        &["count the parcel", "look for a missing shipment"],
    );
}
