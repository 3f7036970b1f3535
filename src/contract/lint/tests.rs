use super::*;

fn project() -> Sources {
    Sources::read(Path::new(env!("CARGO_MANIFEST_DIR"))).expect("the project's own files")
}

const READERS: [&str; 17] = [
    "stock-ledger",
    "ats-aggregate",
    "refund-gate",
    "return-refund-recon",
    "ledger",
    "settlement-match",
    "settlement-recon",
    "order-lifecycle",
    "reservation-saga",
    "shipment-propagation",
    "stock-recon",
    "manifest-split",
    "order-recon",
    "sla-monitor",
    "exception-context",
    "exception-enricher",
    "feed-watch",
];

/// What is found after `mend` was done to the project's own files.
fn after(mend: impl FnOnce(&mut Sources)) -> Vec<String> {
    let mut sources = project();
    mend(&mut sources);
    lint(&sources, &READERS)
        .iter()
        .map(ToString::to_string)
        .collect()
}

fn replace(source: &mut Source, from: &str, to: &str) {
    assert!(source.text.contains(from), "{} lacks {from}", source.path);
    source.text = source.text.replacen(from, to, 1);
}

fn schema<'a>(sources: &'a mut Sources, name: &str) -> &'a mut Source {
    sources
        .schemas
        .iter_mut()
        .find(|s| s.path.ends_with(&format!("/{name}.v1.avsc")))
        .expect("a schema of the project")
}

#[test]
fn the_projects_own_contracts_have_no_mistake() {
    let found = after(|_| {});
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn what_was_published_stays_as_it_is() {
    let found = after(|sources| {
        let change = schema(sources, "StockChanged");
        replace(change, "strictly > 0", "more than 0");
        sources
            .schemas
            .retain(|s| !s.path.ends_with("/Location.v1.avsc"));
        let lock = &mut sources.lock.text;
        let line = lock
            .lines()
            .find(|l| l.contains("StockLevel"))
            .expect("held");
        *lock = lock.replace(&format!("{line}\n"), "");
        lock.push_str("gibberish\n");
    });
    let text = found.join("\n");
    for part in [
        "schemas/stock/StockChanged.v1.avsc:1: retail.stock.v1.StockChanged v1 is published and has changed; take the change back, and write it into a file of the next version",
        "retail.master.v1.Location v1 is published, and its file is gone",
        "retail.stock.v1.StockLevel is published, and schemas/published.lock does not hold it; add the line retail.stock.v1.StockLevel v1 ",
        "\"gibberish\" is no line of the lock",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}

#[test]
fn every_mistake_is_told_at_once_with_file_and_line() {
    let found = after(|sources| {
        replace(&mut sources.topics, "class: P0", "class: P9");
        replace(&mut sources.topics, "family: STOCK\n", "family: STOCKS\n");
        replace(&mut sources.topics, "owner: inventory", "oner: inventory");
        let policy = schema(sources, "StockPolicy");
        replace(policy, r#""scale": 4"#, r#""scale": 3"#);
        let channel = schema(sources, "Channel");
        channel.text.push('}');
    });
    let text = found.join("\n");
    for part in [
        "topics.0.class: \"P9\" is not a class; write one of P0, P1, P2, P3",
        "topics.0.family: there is no family STOCKS",
        "topics.0.oner: oner is unknown here",
        "topics.0: owner is missing; add owner:",
        "schemas/stock/StockPolicy.v1.avsc:7: fields.4.type: no Rust type stands for this logical type",
        "schemas/master/Channel.v1.avsc:",
        "it is not JSON",
        "no schema defines \"retail.master.v1.Channel\"",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    let line = project()
        .topics
        .text
        .lines()
        .position(|l| l.contains("class: P0"))
        .expect("stands there")
        + 1;
    assert!(
        text.contains(&format!("topics.yaml:{line}: topics.0.class")),
        "{text}"
    );
}

#[test]
fn rules_of_schemas() {
    for (name, from, to, part) in [
        (
            "StockPolicy",
            r#"["UNKNOWN", "BLOCK""#,
            r#"["BLOCK", "UNKNOWN""#,
            "put UNKNOWN first",
        ),
        (
            "StockPolicy",
            r#""default": "UNKNOWN"}, "default": "UNKNOWN"},
  {"name": "backorderLimit""#,
            r#""doc": "x"}, "default": "UNKNOWN"},
  {"name": "backorderLimit""#,
            "in the enum itself",
        ),
        (
            "StockPolicy",
            r#"["null", "double"], "default": null"#,
            r#"["null", "double"]"#,
            "with default null",
        ),
        (
            "StockPolicy",
            r#"["null", "double"]"#,
            r#"["null", "float"]"#,
            "seven digits",
        ),
        (
            "StockPolicy",
            r#""name": "sku""#,
            r#""aliases": ["item"], "name": "sku""#,
            "honours aliases",
        ),
        (
            "StockPolicy",
            r#""name": "StockPolicy""#,
            r#""name": "StockPolice""#,
            "give both one name",
        ),
        (
            "StockPolicy",
            r#""namespace": "retail.stock.v1""#,
            r#""namespace": "stock""#,
            "not in retail.*",
        ),
        (
            "StockPolicy",
            r#""name": "meta""#,
            r#""name": "head""#,
            "named meta",
        ),
        (
            "StockPolicy",
            r#""sourcePosition", "type": "long""#,
            r#""sourcePosition", "type": "int""#,
            "defined otherwise",
        ),
        (
            "CustomerChanged",
            r#""pii": "DIRECT""#,
            r#""pii": "SECRET""#,
            "no tag of personal data",
        ),
    ] {
        let found = after(|sources| replace(schema(sources, name), from, to));
        assert!(found.iter().any(|f| f.contains(part)), "{part}: {found:#?}");
    }
}

#[test]
fn versions_of_a_contract_must_read_one_another() {
    let next = |number: u32, from: &str, to: &str| {
        after(|sources| {
            let mut next = schema(sources, "StockPolicy").clone();
            next.path = next.path.replace(".v1.", &format!(".v{number}."));
            replace(&mut next, from, to);
            sources.schemas.push(next);
        })
    };
    let sku = r#"{"name": "sku", "type": "string"}"#;
    let with = format!(r#"{sku}, {{"name": "note", "type": "string", "default": ""}}"#);
    assert_eq!(next(2, sku, &with), [""; 0]);
    let with = format!(r#"{sku}, {{"name": "note", "type": "string"}}"#);
    let found = next(2, sku, &with);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(
        found[0].contains("version 2 cannot read what version 1 wrote: note"),
        "{found:?}"
    );
    let found = next(3, "sku", "sku");
    assert!(found[0].contains("version 2 is missing"), "{found:?}");
}

#[test]
fn rules_of_the_catalogue() {
    for (from, to, part) in [
        ("cleanup: \"delete\"", "cleanup: \"shred\"", "not a cleanup"),
        ("retention: 7d", "retention: 7 weeks", "is no retention"),
        (
            "retention: forever",
            "retention: 7d",
            "deletes nothing by age",
        ),
        ("    status: published", "    status: done", "not a status"),
        ("on_reject: continue", "on_reject: stop", "not a on_reject"),
        (
            "reader: stock-ledger",
            "reader: stock-leger",
            "not a reader",
        ),
        (
            "name: retail.stock.policy.v1",
            "name: retail.stock.change.v1",
            "stands twice",
        ),
        (
            "name: retail.stock.policy.v1",
            "name: stock_policy",
            "no name of a topic",
        ),
        ("pii: FINANCIAL", "pii: none", "write pii: FINANCIAL"),
        ("S: 6", "S: 0", "not a number of partitions"),
        ("{S: 6, M: 24, L: 96}", "{S: 6, M: 24}", "L is missing"),
        (
            "\"{sku}|{locationId}\"",
            "\"sku|locationId\"",
            "no template",
        ),
        ("size_factor: 2", "size_factor: two", "not a factor"),
        (
            "retail.rt.{reader}.park.v1",
            "retail.rt.park.v1",
            "{reader}",
        ),
        ("families:", "families: [", "not YAML"),
    ] {
        let found = after(|sources| replace(&mut sources.topics, from, to));
        assert!(found.iter().any(|f| f.contains(part)), "{part}: {found:#?}");
    }
}
