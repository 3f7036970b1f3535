//! `explain order` and `ledger`: an order's story and its books, from the topics alone.

use crate::order::{id, placed, stocked, web};
use crate::settlement::row;
use crate::support::{captured, cents, invoice};
use crate::world::World;
use crossdock::books::{self, Closing, Line, Period, Subject};
use crossdock::contract::event::*;
use crossdock::contract::{Catalogue, topic};
use crossdock::domain::{Decimal, compound_key};
use crossdock::explain::{self, OrderAnswer, OrderQuestion, Sources};
use crossdock::pipeline::Fault;
use crossdock::runtime::ProcessorTask;

const READERS: [&str; 6] = [
    "stock-ledger",
    "order-lifecycle",
    "reservation-saga",
    "ledger",
    "settlement-match",
    "settlement-recon",
];

fn settle(world: &World, tasks: &mut [ProcessorTask]) {
    let mut all: Vec<&mut ProcessorTask> = tasks.iter_mut().collect();
    world.settle(&mut all);
}

/// Order 1 of 20 EUR: claimed, captured, settled less a fee in payout `po`; and another order beside it.
fn a_paid_order() -> World {
    let world = World::new();
    web(&world);
    stocked(&world, "A", "dc", 5);
    let mut tasks: Vec<_> = READERS.iter().map(|r| world.task(r, "a")).collect();
    settle(&world, &mut tasks);
    for number in [1, 2] {
        let order = placed(number, &[("A", 2)]);
        world.send(topic::ORDER_LIFECYCLE, &id(number), order.clone());
        world.send(topic::ORDER_LIFECYCLE, &id(number), order);
        settle(&world, &mut tasks);
        let reference = format!("ref-{number}");
        let mut paid = captured("p", &reference, 2_000);
        paid.order_id = id(number);
        world.send(topic::PAYMENT_EVENT, &id(number), paid);
        settle(&world, &mut tasks);
        let name = format!("line-{number}");
        let mut line = row("po", &name, SettlementKind::Capture, 2_000, 30);
        line.psp_reference = Some(reference.as_str().into());
        let key = compound_key(&["psp", &reference]);
        world.send(topic::SETTLEMENT_EVENT, &key, line);
        settle(&world, &mut tasks);
    }
    let mut broken = captured("p", "ref-9", 100);
    broken.order_id = id(2);
    world.send(topic::PAYMENT_EVENT, &id(1), broken);
    settle(&world, &mut tasks);
    world
}

fn ask(world: &World, order: &str, channel: Option<&str>) -> OrderAnswer {
    let question = OrderQuestion {
        order: order.into(),
        channel: channel.map(str::to_owned),
    };
    let sources = Sources {
        log: &world.log,
        codec: &world.codec,
        catalogue: Catalogue::compiled(),
        application: "crossdock",
        records_max: 1_000,
    };
    explain::order(&sources, &question).expect("an answer")
}

#[test]
fn an_order_is_told_with_its_claims_its_money_and_its_payout() {
    let world = a_paid_order();
    let answer = ask(&world, "1", Some("web"));
    assert_eq!(answer.order, *id(1), "found by its number in the channel");
    let now = answer.now.as_ref().expect("a state");
    assert_eq!((&*now.channel, &*now.channel_order), ("web", "1"));
    assert_eq!(now.money["captured"], Decimal::from(20));
    assert!(
        answer.claims[0].starts_with("CONFIRMED 2 units of A at dc"),
        "{:?}",
        answer.claims
    );
    // The payout took what the provider owed for the order: only what is to be delivered is left.
    let left: Vec<_> = answer
        .books
        .iter()
        .map(|a| (a.account, a.balance))
        .collect();
    assert_eq!(left, [("CustomerDeposits", Decimal::from(-20))]);
    // Every kind of fact that bears on it is told, each of this order, causes first.
    let place = |topic: &str| answer.story.iter().position(|e| e.topic == topic);
    for topic in [
        topic::ORDER_LIFECYCLE,
        topic::RESERVATION_COMMAND,
        topic::RESERVATION_DECISION,
        topic::RESERVATION_EVENT,
        topic::PAYMENT_EVENT,
        topic::ORDER_STATE,
        topic::SETTLEMENT_EVENT,
        topic::LEDGER_POSTING,
    ] {
        assert!(place(topic).is_some(), "{topic} is not told:\n{answer}");
    }
    assert!(place(topic::ORDER_LIFECYCLE) < place(topic::ORDER_STATE));
    let text = answer.to_string();
    assert!(!text.contains("ref-2"), "{text}");
    assert!(text.contains("20.00 EUR captured at psp (ref-1)"), "{text}");
    // What each reader made of a record is said where it did not simply take it.
    assert!(text.contains("DUPLICATE for order-lifecycle"), "{text}");
    let dead = "DEAD_LETTERED for order-lifecycle: WRONG_KEY: ";
    assert!(text.contains(dead), "{text}");
    assert!(answer.gaps.is_empty(), "{text}");
}

#[test]
fn an_order_that_nobody_knows_is_said_to_be_unknown() {
    let world = a_paid_order();
    let answer = ask(&world, "1", None);
    assert!(answer.story.is_empty() && answer.now.is_none());
    assert!(answer.to_string().contains("--channel"), "{answer}");
}

fn read(world: &World, subject: &Subject, period: &Period) -> (Vec<Line>, Closing) {
    let mut lines = Vec::new();
    let closing = books::read(&world.log, &world.codec, subject, period, |line| {
        lines.push(line.clone());
        Ok::<(), Fault>(())
    });
    (lines, closing.expect("the books"))
}

fn balance(closing: &Closing, account: &str) -> Decimal {
    let found = closing.accounts.iter().find(|a| a.account == account);
    found.map_or(Decimal::ZERO, |a| a.balance)
}

#[test]
fn the_books_of_an_order_hold_what_its_payout_settled_and_say_what_is_left_and_why() {
    let world = a_paid_order();
    let always = Period::default();
    let (lines, closing) = read(&world, &Subject::Order(id(1).into()), &always);
    assert!(lines.iter().all(|l| l.order.as_deref() == Some(&*id(1))));
    assert_eq!(balance(&closing, "PSPClearing"), Decimal::ZERO);
    assert_eq!(closing.closed, Some(false));
    let residual = &closing.residuals[0];
    assert_eq!(
        (residual.account, residual.amount, &*residual.cause),
        ("CustomerDeposits", Decimal::from(-20), "CAPTURED -20")
    );
    // Once it is invoiced nothing is left.
    let mut document = invoice(InvoiceKind::Invoice, "inv-1", 2_000, 320);
    document.order_id = id(1);
    world.send(topic::INVOICE_EVENT, &id(1), document);
    let mut ledger = world.task("ledger", "b");
    world.settle(&mut [&mut ledger]);
    let (_, closing) = read(&world, &Subject::Order(id(1).into()), &always);
    assert!(closing.residuals.is_empty(), "{:?}", closing.residuals);
    assert_eq!(balance(&closing, "TaxPayable"), cents(-320));
    assert_eq!(balance(&closing, "Revenue"), cents(-1_680));
}

#[test]
fn the_books_of_a_payout_and_of_a_period_balance() {
    let world = a_paid_order();
    let always = Period::default();
    let (lines, closing) = read(&world, &Subject::Payout("po".into()), &always);
    let orders: Vec<_> = lines.iter().filter_map(|l| l.order.clone()).collect();
    assert!(orders.contains(&id(1).into()) && orders.contains(&id(2).into()));
    // The bank has not credited it: what the provider still owes is what the lines come to.
    assert_eq!(balance(&closing, "PSPClearing"), cents(3_940));
    assert_eq!(closing.residuals[0].amount, cents(3_940));
    assert_eq!(balance(&closing, "Fees"), cents(60));

    let (all, closing) = read(&world, &Subject::All, &always);
    let sum: Decimal = closing.accounts.iter().map(|a| a.balance).sum();
    assert_eq!(sum, Decimal::ZERO, "debit is credit");
    // Two halves of time hold every line once.
    let middle = all.iter().map(|l| l.booked_at).max();
    let before = Period {
        since: None,
        until: middle,
    };
    let after = Period {
        since: middle,
        until: None,
    };
    let (early, _) = read(&world, &Subject::All, &before);
    let (late, _) = read(&world, &Subject::All, &after);
    assert!(!late.is_empty());
    assert_eq!(early.len() + late.len(), all.len());
}
