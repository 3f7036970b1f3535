//! Configuration: any text. It is refused with findings that name lines of it, or read, and then every connector in it is
//! built or refused in words.
#![no_main]

use crossdock::config::lint::{self, Kinds};
use crossdock::connectors;
use libfuzzer_sys::{Corpus, fuzz_target};

fuzz_target!(|data: &[u8]| -> Corpus {
    let Ok(text) = std::str::from_utf8(data) else {
        return Corpus::Reject;
    };
    // What a text names is read: nothing but these may be named.
    if text.matches("${file:").count() != text.matches("${file:/dev/null}").count() {
        return Corpus::Reject;
    }
    let kinds = Kinds {
        names: connectors::ALL.iter().map(|d| d.kind).collect(),
        settings: &|kind| connectors::find(kind).map(|d| (d.settings)()),
    };
    match lint::read("fuzz.yaml", text, &kinds) {
        Ok(configuration) => {
            for entry in configuration.connectors {
                let kind = connectors::find(&entry.kind).expect("a kind that was judged");
                if let Err(fault) = (kind.build)(&entry.name, entry.settings) {
                    assert!(!fault.message.is_empty());
                }
            }
        }
        Err(findings) => {
            assert!(!findings.is_empty(), "refused without a cause");
            // To YAML a carriage return ends a line too, alone or before a line feed.
            let ends = text.replace("\r\n", "\n").matches(['\n', '\r']).count();
            let lines = ends + 2;
            for finding in findings {
                assert!(
                    (1..=lines).contains(&finding.line),
                    "no such line: {finding:?}"
                );
                assert!(!finding.cause.is_empty() && !finding.remedy.is_empty());
            }
        }
    }
    Corpus::Keep
});
