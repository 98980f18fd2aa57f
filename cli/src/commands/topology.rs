//! `carbon-ml topology`.

use std::path::PathBuf;

use carbon_topology::{Mistake, Topology, TopologyError};
use clap::{Args, Subcommand};
use serde_json::json;

use crate::error::CliError;
use crate::term;

/// Check or draw the topology: topics, processors and read models
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
  carbon-ml topology graph";

pub fn run(args: TopologyArgs) -> Result<(), CliError> {
    match args.command {
        TopologyCommand::Check { file, json } => check(file, json),
        TopologyCommand::Graph { file } => {
            let topology = read(file.as_ref())?.map_err(|error| CliError::CheckFailed(error.to_string()))?;
            term::line(topology.graph())
        }
    }
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
