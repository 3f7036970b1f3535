//! What happens to orders in a demo: customers order, pay and cancel; nodes work and sometimes do not
//! find something; goods come back; money goes back, or somebody forgets it; the provider settles.
//!
//! Everything follows from the seed, the round, and what the systems have heard.

use super::invoices::{Invoice, Sold, invoices};
use crate::contract::event::{
    ChannelType, DeliveryGroup, DeliveryMethod, Disposition, NodeType, OrderLine, OrderSnapshot,
    OrderStatus, RefundType, ReturnMethod, ShipmentStatus, Text,
};
use crate::demo::invariants::Expected;
use crate::demo::systems::{
    Allocation, Estate, Issued, Plan, ReturnedLine, Terms, Tricks, id_of, open, share,
};
use crate::domain::{Decimal, Timestamp, refund_id, return_id};
use crate::pipeline::Fault;
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::time::Duration;

/// Where customers order.
pub(crate) const SHOP: &str = "shop";
/// Who ships: a third party's warehouse.
pub(crate) const DEPOT: &str = "3pl";
/// Where customers pick up.
pub(crate) const CORNER: &str = "corner";
const CURRENCY: &str = "GBP";
/// The round in which the first orders are placed: until then everybody knows which locations serve whom.
const OPENING: usize = 6;
/// Orders placed in a round.
const ORDERS: usize = 6;
/// Rounds in which the ERP takes no orders.
const OUTAGE: std::ops::Range<usize> = 12..20;
/// The round in which the provider settles for the first time.
const PAYOUT: usize = 24;
/// How late an order may be told whose payment is known already.
const LATE: Duration = Duration::from_millis(600);

/// Something that will not end well unless somebody finds it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Twist {
    None,
    /// The ERP does not know the SKU.
    UnknownSku,
    /// Paid, and only then told of.
    Late,
    /// The customer cancels a unit.
    CancelsOne,
    /// The customer cancels all of it.
    CancelsAll,
    /// Somebody asks for more than was paid.
    AsksTooMuch,
    /// Goodwill.
    Goodwill,
    /// The customer disputes the payment.
    Disputes,
    /// Nobody comes.
    NotCollected,
    /// The node misses a unit.
    Short,
}

/// Which twist the order of this number takes.
fn twist(number: usize) -> Twist {
    match number % 30 {
        3 => Twist::Late,
        5 => Twist::CancelsOne,
        7 => Twist::Short,
        9 => Twist::AsksTooMuch,
        11 => Twist::Goodwill,
        13 => Twist::Disputes,
        15 => Twist::UnknownSku,
        17 => Twist::CancelsAll,
        19 => Twist::NotCollected,
        23 => Twist::Late,
        27 => Twist::Short,
        _ => Twist::None,
    }
}

/// An order and what is to become of it.
struct Deal {
    order: OrderSnapshot,
    twist: Twist,
    placed: usize,
    /// Lines that will come back.
    back: Vec<(Text, Text, Decimal)>,
    /// Units paid back because they were cancelled, by line; and how often.
    uncancelled: BTreeMap<Text, (Decimal, u32)>,
    twisted: bool,
    returned: bool,
}

impl Deal {
    /// What is paid for what does not come back.
    fn kept(&self) -> Decimal {
        let paid = |(line, _, units): &(Text, Text, Decimal)| {
            share(&self.order, line, Decimal::ZERO, *units).map(|(net, tax)| net + tax)
        };
        let back: Decimal = self.back.iter().filter_map(paid).sum();
        self.order.grand_total - back
    }
}

/// The market.
pub(crate) struct Market {
    seed: u64,
    waiting: VecDeque<(usize, Invoice)>,
    deals: BTreeMap<Text, Deal>,
    returns: usize,
    faults: Vec<Expected>,
    told: Vec<Value>,
}

impl Market {
    pub fn new(path: &Path, seed: u64) -> Result<Market, Fault> {
        let invoices = invoices(path)?.into_iter().enumerate().collect();
        Ok(Market::of(invoices, seed))
    }

    /// Of these invoices; what becomes of each follows from its number.
    pub fn of(invoices: VecDeque<(usize, Invoice)>, seed: u64) -> Market {
        Market {
            seed,
            waiting: invoices,
            deals: BTreeMap::new(),
            returns: 0,
            faults: Vec::new(),
            told: Vec::new(),
        }
    }

    /// The systems that it needs.
    pub fn plan(&self) -> Plan {
        let skus = self.waiting.iter().flat_map(|(_, i)| &i.lines);
        Plan {
            fronts: vec![SHOP.into()],
            nodes: vec![
                (DEPOT.into(), NodeType::ThirdParty),
                (CORNER.into(), NodeType::Store),
            ],
            terms: Terms {
                skus: skus.map(|l| Text::from(l.sku.as_str())).collect(),
                currencies: [CURRENCY.into()].into(),
                locations: [DEPOT.into(), CORNER.into()].into(),
            },
        }
    }

    /// Exceptions that what was done must lead to.
    pub fn faults(&self) -> &[Expected] {
        &self.faults
    }
    /// What was done wrong on purpose, as lines of a ledger.
    pub fn told(&self) -> &[Value] {
        &self.told
    }

    /// Stock is counted before anybody orders: mostly enough.
    pub fn open(&self, estate: &Estate) {
        let mut wanted: BTreeMap<&str, Decimal> = BTreeMap::new();
        for line in self.waiting.iter().flat_map(|(_, i)| &i.lines) {
            *wanted.entry(&line.sku).or_default() += line.quantity;
        }
        let all = |node: &str, sku: &str, quantity: Decimal| {
            if let Some(node) = estate.nodes.get(node) {
                open(node).count(sku, quantity);
            }
        };
        for (n, (sku, quantity)) in wanted.into_iter().enumerate() {
            let scarce = n % 11 == 4;
            let at_depot = match scarce {
                true => quantity.percent(50.0).floor_to(Decimal::ONE),
                false => quantity,
            };
            all(DEPOT, sku, at_depot);
            all(CORNER, sku, quantity);
        }
        let tricks = Tricks {
            seed: self.seed,
            twice: 0.05,
        };
        estate.each_desk(|desk| desk.play(Some(tricks)));
    }

    /// What happens in a round.
    pub fn work(&mut self, estate: &Estate, round: usize) {
        let outage = OUTAGE.contains(&round);
        let mut erp = open(&estate.erp);
        use crate::demo::systems::System;
        if outage != erp.desk().is_down() {
            erp.desk_mut().set_down(outage);
        }
        drop(erp);
        if round == OUTAGE.start {
            let at = open(&estate.erp).desk().now();
            self.note(at, "outage", "erp", "", None);
        }
        for _ in (0..ORDERS).filter(|_| round >= OPENING) {
            if let Some((number, invoice)) = self.waiting.pop_front() {
                self.place(estate, number, &invoice, round);
            }
        }
        self.fulfil(estate, round);
        self.after(estate, round);
        if round == PAYOUT {
            open(&estate.psp).pay_out(Decimal::ZERO);
        }
        if round == OUTAGE.end {
            // The provider pays a refund and is not sure of it; other answers get lost on their way.
            open(&estate.psp).doubt(1);
            open(&estate.psp).desk_mut().cut(2);
        }
    }

    fn note(&mut self, at: Timestamp, fault: &str, of: &str, order: &str, expects: Option<&str>) {
        self.told.push(
            json!({"time": at, "system": "faults", "kind": "fault", "fault": fault,
            "of": of, "order": order, "expects": expects}),
        );
        if let Some(code) = expects {
            self.faults.push(Expected {
                code: code.into(),
                order: order.into(),
            });
        }
    }

    fn place(&mut self, estate: &Estate, number: usize, invoice: &Invoice, round: usize) {
        let Some(front) = estate.fronts.get(SHOP) else {
            return;
        };
        use crate::demo::systems::System;
        let twist = twist(number);
        let pickup = number % 6 == 1;
        let mut front = open(front);
        let now = front.desk().now();
        let mut order = order_of(invoice, pickup, now);
        if twist == Twist::UnknownSku
            && let Some(line) = order.lines.first_mut()
        {
            line.sku = "NOBODY-SELLS-THIS".into();
        }
        let id = id_of(&order);
        if twist == Twist::Late {
            front.desk_mut().set_delay(LATE);
            self.note(now, "paid-before-placed", "storefront-shop", &id, None);
        }
        front.order(order.clone());
        front.desk_mut().set_delay(Duration::ZERO);
        if twist != Twist::UnknownSku {
            open(&estate.psp).capture(&id, order.grand_total, &order.currency);
        }
        let back = |(n, line): (usize, &Sold)| {
            let name = compact_str::format_compact!("{}", n + 1);
            (name, Text::from(line.sku.as_str()), line.returned)
        };
        let back = invoice.lines.iter().enumerate().map(back);
        let back = back.filter(|(_, _, units)| units.is_positive()).collect();
        let deal = Deal {
            order,
            twist,
            placed: round,
            back,
            uncancelled: BTreeMap::new(),
            twisted: false,
            returned: false,
        };
        self.deals.insert(id, deal);
    }

    /// Nodes go on by one step with all they have.
    fn fulfil(&mut self, estate: &Estate, round: usize) {
        use ShipmentStatus::{
            Acknowledged, Picked, ReadyForPickup, Released, Shipped, ShortPicked,
        };
        for (location, node) in &estate.nodes {
            let mut node = open(node);
            let mut done = std::collections::BTreeSet::new();
            for (order, status) in node.work() {
                if !done.insert(order.clone()) {
                    continue;
                }
                let Some(deal) = self.deals.get_mut(&order) else {
                    continue;
                };
                let pickup = deal
                    .order
                    .delivery_groups
                    .iter()
                    .any(|g| g.pickup_location_id.is_some());
                // One that is not in the right state goes on in the next round.
                let _stays = match status {
                    // What can be cancelled is not worked at once.
                    Released if round < deal.placed + 3 => Ok(()),
                    Released => node.acknowledge(&order),
                    Acknowledged => {
                        let short = deal.twist == Twist::Short
                            && !std::mem::replace(&mut deal.twisted, true);
                        let first = deal.order.lines.first().filter(|_| short);
                        let missing: Vec<_> = first
                            .map(|l| (l.sku.clone(), Decimal::ONE))
                            .into_iter()
                            .collect();
                        if short {
                            self.told.push(json!({"time": node.now(), "system": "faults", "kind": "fault",
                                "fault": "short", "of": format!("node-{location}"), "order": order}));
                        }
                        node.pick(&order, &missing)
                    }
                    Picked | ShortPicked if pickup => node.ready(&order),
                    Picked | ShortPicked => node.ship(&order, &[]),
                    ReadyForPickup if deal.twist == Twist::NotCollected => node.give_up(&order),
                    ReadyForPickup => node.collect(&order),
                    Shipped => node.deliver(&order),
                    _ => Ok(()),
                };
            }
        }
    }

    /// What customers, service and their banks do about what has happened.
    fn after(&mut self, estate: &Estate, round: usize) {
        let Some(front) = estate.fronts.get(SHOP) else {
            return;
        };
        let ids: Vec<Text> = self.deals.keys().cloned().collect();
        for id in ids {
            self.refund_cancelled(estate, &id);
            let Some(deal) = self.deals.get_mut(&id) else {
                continue;
            };
            let twist = deal.twist;
            let once = |deal: &mut Deal| !std::mem::replace(&mut deal.twisted, true);
            match twist {
                Twist::CancelsAll if round > deal.placed && once(deal) => {
                    open(front).cancel(&id, &[]);
                }
                Twist::CancelsOne if round > deal.placed && once(deal) => {
                    let first = deal
                        .order
                        .lines
                        .first()
                        .map(|l| (l.line_id.clone(), Decimal::ONE));
                    open(front).cancel(&id, &first.into_iter().collect::<Vec<_>>());
                }
                Twist::AsksTooMuch if round > deal.placed + 2 && once(deal) => {
                    let sum = deal.order.grand_total + deal.order.grand_total;
                    goodwill(estate, &id, sum, "a mistake");
                    let now = open(front).now();
                    self.note(
                        now,
                        "over-refund",
                        "service",
                        &id,
                        Some("REFUND_EXCEEDS_CAPTURE"),
                    );
                }
                // Beyond what the customer keeps it would be more than was paid.
                Twist::Goodwill
                    if round > deal.placed + 2 && deal.kept() > Decimal::ONE && once(deal) =>
                {
                    goodwill(estate, &id, Decimal::ONE, "it came late");
                }
                Twist::Disputes if round > deal.placed + 8 && once(deal) => {
                    let sum = deal.order.grand_total;
                    open(&estate.psp).charge_back(&id, sum);
                    let now = open(front).now();
                    self.note(now, "chargeback", "psp", &id, None);
                }
                _ => {}
            }
            self.come_back(estate, &id);
        }
    }

    /// What was cancelled after it was paid is paid back.
    fn refund_cancelled(&mut self, estate: &Estate, id: &Text) {
        let (Some(deal), Some(front)) = (self.deals.get_mut(id), estate.fronts.get(SHOP)) else {
            return;
        };
        if deal.twist == Twist::UnknownSku {
            return;
        }
        for (line, cancelled) in open(front).cancelled_of(id) {
            let (before, count) = deal.uncancelled.get(&line).copied().unwrap_or_default();
            let units = cancelled - before;
            let Some((net, tax)) = share(&deal.order, &line, before, units) else {
                continue;
            };
            if !units.is_positive() || !(net + tax).is_positive() {
                continue;
            }
            deal.uncancelled
                .insert(line.clone(), (cancelled, count + 1));
            let refund = refund_id(id, "cancellation", &line, count);
            let part = Allocation {
                line: Some(line),
                quantity: units,
                net,
                tax,
                kind: RefundType::Cancellation,
            };
            open(&estate.service).ask_refund(
                id,
                refund,
                (net + tax, CURRENCY),
                &[part],
                (None, None),
            );
        }
    }

    /// What the customer wants to give back, once all of it was handed over.
    fn come_back(&mut self, estate: &Estate, id: &Text) {
        let Some(deal) = self.deals.get_mut(id) else {
            return;
        };
        if deal.returned || deal.back.is_empty() || deal.twist == Twist::Disputes {
            return;
        }
        let mut here: BTreeMap<Text, Decimal> = BTreeMap::new();
        for node in estate.nodes.values() {
            for (line, units) in open(node).handed_over(id) {
                *here.entry(line).or_default() += units;
            }
        }
        let (Some(node), Some(front)) = (estate.nodes.get(CORNER), estate.fronts.get(SHOP)) else {
            return;
        };
        let there = |line: &Text, units: Decimal| here.get(line).is_some_and(|have| *have >= units);
        if !deal.back.iter().all(|(line, _, units)| there(line, *units)) {
            return;
        }
        deal.returned = true;
        self.returns += 1;
        let name: Text = return_id(id, CORNER, "1").to_string().into();
        let lines = deal.back.iter().map(|(line, sku, quantity)| ReturnedLine {
            line: line.clone(),
            sku: sku.clone(),
            quantity: *quantity,
            rejected: Decimal::ZERO,
            disposition: Disposition::Restock,
        });
        open(node).take_back(id, &name, &lines.collect::<Vec<_>>(), ReturnMethod::Store);
        let part = |(line, _, quantity): &(Text, Text, Decimal)| {
            let (net, tax) = share(&deal.order, line, Decimal::ZERO, *quantity)?;
            Some(Allocation {
                line: Some(line.clone()),
                quantity: *quantity,
                net,
                tax,
                kind: RefundType::Item,
            })
        };
        let parts: Vec<Allocation> = deal.back.iter().filter_map(part).collect();
        let total: Decimal = parts.iter().map(|p| p.net + p.tax).sum();
        let now = open(front).now();
        match self.returns % 5 {
            // Somebody forgets it.
            3 => self.note(now, "lost", "service", id, Some("RETURN_WITHOUT_REFUND")),
            // The storefront pays by itself before anybody asks.
            4 => {
                if let Ok(reference) = open(&estate.psp).refund_by_hand(id, total) {
                    open(front).issued(&Issued {
                        order: id,
                        amount: total,
                        currency: CURRENCY,
                        reference: Some(reference),
                    });
                }
            }
            _ => {
                let refund = refund_id(id, "return", &name, 0);
                let why = (Some(name), None);
                open(&estate.service).ask_refund(id, refund, (total, CURRENCY), &parts, why);
            }
        }
    }

    /// Days later: the provider settles, and the ERP closes what is over and in order.
    pub fn wind_up(&mut self, estate: &Estate) {
        open(&estate.psp).pay_out(Decimal::ZERO);
        let Some(front) = estate.fronts.get(SHOP) else {
            return;
        };
        let statuses = open(front).statuses().clone();
        for id in self.deals.keys() {
            use OrderStatus::{Cancelled, Completed, PartiallyReturned, Returned};
            let over = statuses
                .get(id)
                .is_some_and(|s| matches!(s, Cancelled | Completed | PartiallyReturned | Returned));
            if over && !self.faults.iter().any(|f| f.order == *id) {
                // One that the ERP has refused is none that it could close.
                let _unknown = open(&estate.erp).close(id);
            }
        }
    }

    /// Whether nothing more is going to be ordered.
    pub fn is_over(&self) -> bool {
        self.waiting.is_empty()
    }
}

fn goodwill(estate: &Estate, order: &Text, sum: Decimal, reason: &str) {
    let part = Allocation {
        line: None,
        quantity: Decimal::ZERO,
        net: sum,
        tax: Decimal::ZERO,
        kind: RefundType::Appeasement,
    };
    let refund = refund_id(order, "appeasement", "1", 0);
    let why = (None, Some(Text::from(reason)));
    open(&estate.service).ask_refund(order, refund, (sum, CURRENCY), &[part], why);
}

/// An invoice as its customer would have ordered it: prices with 20 % tax in them.
fn order_of(invoice: &Invoice, pickup: bool, now: Timestamp) -> OrderSnapshot {
    let taxed = |gross: Decimal| Decimal::from_units((gross.units() / 6 + 50) / 100 * 100);
    let line = |(n, sold): (usize, &Sold)| {
        let total = sold.price.times(sold.quantity);
        OrderLine {
            line_id: compact_str::format_compact!("{}", n + 1),
            sku: sold.sku.as_str().into(),
            qty: sold.quantity,
            uom: "EA".into(),
            unit_price: sold.price,
            tax: taxed(total),
            line_total: total,
            delivery_group_id: "1".into(),
            ..OrderLine::default()
        }
    };
    let lines: Vec<OrderLine> = invoice.lines.iter().enumerate().map(line).collect();
    let total: Decimal = lines.iter().map(|l| l.line_total).sum();
    OrderSnapshot {
        channel_id: SHOP.into(),
        channel_type: ChannelType::Web,
        channel_order_id: invoice.number.as_str().into(),
        channel_order_version: 1,
        placed_at: now,
        currency: CURRENCY.into(),
        prices_include_tax: true,
        delivery_groups: vec![DeliveryGroup {
            group_id: "1".into(),
            method: match pickup {
                true => DeliveryMethod::PickupInStore,
                false => DeliveryMethod::ShipToHome,
            },
            pickup_location_id: pickup.then(|| CORNER.into()),
            address_token: Some(compact_str::format_compact!("address-{}", invoice.number)),
            ..DeliveryGroup::default()
        }],
        subtotal: total,
        tax_total: lines.iter().map(|l| l.tax).sum(),
        grand_total: total,
        lines,
        ..OrderSnapshot::default()
    }
}
