//! The `Event` trait, the limits of entity fields, and the macros that implement what is the same in every event.

use std::fmt::{Debug, Display};

use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::writer::datum::GenericDatumWriter;
use carbon_core::{TenantId, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::versions::{self, SchemaVersion};

/// The typed payload of one topic.
pub trait Event: Serialize + DeserializeOwned + Clone + Debug + PartialEq + Send + Sync + 'static {
    /// The name of the event and of its topic.
    const NAME: &'static str;
    /// The typed record key.
    type Key: Display + Clone + Debug + PartialEq + Eq + std::hash::Hash + Send + Sync;

    /// The current schema with its reader and writer, built once per process.
    fn schema() -> &'static EventSchema;
    fn event_id(&self) -> Uuid;
    /// The producer's time.
    fn occurred_at(&self) -> Timestamp;
    /// The tenant that owns the data; `None` for events of the platform.
    fn tenant(&self) -> Option<&TenantId>;
    /// The record key, from the payload's fields. Fails if the fields do not form a valid key.
    fn key(&self) -> Result<Self::Key, String>;
    /// Parses a record key.
    fn parse_key(text: &str) -> Result<Self::Key, String>;
    /// The text that the partition is computed from: the whole key, unless the topology declares another.
    fn partition_key(key: &Self::Key) -> String {
        key.to_string()
    }
    /// Checks the limits, which are constants of the event's version. A record that fails is poison of reason
    /// `field_limit`.
    fn check(&self) -> Result<(), String>;
    /// True if the writer itself wrote the enum symbol `unknown`, which has no meaning. Such a record is poison.
    fn is_unknown(&self) -> bool {
        false
    }
}

/// Limits of entity fields. The HTTP API and the decoder use the same ones.
#[derive(Clone, Copy, Debug)]
pub struct Limits;

impl Limits {
    pub const TEXT_BYTES: usize = 256 * 1024;
    /// Maximum number of tags.
    pub const TAGS: usize = 64;
    pub const TAG_BYTES: usize = 100;
    /// Maximum number of metadata keys.
    pub const METADATA_KEYS: usize = 64;
    pub const METADATA_KEY_BYTES: usize = 100;
    pub const METADATA_VALUE_BYTES: usize = 4096;
    /// Maximum number of components of a vector.
    pub const DIMENSION: i32 = 8192;
}

/// A schema version with its Avro reader and writer.
pub struct EventSchema {
    pub version: &'static SchemaVersion,
    pub(crate) writer: GenericDatumWriter<'static>,
    pub(crate) reader: GenericDatumReader<'static>,
}

impl EventSchema {
    /// Loads the current schema of an event. Panics if the event has none or the schema is invalid; schemas are
    /// compiled in, so every test catches that.
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

/// Implements the part of [`Event`] that is the same in every event: the name, the schema, and the fields `event_id`,
/// `occurred_at` and `tenant_id`. `tenant_id` is a `TenantId`, or an `Option` of it.
macro_rules! common_fields {
    ($name:literal) => {
        const NAME: &'static str = $name;

        fn schema() -> &'static crate::event::EventSchema {
            static SCHEMA: std::sync::LazyLock<crate::event::EventSchema> =
                std::sync::LazyLock::new(|| crate::event::EventSchema::load($name));
            &SCHEMA
        }

        fn event_id(&self) -> uuid::Uuid {
            self.event_id
        }

        fn occurred_at(&self) -> carbon_core::Timestamp {
            self.occurred_at
        }

        fn tenant(&self) -> Option<&carbon_core::TenantId> {
            Option::from(&self.tenant_id)
        }
    };
}
pub(crate) use common_fields;

/// Implements the key of an [`Event`] as a `TenantKey`: `tenant_id`, and the named field as the id.
macro_rules! tenant_key {
    ($id:ident) => {
        type Key = crate::events::TenantKey;

        fn key(&self) -> Result<Self::Key, String> {
            crate::events::TenantKey::new(&self.tenant_id, &self.$id)
        }

        fn parse_key(text: &str) -> Result<Self::Key, String> {
            crate::events::TenantKey::parse(text)
        }
    };
}
pub(crate) use tenant_key;

/// Serde functions that write and read UUIDs as text, as the schemas declare them.
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

    /// The same functions for an optional id.
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
