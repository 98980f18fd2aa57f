//! Ids of generations. A generation is one copy of a read model.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{IdError, check};
use crate::model_ref::ModelRef;

/// The id of a generation: `<read model>-v<fold version>[-<model@version@precision>]-<n>`. It is a valid folder name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GenerationId(String);

fn generation_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-' | b'@')
}

impl GenerationId {
    /// Builds the id of the `n`th generation of a read model and fold version.
    pub fn derive(read_model: &str, version: u32, model: Option<&ModelRef>, n: u32) -> Result<Self, IdError> {
        match model {
            Some(model) => Self::parse(&format!("{read_model}-v{version}-{model}-{n}")),
            None => Self::parse(&format!("{read_model}-v{version}-{n}")),
        }
    }

    pub fn parse(value: &str) -> Result<Self, IdError> {
        const GRAMMAR: &str = "^[a-zA-Z0-9_@-][a-zA-Z0-9_.@-]{0,254}$";
        check(value, "generation", GRAMMAR, 255, generation_byte)?;
        // The id is used as a folder name, which must not be `..`.
        if value.starts_with('.') {
            return Err(IdError { what: "generation", value: value.to_owned(), grammar: GRAMMAR });
        }
        Ok(Self(value.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for GenerationId {
    type Error = IdError;
    fn try_from(value: String) -> Result<Self, IdError> {
        Self::parse(&value)
    }
}

impl From<GenerationId> for String {
    fn from(id: GenerationId) -> String {
        id.0
    }
}

impl fmt::Display for GenerationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Precision;

    #[test]
    fn ids_are_derived_and_valid_folder_names() {
        let model = ModelRef::new("m", "1", Precision::F32).unwrap();
        assert_eq!(GenerationId::derive("search", 1, Some(&model), 2).unwrap().as_str(), "search-v1-m@1@f32-2");
        assert_eq!(GenerationId::derive("catalog", 3, None, 1).unwrap().as_str(), "catalog-v3-1");
        for bad in ["", "..", ".x", "a/b"] {
            assert!(GenerationId::parse(bad).is_err(), "{bad}");
        }
    }
}
