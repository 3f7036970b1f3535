//! Files: a retailer's nightly export, a till's journal, a data set. CSV or JSON lines, plain or
//! gzip; the mapping from columns to events stands in the configuration.
//!
//! Lines are read in order and become facts whose position is a durable sequence; the bookmark is
//! file, byte offset and line, so a restart goes on behind the last durable line. A line that cannot
//! be mapped is dead-lettered with its number and the reason, and the next one is read.

mod lines;
mod map;
mod source;

use crate::contract::topic;
use crate::pipeline::{
    Check, Code, Connector, ConnectorDescriptor, Evidence, Fault, Sink, Source, Stage,
};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// What the connector is.
pub const DESCRIPTOR: ConnectorDescriptor = ConnectorDescriptor {
    kind: "file",
    purpose: "reads stock movements from CSV or JSON-lines files",
    emits: &[topic::STOCK_CHANGE],
    accepts: &[],
    sink: None,
    evidence: Evidence::RealSystem,
    settings: || schemars::schema_for!(Settings),
    build: |instance, settings| {
        let settings: Settings = serde_json::from_value(settings).map_err(|e| {
            Fault::halt(
                Stage::Read,
                Code::Configuration,
                format!("settings of {instance}: {e}"),
            )
        })?;
        Ok(Arc::new(Files {
            instance: instance.to_owned(),
            settings,
        }))
    },
    fake: None,
};

/// Settings of a file connector.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// A file, or a folder whose files are read in the order of their names as they appear. Names
    /// that end in `.gz` are gzip.
    pub path: PathBuf,
    /// Form of the lines.
    pub format: Format,
    /// What stands between two fields of a CSV line.
    #[serde(default = "comma")]
    pub delimiter: char,
    /// Where the fields of a movement come from: `sku`, `location`, `quantity` and `time` are
    /// needed; `order`, `movement` and `document` may be given.
    pub fields: BTreeMap<FieldName, FieldSource>,
    /// How times are written, as in `strptime`: `%Y-%m-%d %H:%M:%S`. Without it, RFC 3339.
    pub time_format: Option<String>,
    /// Time zone of times that name none, as in `Europe/London`.
    #[serde(default = "utc")]
    pub time_zone: String,
    /// What a quantity above zero is.
    #[serde(default)]
    pub positive: Movement,
    /// What a quantity below zero is.
    #[serde(default = "returned")]
    pub negative: Movement,
    /// Lines to leave out, such as fees: those that match any of these.
    #[serde(default)]
    pub skip: Vec<Skip>,
    /// What makes a line the same fact when it is read again: columns whose values name it.
    /// Without it, the file's name and the line's number.
    #[serde(default)]
    pub identity: Vec<String>,
    /// Longest line, in bytes; a longer one is dead-lettered.
    #[serde(default = "line_bytes_max")]
    pub line_bytes_max: usize,
    /// Most lines in one transaction.
    #[serde(default = "batch_lines_max")]
    pub batch_lines_max: usize,
}

/// Form of the lines.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Comma-separated values with a line of column names.
    Csv,
    /// One JSON object on each line.
    JsonLines,
}

/// A field of a movement.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum FieldName {
    Sku,
    Location,
    Quantity,
    Time,
    Order,
    Movement,
    Document,
}

/// Where a field's value comes from.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FieldSource {
    /// Column, or key of the JSON object.
    pub column: Option<String>,
    /// The same value for every line.
    pub constant: Option<String>,
    /// Values to be replaced by others.
    #[serde(default)]
    pub map: BTreeMap<String, String>,
    /// Value for what `map` does not name.
    pub otherwise: Option<String>,
}

/// What a line means for the stock.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Movement {
    /// Goods go to a customer.
    #[default]
    Sale,
    /// Goods come back from a customer.
    Return,
    /// Goods come from a supplier.
    Receipt,
    /// Goods are lost.
    Shrink,
}

/// Lines to leave out.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Skip {
    /// Column that is looked at.
    pub column: String,
    /// Values that leave the line out.
    #[serde(default)]
    pub equals: Vec<String>,
    /// Leaves out lines whose value holds no digit: codes that are no article numbers.
    #[serde(default)]
    pub without_digit: bool,
}

fn comma() -> char {
    ','
}
fn utc() -> String {
    "UTC".to_owned()
}
fn returned() -> Movement {
    Movement::Return
}
fn line_bytes_max() -> usize {
    1 << 20
}
fn batch_lines_max() -> usize {
    1_000
}

struct Files {
    instance: String,
    settings: Settings,
}

#[async_trait::async_trait]
impl Connector for Files {
    fn source(&self) -> Option<Box<dyn Source>> {
        Some(Box::new(source::FileSource::new(
            &self.instance,
            self.settings.clone(),
        )))
    }
    fn sink(&self) -> Option<Arc<dyn Sink>> {
        None
    }
    async fn check(&self) -> Vec<Check> {
        let found = source::files(&self.settings.path);
        let readable = found.and_then(|files| match files.first() {
            None => Ok("no file yet".to_owned()),
            Some(first) => std::fs::File::open(first).map(|_| format!("{} files", files.len())),
        });
        let mapping = map::Mapping::new(&self.instance, &self.settings);
        vec![
            Check {
                what: format!("read {}", self.settings.path.display()),
                result: readable.map_err(|e| e.to_string()),
            },
            Check {
                what: "mapping".into(),
                result: mapping
                    .map(|_| "complete".to_owned())
                    .map_err(|f| f.message),
            },
        ]
    }
}
