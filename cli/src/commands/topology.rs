//! `carbon-ml topology`.

use std::path::PathBuf;

use carbon_log::{EventLog as _, KafkaLog, LogError};
use carbon_topology::{Mistake, Topology, TopologyError};
use clap::{Args, Subcommand};
use serde_json::json;

use crate::args::Global;
use crate::error::CliError;
use crate::term;
use crate::up::open_log;

/// Check, draw or apply the topology: topics, processors and read models
///
/// Without a file it is the topology that this program was built with.
#[derive(Debug, Args)]
#[command(after_long_help = HELP)]
pub struct TopologyArgs {
    #[command(subcommand)]
    command: TopologyCommand,
}

#[derive(Debug, Subcommand)]
enum TopologyCommand {
    /// Report every mistake at once; exit 5 if there is one
    #[command(after_long_help = "\
Examples:
  carbon-ml topology check                   the topology of this program
  carbon-ml topology check topology.yaml     a file, before it is built in
  carbon-ml topology check topology.yaml --json")]
    Check {
        #[arg(value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
        file: Option<PathBuf>,
        /// Mistakes as JSON: {"ok", "mistakes": [{"at", "what"}]}
        #[arg(long)]
        json: bool,
    },
    /// Make on the Kafka cluster what the topology wants: topics, and schemas in the registry
    ///
    /// Missing topics are made and changed retentions are taken over; what would lose records, such as another
    /// number of partitions, is refused before anything changes. Every schema version is registered, and its subject
    /// is set to FULL_TRANSITIVE compatibility. To run it again changes nothing. Exit 5 if something is refused.
    #[command(after_long_help = "\
Examples:
  ML_KAFKA_BROKERS=localhost:9092 ML_SCHEMA_REGISTRY_URL=http://localhost:8081 carbon-ml topology apply
  ML_ENV=production carbon-ml topology apply   three copies of each partition, two of them in sync")]
    Apply {
        /// What was made as JSON: {"cluster", "topics": [..], "schemas": [{"subject", "version", "id"}]}
        #[arg(long)]
        json: bool,
    },
    /// Draw how events flow
    #[command(after_long_help = "\
Examples:
  carbon-ml topology graph
  carbon-ml topology graph topology.yaml")]
    Graph {
        #[arg(value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
        file: Option<PathBuf>,
    },
}

const HELP: &str = "\
Examples:
  carbon-ml topology check topology.yaml
  carbon-ml topology graph
  carbon-ml topology apply";

pub async fn run(global: &Global, args: TopologyArgs) -> Result<(), CliError> {
    match args.command {
        TopologyCommand::Apply { json } => apply(global, json).await,
        TopologyCommand::Check { file, json } => check(file, json),
        TopologyCommand::Graph { file } => {
            let topology = read(file.as_ref())?.map_err(|error| CliError::CheckFailed(error.to_string()))?;
            term::line(topology.graph())
        }
    }
}

async fn apply(global: &Global, json: bool) -> Result<(), CliError> {
    let config = global.config()?;
    if !config.on_kafka() {
        return Err(CliError::Usage(
            "the embedded log makes its topics by itself; to apply the topology to a cluster, set ML_KAFKA_BROKERS"
                .into(),
        ));
    }
    let topology = Topology::builtin().map_err(|error| CliError::CheckFailed(error.to_string()))?;
    let refused = |error: LogError| match error {
        LogError::TopicDiffers { .. } | LogError::SchemaRefused { .. } => CliError::CheckFailed(error.to_string()),
        other => open_log::unusable(&other),
    };
    let log = KafkaLog::connect(open_log::options(&config, open_log::Instance::Passing)).await.map_err(refused)?;
    let specs = topology.specs();
    let names: Vec<_> = specs.iter().map(|spec| spec.name.clone()).collect();
    let before: Vec<_> = log.describe().await.map_err(refused)?.into_iter().map(|topic| topic.spec).collect();
    log.check_schemas(&names).await.map_err(refused)?;
    log.ensure_topics(&specs).await.map_err(refused)?;
    let schemas = log.register_schemas(&names).await.map_err(refused)?;
    let done = |name| match before.iter().find(|spec| spec.name == name) {
        None => "made",
        Some(found) if specs.contains(found) => "as it was",
        Some(_) => "changed",
    };
    let topics: Vec<_> = names.iter().map(|name| (name, done(name.clone()))).collect();
    let cluster = log.identity().to_owned();
    log.close().await;
    if json {
        let topics: Vec<_> = topics.iter().map(|(name, done)| json!({"name": name, "done": done})).collect();
        let schemas: Vec<_> = schemas
            .iter()
            .map(|schema| json!({"subject": schema.subject, "version": schema.version, "id": schema.id}))
            .collect();
        return term::json(&json!({"cluster": cluster, "topics": topics, "schemas": schemas}));
    }
    let mut table = term::table(&["topic", "done"]);
    for (name, done) in &topics {
        table.add_row([name.as_str(), *done]);
    }
    term::show(&table)?;
    let mut table = term::table(&["subject", "version", "id"]);
    for schema in &schemas {
        table.add_row([schema.subject.clone(), format!("{:03}", schema.version), schema.id.to_string()]);
    }
    term::show(&table)?;
    term::line(format_args!("\ncluster {cluster} has {} topics and {} schemas", topics.len(), schemas.len()))
}

fn read(file: Option<&PathBuf>) -> Result<Result<Topology, TopologyError>, CliError> {
    Ok(match file {
        None => Topology::builtin(),
        Some(path) => Topology::parse(&std::fs::read_to_string(path).map_err(CliError::file(path))?),
    })
}

fn check(file: Option<PathBuf>, json: bool) -> Result<(), CliError> {
    let shown = file.as_ref().map_or_else(|| "the built-in topology".to_owned(), |path| path.display().to_string());
    let mistakes = match read(file.as_ref())? {
        Ok(topology) if json => {
            return term::json(&json!({"ok": true, "mistakes": [], "topics": topology.topics.len(),
                "processors": topology.processors.len(), "read_models": topology.read_models.len()}));
        }
        Ok(topology) => {
            return term::line(format_args!(
                "{shown} is sound: {} topics, {} processors, {} read models",
                topology.topics.len(),
                topology.processors.len(),
                topology.read_models.len()
            ));
        }
        Err(TopologyError::Mistakes(mistakes)) => mistakes,
        Err(TopologyError::Syntax(what)) => vec![Mistake { at: "syntax".into(), what }],
    };
    if json {
        let list: Vec<_> = mistakes.iter().map(|mistake| json!({"at": mistake.at, "what": mistake.what})).collect();
        term::json(&json!({"ok": false, "mistakes": list}))?;
    } else {
        for mistake in &mistakes {
            term::line(mistake)?;
        }
    }
    let count = match mistakes.len() {
        1 => "1 mistake".to_owned(),
        many => format!("{many} mistakes"),
    };
    Err(CliError::CheckFailed(format!("{shown} has {count}; mend them, then check again")))
}
