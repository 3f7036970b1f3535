//! Registering contracts: look-up, judgement, and the level of a new subject.

use crate::support::{client, log, open, record, serve, subject};
use crossdock::codec::Codec;
use crossdock::contract::{Catalogue, topic};
use crossdock::registry::register::{self, Plan, Step, Wanted};
use crossdock::registry::{Level, Registry};
use crossdock::topics::{Readers, subjects};
use std::sync::Arc;

fn wanted(subject: &str, schema: String) -> [Wanted; 1] {
    [Wanted {
        subject: subject.to_owned(),
        schema: schema.leak(),
    }]
}

/// Plans and registers in `registry`.
pub fn judge(registry: &dyn Registry) {
    let name = subject("register");
    let decimal = |scale: u8| {
        let kind = format!(
            r#"q:{{"type":"bytes","logicalType":"decimal","precision":18,"scale":{scale}}}"#
        );
        record("Register", &[&kind])
    };
    let one = wanted(&name, decimal(4));
    let plan = Plan::make(registry, &one).expect("answers");
    assert_eq!(plan.to_string(), format!("+ {name} new subject\n"));
    plan.apply(registry).expect("registers");
    assert_eq!(registry.level(&name), Ok(Level::FullTransitive));
    let again = Plan::make(registry, &one).expect("answers");
    assert!(!again.is_pending());
    assert!(matches!(
        again.steps(),
        [Step::Unchanged { version: 1, .. }]
    ));
    // Not every registry sees this break; the plan does.
    let bad = Plan::make(registry, &wanted(&name, decimal(2))).expect("answers");
    assert!(!bad.is_pending());
    let text = bad.to_string();
    assert!(text.starts_with(&format!("! {name}\n")), "{text}");
    assert!(
        text.contains("q: decimal(18,4) cannot be read as decimal(18,2)"),
        "{text}"
    );
    let kind = r#"q:{"type":"bytes","logicalType":"decimal","precision":18,"scale":4}"#;
    let next = wanted(&name, record("Register", &[kind, "r:int=0"]));
    let plan = Plan::make(registry, &next).expect("answers");
    assert_eq!(plan.to_string(), format!("+ {name} new version\n"));
    register::all(registry, &next).expect("registers");
    assert_eq!(registry.versions(&name), Ok(vec![1, 2]));
}

#[test]
fn an_embedded_registry_is_registered_in() {
    judge(&*open(&log()));
}

#[test]
fn a_served_registry_is_registered_in() {
    let served = serve(open(&log()));
    judge(&client(&served.url()));
}

#[test]
fn a_build_registers_all_that_its_codec_needs() {
    let registry = open(&log());
    let catalogue = Catalogue::compiled();
    let mut readers = Readers::processors();
    readers
        .sinks
        .push(("webshop".into(), topic::STOCK_ATS.into()));
    let wanted = subjects(catalogue, &readers);
    register::all(&*registry, &wanted).expect("registers");
    register::all(&*registry, &wanted).expect("changes nothing");
    let codec = Codec::new(Arc::clone(&registry) as _, catalogue);
    let prepared = codec.prepare(&[
        topic::STOCK_CHANGE,
        topic::STOCK_ATS,
        topic::OPS_DISPOSITION,
        "retail.rt.stock-ledger.dlq.v1",
        "retail.rt.webshop.park.v1",
        "retail.rt.webshop.receipt.v1",
    ]);
    assert!(prepared.is_ok(), "{prepared:?}");
}

#[test]
fn a_missing_schema_is_told_before_anything_starts_with_the_command() {
    let served = serve(open(&log()));
    let codec = Codec::new(Arc::new(client(&served.url())), Catalogue::compiled());
    let missing = codec.prepare(&[topic::STOCK_CHANGE, topic::STOCK_LEVEL]);
    let text = missing.err().map(|f| f.message).unwrap_or_default();
    assert!(
        text.contains("retail.stock.change.v1-value, retail.stock.level.v1-value"),
        "{text}"
    );
    let command = format!("`crossdock schemas register --registry {}`", served.url());
    assert!(text.contains(&command), "{text}");
    // Looking up registers nothing.
    assert_eq!(client(&served.url()).subjects(), Ok(vec![]));
}
