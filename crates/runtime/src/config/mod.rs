//! Configuration: `ML_` environment variables over `carbon-ml.toml` over built-in defaults.

mod settings;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use carbon_core::{Classify, Fault, Retry};

use settings::AllowPrivate;
pub use settings::{Config, LogFormat, Setting, settings};

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{name}={value:?}: {message}")]
    Value { name: String, value: String, message: String },
    #[error("{path}: {message}")]
    File { path: String, message: String },
    #[error("{name} is set, but this version does not support it: {instead}")]
    Unsupported { name: String, instead: &'static str },
    #[error("ML_KAFKA_BROKERS is set, but ML_SCHEMA_REGISTRY_URL is not: with Kafka a schema registry is required")]
    RegistryMissing,
    #[error(
        "listening on {listen} without authentication is open to everybody who can reach it; pass --insecure-listen if that is meant"
    )]
    InsecureListen { listen: String },
}

impl Classify for ConfigError {
    fn fault(&self) -> Fault {
        Fault::User
    }

    fn retry(&self) -> Retry {
        Retry::Never
    }
}

/// Settings of the platform's contract that this version cannot honour: refused rather than ignored.
const UNSUPPORTED: &[(&str, &str)] = &[
    ("ML_VECTOR_DB_DSN", "the index is embedded"),
    ("ML_REDIS_URL", "caches are in memory"),
    ("ML_AUTH_ENABLED", "there is no authentication yet; keep to loopback"),
    ("ML_JWT_SECRET_KEY", "there is no authentication yet"),
    ("ML_JWKS_URL", "there is no authentication yet"),
    ("ML_OTEL_EXPORTER", "scrape /metrics instead"),
];

/// Settings that are accepted without effect, and why.
const IGNORED: &[(&str, &str)] = &[("ML_INGEST_QUEUE", "the topic ml.entity.changed.v1 replaces it")];

impl Config {
    /// Reads the process's environment, and `carbon-ml.toml` from `file` or the working folder.
    /// Answers the warnings beside the configuration, since logs are not set up yet.
    pub fn load(file: Option<&Path>) -> Result<(Self, Vec<String>), ConfigError> {
        let environment: BTreeMap<String, String> =
            std::env::vars().filter(|(name, _)| name.starts_with("ML_")).collect();
        let path = file.map_or_else(|| PathBuf::from("carbon-ml.toml"), Path::to_owned);
        let shown = path.display().to_string();
        let fault = |message: String| ConfigError::File { path: shown.clone(), message };
        let table = match std::fs::read_to_string(&path) {
            Ok(text) => text.parse::<toml::Table>().map_err(|error| fault(error.to_string()))?,
            Err(error) if file.is_none() && error.kind() == std::io::ErrorKind::NotFound => toml::Table::new(),
            Err(error) => return Err(fault(error.to_string())),
        };
        Self::from_sources(&environment, &table)
    }

    fn from_sources(
        environment: &BTreeMap<String, String>,
        file: &toml::Table,
    ) -> Result<(Self, Vec<String>), ConfigError> {
        let mut warnings = Vec::new();
        let mut values = BTreeMap::new();
        for (key, value) in file {
            let name = format!("ML_{}", key.to_uppercase());
            let text = match value {
                toml::Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            values.insert(name, text);
        }
        values.extend(environment.clone());
        for (name, value) in &values {
            let off = matches!(value.as_str(), "" | "false" | "0");
            if let Some((_, instead)) = UNSUPPORTED.iter().find(|(known, _)| known == name) {
                if !off {
                    return Err(ConfigError::Unsupported { name: name.clone(), instead });
                }
            } else if let Some((_, why)) = IGNORED.iter().find(|(known, _)| known == name) {
                warnings.push(format!("{name} has no effect: {why}"));
            } else if settings::kafka_property(name).is_none() && !settings().iter().any(|setting| setting.name == name)
            {
                warnings.push(unknown(name));
            }
        }
        let config = Self::from_values(&values)?;
        if config.kafka_brokers.is_empty() {
            let idle = values.keys().filter(|name| {
                *name == "ML_SCHEMA_REGISTRY_URL"
                    || *name == "ML_KAFKA_REPLICATION"
                    || settings::kafka_property(name).is_some()
            });
            warnings.extend(idle.map(|name| format!("{name} has no effect without ML_KAFKA_BROKERS")));
        } else if config.schema_registry_url.expose().is_empty() {
            return Err(ConfigError::RegistryMissing);
        }
        Ok((config, warnings))
    }

    /// Whether the relational read models lie in a database that processes share.
    pub fn shares_rows(&self) -> bool {
        !self.backend_dsn.expose().is_empty()
    }

    /// Whether the log lies on Kafka.
    pub fn on_kafka(&self) -> bool {
        !self.kafka_brokers.is_empty()
    }

    pub fn is_production(&self) -> bool {
        matches!(self.env.as_str(), "production" | "prod")
    }

    /// How many copies of each partition new topics get.
    pub fn replication(&self) -> u16 {
        match self.kafka_replication {
            0 if self.is_production() => 3,
            0 => 1,
            set => set,
        }
    }

    /// Whether webhooks may be sent to addresses of this network's own.
    pub fn webhooks_may_be_private(&self) -> bool {
        match self.webhook_allow_private {
            AllowPrivate::Auto => !self.is_production(),
            AllowPrivate::Yes => true,
            AllowPrivate::No => false,
        }
    }

    /// Refuses to be open to the network without being asked to.
    pub fn check_listen(&self, insecure: bool) -> Result<(), ConfigError> {
        let loopback = self.listen.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        if loopback || insecure {
            return Ok(());
        }
        Err(ConfigError::InsecureListen { listen: self.listen.clone() })
    }
}

fn unknown(name: &str) -> String {
    let known = settings().iter().map(|setting| setting.name).chain(UNSUPPORTED.iter().map(|(known, _)| *known));
    let nearest = known.map(|known| (strsim::damerau_levenshtein(known, name), known)).min();
    match nearest {
        Some((distance, known)) if distance <= 4 => format!("{name} is not known; did you mean {known}?"),
        _ => format!("{name} is not known; docs/configuration.md lists what is"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn from(environment: &[(&str, &str)], file: &str) -> Result<(Config, Vec<String>), ConfigError> {
        let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Config::from_sources(&environment, &file.parse().unwrap())
    }

    #[test]
    fn environment_goes_over_file_over_defaults() {
        let (config, warnings) = from(&[("ML_QUERY_PORT", "7001")], "query_port = 7000\ntracking_port = 7002").unwrap();
        assert_eq!((config.query_port, config.tracking_port, config.max_batch_size.get()), (7001, 7002, 512));
        assert!(warnings.is_empty());
    }

    #[test]
    fn mistakes_are_named() {
        let error = from(&[("ML_QUERY_PORT", "many")], "").unwrap_err().to_string();
        assert!(error.contains("ML_QUERY_PORT"), "{error}");
        let error = from(&[("ML_AUTH_ENABLED", "true")], "").unwrap_err().to_string();
        assert!(error.contains("does not support"), "{error}");
        assert!(from(&[("ML_AUTH_ENABLED", "false")], "").is_ok());
        let (_, warnings) = from(&[("ML_QUERY_PROT", "1"), ("ML_INGEST_QUEUE", "q")], "").unwrap();
        assert!(warnings.iter().any(|w| w.contains("did you mean ML_QUERY_PORT")), "{warnings:?}");
        assert!(warnings.iter().any(|w| w.contains("ml.entity.changed.v1")), "{warnings:?}");
    }

    #[test]
    fn kafka_needs_a_registry_and_takes_any_property() {
        let brokers = ("ML_KAFKA_BROKERS", "k:9092");
        assert!(matches!(from(&[brokers], "").unwrap_err(), ConfigError::RegistryMissing));
        let registry = ("ML_SCHEMA_REGISTRY_URL", "http://me:hunter2@r:8081");
        let sasl = [("ML_KAFKA__SASL_USERNAME", "me"), ("ML_KAFKA__SASL_PASSWORD", "hunter2")];
        let (config, warnings) = from(&[brokers, registry, sasl[0], sasl[1]], "").unwrap();
        assert_eq!(config.kafka_properties.as_map()["sasl.username"], "me");
        assert!(warnings.is_empty() && config.on_kafka() && config.replication() == 1, "{warnings:?}");
        assert!(!format!("{config:?}").contains("hunter2"));
        let (config, _) = from(&[brokers, registry, ("ML_ENV", "production")], "kafka__linger_ms = 5").unwrap();
        assert_eq!((config.replication(), config.kafka_properties.as_map()["linger.ms"].as_str()), (3, "5"));
        let (_, warnings) = from(&[registry, ("ML_KAFKA__ACKS", "1")], "").unwrap();
        assert_eq!(warnings.len(), 2, "{warnings:?}");
    }

    #[test]
    fn private_webhooks_are_for_development_unless_it_is_said() {
        let may =
            |environment: &[(&str, &str)]| from(environment, "").map(|(config, _)| config.webhooks_may_be_private());
        let (production, name) = (("ML_ENV", "production"), "ML_WEBHOOK_ALLOW_PRIVATE");
        assert!(may(&[]).unwrap() && !may(&[production]).unwrap());
        assert!(may(&[production, (name, "true")]).unwrap() && !may(&[(name, "false")]).unwrap());
        assert!(may(&[(name, "maybe")]).is_err());
        let (config, _) = from(&[("ML_SECRET_KEY", "hunter2")], "").unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn listening_beyond_loopback_is_asked_for() {
        let (config, _) = from(&[("ML_LISTEN", "0.0.0.0")], "").unwrap();
        assert!(config.check_listen(false).is_err() && config.check_listen(true).is_ok());
    }

    /// `docs/configuration.md` is generated: `CARBON_WRITE_DOCS=1 cargo test -p carbon-runtime` writes it.
    #[test]
    fn the_reference_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
        let mut page = String::from(
            "# Configuration\n\nGenerated from the settings' own comments. Each key is an environment variable, or the\n\
             same name in `carbon-ml.toml` without `ML_` and in lower case (`query_port = 9005`). The environment goes\n\
             over the file, the file over the default.\n\n| variable | default | what |\n|---|---|---|\n",
        );
        for setting in settings() {
            page.push_str(&format!("| `{}` | `{}` | {} |\n", setting.name, setting.default, setting.doc.trim()));
        }
        page.push_str("\nRefused until a later version supports them, so that nobody relies on them:\n\n");
        for (name, instead) in UNSUPPORTED {
            page.push_str(&format!("- `{name}`: {instead}\n"));
        }
        page.push_str("\nAccepted without effect:\n\n");
        for (name, why) in IGNORED {
            page.push_str(&format!("- `{name}`: {why}\n"));
        }
        page.push_str(
            "\nWhere weights come from: `HF_ENDPOINT` names another model hub, `PIP_INDEX_URL` another package index, and\n\
             `SSL_CERT_FILE` further root certificates.\n",
        );
        page.push_str("\nAn unknown `ML_` variable is a warning that names the nearest known one.\n");
        if std::env::var_os("CARBON_WRITE_DOCS").is_some() {
            std::fs::write(path, &page).unwrap();
        }
        assert_eq!(std::fs::read_to_string(path).unwrap_or_default(), page, "docs/configuration.md is out of date");
    }
}
