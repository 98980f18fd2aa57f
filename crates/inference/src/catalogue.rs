//! The catalogue: the known models, the SHA-256 of their files, and the sources of the files.

use std::sync::OnceLock;

use carbon_core::{ModelRef, Precision};
use serde::Deserialize;

use crate::InferenceError;

/// The implementation that computes a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Engine {
    /// A BERT sentence encoder with downloaded weights.
    Bert,
    /// Feature hashing, without weights.
    FeatureHashing,
}

/// How token vectors become the vector of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pooling {
    /// The mean of the token vectors.
    Mean,
}

/// A file of a model. Its SHA-256 is its name in the store.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelFile {
    /// Path in the model's repository, such as `config.json`.
    pub path: String,
    /// 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// In bytes.
    pub size: u64,
}

/// A repository of the model hub (Hugging Face) at a fixed revision.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hub {
    pub repo: String,
    pub revision: String,
}

/// A package of the Python package index (PyPI) whose wheel has the same files under `prefix`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    pub package: String,
    pub version: String,
    pub prefix: String,
    /// The end of the wheel's file name before `.whl`, for packages that have a wheel per platform.
    pub wheel: Option<String>,
}

/// Something whose files the store downloads: the weights of a model, or a library.
pub trait Pullable: Sync {
    /// The name that `carbon-ml models pull` takes.
    fn name(&self) -> &str;
    /// Empty if nothing needs to be downloaded.
    fn files(&self) -> &[ModelFile];
    /// The first source.
    fn hub(&self) -> Option<&Hub>;
    /// The second source.
    fn package(&self) -> Option<&Package>;
}

/// A model of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelEntry {
    pub model: ModelRef,
    pub engine: Engine,
    pub aliases: Vec<String>,
    /// Number of components of a vector.
    pub dimension: usize,
    /// Maximum tokens of a text, special tokens included. Longer texts are truncated.
    pub max_tokens: usize,
    pub pooling: Pooling,
    /// True if vectors are scaled to unit length.
    pub normalize: bool,
    pub description: String,
    pub licence: String,
    /// Empty if the model needs no weights.
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

    /// True if `name` is the model's name, an alias, or its reference `name@version@precision`.
    fn is_called(&self, name: &str) -> bool {
        self.name() == name || self.aliases.iter().any(|alias| alias == name) || self.model.to_string() == name
    }
}

impl Pullable for ModelEntry {
    fn name(&self) -> &str {
        self.model.name()
    }

    fn files(&self) -> &[ModelFile] {
        &self.files
    }

    fn hub(&self) -> Option<&Hub> {
        self.hub.as_ref()
    }

    fn package(&self) -> Option<&Package> {
        self.pypi.as_ref()
    }
}

/// A shared library for one platform.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LibraryEntry {
    pub name: String,
    pub version: String,
    /// Architecture and operating system, as in [`std::env::consts`]: `x86_64-linux`.
    pub platform: String,
    pub licence: String,
    /// The library itself.
    pub file: ModelFile,
    pub pypi: Package,
}

impl Pullable for LibraryEntry {
    fn name(&self) -> &str {
        &self.name
    }

    fn files(&self) -> &[ModelFile] {
        std::slice::from_ref(&self.file)
    }

    fn hub(&self) -> Option<&Hub> {
        None
    }

    fn package(&self) -> Option<&Package> {
        Some(&self.pypi)
    }
}

/// A model as written in `models.toml`.
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

/// The content of `models.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCatalogue {
    models: Vec<RawEntry>,
    #[serde(default)]
    libraries: Vec<LibraryEntry>,
}

/// The models and libraries known to this build.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    entries: Vec<ModelEntry>,
    libraries: Vec<LibraryEntry>,
}

impl Catalogue {
    /// The compiled-in catalogue.
    pub fn builtin() -> &'static Catalogue {
        static BUILTIN: OnceLock<Catalogue> = OnceLock::new();
        BUILTIN.get_or_init(|| {
            // A test parses the compiled-in file, so this cannot fail at run time.
            Catalogue::parse(include_str!("../models.toml")).unwrap_or_else(|error| {
                tracing::error!(error, "the built-in catalogue cannot be parsed; no model is available");
                Catalogue::default()
            })
        })
    }

    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let raw: RawCatalogue = toml::from_str(text).map_err(|error| error.to_string())?;
        let mut entries = Vec::with_capacity(raw.models.len());
        for raw in raw.models {
            let model = ModelRef::new(&raw.name, &raw.version, raw.precision).map_err(|error| error.to_string())?;
            raw.files.iter().try_for_each(check_hash)?;
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
        raw.libraries.iter().map(|library| &library.file).try_for_each(check_hash)?;
        Ok(Self { entries, libraries: raw.libraries })
    }

    /// Finds a model by its name, an alias, or `name@version@precision`. Fails with [`InferenceError::UnknownModel`].
    pub fn find(&self, name_or_alias_or_ref: &str) -> Result<&ModelEntry, InferenceError> {
        self.entries.iter().find(|entry| entry.is_called(name_or_alias_or_ref)).ok_or_else(|| {
            InferenceError::UnknownModel {
                name: name_or_alias_or_ref.chars().take(200).collect(),
                known: self.entries.iter().map(|entry| entry.name().to_owned()).collect(),
            }
        })
    }

    /// Finds a library for the platform of this program; `None` if there is none of that name.
    pub fn library(&self, name: &str) -> Option<&LibraryEntry> {
        let platform = format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS);
        self.libraries.iter().find(|library| library.name == name && library.platform == platform)
    }

    /// All models, in the order of `models.toml`.
    pub fn entries(&self) -> &[ModelEntry] {
        &self.entries
    }
}

/// The hash becomes a file name in the store, so it must not contain a path.
fn check_hash(file: &ModelFile) -> Result<(), String> {
    if file.sha256.len() != 64 || !file.sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(format!("{}: sha256 is not 64 lower-case hexadecimal digits", file.path));
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use carbon_core::{Classify, Fault, Retry};

    use super::*;

    #[test]
    fn the_builtin_catalogue_is_valid() {
        let catalogue = Catalogue::parse(include_str!("../models.toml")).unwrap();
        assert_eq!(catalogue.entries(), Catalogue::builtin().entries());
        let minilm = catalogue.find("minilm").unwrap();
        assert_eq!(minilm.model.to_string(), "all-MiniLM-L6-v2@1@f32");
        assert_eq!((minilm.dimension, minilm.max_tokens, minilm.files.len()), (384, 256, 3));
        let runtimes = catalogue.libraries.iter().filter(|library| library.name == "onnxruntime");
        assert_eq!(runtimes.count(), 3, "one for each platform");
        assert!(catalogue.library("libc").is_none());
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
    fn an_unknown_name_is_rejected_with_the_known_names() {
        for name in ["", "all-MiniLM-L6-v2@2@f32", "bert"] {
            let error = Catalogue::builtin().find(name).unwrap_err();
            assert_eq!((error.fault(), error.retry()), (Fault::User, Retry::Never));
            let message = error.to_string();
            assert!(message.contains("all-MiniLM-L6-v2, feature-hashing"), "{message}");
        }
    }

    #[test]
    fn a_hash_that_could_be_a_path_is_rejected() {
        let text = include_str!("../models.toml").replacen("953f9c0d463486b1", "../../../../../.", 1);
        assert!(Catalogue::parse(&text).unwrap_err().contains("sha256"));
    }
}
