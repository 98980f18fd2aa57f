//! Request bodies: JSON objects, and whole bodies with a size limit.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use serde::de::DeserializeOwned;

use crate::problem::{Code, Problem};

/// Maximum size of a JSON body unless the handler sets another, in bytes.
pub const DEFAULT_BODY_LIMIT: usize = 2 * 1024 * 1024;

/// Maximum time between two chunks of a body.
const IDLE: Duration = Duration::from_secs(30);

/// A JSON body of at most `LIMIT` bytes.
pub struct JsonBody<T, const LIMIT: usize = DEFAULT_BODY_LIMIT>(pub T);

impl<S: Send + Sync, T: DeserializeOwned, const LIMIT: usize> FromRequest<S> for JsonBody<T, LIMIT> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let kind = content_type(&parts.headers)?;
        if kind != "application/json" && !(kind.starts_with("application/") && kind.ends_with("+json")) {
            return Err(Problem::invalid(format!("content-type is {kind:?}; this route accepts application/json")));
        }
        let bytes = read_body(&parts.headers, body, LIMIT).await?;
        from_json_object(&bytes).map(Self).map_err(Problem::invalid)
    }
}

/// Parses a JSON object; an error is a message for the caller. Rejects arrays, which serde would accept as the fields in
/// declaration order.
pub fn from_json_object<T: DeserializeOwned>(json: &[u8]) -> Result<T, String> {
    match json.trim_ascii_start().first() {
        Some(b'{') => serde_json::from_slice(json).map_err(|error| error.to_string()),
        Some(_) => Err("expected a JSON object".into()),
        None => Err("the body is empty; expected a JSON object".into()),
    }
}

/// Returns the media type of a body, in lower case and without parameters. An error if the header is missing.
pub fn content_type(headers: &HeaderMap) -> Result<String, Problem> {
    let missing = || Problem::invalid("the content-type header is missing; send application/json");
    let value = headers.get(header::CONTENT_TYPE).ok_or_else(missing)?;
    let value = value.to_str().map_err(|_| Problem::invalid("the content-type header is not text"))?;
    Ok(value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

/// Reads a whole body of at most `limit` bytes. Answers 413 as soon as the declared or received length exceeds the limit.
pub async fn read_body(headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes, Problem> {
    let too_large = || Problem::new(Code::TooLarge, format!("the body is larger than the limit of {limit} bytes"));
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > limit as u64) {
        return Err(too_large());
    }
    let mut stream = body.into_data_stream();
    let mut bytes = BytesMut::new();
    loop {
        match tokio::time::timeout(IDLE, stream.next()).await {
            Ok(None) => return Ok(bytes.freeze()),
            Ok(Some(Ok(chunk))) if bytes.len() + chunk.len() > limit => return Err(too_large()),
            Ok(Some(Ok(chunk))) => bytes.extend_from_slice(&chunk),
            Ok(Some(Err(error))) => return Err(Problem::invalid(format!("the body cannot be read: {error}"))),
            Err(_) => return Err(Problem::invalid("no data of the body arrived for 30 s")),
        }
    }
}
