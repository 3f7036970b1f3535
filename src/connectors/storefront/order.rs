//! An order as its storefront tells it, and the events that it makes.
//!
//! Every event's identity is the storefront's own name of the fact (the order, a modification, a
//! cancellation, a payment and what became of it, a refund), so reading an order again, or hearing of
//! it in another way, makes the same events. What Crossdock did there itself is not told again.

use super::Terms;
use crate::contract::event::{
    ChannelType, DeliveryGroup, DeliveryMethod, Event, EventMeta, LineQty, Money, OrderCharge,
    OrderEvent, OrderEventType, OrderLine, OrderSnapshot, Origin, PaymentEvent, PaymentKind,
    PositionKind, RefundAllocation, RefundRequest, Text,
};
use crate::contract::topic;
use crate::domain::{Decimal, Timestamp, compound_key, event_id, order_id, payment_id, refund_id};
use crate::pipeline::SourceRecord;
use uuid::Uuid;

/// One deployment serves one tenant.
const TENANT: &str = "default";
/// The one delivery group of an order.
const GROUP: &str = "1";

/// An order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ShopOrder {
    /// Its number, as in `channelOrderId`.
    pub number: String,
    /// The storefront's id of the customer.
    pub customer: Option<String>,
    pub placed_at: Timestamp,
    /// ISO 4217.
    pub currency: String,
    /// The storefront's code of the shipping method.
    pub shipping_method: Option<String>,
    /// As it was placed.
    pub placed: Content,
    /// The last change that was more than a cancellation: its id, when, and the order since.
    pub amended: Option<(String, Timestamp, Content)>,
    pub cancellations: Vec<Cancellation>,
    pub movements: Vec<Movement>,
}

/// What is ordered, and for how much.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Content {
    pub prices_include_tax: bool,
    /// With the units that were cancelled since.
    pub lines: Vec<Line>,
    pub charges: Vec<Charge>,
    pub grand_total: Decimal,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Line {
    pub id: String,
    pub sku: String,
    pub quantity: Decimal,
    /// With tax where the prices include it.
    pub unit_price: Decimal,
    pub discount: Decimal,
    pub tax: Decimal,
    /// With tax.
    pub total: Decimal,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Charge {
    pub id: String,
    pub kind: &'static str,
    pub net: Decimal,
    pub tax: Decimal,
}

/// Units that the storefront has cancelled.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cancellation {
    /// The storefront's id of it.
    pub id: String,
    pub at: Timestamp,
    pub lines: Vec<(String, Decimal)>,
    pub reason: Option<String>,
    /// Crossdock did it.
    pub ours: bool,
}

/// Money that moved.
#[derive(Clone, Debug, PartialEq)]
pub struct Movement {
    /// The storefront's id of the payment.
    pub payment: String,
    /// Its code of the payment method.
    pub method: String,
    pub kind: PaymentKind,
    pub amount: Decimal,
    /// The provider's name of the movement.
    pub reference: String,
    pub at: Timestamp,
    /// Of a refund: `refundId|attempt` where Crossdock asked for it.
    pub refund_key: Option<String>,
    /// Of a refund: what for, and why.
    pub allocations: Vec<RefundAllocation>,
    pub reason: Option<String>,
}

/// The mark on what Crossdock did in a storefront, in a field for people's words.
pub fn mark(key: &str) -> String {
    format!("crossdock:{key}")
}

/// The key of a mark in such a field.
pub fn marked(words: &str) -> Option<&str> {
    let (_, rest) = words.split_once("crossdock:")?;
    Some(rest.split(char::is_whitespace).next().unwrap_or_default()).filter(|key| !key.is_empty())
}

/// The events of an order, in the order in which they happened where that is known.
pub fn events(terms: &Terms, order: &ShopOrder) -> Vec<SourceRecord> {
    let writer = Writer {
        terms,
        order: order_id(TENANT, &terms.channel, &order.number).to_string(),
        number: &order.number,
    };
    let mut records = vec![writer.placed(order)];
    records.extend(
        order
            .amended
            .as_ref()
            .map(|(id, at, content)| writer.amended(order, id, *at, content)),
    );
    let told = |m: &&Movement| terms.tells_payments_of(&m.method);
    for movement in order.movements.iter().filter(told) {
        records.push(writer.movement(order, movement));
        // Paid by the storefront before anyone asked here: what for is known there alone.
        if movement.kind == PaymentKind::Refunded && movement.refund_key.is_none() {
            records.push(writer.refund(order, movement));
        }
    }
    let cancelled = order.cancellations.iter().filter(|c| !c.ours);
    records.extend(cancelled.map(|c| writer.cancelled(c)));
    records
}

struct Writer<'a> {
    terms: &'a Terms,
    order: String,
    number: &'a str,
}

impl Writer<'_> {
    fn meta(&self, event_type: &str, record_id: &str, leg: &str, at: Timestamp) -> EventMeta {
        let source = &self.terms.instance;
        EventMeta {
            event_id: event_id(source, 0, record_id, leg, event_type),
            event_type: event_type.into(),
            source: source.as_str().into(),
            source_position: at.0,
            position_kind: PositionKind::TimestampMicros,
            occurred_at: at,
            tenant_id: TENANT.into(),
            correlation_id: self.order.as_str().into(),
            origin: Origin::Source,
            ..EventMeta::default()
        }
    }

    fn record(&self, topic: &'static str, event: Event) -> SourceRecord {
        SourceRecord {
            topic,
            key: self.order.as_str().into(),
            event,
        }
    }

    fn order_event(
        &self,
        id: &str,
        kind: OrderEventType,
        at: Timestamp,
        rest: OrderEvent,
    ) -> SourceRecord {
        let record_id = format!("order/{}/{id}", self.number);
        let event = OrderEvent {
            meta: self.meta("OrderEvent", &record_id, "", at),
            order_id: self.order.as_str().into(),
            r#type: kind,
            // Storefronts number no versions; what was changed later was changed later.
            entity_version: at.0,
            ..rest
        };
        self.record(topic::ORDER_LIFECYCLE, event.into())
    }

    fn placed(&self, order: &ShopOrder) -> SourceRecord {
        let at = order.placed_at;
        let rest = OrderEvent {
            order: Some(self.snapshot(order, &order.placed, at)),
            ..OrderEvent::default()
        };
        self.order_event("placed", OrderEventType::Placed, at, rest)
    }

    fn amended(
        &self,
        order: &ShopOrder,
        id: &str,
        at: Timestamp,
        content: &Content,
    ) -> SourceRecord {
        let rest = OrderEvent {
            order: Some(self.snapshot(order, content, at)),
            ..OrderEvent::default()
        };
        self.order_event(id, OrderEventType::Amended, at, rest)
    }

    /// Nobody is asked any more: the customer was told that it is cancelled.
    fn cancelled(&self, cancellation: &Cancellation) -> SourceRecord {
        let of = |(line, qty): &(String, Decimal)| LineQty {
            line_id: line.as_str().into(),
            qty: *qty,
        };
        let rest = OrderEvent {
            affected: cancellation.lines.iter().map(of).collect(),
            reason: cancellation.reason.as_deref().map(Text::from),
            ..OrderEvent::default()
        };
        let kind = OrderEventType::CancelDecided;
        self.order_event(&cancellation.id, kind, cancellation.at, rest)
    }

    fn snapshot(&self, order: &ShopOrder, content: &Content, at: Timestamp) -> OrderSnapshot {
        let pickup = order.shipping_method.as_ref();
        let pickup = pickup.and_then(|method| self.terms.pickup_methods.get(method));
        let (lines, charges) = (&content.lines, &content.charges);
        let sum = |of: &dyn Fn(&Line) -> Decimal| lines.iter().map(of).sum::<Decimal>();
        let charged: Decimal = charges.iter().map(|c| c.net).sum();
        let charged_tax: Decimal = charges.iter().map(|c| c.tax).sum();
        OrderSnapshot {
            channel_id: self.terms.channel.as_str().into(),
            channel_type: ChannelType::Web,
            channel_order_id: self.number.into(),
            channel_order_version: at.0,
            placed_at: order.placed_at,
            customer_id: order
                .customer
                .as_ref()
                .map(|id| compound_key(&[&self.terms.channel, id])),
            currency: order.currency.as_str().into(),
            prices_include_tax: content.prices_include_tax,
            lines: lines.iter().map(order_line).collect(),
            charges: charges
                .iter()
                .map(|c| OrderCharge {
                    charge_id: c.id.as_str().into(),
                    r#type: c.kind.into(),
                    net: c.net,
                    tax: c.tax,
                })
                .collect(),
            delivery_groups: vec![DeliveryGroup {
                group_id: GROUP.into(),
                method: match pickup {
                    Some(_) => DeliveryMethod::PickupInStore,
                    None => DeliveryMethod::ShipToHome,
                },
                pickup_location_id: pickup.map(|location| location.as_str().into()),
                ..DeliveryGroup::default()
            }],
            subtotal: sum(&|l| l.quantity.times(l.unit_price)),
            discount_total: sum(&|l| l.discount),
            charge_total: charged,
            tax_total: sum(&|l| l.tax) + charged_tax,
            grand_total: content.grand_total,
            ..OrderSnapshot::default()
        }
    }

    fn payment_id(&self, movement: &Movement) -> String {
        let psp = self.terms.psp(&movement.method);
        payment_id(&self.order, &psp, &movement.payment).to_string()
    }

    fn money(order: &ShopOrder, amount: Decimal) -> Money {
        Money {
            amount,
            currency: order.currency.as_str().into(),
        }
    }

    fn movement(&self, order: &ShopOrder, movement: &Movement) -> SourceRecord {
        let record_id = format!("payment/{}/{}", movement.payment, movement.reference);
        let event = PaymentEvent {
            meta: self.meta(
                "PaymentEvent",
                &record_id,
                movement.kind.symbol(),
                movement.at,
            ),
            order_id: self.order.as_str().into(),
            payment_id: self.payment_id(movement).into(),
            // A movement never changes.
            payment_version: 1,
            kind: movement.kind,
            amount: Self::money(order, movement.amount),
            tender: Some(movement.method.as_str().into()),
            psp: self.terms.psp(&movement.method).into(),
            psp_reference: movement.reference.as_str().into(),
            refund_key: movement.refund_key.as_deref().map(Text::from),
            pan_last4: None,
        };
        self.record(topic::PAYMENT_EVENT, event.into())
    }

    fn refund(&self, order: &ShopOrder, movement: &Movement) -> SourceRecord {
        let psp = self.terms.psp(&movement.method);
        let record_id = format!("refund/{}/{}", movement.payment, movement.reference);
        let meta = self.meta("RefundRequest", &record_id, "", movement.at);
        let reference = compound_key(&[&psp, &movement.reference]);
        let event = RefundRequest {
            order_id: self.order.as_str().into(),
            request_id: meta.event_id,
            // As refund-gate names what a provider has paid unasked.
            refund_id: refund_id(&self.order, "psp", &reference, 0),
            meta,
            payment_id: Some(self.payment_id(movement).into()),
            amount: Self::money(order, movement.amount),
            allocations: movement.allocations.clone(),
            psp: Some(psp.into()),
            psp_reference: Some(movement.reference.as_str().into()),
            requested_by: self.terms.instance.as_str().into(),
            reason: movement.reason.as_deref().map(Text::from),
            already_issued: true,
            ..RefundRequest::default()
        };
        self.record(topic::REFUND_REQUEST, event.into())
    }
}

fn order_line(line: &Line) -> OrderLine {
    OrderLine {
        line_id: line.id.as_str().into(),
        sku: line.sku.as_str().into(),
        qty: line.quantity,
        uom: "EA".into(),
        unit_price: line.unit_price,
        discount: line.discount,
        tax: line.tax,
        line_total: line.total,
        delivery_group_id: GROUP.into(),
        ..OrderLine::default()
    }
}

/// A digest of events, to tell whether an order says anything new.
pub fn digest(records: &[SourceRecord]) -> String {
    let mut bytes = Vec::new();
    for record in records {
        record.event.encode(&mut bytes);
    }
    let id = Uuid::new_v5(&crate::domain::NAMESPACE, &bytes)
        .simple()
        .to_string();
    id[..12].to_owned()
}
