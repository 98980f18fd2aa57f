//! Timestamps and clocks. A fold does not read a clock (law 3); it takes the time of the record.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Returns the age at `now` in milliseconds; 0 if the timestamp is later than `now`.
    pub fn age_ms(self, now: Timestamp) -> u64 {
        u64::try_from(now.0.saturating_sub(self.0)).unwrap_or(0)
    }

    /// Formats as RFC 3339 with milliseconds: `2026-03-01T09:30:00.000Z`. Times beyond the year 9999 are formatted as the
    /// number of milliseconds.
    pub fn to_rfc3339(self) -> String {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(time) => format!("{time:.3}"),
            Err(_) => self.0.to_string(),
        }
    }
}

/// Parses an RFC 3339 time, such as `2026-03-01T09:30:00Z` or `2026-03-01T10:30:00.250+01:00`.
pub fn parse_rfc3339(text: &str) -> Option<Timestamp> {
    text.parse::<jiff::Timestamp>().ok().map(|time| Timestamp(time.as_millisecond()))
}

/// A source of the current time. Tests replace it.
pub trait Clock: Send + Sync {
    fn now(&self) -> Timestamp;
}

/// The clock of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc3339_reads_and_writes_known_times() {
        assert_eq!(Timestamp(0).to_rfc3339(), "1970-01-01T00:00:00.000Z");
        assert_eq!(parse_rfc3339("2000-02-29T12:00:00Z"), Some(Timestamp(951_825_600_000)));
        assert_eq!(parse_rfc3339("2000-02-29T13:00:00.5+01:00"), Some(Timestamp(951_825_600_500)));
        for bad in ["", "2000-13-01T00:00:00Z", "2000-02-29", "2000-02-29T12:00:00"] {
            assert_eq!(parse_rfc3339(bad), None, "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn rfc3339_round_trips(ms in 0i64..4_102_444_800_000) {
            proptest::prop_assert_eq!(parse_rfc3339(&Timestamp(ms).to_rfc3339()), Some(Timestamp(ms)));
        }
    }
}
