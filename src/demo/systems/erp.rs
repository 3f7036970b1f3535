//! The ERP: takes orders under their channel's number or refuses them, invoices what has left, credits
//! what came back, closes what is over, lists what it has.

use super::desk::{Desk, System};
use super::{amount, share};
use crate::connectors::{erp, manifest};
use crate::contract::event::{
    CustomerChanged, Event, InvoiceEvent, InvoiceKind, InvoiceLine, InvoiceStatus, OrderEvent,
    OrderEventType, OrderSnapshot, OrderState, ReturnEvent, ReturnStatus, SystemRole, Text,
};
use crate::contract::topic;
use crate::domain::{Date, Decimal, Timestamp};
use crate::pipeline::Replay;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

/// Microseconds of a day.
const DAY: i64 = 86_400_000_000;

/// What the ERP sells, and how.
#[derive(Clone, Debug, Default)]
pub(crate) struct Terms {
    /// SKUs in its catalogue.
    pub skus: BTreeSet<Text>,
    /// Currencies in which it keeps books.
    pub currencies: BTreeSet<Text>,
    /// Locations that it knows.
    pub locations: BTreeSet<Text>,
}

#[derive(Clone, Debug)]
struct Sale {
    id: Text,
    order: OrderSnapshot,
    /// Units by line.
    cancelled: BTreeMap<Text, Decimal>,
    invoiced: BTreeMap<Text, Decimal>,
    /// Units credited, by line; and by line of each return.
    credited: BTreeMap<Text, Decimal>,
    returned: BTreeMap<(Text, Text), Decimal>,
    charged: bool,
    documents: u32,
    decisions: BTreeSet<uuid::Uuid>,
    closed: bool,
}

impl Sale {
    /// Whether nothing is left of it.
    fn is_cancelled(&self) -> bool {
        let cancelled = |line: &Text| self.cancelled.get(line).copied().unwrap_or_default();
        let lines = self.order.lines.iter();
        !lines.into_iter().any(|l| l.qty > cancelled(&l.line_id))
    }
}

/// The ERP.
pub(crate) struct Erp {
    desk: Desk,
    terms: Terms,
    sales: BTreeMap<Text, Sale>,
    refused: BTreeSet<Text>,
    /// How often the sale of an order was lost.
    lost: BTreeMap<Text, u32>,
    /// By channel and its name of them.
    customers: BTreeSet<(Text, Text)>,
    /// What was told of orders before the orders themselves.
    early: BTreeMap<Text, Vec<Event>>,
    /// Whether it credits what comes back.
    credits: bool,
}

impl Erp {
    pub fn new(desk: Desk, terms: Terms) -> Self {
        Erp {
            desk,
            terms,
            sales: BTreeMap::new(),
            refused: BTreeSet::new(),
            lost: BTreeMap::new(),
            customers: BTreeSet::new(),
            early: BTreeMap::new(),
            credits: true,
        }
    }

    /// Nobody writes credit notes any more, or again.
    pub fn set_credits(&mut self, credits: bool) {
        self.credits = credits;
    }

    /// Somebody looks whether an order is over, and closes it.
    pub fn close(&mut self, order: &str) -> Result<(), String> {
        let Some(sale) = self.sales.get_mut(order) else {
            return Err("the ERP has no such order".into());
        };
        if !std::mem::replace(&mut sale.closed, true) {
            let event = said(
                &self.desk,
                order,
                OrderEventType::Closed,
                1_000,
                sale.id.clone(),
            );
            self.desk.tell(topic::ORDER_LIFECYCLE, order, event);
        }
        Ok(())
    }

    /// The sale of an order is gone, as when a backup was put back.
    pub fn lose(&mut self, order: &str) -> Result<(), String> {
        let Some(sale) = self.sales.remove(order) else {
            return Err("the ERP has no such order".into());
        };
        *self.lost.entry(order.into()).or_default() += 1;
        self.desk
            .write("order-lost", json!({"order": order, "id": sale.id}));
        Ok(())
    }

    /// Tells which orders it has, all of them.
    pub fn list(&mut self) {
        let now = self.desk.now();
        let entries = self.sales.iter().map(|(order, sale)| {
            let status = sale.is_cancelled().then_some("CANCELLED");
            let total = Some(sale.order.grand_total);
            manifest::entry(order, &sale.id, now, status, total)
        });
        let entries = entries.collect();
        let name = compact_str::format_compact!("{}|{now}", self.desk.name());
        let meta = self.desk.meta("ReconManifest", &name, now.0);
        let since = Timestamp::default();
        let whole = (name, SystemRole::Erp);
        let record = manifest::Parts::default().next(whole, (since, meta), entries, true);
        self.desk.tell(record.topic, record.key, record.event);
    }

    fn judge(&self, order: &OrderSnapshot) -> Result<(), String> {
        if !self.terms.currencies.contains(&order.currency) {
            return Err(format!("UNKNOWN_CURRENCY {}", order.currency));
        }
        if let Some(line) = order
            .lines
            .iter()
            .find(|l| !self.terms.skus.contains(&l.sku))
        {
            return Err(format!("UNKNOWN_SKU {}", line.sku));
        }
        let pickups = order
            .delivery_groups
            .iter()
            .filter_map(|g| g.pickup_location_id.as_ref());
        if let Some(location) = pickups
            .into_iter()
            .find(|l| !self.terms.locations.contains(*l))
        {
            return Err(format!("UNKNOWN_LOCATION {location}"));
        }
        let lines: Decimal = order.lines.iter().map(|l| l.line_total).sum();
        let charges: Decimal = order.charges.iter().map(|c| c.net + c.tax).sum();
        match lines + charges == order.grand_total {
            true => Ok(()),
            false => Err(format!(
                "TOTAL_MISMATCH lines and charges make {}, the order says {}",
                lines + charges,
                order.grand_total
            )),
        }
    }

    fn placed(&mut self, id: &Text, order: &OrderSnapshot) {
        if self.sales.contains_key(id) || self.refused.contains(id) {
            self.desk.write(
                "repeated",
                json!({"of": "order", "order": id, "number": order.channel_order_id}),
            );
            return;
        }
        let number = &order.channel_order_id;
        if let Err(reason) = self.judge(order) {
            self.desk.write(
                "order-rejected",
                json!({"order": id, "number": number, "reason": reason}),
            );
            self.refused.insert(id.clone());
            let event = OrderEvent {
                reason: Some(reason.into()),
                ..said(&self.desk, id, OrderEventType::Rejected, 1, Text::default())
            };
            self.desk.tell(topic::ORDER_LIFECYCLE, id.clone(), event);
            return;
        }
        let lost = self.lost.get(id).copied().unwrap_or_default();
        let mut erp_id = compact_str::format_compact!("SO-{}-{number}", order.channel_id);
        if lost > 0 {
            erp_id = compact_str::format_compact!("{erp_id}-{}", lost + 1);
        }
        self.desk.write(
            "order",
            json!({"order": id, "id": erp_id, "number": number, "channel": order.channel_id,
                "currency": order.currency, "total": order.grand_total}),
        );
        let version = i64::from(lost) + 1;
        let event = said(
            &self.desk,
            id,
            OrderEventType::Accepted,
            version,
            erp_id.clone(),
        );
        self.desk.tell(topic::ORDER_LIFECYCLE, id.clone(), event);
        self.sales.insert(
            id.clone(),
            Sale {
                id: erp_id,
                order: order.clone(),
                cancelled: BTreeMap::new(),
                invoiced: BTreeMap::new(),
                credited: BTreeMap::new(),
                returned: BTreeMap::new(),
                charged: false,
                documents: 0,
                decisions: BTreeSet::new(),
                closed: false,
            },
        );
    }

    /// Takes over who a customer is, where it can be read.
    fn customer(&mut self, e: &CustomerChanged) {
        let opened = self.desk.vault().map(|vault| vault.open(e));
        let Some(Ok(Some(person))) = opened else {
            return;
        };
        let known = (e.channel_id.clone(), e.customer_id.clone());
        if !self.customers.insert(known) {
            return self.desk.write(
                "repeated",
                json!({"of": "customer", "number": e.customer_id, "channel": e.channel_id}),
            );
        }
        self.desk.write(
            "customer",
            json!({"number": e.customer_id, "channel": e.channel_id, "customer": person.email}),
        );
    }

    fn of_sale(&mut self, event: &Event) {
        match event {
            Event::OrderEvent(e) => self.cancelled(e),
            Event::OrderState(e) => self.left(e),
            Event::ReturnEvent(e) => self.came_back(e),
            _ => {}
        }
    }

    fn cancelled(&mut self, e: &OrderEvent) {
        let Some(sale) = self.sales.get_mut(&e.order_id) else {
            return;
        };
        if e.affected.is_empty() || !sale.decisions.insert(e.meta.event_id) {
            return;
        }
        for units in &e.affected {
            *sale.cancelled.entry(units.line_id.clone()).or_default() += units.qty;
        }
        let lines = e
            .affected
            .iter()
            .map(|a| json!({"line": a.line_id, "quantity": a.qty}));
        let lines: Vec<_> = lines.collect();
        self.desk.write(
            "order-updated",
            json!({"order": e.order_id, "id": sale.id, "cancelled": lines}),
        );
        if sale.is_cancelled() {
            self.desk.write(
                "order-cancelled",
                json!({"order": e.order_id, "id": sale.id}),
            );
        }
    }

    /// Invoices units that have left since the last invoice.
    fn left(&mut self, e: &OrderState) {
        let Some(sale) = self.sales.get_mut(&e.order_id) else {
            return;
        };
        let (mut lines, mut wire) = (Vec::new(), Vec::new());
        for line in &e.lines {
            let gone = line.shipped + line.delivered;
            let before = sale
                .invoiced
                .get(&line.line_id)
                .copied()
                .unwrap_or_default();
            if gone <= before {
                continue;
            }
            let Some((net, tax)) = share(&sale.order, &line.line_id, before, gone - before) else {
                continue;
            };
            sale.invoiced.insert(line.line_id.clone(), gone);
            wire.push(invoice_line(
                Some(line.line_id.clone()),
                gone - before,
                net,
                tax,
            ));
            lines.push(
                json!({"line": line.line_id, "quantity": gone - before, "net": net, "tax": tax}),
            );
        }
        if wire.is_empty() {
            return;
        }
        if !std::mem::replace(&mut sale.charged, true) {
            for charge in &sale.order.charges {
                wire.push(invoice_line(None, Decimal::ONE, charge.net, charge.tax));
                lines.push(json!({"quantity": "1", "net": charge.net, "tax": charge.tax}));
            }
        }
        self.document(&e.order_id, InvoiceKind::Invoice, wire, lines, None);
    }

    /// Credits units that came back since the last credit note.
    fn came_back(&mut self, e: &ReturnEvent) {
        if !self.credits {
            return;
        }
        let Some(sale) = self.sales.get_mut(&e.order_id) else {
            return;
        };
        let (mut lines, mut wire) = (Vec::new(), Vec::new());
        for line in &e.lines {
            let of = (e.return_id.clone(), line.return_line_id.clone());
            let before = sale.returned.get(&of).copied().unwrap_or_default();
            if line.accepted <= before {
                continue;
            }
            let units = line.accepted - before;
            let credited = sale.credited.entry(line.order_line_id.clone()).or_default();
            let Some((net, tax)) = share(&sale.order, &line.order_line_id, *credited, units) else {
                continue;
            };
            *credited += units;
            sale.returned.insert(of, line.accepted);
            wire.push(invoice_line(
                Some(line.order_line_id.clone()),
                units,
                net,
                tax,
            ));
            lines.push(
                json!({"line": line.order_line_id, "quantity": units, "net": net, "tax": tax}),
            );
        }
        if !wire.is_empty() {
            let back = Some(e.return_id.clone());
            self.document(&e.order_id, InvoiceKind::CreditNote, wire, lines, back);
        }
    }

    fn document(
        &mut self,
        order: &Text,
        kind: InvoiceKind,
        lines: Vec<InvoiceLine>,
        told: Vec<serde_json::Value>,
        return_id: Option<Text>,
    ) {
        let Some(sale) = self.sales.get_mut(order) else {
            return;
        };
        sale.documents += 1;
        let invoice_id = compact_str::format_compact!("{}-{}", sale.id, sale.documents);
        let net: Decimal = lines.iter().map(|l| l.net).sum();
        let tax: Decimal = lines.iter().map(|l| l.tax).sum();
        let currency = sale.order.currency.clone();
        let wrote = match kind {
            InvoiceKind::CreditNote => "credit-note",
            _ => "invoice",
        };
        self.desk.write(
            wrote,
            json!({"order": order, "id": invoice_id, "return": return_id, "net": net, "tax": tax,
                "gross": net + tax, "currency": currency, "lines": told}),
        );
        let day = self.desk.now().0.div_euclid(DAY);
        let event = InvoiceEvent {
            meta: self.desk.meta("InvoiceEvent", &invoice_id, 1),
            order_id: order.clone(),
            invoice_id,
            invoice_version: 1,
            kind,
            status: InvoiceStatus::Posted,
            return_id,
            lines,
            net: amount(net, &currency),
            tax,
            gross: net + tax,
            tax_date: Date(i32::try_from(day).unwrap_or_default()),
            ..InvoiceEvent::default()
        };
        self.desk.tell(topic::INVOICE_EVENT, order.clone(), event);
    }
}

fn invoice_line(line: Option<Text>, qty: Decimal, net: Decimal, tax: Decimal) -> InvoiceLine {
    InvoiceLine {
        order_line_id: line,
        qty,
        net,
        tax,
        ..InvoiceLine::default()
    }
}

fn said(desk: &Desk, order: &str, kind: OrderEventType, version: i64, erp_id: Text) -> OrderEvent {
    OrderEvent {
        meta: desk.meta("OrderEvent", &format!("{order}#{kind}#{version}"), version),
        order_id: order.into(),
        r#type: kind,
        entity_version: version,
        erp_order_id: Some(erp_id).filter(|id| !id.is_empty()),
        ..OrderEvent::default()
    }
}

impl System for Erp {
    fn desk(&self) -> &Desk {
        &self.desk
    }
    fn desk_mut(&mut self) -> &mut Desk {
        &mut self.desk
    }
    fn listens(&self) -> &'static [&'static str] {
        &[
            topic::ORDER_LIFECYCLE,
            topic::ORDER_STATE,
            topic::RETURN_EVENT,
            topic::CUSTOMER_CHANGE,
            topic::RECON_CORRECTION,
        ]
    }
    fn lacks(&self, event: &Event) -> Option<bool> {
        let Event::OrderEvent(e) = event else {
            return None;
        };
        let sale = self.sales.get(&e.order_id);
        Some(match e.r#type {
            OrderEventType::Placed => sale.is_none() && !self.refused.contains(&e.order_id),
            _ => sale.is_some_and(|s| !s.decisions.contains(&e.meta.event_id)),
        })
    }
    fn replays(&self, event: &Event) -> Option<Replay> {
        match event {
            Event::Correction(e) => erp::tells_again(self.desk.name(), true, e),
            _ => None,
        }
    }
    fn cares(&self, event: &Event) -> bool {
        match event {
            Event::Correction(_) => self.replays(event).is_some(),
            Event::OrderEvent(e) => matches!(
                e.r#type,
                OrderEventType::Placed | OrderEventType::CancelDecided
            ),
            Event::OrderState(e) => e.lines.iter().any(|l| !(l.shipped + l.delivered).is_zero()),
            Event::CustomerChanged(_) => true,
            Event::ReturnEvent(e) => {
                matches!(e.status, ReturnStatus::Inspected | ReturnStatus::Closed)
            }
            _ => false,
        }
    }
    fn hear(&mut self, event: &Event) {
        let order = match event {
            Event::OrderEvent(e) if e.r#type == OrderEventType::Placed => {
                if let Some(order) = &e.order {
                    self.placed(&e.order_id, order);
                }
                let early = self.early.remove(&e.order_id).unwrap_or_default();
                early.iter().for_each(|event| self.of_sale(event));
                return;
            }
            Event::OrderEvent(e) => &e.order_id,
            Event::OrderState(e) => &e.order_id,
            Event::ReturnEvent(e) => &e.order_id,
            Event::CustomerChanged(e) => return self.customer(e),
            _ => return,
        };
        match self.sales.contains_key(order) || self.refused.contains(order) {
            true => self.of_sale(event),
            false => self
                .early
                .entry(order.clone())
                .or_default()
                .push(event.clone()),
        }
    }
}
