//! Every setting, declared once: its variable, its default, and what its documentation says.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;

use super::ConfigError;

/// A setting as the reference shows it.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub name: &'static str,
    pub default: &'static str,
    pub doc: &'static str,
}

macro_rules! declare {
    ($($(#[doc = $doc:literal])+ $field:ident: $kind:ty = $name:literal, $default:literal;)+) => {
        /// The configuration of a process.
        #[derive(Clone, Debug)]
        pub struct Config {
            $($(#[doc = $doc])+ pub $field: $kind,)+
        }

        /// All settings, in the order of the reference.
        pub fn settings() -> &'static [Setting] {
            &[$(Setting { name: $name, default: $default, doc: concat!($($doc),+) }),+]
        }

        impl Config {
            pub(super) fn from_values(values: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
                Ok(Self { $($field: read($name, values.get($name).map_or($default, String::as_str))?),+ })
            }
        }
    };
}

declare! {
    /// The folder of the log and of everything derived from it; empty: the platform's data folder, `carbon-ml`.
    data_dir: DataDir = "ML_DATA_DIR", "";
    /// The address to listen on.
    listen: String = "ML_LISTEN", "127.0.0.1";
    /// The port of query-api; 0 takes a free one.
    query_port: u16 = "ML_QUERY_PORT", "9005";
    /// The port of tracking-api; 0 takes a free one.
    tracking_port: u16 = "ML_TRACKING_PORT", "5000";
    /// Where commands find query-api.
    url: String = "ML_URL", "http://127.0.0.1:9005";
    /// Where commands find tracking-api.
    tracking_url: String = "ML_TRACKING_URL", "http://127.0.0.1:5000";
    /// A name for this installation, shown in logs and status.
    env: String = "ML_ENV", "development";
    /// The model of the search index, by name or alias; empty: the one that the topology names.
    embedding_model: String = "ML_EMBEDDING_MODEL", "";
    /// The index server; `embedded` is the only one in this version.
    vector_backend: VectorBackend = "ML_VECTOR_BACKEND", "embedded";
    /// How the two halves of a hybrid search are fused unless a request says otherwise: `weighted` or `rrf`.
    search_fusion_algorithm: String = "ML_SEARCH_FUSION_ALGORITHM", "weighted";
    /// The weight of the dense half in weighted fusion, 0 to 1.
    search_dense_weight: f32 = "ML_SEARCH_DENSE_WEIGHT", "0.7";
    /// The most items that one /embed request may hold.
    max_batch_size: NonZeroUsize = "ML_MAX_BATCH_SIZE", "512";
    /// `error`, `warn`, `info`, `debug` or `trace`, or a filter such as `info,carbon_log=debug`.
    log_level: String = "ML_LOG_LEVEL", "info";
    /// `json`, `text` for people, or `auto`: text on a terminal, else json.
    log_format: LogFormat = "ML_LOG_FORMAT", "auto";
    /// How often the embedded log is compacted, in seconds; 0 never.
    compaction_interval_s: u64 = "ML_COMPACTION_INTERVAL_S", "3600";
}

/// A data folder; empty means the platform's own.
#[derive(Clone, Debug)]
pub struct DataDir(PathBuf);

impl DataDir {
    pub fn path(&self) -> &std::path::Path {
        &self.0
    }
}

impl FromStr for DataDir {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if !text.is_empty() {
            return Ok(Self(PathBuf::from(text)));
        }
        let base = match (std::env::var_os("XDG_DATA_HOME"), std::env::home_dir()) {
            (Some(base), _) if !base.is_empty() => PathBuf::from(base),
            (_, Some(home)) if cfg!(target_os = "macos") => home.join("Library/Application Support"),
            (_, Some(home)) => home.join(".local/share"),
            _ => return Err("there is no home folder; set ML_DATA_DIR".into()),
        };
        Ok(Self(base.join("carbon-ml")))
    }
}

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Auto,
    Json,
    Text,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "json" => Ok(Self::Json),
            "text" => Ok(Self::Text),
            _ => Err("expected auto, json or text".into()),
        }
    }
}

/// The index servers of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VectorBackend;

impl FromStr for VectorBackend {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "embedded" => Ok(Self),
            _ => Err("this version has the embedded index alone".into()),
        }
    }
}

fn read<T: FromStr<Err: std::fmt::Display>>(name: &str, value: &str) -> Result<T, ConfigError> {
    value.trim().parse().map_err(|error: T::Err| ConfigError::Value {
        name: name.to_owned(),
        value: value.to_owned(),
        message: error.to_string(),
    })
}
