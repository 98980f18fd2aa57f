use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use serde::de::DeserializeOwned;

use crate::problem::{Code, Problem};

pub const DEFAULT_BODY_LIMIT: usize = 2 * 1024 * 1024;

/// How long a body may stand still.
const IDLE: Duration = Duration::from_secs(30);

/// A JSON body of at most `LIMIT` bytes.
pub struct JsonBody<T, const LIMIT: usize = DEFAULT_BODY_LIMIT>(pub T);

impl<S: Send + Sync, T: DeserializeOwned, const LIMIT: usize> FromRequest<S> for JsonBody<T, LIMIT> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let kind = content_type(&parts.headers)?;
        if kind != "application/json" && !(kind.starts_with("application/") && kind.ends_with("+json")) {
            return Err(Problem::invalid(format!("content-type is {kind:?}; this route takes application/json")));
        }
        let bytes = read_body(&parts.headers, body, LIMIT).await?;
        from_json_object(&bytes).map(Self).map_err(Problem::invalid)
    }
}

/// Reads a JSON object. Serde would also take an array of the fields in the order of the code.
pub fn from_json_object<T: DeserializeOwned>(json: &[u8]) -> Result<T, String> {
    match json.trim_ascii_start().first() {
        Some(b'{') => serde_json::from_slice(json).map_err(|error| error.to_string()),
        Some(_) => Err("expected a JSON object".into()),
        None => Err("the body is empty; expected a JSON object".into()),
    }
}

/// The media type of a body, in lower case and without parameters.
pub fn content_type(headers: &HeaderMap) -> Result<String, Problem> {
    let missing = || Problem::invalid("the header content-type is missing; send application/json");
    let value = headers.get(header::CONTENT_TYPE).ok_or_else(missing)?;
    let value = value.to_str().map_err(|_| Problem::invalid("the header content-type is not text"))?;
    Ok(value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

/// Reads a whole body; 413 as soon as it is known to be too large.
pub async fn read_body(headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes, Problem> {
    let too_large = || Problem::new(Code::TooLarge, format!("the body has more than the {limit} bytes that are taken"));
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
            Err(_) => return Err(Problem::invalid("the body stood still for 30 s")),
        }
    }
}
