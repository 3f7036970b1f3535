//! A retailer whose every unit can be seen: the oracle of the join.
//!
//! Units are moved one by one by the steps of the specification's state machine, and every step is
//! told by the system that makes it. What the order's state must say in the end is counted over the
//! units; nothing is shared with the rules under test.

use crate::*;
use rand::prelude::*;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Place {
    Open,
    Reserved(u128),
    Backordered(u128),
    Released(usize, u128),
    Picked(usize, u128),
    Shipped(usize, u128),
    Delivered(usize, u128),
    Cancelled,
}

struct Unit {
    line: usize,
    place: Place,
    returned: bool,
    refunded: bool,
}

struct Node {
    version: i64,
    status: ShipmentStatus,
    line: usize,
    claim: u128,
    allocated: i32,
    short: i32,
}

/// One order in such a retailer's hands.
pub(crate) struct Retailer {
    units: Vec<Unit>,
    lines: Vec<(String, i32)>,
    nodes: Vec<Node>,
    claims: BTreeMap<u128, (usize, i64, bool)>,
    erp: (i64, bool, bool),
    payments: (i64, i32, i32),
    refunds: (i64, i32),
    returns: i64,
    cancels: i64,
    invoiced: i32,
    /// What the systems have told, in the order in which it happened.
    pub(crate) told: Vec<Event>,
}

impl Retailer {
    pub(crate) fn new(random: &mut StdRng) -> Self {
        let lines: Vec<(String, i32)> = (0..random.random_range(1..4))
            .map(|n| (format!("{}", n + 1), random.random_range(1..6)))
            .collect();
        let named: Vec<(&str, i32)> = lines.iter().map(|(id, n)| (id.as_str(), *n)).collect();
        let units = lines.iter().enumerate().flat_map(|(line, (_, n))| {
            (0..*n).map(move |_| Unit {
                line,
                place: Place::Open,
                returned: false,
                refunded: false,
            })
        });
        Retailer {
            units: units.collect(),
            told: vec![placed(&named)],
            lines,
            nodes: Vec::new(),
            claims: BTreeMap::new(),
            erp: (0, false, false),
            payments: (0, 0, 0),
            refunds: (0, 0),
            returns: 0,
            cancels: 0,
            invoiced: 0,
        }
    }

    /// Something happens, if it can.
    pub(crate) fn happen(&mut self, random: &mut StdRng) {
        let line = random.random_range(0..self.lines.len());
        match random.random_range(0..14) {
            0 | 1 => self.reserve(line, random),
            2 => self.backorder(line, random),
            3 => self.arrive(random),
            4 => self.give_back(random),
            5 | 6 => self.release(line, random),
            7..=9 => self.work(random),
            10 => self.pay(random),
            11 => self.speak(random),
            12 => self.cancel(line, random),
            _ => self.come_back(random),
        }
    }

    fn some(&self, random: &mut StdRng, want: impl Fn(&Unit) -> bool) -> Vec<usize> {
        let all: Vec<usize> = (0..self.units.len())
            .filter(|u| want(&self.units[*u]))
            .collect();
        let count = if all.is_empty() {
            0
        } else {
            random.random_range(1..=all.len())
        };
        all.into_iter().take(count).collect()
    }

    fn count(&self, want: impl Fn(&Unit) -> bool) -> i32 {
        self.units.iter().filter(|u| want(u)).count() as i32
    }

    fn reserve(&mut self, line: usize, random: &mut StdRng) {
        let id = self.claims.len() as u128 + 1;
        let taken = self.some(random, |u| u.line == line && u.place == Place::Open);
        for unit in &taken {
            self.units[*unit].place = Place::Reserved(id);
        }
        if !taken.is_empty() {
            self.claims.insert(id, (line, 0, true));
            self.tell_claim(id);
        }
    }

    fn backorder(&mut self, line: usize, random: &mut StdRng) {
        let id = self.claims.len() as u128 + 1;
        let taken = self.some(random, |u| u.line == line && u.place == Place::Open);
        for unit in &taken {
            self.units[*unit].place = Place::Backordered(id);
        }
        if !taken.is_empty() {
            self.claims.insert(id, (line, 0, true));
            self.tell_claim(id);
        }
    }

    /// Stock arrives for a backorder.
    fn arrive(&mut self, random: &mut StdRng) {
        for unit in self.some(random, |u| matches!(u.place, Place::Backordered(_))) {
            let Place::Backordered(id) = self.units[unit].place else {
                continue;
            };
            self.units[unit].place = Place::Reserved(id);
            self.tell_claim(id);
        }
    }

    /// A claim is released whose units are not at a node.
    fn give_back(&mut self, random: &mut StdRng) {
        let ids: Vec<u128> = self
            .claims
            .iter()
            .filter(|(_, c)| c.2)
            .map(|(id, _)| *id)
            .collect();
        let Some(id) = ids.choose(random).copied() else {
            return;
        };
        let at_node =
            |u: &Unit| matches!(u.place, Place::Released(_, c) | Place::Picked(_, c) if c == id);
        if self.count(at_node) > 0 {
            return;
        }
        for unit in &mut self.units {
            if unit.place == Place::Reserved(id) || unit.place == Place::Backordered(id) {
                unit.place = Place::Open;
            }
        }
        self.claims.get_mut(&id).expect("a claim").2 = false;
        self.tell_claim(id);
    }

    fn tell_claim(&mut self, id: u128) {
        let gone = self
            .count(|u| matches!(u.place, Place::Shipped(_, c) | Place::Delivered(_, c) if c == id));
        let backordered = self.count(|u| u.place == Place::Backordered(id));
        let short: i32 = self
            .nodes
            .iter()
            .filter(|n| n.claim == id)
            .map(|n| n.short)
            .sum();
        let bound = self.count(|u| {
            matches!(u.place, Place::Reserved(c) | Place::Released(_, c) | Place::Picked(_, c) if c == id)
        });
        let claim = self.claims.get_mut(&id).expect("a claim");
        claim.1 += 1;
        let (line, version, open) = *claim;
        let held = if open { gone + bound + short } else { gone };
        self.told.push(
            ReservationEvent {
                meta: meta(
                    "ReservationEvent",
                    "crossdock/stock-ledger",
                    &format!("r{id}"),
                    version,
                ),
                reservation_id: uuid::Uuid::from_u128(id),
                reservation_version: version,
                status: match (open, held, backordered) {
                    (false, ..) => ReservationStatus::Released,
                    (true, 0, 1..) => ReservationStatus::Backordered,
                    _ if gone > 0 => ReservationStatus::PartiallyConsumed,
                    _ => ReservationStatus::Held,
                },
                order_id: key().into(),
                order_line_id: self.lines[line].0.as_str().into(),
                qty_held: q(held),
                qty_consumed: q(gone),
                qty_backordered: q(if open { backordered } else { 0 }),
                ..ReservationEvent::default()
            }
            .into(),
        );
    }

    /// Reserved units of one claim go to a node.
    fn release(&mut self, line: usize, random: &mut StdRng) {
        let open = |u: &&Unit| u.line == line && matches!(u.place, Place::Reserved(_));
        let Some(Place::Reserved(claim)) = self.units.iter().find(open).map(|u| u.place) else {
            return;
        };
        let node = self.nodes.len();
        let taken = self.some(random, |u| u.place == Place::Reserved(claim));
        for unit in &taken {
            self.units[*unit].place = Place::Released(node, claim);
        }
        self.nodes.push(Node {
            version: 0,
            status: ShipmentStatus::Released,
            line,
            claim,
            allocated: taken.len() as i32,
            short: 0,
        });
        self.tell_node(node);
    }

    /// A node goes a step on, or gives up.
    fn work(&mut self, random: &mut StdRng) {
        if self.nodes.is_empty() {
            return;
        }
        let n = random.random_range(0..self.nodes.len());
        let claim = self.nodes[n].claim;
        use ShipmentStatus::*;
        let next = match self.nodes[n].status {
            Released => {
                let short = random.random_bool(0.3);
                let mut left = short;
                for unit in &mut self.units {
                    if unit.place == Place::Released(n, claim) {
                        unit.place = match std::mem::take(&mut left) {
                            true => Place::Open,
                            false => Place::Picked(n, claim),
                        };
                    }
                }
                self.nodes[n].short = i32::from(short);
                if short { ShortPicked } else { Picked }
            }
            Picked | ShortPicked if random.random_bool(0.2) => {
                for unit in &mut self.units {
                    if unit.place == Place::Picked(n, claim) {
                        unit.place = Place::Open;
                    }
                }
                self.nodes[n].short = self.nodes[n].allocated;
                Cancelled
            }
            Picked | ShortPicked => {
                for unit in &mut self.units {
                    if unit.place == Place::Picked(n, claim) {
                        unit.place = Place::Shipped(n, claim);
                    }
                }
                Shipped
            }
            Shipped => {
                for unit in &mut self.units {
                    if unit.place == Place::Shipped(n, claim) {
                        unit.place = Place::Delivered(n, claim);
                    }
                }
                Delivered
            }
            _ => return,
        };
        self.nodes[n].status = next;
        self.tell_node(n);
        if next == Shipped && self.claims[&claim].2 {
            self.tell_claim(claim);
        }
    }

    fn tell_node(&mut self, n: usize) {
        let delivered = self.count(|u| matches!(u.place, Place::Delivered(m, _) if m == n));
        let shipped = delivered + self.count(|u| matches!(u.place, Place::Shipped(m, _) if m == n));
        let picked = shipped + self.count(|u| matches!(u.place, Place::Picked(m, _) if m == n));
        let node = &mut self.nodes[n];
        node.version += 1;
        let line = self.lines[node.line].0.as_str();
        let counters = [node.allocated, picked, shipped, delivered];
        let event = shipment(&format!("S{n}"), node.version, node.status, line, counters);
        let Event::ShipmentEvent(mut event) = event else {
            panic!("a shipment")
        };
        event.lines[0].short = match node.status {
            ShipmentStatus::Cancelled => q(0),
            _ => q(node.short),
        };
        event.lines[0].reservation_id = Some(uuid::Uuid::from_u128(node.claim));
        self.told.push(event.into());
    }

    fn pay(&mut self, random: &mut StdRng) {
        self.payments.0 += 1;
        let amount = random.random_range(1..20);
        let kind = match random.random_bool(0.5) {
            true => PaymentKind::Authorised,
            false => PaymentKind::Captured,
        };
        match kind {
            PaymentKind::Authorised => self.payments.1 += amount,
            _ => self.payments.2 += amount,
        }
        self.told.push(paid(kind, amount, self.payments.0));
    }

    /// The ERP accepts, holds, lets go, or sends an invoice.
    fn speak(&mut self, random: &mut StdRng) {
        self.erp.0 += 1;
        match random.random_range(0..4) {
            0 => {
                self.erp.1 = true;
                self.told.push(accepted(self.erp.0));
            }
            1 => {
                self.erp.2 = true;
                self.told
                    .push(says("erp", OrderEventType::Held, self.erp.0).into());
            }
            2 => {
                self.erp.2 = false;
                self.told
                    .push(says("erp", OrderEventType::HoldReleased, self.erp.0).into());
            }
            _ => {
                self.invoiced += 10;
                let id = format!("I{}", self.erp.0);
                self.told.push(
                    InvoiceEvent {
                        meta: meta("InvoiceEvent", "erp", &id, 1),
                        order_id: key().into(),
                        invoice_id: id.into(),
                        invoice_version: 1,
                        kind: InvoiceKind::Invoice,
                        status: InvoiceStatus::Posted,
                        net: eur(10),
                        gross: q(10),
                        ..InvoiceEvent::default()
                    }
                    .into(),
                );
            }
        }
    }

    /// The ERP cancels units that nothing has been done for, or claims of which are given back first.
    fn cancel(&mut self, line: usize, random: &mut StdRng) {
        let taken = self.some(random, |u| u.line == line && u.place == Place::Open);
        if taken.is_empty() {
            return;
        }
        for unit in &taken {
            self.units[*unit].place = Place::Cancelled;
        }
        self.cancels += 1;
        self.told.push(
            OrderEvent {
                affected: vec![LineQty {
                    line_id: self.lines[line].0.as_str().into(),
                    qty: q(taken.len() as i32),
                }],
                ..says("erp/cancels", OrderEventType::CancelDecided, self.cancels)
            }
            .into(),
        );
    }

    /// Units come back, or their money is paid back.
    fn come_back(&mut self, random: &mut StdRng) {
        let left = |u: &Unit| matches!(u.place, Place::Shipped(..) | Place::Delivered(..));
        if random.random_bool(0.5) {
            for unit in self.some(random, |u| left(u) && !u.returned) {
                self.units[unit].returned = true;
                self.returns += 1;
                let line = self.units[unit].line;
                let Event::ReturnEvent(mut event) =
                    returned(1, &self.lines[line].0.clone(), 1, random.random_range(0..2))
                else {
                    panic!("a return")
                };
                event.return_id = format!("R{}", self.returns).into();
                event.meta = meta("ReturnEvent", "store", &event.return_id, 1);
                self.told.push(event.into());
            }
            return;
        }
        for unit in self.some(random, |u| u.returned && !u.refunded) {
            self.units[unit].refunded = true;
            self.refunds.1 += 10;
            let line = self.lines[self.units[unit].line].0.clone();
            self.refunds.0 += 1;
            for (version, status) in [(1, RefundStatus::Submitted), (2, RefundStatus::Completed)] {
                let Event::RefundEvent(mut event) = refund(status, version, &line, 1) else {
                    panic!("a refund")
                };
                event.refund_id = uuid::Uuid::from_u128(self.refunds.0 as u128);
                event.meta = meta(
                    "RefundEvent",
                    "gate",
                    &format!("f{}", self.refunds.0),
                    version,
                );
                self.told.push(event.into());
            }
        }
    }

    /// Compares the state with what can be counted.
    pub(crate) fn judge(&self, state: &OrderState, seed: u64) {
        for (n, (id, ordered)) in self.lines.iter().enumerate() {
            let line = state
                .lines
                .iter()
                .find(|l| *l.line_id == **id)
                .expect("the line");
            let of = |want: &dyn Fn(Place) -> bool| q(self.count(|u| u.line == n && want(u.place)));
            let expected = [
                q(*ordered),
                of(&|p| p == Place::Open),
                of(&|p| matches!(p, Place::Reserved(_))),
                of(&|p| matches!(p, Place::Backordered(_))),
                of(&|p| matches!(p, Place::Released(..))),
                of(&|p| matches!(p, Place::Picked(..))),
                of(&|p| matches!(p, Place::Shipped(..))),
                of(&|p| matches!(p, Place::Delivered(..))),
                of(&|p| p == Place::Cancelled),
                q(self.count(|u| u.line == n && u.returned)),
                q(self.count(|u| u.line == n && u.refunded)),
            ];
            let found = [
                line.ordered,
                line.open,
                line.reserved,
                line.backordered,
                line.released,
                line.picked,
                line.shipped,
                line.delivered,
                line.cancelled,
                line.returned,
                line.refunded_qty,
            ];
            assert_eq!(found, expected, "seed {seed}, line {id}");
        }
        let money = [
            state.authorised,
            state.captured,
            state.refunded,
            state.invoiced,
        ];
        let counted = [
            self.payments.1,
            self.payments.2,
            self.refunds.1,
            self.invoiced,
        ]
        .map(q);
        assert_eq!(money, counted, "seed {seed}");
        assert_eq!(state.status, self.status(), "seed {seed}");
    }

    fn status(&self) -> OrderStatus {
        let wanted: Vec<&Unit> = self
            .units
            .iter()
            .filter(|u| u.place != Place::Cancelled)
            .collect();
        let delivered = |u: &&&Unit| matches!(u.place, Place::Delivered(..));
        let left = |u: &&&Unit| matches!(u.place, Place::Shipped(..) | Place::Delivered(..));
        let any = |want: fn(Place) -> bool| wanted.iter().any(|u| want(u.place));
        if self.erp.2 {
            return OrderStatus::OnHold;
        }
        if wanted.is_empty() {
            return OrderStatus::Cancelled;
        }
        if wanted.iter().all(|u| u.returned) {
            return OrderStatus::Returned;
        }
        if wanted.iter().any(|u| u.returned) {
            return OrderStatus::PartiallyReturned;
        }
        if wanted.iter().filter(delivered).count() == wanted.len() {
            return OrderStatus::Completed;
        }
        match wanted.iter().filter(left).count() {
            n if n == wanted.len() => return OrderStatus::Shipped,
            0 => {}
            _ => return OrderStatus::PartiallyShipped,
        }
        if any(|p| matches!(p, Place::Released(..) | Place::Picked(..))) {
            OrderStatus::InFulfilment
        } else if any(|p| matches!(p, Place::Backordered(_))) {
            OrderStatus::Backordered
        } else if self.erp.1 {
            OrderStatus::Accepted
        } else {
            OrderStatus::Placed
        }
    }
}
