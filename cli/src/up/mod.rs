//! `carbon-ml up`: the platform in one process.

mod demo;
mod platform;

use std::sync::Arc;
use std::time::{Duration, Instant};

use carbon_runtime::{Config, Health, Metrics, Shutdown};
use carbon_topology::Topology;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::args::UpArgs;
use crate::commands::models::Bar;
use crate::error::CliError;
use crate::term;
use platform::{Platform, Start};

pub async fn run(config: Config, args: UpArgs) -> Result<(), CliError> {
    config.check_listen(args.insecure_listen)?;
    let samples = if args.demo { Some(args.demo_entities()?) } else { None };
    let began = Instant::now();
    let config = Arc::new(config);
    let topology = Arc::new(Topology::builtin().map_err(|error| CliError::Failed(error.to_string()))?);
    let shutdown = Shutdown::new();
    let mut signals = Signals::new()?;
    let bar = Bar::new();
    let start = Start {
        config: config.clone(),
        topology,
        metrics: Metrics::install(),
        shutdown: shutdown.clone(),
        pull: if args.no_pull { None } else { Some(&bar) },
    };
    let platform = tokio::select! {
        platform = Platform::start(start) => platform?,
        // Nothing was accepted yet that would have to be drained.
        () = signals.next() => return Err(CliError::Failed("interrupted while starting".into())),
    };
    drop(bar);
    announce(&platform, &config)?;
    let outcome = tokio::select! {
        outcome = serve(&platform, samples.as_deref(), began) => outcome,
        () = signals.next() => Ok(()),
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
async fn serve(platform: &Platform, samples: Option<&str>, began: Instant) -> Result<(), CliError> {
    wait_ready(&platform.health).await;
    term::line(format_args!("ready after {:.2} s", began.elapsed().as_secs_f64()))?;
    match samples {
        Some(samples) => demo::run(platform, samples).await?,
        None => term::line(
            "\nTry, in another terminal:\n  carbon-ml produce entities samples/entities.jsonl\n  carbon-ml search \"henry hub natural gas futures\"",
        )?,
    }
    std::future::pending().await
}

fn announce(platform: &Platform, config: &Config) -> Result<(), CliError> {
    let (version, folder) = (env!("CARGO_PKG_VERSION"), config.data_dir.path().display());
    term::line(format_args!("carbon-ml {version}, data in {folder}"))?;
    term::line(format_args!("  query-api     http://{}  search and read; reference at /docs", platform.query))?;
    term::line(format_args!("  tracking-api  http://{}  write and operate; reference at /docs", platform.tracking))?;
    term::line(format_args!("  index         {}", platform.generation))?;
    for repair in &platform.repairs {
        term::line(format_args!("  mended        {repair}"))?;
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
                let waiting = health.checks().into_iter().filter(|(_, check)| !check.ready);
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
