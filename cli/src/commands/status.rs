//! `carbon-ml status`.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use carbon_core::{Clock as _, SystemClock};
use clap::Args;
use comfy_table::{Cell, CellAlignment, Color, Table};
use indicatif::HumanBytes;
use serde::Deserialize;
use serde_json::Value;

use crate::args::Global;
use crate::client::Service;
use crate::error::CliError;
use crate::term;

/// Show how far every processor is, the generations, the dead letters and the log
#[derive(Debug, Args)]
#[command(after_long_help = HELP)]
pub struct StatusArgs {
    /// Show it again every two seconds
    #[arg(long, short = 'w')]
    watch: bool,
    /// The service's answer as JSON; with --watch one line each time
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
Examples:
  carbon-ml status
  carbon-ml status --watch
  carbon-ml status --json | jq '.processors[] | select(.lag > 0)'

Lag is the number of events that a processor has not taken yet, age is that of the oldest of them.";

const EVERY: Duration = Duration::from_secs(2);

pub async fn run(global: &Global, args: StatusArgs) -> Result<(), CliError> {
    let config = global.config()?;
    let tracking = Service::tracking(&config, global)?;
    let mut shown = false;
    loop {
        let status = match tracking.json::<Value>(tracking.get("/status")).await {
            Ok(status) => Some(status),
            // A watch outlives a restart of what it watches.
            Err(error @ (CliError::Unreachable { .. } | CliError::NotReady { .. })) if args.watch && shown => {
                term::note(&error);
                None
            }
            Err(error) => return Err(error),
        };
        match status {
            Some(status) if args.json => term::json(&status)?,
            Some(status) => {
                if args.watch {
                    begin_again()?;
                }
                print(&serde_json::from_value(status).map_err(|error| {
                    CliError::Failed(format!("tracking-api's status cannot be read: {error}; --json shows it as it is"))
                })?)?;
            }
            None => {}
        }
        if !args.watch {
            return Ok(());
        }
        shown = true;
        tokio::time::sleep(EVERY).await;
    }
}

/// Clears a terminal; elsewhere the tables follow each other, each under its time.
fn begin_again() -> Result<(), CliError> {
    let mut out = std::io::stdout();
    if out.is_terminal() {
        write!(out, "\u{1b}[H\u{1b}[2J").map_err(CliError::Output)?;
    }
    term::line(SystemClock.now().to_rfc3339())
}

/// What the tables show of the answer; a part that an older service does not send is empty.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    processors: Vec<Processor>,
    generations: Vec<Generation>,
    /// `None` where the service does not hold their read model.
    dead_letters: Option<DeadLetters>,
    log: Log,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Processor {
    name: String,
    group: String,
    phase: String,
    here: Option<bool>,
    error: Option<String>,
    lag: u64,
    oldest_event_age_s: Option<f64>,
    records: u64,
    halted: BTreeMap<String, String>,
    rebuilt: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Generation {
    id: String,
    read_model: String,
    state: String,
    served: bool,
    rows: Option<u64>,
    model: Option<String>,
    since: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct DeadLetters {
    by_reason: BTreeMap<String, u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Log {
    identity: String,
    bytes: Option<u64>,
    topics: Vec<Topic>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Topic {
    name: String,
    partitions: u64,
    records: u64,
    cleanup: String,
}

fn print(status: &Status) -> Result<(), CliError> {
    let sections = [
        ("processors", processors(&status.processors)),
        ("generations", generations(&status.generations)),
        ("dead letters", status.dead_letters.as_ref().map(dead_letters).unwrap_or_default()),
        ("topics", topics(&status.log.topics)),
    ];
    for (title, table) in sections {
        match table.is_empty() {
            false => term::show(&table)?,
            true if title == "dead letters" && status.dead_letters.is_none() => {
                term::line("dead letters: ask a process that holds the read models")?;
            }
            true => term::line(format_args!("{title}: none"))?,
        }
        term::line("")?;
    }
    match status.log.bytes {
        Some(bytes) => term::line(format_args!("log: {}", HumanBytes(bytes))),
        None => term::line(format_args!("log: kafka cluster {}", term::printable(&status.log.identity))),
    }
}

fn cell(text: &str) -> Cell {
    Cell::new(if text.is_empty() { "-".to_owned() } else { term::printable(text) })
}

fn right(text: impl ToString) -> Cell {
    Cell::new(text.to_string()).set_alignment(CellAlignment::Right)
}

/// `1m 3s`.
fn age(seconds: Option<f64>) -> String {
    match seconds {
        None => "-".into(),
        Some(seconds) if seconds < 1.0 => format!("{:.0}ms", seconds.max(0.0) * 1000.0),
        // Beyond seconds nobody reads fractions.
        Some(seconds) => humantime::format_duration(Duration::from_secs(seconds as u64)).to_string(),
    }
}

fn processors(list: &[Processor]) -> Table {
    let mut table = term::table(&["processor", "of", "phase", "lag", "oldest", "records", "detail"]);
    for processor in list {
        // Groups are `carbon.<processor>.<generation or model>`.
        let prefix = format!("carbon.{}.", processor.name);
        let of = processor.group.strip_prefix(&prefix).unwrap_or(&processor.group);
        let (phase, colour) = match processor.phase.as_str() {
            "running" if !processor.halted.is_empty() => ("halted", Color::Red),
            "running" => ("running", Color::Green),
            other @ ("retrying" | "stalled" | "halted" | "stopped") => (other, Color::Red),
            other => (other, Color::Yellow),
        };
        table.add_row([
            cell(&processor.name),
            cell(of),
            cell(phase).fg(colour),
            right(term::thousands(processor.lag)),
            right(age(processor.oldest_event_age_s)),
            right(term::thousands(processor.records)),
            Cell::new(detail(processor)),
        ]);
    }
    table
}

/// What is wrong with a processor, if anything is.
fn detail(processor: &Processor) -> String {
    let halted = processor.halted.iter().map(|(at, needs)| format!("{at} halted: {needs}"));
    let elsewhere = (processor.here == Some(false)).then(|| "in another process".to_owned());
    let error = processor.error.iter().map(|error| format!("error: {error}"));
    let rebuilt = processor.rebuilt.iter().map(|why| format!("rebuilt: {why}"));
    let parts: Vec<String> =
        elsewhere.into_iter().chain(error).chain(halted).chain(rebuilt).map(|part| term::fit(&part, 200)).collect();
    parts.join("; ")
}

pub fn generations(list: &[Generation]) -> Table {
    let mut table = term::table(&["generation", "read model", "state", "served here", "rows", "model", "since"]);
    for generation in list {
        let state = match generation.state.as_str() {
            "active" => cell("active").fg(Color::Green),
            other => cell(other),
        };
        let model = generation.model.as_deref().unwrap_or_default();
        table.add_row([
            cell(&generation.id),
            cell(&generation.read_model),
            state,
            cell(if generation.served { "yes" } else { "" }),
            right(generation.rows.map_or_else(|| "-".into(), term::thousands)),
            cell(model),
            cell(&generation.since),
        ]);
    }
    table
}

fn dead_letters(letters: &DeadLetters) -> Table {
    let mut table = term::table(&["dead letters by reason", "open"]);
    for (reason, count) in letters.by_reason.iter().filter(|(_, count)| **count > 0) {
        table.add_row([cell(reason).fg(Color::Red), right(term::thousands(*count))]);
    }
    table
}

fn topics(list: &[Topic]) -> Table {
    let mut table = term::table(&["topic", "partitions", "records", "cleanup"]);
    for topic in list {
        let (partitions, records) = (right(topic.partitions), right(term::thousands(topic.records)));
        table.add_row([cell(&topic.name), partitions, records, cell(&topic.cleanup)]);
    }
    table
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_section_is_shown() {
        let status: Status = serde_json::from_value(json!({
            "env": "test", "version": "0.1.0",
            "processors": [
                {"name": "embedder", "group": "carbon.embedder.m@1@f32", "topics": ["ml.entity.changed.v1"], "phase": "running",
                    "lag": 12, "oldest_event_age_s": 63.5, "records": 4321, "batches": 2, "halted": {}, "dead_letters": {}, "rebuilt": null},
                {"name": "indexer", "group": "carbon.indexer.search-v1-1", "phase": "retrying", "lag": 0, "oldest_event_age_s": null,
                    "error": "disk\nfull"},
                {"name": "catalog", "phase": "running", "halted": {"t:0": "needs version 2"}},
            ],
            "generations": [{"id": "search-v1-1", "read_model": "search", "state": "active", "version": 1, "model": null, "since": "2026"}],
            "dead_letters": {"by_reason": {"field_limit": 3, "undecodable": 0}},
            "log": {"identity": "x", "bytes": 2048, "topics": [{"name": "ml.entity.changed.v1", "partitions": 6, "records": 1234, "cleanup": "compact"}]},
        }))
        .unwrap();
        let text = processors(&status.processors).to_string();
        for part in [
            " m@1@f32 ",
            "running",
            "12",
            "1m 3s",
            "4,321",
            "retrying",
            "error: disk full",
            "t:0 halted: needs version 2",
        ] {
            assert!(text.contains(part), "{part} not in\n{text}");
        }
        assert!(generations(&status.generations).to_string().contains("search-v1-1"));
        let text = dead_letters(&status.dead_letters.unwrap()).to_string();
        assert!(text.contains("field_limit") && !text.contains("undecodable"), "{text}");
        assert!(topics(&status.log.topics).to_string().contains("1,234"));
    }

    #[test]
    fn nothing_is_nothing() {
        let status: Status = serde_json::from_str("{}").unwrap();
        assert!(processors(&status.processors).is_empty() && status.dead_letters.is_none());
        assert_eq!([None, Some(0.25), Some(3600.9)].map(age), ["-", "250ms", "1h"]);
    }
}
