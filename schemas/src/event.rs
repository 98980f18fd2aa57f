//! What every event has.

use std::fmt::{Debug, Display};

use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::writer::datum::GenericDatumWriter;
use carbon_core::{TenantId, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::versions::{self, SchemaVersion};

/// A typed payload of one topic. The topic carries the event's name.
pub trait Event: Serialize + DeserializeOwned + Clone + Debug + PartialEq + Send + Sync + 'static {
    /// The event's and the topic's name.
    const NAME: &'static str;
    /// The record key, typed.
    type Key: Display + Clone + Debug + PartialEq + Eq + std::hash::Hash + Send + Sync;

    /// The event's schema with its reader and writer, made once.
    fn schema() -> &'static EventSchema;
    fn event_id(&self) -> Uuid;
    fn occurred_at(&self) -> Timestamp;
    /// The tenant whose data it is; `None` for events of the platform.
    fn tenant(&self) -> Option<&TenantId>;
    /// The key that the payload gives; an error where its fields are no key.
    fn key(&self) -> Result<Self::Key, String>;
    /// Reads a record key.
    fn parse_key(text: &str) -> Result<Self::Key, String>;
    /// What the partition is computed from: the whole key, unless the topology says otherwise.
    fn partition_key(key: &Self::Key) -> String {
        key.to_string()
    }
    /// Limits that are constants of the event's version. An error is poison of reason `field_limit`.
    fn check(&self) -> Result<(), String>;
    /// Whether a variant is `unknown` as written: poison, since no writer knows what it means.
    fn is_unknown(&self) -> bool {
        false
    }
}

/// Limits on payload fields, the same for HTTP and for the decoder.
#[derive(Clone, Copy, Debug)]
pub struct Limits;

impl Limits {
    pub const TEXT_BYTES: usize = 256 * 1024;
    pub const TAGS: usize = 64;
    pub const TAG_BYTES: usize = 100;
    pub const METADATA_KEYS: usize = 64;
    pub const METADATA_KEY_BYTES: usize = 100;
    pub const METADATA_VALUE_BYTES: usize = 4096;
    pub const DIMENSION: i32 = 8192;
}

/// A schema with its ready-made reader and writer.
pub struct EventSchema {
    pub version: &'static SchemaVersion,
    pub(crate) writer: GenericDatumWriter<'static>,
    pub(crate) reader: GenericDatumReader<'static>,
}

impl EventSchema {
    /// Makes the statics below; the schemas are compiled in, so a failure is caught by any test.
    #[allow(clippy::panic)]
    pub(crate) fn load(event: &'static str) -> Self {
        let Some(version) = versions::current(event) else { panic!("{event} has no schema") };
        let writer = GenericDatumWriter::builder(&version.schema).validate(false).human_readable(false).build();
        let reader = GenericDatumReader::builder(&version.schema).human_readable(false).build();
        match (writer, reader) {
            (Ok(writer), Ok(reader)) => Self { version, writer, reader },
            (Err(error), _) | (_, Err(error)) => panic!("{event}: {error}"),
        }
    }
}

/// Gives an event its static schema.
macro_rules! event_schema {
    ($event:ty) => {
        fn schema() -> &'static crate::event::EventSchema {
            static SCHEMA: std::sync::LazyLock<crate::event::EventSchema> =
                std::sync::LazyLock::new(|| crate::event::EventSchema::load(<$event as crate::event::Event>::NAME));
            &SCHEMA
        }
    };
}
pub(crate) use event_schema;

/// Writes and reads UUIDs as text, which is what the schemas say.
pub(crate) mod uuid_text {
    use serde::{Deserialize as _, Deserializer, Serializer};
    use uuid::Uuid;

    pub fn serialize<S: Serializer>(id: &Uuid, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(id.hyphenated().encode_lower(&mut Uuid::encode_buffer()))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Uuid, D::Error> {
        let text = String::deserialize(deserializer)?;
        Uuid::try_parse(&text).map_err(|_| serde::de::Error::custom("an id is not a UUID"))
    }

    /// The same of an id that may be absent.
    pub mod option {
        use serde::{Deserialize as _, Deserializer, Serializer};
        use uuid::Uuid;

        pub fn serialize<S: Serializer>(id: &Option<Uuid>, serializer: S) -> Result<S::Ok, S::Error> {
            match id {
                Some(id) => serializer.serialize_some(&*id.hyphenated().encode_lower(&mut Uuid::encode_buffer())),
                None => serializer.serialize_none(),
            }
        }

        pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Uuid>, D::Error> {
            let text = Option::<String>::deserialize(deserializer)?;
            let id = text.map(|text| Uuid::try_parse(&text)).transpose();
            id.map_err(|_| serde::de::Error::custom("an id is not a UUID"))
        }
    }
}
