//! Receipts of tills as facts of orders: pure.
//!
//! What is sold on a receipt is an order that is carried out at once: placed, accepted, paid and invoiced by
//! the receipt itself. What comes back on it is a return of the order that it was sold by, with its credit
//! note and the money that was handed out. On a receipt with both, what comes back pays for what is sold: it
//! leaves the one order and enters the other by the provider [`EXCHANGE`].
//!
//! A receipt never changes, so its facts have one version, however often it is read.

use crate::connectors::erp::{
    Bill, BillLine, Document, OfOrder, Return, ReturnPart, object_meta, return_name,
};
use crate::contract::event::{
    ChannelType, DeliveryGroup, DeliveryMethod, Disposition, Event, InvoiceStatus, Money,
    OrderCharge, OrderEvent, OrderEventType, OrderLine, OrderSnapshot, PaymentEvent, PaymentKind,
    RefundAllocation, RefundRequest, RefundType, ReturnMethod, ReturnStatus, Text,
};
use crate::contract::topic;
use crate::domain::money::Currency;
use crate::domain::{Date, Decimal, Timestamp, compound_key, payment_id, refund_id};
use crate::pipeline::SourceRecord;

/// What is called the provider of money that never moved.
const EXCHANGE: &str = "exchange";
/// The one delivery group of an order.
const GROUP: &str = "1";
const PLACED: i64 = 1;
const ACCEPTED: i64 = 2;

/// A receipt.
pub(super) struct Receipt<'a> {
    pub instance: &'a str,
    /// Odoo's name of its row.
    pub record_id: &'a str,
    /// The order that it is.
    pub order: Text,
    pub channel: &'a str,
    /// What stands on it.
    pub number: &'a str,
    /// What Odoo's people call it.
    pub name: &'a str,
    pub at: Timestamp,
    /// Where goods leave and come back.
    pub location: Text,
    pub customer: Option<Text>,
    pub currency: Currency,
    /// Whether the goods are sent to the customer later.
    pub is_sent: bool,
    pub sold: Vec<Item>,
    pub back: Vec<Back>,
    /// Money by provider: more than nothing came in, less went out.
    pub paid: Vec<Paid>,
    /// What is owed on the customer's account.
    pub owed: Decimal,
}

/// A line; quantities and amounts are positive.
#[derive(Clone)]
pub(super) struct Item {
    pub line: Text,
    pub sku: Text,
    pub quantity: Decimal,
    pub price: Decimal,
    pub net: Decimal,
    pub gross: Decimal,
}

/// What comes back of an order.
pub(super) struct Back {
    pub order: Text,
    /// The receipt that it was sold by, as its row is called.
    pub receipt: String,
    /// The lines that come back, by their names there.
    pub items: Vec<Item>,
    /// What it was paid with: provider and reference.
    pub paid_with: Vec<(String, String)>,
}

/// Money of one provider.
#[derive(Clone)]
pub(super) struct Paid {
    pub provider: String,
    pub reference: String,
    pub amount: Decimal,
}

fn gross(items: &[Item]) -> Decimal {
    items.iter().map(|i| i.gross).sum()
}

impl Receipt<'_> {
    /// The facts that it is, in the order in which they happened.
    pub fn events(&self) -> Vec<SourceRecord> {
        let mut records = Vec::new();
        let (sold, back) = (
            gross(&self.sold),
            self.back.iter().map(|b| gross(&b.items)).sum(),
        );
        let (came_in, went_out): (Vec<Paid>, Vec<Paid>) = {
            let paid = self.paid.iter().filter(|p| !p.amount.is_zero()).cloned();
            paid.partition(|p| p.amount.is_positive())
        };
        let exchanged: Decimal = sold.min(back);
        if !self.sold.is_empty() {
            records.push(self.placed());
            records.push(self.document(ACCEPTED).decision(
                &self.order,
                OrderEventType::Accepted,
                Some(self.name),
            ));
            for paid in &came_in {
                records.push(self.payment(&self.order, PaymentKind::Captured, paid, None));
            }
            if exchanged.is_positive() {
                let paid = self.exchanged(exchanged);
                records.push(self.payment(&self.order, PaymentKind::Captured, &paid, None));
            }
            records.extend(self.bill());
        }
        // Change that another provider gave comes from what was just paid; what goes out else is for what came
        // back.
        let mut out: Vec<Paid> = went_out
            .into_iter()
            .map(|paid| Paid {
                amount: -paid.amount,
                ..paid
            })
            .collect();
        if sold >= back {
            for paid in out.drain(..) {
                let part = [allocation(None, Decimal::ZERO, paid.amount, Decimal::ZERO)];
                records.extend(self.refund(&self.order, &paid, &part, &came_in, None));
            }
        }
        if exchanged.is_positive() {
            out.insert(0, self.exchanged(exchanged));
        }
        for given in &self.back {
            records.extend(self.returned(given));
            records.extend(self.credit_note(given));
            records.extend(self.pay_back(given, &mut out));
        }
        records
    }

    fn document(&self, version: i64) -> Document<'_> {
        Document {
            instance: self.instance,
            record_id: self.record_id,
            at: self.at,
            version,
        }
    }

    fn exchanged(&self, amount: Decimal) -> Paid {
        Paid {
            provider: EXCHANGE.to_owned(),
            reference: format!("{}/{}", self.instance, self.record_id),
            amount,
        }
    }

    fn day(&self) -> Date {
        Date(self.at.0.div_euclid(86_400_000_000) as i32)
    }

    fn money(&self, amount: Decimal) -> Money {
        Money {
            amount,
            currency: self.currency.code().into(),
        }
    }

    fn record(&self, topic: &'static str, order: &Text, event: impl Into<Event>) -> SourceRecord {
        SourceRecord {
            topic,
            key: order.clone(),
            event: event.into(),
        }
    }

    fn placed(&self) -> SourceRecord {
        let record_id = format!("{}/placed", self.record_id);
        let event = OrderEvent {
            meta: object_meta(self.instance, "OrderEvent", &record_id, "", self.at, PLACED),
            order_id: self.order.clone(),
            r#type: OrderEventType::Placed,
            entity_version: PLACED,
            order: Some(self.snapshot()),
            ..OrderEvent::default()
        };
        self.record(topic::ORDER_LIFECYCLE, &self.order, event)
    }

    fn snapshot(&self) -> OrderSnapshot {
        // Prices of a till are with or without tax, as the taxes of its products say.
        let minor = self.currency.minor_unit();
        let fits = |amount: fn(&Item) -> Decimal| {
            let off = |i: &Item| i.quantity.times(i.price) - amount(i);
            self.sold.iter().all(|i| !(off(i) + minor).is_negative())
        };
        let inclusive = fits(|i| i.gross);
        let lines: Vec<OrderLine> = self
            .sold
            .iter()
            .map(|i| order_line(i, inclusive, minor))
            .collect();
        let sum = |of: fn(&OrderLine) -> Decimal| lines.iter().map(of).sum::<Decimal>();
        let back: Decimal = self.back.iter().map(|b| gross(&b.items)).sum();
        let paid: Decimal = self.paid.iter().map(|p| p.amount).sum::<Decimal>() + self.owed;
        // What cash is rounded by.
        let rounding = paid - (gross(&self.sold) - back);
        let charges: Vec<OrderCharge> = (!rounding.is_zero() && !paid.is_zero())
            .then(|| OrderCharge {
                charge_id: "rounding".into(),
                r#type: "ROUNDING".into(),
                net: rounding,
                tax: Decimal::ZERO,
            })
            .into_iter()
            .collect();
        let charged: Decimal = charges.iter().map(|c| c.net).sum();
        OrderSnapshot {
            channel_id: self.channel.into(),
            channel_type: ChannelType::Pos,
            channel_order_id: self.number.into(),
            channel_order_version: PLACED,
            placed_at: self.at,
            customer_id: self.customer.clone(),
            currency: self.currency.code().into(),
            prices_include_tax: inclusive,
            delivery_groups: vec![DeliveryGroup {
                group_id: GROUP.into(),
                method: match self.is_sent {
                    true => DeliveryMethod::ShipToHome,
                    false => DeliveryMethod::CarryOut,
                },
                pickup_location_id: (!self.is_sent).then(|| self.location.clone()),
                ..DeliveryGroup::default()
            }],
            subtotal: sum(|l| l.qty.times(l.unit_price)),
            discount_total: sum(|l| l.discount),
            charge_total: charged,
            tax_total: sum(|l| l.tax),
            grand_total: gross(&self.sold) + charged,
            lines,
            charges,
            ..OrderSnapshot::default()
        }
    }

    /// Money that moved; `of` names the payment that it belongs to, where that was another one.
    fn payment(
        &self,
        order: &Text,
        kind: PaymentKind,
        paid: &Paid,
        of: Option<Text>,
    ) -> SourceRecord {
        let record_id = format!("{}/{}", self.record_id, paid.reference);
        let leg = format!("{kind}/{order}");
        let own = || {
            let id = payment_id(order, &paid.provider, &paid.reference);
            compact_str::format_compact!("{id}")
        };
        let event = PaymentEvent {
            meta: object_meta(self.instance, "PaymentEvent", &record_id, &leg, self.at, 1),
            order_id: order.clone(),
            payment_id: of.unwrap_or_else(own),
            // Money that moved never changes.
            payment_version: 1,
            kind,
            amount: self.money(paid.amount),
            tender: Some(paid.provider.as_str().into()),
            psp: paid.provider.as_str().into(),
            psp_reference: paid.reference.as_str().into(),
            ..PaymentEvent::default()
        };
        self.record(topic::PAYMENT_EVENT, order, event)
    }

    /// Money that was handed out, and what for; the till asked nobody.
    fn refund(
        &self,
        order: &Text,
        paid: &Paid,
        allocations: &[RefundAllocation],
        paid_with: &[Paid],
        returned: Option<Text>,
    ) -> [SourceRecord; 2] {
        let same = paid_with.iter().find(|p| p.provider == paid.provider);
        let of = same.or(paid_with.first()).map(|p| {
            let id = payment_id(order, &p.provider, &p.reference);
            compact_str::format_compact!("{id}")
        });
        let record_id = format!("{}/{}", self.record_id, paid.reference);
        let meta = object_meta(
            self.instance,
            "RefundRequest",
            &record_id,
            order,
            self.at,
            1,
        );
        let reference = compound_key(&[&paid.provider, &paid.reference]);
        let event = RefundRequest {
            order_id: order.clone(),
            request_id: meta.event_id,
            // As refund-gate names what a provider has paid unasked.
            refund_id: refund_id(order, "psp", &reference, 0),
            meta,
            return_id: returned,
            payment_id: of.clone(),
            amount: self.money(paid.amount),
            allocations: allocations.to_vec(),
            psp: Some(paid.provider.as_str().into()),
            psp_reference: Some(paid.reference.as_str().into()),
            requested_by: self.instance.into(),
            reason: Some(self.name.into()),
            already_issued: true,
        };
        [
            self.payment(order, PaymentKind::Refunded, paid, of),
            self.record(topic::REFUND_REQUEST, order, event),
        ]
    }

    /// The return that this receipt is of an order.
    fn return_name(&self, order: &Text) -> Text {
        return_name(order, self.instance, self.record_id)
    }

    fn returned(&self, given: &Back) -> Vec<SourceRecord> {
        let part = |i: &Item| ReturnPart {
            of: OfOrder {
                order: given.order.clone(),
                line: i.line.clone(),
                returned_by: None,
            },
            name: i.line.clone(),
            sku: i.sku.clone(),
            quantity: i.quantity,
            is_here: true,
            disposition: Disposition::Restock,
        };
        let returned = Return {
            status: ReturnStatus::Inspected,
            method: ReturnMethod::Store,
            location: self.location.clone(),
            parts: given.items.iter().map(part).collect(),
        };
        self.document(1).returned(&returned)
    }

    fn bill_line(&self, order: &Text, item: &Item) -> BillLine {
        BillLine {
            of: Some(OfOrder {
                order: order.clone(),
                line: item.line.clone(),
                returned_by: None,
            }),
            gives_back: None,
            quantity: item.quantity,
            net: item.net,
            tax: item.gross - item.net,
        }
    }

    fn bill(&self) -> Vec<SourceRecord> {
        let lines = self.sold.iter().map(|i| self.bill_line(&self.order, i));
        self.document(1)
            .bill(&self.of_lines(lines.collect(), false), false)
    }

    fn credit_note(&self, given: &Back) -> Vec<SourceRecord> {
        let back = |item: &Item| {
            let mut line = self.bill_line(&given.order, item);
            line.gives_back = Some(compact_str::format_compact!(
                "{}/{}",
                self.instance,
                given.receipt
            ));
            if let Some(of) = &mut line.of {
                of.returned_by = Some(self.return_name(&given.order));
            }
            line
        };
        let record_id = format!("{}/credit", self.record_id);
        let document = Document {
            record_id: &record_id,
            ..self.document(1)
        };
        document.bill(
            &self.of_lines(given.items.iter().map(back).collect(), true),
            false,
        )
    }

    fn of_lines(&self, lines: Vec<BillLine>, credit: bool) -> Bill<'_> {
        Bill {
            number: Some(self.name),
            credit,
            status: InvoiceStatus::Posted,
            currency: self.currency,
            net: lines.iter().map(|l| l.net).sum(),
            tax: lines.iter().map(|l| l.tax).sum(),
            date: self.day(),
            lines,
        }
    }

    /// What is paid back for what came back of one order, out of what went out.
    fn pay_back(&self, given: &Back, out: &mut Vec<Paid>) -> Vec<SourceRecord> {
        let (mut rest, mut parts) = (gross(&given.items), Vec::new());
        while rest.is_positive()
            && let Some(next) = out.first_mut()
        {
            let amount = rest.min(next.amount);
            parts.push(Paid {
                amount,
                ..next.clone()
            });
            rest -= amount;
            next.amount -= amount;
            if next.amount.is_zero() {
                out.remove(0);
            }
        }
        let whole = |paid: &Paid| paid.amount == gross(&given.items);
        let (net, all): (Decimal, Decimal) =
            (given.items.iter().map(|i| i.net).sum(), gross(&given.items));
        let paid_with: Vec<Paid> = given
            .paid_with
            .iter()
            .map(|(provider, reference)| Paid {
                provider: provider.clone(),
                reference: reference.clone(),
                amount: Decimal::ZERO,
            })
            .collect();
        let refund = |paid: &Paid| {
            let allocations: Vec<RefundAllocation> = match whole(paid) {
                true => given
                    .items
                    .iter()
                    .map(|i| allocation(Some(&i.line), i.quantity, i.net, i.gross - i.net))
                    .collect(),
                // A part of it is of no line.
                false => {
                    let share = i128::from(net.units()) * i128::from(paid.amount.units());
                    let share = share / i128::from(all.units()).max(1);
                    let minor = i128::from(self.currency.minor_unit().units()).max(1);
                    let share = Decimal::from_units((share / minor * minor) as i64);
                    vec![allocation(None, Decimal::ZERO, share, paid.amount - share)]
                }
            };
            let returned = Some(self.return_name(&given.order));
            self.refund(&given.order, paid, &allocations, &paid_with, returned)
        };
        parts.iter().flat_map(refund).collect()
    }
}

fn allocation(line: Option<&Text>, qty: Decimal, net: Decimal, tax: Decimal) -> RefundAllocation {
    RefundAllocation {
        order_line_id: line.cloned(),
        qty,
        net,
        tax,
        r#type: RefundType::Item,
    }
}

fn order_line(item: &Item, inclusive: bool, minor: Decimal) -> OrderLine {
    let amount = if inclusive { item.gross } else { item.net };
    let discount = item.quantity.times(item.price) - amount;
    // What rounding makes is no discount.
    let is_noise = discount.units().abs() <= minor.units();
    OrderLine {
        line_id: item.line.clone(),
        sku: item.sku.clone(),
        qty: item.quantity,
        uom: "EA".into(),
        unit_price: item.price,
        discount: if is_noise { Decimal::ZERO } else { discount },
        tax: item.gross - item.net,
        line_total: item.gross,
        delivery_group_id: GROUP.into(),
        ..OrderLine::default()
    }
}
