//! Event time: microseconds and days since the Unix epoch, as Avro's `timestamp-micros` and `date`.

use std::fmt;
use std::time::Duration;

/// A point in time in microseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The point `millis` milliseconds after the epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Timestamp(millis.saturating_mul(1_000))
    }
    /// Whole milliseconds since the epoch, rounded down.
    pub const fn as_millis(self) -> i64 {
        self.0.div_euclid(1_000)
    }
    /// This point moved later by `by`; saturates at the end of time.
    pub fn plus(self, by: Duration) -> Self {
        Timestamp(
            self.0
                .saturating_add(i64::try_from(by.as_micros()).unwrap_or(i64::MAX)),
        )
    }
    /// This point moved earlier by `by`; saturates at the beginning of time.
    pub fn minus(self, by: Duration) -> Self {
        Timestamp(
            self.0
                .saturating_sub(i64::try_from(by.as_micros()).unwrap_or(i64::MAX)),
        )
    }
    /// How long after `earlier` this is; zero when it is not after.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(t) => write!(f, "{t}"),
            Err(_) => write!(f, "{}us", self.0),
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
        if let Some(Ok(micros)) = text.strip_suffix("us").map(str::parse) {
            return Ok(Timestamp(micros));
        }
        let time = text.parse::<jiff::Timestamp>();
        time.map(|t| Timestamp(t.as_microsecond()))
            .map_err(serde::de::Error::custom)
    }
}

/// A calendar day, counted from 1970-01-01.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date(pub i32);

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::civil::date(1970, 1, 1)
            .checked_add(jiff::SignedDuration::from_hours(24 * i64::from(self.0)))
        {
            Ok(date) => write!(f, "{date}"),
            Err(_) => write!(f, "day {}", self.0),
        }
    }
}

impl serde::Serialize for Date {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Date {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
        if let Some(Ok(days)) = text.strip_prefix("day ").map(str::parse) {
            return Ok(Date(days));
        }
        let date: jiff::civil::Date = text.parse().map_err(serde::de::Error::custom)?;
        let epoch = jiff::civil::date(1970, 1, 1);
        let days = date.duration_since(epoch).as_hours() / 24;
        i32::try_from(days)
            .map(Date)
            .map_err(serde::de::Error::custom)
    }
}
