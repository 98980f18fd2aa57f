//! `carbon-ml up` and `carbon-ml serve`: all roles in one process, or some.

mod assembly;
mod demo;
mod embedders;
mod models;
pub mod open_log;
mod platform;
mod probes;
mod read_models;
pub mod roles;
mod servers;
mod watch;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use carbon_runtime::{Config, Health, Metrics, Shutdown};
use carbon_store::Postgres;
use carbon_topology::Topology;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::args::{ServeArgs, UpArgs};
use crate::commands::models::Bar;
use crate::error::CliError;
use crate::term;
pub use platform::artifacts;
use platform::{Platform, Start};
use roles::Roles;

pub async fn up(mut config: Config, args: UpArgs) -> Result<(), CliError> {
    config.check_listen(args.insecure_listen)?;
    with_ui(&mut config, args.mlflow_ui.as_deref())?;
    let shared = config.shares_rows();
    let samples = if args.demo { Some(args.demo_entities()?) } else { None };
    run(config, Roles::all(shared), args.no_pull, samples.as_deref()).await
}

/// Takes the folder of the web UI from the command line, and looks whether it is one.
fn with_ui(config: &mut Config, folder: Option<&Path>) -> Result<(), CliError> {
    if let Some(folder) = folder {
        config.mlflow_ui = folder.display().to_string();
    }
    if !config.mlflow_ui.is_empty() && !Path::new(&config.mlflow_ui).join("index.html").is_file() {
        return Err(CliError::Usage(format!(
            "{:?} holds no index.html: the web UI is the folder mlflow/server/js/build of the Python package mlflow",
            config.mlflow_ui
        )));
    }
    Ok(())
}

pub async fn serve(mut config: Config, args: ServeArgs) -> Result<(), CliError> {
    config.check_listen(args.insecure_listen)?;
    with_ui(&mut config, args.mlflow_ui.as_deref())?;
    let roles = Roles::new(&args.roles, config.shares_rows())?;
    if !config.on_kafka() && !roles.is_all() {
        return Err(CliError::Usage(
            "the embedded log serves one process: run `carbon-ml up`, or set ML_KAFKA_BROKERS to share a cluster"
                .into(),
        ));
    }
    run(config, roles, args.no_pull, None).await
}

async fn run(config: Config, roles: Roles, no_pull: bool, samples: Option<&str>) -> Result<(), CliError> {
    let began = Instant::now();
    let config = Arc::new(config);
    let topology = Arc::new(Topology::builtin().map_err(|error| CliError::Failed(error.to_string()))?);
    let shutdown = Shutdown::new();
    let mut signals = Signals::new()?;
    let start = Start {
        config: config.clone(),
        topology,
        metrics: Metrics::install(),
        shutdown: shutdown.clone(),
        roles: roles.clone(),
        pull: if no_pull { None } else { Some(Arc::new(Bar::new())) },
    };
    let platform = tokio::select! {
        platform = Platform::start(start) => platform?,
        // Nothing was accepted yet that would have to be drained.
        () = signals.next() => return Err(CliError::Failed("interrupted while starting".into())),
    };
    announce(&platform, &config, &roles)?;
    let outcome = tokio::select! {
        outcome = until_cancelled(&platform, samples, &roles, began) => outcome,
        () = signals.next() => Ok(()),
        failure = platform.supervisor.fatal() => Err(CliError::Failed(failure)),
    };
    if outcome.is_ok() {
        term::note("draining; press Ctrl-C again to stop at once");
    }
    tokio::select! {
        () = platform.stop() => outcome,
        () = signals.next() => Err(CliError::Failed("stopped before everything was drained; nothing acknowledged is lost".into())),
    }
}

/// Runs until it is cancelled; an error is one of the demo's.
async fn until_cancelled(
    platform: &Platform,
    samples: Option<&str>,
    roles: &Roles,
    began: Instant,
) -> Result<(), CliError> {
    wait_ready(&platform.health).await;
    if let Some(generation) = platform.generation() {
        term::line(format_args!("  index         {generation}"))?;
    }
    term::line(format_args!("ready after {:.2} s", began.elapsed().as_secs_f64()))?;
    match samples {
        Some(samples) => demo::run(platform, samples).await?,
        None if !roles.is_all() => {}
        None => term::line(
            "\nTry, in another terminal:\n  carbon-ml produce entities samples/entities.jsonl\n  carbon-ml search \"henry hub natural gas futures\"",
        )?,
    }
    std::future::pending().await
}

fn announce(platform: &Platform, config: &Config, roles: &Roles) -> Result<(), CliError> {
    let (version, folder) = (env!("CARGO_PKG_VERSION"), config.data_dir.path().display());
    match roles.is_all() {
        true => term::line(format_args!("carbon-ml {version}, data in {folder}"))?,
        false => term::line(format_args!("carbon-ml {version}, {roles}, data in {folder}"))?,
    }
    if let Some(query) = platform.query {
        term::line(format_args!("  query-api     http://{query}  search and read; reference at /docs"))?;
    }
    if let Some(tracking) = platform.tracking {
        term::line(format_args!("  tracking-api  http://{tracking}  write and operate; reference at /docs"))?;
        if !config.mlflow_ui.is_empty() {
            term::line(format_args!("  web UI        http://{tracking}/"))?;
        }
    }
    if let Some(operations) = platform.operations {
        term::line(format_args!("  operations    http://{operations}  /health, /ready and /metrics"))?;
    }
    term::line(format_args!("  log           {}", platform.log_shown))?;
    if config.shares_rows() && roles.read_rows() {
        term::line(format_args!("  read models   {}", Postgres::shown(config.backend_dsn.expose())))?;
    }
    Ok(())
}

/// Shows what is waited for, where it takes longer than a moment.
async fn wait_ready(health: &Health) {
    let ready = health.wait_ready();
    tokio::pin!(ready);
    let bar = term::bar(None, "{spinner} {msg}");
    loop {
        tokio::select! {
            () = &mut ready => break,
            () = tokio::time::sleep(Duration::from_millis(200)) => {
                let waiting = health.checks().into_iter().filter(|(_, check)| !check.ready && !check.optional);
                bar.set_message(waiting.map(|(name, check)| format!("{name}: {}", check.detail)).collect::<Vec<_>>().join(", "));
            }
        }
    }
    bar.finish_and_clear();
}

/// Ctrl-C and SIGTERM.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> Result<Self, CliError> {
        let listen =
            |kind| signal(kind).map_err(|error| CliError::Failed(format!("signals cannot be caught: {error}")));
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
