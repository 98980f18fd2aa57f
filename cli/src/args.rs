//! The command line.

use std::borrow::Cow;
use std::path::PathBuf;

use carbon_core::TenantId;
use carbon_runtime::Config;
use clap::{Args, Parser, Subcommand};

use crate::commands::{completions, eval, generations, import, models, produce, search, status, tail, topology};
use crate::error::CliError;
use crate::term;
use crate::up::roles::Role;

/// A machine-learning platform whose only truth is an event log.
#[derive(Debug, Parser)]
#[command(name = "carbon-ml", version, propagate_version = true, max_term_width = 110, after_long_help = HELP)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

const HELP: &str = "\
Examples:
  carbon-ml up --demo                          start everything, with the samples in it
  carbon-ml produce entities entities.jsonl    append entities to the log
  carbon-ml search \"henry hub gas\" --limit 5   search what was appended
  carbon-ml tail ml.entity.changed.v1          watch the events
  carbon-ml status                             see how far every processor is
  carbon-ml serve embedder                     run one role of it, against Kafka

Settings come from ML_ environment variables over carbon-ml.toml over defaults;
docs/configuration.md lists them. Options go over all of them.

Exit codes: 0 ok, 1 failed, 2 wrong usage, 3 the service is not reachable or not ready,
4 not found, 5 a check did not hold.";

/// Options of every command.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Settings file; without it carbon-ml.toml of the working folder, if there is one
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Folder of the log and of everything derived from it [setting: ML_DATA_DIR]
    #[arg(long, global = true, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    pub data_dir: Option<String>,
    /// Address of query-api [setting: ML_URL]
    #[arg(long, global = true, value_name = "URL", value_hint = clap::ValueHint::Url)]
    pub url: Option<String>,
    /// Address of tracking-api [setting: ML_TRACKING_URL]
    #[arg(long, global = true, value_name = "URL", value_hint = clap::ValueHint::Url)]
    pub tracking_url: Option<String>,
    /// Tenant to act for; without it the service's default
    #[arg(long, global = true, value_name = "TENANT", value_parser = TenantId::parse)]
    pub tenant: Option<TenantId>,
}

impl Global {
    /// The configuration, with the options over it, and what is doubtful in it.
    pub fn load(&self) -> Result<(Config, Vec<String>), CliError> {
        let (mut config, warnings) = Config::load(self.config.as_deref())?;
        if self.data_dir.as_ref().is_some_and(String::is_empty) {
            return Err(CliError::Usage("--data-dir is empty; name a folder, or leave the option out".into()));
        }
        if let Some(folder) = &self.data_dir {
            config.data_dir = folder.parse().map_err(CliError::Usage)?;
        }
        if let Some(url) = &self.url {
            config.url.clone_from(url);
        }
        if let Some(url) = &self.tracking_url {
            config.tracking_url.clone_from(url);
        }
        Ok((config, warnings))
    }

    /// The same for commands whose output people read: doubts go to standard error.
    pub fn config(&self) -> Result<Config, CliError> {
        let (config, warnings) = self.load()?;
        for warning in warnings {
            term::note(format_args!("warning: {warning}"));
        }
        Ok(config)
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Up(UpArgs),
    Serve(ServeArgs),
    Topology(topology::TopologyArgs),
    Produce(produce::ProduceArgs),
    Search(search::SearchArgs),
    Tail(tail::TailArgs),
    Status(status::StatusArgs),
    Generations(generations::GenerationsArgs),
    Import(import::ImportArgs),
    Models(models::ModelsArgs),
    Eval(eval::EvalArgs),
    Completions(completions::CompletionsArgs),
}

/// Run the whole platform in this process
///
/// Log, processors, read models, search index, query-api and tracking-api, all embedded: no server is
/// needed beside it. Everything lies in the data folder and is there again after a restart. With
/// ML_KAFKA_BROKERS the log lies on that cluster instead. Ends on Ctrl-C or SIGTERM, after what was
/// accepted is durable.
#[derive(Clone, Debug, Args)]
#[command(after_long_help = UP_HELP)]
pub struct UpArgs {
    /// Append the sample entities once the log is open
    #[arg(long)]
    pub demo: bool,
    /// Sample entities as NDJSON, in place of those that the program carries
    #[arg(long, value_name = "FILE", requires = "demo", value_hint = clap::ValueHint::FilePath)]
    pub samples: Option<PathBuf>,
    /// Do not download the weights of the embedding model; without them on this machine it does not start
    #[arg(long)]
    pub no_pull: bool,
    /// Serve MLflow's web UI from this folder: `mlflow/server/js/build` of its Python package
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    pub mlflow_ui: Option<PathBuf>,
    /// Listen beyond loopback although there is no authentication
    #[arg(long)]
    pub insecure_listen: bool,
}

const UP_HELP: &str = "\
Examples:
  carbon-ml up                                  query-api on port 9005, tracking-api on port 5000
  carbon-ml up --demo                           with the sample entities of the energy markets
  carbon-ml up --demo --samples mine.jsonl      with entities of your own
  carbon-ml up --mlflow-ui .venv/lib/python3.12/site-packages/mlflow/server/js/build
  ML_QUERY_PORT=0 ML_DATA_DIR=./data carbon-ml up
  ML_LISTEN=0.0.0.0 carbon-ml up --insecure-listen
  ML_KAFKA_BROKERS=localhost:9092 ML_SCHEMA_REGISTRY_URL=http://localhost:8081 carbon-ml up

Then, in another terminal:
  carbon-ml search \"henry hub natural gas futures\"
  carbon-ml status --watch";

/// Run some of the roles in this process, against a Kafka cluster
///
/// query-api, indexer and projections share the files of a data folder and run together; each process that
/// runs them keeps a full copy, so that reads scale with their number. Embedders and tracking-apis run alone
/// or beside them; embedders share the partitions among themselves. A process without an API answers /health,
/// /ready and /metrics on ML_OPERATIONS_PORT.
#[derive(Clone, Debug, Args)]
#[command(after_long_help = SERVE_HELP)]
pub struct ServeArgs {
    /// What this process does
    #[arg(required = true, value_name = "ROLE")]
    pub roles: Vec<Role>,
    /// Do not download the weights of the embedding model; without them on this machine it does not start
    #[arg(long)]
    pub no_pull: bool,
    /// Serve MLflow's web UI from this folder: `mlflow/server/js/build` of its Python package
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    pub mlflow_ui: Option<PathBuf>,
    /// Listen beyond loopback although there is no authentication
    #[arg(long)]
    pub insecure_listen: bool,
}

const SERVE_HELP: &str = "\
Examples:
  export ML_KAFKA_BROKERS=localhost:9092 ML_SCHEMA_REGISTRY_URL=http://localhost:8081
  carbon-ml topology apply                              once: topics and schemas
  carbon-ml serve query-api indexer projections         reads, with a copy of its own
  carbon-ml serve embedder                              as many as the texts need
  carbon-ml serve tracking-api                          writes
  carbon-ml status                                      all of them, by what the brokers know";

impl UpArgs {
    /// The sample entities, one a line.
    pub fn demo_entities(&self) -> Result<Cow<'static, str>, CliError> {
        match &self.samples {
            None => Ok(Cow::Borrowed(include_str!("../../samples/entities.jsonl"))),
            Some(path) => Ok(Cow::Owned(std::fs::read_to_string(path).map_err(CliError::file(path))?)),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn options_go_over_the_configuration() {
        let cli =
            Cli::try_parse_from(["carbon-ml", "status", "--url", "http://q:1", "--tenant", "acme", "--data-dir", "d"]);
        let global = cli.unwrap().global;
        let (config, _) = global.load().unwrap();
        assert_eq!((config.url.as_str(), config.data_dir.path().to_str()), ("http://q:1", Some("d")));
        assert_eq!(global.tenant.unwrap().as_str(), "acme");
        assert!(Cli::try_parse_from(["carbon-ml", "status", "--tenant", "a b"]).is_err());
    }

    #[test]
    fn the_program_carries_its_samples() {
        let args = UpArgs { demo: true, samples: None, no_pull: false, mlflow_ui: None, insecure_listen: false };
        assert!(args.demo_entities().unwrap().lines().count() > 50);
        let missing = UpArgs { samples: Some("no-such-file".into()), ..args };
        assert_eq!(missing.demo_entities().unwrap_err().exit_code(), 4);
    }
}
