//! Logs as JSON lines, and metrics for Prometheus.

use std::io::IsTerminal as _;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing::Subscriber;
use tracing::field::{Field, Visit};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::LogFormat;
use crate::config::{Config, ConfigError};
use crate::panics::log_panics;

/// Sets up logs on standard error. Called once, by the binary.
pub fn init_logs(config: &Config) -> Result<(), ConfigError> {
    // The statements of the stores are of use only to who asks for them by name.
    let level = match config.log_level.contains("sqlx") {
        true => config.log_level.clone(),
        false => format!("sqlx=warn,{}", config.log_level),
    };
    let filter = EnvFilter::try_new(level).map_err(|error| ConfigError::Value {
        name: "ML_LOG_LEVEL".into(),
        value: config.log_level.clone(),
        message: error.to_string(),
    })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second call, as in tests, changes nothing.
    let terminal = std::io::stderr().is_terminal();
    let _ = match config.log_format {
        LogFormat::Auto if terminal => builder.with_ansi(true).finish().try_init(),
        LogFormat::Auto | LogFormat::Json => builder.event_format(JsonLines).finish().try_init(),
        LogFormat::Text => builder.with_ansi(terminal).finish().try_init(),
    };
    log_panics();
    Ok(())
}

/// `{"ts","service","level","message",…fields}`.
struct JsonLines;

struct Fields(serde_json::Map<String, serde_json::Value>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}").into());
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.into());
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().to_owned(), value.into());
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().to_owned(), value.into());
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.insert(field.name().to_owned(), value.into());
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &tracing::Event<'_>,
    ) -> std::fmt::Result {
        use carbon_core::Clock as _;
        let mut fields = Fields(serde_json::Map::new());
        fields.0.insert("ts".into(), carbon_core::SystemClock.now().to_rfc3339().into());
        fields.0.insert("service".into(), "carbon-ml".into());
        fields.0.insert("level".into(), event.metadata().level().as_str().to_lowercase().into());
        fields.0.insert("target".into(), event.metadata().target().into());
        event.record(&mut fields);
        writeln!(writer, "{}", serde_json::Value::Object(fields.0))
    }
}

/// The process's metrics, rendered for a scrape.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

impl Metrics {
    /// Installs the recorder. A second one in the same process, as in tests, records nothing.
    pub fn install() -> Self {
        const MS: &[f64] = &[0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 5000.0];
        const SECONDS: &[f64] = &[0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0];
        const SIZES: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0];
        let suffixes =
            [("_ms", MS), ("_seconds", SECONDS), ("_size", SIZES), ("_size_histogram", SIZES), ("_per_query", SIZES)];
        let builder = suffixes.into_iter().try_fold(PrometheusBuilder::new(), |builder, (suffix, buckets)| {
            builder.set_buckets_for_metric(Matcher::Suffix(suffix.to_owned()), buckets)
        });
        // The buckets are constants and not empty, the only error there is.
        let builder = builder.unwrap_or_else(|_| PrometheusBuilder::new());
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        let _ = metrics::set_global_recorder(recorder);
        Self(handle)
    }

    pub fn render(&self) -> String {
        self.0.run_upkeep();
        self.0.render()
    }
}
