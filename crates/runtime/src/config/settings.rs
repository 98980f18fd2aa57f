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
            /// Further properties of librdkafka, by its own names: `ML_KAFKA__LINGER_MS` is `linger.ms`.
            pub kafka_properties: KafkaProperties,
        }

        /// All settings, in the order of the reference.
        pub fn settings() -> &'static [Setting] {
            &[$(Setting { name: $name, default: $default, doc: concat!($($doc),+) }),+]
        }

        impl Config {
            pub(super) fn from_values(values: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
                Ok(Self {
                    $($field: read($name, values.get($name).map_or($default, String::as_str))?,)+
                    kafka_properties: KafkaProperties(
                        values.iter().filter_map(|(name, value)| Some((kafka_property(name)?, value.clone()))).collect(),
                    ),
                })
            }
        }
    };
}

declare! {
    /// The folder of the embedded log and of everything derived from it; empty: the platform's data folder, `carbon-ml`.
    data_dir: DataDir = "ML_DATA_DIR", "";
    /// The Kafka cluster that holds the log, `host:port,host:port`; empty: the embedded log in the data folder. Every
    /// librdkafka property can be set as `ML_KAFKA__<PROPERTY>`, with `_` for `.`: `ML_KAFKA__SECURITY_PROTOCOL=sasl_ssl`.
    kafka_brokers: String = "ML_KAFKA_BROKERS", "";
    /// The schema registry (Confluent API), required with Kafka; user and password may stand in the address.
    schema_registry_url: Secret = "ML_SCHEMA_REGISTRY_URL", "";
    /// The port of /health, /ready and /metrics of a process that serves no API; 0 takes a free one.
    operations_port: u16 = "ML_OPERATIONS_PORT", "9006";
    /// How many copies of each partition `topology apply` asks for; 0: 3 where ML_ENV is production, else 1.
    kafka_replication: u16 = "ML_KAFKA_REPLICATION", "0";
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
    /// Where files of runs and models lie: a folder, or `s3://bucket/prefix`; empty: `artifacts` in the data folder.
    artifact_uri: String = "ML_MLFLOW_ARTIFACT_URI", "";
    /// The Postgres database of the relational read models, `postgresql://user:password@host:5432/database`, of which each
    /// generation has a schema and which the processes of a platform share; empty: files in the data folder.
    backend_dsn: Secret = "ML_MLFLOW_BACKEND_DSN", "";
    /// The folder of MLflow's web UI, `mlflow/server/js/build` of its Python package; empty: there is no web UI.
    mlflow_ui: String = "ML_MLFLOW_UI", "";
    /// The address of the S3 server (MinIO and others); empty: Amazon's.
    minio_endpoint: String = "ML_MINIO_ENDPOINT", "";
    /// The access key of the S3 server; empty: what the environment gives (`AWS_*`, roles).
    minio_access_key: Secret = "ML_MINIO_ACCESS_KEY", "";
    /// The secret key of the S3 server.
    minio_secret_key: Secret = "ML_MINIO_SECRET_KEY", "";
    /// What seals the secrets of webhooks in the log: a long text that nobody guesses (`openssl rand -base64 32`), the same
    /// in every process. Without it a webhook cannot have a secret; with another one those sealed before cannot be opened.
    secret_key: Secret = "ML_SECRET_KEY", "";
    /// Whether webhooks may be sent to loopback, private and link-local addresses: `true`, `false`, or `auto`: unless ML_ENV
    /// is production. Where they may, whoever creates a webhook can make this process call machines of its own network.
    webhook_allow_private: AllowPrivate = "ML_WEBHOOK_ALLOW_PRIVATE", "auto";
    /// A name for this installation, shown in logs and status; `production` makes some defaults stricter.
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

/// The librdkafka property that a variable sets.
pub(super) fn kafka_property(variable: &str) -> Option<String> {
    let property = variable.strip_prefix("ML_KAFKA__").filter(|name| !name.is_empty())?;
    Some(property.to_lowercase().replace('_', "."))
}

/// Properties of librdkafka; their values may be secrets, so only the names are shown.
#[derive(Clone, Default)]
pub struct KafkaProperties(BTreeMap<String, String>);

impl KafkaProperties {
    pub fn as_map(&self) -> &BTreeMap<String, String> {
        &self.0
    }
}

impl std::fmt::Debug for KafkaProperties {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// A key, or an address that may hold a password: never shown.
#[derive(Clone, Default)]
pub struct Secret(String);

impl Secret {
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_empty() { "\"\"" } else { "..." })
    }
}

impl FromStr for Secret {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(Self(text.to_owned()))
    }
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

/// Whether addresses of one's own network may be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllowPrivate {
    Auto,
    Yes,
    No,
}

impl FromStr for AllowPrivate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "true" | "1" => Ok(Self::Yes),
            "false" | "0" => Ok(Self::No),
            _ => Err("expected auto, true or false".into()),
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
