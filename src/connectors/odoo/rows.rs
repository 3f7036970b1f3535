//! Values of Odoo's JSON: times, quantities, related rows. What is empty is `false`.

use crate::connectors::erp::Row;
use crate::domain::{Date, Decimal, Timestamp};
use jiff::civil;
use serde_json::Value;

/// A time as Odoo writes it: UTC, in whole seconds.
pub(super) fn stamp(value: &Value) -> Option<Timestamp> {
    let time = civil::DateTime::strptime("%Y-%m-%d %H:%M:%S", value.as_str()?).ok()?;
    let time = jiff::tz::TimeZone::UTC.to_timestamp(time).ok()?;
    Some(Timestamp(time.as_microsecond()))
}

/// A time for Odoo.
pub(super) fn stamp_text(stamp: i64) -> String {
    let time = jiff::Timestamp::from_microsecond(stamp).unwrap_or_default();
    time.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// A day as Odoo writes it.
pub(super) fn day(value: &Value) -> Option<Date> {
    let day = civil::Date::strptime("%Y-%m-%d", value.as_str()?).ok()?;
    let epoch = civil::Date::constant(1970, 1, 1);
    Some(Date(day.since(epoch).ok()?.get_days()))
}

/// The day of a time, in UTC, for Odoo.
pub(super) fn day_text(at: Timestamp) -> String {
    let time = jiff::Timestamp::from_microsecond(at.0).unwrap_or_default();
    time.strftime("%Y-%m-%d").to_string()
}

/// A number that Odoo keeps as floating point. `None` when it is none, or has more than four places.
pub(super) fn number(value: &Value) -> Option<Decimal> {
    let number = value.as_f64().filter(|n| n.is_finite())?;
    let units = (number * 10_000.0).round();
    // Sixteen digits are what a double holds; what is beyond them is noise.
    let noise = (number * 10_000.0 - units).abs() <= units.abs().max(1.0) * 1e-9;
    let inside = units.abs() <= Decimal::LIMIT as f64;
    (noise && inside).then(|| Decimal::from_units(units as i64))
}

/// A number of a row.
pub(super) fn decimal(row: &Row, field: &str) -> Option<Decimal> {
    row.get(field).and_then(number)
}

/// Id of a row.
pub(super) fn id(row: &Row) -> i64 {
    row.get("id").and_then(Value::as_i64).unwrap_or_default()
}

/// When a row was last written.
pub(super) fn written_at(row: &Row) -> Option<Timestamp> {
    row.get("write_date").and_then(stamp)
}

/// A text that is not empty.
pub(super) fn text<'a>(row: &'a Row, field: &str) -> Option<&'a str> {
    row.get(field)?.as_str().filter(|t| !t.is_empty())
}

pub(super) fn flag(row: &Row, field: &str) -> bool {
    row.get(field) == Some(&Value::Bool(true))
}

/// Id of a related row.
pub(super) fn link(row: &Row, field: &str) -> Option<i64> {
    row.get(field)?.get(0)?.as_i64()
}

/// What Odoo calls a related row.
pub(super) fn link_name<'a>(row: &'a Row, field: &str) -> Option<&'a str> {
    row.get(field)?.get(1)?.as_str()
}

/// Ids of related rows.
pub(super) fn links(row: &Row, field: &str) -> Vec<i64> {
    let list = row.get(field).and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .filter_map(Value::as_i64)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn times_are_the_same_after_a_round_trip() {
        for seconds in [0, 1_795_000_000, -1] {
            let text = stamp_text(seconds * 1_000_000);
            assert_eq!(stamp(&json!(text)), Some(Timestamp(seconds * 1_000_000)));
        }
        assert_eq!(stamp(&json!(false)), None);
        assert_eq!(stamp(&json!("2026-13-01 00:00:00")), None);
    }

    #[test]
    fn days_are_the_same_after_a_round_trip() {
        let at = Timestamp(1_795_000_000_000_000);
        let day = day(&json!(day_text(at))).expect("a day");
        assert_eq!(i64::from(day.0), at.0 / 86_400_000_000);
        assert_eq!(super::day(&json!("2026-02-30")), None);
    }

    #[test]
    fn numbers_lose_the_noise_of_doubles_and_nothing_else() {
        let read = |n: f64| number(&json!(n)).map(|q| q.to_string());
        assert_eq!(read(0.1 + 0.2).as_deref(), Some("0.3"));
        assert_eq!(read(0.00001), None);
        assert_eq!(read(1e30), None);
        assert_eq!(number(&json!("5")), None);
    }
}
