//! A node: a warehouse, a third party's WMS, or a store with its tills. It works what is released to
//! it, takes returns, and alone knows what lies at its location.

use super::desk::{Desk, System};
use crate::contract::event::{
    Disposition, Event, NodeType, OrderEventType, ReservationEvent, ReservationStatus, ReturnEvent,
    ReturnLine, ReturnMethod, ReturnStatus, ShipmentEvent, ShipmentLine, ShipmentStatus,
    StockChanged, StockReason, StockState, Text,
};
use crate::contract::topic;
use crate::demo::facts;
use crate::domain::{Decimal, Timestamp, compound_key};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

/// A fulfilment here.
#[derive(Clone, Debug)]
struct Fulfilment {
    id: Text,
    order: Text,
    version: i64,
    status: ShipmentStatus,
    /// In whole, cumulative.
    lines: Vec<ShipmentLine>,
}

/// Units that come back.
#[derive(Clone, Debug)]
pub(crate) struct ReturnedLine {
    pub line: Text,
    pub sku: Text,
    pub quantity: Decimal,
    /// Of these, what is not accepted.
    pub rejected: Decimal,
    pub disposition: Disposition,
}

/// The node.
pub(crate) struct Node {
    desk: Desk,
    location: Text,
    kind: NodeType,
    shelf: BTreeMap<Text, Decimal>,
    position: i64,
    /// Claims on its stock, by order: what is to be fulfilled in all.
    claims: BTreeMap<Text, BTreeMap<uuid::Uuid, ReservationEvent>>,
    accepted: BTreeSet<Text>,
    /// Units ordered, and of these cancelled, by order and line.
    wanted: BTreeMap<(Text, Text), (Decimal, Decimal)>,
    /// Decisions on cancellations it has followed.
    decisions: BTreeSet<uuid::Uuid>,
    fulfilments: BTreeMap<Text, Vec<Fulfilment>>,
    returns: BTreeMap<Text, i64>,
}

impl Node {
    pub fn new(desk: Desk, location: impl Into<Text>, kind: NodeType) -> Self {
        Node {
            desk,
            location: location.into(),
            kind,
            shelf: BTreeMap::new(),
            position: 0,
            claims: BTreeMap::new(),
            accepted: BTreeSet::new(),
            wanted: BTreeMap::new(),
            decisions: BTreeSet::new(),
            fulfilments: BTreeMap::new(),
            returns: BTreeMap::new(),
        }
    }

    pub fn now(&self) -> Timestamp {
        self.desk.now()
    }
    /// Units of an order that its customer has had from here, by line.
    pub fn handed_over(&self, order: &str) -> BTreeMap<Text, Decimal> {
        let mut units: BTreeMap<Text, Decimal> = BTreeMap::new();
        for line in self
            .fulfilments
            .get(order)
            .into_iter()
            .flatten()
            .flat_map(|f| &f.lines)
        {
            *units.entry(line.line_id.clone()).or_default() += line.delivered;
        }
        units
    }
    /// Orders with work to do here, and how it stands.
    pub fn work(&self) -> Vec<(Text, ShipmentStatus)> {
        let all = self.fulfilments.values().flatten();
        all.filter(|f| is_open(f.status))
            .map(|f| (f.order.clone(), f.status))
            .collect()
    }

    /// Somebody counts: this much is there.
    pub fn count(&mut self, sku: &str, quantity: Decimal) {
        self.shelf.insert(sku.into(), quantity);
        let whole = quantity.units() / Decimal::ONE.units();
        let now = self.desk.now();
        let fact = facts::snapshot(
            self.desk.name(),
            sku,
            &self.location,
            whole,
            self.position,
            now,
        );
        self.desk.write(
            "count",
            json!({"sku": sku, "location": self.location, "quantity": quantity, "position": self.position}),
        );
        self.desk.tell(fact.topic, fact.key, fact.event);
    }

    /// Goods come in from a supplier.
    pub fn receive(&mut self, sku: &str, quantity: Decimal) {
        let states = (StockState::Supplier, StockState::Sellable);
        self.moved(
            sku,
            quantity,
            states,
            StockReason::Receipt,
            Movement::default(),
        );
    }
    /// What lies here, by SKU.
    pub fn shelf(&self) -> &BTreeMap<Text, Decimal> {
        &self.shelf
    }
    /// Whoever reserved goods takes them along.
    pub fn hand_out(&mut self, sku: &str, quantity: Decimal, reservation: uuid::Uuid) {
        let states = (StockState::Sellable, StockState::Customer);
        let why = Movement {
            reservation: Some(reservation),
            ..Movement::default()
        };
        self.moved(sku, quantity, states, StockReason::Shipment, why);
    }
    /// A customer takes goods along from a till.
    pub fn sell(&mut self, sku: &str, quantity: Decimal) {
        let states = (StockState::Sellable, StockState::Customer);
        self.moved(
            sku,
            quantity,
            states,
            StockReason::Sale,
            Movement::default(),
        );
    }
    /// Looks whether the goods of an order are here.
    pub fn acknowledge(&mut self, order: &str) -> Result<(), String> {
        self.go(order, &[ShipmentStatus::Released], |f| {
            f.status = ShipmentStatus::Acknowledged
        })
    }

    /// Takes the goods of an order from the shelves; `missing` of a SKU are not found, and count as lost.
    pub fn pick(&mut self, order: &str, missing: &[(Text, Decimal)]) -> Result<(), String> {
        use ShipmentStatus::{Acknowledged, Picked, Released, ShortPicked};
        let mut lost: Vec<(Text, Decimal)> = Vec::new();
        self.go(order, &[Released, Acknowledged], |f| {
            let mut missing: BTreeMap<Text, Decimal> = missing.iter().cloned().collect();
            f.status = Picked;
            for line in &mut f.lines {
                let due = line.allocated - line.cancelled;
                let left = missing.entry(line.sku.clone()).or_default();
                line.short = due.min(*left);
                *left -= line.short;
                line.picked = due - line.short;
                if line.short.is_positive() {
                    f.status = ShortPicked;
                    lost.push((line.sku.clone(), line.short));
                }
            }
        })?;
        for (sku, quantity) in lost {
            let states = (StockState::Sellable, StockState::Loss);
            self.moved(
                &sku,
                quantity,
                states,
                StockReason::Shrink,
                Movement::default(),
            );
        }
        Ok(())
    }

    /// Goods wait at the counter.
    pub fn ready(&mut self, order: &str) -> Result<(), String> {
        use ShipmentStatus::{Packed, Picked, ReadyForPickup, ShortPicked};
        self.go(order, &[Picked, ShortPicked, Packed], |f| {
            f.status = ReadyForPickup
        })
    }

    /// The customer takes them.
    pub fn collect(&mut self, order: &str) -> Result<(), String> {
        use ShipmentStatus::{Collected, ReadyForPickup};
        self.go(order, &[ReadyForPickup], |f| {
            f.status = Collected;
            f.lines
                .iter_mut()
                .for_each(|l| (l.shipped, l.delivered) = (l.picked, l.picked));
        })?;
        self.gone(order, StockReason::Sale);
        Ok(())
    }

    /// Nobody came, or nobody wants it any more: back on the shelf.
    pub fn give_up(&mut self, order: &str) -> Result<(), String> {
        use ShipmentStatus::{
            Acknowledged, Cancelled, Packed, Picked, ReadyForPickup, Released, ShortPicked,
        };
        let open = [
            Released,
            Acknowledged,
            Picked,
            ShortPicked,
            Packed,
            ReadyForPickup,
        ];
        self.go(order, &open, |f| f.status = Cancelled)
    }

    /// A parcel leaves: with `only` these units, the rest in another one later.
    pub fn ship(&mut self, order: &str, only: &[(Text, Decimal)]) -> Result<(), String> {
        use ShipmentStatus::{Packed, Picked, Shipped, ShortPicked};
        if !only.is_empty() {
            self.split(order, only)?;
        }
        let open = [Picked, ShortPicked, Packed];
        let part = !only.is_empty();
        let mut first = true;
        self.go(order, &open, |f| {
            // Of a split order only the parcel that was packed first leaves.
            if part && !std::mem::replace(&mut first, false) {
                return;
            }
            f.status = Shipped;
            f.lines.iter_mut().for_each(|l| l.shipped = l.picked);
        })?;
        self.gone(order, StockReason::Shipment);
        Ok(())
    }

    /// Puts all but `only` of what was picked into a fulfilment of its own.
    fn split(&mut self, order: &str, only: &[(Text, Decimal)]) -> Result<(), String> {
        use ShipmentStatus::{Packed, Picked, ShortPicked};
        let location = self.location.clone();
        let all = self.fulfilments.entry(order.into()).or_default();
        let count = all.len();
        let found = all
            .iter_mut()
            .find(|f| matches!(f.status, Picked | ShortPicked | Packed));
        let Some(f) = found else {
            return Err(format!("{location} has nothing picked of the order"));
        };
        let mut wanted: BTreeMap<Text, Decimal> = only.iter().cloned().collect();
        let mut rest = Vec::new();
        for line in &mut f.lines {
            let here = wanted.entry(line.sku.clone()).or_default();
            let goes = line.picked.min(*here);
            *here -= goes;
            let stays = line.picked - goes;
            if stays.is_positive() {
                rest.push(ShipmentLine {
                    allocated: stays,
                    picked: stays,
                    ..plain(line)
                });
            }
            line.allocated -= stays;
            line.picked = goes;
        }
        f.lines.retain(|l| l.allocated.is_positive());
        if let Some((sku, missing)) = wanted.into_iter().find(|(_, q)| q.is_positive()) {
            return Err(format!(
                "{location} has {missing} of {sku} too little picked"
            ));
        }
        if rest.is_empty() {
            return Ok(());
        }
        let other = Fulfilment {
            id: name_of(&location, order, count + 1),
            order: order.into(),
            version: 0,
            status: Picked,
            lines: rest,
        };
        all.push(other);
        Ok(())
    }

    /// The carrier has handed over every parcel.
    pub fn deliver(&mut self, order: &str) -> Result<(), String> {
        use ShipmentStatus::{Delivered, InTransit, OutForDelivery, Shipped};
        self.go(order, &[Shipped, InTransit, OutForDelivery], |f| {
            f.status = Delivered;
            f.lines.iter_mut().for_each(|l| l.delivered = l.shipped);
        })
    }

    /// The node says of a fulfilment what cannot be, as after a fault of its own.
    pub fn claim_impossible(&mut self, order: &str) -> Result<(), String> {
        use ShipmentStatus::{Collected, Delivered, Released, Shipped};
        self.go(order, &[Shipped, Delivered, Collected], |f| {
            f.status = Released
        })
    }

    /// Goods come back here and are looked at.
    pub fn take_back(
        &mut self,
        order: &str,
        id: &str,
        lines: &[ReturnedLine],
        method: ReturnMethod,
    ) {
        let known = self.returns.get(id).copied();
        let before = match method {
            ReturnMethod::Mail => 1,
            _ => 0,
        };
        let version = known.unwrap_or(before) + 1;
        self.returns.insert(id.into(), version);
        let mut event = return_event(&self.desk, order, id, version, ReturnStatus::Inspected);
        event.method = method;
        event.return_location_id = Some(self.location.clone());
        event.lines = lines
            .iter()
            .map(|l| return_line(l, ReturnStatus::Inspected))
            .collect();
        let told = lines.iter().map(|l| {
            json!({"line": l.line, "sku": l.sku, "requested": l.quantity, "received": l.quantity,
                "accepted": l.quantity - l.rejected, "rejected": l.rejected, "disposition": l.disposition.symbol()})
        });
        self.desk.write(
            "return",
            json!({"order": order, "return": id, "version": version, "status": "INSPECTED",
                "lines": told.collect::<Vec<_>>()}),
        );
        self.desk.tell(topic::RETURN_EVENT, order, event);
        for line in lines {
            let accepted = line.quantity - line.rejected;
            let to = match line.disposition {
                Disposition::Restock => StockState::Sellable,
                Disposition::Keep => continue,
                _ => StockState::Damaged,
            };
            if accepted.is_positive() {
                let why = Movement {
                    order: Some(order.into()),
                    line: Some(line.line.clone()),
                    return_id: Some(id.into()),
                    ..Movement::default()
                };
                self.moved(
                    &line.sku,
                    accepted,
                    (StockState::Customer, to),
                    StockReason::Return,
                    why,
                );
            }
        }
    }

    /// Changes every fulfilment of an order that stands at one of `from`, and tells of it.
    fn go(
        &mut self,
        order: &str,
        from: &[ShipmentStatus],
        mut change: impl FnMut(&mut Fulfilment),
    ) -> Result<(), String> {
        let mut changed = Vec::new();
        let mut stand = Vec::new();
        for f in self.fulfilments.get_mut(order).into_iter().flatten() {
            if !from.contains(&f.status) {
                stand.push(f.status.symbol());
                continue;
            }
            change(f);
            f.version += 1;
            changed.push(f.clone());
        }
        if changed.is_empty() {
            let is = match stand.is_empty() {
                true => "nothing of it was released here".to_owned(),
                false => format!("it is {} here", stand.join(", ")),
            };
            return Err(format!(
                "{} cannot do that with the order: {is}",
                self.location
            ));
        }
        changed.iter().for_each(|f| self.report(f));
        Ok(())
    }

    /// Goods of what left and was not booked yet leave the shelf.
    fn gone(&mut self, order: &str, reason: StockReason) {
        let fulfilments = self.fulfilments.get(order).cloned().unwrap_or_default();
        for f in fulfilments {
            for line in f.lines.iter().filter(|l| l.shipped.is_positive()) {
                let why = Movement {
                    name: Some(compact_str::format_compact!("{}/{}", f.id, line.line_id)),
                    order: Some(order.into()),
                    line: Some(line.line_id.clone()),
                    reservation: line.reservation_id,
                    return_id: None,
                };
                let booked = |e: &super::Entry| {
                    e.kind == "movement" && Some(e.text("movement")) == why.name.as_deref()
                };
                if !self.desk.ledger().iter().any(booked) {
                    let states = (StockState::Sellable, StockState::Customer);
                    self.moved(&line.sku, line.shipped, states, reason, why);
                }
            }
        }
    }

    fn report(&mut self, f: &Fulfilment) {
        let lines = f.lines.iter().map(|l| {
            json!({"line": l.line_id, "sku": l.sku, "reservation": l.reservation_id,
                "allocated": l.allocated, "picked": l.picked, "short": l.short, "shipped": l.shipped,
                "delivered": l.delivered, "cancelled": l.cancelled})
        });
        self.desk.write(
            "fulfilment",
            json!({"order": f.order, "fulfilment": f.id, "version": f.version,
                "status": f.status.symbol(), "lines": lines.collect::<Vec<_>>()}),
        );
        let event = ShipmentEvent {
            meta: self.desk.meta(
                "ShipmentEvent",
                &format!("{}#{}", f.id, f.version),
                f.version,
            ),
            order_id: f.order.clone(),
            shipment_id: f.id.clone(),
            shipment_version: f.version,
            node_id: self.location.clone(),
            node_type: self.kind,
            status: f.status,
            lines: f.lines.clone(),
            ..ShipmentEvent::default()
        };
        self.desk
            .tell(topic::SHIPMENT_EVENT, f.order.clone(), event);
    }

    fn moved(
        &mut self,
        sku: &str,
        quantity: Decimal,
        (from, to): (StockState, StockState),
        reason: StockReason,
        why: Movement,
    ) {
        self.position += 1;
        let name = why.name.unwrap_or_else(|| {
            compact_str::format_compact!("{}/m{}", self.location, self.position)
        });
        let shelf = self.shelf.entry(sku.into()).or_default();
        match (from, to) {
            (StockState::Sellable, _) => *shelf -= quantity,
            (_, StockState::Sellable) => *shelf += quantity,
            _ => {}
        }
        self.desk.write(
            "movement",
            json!({"movement": name, "sku": sku, "location": self.location, "from": from.symbol(),
                "to": to.symbol(), "quantity": quantity, "order": why.order, "line": why.line,
                "reservation": why.reservation, "return": why.return_id}),
        );
        let event = StockChanged {
            meta: self.desk.meta("StockChanged", &name, self.position),
            movement_id: name,
            sku: sku.into(),
            location_id: self.location.clone(),
            from_state: from,
            to_state: to,
            qty: quantity,
            reason,
            order_id: why.order,
            order_line_id: why.line,
            reservation_id: why.reservation,
            return_id: why.return_id,
            ..StockChanged::default()
        };
        let key = compound_key(&[sku, &self.location]);
        self.desk.tell(topic::STOCK_CHANGE, key, event);
    }

    /// Turns claims of an accepted order into work: what they cover beyond what is worked already.
    fn release(&mut self, order: &Text) {
        if !self.accepted.contains(order) {
            return;
        }
        let claims = self.claims.get(order).cloned().unwrap_or_default();
        let all = self.fulfilments.entry(order.clone()).or_default();
        let mut lines = Vec::new();
        for (id, claim) in claims {
            let worked: Decimal = all
                .iter()
                .flat_map(|f| &f.lines)
                .filter(|l| l.reservation_id == Some(id))
                .map(|l| l.allocated)
                .sum();
            if claim.qty_held > worked {
                let allocated = claim.qty_held - worked;
                let here: Decimal = all
                    .iter()
                    .flat_map(|f| &f.lines)
                    .filter(|l| l.line_id == claim.order_line_id)
                    .map(|l| l.allocated - l.cancelled - l.short)
                    .sum();
                let of = (order.clone(), claim.order_line_id.clone());
                let wanted = self.wanted.get(&of).copied().unwrap_or_default();
                // A claim is not made smaller when a part of it is cancelled.
                let excess = match wanted.0.is_zero() {
                    true => Decimal::ZERO,
                    false => here + allocated - (wanted.0 - wanted.1),
                };
                lines.push(ShipmentLine {
                    line_id: claim.order_line_id.clone(),
                    sku: claim.sku.clone(),
                    allocated,
                    cancelled: excess.or_zero().min(allocated),
                    reservation_id: Some(id),
                    ..ShipmentLine::default()
                });
            }
        }
        if lines.is_empty() {
            return;
        }
        let waiting = all
            .iter_mut()
            .find(|f| f.status == ShipmentStatus::Released);
        let released = match waiting {
            Some(f) => {
                f.version += 1;
                f.lines.extend(lines);
                f.clone()
            }
            None => {
                let f = Fulfilment {
                    id: name_of(&self.location, order, all.len() + 1),
                    order: order.clone(),
                    version: 1,
                    status: match lines.iter().all(|l| l.cancelled == l.allocated) {
                        true => ShipmentStatus::Cancelled,
                        false => ShipmentStatus::Released,
                    },
                    lines,
                };
                all.push(f.clone());
                f
            }
        };
        self.report(&released);
    }

    /// What is cancelled and not picked yet is not worked.
    fn cancel(&mut self, order: &Text, line: &str, units: Decimal) {
        let mut left = units;
        let mut changed = Vec::new();
        for f in self.fulfilments.get_mut(order).into_iter().flatten() {
            if !matches!(
                f.status,
                ShipmentStatus::Released | ShipmentStatus::Acknowledged
            ) {
                continue;
            }
            let before = left;
            for l in f.lines.iter_mut().filter(|l| l.line_id == line) {
                let taken = left.min(l.allocated - l.cancelled);
                l.cancelled += taken;
                left -= taken;
            }
            if left < before {
                if f.lines.iter().all(|l| l.cancelled == l.allocated) {
                    f.status = ShipmentStatus::Cancelled;
                }
                f.version += 1;
                changed.push(f.clone());
            }
        }
        changed.iter().for_each(|f| self.report(f));
    }
}

/// What a movement is for.
#[derive(Default)]
struct Movement {
    name: Option<Text>,
    order: Option<Text>,
    line: Option<Text>,
    reservation: Option<uuid::Uuid>,
    return_id: Option<Text>,
}

fn name_of(location: &str, order: &str, number: usize) -> Text {
    compact_str::format_compact!("{location}/{order}/{number}")
}

fn plain(line: &ShipmentLine) -> ShipmentLine {
    ShipmentLine {
        line_id: line.line_id.clone(),
        sku: line.sku.clone(),
        reservation_id: line.reservation_id,
        ..ShipmentLine::default()
    }
}

fn is_open(status: ShipmentStatus) -> bool {
    use ShipmentStatus::{Cancelled, Collected, Delivered, ReturnedToSender};
    !matches!(status, Cancelled | Collected | Delivered | ReturnedToSender)
}

pub(super) fn return_event(
    desk: &Desk,
    order: &str,
    id: &str,
    version: i64,
    status: ReturnStatus,
) -> ReturnEvent {
    ReturnEvent {
        meta: desk.meta("ReturnEvent", &format!("{id}#{version}"), version),
        order_id: order.into(),
        return_id: id.into(),
        return_version: version,
        status,
        ..ReturnEvent::default()
    }
}

pub(super) fn return_line(line: &ReturnedLine, status: ReturnStatus) -> ReturnLine {
    let here = status == ReturnStatus::Inspected;
    let counted = |units| if here { units } else { Decimal::ZERO };
    ReturnLine {
        return_line_id: line.line.clone(),
        order_line_id: line.line.clone(),
        sku: line.sku.clone(),
        requested: line.quantity,
        received: counted(line.quantity),
        accepted: counted(line.quantity - line.rejected),
        rejected: counted(line.rejected),
        disposition: match here {
            true => line.disposition,
            false => Disposition::Unknown,
        },
        reason_code: None,
    }
}

impl System for Node {
    fn desk(&self) -> &Desk {
        &self.desk
    }
    fn desk_mut(&mut self) -> &mut Desk {
        &mut self.desk
    }
    fn listens(&self) -> &'static [&'static str] {
        &[topic::RESERVATION_EVENT, topic::ORDER_LIFECYCLE]
    }
    fn cares(&self, event: &Event) -> bool {
        match event {
            Event::ReservationEvent(e) => e.location_id == self.location,
            Event::OrderEvent(e) => matches!(
                e.r#type,
                OrderEventType::Placed | OrderEventType::Accepted | OrderEventType::CancelDecided
            ),
            _ => false,
        }
    }
    fn hear(&mut self, event: &Event) {
        match event {
            Event::ReservationEvent(e) => {
                let claims = self.claims.entry(e.order_id.clone()).or_default();
                match e.status {
                    ReservationStatus::Confirmed => {
                        claims.insert(e.reservation_id, e.clone());
                    }
                    ReservationStatus::Released | ReservationStatus::Expired => {
                        claims.remove(&e.reservation_id);
                    }
                    _ => {}
                }
                self.release(&e.order_id);
            }
            Event::OrderEvent(e) if e.r#type == OrderEventType::Accepted => {
                self.accepted.insert(e.order_id.clone());
                self.release(&e.order_id);
            }
            Event::OrderEvent(e) if e.r#type == OrderEventType::Placed => {
                for line in e.order.iter().flat_map(|o| &o.lines) {
                    let of = (e.order_id.clone(), line.line_id.clone());
                    self.wanted.entry(of).or_default().0 = line.qty;
                }
            }
            Event::OrderEvent(e) if self.decisions.insert(e.meta.event_id) => {
                for units in &e.affected {
                    let of = (e.order_id.clone(), units.line_id.clone());
                    self.wanted.entry(of).or_default().1 += units.qty;
                    self.cancel(&e.order_id, &units.line_id, units.qty);
                }
            }
            _ => {}
        }
    }
}
