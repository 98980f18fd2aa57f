use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponseParts, ResponseParts};
use carbon_core::{Positions, TopicSpec};
use tokio::time::Instant;

use crate::problem::Problem;

const MIN_POSITION: &str = "x-min-position";
const TIMEOUT: &str = "x-timeout-ms";
const DEFAULT: Duration = Duration::from_millis(2000);
const MAX_MS: u64 = 60_000;

/// Read-your-writes: `X-Min-Position`, and how long the caller waits: `X-Timeout-Ms`.
#[derive(Clone, Debug)]
pub struct ReadAfter {
    min: Option<Positions>,
    timeout: Option<Duration>,
    began: Instant,
}

impl ReadAfter {
    /// When the caller's patience ends: 2 s from the start, unless it said otherwise.
    pub fn deadline(&self) -> Instant {
        self.deadline_or(DEFAULT)
    }

    /// For work that may take longer where the caller says nothing.
    pub fn deadline_or(&self, default: Duration) -> Instant {
        self.began + self.timeout.unwrap_or(default)
    }

    /// What must have been applied, by a read model that folds `topic`. A position elsewhere would never be
    /// reached, so it is the caller's mistake.
    pub fn positions_of(&self, topic: &TopicSpec) -> Result<Option<&Positions>, Problem> {
        let Some(min) = &self.min else { return Ok(None) };
        let elsewhere = min.iter().find(|(at, _)| at.topic != topic.name || at.partition >= topic.partitions);
        match elsewhere {
            None => Ok(Some(min)),
            Some((at, _)) => Err(Problem::invalid(format!(
                "x-min-position names {at}; this route follows {} with {} partitions",
                topic.name, topic.partitions
            ))),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for ReadAfter {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(Self { min: min_position(&parts.headers)?, timeout: timeout(&parts.headers)?, began: Instant::now() })
    }
}

fn min_position(headers: &HeaderMap) -> Result<Option<Positions>, Problem> {
    let mut min: Option<Positions> = None;
    for value in headers.get_all(MIN_POSITION) {
        let text = value.to_str().map_err(|_| Problem::invalid("x-min-position is not text"))?;
        let positions = Positions::parse_done(text);
        let positions = positions.map_err(|error| Problem::invalid(format!("x-min-position: {error}")))?;
        min.get_or_insert_default().merge(&positions);
    }
    Ok(min)
}

fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, Problem> {
    let Some(value) = headers.get(TIMEOUT) else { return Ok(None) };
    let ms = value.to_str().ok().and_then(|text| text.trim().parse::<u64>().ok());
    match ms {
        Some(ms) if ms <= MAX_MS => Ok(Some(Duration::from_millis(ms))),
        _ => Err(Problem::invalid(format!("x-timeout-ms must be a whole number from 0 to {MAX_MS}"))),
    }
}

/// `X-Log-Position`: the last record of each partition that a write touched.
pub struct LogPosition(pub Positions);

impl LogPosition {
    pub const NAME: HeaderName = HeaderName::from_static("x-log-position");
}

impl IntoResponseParts for LogPosition {
    type Error = std::convert::Infallible;

    fn into_response_parts(self, mut response: ResponseParts) -> Result<ResponseParts, Self::Error> {
        let text = self.0.to_done_string();
        if let (false, Ok(value)) = (text.is_empty(), HeaderValue::from_str(&text)) {
            response.headers_mut().insert(Self::NAME, value);
        }
        Ok(response)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use axum::http::Request;
    use carbon_core::{Cleanup, Partitioner, Retention, TopicName};

    use super::*;

    async fn read_after(headers: &[(&str, &[u8])]) -> Result<ReadAfter, Problem> {
        let mut request = Request::get("/x");
        for (name, value) in headers {
            request = request.header(*name, HeaderValue::from_bytes(value).unwrap());
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        ReadAfter::from_request_parts(&mut parts, &()).await
    }

    #[tokio::test]
    async fn bad_headers_are_the_callers_mistake() {
        for (name, value) in [
            (MIN_POSITION, "".as_bytes()),
            (MIN_POSITION, b"t:0"),
            (MIN_POSITION, b"t:0:1,,t:1:1"),
            (MIN_POSITION, b"t:0:18446744073709551615"),
            (MIN_POSITION, b"t:4294967296:1"),
            (MIN_POSITION, b"\xff"),
            (TIMEOUT, b""),
            (TIMEOUT, b"-1"),
            (TIMEOUT, b"1.5"),
            (TIMEOUT, b"60001"),
            (TIMEOUT, b"99999999999999999999"),
        ] {
            assert!(read_after(&[(name, value)]).await.is_err(), "{name}: {value:?}");
        }
    }

    #[tokio::test]
    async fn positions_of_another_topic_or_partition_are_refused() {
        let topic = TopicSpec {
            name: TopicName::parse("t").unwrap(),
            partitions: 2,
            cleanup: Cleanup::Keep,
            partitioner: Partitioner::Murmur2,
            retention: Retention::default(),
        };
        let read = read_after(&[(MIN_POSITION, b"t:0:4"), (MIN_POSITION, b"t:1:2"), (TIMEOUT, b"250")]).await.unwrap();
        assert_eq!(read.positions_of(&topic).unwrap().unwrap().to_done_string(), "t:0:4,t:1:2");
        assert_eq!(read.deadline() - read.began, Duration::from_millis(250));
        for elsewhere in [&b"u:0:1"[..], b"t:2:0"] {
            assert!(read_after(&[(MIN_POSITION, elsewhere)]).await.unwrap().positions_of(&topic).is_err());
        }
        assert!(read_after(&[]).await.unwrap().positions_of(&topic).unwrap().is_none());
    }
}
