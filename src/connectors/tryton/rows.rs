//! Values of Tryton's JSON: times, decimals, quantities, related rows.

use super::client::Row;
use crate::domain::{Date, Decimal, Timestamp};
use jiff::civil;
use serde_json::{Value, json};

/// A time as Tryton writes it. Its server keeps all times in UTC.
pub(super) fn stamp(value: &Value) -> Option<Timestamp> {
    let part = |name: &str| value[name].as_i64();
    let small = |name: &str| part(name).and_then(|v| i8::try_from(v).ok());
    let microsecond = i32::try_from(part("microsecond")?).ok()?;
    let time = civil::DateTime::new(
        i16::try_from(part("year")?).ok()?,
        small("month")?,
        small("day")?,
        small("hour")?,
        small("minute")?,
        small("second")?,
        microsecond.checked_mul(1_000)?,
    )
    .ok()?;
    let time = jiff::tz::TimeZone::UTC.to_timestamp(time).ok()?;
    Some(Timestamp(time.as_microsecond()))
}

/// A time for Tryton.
pub(super) fn stamp_value(stamp: Timestamp) -> Value {
    let time = jiff::Timestamp::from_microsecond(stamp.0).unwrap_or_default();
    let time = jiff::tz::TimeZone::UTC.to_datetime(time);
    json!({
        "__class__": "datetime", "year": time.year(), "month": time.month(), "day": time.day(),
        "hour": time.hour(), "minute": time.minute(), "second": time.second(),
        "microsecond": time.subsec_nanosecond() / 1_000,
    })
}

/// The day of a time for Tryton.
pub(super) fn day_value(stamp: Timestamp) -> Value {
    let time = jiff::Timestamp::from_microsecond(stamp.0).unwrap_or_default();
    let day = jiff::tz::TimeZone::UTC.to_datetime(time);
    json!({"__class__": "date", "year": day.year(), "month": day.month(), "day": day.day()})
}

/// A day as Tryton writes it.
pub(super) fn date(value: &Value) -> Option<Date> {
    let small = |name: &str| value[name].as_i64().and_then(|v| i8::try_from(v).ok());
    let year = i16::try_from(value["year"].as_i64()?).ok()?;
    let day = civil::Date::new(year, small("month")?, small("day")?).ok()?;
    let since = day - civil::date(1970, 1, 1);
    Some(Date(since.get_days()))
}

/// A quantity: Tryton keeps them as floating point, rounded to the digits of their unit. `None` when
/// it is no number or has more than four places.
pub(super) fn quantity(value: &Value) -> Option<Decimal> {
    let number = value.as_f64().filter(|n| n.is_finite())?;
    let units = (number * 10_000.0).round();
    // Sixteen digits are what a double holds; what is beyond them is noise.
    let noise = (number * 10_000.0 - units).abs() <= units.abs().max(1.0) * 1e-9;
    let inside = units.abs() <= Decimal::LIMIT as f64;
    (noise && inside).then(|| Decimal::from_units(units as i64))
}

/// An amount: Tryton writes them as text. `None` when it has more than four places.
pub(super) fn amount(value: &Value) -> Option<Decimal> {
    value["decimal"].as_str()?.parse().ok()
}

/// An amount for Tryton.
pub(super) fn amount_value(amount: Decimal) -> Value {
    json!({"__class__": "Decimal", "decimal": amount.to_string()})
}

/// Id of a row.
pub(super) fn id(row: &Row) -> i64 {
    integer(row, "id").unwrap_or_default()
}

/// When a row was last written.
pub(super) fn modified_at(row: &Row) -> Option<Timestamp> {
    row.get("last_modified_at").and_then(stamp)
}

pub(super) fn integer(row: &Row, field: &str) -> Option<i64> {
    row.get(field)?.as_i64()
}

/// A text that is not empty.
pub(super) fn text<'a>(row: &'a Row, field: &str) -> Option<&'a str> {
    row.get(field)?.as_str().filter(|t| !t.is_empty())
}

/// Ids of related rows.
pub(super) fn integers(row: &Row, field: &str) -> Vec<i64> {
    let list = row.get(field).and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .filter_map(Value::as_i64)
        .collect()
}

/// A related row's fields.
pub(super) fn related<'a>(row: &'a Row, field: &str) -> Option<&'a Row> {
    row.get(&format!("{field}."))?.as_object()
}

/// What a reference such as `stock.move,7` names.
pub(super) fn reference(text: &str) -> Option<(&str, i64)> {
    let (model, id) = text.split_once(',')?;
    Some((model, id.parse().ok().filter(|id| *id > 0)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_the_same_after_a_round_trip() {
        for micros in [0, 1_795_000_000_123_456, -1] {
            let value = stamp_value(Timestamp(micros));
            assert_eq!(stamp(&value), Some(Timestamp(micros)), "{value}");
        }
        let odd = json!({"__class__": "datetime", "year": 2026, "month": 13, "day": 1, "hour": 0, "minute": 0, "second": 0, "microsecond": 0});
        assert_eq!(stamp(&odd), None);
        let day = json!({"__class__": "date", "year": 1970, "month": 2, "day": 1});
        assert_eq!(date(&day), Some(Date(31)));
    }

    #[test]
    fn quantities_lose_the_noise_of_doubles_and_nothing_else() {
        let read = |n: f64| quantity(&json!(n)).map(|q| q.to_string());
        assert_eq!(read(0.1 + 0.2).as_deref(), Some("0.3"));
        assert_eq!(read(50.0).as_deref(), Some("50"));
        assert_eq!(read(0.00001), None);
        assert_eq!(read(1e30), None);
        assert_eq!(quantity(&json!("5")), None);
    }
}
