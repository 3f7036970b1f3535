//! `stock-ledger` and `ats-aggregate` as processors: records in, events and outcomes out.

use crossdock::contract::event::*;
use crossdock::contract::topic;
use crossdock::domain::{Decimal, Timestamp, compound_key, event_id};
use crossdock::pipeline::{
    Code, Context, Headers, Inbound, Origin as Place, Output, Processor, Record, Resolution, State,
};
use crossdock::processors::{AtsAggregate, StockLedger};
use std::collections::BTreeMap;
use std::time::Duration;
use uuid::Uuid;

const KEY: &str = "A|dc";

#[derive(Default)]
struct Entries(BTreeMap<Vec<u8>, Vec<u8>>);

impl State for Entries {
    fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.0.get(key).map(Vec::as_slice)
    }
    fn put(&mut self, key: &[u8], value: &[u8]) {
        self.0.insert(key.into(), value.into());
    }
    fn delete(&mut self, key: &[u8]) {
        self.0.remove(key);
    }
    fn scan(&self, prefix: &[u8], visit: &mut dyn FnMut(&[u8], &[u8])) {
        for (key, value) in self.0.iter().filter(|(k, _)| k.starts_with(prefix)) {
            visit(key, value);
        }
    }
}

/// A processor, its state, and the offsets of what was sent to it.
struct Driven<P> {
    processor: P,
    state: Entries,
    next_offset: i64,
    now: Timestamp,
}

impl<P: Processor> Driven<P> {
    fn new(processor: P) -> Self {
        Driven {
            processor,
            state: Entries::default(),
            next_offset: 0,
            now: at(0),
        }
    }

    /// One transaction's records of `key`.
    fn send(&mut self, key: &str, events: Vec<Event>) -> Said {
        let inbound: Vec<Inbound> = events
            .into_iter()
            .map(|event| {
                self.next_offset += 1;
                let topic = match &event {
                    Event::StockChanged(_) => topic::STOCK_CHANGE,
                    Event::StockSnapshot(_) => topic::STOCK_SNAPSHOT,
                    Event::StockPolicy(_) => topic::STOCK_POLICY,
                    Event::ChannelLevel(_) => topic::STOCK_LEDGER_CHANNEL_LEVEL,
                    _ => topic::RESERVATION_COMMAND,
                };
                let origin = Place {
                    topic: topic.into(),
                    partition: 4,
                    offset: self.next_offset,
                };
                let record = Record {
                    origin,
                    timestamp_ms: 0,
                    key: None,
                    value: None,
                    headers: Headers::default(),
                };
                Inbound { record, event }
            })
            .collect();
        let mut output = Output::default();
        let mut context = Context::new(&mut self.state, &mut output, self.now);
        let done = self.processor.process(key, &inbound, &mut context);
        done.expect("processed");
        let settled = output.settlements.iter().filter(|s| s.effect.is_empty());
        let settled = settled.count() + output.rejections.len();
        assert_eq!(settled, inbound.len(), "each record is settled once");
        Said(output)
    }

    fn fire(&mut self, key: &str, due: Timestamp) -> Said {
        self.now = self.now.max(due);
        let mut output = Output::default();
        let mut context = Context::new(&mut self.state, &mut output, self.now);
        let done = self.processor.timer(key, due, &mut context);
        done.expect("fired");
        Said(output)
    }

    fn restored(&self, key: &str) -> Option<Timestamp> {
        let value = self.state.get(key.as_bytes()).expect("state");
        let timer = self.processor.restored_timer(key.as_bytes(), value);
        timer.map(|(_, due)| due)
    }
}

#[derive(Debug)]
struct Said(Output);

impl Said {
    fn on<T>(&self, topic: &str, pick: impl Fn(&Event) -> Option<&T>) -> Vec<T>
    where
        T: Clone,
    {
        let on_topic = self.0.emissions.iter().filter(|e| e.topic == topic);
        on_topic.filter_map(|e| pick(&e.event).cloned()).collect()
    }
    fn levels(&self) -> Vec<StockLevel> {
        self.on(topic::STOCK_LEVEL, |e| match e {
            Event::StockLevel(e) => Some(e),
            _ => None,
        })
    }
    fn offers(&self) -> Vec<ChannelLevel> {
        self.on(topic::STOCK_LEDGER_CHANNEL_LEVEL, |e| match e {
            Event::ChannelLevel(e) => Some(e),
            _ => None,
        })
    }
    fn reservations(&self) -> Vec<ReservationEvent> {
        self.on(topic::RESERVATION_EVENT, |e| match e {
            Event::ReservationEvent(e) => Some(e),
            _ => None,
        })
    }
    fn decisions(&self) -> Vec<ReservationDecision> {
        self.on(topic::RESERVATION_DECISION, |e| match e {
            Event::ReservationDecision(e) => Some(e),
            _ => None,
        })
    }
    fn cases(&self) -> Vec<(String, ExceptionStatus)> {
        let cases = self.on(topic::OPS_EXCEPTION, |e| match e {
            Event::BusinessException(e) => Some(e),
            _ => None,
        });
        cases
            .iter()
            .map(|c| (c.code.to_string(), c.status))
            .collect()
    }
    fn published(&self) -> Vec<AvailabilityChanged> {
        self.on(topic::STOCK_ATS, |e| match e {
            Event::AvailabilityChanged(e) => Some(e),
            _ => None,
        })
    }
    fn outcomes(&self) -> Vec<Outcome> {
        let settled = self.0.settlements.iter().filter(|s| s.effect.is_empty());
        settled.map(|s| s.outcome).collect()
    }
    fn codes(&self) -> Vec<Code> {
        self.0.rejections.iter().map(|(_, f)| f.code).collect()
    }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp((1_700_000_000 + seconds) * 1_000_000)
}

fn meta(event_type: &str, source: &str, record: &str, position: i64) -> EventMeta {
    EventMeta {
        event_id: event_id(source, 0, record, "", event_type),
        event_type: event_type.into(),
        source: source.into(),
        source_position: position,
        position_kind: PositionKind::Sequence,
        occurred_at: at(position),
        recorded_at: at(position),
        correlation_id: record.into(),
        ..EventMeta::default()
    }
}

fn moved(position: i64, from: StockState, to: StockState, quantity: i32) -> StockChanged {
    StockChanged {
        meta: meta("StockChanged", "wms", &format!("m{position}"), position),
        movement_id: format!("m{position}").into(),
        sku: "A".into(),
        location_id: "dc".into(),
        from_state: from,
        to_state: to,
        qty: Decimal::from(quantity),
        ..StockChanged::default()
    }
}

fn receipt(position: i64, quantity: i32) -> Event {
    moved(
        position,
        StockState::Supplier,
        StockState::Sellable,
        quantity,
    )
    .into()
}

fn sale(position: i64, quantity: i32) -> StockChanged {
    StockChanged {
        reason: StockReason::Sale,
        ..moved(
            position,
            StockState::Sellable,
            StockState::Customer,
            quantity,
        )
    }
}

fn snapshot(as_of: i64, sellable: i32) -> StockSnapshot {
    StockSnapshot {
        meta: meta("StockSnapshot", "wms", &format!("s{as_of}"), as_of),
        snapshot_id: format!("s{as_of}").into(),
        sku: "A".into(),
        location_id: "dc".into(),
        basis: SnapshotBasis::OnHand,
        sellable: Decimal::from(sellable),
        as_of_position: as_of,
        as_of: at(as_of),
        ..StockSnapshot::default()
    }
}

fn policy(version: i64) -> StockPolicy {
    StockPolicy {
        meta: meta("StockPolicy", "config", &format!("p{version}"), version),
        sku: "A".into(),
        location_id: "dc".into(),
        policy_version: version,
        oversell: OversellPolicy::Block,
        ..StockPolicy::default()
    }
}

fn command(action: ReservationAction, order: &str, quantity: i32) -> ReservationCommand {
    ReservationCommand {
        meta: meta("ReservationCommand", "shop", &format!("{order}{action}"), 1),
        reservation_id: Uuid::new_v5(&Uuid::NAMESPACE_OID, order.as_bytes()),
        action,
        mode: ReservationMode::Strict,
        order_id: order.into(),
        order_line_id: "1".into(),
        sku: "A".into(),
        location_id: "dc".into(),
        channel_id: "web".into(),
        qty: Decimal::from(quantity),
        ..ReservationCommand::default()
    }
}

fn hold(order: &str, quantity: i32) -> Event {
    command(ReservationAction::Hold, order, quantity).into()
}

fn channel(locations: &[&str], unit: Option<i32>, buffer: i32) -> Event {
    Channel {
        meta: meta("Channel", "config", "web", 1),
        channel_id: "web".into(),
        status: ChannelStatus::Active,
        eligible_locations: locations.iter().map(|l| (*l).into()).collect(),
        unit: unit.map(Decimal::from),
        default_buffer: Decimal::from(buffer),
        ..Channel::default()
    }
    .into()
}

fn ledger() -> Driven<StockLedger> {
    Driven::new(StockLedger::new())
}

#[test]
fn one_transaction_says_the_last_level_only_and_versions_count_what_was_said() {
    let mut ledger = ledger();
    let said = ledger.send(
        KEY,
        vec![receipt(1, 10), sale(2, 3).into(), sale(2, 3).into()],
    );
    assert_eq!(
        said.outcomes(),
        [Outcome::Applied, Outcome::Applied, Outcome::Duplicate]
    );
    let levels = said.levels();
    assert_eq!(levels.len(), 1);
    assert_eq!(
        (levels[0].level_version, levels[0].sellable),
        (1, Decimal::from(7))
    );
    assert_eq!(levels[0].as_of, at(2));
    let nothing = ledger.send(KEY, vec![sale(2, 3).into()]);
    assert!(nothing.0.emissions.is_empty(), "a duplicate says nothing");
    let said = ledger.send(KEY, vec![sale(3, 1).into()]);
    assert_eq!(said.levels()[0].level_version, 2);
}

#[test]
fn what_is_available_counts_as_stock_only_with_the_claims_that_the_source_knew() {
    let mut ledger = ledger();
    let net = |as_of, sellable, claims: Option<i32>| StockSnapshot {
        basis: SnapshotBasis::AvailableNet,
        source_reserved: claims.map(Decimal::from),
        ..snapshot(as_of, sellable)
    };
    let mut foreign = net(1, 50, None);
    foreign.meta.source = "shop".into();
    let said = ledger.send(KEY, vec![foreign.into()]);
    assert_eq!(said.outcomes(), [Outcome::Applied], "compared only");
    assert_eq!(said.levels()[0].sellable, Decimal::ZERO);
    // The shop has not become the authority by that.
    let said = ledger.send(KEY, vec![net(2, 6, Some(4)).into()]);
    assert_eq!(said.levels()[0].sellable, Decimal::from(10));
    let said = ledger.send(KEY, vec![net(3, 1, None).into()]);
    assert!(said.levels().is_empty());
    assert!(said.cases().is_empty(), "nothing to compare with");
    let mut reconciled = snapshot(4, 9);
    reconciled.meta.origin = Origin::Reconciliation;
    let said = ledger.send(KEY, vec![reconciled.into()]);
    assert!(said.levels().is_empty());
    assert_eq!(
        said.cases(),
        [("STOCK_DRIFT".into(), ExceptionStatus::Open)]
    );
    let said = ledger.send(KEY, vec![snapshot(5, 9).into()]);
    assert_eq!(said.levels()[0].sellable, Decimal::from(9));
    assert_eq!(
        said.cases(),
        [("STOCK_DRIFT".into(), ExceptionStatus::AutoHealing)]
    );
}

#[test]
fn facts_of_another_source_than_the_authority_change_nothing() {
    let mut ledger = ledger();
    ledger.send(KEY, vec![receipt(1, 10)]);
    let mut foreign = sale(2, 4);
    foreign.meta.source = "erp".into();
    let mut count = snapshot(3, 1);
    count.meta.source = "erp".into();
    let said = ledger.send(KEY, vec![foreign.into(), count.into()]);
    assert_eq!(said.outcomes(), [Outcome::Superseded, Outcome::Applied]);
    let passed_on: Vec<&str> = said.0.emissions.iter().map(|e| e.topic).collect();
    assert_eq!(passed_on, [topic::STOCK_LEDGER_MIRROR], "to be compared");
}

#[test]
fn a_level_is_stale_while_its_authority_is_not_heard_of() {
    let mut ledger = ledger();
    ledger.send(KEY, vec![receipt(1, 10)]);
    let source = sale(2, 1).meta.source;
    let key = format!("{source}|main");
    let status = |status| -> Event {
        FeedStatus {
            feed_source: source.clone(),
            status,
            ..FeedStatus::default()
        }
        .into()
    };
    let other = ledger.processor.table(
        topic::OPS_FEED,
        "shop|main",
        Some(&status(FeedState::Stale)),
    );
    assert!(other, "positions are looked at again");
    let said = ledger.send(KEY, Vec::new());
    assert!(said.levels().is_empty(), "another source is silent");
    assert!(
        ledger
            .processor
            .table(topic::OPS_FEED, &key, Some(&status(FeedState::Stale)))
    );
    let said = ledger.send(KEY, Vec::new());
    assert_eq!(said.levels()[0].confidence, Confidence::Stale);
    assert!(
        ledger
            .processor
            .table(topic::OPS_FEED, &key, Some(&status(FeedState::Fresh)))
    );
    let said = ledger.send(KEY, vec![sale(2, 1).into()]);
    assert_eq!(said.levels()[0].confidence, Confidence::High);
    assert_eq!(said.levels()[0].sellable, Decimal::from(9));
}

#[test]
fn a_declared_authority_counts_whoever_is_heard_first() {
    let declared = |source: Option<&str>| -> Event {
        StockAuthority {
            location_id: "store".into(),
            source: source.map(Into::into),
            ..StockAuthority::default()
        }
        .into()
    };
    let location = KEY.split_once('|').expect("a position").1;
    let mut ledger = ledger();
    let event = declared(Some("erp"));
    let again = ledger
        .processor
        .table(topic::STOCK_AUTHORITY, location, Some(&event));
    assert!(!again, "no known position has to be looked at again");
    let said = ledger.send(KEY, vec![receipt(1, 10)]);
    assert_eq!(said.outcomes(), [Outcome::Superseded], "not the ERP's");
    let mut own = sale(2, 4);
    own.meta.source = "erp".into();
    let said = ledger.send(KEY, vec![own.into()]);
    assert_eq!(said.levels()[0].sellable, Decimal::from(-4));
    // It is withdrawn: the position keeps what it has.
    ledger
        .processor
        .table(topic::STOCK_AUTHORITY, location, Some(&declared(None)));
    let said = ledger.send(KEY, vec![receipt(3, 10)]);
    assert_eq!(said.outcomes(), [Outcome::Superseded]);
    let said = ledger.send("other|elsewhere", vec![receipt_of("other", "elsewhere")]);
    assert_eq!(
        said.outcomes(),
        [Outcome::Applied],
        "elsewhere the first counts"
    );
}

fn receipt_of(sku: &str, location: &str) -> Event {
    let Event::StockChanged(mut e) = receipt(4, 1) else {
        unreachable!()
    };
    (e.sku, e.location_id) = (sku.into(), location.into());
    e.into()
}

#[test]
fn goods_that_name_their_order_and_no_claim_leave_for_the_claim_of_its_line() {
    use crossdock::domain::reservation_id;
    let mut ledger = ledger();
    ledger.send(KEY, vec![snapshot(5, 10).into()]);
    let claim = |attempt: u32, quantity: i32| {
        let mut hold = command(ReservationAction::Hold, "o1", quantity);
        hold.reservation_id = reservation_id("o1", "1", "dc", attempt);
        hold.meta.event_id = Uuid::from_u128(1_000 + u128::from(attempt));
        hold
    };
    let mut over = claim(1, 4);
    ledger.send(KEY, vec![over.clone().into()]);
    over.action = ReservationAction::Release;
    over.meta.event_id = Uuid::from_u128(1_100);
    ledger.send(KEY, vec![over.into(), claim(2, 4).into()]);
    let mut shipped = sale(6, 3);
    shipped.order_id = Some("o1".into());
    shipped.order_line_id = Some("1".into());
    let said = ledger.send(KEY, vec![shipped.clone().into()]);
    let told = &said.reservations()[0];
    assert_eq!(told.reservation_id, reservation_id("o1", "1", "dc", 2));
    assert_eq!(
        (told.status, told.qty_consumed),
        (ReservationStatus::PartiallyConsumed, Decimal::from(3))
    );
    let level = &said.levels()[0];
    assert_eq!(
        (level.sellable, level.reserved),
        (Decimal::from(7), Decimal::ONE)
    );
    // Shipped before its claim was heard of: the claim finds that it is over.
    shipped.order_id = Some("o2".into());
    shipped.meta.event_id = Uuid::from_u128(2_000);
    shipped.meta.source_position = 7;
    ledger.send(KEY, vec![shipped.into()]);
    let mut late = command(ReservationAction::Hold, "o2", 3);
    late.reservation_id = reservation_id("o2", "1", "dc", 1);
    let said = ledger.send(KEY, vec![late.into()]);
    assert_eq!(said.reservations()[0].status, ReservationStatus::Consumed);
}

#[test]
fn movements_of_a_new_epoch_wait_and_end_under_their_own_offset() {
    let mut ledger = ledger();
    ledger.send(KEY, vec![snapshot(5, 10).into(), hold("o1", 4)]);
    let mut shipped = sale(1, 4);
    shipped.meta.event_id = Uuid::from_u128(77);
    shipped.meta.source_epoch = 1;
    shipped.order_id = Some("o1".into());
    shipped.reservation_id = Some(Uuid::new_v5(&Uuid::NAMESPACE_OID, b"o1"));
    let said = ledger.send(KEY, vec![shipped.into()]);
    let offset = ledger.next_offset;
    assert_eq!(said.outcomes(), [Outcome::Buffered]);
    assert_eq!(said.levels()[0].confidence, Confidence::Degraded);
    assert_eq!(
        said.on(topic::STOCK_BY_ORDER, |e| match e {
            Event::StockChanged(e) => Some(e),
            _ => None,
        })
        .len(),
        1,
        "the order hears of it at once"
    );
    let mut fresh = snapshot(0, 9);
    fresh.meta.event_id = Uuid::from_u128(78);
    fresh.as_of_epoch = 1;
    let said = ledger.send(KEY, vec![fresh.into()]);
    let origin = Place {
        topic: topic::STOCK_CHANGE.into(),
        partition: 4,
        offset,
    };
    let ended = |effect| Resolution {
        origin: origin.clone(),
        effect,
        outcome: Outcome::Applied,
    };
    assert_eq!(said.0.resolutions, [ended("reservation"), ended("")]);
    let level = &said.levels()[0];
    assert_eq!(
        (level.sellable, level.reserved),
        (Decimal::from(5), Decimal::ZERO)
    );
    assert_eq!(level.confidence, Confidence::High);
    assert_eq!(said.reservations()[0].status, ReservationStatus::Consumed);
}

#[test]
fn a_sale_stamped_shortly_before_a_count_by_another_clock_is_not_in_it() {
    const MINUTE: i64 = 60_000_000;
    let stamped = |mut sale: StockChanged, minutes: i64| {
        sale.meta.position_kind = PositionKind::TimestampMicros;
        sale.meta.source_position = 1_000 * MINUTE + minutes * MINUTE;
        Event::from(sale)
    };
    let mut ledger = ledger();
    let said = ledger.send(
        KEY,
        vec![
            snapshot(1_000 * MINUTE, 10).into(),
            stamped(sale(1, 1), -4),
            stamped(sale(2, 1), -6),
            stamped(moved(3, StockState::Supplier, StockState::Sellable, 5), -4),
        ],
    );
    let (applied, superseded) = (Outcome::Applied, Outcome::Superseded);
    assert_eq!(said.outcomes(), [applied, applied, superseded, superseded]);
    assert_eq!(said.levels()[0].sellable, Decimal::from(9));
}

#[test]
fn decisions_are_said_at_the_ledger_and_at_the_order() {
    let mut ledger = ledger();
    let mut strict = command(ReservationAction::Hold, "o1", 3);
    strict.expires_at = Some(at(60));
    let said = ledger.send(KEY, vec![receipt(1, 5), strict.into(), hold("o2", 3)]);
    let decisions = said.decisions();
    assert_eq!(
        decisions
            .iter()
            .map(|d| (d.ledger_sequence, d.status, d.qty_held, d.ats_before))
            .collect::<Vec<_>>(),
        [
            (
                1,
                ReservationStatus::Held,
                Decimal::from(3),
                Decimal::from(5)
            ),
            (
                2,
                ReservationStatus::Rejected,
                Decimal::ZERO,
                Decimal::from(2)
            ),
        ]
    );
    assert_eq!(decisions[1].reserved_before, Decimal::from(3));
    let events = said.reservations();
    assert_eq!(events[0].order_id, "o1");
    assert_eq!(
        (events[0].reservation_version, events[0].ledger_sequence),
        (1, 1)
    );
    assert_eq!(said.0.timers, [(Text::from(KEY), Some(at(60)))]);
    assert_eq!(ledger.restored(KEY), Some(at(60)));
    // Time passes: the hold ends by a recorded decision, and the timer is gone.
    let said = ledger.fire(KEY, at(60));
    assert_eq!(said.reservations()[0].status, ReservationStatus::Expired);
    assert_eq!(said.decisions()[0].ledger_sequence, 3);
    assert_eq!(said.levels()[0].reserved, Decimal::ZERO);
    assert!(said.0.timers.iter().all(|(_, due)| due.is_none()));
    assert_eq!(ledger.restored(KEY), None);
}

#[test]
fn a_confirmation_before_its_hold_ends_under_its_own_offset() {
    let mut ledger = ledger();
    let confirm = || Event::from(command(ReservationAction::Confirm, "o1", 0));
    let said = ledger.send(KEY, vec![receipt(1, 5), confirm()]);
    assert_eq!(said.outcomes(), [Outcome::Applied, Outcome::Buffered]);
    let offset = ledger.next_offset;
    let said = ledger.send(KEY, vec![hold("o1", 1)]);
    assert_eq!(said.reservations()[0].status, ReservationStatus::Confirmed);
    let ended = &said.0.resolutions[0];
    assert_eq!(*ended.origin.topic, *topic::RESERVATION_COMMAND);
    assert_eq!(
        (ended.origin.offset, ended.outcome),
        (offset, Outcome::Applied)
    );
}

#[test]
fn exceptions_are_raised_once_and_closed_when_the_cause_is_gone() {
    let mut ledger = ledger();
    let mut forced = command(ReservationAction::Hold, "o1", 4);
    forced.mode = ReservationMode::Forced;
    let said = ledger.send(KEY, vec![receipt(1, 3), forced.into()]);
    assert_eq!(said.cases(), [("OVERSOLD".into(), ExceptionStatus::Open)]);
    let open = |code: &str| (code.to_owned(), ExceptionStatus::Open);
    let closed = |code: &str| (code.to_owned(), ExceptionStatus::Resolved);
    let loss =
        |position, quantity| moved(position, StockState::Sellable, StockState::Loss, quantity);
    let said = ledger.send(KEY, vec![loss(2, 1).into()]);
    assert_eq!(said.cases(), [open("OVERCOMMITTED")]);
    let said = ledger.send(KEY, vec![loss(3, 1).into()]);
    assert_eq!(said.cases(), [open("OVERCOMMITTED")], "more is at risk");
    let said = ledger.send(KEY, vec![loss(4, 2).into()]);
    assert_eq!(
        said.cases(),
        [open("OVERCOMMITTED"), open("NEGATIVE_ON_HAND")],
        "now all is at risk"
    );
    let said = ledger.send(KEY, vec![loss(5, 1).into()]);
    assert_eq!(said.cases(), [], "all was at risk already");
    let said = ledger.send(KEY, vec![receipt(6, 10)]);
    assert_eq!(
        said.cases(),
        [closed("OVERCOMMITTED"), closed("NEGATIVE_ON_HAND")]
    );
}

#[test]
fn what_breaks_a_rule_of_data_quality_is_refused_under_its_code() {
    let mut cases: Vec<(Event, Code)> = Vec::new();
    let mut add = |event: Event, code| cases.push((event, code));
    add(sale(1, 0).into(), Code::DataQuality);
    add(sale(1, -2).into(), Code::DataQuality);
    add(
        moved(1, StockState::Loss, StockState::Loss, 1).into(),
        Code::DataQuality,
    );
    add(
        moved(1, StockState::Unknown, StockState::Sellable, 1).into(),
        Code::UnknownSymbol,
    );
    add(
        moved(1, StockState::Sellable, StockState::Unknown, 1).into(),
        Code::UnknownSymbol,
    );
    let with = |change: &dyn Fn(&mut StockChanged)| {
        let mut fact = sale(1, 1);
        change(&mut fact);
        Event::from(fact)
    };
    add(
        with(&|f| f.gtin = Some("4006381333932".into())),
        Code::DataQuality,
    );
    add(
        with(&|f| f.gln = Some("96385074".into())),
        Code::DataQuality,
    );
    add(with(&|f| f.sku = "B".into()), Code::WrongKey);
    add(with(&|f| f.location_id = "store".into()), Code::WrongKey);
    add(with(&|f| f.meta.occurred_at = at(302)), Code::DataQuality);
    let count = |change: &dyn Fn(&mut StockSnapshot)| {
        let mut fact = snapshot(1, 1);
        change(&mut fact);
        Event::from(fact)
    };
    add(
        count(&|f| f.basis = SnapshotBasis::Unknown),
        Code::UnknownSymbol,
    );
    add(
        count(&|f| f.damaged = Some(Decimal::from(-1))),
        Code::DataQuality,
    );
    let rules = |change: &dyn Fn(&mut StockPolicy)| {
        let mut fact = policy(1);
        change(&mut fact);
        Event::from(fact)
    };
    add(
        rules(&|f| f.oversell = OversellPolicy::Unknown),
        Code::UnknownSymbol,
    );
    add(
        rules(&|f| f.safety_stock = Decimal::from(-1)),
        Code::DataQuality,
    );
    let share = |share| {
        vec![ChannelAllocation {
            channel_id: "web".into(),
            share_pct: Some(share),
            ..ChannelAllocation::default()
        }]
    };
    add(rules(&|f| f.allocations = share(100.5)), Code::DataQuality);
    add(
        rules(&|f| f.allocations = share(f64::NAN)),
        Code::DataQuality,
    );
    add(
        rules(&|f| f.allocations = [share(1.0), share(2.0)].concat()),
        Code::DataQuality,
    );
    let asked = |change: &dyn Fn(&mut ReservationCommand)| {
        let mut fact = command(ReservationAction::Hold, "o1", 1);
        change(&mut fact);
        Event::from(fact)
    };
    add(
        asked(&|f| f.action = ReservationAction::Unknown),
        Code::UnknownSymbol,
    );
    add(
        asked(&|f| f.mode = ReservationMode::Unknown),
        Code::UnknownSymbol,
    );
    add(asked(&|f| f.qty = Decimal::ZERO), Code::DataQuality);
    add(asked(&|f| f.order_id = Text::default()), Code::DataQuality);
    add(channel(&["dc"], None, 0), Code::WrongContract);
    let expected: Vec<Code> = cases.iter().map(|(_, code)| *code).collect();
    let mut events: Vec<Event> = cases.into_iter().map(|(event, _)| event).collect();
    events.push(receipt(9, 2));
    let said = ledger().send(KEY, events);
    assert_eq!(said.codes(), expected);
    assert_eq!(
        said.outcomes(),
        [Outcome::Applied],
        "the next one is processed"
    );
    assert_eq!(said.levels()[0].sellable, Decimal::from(2));
}

/// A confirmation that time was quicker than is nobody's mistake: the expiry has told its owner, who may
/// hold anew. It is no dead letter, and binds nothing that somebody else may have by now.
#[test]
fn a_confirmation_that_comes_after_its_hold_expired_is_overtaken_and_binds_nothing() {
    let mut ledger = ledger();
    let mut expiring = command(ReservationAction::Hold, "o1", 3);
    expiring.expires_at = Some(at(60));
    ledger.send(KEY, vec![receipt(1, 5), expiring.into()]);
    ledger.fire(KEY, at(60));
    let confirm = command(ReservationAction::Confirm, "o1", 0);
    let said = ledger.send(KEY, vec![confirm.into()]);
    assert!(said.codes().is_empty());
    assert_eq!(said.outcomes(), [Outcome::Superseded]);
    assert!(said.levels().is_empty(), "all five are still free");
    let again = command(ReservationAction::Hold, "o2", 5);
    let said = ledger.send(KEY, vec![again.into()]);
    assert_eq!(said.levels()[0].reserved, Decimal::from(5));
}

#[test]
fn channels_are_offered_what_they_may_sell_and_told_when_they_may_no_more() {
    let mut ledger = ledger();
    let table = |ledger: &mut Driven<StockLedger>, event: Option<Event>| {
        ledger
            .processor
            .table(topic::CHANNEL_CHANGE, "web", event.as_ref())
    };
    assert!(table(&mut ledger, Some(channel(&["dc"], Some(2), 3))));
    assert!(
        !table(&mut ledger, Some(channel(&["dc"], Some(2), 3))),
        "nothing new"
    );
    let said = ledger.send(KEY, vec![receipt(1, 5)]);
    let offer = &said.offers()[0];
    assert_eq!(
        (offer.ats, offer.buffer),
        (Decimal::from(4), Decimal::from(3))
    );
    assert!(offer.active && !offer.backorderable);
    assert_eq!(said.levels()[0].ats_by_channel["web"], Decimal::from(5));
    let said = ledger.send(KEY, vec![sale(2, 1).into()]);
    assert!(said.offers().is_empty(), "rounded down it is the same");
    let mut rules = policy(1);
    rules.oversell = OversellPolicy::Allow;
    rules.allocations = vec![ChannelAllocation {
        channel_id: "web".into(),
        buffer: Some(Decimal::ZERO),
        ..ChannelAllocation::default()
    }];
    let offer = &ledger.send(KEY, vec![rules.into()]).offers()[0];
    assert_eq!((offer.buffer, offer.backorderable), (Decimal::ZERO, true));
    assert_eq!(offer.offer_version, 2);
    assert!(table(&mut ledger, Some(channel(&["store"], Some(2), 3))));
    let said = ledger.send(KEY, vec![]);
    let offer = &said.offers()[0];
    assert_eq!((offer.active, offer.ats), (false, Decimal::ZERO));
    assert!(said.levels()[0].ats_by_channel.is_empty());
    assert!(table(&mut ledger, None), "a channel that is gone");
}

#[test]
fn availability_is_the_sum_over_locations_less_the_buffer_at_most_every_fifty_milliseconds() {
    let mut aggregate = Driven::new(AtsAggregate::new());
    let key = compound_key(&["A", "web"]);
    aggregate.processor.table(
        topic::CHANNEL_CHANGE,
        "web",
        Some(&channel(&["dc"], Some(2), 0)),
    );
    let offer = |location: &str, version: i64, ats: i32| -> Event {
        ChannelLevel {
            meta: meta("ChannelLevel", "crossdock/stock-ledger", location, version),
            sku: "A".into(),
            channel_id: "web".into(),
            location_id: location.into(),
            level_version: version,
            offer_version: version,
            ats: Decimal::from(ats),
            buffer: Decimal::from(1),
            active: true,
            as_of: at(version),
            confidence: Confidence::High,
            ..ChannelLevel::default()
        }
        .into()
    };
    let said = aggregate.send(&key, vec![offer("dc", 2, 10), offer("store", 1, 6)]);
    let published = &said.published()[0];
    assert_eq!(
        (published.ats, published.ats_version),
        (Decimal::from(14), 1),
        "15 in twos"
    );
    assert_eq!(
        (published.previous_ats, published.scope.as_str()),
        (None, "NETWORK")
    );
    aggregate.now = aggregate.now.plus(Duration::from_millis(20));
    let said = aggregate.send(
        &key,
        vec![offer("dc", 1, 99), offer("dc", 2, 10), offer("dc", 3, 3)],
    );
    assert_eq!(
        said.outcomes(),
        [Outcome::Superseded, Outcome::Duplicate, Outcome::Applied]
    );
    assert!(said.published().is_empty());
    let due = at(0).plus(Duration::from_millis(50));
    assert_eq!(said.0.timers, [(key.clone(), Some(due))]);
    assert_eq!(aggregate.restored(&key), Some(due));
    let said = aggregate.fire(&key, due);
    let published = &said.published()[0];
    assert_eq!(
        (published.ats, published.ats_version),
        (Decimal::from(8), 2)
    );
    assert_eq!(published.previous_ats, Some(Decimal::from(14)));
    assert_eq!(aggregate.restored(&key), None);
    let said = aggregate.send(&key, vec![offer("dc", 4, 0), offer("store", 2, 0)]);
    assert_eq!(
        said.published()[0].ats,
        Decimal::ZERO,
        "nothing never waits"
    );
    let said = aggregate.send("A|app", vec![offer("dc", 9, 9)]);
    assert_eq!(said.codes(), [Code::WrongKey]);
}
