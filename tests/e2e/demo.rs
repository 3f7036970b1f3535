//! The demo on a real Kafka: topics of its own, the same events for a seed, and books that anybody can
//! look at afterwards.

use crate::kafka::Kafka;
use crate::oracle;
use crate::worker::{run, succeed};
use std::path::{Path, PathBuf};

fn few_sales(folder: &Path) -> PathBuf {
    let mut text =
        "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country"
            .to_owned();
    for n in 0..3_000u32 {
        let (quantity, sign) = if n % 17 == 16 {
            (-1, "C")
        } else {
            (1 + n as i32 % 5, "")
        };
        let country = if n % 3 == 0 {
            "France"
        } else {
            "United Kingdom"
        };
        text.push_str(&format!(
            "\n{sign}{},{},A THING,{quantity},2010-12-01 08:{:02}:00,2.55,17850,{country}",
            536_365 + n / 4,
            10_000 + n % 90,
            n % 60,
        ));
    }
    let path = folder.join("sales.csv");
    std::fs::write(&path, text).expect("written");
    path
}

#[test]
fn the_demo_runs_on_kafka_beside_what_is_there() {
    let Some(kafka) = Kafka::find(1) else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let data = few_sales(folder.path());
    let data = data.to_str().expect("UTF-8");
    let on_kafka = |prefix: &str| {
        let demo = ["demo", "--json", "--seed", "9", "--data", data, "--kafka"];
        let arguments = [&demo[..], &[&kafka.bootstrap, "--prefix", prefix]].concat();
        run(&kafka.bootstrap, &arguments)
    };
    let report = |output: &std::process::Output| -> serde_json::Value {
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{told}");
        serde_json::from_slice(&output.stdout).expect("JSON")
    };
    let mine = std::process::id();
    let (one, two) = (format!("demo-{mine}-a."), format!("demo-{mine}-b."));
    let (first, second) = (report(&on_kafka(&one)), report(&on_kafka(&two)));
    let embedded = succeed(
        &kafka.bootstrap,
        &["demo", "--json", "--seed", "9", "--data", data],
    );
    let embedded: serde_json::Value = serde_json::from_str(&embedded).expect("JSON");
    assert_eq!(first["events"], second["events"], "seed 9");
    assert_eq!(first["events"], embedded["events"], "seed 9");
    assert_eq!(first["invariants"], embedded["invariants"], "seed 9");

    // The books as others see them.
    let books = run(
        &kafka.bootstrap,
        &["verify", "--json", "--prefix", one.as_str()],
    );
    let books: serde_json::Value = serde_json::from_slice(&books.stdout).expect("JSON");
    assert_eq!(books["produced"], first["ledger"]["produced"]);
    assert_eq!(books["readers"], first["ledger"]["readers"]);

    // And as somebody judges them who shares no code with it.
    if let Some(mut judge) = oracle::command() {
        judge.args(["judge", "--json", "--bootstrap", &kafka.bootstrap]);
        let output = judge.args(["--prefix", &one]).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stdout);
        let verdicts: serde_json::Value = serde_json::from_str(&said).expect("one JSON object");
        let all = verdicts["invariants"].as_array().expect("a list");
        assert_eq!(all.len(), 16, "{said}");
        let violated: Vec<&serde_json::Value> =
            all.iter().filter(|v| v["verdict"] == "violated").collect();
        assert!(violated.is_empty(), "{violated:?}");
        assert!(all.iter().any(|v| v["verdict"] == "held"), "{said}");
    }

    // What is there already is never mixed with.
    let refused = on_kafka(&one);
    let told = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{told}");
    assert!(
        told.contains("is there already") && told.contains("--prefix"),
        "{told}"
    );
}
