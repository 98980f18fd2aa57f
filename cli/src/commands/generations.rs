//! `carbon-ml generations`: what the log says of them, and which is served.

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::args::Global;
use crate::client::Service;
use crate::commands::status;
use crate::error::CliError;
use crate::term;

/// List the generations of the read models; retire one
///
/// A generation is one copy of a read model, filled from the log. The active one is served; the one before is on standby
/// and follows the log.
#[derive(Debug, Args)]
#[command(after_long_help = HELP)]
pub struct GenerationsArgs {
    #[command(subcommand)]
    command: GenerationsCommand,
}

const HELP: &str = "\
Examples:
  carbon-ml generations list
  carbon-ml generations list --json | jq -r '.generations[] | select(.state == \"standby\") | .id'
  carbon-ml generations retire registry-v4-1";

#[derive(Debug, Subcommand)]
enum GenerationsCommand {
    /// All generations with their states
    #[command(after_long_help = "\
Examples:
  carbon-ml generations list
  carbon-ml generations list --read-model registry --json")]
    List {
        /// Those of one read model
        #[arg(long, value_name = "NAME")]
        read_model: Option<String>,
        /// The service's answer as JSON
        #[arg(long)]
        json: bool,
    },
    /// Drop a generation's rows wherever they are held; it cannot be activated again
    #[command(after_long_help = "\
Examples:
  carbon-ml generations retire registry-v4-1
  carbon-ml generations retire search-v1-all-MiniLM-L6-v2@1@f32-1 --force")]
    Retire {
        /// The generation's id
        id: String,
        /// Also the active one: its processes go on with the one before, or fill another
        #[arg(long)]
        force: bool,
        /// The service's answer as JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Listed {
    generations: Vec<status::Generation>,
}

pub async fn run(global: &Global, args: GenerationsArgs) -> Result<(), CliError> {
    let config = global.config()?;
    let tracking = Service::tracking(&config, global)?;
    match args.command {
        GenerationsCommand::List { read_model, json } => {
            let mut answer: Value = tracking.json(tracking.get("/generations")).await?;
            if let (Some(name), Some(list)) = (&read_model, answer["generations"].as_array_mut()) {
                list.retain(|generation| generation["read_model"] == name.as_str());
            }
            if json {
                return term::json(&answer);
            }
            let listed: Listed = serde_json::from_value(answer).map_err(|error| {
                CliError::Failed(format!("tracking-api's answer cannot be read: {error}; --json shows it as it is"))
            })?;
            match listed.generations.is_empty() {
                true => term::line("generations: none"),
                false => term::show(&status::generations(&listed.generations)),
            }
        }
        GenerationsCommand::Retire { id, force, json } => {
            if id.is_empty() || id.contains(['/', '?', '#', '%']) {
                return Err(CliError::Usage(format!(
                    "{id:?} is not the id of a generation; `generations list` shows them"
                )));
            }
            let request = tracking.post(&format!("/generations/{id}/retire")).json(&json!({"force": force}));
            let answer: Value = tracking.json(request).await?;
            match json {
                true => term::json(&answer),
                false => term::line(format_args!("{} is retired", term::printable(&id))),
            }
        }
    }
}
