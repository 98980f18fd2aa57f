//! Metadata of entities: a flat map of scalars.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

/// A scalar of an entity's metadata. In JSON a number is always a double.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum MetadataValue {
    String(String),
    Double(f64),
    Boolean(bool),
}

pub type Metadata = BTreeMap<String, MetadataValue>;

impl fmt::Display for MetadataValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MetadataValue::String(value) => f.write_str(value),
            MetadataValue::Double(value) => write!(f, "{value}"),
            MetadataValue::Boolean(value) => write!(f, "{value}"),
        }
    }
}

// Written by hand so that the error names what is allowed, and so that no value is buffered.
impl<'de> Deserialize<'de> for MetadataValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = MetadataValue;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a string, a number or a boolean")
            }
            fn visit_bool<E>(self, value: bool) -> Result<MetadataValue, E> {
                Ok(MetadataValue::Boolean(value))
            }
            fn visit_f64<E>(self, value: f64) -> Result<MetadataValue, E> {
                Ok(MetadataValue::Double(value))
            }
            fn visit_i64<E>(self, value: i64) -> Result<MetadataValue, E> {
                Ok(MetadataValue::Double(value as f64))
            }
            fn visit_u64<E>(self, value: u64) -> Result<MetadataValue, E> {
                Ok(MetadataValue::Double(value as f64))
            }
            fn visit_str<E>(self, value: &str) -> Result<MetadataValue, E> {
                Ok(MetadataValue::String(value.to_owned()))
            }
            fn visit_string<E>(self, value: String) -> Result<MetadataValue, E> {
                Ok(MetadataValue::String(value))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}
