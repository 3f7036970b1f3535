//! From a line's fields to a stock movement.

use super::{FieldName, FieldSource, Format, Movement, Settings};
use crate::contract::event::{
    EventMeta, Origin, PositionKind, StockChanged, StockReason, StockState, Text,
};
use crate::domain::{Decimal, Timestamp, event_id};
use crate::pipeline::{Code, Fault, Stage};
use std::collections::HashMap;

/// A checked mapping.
pub struct Mapping {
    instance: String,
    settings: Settings,
    time_zone: jiff::tz::TimeZone,
}

/// The fields of one line by column.
pub struct Row {
    values: HashMap<String, String>,
}

impl Mapping {
    /// # Errors
    /// When a needed field has no source, or the time zone is unknown.
    pub fn new(instance: &str, settings: &Settings) -> Result<Self, Fault> {
        let wrong = |message: String| {
            Fault::halt(
                Stage::Read,
                Code::Configuration,
                format!("settings of {instance}: {message}"),
            )
        };
        for needed in [
            FieldName::Sku,
            FieldName::Location,
            FieldName::Quantity,
            FieldName::Time,
        ] {
            match settings.fields.get(&needed) {
                None => {
                    return Err(wrong(format!(
                        "fields lacks {needed:?}; name the column it comes from"
                    )));
                }
                Some(s) if s.column.is_none() == s.constant.is_none() => {
                    return Err(wrong(format!(
                        "field {needed:?} needs either column or constant"
                    )));
                }
                Some(_) => {}
            }
        }
        let time_zone = jiff::tz::TimeZone::get(&settings.time_zone).map_err(|e| {
            wrong(format!("time_zone {:?} is not known", settings.time_zone)).caused_by(e)
        })?;
        Ok(Mapping {
            instance: instance.to_owned(),
            settings: settings.clone(),
            time_zone,
        })
    }

    /// Splits a line into fields.
    ///
    /// # Errors
    /// A reject that says what is wrong with the line.
    pub fn row(&self, line: &[u8], columns: &[String]) -> Result<Row, Fault> {
        let text = std::str::from_utf8(line)
            .map_err(|e| bad(format!("byte {} is not UTF-8", e.valid_up_to() + 1)))?;
        let values = match self.settings.format {
            Format::JsonLines => {
                let parsed: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text)
                    .map_err(|e| bad(format!("not a JSON object: {e}")))?;
                let plain = |v: serde_json::Value| match v {
                    serde_json::Value::String(s) => s,
                    other => other.to_string(),
                };
                parsed.into_iter().map(|(k, v)| (k, plain(v))).collect()
            }
            Format::Csv => {
                let fields = split(text, self.settings.delimiter)?;
                if fields.len() != columns.len() {
                    return Err(bad(format!(
                        "{} fields where the first line names {} columns",
                        fields.len(),
                        columns.len()
                    )));
                }
                columns.iter().cloned().zip(fields).collect()
            }
        };
        Ok(Row { values })
    }

    /// Whether the configuration leaves the line out.
    pub fn skips(&self, row: &Row) -> bool {
        self.settings.skip.iter().any(|s| {
            let value = row.values.get(&s.column).map_or("", String::as_str);
            s.equals.iter().any(|e| e == value)
                || (s.without_digit && !value.contains(|c: char| c.is_ascii_digit()))
        })
    }

    /// The movement that a line tells of.
    ///
    /// # Errors
    /// A reject that names field and value.
    pub fn movement(
        &self,
        row: &Row,
        file: &str,
        line: u64,
        sequence: i64,
    ) -> Result<StockChanged, Fault> {
        let sku = self.needed(row, FieldName::Sku)?;
        let location = self.needed(row, FieldName::Location)?;
        let text = self.needed(row, FieldName::Quantity)?;
        let quantity: Decimal = text
            .parse()
            .map_err(|e| bad(format!("quantity {text:?}: {e}")))?;
        if quantity.is_zero() {
            return Err(bad("quantity is 0: nothing moved".to_owned()));
        }
        let occurred_at = self.time(&self.needed(row, FieldName::Time)?)?;
        let record_id = if self.settings.identity.is_empty() {
            format!("{file}:{line}")
        } else {
            let part = |c: &String| {
                row.values
                    .get(c)
                    .cloned()
                    .ok_or_else(|| bad(format!("there is no column {c}, which identity names")))
            };
            self.settings
                .identity
                .iter()
                .map(part)
                .collect::<Result<Vec<_>, _>>()?
                .join("|")
        };
        let kind = if quantity.is_negative() {
            self.settings.negative
        } else {
            self.settings.positive
        };
        let (from_state, to_state, reason) = match kind {
            Movement::Sale => (
                StockState::Sellable,
                StockState::Customer,
                StockReason::Sale,
            ),
            Movement::Return => (
                StockState::Customer,
                StockState::Sellable,
                StockReason::Return,
            ),
            Movement::Receipt => (
                StockState::Supplier,
                StockState::Sellable,
                StockReason::Receipt,
            ),
            Movement::Shrink => (StockState::Sellable, StockState::Loss, StockReason::Shrink),
        };
        let optional = |name| {
            self.value(row, name)
                .filter(|v| !v.is_empty())
                .map(Text::from)
        };
        let order_id = optional(FieldName::Order);
        Ok(StockChanged {
            meta: EventMeta {
                event_id: event_id(&self.instance, 0, &record_id, "", "StockChanged"),
                event_type: "StockChanged".into(),
                source: self.instance.as_str().into(),
                source_position: sequence,
                position_kind: PositionKind::Sequence,
                occurred_at,
                tenant_id: "default".into(),
                correlation_id: order_id
                    .clone()
                    .unwrap_or_else(|| record_id.as_str().into()),
                origin: Origin::Source,
                ..EventMeta::default()
            },
            movement_id: optional(FieldName::Movement).unwrap_or_else(|| record_id.as_str().into()),
            sku: sku.into(),
            location_id: location.into(),
            from_state,
            to_state,
            qty: if quantity.is_negative() {
                -quantity
            } else {
                quantity
            },
            uom: "EA".into(),
            reason,
            document_ref: optional(FieldName::Document).or_else(|| order_id.clone()),
            order_id,
            ..StockChanged::default()
        })
    }

    fn needed(&self, row: &Row, name: FieldName) -> Result<String, Fault> {
        match self.value(row, name) {
            Some(value) if !value.is_empty() => Ok(value),
            _ => Err(bad(format!("{name:?} is empty or its column is missing"))),
        }
    }

    fn value(&self, row: &Row, name: FieldName) -> Option<String> {
        let FieldSource {
            column,
            constant,
            map,
            otherwise,
        } = self.settings.fields.get(&name)?;
        if let Some(constant) = constant {
            return Some(constant.clone());
        }
        let value = row.values.get(column.as_ref()?)?.trim();
        if let Some(mapped) = map.get(value) {
            return Some(mapped.clone());
        }
        Some(otherwise.clone().unwrap_or_else(|| value.to_owned()))
    }

    fn time(&self, text: &str) -> Result<Timestamp, Fault> {
        let unreadable = || {
            bad(format!(
                "time {text:?} is not of the form {:?}",
                self.settings.time_format.as_deref().unwrap_or("RFC 3339")
            ))
        };
        let instant = match &self.settings.time_format {
            None => text
                .parse::<jiff::Timestamp>()
                .map_err(|e| unreadable().caused_by(e))?,
            Some(format) => {
                let civil = jiff::civil::DateTime::strptime(format, text)
                    .map_err(|e| unreadable().caused_by(e))?;
                self.time_zone
                    .to_timestamp(civil)
                    .map_err(|e| unreadable().caused_by(e))?
            }
        };
        Ok(Timestamp(instant.as_microsecond()))
    }
}

/// The fields of one CSV line.
///
/// # Errors
/// A reject when the line is not one record.
pub fn split(text: &str, delimiter: char) -> Result<Vec<String>, Fault> {
    let delimiter = u8::try_from(delimiter)
        .map_err(|_| bad(format!("the delimiter {delimiter:?} is not one byte")))?;
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .delimiter(delimiter)
        .buffer_capacity(text.len().max(16))
        .from_reader(text.as_bytes());
    let mut record = csv::StringRecord::new();
    match reader.read_record(&mut record) {
        Ok(true) => Ok(record.iter().map(str::to_owned).collect()),
        Ok(false) => Err(bad("the line is empty".to_owned())),
        Err(e) => Err(bad("not a CSV record".to_owned()).caused_by(e)),
    }
}

fn bad(message: String) -> Fault {
    Fault::reject(Stage::Read, Code::DataQuality, message)
}
