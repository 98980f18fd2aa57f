//! `carbon-ml import`: what another system has kept becomes events.
//!
//! Nothing remembers how far an import came: every event has an id that is derived from its row, so that the log itself
//! says what is there. A repeat, and an import after a kill, appends what is missing.

mod experiments;
mod files;
mod known;
mod leftovers;
mod links;
mod logged_models;
mod models;
mod places;
mod report;
mod runs;
mod sink;
mod store;

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use carbon_core::TenantId;
use carbon_log::DataFolder;
use carbon_runtime::Config;
use carbon_schemas::events::KeyValue;
use carbon_topology::Topology;
use clap::{Args, Subcommand};
use indicatif::ProgressBar;
use sqlx::any::AnyRow;

use crate::args::Global;
use crate::error::CliError;
use crate::term;
use crate::up::open_log::{self, Instance, OpenLog};
use known::{Claims, Reader};
use places::Places;
use report::Report;
use sink::Sink;
use store::{Store, text};

/// Take over what another system has kept
#[derive(Debug, Args)]
#[command(after_long_help = HELP)]
pub struct ImportArgs {
    #[command(subcommand)]
    command: ImportCommand,
}

const HELP: &str = "\
Examples:
  carbon-ml import mlflow sqlite:///mlflow.db --artifacts ./mlartifacts
  carbon-ml import mlflow postgresql://mlflow@db/mlflow --dry-run";

#[derive(Debug, Subcommand)]
enum ImportCommand {
    /// Import the database of an MLflow server, and its artifacts
    ///
    /// Experiments, runs with all metric values, logged models, registered models with versions, stages and
    /// aliases become events in the log, with the times and ids that they have. The database is read only.
    /// Importing it again, or after an import was killed, appends what is missing and nothing twice. The
    /// embedded log belongs to one process: stop the server of the data folder first, and start it again
    /// afterwards. What has no event here (traces, webhooks, …) is counted and named at the end.
    #[command(after_long_help = MLFLOW_HELP)]
    Mlflow(MlflowArgs),
}

const MLFLOW_HELP: &str = "\
Examples:
  carbon-ml import mlflow sqlite:///mlflow.db --dry-run    count, and see what would be refused
  carbon-ml import mlflow sqlite:///mlflow.db              as MLflow's --backend-store-uri names it
  carbon-ml import mlflow sqlite:////srv/mlflow/mlflow.db --artifacts /srv/mlflow/mlartifacts
  carbon-ml import mlflow postgresql://mlflow:secret@db/mlflow --tenant acme
  ML_KAFKA_BROKERS=localhost:9092 ML_SCHEMA_REGISTRY_URL=http://localhost:8081 \\
    carbon-ml import mlflow sqlite:///mlflow.db            into a cluster, whose services may run

Exit codes: 1 if anything was refused, 2 for an address that is not read, 4 if there is no such database.";

#[derive(Debug, Args)]
struct MlflowArgs {
    /// The store: sqlite:///PATH or postgresql://…, as MLflow's --backend-store-uri
    #[arg(value_name = "STORE")]
    store: String,
    /// The server's artifact folder (its --artifacts-destination), or a copy of it: its files are imported
    ///
    /// Give it with the first import: where files lie is said once, when a run is imported.
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    artifacts: Option<PathBuf>,
    /// Workspace of the store
    #[arg(long, value_name = "NAME", default_value = store::DEFAULT_WORKSPACE)]
    workspace: String,
    /// Read and count, and write nothing; the log is not looked at
    #[arg(long)]
    dry_run: bool,
    /// The outcome as JSON: {"kinds", "not_imported", "refused", …}
    #[arg(long)]
    json: bool,
}

/// An import on its way.
struct Import {
    store: Store,
    sink: Sink,
    places: Places,
    /// `None` for a dry run.
    reader: Option<Reader>,
    claims: Claims,
    /// Whether the log has files of an earlier import.
    holds_files: bool,
    /// Folders, in the artifact folder, whose files are imported.
    roots: HashSet<String>,
    /// Imported files by path: size and SHA-256.
    files: BTreeMap<String, (u64, String)>,
    /// Experiments whose id was taken: theirs, and the one they have here.
    renumbered: Vec<(i64, i64)>,
    /// Metric values, and those that a logged model has too.
    values: u64,
    of_model_values: u64,
    of_model_experiments: HashSet<i64>,
    bar: ProgressBar,
}

pub async fn run(global: &Global, args: ImportArgs) -> Result<(), CliError> {
    let ImportCommand::Mlflow(args) = args.command;
    let config = global.config()?;
    let tenant = global.tenant.clone().unwrap_or_else(TenantId::default_tenant);
    let places = Places::new(args.artifacts.as_deref())?;
    let store = Store::open(&args.store, &args.workspace).await?;
    let topology = Arc::new(Topology::builtin().map_err(|error| CliError::Failed(error.to_string()))?);
    // The lock goes with the folder.
    let (folder, open) = if args.dry_run { (None, None) } else { open(&config, &topology).await? };
    let log = open.map(|open| open.log);
    let reader = log.clone().map(|log| Reader::new(log, topology, tenant.clone()));
    let waiting = term::bar(None, "{spinner} reading what the log holds");
    let ((known, holds_files), claims) = match &reader {
        Some(reader) => (reader.ids().await?, reader.claims().await?),
        None => Default::default(),
    };
    waiting.finish_and_clear();
    let blobs = match (places.root(), &log) {
        (Some(_), Some(_)) => Some(crate::up::artifacts(&config).await?),
        _ => None,
    };
    let mut import = Import {
        store,
        sink: Sink::new(tenant.clone(), Report::default(), log.clone(), known),
        places,
        reader,
        claims,
        holds_files,
        roots: HashSet::new(),
        files: BTreeMap::new(),
        renumbered: Vec::new(),
        values: 0,
        of_model_values: 0,
        of_model_experiments: HashSet::new(),
        bar: ProgressBar::hidden(),
    };
    let outcome = import.everything(blobs.as_ref()).await;
    import.bar.finish_and_clear();
    if let Some(log) = log {
        log.close().await;
    }
    drop(folder);
    outcome?;
    import.tell(&args, tenant.as_str())
}

/// The log, and the data folder that it lies in.
async fn open(config: &Config, topology: &Topology) -> Result<(Option<DataFolder>, Option<OpenLog>), CliError> {
    if config.on_kafka() {
        return Ok((None, Some(open_log::kafka(config, topology, Instance::Passing).await?)));
    }
    let folder = DataFolder::open(config.data_dir.path()).map_err(|error| {
        let hint = match error {
            carbon_log::LogError::Locked { .. } => {
                ". The embedded log is one process's: stop the server, import, and start it again"
            }
            _ => "",
        };
        CliError::Failed(format!("{error}{hint}"))
    })?;
    let open = open_log::embedded(&folder, topology).await?;
    Ok((Some(folder), Some(open)))
}

impl Import {
    async fn everything(&mut self, blobs: Option<&carbon_artifacts::ArtifactStore>) -> Result<(), CliError> {
        let experiments = experiments::import(self).await?;
        let mut ids: Vec<_> = experiments.into_iter().collect();
        ids.sort_unstable_by_key(|(id, _)| *id);
        self.of_model_experiments = runs::with_models(self).await?;
        let runs = self.store.count("runs", &[]).await?;
        self.bar = term::bar(Some(runs), "runs {bar:30} {pos}/{len}  {msg}  {eta} left");
        for (id, to) in &ids {
            runs::import(self, *id, *to).await?;
        }
        self.sink.flush().await?;
        self.bar.finish_and_clear();
        for (id, to) in &ids {
            logged_models::import(self, *id, *to).await?;
        }
        self.sink.flush().await?;
        files::import(self, blobs).await?;
        let models = self.store.count("registered_models", &[]).await?;
        self.bar = term::bar(Some(models), "registered models {bar:30} {pos}/{len}  {eta} left");
        models::import(self).await?;
        self.sink.flush().await?;
        leftovers::count(self).await
    }

    /// Reads again who has which experiment and model, after what was appended.
    async fn read_claims(&mut self) -> Result<(), CliError> {
        if let Some(reader) = &self.reader {
            self.claims = reader.claims().await?;
        }
        Ok(())
    }

    /// Files below this place are imported.
    fn keep_root(&mut self, uri: &str) {
        if let Some(root) = self.places.path_of(uri).filter(|root| !root.is_empty()) {
            self.roots.insert(root);
        }
    }

    fn tell(&self, args: &MlflowArgs, tenant: &str) -> Result<(), CliError> {
        let report = &self.sink.report;
        if args.json {
            term::json(&report.json(&self.store.shown, tenant, args.dry_run, &self.renumbered))?;
        } else {
            report.print(args.dry_run)?;
            for (from, to) in &self.renumbered {
                term::line(format_args!("experiment {from} of the store is experiment {to} here: its id was taken"))?;
            }
        }
        match report.refused {
            0 => Ok(()),
            count => Err(CliError::Failed(format!(
                "{} {} refused; everything else {} imported",
                term::thousands(count),
                if count == 1 { "thing was" } else { "things were" },
                if args.dry_run { "would be" } else { "is" },
            ))),
        }
    }
}

/// Keys and values of a statement's first two columns.
fn pairs(rows: &[AnyRow]) -> Result<Vec<KeyValue>, CliError> {
    rows.iter().map(|row| Ok(KeyValue::new(text(row, 0)?, text(row, 1)?))).collect()
}

fn pair_size(pair: &KeyValue) -> usize {
    pair.key.len() + pair.value.len()
}
