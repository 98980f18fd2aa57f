//! Loading a corpus through the log.

use std::path::Path;

use bytes::Bytes;
use carbon_core::EntityType;
use futures::stream;
use indicatif::ProgressBar;
use tokio::sync::mpsc;

use super::files::{Corpus, Survey};
use crate::client::Service;
use crate::error::CliError;
use crate::upload::upload;
use crate::{searchable, term};

const PIECE: usize = 64 * 1024;

/// Appends every document, and waits until all of them can be searched.
pub async fn load(
    tracking: &Service,
    query: &Service,
    path: &Path,
    entity_type: &EntityType,
    survey: &Survey,
) -> Result<(), CliError> {
    let searchable = survey.ids.len() as u64 - survey.empty;
    let bar = term::bar(Some(searchable), "{msg:24!} {bar:30} {pos}/{len} documents  {eta} left");
    bar.set_message("loading");
    let corpus = Corpus::open(path, entity_type)?;
    let (sender, mut receiver) = mpsc::channel::<Bytes>(4);
    // Files are read off the runtime's threads; a full channel holds the reading up.
    let reading = tokio::task::spawn_blocking({
        let bar = bar.clone();
        move || read(corpus, &sender, &bar)
    });
    let pieces = stream::poll_fn(move |context| receiver.poll_recv(context).map(|piece| piece.map(Ok)));
    let outcome = upload(tracking, pieces).await;
    let read = reading.await.map_err(|error| CliError::Failed(error.to_string()))?;
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(error) => {
            bar.finish_and_clear();
            return Err(error);
        }
    };
    if let Err(error) = read {
        bar.finish_and_clear();
        return Err(error);
    }
    if let Some(first) = outcome.rejected.first() {
        bar.finish_and_clear();
        let count = outcome.rejected_count;
        return Err(CliError::Failed(format!(
            "{count} documents were rejected, the first as entity {}: {}; a corpus is measured whole or not at all",
            first.line, first.reason
        )));
    }
    if outcome.accepted < searchable {
        bar.finish_and_clear();
        let why = outcome.stopped.as_deref().unwrap_or("it did not say why");
        return Err(CliError::Failed(format!(
            "tracking-api ended after {} of {searchable} documents: {why}; run the command again",
            outcome.accepted
        )));
    }
    bar.reset();
    bar.set_message("becoming searchable");
    let waited = searchable::wait(query, &outcome.positions, |total| bar.set_position(total.min(searchable))).await;
    bar.finish_and_clear();
    waited
}

/// Ends early, without an error, where nobody takes the pieces any more: the request has failed then.
fn read(mut corpus: Corpus, sender: &mpsc::Sender<Bytes>, bar: &ProgressBar) -> Result<(), CliError> {
    let mut piece = Vec::with_capacity(PIECE + 4096);
    while let Some(entity) = corpus.next()? {
        let Some(body) = entity.body else { continue };
        piece.extend_from_slice(body.to_string().as_bytes());
        piece.push(b'\n');
        bar.inc(1);
        if piece.len() >= PIECE && sender.blocking_send(Bytes::from(std::mem::take(&mut piece))).is_err() {
            return Ok(());
        }
    }
    let _ = sender.blocking_send(Bytes::from(piece));
    Ok(())
}
