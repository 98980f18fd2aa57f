//! The committer: a thread per generation that writes committed row changes to tantivy and then replaces the view.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use carbon_core::Positions;
use tokio::sync::watch;
use uuid::Uuid;

use super::lexical::{Change, CommitPayload, LexicalIndex};
use super::repair;
use super::row_table::RowTable;
use super::view::View;
use crate::error::IndexError;

/// Minimum interval between tantivy commits.
const INTERVAL: Duration = Duration::from_millis(50);
/// Pause before a failed commit is retried.
const RETRY: Duration = Duration::from_secs(1);

/// The state of a generation that its writer, its committer and its queries share.
pub(super) struct Shared {
    /// The generation's id, for logs.
    pub name: String,
    /// The tantivy directory.
    pub folder: PathBuf,
    state: Mutex<CommittedRows>,
    /// The view that queries run on.
    pub view: ArcSwap<View>,
    /// The source positions of the view. Waiting readers subscribe to it.
    pub reached: watch::Sender<Positions>,
}

/// The rows as of the last SQLite commit, and the changes that tantivy does not have yet.
pub(super) struct CommittedRows {
    pub table: RowTable,
    pub changes: Vec<Change>,
    /// Identifies the history of `rows.db`. tantivy's commits carry it.
    pub incarnation: Uuid,
    /// True if `changes` is incomplete. The committer then reopens tantivy and compares it with the rows.
    pub compare: bool,
}

impl Shared {
    pub fn new(name: String, folder: PathBuf, state: CommittedRows, view: View) -> Self {
        let reached = watch::Sender::new(view.table.sources.clone());
        Self { name, folder, state: Mutex::new(state), view: ArcSwap::from_pointee(view), reached }
    }

    /// Locks the committed rows.
    pub fn state(&self) -> MutexGuard<'_, CommittedRows> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs until `wake` is disconnected, and then commits the pending changes.
pub(super) fn run(shared: &Shared, lexical: LexicalIndex, wake: &Receiver<()>) {
    let mut lexical = Some(lexical);
    follow(shared, &mut lexical, wake);
    close(shared, &mut lexical);
}

/// Closes tantivy and waits for its merges, so that no merge writes to the directory after it is opened again.
fn close(shared: &Shared, lexical: &mut Option<LexicalIndex>) {
    if let Some(Err(error)) = lexical.take().map(LexicalIndex::close) {
        tracing::warn!(generation = shared.name, %error, "text index failed to close; the next opening repairs it");
    }
}

/// Commits whenever it is woken, at most once per [`INTERVAL`], and retries failed commits.
fn follow(shared: &Shared, lexical: &mut Option<LexicalIndex>, wake: &Receiver<()>) {
    let (mut pending, mut open) = (false, true);
    while open || pending {
        if !pending && wake.recv().is_err() {
            return;
        }
        let started = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| commit(shared, lexical)));
        let error = match outcome {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("panicked".to_owned()),
        };
        pending = error.is_some();
        let pause = if pending { RETRY } else { INTERVAL };
        if let Some(error) = error {
            tracing::warn!(generation = shared.name, error, "text index commit failed; retrying");
            close(shared, lexical);
            if !open {
                // The generation is being closed. The next opening catches up.
                return;
            }
        }
        while open && let Some(rest) = pause.checked_sub(started.elapsed()) {
            match wake.recv_timeout(rest) {
                Ok(()) => pending = true,
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => open = false,
            }
        }
    }
}

/// Writes the pending changes to tantivy, or opens tantivy if it is closed, and replaces the view.
fn commit(shared: &Shared, lexical: &mut Option<LexicalIndex>) -> Result<(), IndexError> {
    let (table, changes, incarnation, compare) = {
        let mut state = shared.state();
        let compare = std::mem::take(&mut state.compare);
        (state.table.clone(), std::mem::take(&mut state.changes), state.incarnation, compare)
    };
    if compare {
        close(shared, lexical);
    }
    let view = match lexical {
        Some(lexical) => {
            if !changes.is_empty() {
                lexical.write(&changes, CommitPayload { incarnation, sequence: table.sequence })?;
            }
            View::new(table, lexical.searcher()?, lexical.fields, Some(&shared.view.load()))?
        }
        None => {
            let opened = repair::open(&shared.folder, incarnation, &table)?;
            for repair in &opened.repairs {
                tracing::warn!(generation = shared.name, repair, "text index was repaired");
            }
            // Not written to `rows.db` here. If the process ends first, the next opening finds another incarnation and
            // rebuilds tantivy.
            shared.state().incarnation = opened.incarnation;
            *lexical = Some(opened.lexical);
            opened.view
        }
    };
    let sources = view.table.sources.clone();
    shared.view.store(Arc::new(view));
    shared.reached.send_replace(sources);
    Ok(())
}
