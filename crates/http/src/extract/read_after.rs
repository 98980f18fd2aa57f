//! Read-your-writes: the headers `X-Min-Position` and `X-Timeout-Ms` of a read, and `X-Log-Position` of a write's answer.

use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponseParts, ResponseParts};
use carbon_core::{Positions, TopicSpec};
use tokio::time::Instant;
use utoipa::IntoParams;
use utoipa::openapi::Required;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, SchemaType, Type};

use crate::problem::Problem;

const MIN_POSITION: &str = "x-min-position";
const TIMEOUT: &str = "x-timeout-ms";
const DEFAULT_TIMEOUT: Duration = Duration::from_millis(2000);
const MAX_TIMEOUT_MS: u64 = 60_000;

/// The positions that a read waits for (`X-Min-Position`), and how long (`X-Timeout-Ms`).
#[derive(Clone, Debug)]
pub struct ReadAfter {
    min: Option<Positions>,
    timeout: Option<Duration>,
    /// When the request arrived.
    began: Instant,
}

impl ReadAfter {
    /// Returns when the request times out: after `X-Timeout-Ms`, by default 2 s.
    pub fn deadline(&self) -> Instant {
        self.deadline_or(DEFAULT_TIMEOUT)
    }

    /// Returns when the request times out: after `X-Timeout-Ms`, by default `default`.
    pub fn deadline_or(&self, default: Duration) -> Instant {
        self.began + self.timeout.unwrap_or(default)
    }

    /// Returns the positions that a read model of `topic` must have applied. An error if a position lies in another topic
    /// or partition, since the read model never reaches it.
    pub fn positions_of(&self, topic: &TopicSpec) -> Result<Option<&Positions>, Problem> {
        let Some(min) = &self.min else { return Ok(None) };
        let elsewhere = min.iter().find(|(at, _)| at.topic != topic.name || at.partition >= topic.partitions);
        match elsewhere {
            None => Ok(Some(min)),
            Some((at, _)) => Err(Problem::invalid(format!(
                "x-min-position names {at}; this route reads topic {} with {} partitions",
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

impl IntoParams for ReadAfter {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let optional = |schema: Type| -> SchemaType { [schema, Type::Null].into_iter().collect() };
        let position = ObjectBuilder::new().schema_type(optional(Type::String));
        let timeout = ObjectBuilder::new()
            .schema_type(optional(Type::Integer))
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
            .minimum(Some(0));
        let header = |name: &str, description: &str, schema: ObjectBuilder| {
            let header = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Header).required(Required::False);
            header.description(Some(description)).schema(Some(schema)).build()
        };
        vec![
            header(MIN_POSITION, "Wait until the read model has applied these positions", position),
            header(TIMEOUT, "Time limit of the request in milliseconds, at most 60000; default 2000", timeout),
        ]
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
        Some(ms) if ms <= MAX_TIMEOUT_MS => Ok(Some(Duration::from_millis(ms))),
        _ => Err(Problem::invalid(format!("x-timeout-ms must be a whole number from 0 to {MAX_TIMEOUT_MS}"))),
    }
}

/// The answer header `X-Log-Position`: the position of the last record in each partition that a write appended to.
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
    async fn malformed_headers_are_rejected() {
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
    async fn positions_of_another_topic_or_partition_are_rejected() {
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
