//! Time. Folds never read a clock (law 3): they take the record's time.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The age at `now`, in milliseconds; never negative.
    pub fn age_ms(self, now: Timestamp) -> u64 {
        u64::try_from(now.0.saturating_sub(self.0)).unwrap_or(0)
    }

    /// RFC 3339 with milliseconds, e.g. `2026-03-01T09:30:00.000Z`.
    pub fn to_rfc3339(self) -> String {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(time) => format!("{time:.3}"),
            // Beyond the years that RFC 3339 can write.
            Err(_) => self.0.to_string(),
        }
    }
}

/// Reads an RFC 3339 time such as `2026-03-01T09:30:00Z` or `2026-03-01T10:30:00.250+01:00`.
pub fn parse_rfc3339(text: &str) -> Option<Timestamp> {
    text.parse::<jiff::Timestamp>().ok().map(|time| Timestamp(time.as_millisecond()))
}

/// A source of time that tests can stand in for.
pub trait Clock: Send + Sync {
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
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
