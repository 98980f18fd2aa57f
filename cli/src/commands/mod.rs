//! The commands, one file each.

pub mod completions;
pub mod eval;
pub mod generations;
pub mod import;
pub mod models;
pub mod produce;
pub mod search;
pub mod status;
pub mod tail;
pub mod topology;

use crate::args::{Cli, Command};
use crate::error::CliError;

pub async fn run(cli: Cli) -> Result<(), CliError> {
    let global = cli.global;
    match cli.command {
        Command::Up(args) => {
            let config = service(&global)?;
            crate::up::up(config, args).await
        }
        Command::Serve(args) => {
            let config = service(&global)?;
            crate::up::serve(config, args).await
        }
        Command::Topology(args) => topology::run(&global, args).await,
        Command::Produce(args) => produce::run(&global, args).await,
        Command::Search(args) => search::run(&global, args).await,
        Command::Tail(args) => tail::run(&global, args).await,
        Command::Status(args) => status::run(&global, args).await,
        Command::Generations(args) => generations::run(&global, args).await,
        Command::Import(args) => import::run(&global, args).await,
        Command::Models(args) => models::run(&global, args).await,
        Command::Eval(args) => eval::run(&global, args).await,
        Command::Completions(args) => completions::run(&args),
    }
}

/// The configuration of a process that serves, with its logs set up.
fn service(global: &crate::args::Global) -> Result<carbon_runtime::Config, CliError> {
    let (config, warnings) = global.load()?;
    carbon_runtime::init_logs(&config)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    Ok(config)
}
