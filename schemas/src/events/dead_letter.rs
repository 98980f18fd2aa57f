//! `ml.deadletter.v1`: poison records, and what operators decided about them.

use std::collections::BTreeMap;

use carbon_core::{Position, PositionError, TenantId, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Source;
use crate::event::{Event, common_fields, uuid_text};

/// The state of a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeadLetterKind {
    Unknown,
    Reported,
    Redriven,
    Dropped,
}

/// `ml.deadletter.v1`: a poison record was reported, redriven or dropped. The key is the position of that record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeadLetter {
    #[serde(with = "uuid_text")]
    pub event_id: Uuid,
    pub occurred_at: Timestamp,
    pub tenant_id: Option<TenantId>,
    pub kind: DeadLetterKind,
    pub source: Source,
    pub processor: String,
    pub reason: String,
    pub message: String,
    #[serde(with = "apache_avro::serde::bytes_opt")]
    pub key: Option<Vec<u8>>,
    #[serde(with = "apache_avro::serde::bytes_opt")]
    pub payload: Option<Vec<u8>>,
    pub payload_truncated: bool,
    pub headers: BTreeMap<String, serde_bytes::ByteBuf>,
}

fn key_of(source: &Position) -> String {
    format!("{}/{}/{}", source.topic, source.partition, source.offset)
}

impl Event for DeadLetter {
    common_fields!("ml.deadletter.v1");

    /// `topic/partition/offset` of the poison record.
    type Key = String;

    fn key(&self) -> Result<String, String> {
        Ok(key_of(&self.source.position()?))
    }

    fn parse_key(text: &str) -> Result<String, String> {
        let position: Position = text.replace('/', ":").parse().map_err(|error: PositionError| error.to_string())?;
        // One position has one key: `t/07/1` and `t:7:1` are rejected.
        match key_of(&position) {
            key if key == text => Ok(key),
            key => Err(format!("{text:?} is not the key of a dead letter; expected {key}")),
        }
    }

    fn check(&self) -> Result<(), String> {
        self.source.position().map(drop)
    }

    fn is_unknown(&self) -> bool {
        self.kind == DeadLetterKind::Unknown
    }
}
