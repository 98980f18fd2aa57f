//! Appending entities: one streamed request, and what it answers.

use bytes::Bytes;
use futures::Stream;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::client::Service;
use crate::error::CliError;

/// An entity that was not taken.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Rejected {
    pub line: u64,
    pub reason: String,
}

/// What became of a stream of entities.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    pub accepted: u64,
    /// All that were rejected; `rejected` holds the first ones.
    pub rejected_count: u64,
    pub rejected: Vec<Rejected>,
    /// The last position in each partition, as `X-Min-Position` wants it; empty where nothing was written.
    pub positions: String,
    /// Why the service ended the stream before its end, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Answer {
    accepted: u64,
    #[serde(default)]
    rejected: Vec<Rejected>,
    rejected_count: Option<u64>,
    #[serde(default)]
    positions: Value,
    #[serde(default)]
    stopped: Option<String>,
}

/// Sends NDJSON to any length; the service takes it line by line.
pub async fn upload(
    tracking: &Service,
    lines: impl Stream<Item = Result<Bytes, std::io::Error>> + Send + 'static,
) -> Result<Outcome, CliError> {
    let request = tracking
        .post("/entities")
        .header("content-type", "application/x-ndjson")
        .body(reqwest::Body::wrap_stream(lines));
    let response = tracking.send(request).await?;
    let header = response.headers().get("x-log-position").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let body = response.bytes().await.map_err(|error| tracking.broken(&error))?;
    let answer: Answer = serde_json::from_slice(&body)
        .map_err(|error| CliError::Failed(format!("tracking-api answered what this version cannot read: {error}")))?;
    Ok(Outcome {
        accepted: answer.accepted,
        rejected_count: answer.rejected_count.unwrap_or(answer.rejected.len() as u64),
        positions: header.filter(|text| !text.is_empty()).unwrap_or_else(|| positions(&answer.positions)),
        rejected: answer.rejected,
        stopped: answer.stopped,
    })
}

/// `["t:0:1"]`, `"t:0:1,t:1:4"` or `[{"topic","partition","offset"}]`, as `t:0:1,t:1:4`.
fn positions(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(list) => list.iter().map(positions).filter(|text| !text.is_empty()).collect::<Vec<_>>().join(","),
        Value::Object(at) => match (at.get("topic"), at.get("partition"), at.get("offset")) {
            (Some(Value::String(topic)), Some(partition), Some(offset)) => format!("{topic}:{partition}:{offset}"),
            _ => String::new(),
        },
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn positions_are_read_in_every_form() {
        assert_eq!(positions(&json!("t:0:1,t:1:4")), "t:0:1,t:1:4");
        assert_eq!(positions(&json!(["t:0:1", "t:1:4"])), "t:0:1,t:1:4");
        assert_eq!(positions(&json!([{"topic": "t", "partition": 0, "offset": 1}])), "t:0:1");
        assert_eq!(positions(&Value::Null), "");
    }
}
