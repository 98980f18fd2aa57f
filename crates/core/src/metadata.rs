//! The metadata of entities: a flat map from names to scalars.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

/// A value in the metadata of an entity. Every JSON number becomes a double.
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

/// 2^53: the doubles represent every integer up to this one exactly.
const EXACT: u64 = 1 << 53;

/// Converts an integer to a double. Fails above 2^53, where the double could be another number.
fn exact<E: serde::de::Error>(size: u64, value: f64) -> Result<MetadataValue, E> {
    match size <= EXACT {
        true => Ok(MetadataValue::Double(value)),
        false => Err(E::custom("a whole number beyond 2^53 cannot be kept exactly; send it as a string")),
    }
}

// A derived implementation would buffer the value, and its error would not name the allowed types.
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
            fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<MetadataValue, E> {
                exact(value.unsigned_abs(), value as f64)
            }
            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<MetadataValue, E> {
                exact(value, value as f64)
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_exact_or_rejected() {
        let read = |json: &str| serde_json::from_str::<MetadataValue>(json);
        assert_eq!(read("9007199254740992").unwrap(), MetadataValue::Double(9_007_199_254_740_992.0));
        assert!(read("9007199254740993").unwrap_err().to_string().contains("2^53"));
        assert!(read("-9007199254740993").is_err() && read("null").is_err() && read("[1]").is_err());
    }

    proptest::proptest! {
        /// A double that is written to JSON and read again is the same double.
        #[test]
        fn any_double_survives_json(value in proptest::num::f64::NORMAL) {
            let json = serde_json::to_string(&MetadataValue::Double(value)).unwrap();
            proptest::prop_assert_eq!(serde_json::from_str::<MetadataValue>(&json).unwrap(), MetadataValue::Double(value));
        }
    }
}
