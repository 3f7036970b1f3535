//! What must be so when everything is whole again.

use crate::facts::{last_values, send_raw};
use crate::load::{among_processors, in_flight};
use crate::oracle;
use crate::stage::{Part, SKUS, Stage, lock, sender_codec, sku};
use crate::worker::succeed;
use crossdock::contract::topic;
use crossdock::processors;
use serde_json::Value;
use std::process::Output;
use std::sync::atomic::Ordering;

/// Everything drains; then the books, the oracle and the storefront are looked at.
///
/// # Panics
/// When something is not as it must be; the message says what.
pub fn judge(stage: &Stage) {
    assert!(stage.is_loaded.load(Ordering::SeqCst), "not all was sent");
    stage.network.open();
    stage.shop.heal();
    stage.tell("faults are over");
    for slot in stage.slots.iter().filter(|s| lock(s).is_wanted) {
        stage.wait_ready(slot);
    }
    stage.wait_out("everything drains", || {
        [in_flight(stage), wrong_in_the_shop(stage)].concat()
    });
    stage.tell("everything has drained");
    // A source says once a minute that it is heard of: sources end first, so that what is judged stays.
    for slot in &stage.slots {
        let mut slot = lock(slot);
        if matches!(slot.part, Part::Edge | Part::Hooks) {
            stage.end(&mut slot);
        }
    }
    let codec = sender_codec(stage);
    let what = "what sources said last is dealt with";
    stage.wait_out(what, || among_processors(stage, &codec));
    println!("{}", succeed(&stage.kafka.bootstrap, &["verify"]));
    let sent = {
        let sent = lock(&stage.sent);
        sent.changes + sent.lines as i64 + sent.moves as i64
    };
    let output = ask_oracle(stage, sent);
    let said = String::from_utf8_lossy(&output.stdout);
    println!("oracle: {}", said.trim());
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the oracle: {said}{complained}");
    for slot in &stage.slots {
        stage.end(&mut lock(slot));
    }
    defects_are_found(stage, sent);
}

/// The judge can fail: a change that never arrived, a level that is written once more, and an effect at
/// the storefront that is missing are each found.
fn defects_are_found(stage: &Stage, sent: i64) {
    // One after the other: of each invariant the oracle tells one counter-example.
    is_found(stage, sent + 1, "were sent");
    let levels = last_values(stage.log.as_ref(), topic::STOCK_LEVEL);
    let (key, level) = levels.iter().next().expect("a level");
    send_raw(
        &stage.log,
        topic::STOCK_LEVEL,
        Some(key.as_bytes()),
        level.value.as_deref(),
    );
    is_found(stage, sent, "levelVersion of");
    if let Some(units) = lock(&stage.sent).units.values_mut().next() {
        *units = units.max(&mut 0).saturating_add(1);
    }
    assert_eq!(
        wrong_in_the_shop(stage).len(),
        1,
        "a unit that is not shown"
    );
    println!(
        "defects put in by hand are found: a lost change, a level written twice, a missing effect"
    );
}

fn is_found(stage: &Stage, sent: i64, words: &str) {
    let output = ask_oracle(stage, sent);
    let said = String::from_utf8_lossy(&output.stdout);
    let is_told = !output.status.success() && said.contains(words);
    assert!(is_told, "{words}: not found: {said}");
}

/// The oracle over everything that is in the log and what the retailer's systems wrote down. So many
/// different changes of stock were sent.
fn ask_oracle(stage: &Stage, sent: i64) -> Output {
    let mut judge = oracle::command().expect("it was there");
    judge.args(["judge", "--bootstrap", &stage.kafka.bootstrap]);
    judge.arg("--ledgers").arg(stage.folder().join("ledgers"));
    judge.args(["--sent", &format!("{}={sent}", topic::STOCK_CHANGE)]);
    for p in processors::ALL {
        judge.args(["--reader", p.descriptor.name]);
    }
    judge.output().expect("the oracle runs")
}

/// SKUs of which the storefront does not show what was sold, returned and moved.
fn wrong_in_the_shop(stage: &Stage) -> Vec<String> {
    let books = stage.shop.books();
    let sent = lock(&stage.sent);
    let mut wrong = Vec::new();
    for name in (0..SKUS).map(sku) {
        let of_sku = sent.units.iter().filter(|((_, n), _)| *n == name);
        let mut units = of_sku.map(|(_, units)| *units).peekable();
        let is_known = units.peek().is_some();
        // What is short at one place is not taken from another.
        let expected: i64 = units.map(|u| u.max(0)).sum();
        let shown = books.get(&name).and_then(Value::as_i64);
        if is_known && shown != Some(expected) {
            wrong.push(format!("{name}: {shown:?} is shown, {expected} are there"));
        }
    }
    wrong
}
