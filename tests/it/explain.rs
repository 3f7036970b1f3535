//! `explain` tells why a number is what it is, from the topics alone.

use crate::stock::{channel, hold, sale};
use crate::world::{World, meta};
use crossdock::contract::event::{Outcome, OversellPolicy, StockPolicy, StockReason, StockState};
use crossdock::contract::{Catalogue, topic};
use crossdock::domain::Decimal;
use crossdock::explain::{self, Entry, Sources, StockAnswer, StockQuestion};

fn ask(world: &World, sku: &str, records_max: usize) -> StockAnswer {
    ask_of(world, "crossdock", sku, records_max)
}

fn ask_of(world: &World, application: &str, sku: &str, records_max: usize) -> StockAnswer {
    let question = StockQuestion {
        sku: sku.into(),
        location: "dc".into(),
        channel: None,
    };
    let sources = Sources {
        log: &world.log,
        codec: &world.codec,
        catalogue: Catalogue::compiled(),
        application,
        records_max,
    };
    explain::stock(&sources, &question).expect("an answer")
}

fn outcome(entry: &Entry) -> Option<Outcome> {
    entry.outcome_for("stock-ledger").map(|v| v.outcome)
}

fn gaps(answer: &StockAnswer) -> String {
    answer.gaps.iter().cloned().collect::<Vec<_>>().join("\n")
}

#[test]
fn the_sum_and_the_story_of_a_number_are_told() {
    let world = World::new();
    world.send(
        topic::CHANNEL_CHANGE,
        "web",
        channel("web", &["dc", "store"]),
    );
    let mut ledger = world.task("stock-ledger", "a");
    let mut aggregate = world.task("ats-aggregate", "a");
    let policy = StockPolicy {
        meta: meta("StockPolicy", "erp", "policy-1", 1),
        sku: "A".into(),
        location_id: "dc".into(),
        policy_version: 1,
        safety_stock: Decimal::from(2),
        oversell: OversellPolicy::Block,
        ..StockPolicy::default()
    };
    let mut receipt = sale("A", "dc", 1, 10);
    receipt.from_state = StockState::Supplier;
    receipt.to_state = StockState::Sellable;
    receipt.reason = StockReason::Receipt;
    let mut broken = sale("A", "dc", 3, 1);
    broken.qty = Decimal::from(-1);
    let mut steps: [&mut _; 2] = [&mut ledger, &mut aggregate];
    world.send(topic::STOCK_POLICY, "A|dc", policy);
    world.settle(&mut steps);
    for event in [&receipt, &sale("A", "dc", 2, 3), &receipt, &broken] {
        world.send(topic::STOCK_CHANGE, "A|dc", event.clone());
        world.settle(&mut steps);
    }
    world.send(topic::STOCK_CHANGE, "B|dc", sale("B", "dc", 9, 5));
    world.send(
        topic::RESERVATION_COMMAND,
        "A|dc",
        hold("A", "dc", "order-1", 1, 4),
    );
    world.settle(&mut steps);

    let answer = ask(&world, "A", 1_000);
    let now = answer.now.as_ref().expect("a level");
    assert_eq!(
        (now.sellable, now.reserved, now.safety_stock, now.available),
        (
            Decimal::from(7),
            Decimal::from(1),
            Decimal::from(2),
            Decimal::from(4)
        )
    );
    let sum = &answer.sums[0];
    assert_eq!(sum.offers["dc"], Decimal::from(4));
    assert_eq!(sum.published.map(|(ats, _)| ats), Some(Decimal::from(4)));
    assert_eq!(answer.claims.len(), 1, "{:?}", answer.claims);
    assert_eq!(
        answer.policy.as_deref(),
        Some("safety stock 2 units, oversell BLOCK")
    );
    // Every movement is told with its outcome, and those that count add up to what is sellable.
    let moved: Vec<_> = answer
        .story
        .iter()
        .filter(|e| e.topic == topic::STOCK_CHANGE)
        .collect();
    let outcomes: Vec<_> = moved.iter().map(|e| outcome(e)).collect();
    assert_eq!(
        outcomes,
        [
            Outcome::Applied,
            Outcome::Applied,
            Outcome::Duplicate,
            Outcome::DeadLettered
        ]
        .map(Some)
    );
    let effect: Decimal = moved.iter().filter_map(|e| e.quantity).sum();
    assert_eq!(effect, now.sellable);
    let dead = moved[3].outcome_for("stock-ledger").expect("an outcome");
    let why = dead.reason.as_deref().expect("a reason");
    assert!(why.starts_with("DATA_QUALITY: "), "{why}");
    // Causes stand before what comes of them, and nothing of another SKU is told.
    let first = |topic: &str| answer.story.iter().position(|e| e.topic == topic);
    assert!(first(topic::STOCK_CHANGE) < first(topic::STOCK_LEVEL));
    assert!(first(topic::STOCK_LEVEL) < first(topic::STOCK_ATS));
    let text = answer.to_string();
    assert!(
        text.contains("10 units received (SUPPLIER to SELLABLE)"),
        "{text}"
    );
    assert!(text.contains("1 unit asked for, all held"), "{text}");
    assert!(!text.contains("B|dc") && answer.gaps.is_empty(), "{text}");
}

#[test]
fn what_is_left_out_is_said() {
    let world = World::new();
    let mut ledger = world.task("stock-ledger", "a");
    for position in 1..=20 {
        world.send(topic::STOCK_CHANGE, "A|dc", sale("A", "dc", position, 1));
    }
    world.settle(&mut [&mut ledger]);
    let answer = ask(&world, "A", 5);
    let moved: Vec<_> = answer
        .story
        .iter()
        .filter(|e| e.topic == topic::STOCK_CHANGE)
        .collect();
    assert_eq!(moved.len(), 5);
    assert_eq!(moved[4].offset, 19, "the latest are kept");
    assert!(
        gaps(&answer).contains("15 older records"),
        "{:?}",
        answer.gaps
    );
    let unknown = ask(&world, "NO-SUCH-SKU", 5);
    assert!(unknown.story.is_empty() && unknown.now.is_none());
    assert!(
        gaps(&unknown).contains("check both names"),
        "{:?}",
        unknown.gaps
    );
}

#[test]
fn a_deployment_of_another_name_is_not_taken_for_one_that_has_settled_nothing() {
    let world = World::new();
    let mut ledger = world.task("stock-ledger", "a");
    world.send(topic::STOCK_CHANGE, "A|dc", sale("A", "dc", 1, 1));
    world.settle(&mut [&mut ledger]);
    let answer = ask_of(&world, "another", "A", 5);
    let told = answer.story.iter().filter_map(outcome).count();
    assert_eq!(told, 0, "nothing is known of outcomes");
    let gaps = gaps(&answer);
    assert!(gaps.contains("--application"), "{gaps}");
}
