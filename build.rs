//! Turns `schemas/` and `topics.yaml` into Rust: event types with their Avro codec, and topic names.
//!
//! The highest version of each contract is compiled. A named type that stands in several schemas
//! must be the same everywhere and becomes one Rust type.

use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=schemas");
    println!("cargo::rerun-if-changed=topics.yaml");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    fs::write(out.join("event.rs"), events()).expect("the build folder is writable");
    fs::write(out.join("topic.rs"), topics()).expect("the build folder is writable");
}

/// A contract: name, domain folder, version, file, schema.
struct Contract {
    name: String,
    version: u32,
    path: PathBuf,
    schema: Value,
}

fn contracts() -> Vec<Contract> {
    let mut latest: BTreeMap<String, Contract> = BTreeMap::new();
    let mut folders: Vec<_> = entries(Path::new("schemas"))
        .into_iter()
        .filter(|p| p.is_dir())
        .collect();
    folders.sort();
    for path in folders.iter().flat_map(|f| entries(f)) {
        let file = path
            .file_name()
            .and_then(|n| n.to_str())
            .unwrap_or_default()
            .to_owned();
        let Some((name, version)) = file.strip_suffix(".avsc").and_then(|f| f.rsplit_once(".v"))
        else {
            continue;
        };
        let version: u32 = version
            .parse()
            .unwrap_or_else(|_| panic!("{file}: the version is not a number"));
        let text = fs::read_to_string(&path).expect("schema file");
        let schema: Value =
            serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert_eq!(
            schema["name"],
            name,
            "{}: the record is not named after its file",
            path.display()
        );
        if latest.get(name).is_none_or(|c| c.version < version) {
            latest.insert(
                name.to_owned(),
                Contract {
                    name: name.to_owned(),
                    version,
                    path,
                    schema,
                },
            );
        }
    }
    latest.into_values().collect()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(folder)
        .expect("folder")
        .map(|e| e.expect("entry").path())
        .collect();
    paths.sort();
    paths
}

fn events() -> String {
    let contracts = contracts();
    let mut generator = Generator::default();
    for contract in &contracts {
        generator.define(&contract.schema);
    }
    let mut out = generator.code;
    for c in &contracts {
        let (name, path) = (&c.name, c.path.display());
        let full = format!(
            "{}.{name}",
            c.schema["namespace"].as_str().expect("namespace")
        );
        let _ = writeln!(
            out,
            "impl Contract for {name} {{
    const NAME: &'static str = {full:?};
    const VERSION: u32 = {version};
    const SCHEMA: &'static str = include_str!(concat!(env!(\"CARGO_MANIFEST_DIR\"), \"/{path}\"));
    fn encode(&self, out: &mut Vec<u8>) {{ wire::Avro::put(self, out) }}
    fn decode(input: &mut &[u8]) -> Result<Self, DecodeError> {{ wire::Avro::get(input) }}
    fn meta(&self) -> &EventMeta {{ &self.meta }}
}}
impl From<{name}> for Event {{ fn from(event: {name}) -> Event {{ Event::{name}(event) }} }}",
            version = c.version,
        );
    }
    let names: Vec<&str> = contracts.iter().map(|c| c.name.as_str()).collect();
    let arms =
        |f: &dyn Fn(&str) -> String| names.iter().map(|n| f(n)).collect::<Vec<_>>().join("\n");
    let _ = writeln!(
        out,
        "/// An event of any contract.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[serde(untagged)]
#[allow(clippy::large_enum_variant)]
pub enum Event {{
{variants}
}}
impl Event {{
    /// Every contract: full name and compiled schema.
    pub const CONTRACTS: &'static [(&'static str, &'static str)] = &[{list}];
    /// Full name of the contract.
    pub fn contract(&self) -> &'static str {{ match self {{ {contract} }} }}
    /// Appends the Avro form.
    pub fn encode(&self, out: &mut Vec<u8>) {{ match self {{ {encode} }} }}
    /// Reads an event of the contract with this full name, written with the compiled schema.
    ///
    /// # Errors
    /// When the bytes are not a whole value of the schema; `None` when there is no such contract.
    pub fn decode(contract: &str, input: &mut &[u8]) -> Option<Result<Event, DecodeError>> {{
        Some(match contract {{ {decode} _ => return None }})
    }}
    /// Reads an event of the contract with this full name from the JSON that it is written as.
    ///
    /// # Errors
    /// When a field is missing, unknown or of another type; `None` when there is no such contract.
    pub fn from_json(contract: &str, json: serde_json::Value) -> Option<Result<Event, serde_json::Error>> {{
        Some(match contract {{ {from_json} _ => return None }})
    }}
    /// What every event begins with.
    pub fn meta(&self) -> &EventMeta {{ match self {{ {meta} }} }}
    /// What every event begins with, to be completed.
    pub fn meta_mut(&mut self) -> &mut EventMeta {{ match self {{ {meta_mut} }} }}
}}",
        variants = arms(&|n| format!("    #[allow(missing_docs)] {n}({n}),")),
        list = arms(&|n| format!("({n}::NAME, {n}::SCHEMA),")),
        contract = arms(&|n| format!("Event::{n}(_) => {n}::NAME,")),
        encode = arms(&|n| format!("Event::{n}(e) => e.encode(out),")),
        decode = arms(&|n| format!("{n}::NAME => {n}::decode(input).map(Event::{n}),")),
        from_json =
            arms(&|n| format!("{n}::NAME => serde_json::from_value(json).map(Event::{n}),")),
        meta = arms(&|n| format!("Event::{n}(e) => &e.meta,")),
        meta_mut = arms(&|n| format!("Event::{n}(e) => &mut e.meta,")),
    );
    out
}

#[derive(Default)]
struct Generator {
    code: String,
    known: BTreeMap<String, Value>,
}

impl Generator {
    /// Writes the type of a schema, if it needs one of its own, and names it.
    fn define(&mut self, schema: &Value) -> String {
        match schema {
            Value::String(name) => match name.as_str() {
                "null" => "()".into(),
                "boolean" => "bool".into(),
                "int" => "i32".into(),
                "long" => "i64".into(),
                "double" => "f64".into(),
                "string" => "Text".into(),
                "bytes" => "Blob".into(),
                named => named.rsplit('.').next().expect("a last part").into(),
            },
            Value::Array(branches) => {
                assert!(
                    branches.len() == 2 && branches[0] == "null",
                    "only [\"null\", T] unions are generated: {schema}"
                );
                format!("Option<{}>", self.define(&branches[1]))
            }
            _ => match (schema["type"].as_str(), schema["logicalType"].as_str()) {
                (Some("record"), _) => self.record(schema),
                (Some("enum"), _) => self.enumeration(schema),
                (Some("array"), _) => format!("Vec<{}>", self.define(&schema["items"])),
                (Some("map"), _) => format!("BTreeMap<Text, {}>", self.define(&schema["values"])),
                (Some("string"), Some("uuid")) => "Uuid".into(),
                (Some("long"), Some("timestamp-micros")) => "Timestamp".into(),
                (Some("int"), Some("date")) => "Date".into(),
                (Some("bytes"), Some("decimal")) => match schema["scale"].as_u64() {
                    Some(4) => "Decimal".into(),
                    Some(8) => "Rate".into(),
                    other => panic!("no Rust type for a decimal of scale {other:?}"),
                },
                (Some(_), None) => self.define(&schema["type"]),
                other => panic!("no Rust type for {other:?}"),
            },
        }
    }

    /// Whether the type is new; a second definition must be the same.
    fn is_new(&mut self, name: &str, schema: &Value) -> bool {
        match self.known.get(name) {
            Some(known) => {
                assert!(flat(known) == flat(schema), "{name} is defined in two ways");
                false
            }
            None => {
                self.known.insert(name.to_owned(), schema.clone());
                true
            }
        }
    }

    fn record(&mut self, schema: &Value) -> String {
        let name = schema["name"]
            .as_str()
            .expect("a record has a name")
            .to_owned();
        if !self.is_new(&name, schema) {
            return name;
        }
        let fields: Vec<(String, String, String, Option<&str>)> = schema["fields"]
            .as_array()
            .expect("a record has fields")
            .iter()
            .map(|f| {
                let field = f["name"].as_str().expect("a field has a name");
                (
                    field.to_owned(),
                    identifier(field),
                    self.define(&f["type"]),
                    f["doc"].as_str(),
                )
            })
            .collect();
        let doc = schema["doc"].as_str().unwrap_or("Part of a contract.");
        let _ = writeln!(
            self.code,
            "#[doc = {doc:?}]
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = \"camelCase\", deny_unknown_fields)]
pub struct {name} {{"
        );
        for (field, rust, kind, doc) in &fields {
            let doc = doc.map_or_else(|| format!("`{field}` of the contract."), str::to_owned);
            let _ = writeln!(self.code, "    #[doc = {doc:?}]\n    pub {rust}: {kind},");
        }
        let puts: String = fields
            .iter()
            .map(|(_, rust, ..)| format!("        self.{rust}.put(out);\n"))
            .collect();
        let gets: String = fields
            .iter()
            .map(|(field, rust, ..)| {
                format!(
                    "            {rust}: wire::Avro::get(input).map_err(|e| e.at({field:?}))?,\n"
                )
            })
            .collect();
        let _ = writeln!(
            self.code,
            "}}
impl wire::Avro for {name} {{
    #[inline]
    fn put(&self, out: &mut Vec<u8>) {{
{puts}    }}
    #[inline]
    fn get(input: &mut &[u8]) -> Result<Self, DecodeError> {{
        Ok({name} {{
{gets}        }})
    }}
}}"
        );
        name
    }

    fn enumeration(&mut self, schema: &Value) -> String {
        let name = schema["name"]
            .as_str()
            .expect("an enum has a name")
            .to_owned();
        if !self.is_new(&name, schema) {
            return name;
        }
        let symbols: Vec<&str> = schema["symbols"]
            .as_array()
            .expect("symbols")
            .iter()
            .map(|s| s.as_str().expect("a symbol"))
            .collect();
        assert!(
            symbols[0] == "UNKNOWN" && schema["default"] == "UNKNOWN",
            "{name}: UNKNOWN must come first and be the default"
        );
        let variants: Vec<String> = symbols.iter().map(|s| pascal(s)).collect();
        let declared: String = symbols
            .iter()
            .zip(&variants)
            .enumerate()
            .map(|(i, (s, v))| {
                let default = if i == 0 { "    #[default]\n" } else { "" };
                format!("    /// `{s}`\n{default}    #[serde(rename = {s:?})]\n    {v},\n")
            })
            .collect();
        let to_symbol: String = symbols
            .iter()
            .zip(&variants)
            .map(|(s, v)| format!("            {name}::{v} => {s:?},\n"))
            .collect();
        let list = variants
            .iter()
            .map(|v| format!("{name}::{v}"))
            .collect::<Vec<_>>()
            .join(", ");
        let _ = writeln!(
            self.code,
            "/// `{name}` of the contracts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub enum {name} {{
{declared}}}
impl {name} {{
    /// Every symbol, in order of the schema.
    pub const ALL: &'static [{name}] = &[{list}];
    /// The symbol as it stands in the schema.
    pub const fn symbol(self) -> &'static str {{
        match self {{
{to_symbol}        }}
    }}
    /// The value of a symbol; `None` when the schema has none of that name.
    pub fn from_symbol(symbol: &str) -> Option<Self> {{
        Self::ALL.iter().copied().find(|s| s.symbol() == symbol)
    }}
}}
impl std::fmt::Display for {name} {{
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {{ f.write_str(self.symbol()) }}
}}
impl wire::Avro for {name} {{
    #[inline]
    fn put(&self, out: &mut Vec<u8>) {{ wire::put_long(out, *self as i64) }}
    #[inline]
    fn get(input: &mut &[u8]) -> Result<Self, DecodeError> {{
        let index = wire::get_long(input)?;
        usize::try_from(index).ok().and_then(|i| Self::ALL.get(i).copied()).ok_or(DecodeError::symbol(index))
    }}
}}"
        );
        name
    }
}

/// A definition with the names of known types in place of their definitions, so that a type may be
/// spelled out in one schema and named in another.
fn flat(schema: &Value) -> Value {
    fn short(schema: &Value, top: bool) -> Value {
        match schema {
            Value::String(s) => Value::String(s.rsplit('.').next().unwrap_or(s).to_owned()),
            Value::Object(o)
                if !top && (o.get("type").is_some_and(|t| t == "record" || t == "enum")) =>
            {
                o["name"].clone()
            }
            Value::Object(o) => o
                .iter()
                .map(|(k, v)| {
                    let by_type = matches!(k.as_str(), "type" | "items" | "values" | "fields");
                    (k.clone(), if by_type { short(v, false) } else { v.clone() })
                })
                .collect(),
            Value::Array(a) => a.iter().map(|v| short(v, false)).collect(),
            other => other.clone(),
        }
    }
    short(schema, true)
}

fn identifier(field: &str) -> String {
    let mut name = String::new();
    for c in field.chars() {
        if c.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(c.to_ascii_lowercase());
    }
    if matches!(name.as_str(), "type" | "ref" | "match") {
        format!("r#{name}")
    } else {
        name
    }
}

fn pascal(symbol: &str) -> String {
    symbol
        .split('_')
        .map(|part| {
            let (first, rest) = part.split_at(1);
            first.to_ascii_uppercase() + &rest.to_ascii_lowercase()
        })
        .collect()
}

/// Constants for the names of the fixed topics: `retail.stock.change.v1` → `STOCK_CHANGE`.
fn topics() -> String {
    let text = fs::read_to_string("topics.yaml").expect("topics.yaml");
    let mut out = String::new();
    for line in text.lines() {
        let Some(name) = line.trim_start().strip_prefix("- name: ") else {
            continue;
        };
        let name = name.trim();
        let stem = name.trim_start_matches("retail.").trim_start_matches("rt.");
        let stem = stem.rsplit_once(".v").map_or(stem, |(stem, _)| stem);
        let constant = stem.replace(['.', '-'], "_").to_ascii_uppercase();
        let _ = writeln!(out, "/// `{name}`\npub const {constant}: &str = {name:?};");
    }
    out
}
