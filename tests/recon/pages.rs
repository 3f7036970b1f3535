//! Every code of an exception or a fault has a page, and every page a code.

use crossdock::pipeline::Code;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Words in capitals beside the rules that are no exception's code: reasons of postings and
/// cancellations, kinds of settlement lines.
const NO_CODES: &[&str] = &[
    "BANK_CREDIT",
    "CHARGEBACK_REVERSED",
    "CREDIT_NOTE",
    "DEBIT_NOTE",
    "HOLD_EXPIRED",
    "OUT_OF_STOCK",
    "REFUND_APPROVED",
    "REFUND_COMPLETED",
];
/// Codes of one word, which look like any other word in capitals.
const ONE_WORD: &[&str] = &["ORPHAN", "OVERSOLD", "OVERCOMMITTED"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &Path, into: &mut String) {
    for entry in fs::read_dir(folder).expect("folder") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push_str(&fs::read_to_string(&path).expect("source"));
        }
    }
}

/// Texts in capitals with underlines, and the codes of one word, that stand in the rules.
fn codes() -> BTreeSet<String> {
    let mut text = String::new();
    sources(&root().join("src/domain"), &mut text);
    sources(&root().join("src/processors"), &mut text);
    // The one that connectors raise themselves.
    text.push_str("\"WEBHOOK_GAP\"");
    let is_code = |word: &&str| {
        let plain = word.chars().all(|c| c.is_ascii_uppercase() || c == '_');
        let long = word.contains('_') && !word.starts_with('_') && !word.ends_with('_');
        plain && (long || ONE_WORD.contains(word)) && !NO_CODES.contains(word)
    };
    // Between two quotes stands a text, or what is between texts.
    text.split('"').filter(is_code).map(str::to_owned).collect()
}

#[test]
fn every_code_has_a_page_with_cause_consequence_and_remedy_and_every_page_a_code() {
    let codes = codes();
    assert!(
        codes.len() >= 30,
        "{} codes: the search finds nothing",
        codes.len()
    );
    check("docs/exceptions", &codes);
}

#[test]
fn every_code_of_a_fault_has_a_page_too() {
    let codes = Code::ALL.iter().map(|code| code.as_str().to_owned());
    check("docs/faults", &codes.collect());
}

fn check(folder: &str, codes: &BTreeSet<String>) {
    let folder = root().join(folder);
    let index = fs::read_to_string(folder.join("README.md")).expect("the index");
    for code in codes {
        let path = folder.join(format!("{code}.md"));
        let page = fs::read_to_string(&path).unwrap_or_else(|_| {
            panic!(
                "{code} has no page: write {}, or name it in NO_CODES",
                path.display()
            )
        });
        assert!(
            page.starts_with(&format!("# {code}\n")),
            "{code}: its title"
        );
        for part in ["## Cause\n\n", "## Consequence\n\n", "## Remedy\n\n"] {
            let (_, after) = page
                .split_once(part)
                .unwrap_or_else(|| panic!("{code} lacks {part}"));
            assert!(
                !after.trim_start().starts_with('#') && after.len() > 20,
                "{code}: {part} is empty"
            );
        }
        assert!(
            index.contains(&format!("({code}.md)")),
            "{code} is not in the index"
        );
    }
    for entry in fs::read_dir(&folder).expect("pages") {
        let name = entry.expect("entry").file_name();
        let name = name.to_string_lossy();
        let code = name.trim_end_matches(".md");
        assert!(
            code == "README" || codes.contains(code),
            "nothing raises {code}"
        );
    }
}
