//! How a configuration says where values come from: shared by the connectors whose mapping is declared.
//!
//! A value is found by [`FieldSource`], replaced by another where the configuration says so, and read
//! as the number or time that it stands for by [`Forms`]. Pure.

use crate::domain::{Decimal, Timestamp};
use crate::pipeline::{Code, Fault, Stage};
use jiff::fmt::strtime::BrokenDownTime;
use regex_lite::Regex;
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Where a value comes from.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FieldSource {
    /// Column, or key of the JSON object.
    pub column: Option<String>,
    /// The same value for every line.
    pub constant: Option<String>,
    /// Something of the file itself.
    pub file: Option<FileProperty>,
    /// Which part of the value counts: what the first group of this regular expression matches, or all
    /// that it matches, as in `po_[0-9A-Za-z]+`. A value that it does not match is empty.
    pub pattern: Option<Pattern>,
    /// Values to be replaced by others.
    #[serde(default)]
    pub map: BTreeMap<String, String>,
    /// Value for what `map` does not name.
    pub otherwise: Option<String>,
}

/// Something of a file.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum FileProperty {
    /// Its name without folder.
    Name,
    /// When it was last changed; of `time` only, and whatever `time_format` says.
    Modified,
}

impl FieldSource {
    /// How many of `column`, `constant` and `file` are given; it must be one.
    pub fn given(&self) -> usize {
        let given = [
            self.column.is_some(),
            self.constant.is_some(),
            self.file.is_some(),
        ];
        given.into_iter().filter(|g| *g).count()
    }

    /// What stands for a value that was found; `None` for an empty one.
    pub fn replaced(&self, value: String) -> Option<String> {
        let value = match &self.pattern {
            Some(pattern) => pattern.part(&value).unwrap_or_default().to_owned(),
            None => value,
        };
        let value = match (self.map.get(&value), &self.otherwise) {
            (Some(mapped), _) => mapped.clone(),
            (None, Some(otherwise)) => otherwise.clone(),
            (None, None) => value,
        };
        Some(value).filter(|v| !v.is_empty())
    }
}

/// A regular expression, as the crate `regex-lite` has them.
#[derive(Clone, Debug)]
pub struct Pattern(Regex);

impl Pattern {
    /// Whether it matches some part of a text.
    pub fn fits(&self, text: &str) -> bool {
        self.0.is_match(text)
    }

    /// The part of a text that its first group matches, or that all of it does.
    pub fn part<'t>(&self, text: &'t str) -> Option<&'t str> {
        let found = self.0.captures(text)?;
        let part = found.get(1).or_else(|| found.get(0));
        part.map(|m| m.as_str().trim())
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let regex = Regex::new(&text).map_err(|e| {
            serde::de::Error::custom(format!("{text:?} is no regular expression: {e}"))
        })?;
        Ok(Pattern(regex))
    }
}

impl JsonSchema for Pattern {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Pattern".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string"})
    }
}

/// How numbers and times are written.
#[derive(Clone, Debug)]
pub struct Forms {
    /// What stands before the decimal places: `.` or `,`.
    pub decimal_mark: char,
    /// What stands between the thousands, if anything.
    pub group_mark: Option<char>,
    /// As in `strptime`; without it, RFC 3339.
    pub time_format: Option<String>,
    /// Time zone of times that name none.
    pub time_zone: jiff::tz::TimeZone,
}

impl Forms {
    /// A number; `name` names it in the fault.
    ///
    /// # Errors
    /// A rejection that names the value.
    pub fn decimal(&self, name: &str, text: &str) -> Result<Decimal, Fault> {
        let mut plain: String = text
            .chars()
            .filter(|c| Some(*c) != self.group_mark)
            .map(|c| if c == self.decimal_mark { '.' } else { c })
            .collect();
        // Some systems write the sign behind the number.
        if let Some(number) = plain.strip_suffix('-') {
            plain = format!("-{number}");
        }
        let foreign =
            self.decimal_mark != '.' && text.contains('.') && self.group_mark != Some('.');
        match plain.parse() {
            Ok(number) if !foreign => Ok(number),
            Ok(_) => Err(bad(format!(
                "{name} {text:?} has a point, but decimal_mark is {:?}",
                self.decimal_mark
            ))),
            Err(e) => Err(bad(format!("{name} {text:?}: {e}"))),
        }
    }

    /// A time; `name` names it in the fault.
    ///
    /// # Errors
    /// A rejection that names the value and the form.
    pub fn time(&self, name: &str, text: &str) -> Result<Timestamp, Fault> {
        let unreadable = |e: jiff::Error| {
            let form = self.time_format.as_deref().unwrap_or("RFC 3339");
            bad(format!("{name} {text:?} is not of the form {form:?}")).caused_by(e)
        };
        let instant = match &self.time_format {
            None => text.parse::<jiff::Timestamp>().map_err(unreadable)?,
            Some(format) => {
                let parts = BrokenDownTime::parse(format, text).map_err(unreadable)?;
                if parts.offset().is_some() || parts.timestamp().is_some() {
                    parts.to_timestamp().map_err(unreadable)?
                } else {
                    let civil = parts.to_datetime().map_err(unreadable)?;
                    self.time_zone.to_timestamp(civil).map_err(unreadable)?
                }
            }
        };
        Ok(Timestamp(instant.as_microsecond()))
    }
}

/// A time zone by its name.
///
/// # Errors
/// What to write instead.
pub fn time_zone(name: &str) -> Result<jiff::tz::TimeZone, String> {
    jiff::tz::TimeZone::get(name)
        .map_err(|_| format!("time_zone {name:?} is not known; use a name such as Europe/London"))
}

/// A value of JSON as text: empty for null, without quotes and outer blanks.
pub fn plain(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Null => String::new(),
        serde_json::Value::String(text) => text.trim().to_owned(),
        other => other.to_string(),
    }
}

/// What was read can never become a fact.
pub fn bad(message: String) -> Fault {
    Fault::reject(Stage::Read, Code::DataQuality, message)
}
