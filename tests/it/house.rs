//! The rules of the house, judged by the paths that the code names: imports point one way, the pure
//! parts own no time, threads or chance, and one adapter alone names the Kafka client.
//!
//! What stands in comments, texts and tests counts for nothing. `is_caught` shows for each rule that
//! breaking it is seen.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use std::fs;
use std::path::{Path, PathBuf};

/// A source file, by its place under `src/`.
struct Code {
    path: PathBuf,
    /// Every path that is named, its segments in order; `crate` for one of this crate.
    paths: Vec<Vec<String>>,
}

impl Code {
    fn new(path: &Path, text: &str) -> Self {
        let tokens = text
            .parse::<TokenStream>()
            .unwrap_or_else(|e| panic!("{} is not Rust: {e}", path.display()));
        let mut paths = Vec::new();
        collect(tokens, &[], &mut paths);
        for named in &mut paths {
            resolve(path, named);
        }
        Code {
            path: path.to_owned(),
            paths,
        }
    }

    /// The part of the house that it belongs to: its folder, or its own name.
    fn part(&self) -> String {
        let first = self.path.components().next().expect("a path");
        let first = Path::new(first.as_os_str()).with_extension("");
        first.to_string_lossy().into_owned()
    }

    fn names(&self, parts: &[&str]) -> bool {
        self.paths
            .iter()
            .any(|path| path.windows(parts.len()).any(|w| w == parts))
    }
}

/// All code under `src/` that is not there for tests alone.
fn sources() -> Vec<Code> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut found, mut folders) = (Vec::new(), vec![root.clone()]);
    while let Some(path) = folders.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).expect("folder");
            folders.extend(entries.map(|e| e.expect("entry").path()));
        } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("tests.rs") {
            let text = fs::read_to_string(&path).expect("file");
            let within = path.strip_prefix(&root).expect("under src");
            found.push(Code::new(within, &text));
        }
    }
    found
}

/// Adds every path in `tokens`, those of `use` trees written out; leaves out items that exist under
/// `#[cfg(test)]` only.
fn collect(tokens: TokenStream, prefix: &[String], paths: &mut Vec<Vec<String>>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let is = |at: usize, c: char| matches!(tokens.get(at), Some(TokenTree::Punct(p)) if p.as_char() == c);
    let joins = |at: usize| is(at, ':') && is(at + 1, ':');
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at] {
            TokenTree::Punct(p) if p.as_char() == '#' && is_test_only(tokens.get(at + 1)) => {
                at += 2;
                // The item ends with its body or with a semicolon.
                while at < tokens.len() {
                    let ends = is(at, ';')
                        || matches!(&tokens[at], TokenTree::Group(g) if g.delimiter() == Delimiter::Brace);
                    at += 1;
                    if ends {
                        break;
                    }
                }
            }
            TokenTree::Group(group) => {
                collect(group.stream(), prefix, paths);
                at += 1;
            }
            TokenTree::Ident(ident) => {
                let mut path = prefix.to_vec();
                path.push(ident.to_string());
                at += 1;
                while joins(at) {
                    at += 2;
                    match tokens.get(at) {
                        Some(TokenTree::Ident(ident)) => {
                            path.push(ident.to_string());
                            at += 1;
                        }
                        Some(TokenTree::Group(tree)) if tree.delimiter() == Delimiter::Brace => {
                            collect(tree.stream(), &path, paths);
                            at += 1;
                        }
                        _ => break,
                    }
                }
                paths.push(path);
            }
            _ => at += 1,
        }
    }
}

fn is_test_only(attribute: Option<&TokenTree>) -> bool {
    match attribute {
        Some(TokenTree::Group(g)) => g.stream().to_string().replace(' ', "") == "cfg(test)",
        _ => false,
    }
}

/// Writes `super::…` out as `crate::…`. A module within a file is taken for the file's own.
fn resolve(file: &Path, path: &mut Vec<String>) {
    let ups = path.iter().take_while(|s| *s == "super").count();
    if ups == 0 {
        return;
    }
    let mut module: Vec<String> = file
        .with_extension("")
        .components()
        .map(|c| c.as_os_str().to_string_lossy().into_owned())
        .filter(|c| c != "mod")
        .collect();
    module.truncate(module.len().saturating_sub(ups));
    let rest = path.split_off(ups);
    *path = vec!["crate".to_owned()];
    path.append(&mut module);
    path.extend(rest);
}

/// What each part may name besides itself.
const DIRECTION: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("contract", &["domain"]),
    ("pipeline", &["domain", "contract"]),
    ("config", &["domain", "contract"]),
    ("codec", &["domain", "contract", "pipeline"]),
    ("log", &["pipeline", "config"]),
    ("state", &["domain", "pipeline"]),
    ("telemetry", &["contract", "pipeline"]),
    (
        "registry",
        &["contract", "pipeline", "config", "codec", "log"],
    ),
    (
        "runtime",
        &[
            "domain",
            "contract",
            "pipeline",
            "codec",
            "log",
            "state",
            "telemetry",
        ],
    ),
    ("processors", &["domain", "contract", "pipeline"]),
    ("connectors", &["domain", "contract", "pipeline", "config"]),
    (
        "topics",
        &[
            "contract",
            "pipeline",
            "codec",
            "log",
            "registry",
            "processors",
        ],
    ),
    (
        "verify",
        &["contract", "pipeline", "codec", "log", "runtime"],
    ),
    (
        "customers",
        &["domain", "contract", "pipeline", "config", "codec", "log"],
    ),
    ("cases", &["domain", "contract", "pipeline", "codec", "log"]),
    ("books", &["domain", "contract", "pipeline", "codec", "log"]),
    (
        "parked",
        &[
            "domain", "contract", "pipeline", "codec", "log", "runtime", "dlq",
        ],
    ),
    (
        "dlq",
        &[
            "domain",
            "contract",
            "pipeline",
            "codec",
            "log",
            "state",
            "processors",
            "desk",
        ],
    ),
    ("desk", &["domain", "contract", "pipeline", "codec", "log"]),
    (
        "replay",
        &[
            "domain", "contract", "pipeline", "codec", "log", "runtime", "parked", "dlq", "desk",
        ],
    ),
    (
        "rebuild",
        &[
            "domain",
            "contract",
            "pipeline",
            "codec",
            "log",
            "state",
            "runtime",
            "processors",
            "dlq",
            "desk",
        ],
    ),
    (
        "explain",
        &[
            "books",
            "domain",
            "contract",
            "pipeline",
            "codec",
            "log",
            "runtime",
            "processors",
        ],
    ),
];
/// Parts that may name all others.
const SHELL: [&str; 5] = ["cli", "demo", "simulate", "main", "lib"];

fn wrong_direction(code: &Code) -> Option<String> {
    let part = code.part();
    if SHELL.contains(&part.as_str()) {
        return None;
    }
    let Some((_, allowed)) = DIRECTION.iter().find(|(name, _)| *name == part) else {
        return Some(format!("{part} is not on the map: say what it may name"));
    };
    let modules: Vec<&str> = DIRECTION
        .iter()
        .map(|(name, _)| *name)
        .chain(SHELL)
        .collect();
    code.paths.iter().find_map(|path| {
        let [root, module, ..] = path.as_slice() else {
            return None;
        };
        let is_module = root == "crate" && modules.contains(&module.as_str());
        let is_wrong = is_module && *module != part && !allowed.contains(&module.as_str());
        is_wrong.then(|| format!("{part} must not name {module}"))
    })
}

/// Time, threads and chance, by what brings them in.
const UNDRIVEN: &[&[&str]] = &[
    &["SystemTime"],
    &["Instant"],
    &["SystemClock"],
    &["jiff", "Timestamp", "now"],
    &["Timestamp", "now"],
    &["Zoned", "now"],
    &["thread"],
    &["tokio", "time"],
    &["tokio", "spawn"],
    &["tokio", "task"],
    &["rand"],
    &["rand_chacha"],
    &["fastrand"],
    &["getrandom"],
    &["Uuid", "new_v4"],
    &["Uuid", "now_v7"],
    &["RandomState"],
    &["DefaultHasher"],
    // Without a hasher of one's own these are seeded at random.
    &["HashMap", "new"],
    &["HashSet", "new"],
    &["HashMap", "with_capacity"],
    &["HashSet", "with_capacity"],
    &["HashMap", "from"],
    &["HashSet", "from"],
    &["std", "env"],
];

fn undriven(code: &Code) -> Option<String> {
    let is_pure = ["runtime", "processors", "domain"].contains(&code.part().as_str());
    if !is_pure || code.path == Path::new("runtime/service.rs") {
        return None;
    }
    let named = UNDRIVEN.iter().find(|parts| code.names(parts));
    named.map(|parts| format!("it names {}", parts.join("::")))
}

fn foreign_client(code: &Code) -> Option<String> {
    let is_adapter = code.path.starts_with("log/kafka");
    (!is_adapter && code.names(&["rdkafka"])).then(|| "only log/kafka names rdkafka".to_owned())
}

/// Folders beside the connectors that all of them may use.
const HELPERS: [&str; 3] = ["erp", "storefront", "webhook"];

/// A vendor's JSON stays in its connector: connectors share the list, and helpers beside it.
fn foreign_connector(code: &Code) -> Option<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/connectors");
    let own = code
        .path
        .strip_prefix("connectors")
        .ok()?
        .components()
        .next()?;
    let own = own.as_os_str().to_string_lossy().into_owned();
    if !root.join(&own).is_dir() {
        return None;
    }
    code.paths.iter().find_map(|path| match path.as_slice() {
        [root_name, part, other, ..] if root_name == "crate" && part == "connectors" => {
            let is_other =
                *other != own && root.join(other).is_dir() && !HELPERS.contains(&other.as_str());
            is_other.then(|| format!("connector {own} names connector {other}"))
        }
        _ => None,
    })
}

/// Judges share nothing with what they judge.
fn biased_judge(code: &Code) -> Option<String> {
    let is_judge = code.path == Path::new("simulate/judges.rs")
        || code.path.starts_with("demo/invariants") && !code.path.ends_with("tests.rs");
    let judged: [&[&str]; 4] = [
        &["domain", "stock"],
        &["processors"],
        &["runtime"],
        &["connectors"],
    ];
    let named = judged.iter().find(|parts| code.names(parts));
    named
        .filter(|_| is_judge)
        .map(|parts| format!("a judge must not name {}", parts.join("::")))
}

const RULES: [fn(&Code) -> Option<String>; 5] = [
    wrong_direction,
    undriven,
    foreign_client,
    foreign_connector,
    biased_judge,
];

#[test]
fn the_house_keeps_its_rules() {
    let sources = sources();
    assert!(
        sources.len() > 100,
        "{} files: the rules watch nothing",
        sources.len()
    );
    for (part, _) in DIRECTION {
        let watched = sources.iter().any(|code| code.part() == *part);
        assert!(watched, "there is no {part}: the rule watches nothing");
    }
    let mut wrong = Vec::new();
    for code in &sources {
        let found = RULES.iter().filter_map(|rule| rule(code));
        wrong.extend(found.map(|what| format!("src/{}: {what}", code.path.display())));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn is_caught(path: &str, text: &str) -> bool {
    let code = Code::new(Path::new(path), text);
    RULES.iter().any(|rule| rule(&code).is_some())
}

#[test]
fn each_way_to_break_a_rule_is_seen() {
    for (path, text) in [
        ("domain/stock/x.rs", "use crate::contract::topic;"),
        (
            "domain/stock/x.rs",
            "use crate::{domain::{Decimal, Position}, runtime::Task};",
        ),
        ("processors/x.rs", "use super::super::runtime::Task;"),
        ("processors/mod.rs", "use super::log;"),
        ("connectors/x/mod.rs", "fn f() { crate::runtime::go(); }"),
        (
            "pipeline/mod.rs",
            "#[cfg(test)] mod tests; use crate::log::Log;",
        ),
        ("attic/mod.rs", "fn f() {}"),
        ("runtime/x.rs", "use std::time::{Duration, Instant};"),
        ("runtime/x.rs", "fn f() { std::thread::sleep(d); }"),
        ("runtime/x.rs", "fn f() { tokio::time::sleep(d); }"),
        (
            "processors/x.rs",
            "fn f() { let m = std::collections::HashMap::new(); }",
        ),
        ("domain/x.rs", "fn f() { jiff::Timestamp::now(); }"),
        (
            "domain/x.rs",
            "fn f() { log(format_args!(\"{:?}\", Uuid::new_v4())); }",
        ),
        (
            "demo/invariants/x.rs",
            "use crate::domain::{Decimal, stock::Ledger};",
        ),
        ("simulate/judges.rs", "use crate::runtime::TaskSettings;"),
        ("cli/x.rs", "use rdkafka as client;"),
        ("cli/kafka/x.rs", "use rdkafka::config::ClientConfig;"),
        (
            "connectors/medusa/sink.rs",
            "use crate::connectors::vendure::Client;",
        ),
        (
            "connectors/medusa/sink.rs",
            "use super::super::vendure::Client;",
        ),
    ] {
        assert!(is_caught(path, text), "{path}: {text}");
    }
    for (path, text) in [
        (
            "domain/x.rs",
            "/// As [`crate::runtime::Task`] and Instant.\nfn f() -> &'static str { \"rdkafka::SystemTime\" }",
        ),
        (
            "domain/x.rs",
            "#[cfg(test)] mod tests { use crate::log::Log; }",
        ),
        ("runtime/service.rs", "use std::thread;"),
        (
            "processors/stock_ledger/x.rs",
            "use super::super::shelf::StateShelf;",
        ),
        (
            "connectors/medusa/sink.rs",
            "use crate::connectors::http::Client;",
        ),
        ("log/kafka/x.rs", "use rdkafka::config::ClientConfig;"),
    ] {
        assert!(!is_caught(path, text), "{path}: {text}");
    }
}

#[test]
fn the_compose_file_agrees_with_the_first_ten_minutes() {
    let read = |name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    };
    let compose: serde_json::Value =
        serde_norway::from_str(&read("docker-compose.yml")).expect("YAML");
    let services = compose["services"].as_object().expect("services");
    for (name, service) in services {
        let image = service["image"].as_str().expect("an image");
        let version = image.rsplit_once(':').map(|(_, version)| version);
        assert!(
            version.is_some_and(|v| v.contains(|c: char| c.is_ascii_digit())),
            "{name}: {image} names no version"
        );
        let ports = service["ports"].as_array().expect("ports");
        let local = |p: &serde_json::Value| p.as_str().is_some_and(|p| p.starts_with("127.0.0.1:"));
        assert!(ports.iter().all(local), "{name} is open to the network");
    }
    let kafka = &services["kafka"];
    assert_eq!(kafka["ports"][0], "127.0.0.1:9092:9092");
    let advertised = kafka["environment"]["KAFKA_ADVERTISED_LISTENERS"].as_str();
    assert!(advertised.is_some_and(|a| a.contains("EXTERNAL://127.0.0.1:9092")));
    assert!(read("README.md").contains("CROSSDOCK_BOOTSTRAP=127.0.0.1:9092"));
    assert!(read("config/example.yaml").contains("bootstrap: 127.0.0.1:9092"));
}
