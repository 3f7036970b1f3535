//! Where an order stands, and everything in the log that brought it there.

use super::search::Wanted;
use super::story::{self, Entry};
use super::{Inquiry, Sources, letter, settle, words};
use crate::books::{Account, Balances, Subject, is_in};
use crate::contract::event::{Event, OrderState, ReservationStatus, SinkReceipt, Text};
use crate::contract::topic;
use crate::domain::{Decimal, Timestamp, compound_key, order_id};
use crate::pipeline::{Fault, Origin, Record};
use crate::processors;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

/// Topics whose records of an order tell its story.
const ORDER: [&str; 13] = [
    topic::ORDER_LIFECYCLE,
    topic::PAYMENT_EVENT,
    topic::RESERVATION_EVENT,
    topic::SHIPMENT_EVENT,
    topic::STOCK_BY_ORDER,
    topic::RETURN_EVENT,
    topic::REFUND_REQUEST,
    topic::REFUND_EVENT,
    topic::INVOICE_EVENT,
    topic::ORDER_STATE,
    topic::SHIPMENT_STATE,
    topic::LEDGER_POSTING,
    topic::OPS_EXCEPTION,
];
/// What is found by what those say: under the positions of its claims, the references of its payments,
/// and the payouts that settled them.
const CLAIMS: [&str; 2] = [topic::RESERVATION_COMMAND, topic::RESERVATION_DECISION];
const SETTLED: [&str; 1] = [topic::SETTLEMENT_EVENT];
const PAID_OUT: [&str; 2] = [topic::SETTLEMENT_PAYOUT, topic::LEDGER_POSTING];

/// The tenant of whoever has only one.
const TENANT: &str = "default";

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderQuestion {
    /// Id of the order, or its number in the channel where that is given.
    pub order: String,
    /// The channel that numbers it so.
    pub channel: Option<String>,
}

impl OrderQuestion {
    /// The key under which the order is found.
    pub fn key(&self) -> String {
        match &self.channel {
            Some(channel) => order_id(TENANT, channel, &self.order).to_string(),
            None => self.order.clone(),
        }
    }
}

/// Where an order stands, and why.
#[derive(Clone, Debug, Serialize)]
pub struct OrderAnswer {
    /// Id of the order.
    pub order: String,
    /// Its state; absent when none was ever written.
    pub now: Option<OrderNow>,
    /// Its claims on stock, in words.
    pub claims: Vec<String>,
    /// What its books hold, where that is not zero.
    pub books: Vec<Account>,
    /// What each system was told last, in words.
    pub told: BTreeMap<String, String>,
    /// Open exceptions by id, in words.
    pub cases: BTreeMap<String, String>,
    /// Every record behind it, in order.
    pub story: Vec<Entry>,
    /// What the answer cannot tell.
    pub gaps: BTreeSet<String>,
    /// Records read to find it.
    pub records_read: u64,
}

/// An order as it stands.
#[derive(Clone, Debug, Serialize)]
pub struct OrderNow {
    /// Version of the state.
    pub version: i64,
    /// Its status.
    pub status: &'static str,
    /// Whether nothing more is expected of it.
    pub closed: bool,
    /// The channel that sold it.
    pub channel: String,
    /// Its number there.
    pub channel_order: String,
    /// Its numbers in the ERP.
    pub erp_orders: Vec<String>,
    /// When it was placed.
    pub placed_at: Timestamp,
    /// The earliest time promised to the customer.
    pub promised_by: Option<Timestamp>,
    /// ISO-4217 code of every amount.
    pub currency: String,
    /// What the customer agreed to pay.
    pub total: Decimal,
    /// Amounts that are not zero, by what became of the money.
    pub money: BTreeMap<&'static str, Decimal>,
    /// Its lines.
    pub lines: Vec<LineNow>,
}

/// A line of an order as it stands.
#[derive(Clone, Debug, Serialize)]
pub struct LineNow {
    /// Id of the line.
    pub line: String,
    /// SKU.
    pub sku: String,
    /// Quantity that was ordered.
    pub ordered: Decimal,
    /// Quantities that are not zero, by where they stand.
    pub quantities: Vec<(&'static str, Decimal)>,
}

/// Explains an order: where it stands, and what brought it there.
///
/// # Errors
/// When the log or the registry does not answer.
pub fn order(sources: &Sources<'_>, question: &OrderQuestion) -> Result<OrderAnswer, Fault> {
    let key = question.key();
    let mut inquiry = Inquiry::new(sources)?;
    let mut finding = Finding::new(&key);
    let wanted = wanted_of(&inquiry, &key);
    finding.take(&mut inquiry, &wanted)?;
    // What the order's records lead to, and what that leads to.
    let further = finding.further();
    finding.take(&mut inquiry, &further)?;
    let payouts = finding.payouts();
    finding.take(&mut inquiry, &payouts)?;
    let mut answer = finding.answer(&mut inquiry)?;
    if answer.story.is_empty() {
        inquiry.gaps.insert(match &question.channel {
            Some(channel) => format!(
                "the log holds nothing of an order {} of {channel}; check both names, and that the topics are those of this deployment",
                question.order
            ),
            None => format!(
                "the log holds nothing of an order {key}; where that is its number in a channel, name the channel with --channel"
            ),
        });
    }
    answer.gaps = inquiry.gaps;
    answer.cases = inquiry.cases;
    answer.records_read = inquiry.records_read;
    Ok(answer)
}

/// What is kept under the order's own key, and exceptions that name it.
fn wanted_of(inquiry: &Inquiry<'_>, key: &str) -> Vec<Wanted> {
    let catalogue = inquiry.sources.catalogue;
    let mut wanted: Vec<Wanted> = ORDER
        .iter()
        .filter(|t| **t != topic::OPS_EXCEPTION)
        .map(|t| Wanted::keyed(t, key))
        .collect();
    wanted.push(Wanted::mentioning(topic::OPS_EXCEPTION, key));
    let letters = inquiry.topics_of_readers(|t| catalogue.reader_of_dead_letter_topic(t));
    let receipts = inquiry.topics_of_readers(|t| catalogue.sink_of_receipt_topic(t));
    wanted.extend(letters.into_iter().map(|t| Wanted::keyed(t, key)));
    let of_inputs = receipts.into_iter().flat_map(|t| {
        let inputs = ORDER.iter();
        inputs.map(move |input| Wanted::receipts(t, input, key))
    });
    wanted.extend(of_inputs);
    wanted
}

/// What has been found so far.
struct Finding {
    key: String,
    records: Vec<Record>,
    told: Vec<(Origin, Result<Event, Box<Entry>>)>,
}

impl Finding {
    fn new(key: &str) -> Self {
        Finding {
            key: key.to_owned(),
            records: Vec::new(),
            told: Vec::new(),
        }
    }

    fn take(&mut self, inquiry: &mut Inquiry<'_>, wanted: &[Wanted]) -> Result<(), Fault> {
        if wanted.is_empty() {
            return Ok(());
        }
        for record in inquiry.search(wanted)? {
            let told = inquiry.decode(&record);
            if let Ok(Event::BusinessException(case)) = &told
                && case.order_id.as_deref() != Some(&*self.key)
            {
                continue;
            }
            self.told.push((record.origin.clone(), told));
            self.records.push(record);
        }
        Ok(())
    }

    fn events(&self) -> impl Iterator<Item = &Event> {
        self.told.iter().filter_map(|(_, told)| told.as_ref().ok())
    }

    /// The positions of its claims, and the references of its payments.
    fn further(&self) -> Vec<Wanted> {
        let (mut positions, mut references) = (BTreeSet::new(), BTreeSet::new());
        for event in self.events() {
            match event {
                Event::ReservationEvent(e) => {
                    positions.insert(compound_key(&[&e.sku, &e.location_id]));
                }
                Event::PaymentEvent(e) => {
                    references.insert(compound_key(&[&e.psp, &e.psp_reference]));
                }
                _ => {}
            }
        }
        let claims = positions.iter().flat_map(|position| {
            CLAIMS
                .iter()
                .map(|t| Wanted::keyed(t, position).and_mentions(&self.key))
        });
        let settled = references
            .iter()
            .flat_map(|reference| SETTLED.iter().map(|t| Wanted::keyed(t, reference)));
        claims.chain(settled).collect()
    }

    /// The payouts that its settlements are in.
    fn payouts(&self) -> Vec<Wanted> {
        let payouts: BTreeSet<&Text> = self
            .events()
            .filter_map(|event| match event {
                Event::SettlementEvent(e) => Some(&e.payout_id),
                _ => None,
            })
            .collect();
        let wanted = payouts.into_iter().flat_map(|payout| {
            PAID_OUT
                .iter()
                .map(|t| Wanted::keyed(t, payout).and_mentions(&self.key))
        });
        wanted.collect()
    }

    fn answer(self, inquiry: &mut Inquiry<'_>) -> Result<OrderAnswer, Fault> {
        let readers: Vec<&str> = processors::ALL.iter().map(|p| p.descriptor.name).collect();
        let outcomes = inquiry.outcomes(&readers, &self.records)?;
        let mut answer = OrderAnswer {
            order: self.key,
            now: None,
            claims: Vec::new(),
            books: Vec::new(),
            told: BTreeMap::new(),
            cases: BTreeMap::new(),
            story: Vec::new(),
            gaps: BTreeSet::new(),
            records_read: 0,
        };
        let mut letters = HashMap::new();
        let mut claims: BTreeMap<uuid::Uuid, String> = BTreeMap::new();
        let mut balances = Balances::default();
        let books = Subject::Order(answer.order.clone());
        for (record, (_, told)) in self.records.iter().zip(self.told) {
            let event = match told {
                Ok(event) => event,
                Err(entry) => {
                    answer.story.push(*entry);
                    continue;
                }
            };
            match &event {
                Event::DeadLetter(_) => {
                    letters.extend(letter(&event));
                    continue;
                }
                Event::OrderState(state) => answer.now = Some(OrderNow::of(state)),
                Event::ReservationEvent(e) => {
                    let ended = matches!(
                        e.status,
                        ReservationStatus::Released
                            | ReservationStatus::Expired
                            | ReservationStatus::Rejected
                    );
                    claims.remove(&e.reservation_id);
                    if !ended {
                        let words = format!(
                            "{} {} of {} at {} for line {} ({})",
                            e.status,
                            words::units(e.qty_held),
                            e.sku,
                            e.location_id,
                            e.order_line_id,
                            e.reservation_id
                        );
                        claims.insert(e.reservation_id, words);
                    }
                }
                Event::LedgerPosting(e) => balances.add(e, |entry| is_in(&books, e, entry)),
                Event::SinkReceipt(e) => {
                    let told = format!("{} ({})", e.sink, e.operation);
                    answer.told.insert(told, told_words(record, e));
                }
                Event::BusinessException(case) => inquiry.case(case),
                _ => {}
            }
            let entry = Entry::of(record, &event, rank(&record.origin.topic));
            answer.story.push(entry);
        }
        settle(&mut answer.story, outcomes, &letters);
        story::order(&mut answer.story);
        answer.claims = claims.into_values().collect();
        answer.books = balances.left();
        Ok(answer)
    }
}

/// All of these, with what comes of what.
const STORY: [&str; 17] = [
    topic::ORDER_LIFECYCLE,
    topic::PAYMENT_EVENT,
    topic::RESERVATION_COMMAND,
    topic::RESERVATION_DECISION,
    topic::RESERVATION_EVENT,
    topic::SHIPMENT_EVENT,
    topic::STOCK_BY_ORDER,
    topic::RETURN_EVENT,
    topic::REFUND_REQUEST,
    topic::REFUND_EVENT,
    topic::INVOICE_EVENT,
    topic::SETTLEMENT_EVENT,
    topic::SETTLEMENT_PAYOUT,
    topic::ORDER_STATE,
    topic::SHIPMENT_STATE,
    topic::LEDGER_POSTING,
    topic::OPS_EXCEPTION,
];

/// The place of a topic among causes and what comes of them; the receipts of systems come last.
fn rank(topic: &str) -> usize {
    let place = STORY.iter().position(|t| *t == topic);
    place.unwrap_or(STORY.len())
}

fn told_words(record: &Record, e: &SinkReceipt) -> String {
    let at = words::time(Timestamp::from_millis(record.timestamp_ms));
    format!("was told version {} at {at}: {}", e.sent_version, e.outcome)
}

impl OrderNow {
    fn of(e: &OrderState) -> OrderNow {
        let amounts = [
            ("authorised", e.authorised),
            ("captured", e.captured),
            ("charged back", e.charged_back),
            ("refunded", e.refunded),
            ("refund in flight", e.refund_in_flight),
            ("invoiced", e.invoiced),
            ("credited", e.credited),
        ];
        let lines = e.lines.iter().map(|l| LineNow {
            line: l.line_id.to_string(),
            sku: l.sku.to_string(),
            ordered: l.ordered,
            quantities: [
                ("open", l.open),
                ("reserved", l.reserved),
                ("on backorder", l.backordered),
                ("released", l.released),
                ("picked", l.picked),
                ("shipped", l.shipped),
                ("delivered", l.delivered),
                ("cancelled", l.cancelled),
                ("returned", l.returned),
                ("refunded", l.refunded_qty),
            ]
            .into_iter()
            .filter(|(_, quantity)| !quantity.is_zero())
            .collect(),
        });
        OrderNow {
            version: e.state_version,
            status: e.status.symbol(),
            closed: e.closed,
            channel: e.channel_id.to_string(),
            channel_order: e.channel_order_id.to_string(),
            erp_orders: e.erp_order_ids.iter().map(ToString::to_string).collect(),
            placed_at: e.placed_at,
            promised_by: e.earliest_promise,
            currency: e.currency.to_string(),
            total: e.grand_total,
            money: amounts.into_iter().filter(|(_, a)| !a.is_zero()).collect(),
            lines: lines.collect(),
        }
    }
}

impl OrderAnswer {
    fn write_now(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(now) = &self.now else {
            return writeln!(f, "Order {}: no state was ever written", self.order);
        };
        let closed = if now.closed { ", closed" } else { "" };
        writeln!(
            f,
            "Order {} ({} of {}): {}{closed} (state {})\n",
            self.order, now.channel_order, now.channel, now.status, now.version
        )?;
        write!(f, "  placed {}", words::time(now.placed_at))?;
        if let Some(by) = now.promised_by {
            write!(f, ", promised by {}", words::time(by))?;
        }
        if !now.erp_orders.is_empty() {
            write!(f, ", ERP order {}", now.erp_orders.join(", "))?;
        }
        let money = |amount| words::amount(amount, &now.currency);
        write!(f, "\n  {}", money(now.total))?;
        for (what, amount) in &now.money {
            write!(f, ", {what} {}", money(*amount))?;
        }
        writeln!(f)?;
        for line in &now.lines {
            let ordered = words::units(line.ordered);
            write!(f, "  line {}: {ordered} of {}", line.line, line.sku)?;
            for (what, quantity) in &line.quantities {
                write!(f, ", {quantity} {what}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for OrderAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_now(f)?;
        for claim in &self.claims {
            writeln!(f, "  claim: {claim}")?;
        }
        for a in &self.books {
            let balance = words::amount(a.balance, &a.currency);
            writeln!(f, "  books: {} {balance}", a.account)?;
        }
        for (sink, told) in &self.told {
            writeln!(f, "  {sink} {told}")?;
        }
        for case in self.cases.values() {
            writeln!(f, "  open: {case}")?;
        }
        story::write(&self.story, &self.gaps, f)
    }
}
