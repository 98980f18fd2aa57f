//! The catalogue: which models there are, their files by hash, and where to get them.

use std::sync::OnceLock;

use carbon_core::{ModelRef, Precision};
use serde::Deserialize;

use crate::InferenceError;

/// What computes a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Engine {
    Bert,
    FeatureHashing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pooling {
    Mean,
}

/// A file of a model; its hash is its name in the store.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelFile {
    pub path: String,
    pub sha256: String,
    pub size: u64,
}

/// A repository of the model hub, at a fixed revision.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hub {
    pub repo: String,
    pub revision: String,
}

/// A package of the Python package index that carries the same files, below `prefix`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    pub package: String,
    pub version: String,
    pub prefix: String,
}

/// A model of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelEntry {
    pub model: ModelRef,
    pub engine: Engine,
    pub aliases: Vec<String>,
    pub dimension: usize,
    /// Longer texts are cut here; the model's own marks count.
    pub max_tokens: usize,
    pub pooling: Pooling,
    pub normalize: bool,
    pub description: String,
    pub licence: String,
    pub files: Vec<ModelFile>,
    pub hub: Option<Hub>,
    pub pypi: Option<Package>,
}

impl ModelEntry {
    pub fn name(&self) -> &str {
        self.model.name()
    }

    pub fn version(&self) -> &str {
        self.model.version()
    }

    pub fn precision(&self) -> Precision {
        self.model.precision()
    }

    fn is_called(&self, name: &str) -> bool {
        self.name() == name || self.aliases.iter().any(|alias| alias == name) || self.model.to_string() == name
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEntry {
    name: String,
    version: String,
    precision: Precision,
    engine: Engine,
    #[serde(default)]
    aliases: Vec<String>,
    dimension: usize,
    max_tokens: usize,
    pooling: Pooling,
    normalize: bool,
    description: String,
    licence: String,
    #[serde(default)]
    files: Vec<ModelFile>,
    hub: Option<Hub>,
    pypi: Option<Package>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCatalogue {
    models: Vec<RawEntry>,
}

/// The models that this build knows.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    entries: Vec<ModelEntry>,
}

impl Catalogue {
    /// The catalogue that is compiled in.
    pub fn builtin() -> &'static Catalogue {
        static BUILTIN: OnceLock<Catalogue> = OnceLock::new();
        BUILTIN.get_or_init(|| {
            // It is part of the binary and parsed by a test: it cannot fail where a caller could help.
            Catalogue::parse(include_str!("../models.toml")).unwrap_or_else(|error| {
                tracing::error!(error, "the built-in catalogue cannot be read");
                Catalogue::default()
            })
        })
    }

    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let raw: RawCatalogue = toml::from_str(text).map_err(|error| error.to_string())?;
        let mut entries = Vec::with_capacity(raw.models.len());
        for raw in raw.models {
            let model = ModelRef::new(&raw.name, &raw.version, raw.precision).map_err(|error| error.to_string())?;
            for file in &raw.files {
                // The hash names a file of the store.
                if file.sha256.len() != 64 || !file.sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
                    return Err(format!("{}: sha256 is not 64 lower-case hexadecimal digits", file.path));
                }
            }
            entries.push(ModelEntry {
                model,
                engine: raw.engine,
                aliases: raw.aliases,
                dimension: raw.dimension,
                max_tokens: raw.max_tokens,
                pooling: raw.pooling,
                normalize: raw.normalize,
                description: raw.description,
                licence: raw.licence,
                files: raw.files,
                hub: raw.hub,
                pypi: raw.pypi,
            });
        }
        Ok(Self { entries })
    }

    /// Finds a model by its name, an alias, or `name@version@precision`.
    pub fn find(&self, name_or_alias_or_ref: &str) -> Result<&ModelEntry, InferenceError> {
        self.entries.iter().find(|entry| entry.is_called(name_or_alias_or_ref)).ok_or_else(|| {
            InferenceError::UnknownModel {
                name: name_or_alias_or_ref.chars().take(200).collect(),
                known: self.entries.iter().map(|entry| entry.name().to_owned()).collect(),
            }
        })
    }

    pub fn entries(&self) -> &[ModelEntry] {
        &self.entries
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use carbon_core::{Classify, Fault, Retry};

    use super::*;

    #[test]
    fn the_builtin_catalogue_is_whole() {
        let catalogue = Catalogue::parse(include_str!("../models.toml")).unwrap();
        assert_eq!(catalogue.entries(), Catalogue::builtin().entries());
        let minilm = catalogue.find("minilm").unwrap();
        assert_eq!(minilm.model.to_string(), "all-MiniLM-L6-v2@1@f32");
        assert_eq!((minilm.dimension, minilm.max_tokens, minilm.files.len()), (384, 256, 3));
        assert!(catalogue.find("feature-hashing").unwrap().files.is_empty());
    }

    #[test]
    fn names_aliases_and_references_find_the_same_model() {
        let catalogue = Catalogue::builtin();
        let entry = catalogue.find("all-MiniLM-L6-v2").unwrap();
        for name in
            ["instrument_embedder_v1", "minilm", "sentence-transformers/all-MiniLM-L6-v2", "all-MiniLM-L6-v2@1@f32"]
        {
            assert_eq!(catalogue.find(name).unwrap(), entry, "{name}");
        }
    }

    #[test]
    fn an_unknown_name_is_refused_and_the_known_ones_are_named() {
        for name in ["", "all-MiniLM-L6-v2@2@f32", "bert"] {
            let error = Catalogue::builtin().find(name).unwrap_err();
            assert_eq!((error.fault(), error.retry()), (Fault::User, Retry::Never));
            let message = error.to_string();
            assert!(message.contains("all-MiniLM-L6-v2, feature-hashing"), "{message}");
        }
    }

    #[test]
    fn a_hash_that_could_be_a_path_is_refused() {
        let text = include_str!("../models.toml").replacen("953f9c0d463486b1", "../../../../../.", 1);
        assert!(Catalogue::parse(&text).unwrap_err().contains("sha256"));
    }
}
