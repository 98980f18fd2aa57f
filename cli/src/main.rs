//! `carbon-ml`: one binary, every role and every command.

mod args;
mod client;
mod commands;
mod error;
mod ndjson;
mod searchable;
mod sse;
mod term;
mod up;
mod upload;

use std::process::ExitCode;

use clap::Parser as _;

use args::Cli;
use error::CliError;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // The HTTP client brings no TLS provider of its own. A second installation would change nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    carbon_runtime::follow_failpoints();
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return CliError::Failed(format!("threads cannot be started: {error}")).report(),
    };
    let outcome = runtime.block_on(commands::run(cli));
    // A read of standard input that nobody waits for any more would hold up the end.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(),
    }
}
