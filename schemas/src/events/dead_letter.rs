use std::collections::BTreeMap;

use carbon_core::{Position, TenantId, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Source;
use crate::event::{Event, event_schema, uuid_text};

/// What became of a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeadLetterKind {
    Unknown,
    Reported,
    Redriven,
    Dropped,
}

/// `ml.deadletter.v1`: a record that no processor can take. Keyed by its source position.
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

impl Event for DeadLetter {
    const NAME: &'static str = "ml.deadletter.v1";
    /// `topic/partition/offset` of the source.
    type Key = String;

    event_schema!(DeadLetter);

    fn event_id(&self) -> Uuid {
        self.event_id
    }

    fn occurred_at(&self) -> Timestamp {
        self.occurred_at
    }

    fn tenant(&self) -> Option<&TenantId> {
        self.tenant_id.as_ref()
    }

    fn key(&self) -> Result<String, String> {
        let at = self.source.position()?;
        Ok(format!("{}/{}/{}", at.topic, at.partition, at.offset))
    }

    fn parse_key(text: &str) -> Result<String, String> {
        let position: Result<Position, _> = text.replace('/', ":").parse();
        position.map(|_| text.to_owned()).map_err(|error| error.to_string())
    }

    fn check(&self) -> Result<(), String> {
        self.source.position().map(drop)
    }

    fn is_unknown(&self) -> bool {
        self.kind == DeadLetterKind::Unknown
    }
}
