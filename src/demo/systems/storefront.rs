//! A cloud storefront: customers order and cancel, it shows what can be sold and how orders stand.

use super::desk::{Desk, System};
use super::{PSP, amount, id_of};
use crate::contract::event::{
    CustomerChanged, CustomerStatus, Event, LineQty, MilestoneKind, OrderEvent, OrderEventType,
    OrderSnapshot, OrderStatus, RefundRequest, RefundStatus, Text,
};
use crate::contract::topic;
use crate::domain::{Decimal, Timestamp, compound_key, refund_id};
use crate::pipeline::Person;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

/// What every address of a customer ends with: nobody but the storefront may know one.
pub(crate) const CANARY: &str = "@canary.invalid";

/// The storefront of one channel.
pub(crate) struct Storefront {
    desk: Desk,
    channel: Text,
    /// Its orders, and how often it told of each.
    orders: BTreeMap<Text, (OrderSnapshot, i64)>,
    shown: BTreeMap<Text, Decimal>,
    fulfilments: BTreeMap<Text, i64>,
    milestones: BTreeSet<(Text, MilestoneKind)>,
    cancelled: BTreeMap<(Text, Text), Decimal>,
    refunded: BTreeSet<uuid::Uuid>,
    statuses: BTreeMap<Text, OrderStatus>,
}

/// Money that the storefront has paid back by itself.
pub(crate) struct Issued<'a> {
    pub order: &'a str,
    pub amount: Decimal,
    pub currency: &'a str,
    /// The provider's name for the refund.
    pub reference: Option<Text>,
}

impl Storefront {
    pub fn new(desk: Desk, channel: impl Into<Text>) -> Self {
        Storefront {
            desk,
            channel: channel.into(),
            orders: BTreeMap::new(),
            shown: BTreeMap::new(),
            fulfilments: BTreeMap::new(),
            milestones: BTreeSet::new(),
            cancelled: BTreeMap::new(),
            refunded: BTreeSet::new(),
            statuses: BTreeMap::new(),
        }
    }

    pub fn channel(&self) -> &Text {
        &self.channel
    }
    pub fn now(&self) -> Timestamp {
        self.desk.now()
    }
    /// How its orders stand.
    pub fn statuses(&self) -> &BTreeMap<Text, OrderStatus> {
        &self.statuses
    }
    /// Units cancelled of an order, by line.
    pub fn cancelled_of(&self, order: &str) -> Vec<(Text, Decimal)> {
        let of_order = self.cancelled.iter().filter(|((id, _), _)| id == order);
        of_order
            .map(|((_, line), units)| (line.clone(), *units))
            .collect()
    }
    /// What can be sold, by SKU.
    pub fn shown(&self) -> &BTreeMap<Text, Decimal> {
        &self.shown
    }
    /// Whether customers were told this of an order.
    pub fn was_told(&self, order: &str, milestone: MilestoneKind) -> bool {
        let of_order = |e: &&super::Entry| e.kind == "milestone" && e.text("order") == order;
        let mut told = self.desk.ledger().iter().filter(of_order);
        told.any(|e| e.text("milestone") == milestone.symbol())
    }

    /// A customer orders.
    pub fn order(&mut self, order: OrderSnapshot) -> Text {
        let id = id_of(&order);
        let lines = order.lines.iter().map(|l| {
            json!({"line": l.line_id, "sku": l.sku, "quantity": l.qty, "price": l.unit_price, "total": l.line_total})
        });
        let customer = format!("customer-{}{CANARY}", order.channel_order_id);
        let pickup = order
            .delivery_groups
            .iter()
            .find_map(|g| g.pickup_location_id.clone());
        self.desk.write(
            "order",
            json!({"order": id, "number": order.channel_order_id, "currency": order.currency,
                "total": order.grand_total, "lines": lines.collect::<Vec<_>>(), "location": pickup,
                "customer": customer}),
        );
        self.introduce(&order.channel_order_id, &customer);
        let event = OrderEvent {
            order: Some(order.clone()),
            ..self.event(&id, OrderEventType::Placed, 1)
        };
        self.orders.insert(id.clone(), (order, 1));
        self.desk.tell(topic::ORDER_LIFECYCLE, id.clone(), event);
        id
    }

    /// Tells who the customer of an order is, where it can do so sealed; each order has a customer of its
    /// own. What cannot be sealed is not told: that it is missing will show.
    fn introduce(&mut self, number: &str, customer: &str) {
        let person = Person {
            email: Some(customer.to_owned()),
            ..Person::default()
        };
        let mut event = CustomerChanged {
            meta: self
                .desk
                .meta("CustomerChanged", &format!("customer-{number}"), 1),
            channel_id: self.channel.clone(),
            customer_id: number.into(),
            customer_version: 1,
            status: CustomerStatus::Active,
            ..CustomerChanged::default()
        };
        let sealed = self
            .desk
            .vault()
            .map(|vault| vault.seal(&person, &mut event));
        if let Some(sealed) = sealed {
            self.desk
                .write("customer", json!({"number": number, "customer": customer}));
            if !matches!(sealed, Ok(true)) {
                return;
            }
            let key = compound_key(&[&self.channel, number]);
            self.desk.tell(topic::CUSTOMER_CHANGE, key, event);
        }
    }

    /// A customer wants units cancelled; none named means everything.
    pub fn cancel(&mut self, order: &str, units: &[(Text, Decimal)]) {
        let version = self.next_version(order);
        let affected = units.iter().map(|(line_id, qty)| LineQty {
            line_id: line_id.clone(),
            qty: *qty,
        });
        let event = OrderEvent {
            affected: affected.collect(),
            reason: Some("CUSTOMER".into()),
            ..self.event(order, OrderEventType::CancelRequested, version)
        };
        let lines = units
            .iter()
            .map(|(line, quantity)| json!({"line": line, "quantity": quantity}));
        self.desk.write(
            "cancel-request",
            json!({"order": order, "request": event.meta.event_id, "lines": lines.collect::<Vec<_>>()}),
        );
        self.desk.tell(topic::ORDER_LIFECYCLE, order, event);
    }

    /// Tells that it has paid money back before anyone asked.
    pub fn issued(&mut self, refund: &Issued<'_>) {
        let version = self.next_version(refund.order);
        let id = refund_id(refund.order, "storefront", &version.to_string(), 0);
        self.desk.write(
            "refund-issued",
            json!({"order": refund.order, "refund": id, "psp": PSP, "reference": refund.reference,
                "amount": refund.amount, "currency": refund.currency}),
        );
        let record = format!("{id}");
        let event = RefundRequest {
            meta: self.desk.meta("RefundRequest", &record, version),
            order_id: refund.order.into(),
            request_id: id,
            refund_id: id,
            amount: amount(refund.amount, refund.currency),
            psp: Some(PSP.into()),
            psp_reference: refund.reference.clone(),
            requested_by: self.desk.name().clone(),
            already_issued: true,
            ..RefundRequest::default()
        };
        self.desk.tell(topic::REFUND_REQUEST, refund.order, event);
    }

    fn next_version(&mut self, order: &str) -> i64 {
        let known = self.orders.get_mut(order);
        known.map_or(1, |(_, version)| {
            *version += 1;
            *version
        })
    }

    fn event(&self, order: &str, kind: OrderEventType, version: i64) -> OrderEvent {
        OrderEvent {
            meta: self
                .desk
                .meta("OrderEvent", &format!("{order}#{version}"), version),
            order_id: order.into(),
            r#type: kind,
            entity_version: version,
            ..OrderEvent::default()
        }
    }
}

impl System for Storefront {
    fn desk(&self) -> &Desk {
        &self.desk
    }
    fn desk_mut(&mut self) -> &mut Desk {
        &mut self.desk
    }
    fn listens(&self) -> &'static [&'static str] {
        &[
            topic::STOCK_ATS,
            topic::ORDER_STATE,
            topic::SHIPMENT_STATE,
            topic::REFUND_EVENT,
        ]
    }
    fn cares(&self, event: &Event) -> bool {
        match event {
            Event::AvailabilityChanged(e) => e.channel_id == self.channel,
            Event::OrderState(e) => e.channel_id == self.channel,
            Event::ShipmentState(e) => e.channel_id == self.channel,
            Event::RefundEvent(e) => {
                e.status == RefundStatus::Completed && self.orders.contains_key(&e.order_id)
            }
            _ => false,
        }
    }
    fn hear(&mut self, event: &Event) {
        match event {
            Event::AvailabilityChanged(e)
                if self.shown.insert(e.sku.clone(), e.ats) != Some(e.ats) =>
            {
                self.desk
                    .write("shown", json!({"sku": e.sku, "quantity": e.ats}));
            }
            Event::OrderState(e) => {
                self.statuses.insert(e.order_id.clone(), e.status);
                for line in e.lines.iter().filter(|l| l.cancelled.is_positive()) {
                    let of = (e.order_id.clone(), line.line_id.clone());
                    if self.cancelled.insert(of, line.cancelled) != Some(line.cancelled) {
                        self.desk.write(
                            "cancelled",
                            json!({"order": e.order_id, "line": line.line_id, "quantity": line.cancelled}),
                        );
                    }
                }
            }
            Event::ShipmentState(e) => {
                for f in &e.fulfilments {
                    let id = f.shipment_id.clone();
                    if self.fulfilments.insert(id.clone(), f.shipment_version)
                        == Some(f.shipment_version)
                    {
                        continue;
                    }
                    let lines = f.lines.iter().map(|l| {
                        json!({"line": l.line_id, "shipped": l.shipped, "delivered": l.delivered})
                    });
                    self.desk.write(
                        "fulfilment",
                        json!({"order": e.order_id, "fulfilment": id, "status": f.status.symbol(),
                            "lines": lines.collect::<Vec<_>>()}),
                    );
                    for m in &f.milestones {
                        if self.milestones.insert((id.clone(), m.kind)) {
                            self.desk.write(
                                "milestone",
                                json!({"order": e.order_id, "fulfilment": id, "milestone": m.kind.symbol()}),
                            );
                        }
                    }
                }
            }
            Event::RefundEvent(e) if self.refunded.insert(e.refund_id) => {
                self.desk.write(
                    "refunded",
                    json!({"order": e.order_id, "refund": e.refund_id, "amount": e.amount.amount,
                        "currency": e.amount.currency}),
                );
            }
            _ => {}
        }
    }
}
