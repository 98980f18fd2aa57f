//! `carbon-ml up --demo`: the samples through the log, and one search.

use bytes::Bytes;
use clap::Parser as _;
use futures::stream;

use crate::args::{Cli, Command, Global};
use crate::client::Service;
use crate::commands::search;
use crate::error::CliError;
use crate::up::platform::Platform;
use crate::{searchable, term, upload};

const QUERY: &str = "henry hub natural gas futures";

pub async fn run(platform: &Platform, samples: &str) -> Result<(), CliError> {
    let global = Global {
        url: platform.query.map(|address| format!("http://{address}")),
        tracking_url: platform.tracking.map(|address| format!("http://{address}")),
        ..Global::default()
    };
    let (config, _) = global.load()?;
    let (tracking, query) = (Service::tracking(&config, &global)?, Service::query(&config, &global)?);
    let stats: serde_json::Value = query.json(query.get("/index/stats")).await?;
    let there = stats["total_entities"].as_u64().unwrap_or(0);
    if there > 0 {
        term::line(format_args!("{there} entities are here already; the samples are not appended again"))?;
        return show(&global).await;
    }
    let lines: Vec<Bytes> = samples.lines().map(|line| Bytes::from(format!("{line}\n"))).collect();
    let total = lines.len() as u64;
    let bar = term::bar(Some(total), "{msg} {bar:30} {pos}/{len}");
    bar.set_message("appending samples");
    let counted = bar.clone();
    let lines = stream::iter(lines.into_iter().map(move |line| {
        counted.inc(1);
        Ok(line)
    }));
    let outcome = upload::upload(&tracking, lines).await?;
    bar.set_message("embedding and indexing");
    bar.set_position(0);
    searchable::wait(&query, &outcome.positions, |seen| bar.set_position(seen.min(total))).await?;
    bar.finish_and_clear();
    if let Some(rejected) = outcome.rejected.first() {
        let what = format!(
            "{} samples were rejected, the first in line {}: {}",
            outcome.rejected_count, rejected.line, rejected.reason
        );
        return Err(CliError::Failed(what));
    }
    term::line(format_args!("{total} samples went through the log and can be searched"))?;
    show(&global).await
}

/// One search, and what to try next.
async fn show(global: &Global) -> Result<(), CliError> {
    term::line(format_args!("\n$ carbon-ml search \"{QUERY}\""))?;
    let Ok(Cli { command: Command::Search(args), .. }) =
        Cli::try_parse_from(["carbon-ml", "search", QUERY, "--limit", "5"])
    else {
        return Err(CliError::Failed("the demo's own search cannot be read".into()));
    };
    search::run(global, args).await?;
    term::line(
        "\nTry, in another terminal:\n  carbon-ml search NG_HH_BALMO --explain\n  carbon-ml tail ml.entity.changed.v1\n  carbon-ml status",
    )
}
