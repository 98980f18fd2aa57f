//! References to embedding models: name, version and precision (law 8).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ids::{IdError, check};

/// The number format in which a model computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    F32,
    F16,
    Int8,
}

impl Precision {
    pub fn as_str(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::F16 => "f16",
            Precision::Int8 => "int8",
        }
    }
}

/// A reference to a model. Its text form is `name@version@precision`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ModelRef {
    name: String,
    version: String,
    precision: Precision,
}

const GRAMMAR: &str = "name@version@(f32|f16|int8), name and version of [a-zA-Z0-9_.-]{1,100}";

fn part_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-')
}

impl ModelRef {
    pub fn new(name: &str, version: &str, precision: Precision) -> Result<Self, IdError> {
        check(name, "model name", GRAMMAR, 100, part_byte)?;
        check(version, "model version", GRAMMAR, 100, part_byte)?;
        Ok(Self { name: name.to_owned(), version: version.to_owned(), precision })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn version(&self) -> &str {
        &self.version
    }

    pub fn precision(&self) -> Precision {
        self.precision
    }
}

impl FromStr for ModelRef {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let bad = || IdError { what: "model", value: text.chars().take(80).collect(), grammar: GRAMMAR };
        let mut parts = text.split('@');
        let (Some(name), Some(version), Some(precision), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(bad());
        };
        let precision = match precision {
            "f32" => Precision::F32,
            "f16" => Precision::F16,
            "int8" => Precision::Int8,
            _ => return Err(bad()),
        };
        Self::new(name, version, precision)
    }
}

impl TryFrom<String> for ModelRef {
    type Error = IdError;
    fn try_from(value: String) -> Result<Self, IdError> {
        value.parse()
    }
}

impl From<ModelRef> for String {
    fn from(model: ModelRef) -> String {
        model.to_string()
    }
}

impl fmt::Display for ModelRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}@{}", self.name, self.version, self.precision.as_str())
    }
}
