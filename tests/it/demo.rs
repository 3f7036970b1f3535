//! The demo command as people and scripts use it, on the log in its process.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const HEADER: &str =
    "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country";

fn demo(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_crossdock"))
        .arg("demo")
        .args(arguments)
        .env_remove("RUST_LOG")
        .output()
        .expect("the binary runs")
}

fn file(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("written");
    path
}

/// A few hundred sales and returns in the form of the data set.
fn few_sales(folder: &Path) -> PathBuf {
    let mut text = HEADER.to_owned();
    for n in 0..600u32 {
        let (quantity, sign) = match n % 17 {
            16 => (-1, "C"),
            rest => (1 + i64::from(rest % 5), ""),
        };
        let country = if n % 3 == 0 {
            "France"
        } else {
            "United Kingdom"
        };
        text.push_str(&format!(
            "\n{sign}{},{},A THING,{quantity},2010-12-01 08:{:02}:00,2.55,17850,{country}",
            536_365 + n / 4,
            10_000 + n % 40,
            n % 60,
        ));
    }
    // A last line without its end would be read only once the file has not grown for a while.
    text.push('\n');
    file(folder, "sales.csv", &text)
}

#[test]
fn a_seed_gives_the_same_object_in_every_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = few_sales(folder.path());
    let data = data.to_str().expect("UTF-8");
    let run = |seed: &str| {
        let output = demo(&["--json", "--seed", seed, "--data", data]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "seed {seed}: {told}");
        assert!(told.is_empty(), "nothing but the object: {told}");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        assert_eq!(text.lines().count(), 1, "{text}");
        text
    };
    let (first, again, other) = (run("2"), run("2"), run("3"));
    assert_eq!(first, again);
    assert_ne!(first, other);
    let report: serde_json::Value = serde_json::from_str(&first).expect("JSON");
    assert!(report["events"].as_u64() > Some(600), "{report}");
}

#[test]
fn without_a_terminal_the_report_is_plain_text() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = few_sales(folder.path());
    let output = demo(&["--data", data.to_str().expect("UTF-8")]);
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{out}{err}");
    assert!(
        !out.contains('\u{1b}') && !err.contains('\u{1b}'),
        "{out}{err}"
    );
    for words in ["Ledger", "balanced", "ok   13", "crossdock demo --kafka"] {
        assert!(out.contains(words), "{words}: {out}");
    }
    for words in ["trading", "one storefront down", "closing the day"] {
        assert!(err.contains(words), "{words}: {err}");
    }
}

#[test]
fn what_is_wrong_is_told_with_its_remedy() {
    let folder = tempfile::tempdir().expect("a folder");
    let missing = folder.path().join("missing.csv");
    let other = file(folder.path(), "other.csv", "a,b\n1,2\n");
    let header = file(folder.path(), "header.csv", HEADER);
    let cut = file(folder.path(), "cut.csv.gz", "this is no gzip");
    let data = |path: &Path| vec!["--data".to_owned(), path.display().to_string()];
    let cases = [
        (data(&missing), "missing.csv cannot be read"),
        (data(folder.path()), "it is a folder"),
        (data(&other), "UCI"),
        (data(&header), "UCI"),
        (data(&cut), "cut.csv.gz"),
        (
            vec!["--kafka".into(), "127.0.0.1:1".into()],
            "leave --kafka out",
        ),
        (vec!["--prefix".into(), "x.".into()], "--kafka"),
    ];
    for (arguments, words) in cases {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let output = demo(&arguments);
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {told}");
        assert!(
            told.contains(words),
            "{arguments:?} should say {words:?}: {told}"
        );
    }
}

#[test]
fn a_scenario_is_played_from_its_file_and_mistakes_are_told_with_their_lines() {
    let folder = tempfile::tempdir().expect("a folder");
    let scenario = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_crossdock"))
            .arg("scenario")
            .args(arguments)
            .env_remove("RUST_LOG")
            .output()
            .expect("the binary runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), said)
    };
    let begin = "scenario: A mug\nlocations: {Store: store}\nchannels: {online: [Store]}\nstock:\n  MUG-1: {Store: 1}\nsteps:\n";
    let good =
        "  - customer orders 1 of MUG-1 at 1 EUR in online as A\n  - expect A is IN_FULFILMENT\n";
    let good = file(folder.path(), "good.yaml", &format!("{begin}{good}"));
    let ledgers = folder.path().join("ledgers");
    let ledgers = ledgers.to_str().expect("UTF-8");
    let good = good.to_str().expect("UTF-8");
    let (code, said) = scenario(&[good, "--ledgers", ledgers]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("ok") && said.contains("A mug"), "{said}");
    let erp = Path::new(ledgers).join("good/erp.jsonl");
    assert!(erp.is_file(), "{}", erp.display());

    let wrong = "  - customer orders 1 of CUP-1 at 1 EUR in online as A\n  - customer sings\n";
    let wrong = file(folder.path(), "wrong.yaml", &format!("{begin}{wrong}"));
    let wrong = wrong.to_str().expect("UTF-8");
    // One that cannot be played keeps none from being played.
    let (code, said) = scenario(&[wrong, good]);
    assert_eq!(code, Some(1), "{said}");
    for words in [
        "wrong.yaml:7",
        "no SKU CUP-1",
        "wrong.yaml:8",
        "--sentences",
        "ok",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let (code, said) = scenario(&["--sentences"]);
    assert_eq!(code, Some(0));
    assert!(said.contains("customer pays for <order>"), "{said}");
}
