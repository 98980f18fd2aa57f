//! `carbon-ml produce`.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, Subcommand};
use futures::{Stream, stream};
use indicatif::ProgressBar;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::args::Global;
use crate::client::Service;
use crate::error::CliError;
use crate::ndjson::Feeder;
use crate::upload::{Outcome, upload};
use crate::{searchable, term};

/// Append events to the log
#[derive(Debug, Args)]
#[command(after_long_help = HELP)]
pub struct ProduceArgs {
    #[command(subcommand)]
    command: ProduceCommand,
}

const HELP: &str = "\
Examples:
  carbon-ml produce entities entities.jsonl
  generate-entities | carbon-ml produce entities -";

#[derive(Debug, Subcommand)]
enum ProduceCommand {
    /// Append entities, from NDJSON or a JSON array of any size
    ///
    /// Each entity is {"entity_type", "entity_id", "text", "metadata"?, "tags"?}; it becomes an event of
    /// ml.entity.changed.v1. The file is streamed. The service takes it entity by entity: what it rejects
    /// is listed with its reason, and everything else is appended. Appending the same file again is harmless.
    #[command(after_long_help = ENTITIES_HELP)]
    Entities(EntitiesArgs),
}

const ENTITIES_HELP: &str = "\
Examples:
  carbon-ml produce entities entities.jsonl           a file, one entity a line
  carbon-ml produce entities entities.json --wait     a JSON array, until it can be searched
  carbon-ml produce entities - --tenant acme          standard input, for another tenant
  zcat entities.jsonl.gz | carbon-ml produce entities -

Exit codes: 1 if any entity was rejected, 3 if tracking-api is not reachable.";

#[derive(Debug, Args)]
struct EntitiesArgs {
    /// File of entities; - is standard input
    #[arg(value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    file: PathBuf,
    /// Wait until a search finds them
    #[arg(long)]
    wait: bool,
    /// The outcome as JSON: {"accepted", "rejected_count", "rejected", "positions"}
    #[arg(long)]
    json: bool,
}

pub async fn run(global: &Global, args: ProduceArgs) -> Result<(), CliError> {
    let ProduceCommand::Entities(args) = args.command;
    let config = global.config()?;
    let tracking = Service::tracking(&config, global)?;
    let query = Service::query(&config, global)?;
    let (input, length) = open(&args.file).await?;
    let bar = term::bar(
        length,
        match length {
            Some(_) => "{bar:30} {bytes}/{total_bytes}  {msg}  {bytes_per_sec}  {eta} left",
            None => "{spinner} {bytes}  {msg}  {bytes_per_sec}",
        },
    );
    let reading = Arc::new(Mutex::new(Reading::default()));
    let outcome = upload(&tracking, lines(input, reading.clone(), bar.clone(), KEEP_ALIVE)).await;
    bar.finish_and_clear();
    let (sent, unit, fault) = {
        let mut reading = locked(&reading);
        (reading.feeder.entities(), reading.feeder.unit(), reading.fault.take())
    };
    let outcome = outcome?;
    if args.json {
        term::json(&outcome)?;
    } else {
        print(&outcome, unit)?;
    }
    if let Some(fault) = fault {
        let what = format!("{}: {fault}; what came before was appended", args.file.display());
        return Err(CliError::Failed(what));
    }
    let taken = outcome.accepted + outcome.rejected_count;
    if taken < sent || outcome.stopped.is_some() {
        let why = outcome.stopped.as_deref().unwrap_or("it did not say why");
        return Err(CliError::Failed(format!(
            "tracking-api ended after {taken} of {sent} entities: {why}; run the command again, appending twice is harmless"
        )));
    }
    if args.wait && outcome.accepted > 0 {
        let bar = term::bar(None, "{spinner} waiting until they can be searched  {msg}");
        let waited = searchable::wait(&query, &outcome.positions, |total| {
            bar.set_message(format!("{} in the index", term::thousands(total)));
        })
        .await;
        bar.finish_and_clear();
        waited?;
        if !args.json {
            term::line("they can be searched")?;
        }
    }
    match outcome.rejected_count {
        0 => Ok(()),
        1 => Err(CliError::Failed("1 entity was rejected; mend it and produce it again".into())),
        many => Err(CliError::Failed(format!("{many} entities were rejected; mend them and produce them again"))),
    }
}

fn print(outcome: &Outcome, unit: &str) -> Result<(), CliError> {
    let (accepted, rejected) = (term::thousands(outcome.accepted), term::thousands(outcome.rejected_count));
    term::line(format_args!("accepted {accepted}, rejected {rejected}"))?;
    const SHOWN: usize = 10;
    for rejected in outcome.rejected.iter().take(SHOWN) {
        term::line(format_args!("  {unit} {}: {}", rejected.line, term::printable(&rejected.reason)))?;
    }
    let more = outcome.rejected_count.saturating_sub(outcome.rejected.len().min(SHOWN) as u64);
    if more > 0 {
        term::line(format_args!("  … and {} more (--json lists up to 1,000)", term::thousands(more)))?;
    }
    if !outcome.positions.is_empty() {
        term::line(format_args!("positions {}", term::printable(&outcome.positions)))?;
    }
    Ok(())
}

/// A service ends a stream that is silent for 30 s; white space between entities keeps it open.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

type Input = Box<dyn AsyncRead + Send + Unpin>;

/// The input, and its length if it has one.
async fn open(path: &Path) -> Result<(Input, Option<u64>), CliError> {
    if path == Path::new("-") {
        return Ok((Box::new(tokio::io::stdin()), None));
    }
    let file = tokio::fs::File::open(path).await.map_err(CliError::file(path))?;
    let meta = file.metadata().await.map_err(CliError::file(path))?;
    if meta.is_dir() {
        let folder = std::io::Error::new(std::io::ErrorKind::IsADirectory, "it is a folder");
        return Err(CliError::File { path: path.to_owned(), source: folder });
    }
    Ok((Box::new(file), meta.is_file().then_some(meta.len())))
}

/// What the stream has seen of its input.
#[derive(Default)]
struct Reading {
    feeder: Feeder,
    /// Why it ended early. The request ends well all the same, so that its answer says what was taken.
    fault: Option<String>,
}

fn locked(reading: &Mutex<Reading>) -> MutexGuard<'_, Reading> {
    reading.lock().unwrap_or_else(PoisonError::into_inner)
}

fn lines(
    input: Input,
    reading: Arc<Mutex<Reading>>,
    bar: ProgressBar,
    quiet: Duration,
) -> impl Stream<Item = Result<Bytes, std::io::Error>> + Send + 'static {
    stream::unfold((input, reading, bar), move |(mut input, reading, bar)| async move {
        let mut piece = vec![0; 64 * 1024];
        loop {
            if locked(&reading).fault.is_some() {
                return None;
            }
            let read = match tokio::time::timeout(quiet, input.read(&mut piece)).await {
                Ok(read) => read,
                Err(_) if locked(&reading).feeder.is_between() => {
                    return Some((Ok(Bytes::from_static(b" ")), (input, reading, bar)));
                }
                Err(_) => continue,
            };
            let mut state = locked(&reading);
            let mut out = Vec::with_capacity(piece.len() + 16);
            let fed = match read {
                Ok(0) => {
                    state.fault = state.feeder.finish().err();
                    return None;
                }
                Ok(length) => {
                    bar.inc(length as u64);
                    state.feeder.feed(&piece[..length], &mut out)
                }
                Err(error) => Err(error.to_string()),
            };
            bar.set_message(format!("{} entities", term::thousands(state.feeder.entities())));
            state.fault = fed.err();
            drop(state);
            if !out.is_empty() {
                return Some((Ok(Bytes::from(out)), (input, reading, bar)));
            }
        }
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use futures::StreamExt as _;

    use super::*;

    #[tokio::test]
    async fn a_slow_input_keeps_the_stream_open() {
        let (mut writer, input) = tokio::io::duplex(64);
        let reading = Arc::new(Mutex::new(Reading::default()));
        let mut pieces = Box::pin(lines(Box::new(input), reading, ProgressBar::hidden(), Duration::from_millis(20)));
        assert_eq!(pieces.next().await.unwrap().unwrap(), " ");
        tokio::io::AsyncWriteExt::write_all(&mut writer, b"{}\n{").await.unwrap();
        let mut next = pieces.next().await.unwrap().unwrap();
        while next == " " {
            next = pieces.next().await.unwrap().unwrap();
        }
        assert_eq!(next, "{}\n{");
        // Within an entity nothing may be added.
        assert!(tokio::time::timeout(Duration::from_millis(200), pieces.next()).await.is_err());
    }

    async fn streamed(text: &'static str) -> (String, Option<String>, u64) {
        let reading = Arc::new(Mutex::new(Reading::default()));
        let pieces: Vec<_> =
            lines(Box::new(text.as_bytes()), reading.clone(), ProgressBar::hidden(), KEEP_ALIVE).collect().await;
        let out: Vec<u8> = pieces.into_iter().flat_map(|piece| piece.unwrap().to_vec()).collect();
        let state = reading.lock().unwrap();
        (String::from_utf8(out).unwrap(), state.fault.clone(), state.feeder.entities())
    }

    #[tokio::test]
    async fn a_broken_array_ends_the_stream_well_and_is_named() {
        assert_eq!(streamed("{}\n{}").await, ("{}\n{}".to_owned(), None, 2));
        assert_eq!(streamed("[{},{}]").await, ("{}\n{}\n".to_owned(), None, 2));
        let (_, fault, count) = streamed("[{},").await;
        assert!(fault.unwrap().contains("ends within") && count == 1);
        let (out, fault, _) = streamed("[{\"a\":1},3]").await;
        assert_eq!((out.as_str(), fault.is_some()), ("{\"a\":1}\n", true));
    }
}
