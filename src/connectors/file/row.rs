//! The values of one line, by column.

use super::settings::{Format, Settings};
use crate::connectors::mapping::{bad, plain};
use crate::pipeline::Fault;
use encoding_rs::Encoding;
use std::collections::HashMap;

/// The values of one line by column; empty where the line says nothing.
pub struct Row {
    values: HashMap<String, String>,
    object: serde_json::Value,
}

impl Row {
    /// The value of a column; of JSON lines, one that begins with `/` is a path into the object.
    pub fn value(&self, column: &str) -> Option<String> {
        match self.values.get(column) {
            Some(value) => Some(value.trim().to_owned()),
            None if column.starts_with('/') => self.object.pointer(column).map(plain),
            None => self.object.get(column).map(plain),
        }
    }
}

/// Splits lines into rows.
pub struct Splitter {
    format: Format,
    delimiter: u8,
    encoding: &'static Encoding,
}

impl Splitter {
    /// # Errors
    /// All that is wrong with the settings.
    pub fn new(settings: &Settings) -> Result<Self, Vec<String>> {
        let mut wrong = Vec::new();
        let delimiter = u8::try_from(settings.delimiter).unwrap_or_else(|_| {
            let delimiter = settings.delimiter;
            wrong.push(format!(
                "delimiter {delimiter:?} is not one byte; use one such as ';' or a tab"
            ));
            b','
        });
        let label = &settings.encoding;
        let known = Encoding::for_label(label.as_bytes()).filter(|e| e.is_ascii_compatible());
        if known.is_none() {
            wrong.push(format!(
                "encoding {label:?} is not known, or has no single byte for a line break; use one such as utf-8 or windows-1252"
            ));
        }
        match known {
            Some(encoding) if wrong.is_empty() => Ok(Splitter {
                format: settings.format,
                delimiter,
                encoding,
            }),
            _ => Err(wrong),
        }
    }

    /// Byte between two fields; `None` where lines are no CSV.
    pub fn delimiter(&self) -> Option<u8> {
        (self.format == Format::Csv).then_some(self.delimiter)
    }

    /// The values of a line.
    ///
    /// # Errors
    /// A reject that says what is wrong with the line.
    pub fn row(&self, line: &[u8], columns: &[String]) -> Result<Row, Fault> {
        let text = self.text(line)?;
        if self.format == Format::JsonLines {
            let object: serde_json::Map<_, _> =
                serde_json::from_str(&text).map_err(|e| bad(format!("not a JSON object: {e}")))?;
            return Ok(Row {
                values: HashMap::new(),
                object: object.into(),
            });
        }
        let fields = self.split(&text)?;
        if fields.len() != columns.len() {
            return Err(bad(format!(
                "{} fields where there are {} columns",
                fields.len(),
                columns.len()
            )));
        }
        Ok(Row {
            values: columns.iter().cloned().zip(fields).collect(),
            object: serde_json::Value::Null,
        })
    }

    /// The names in a line of columns.
    ///
    /// # Errors
    /// A reject that says what is wrong with the line.
    pub fn columns(&self, line: &[u8]) -> Result<Vec<String>, Fault> {
        let fields = self.split(&self.text(line)?)?;
        Ok(fields.iter().map(|f| f.trim().to_owned()).collect())
    }

    fn text<'a>(&self, line: &'a [u8]) -> Result<std::borrow::Cow<'a, str>, Fault> {
        self.encoding
            .decode_without_bom_handling_and_without_replacement(line)
            .ok_or_else(|| match std::str::from_utf8(line) {
                Err(e) if self.encoding == encoding_rs::UTF_8 => bad(format!(
                    "byte {} is not UTF-8; if the file is of another encoding, set `encoding`",
                    e.valid_up_to() + 1
                )),
                _ => bad(format!("the line is not {}", self.encoding.name())),
            })
    }

    fn split(&self, text: &str) -> Result<Vec<String>, Fault> {
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .delimiter(self.delimiter)
            .buffer_capacity(text.len().max(16))
            .from_reader(text.as_bytes());
        let mut record = csv::StringRecord::new();
        match reader.read_record(&mut record) {
            Ok(true) => Ok(record.iter().map(str::to_owned).collect()),
            Ok(false) => Err(bad("the line is empty".to_owned())),
            Err(e) => Err(bad("not a CSV record".to_owned()).caused_by(e)),
        }
    }
}
