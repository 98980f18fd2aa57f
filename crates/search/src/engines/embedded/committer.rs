//! The thread that leads tantivy, and with it the view, after the rows.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use carbon_core::Positions;
use tokio::sync::watch;
use uuid::Uuid;

use super::data::Data;
use super::lexical::{Change, Lexical, Payload};
use super::mend;
use super::view::View;
use crate::error::IndexError;

/// Commits under load are at least so far apart.
const INTERVAL: Duration = Duration::from_millis(50);
const RETRY: Duration = Duration::from_secs(1);

/// What writer, committer and queries of a generation share.
pub(super) struct Shared {
    pub name: String,
    pub folder: PathBuf,
    state: Mutex<State>,
    pub view: ArcSwap<View>,
    /// The source positions of the view.
    pub reached: watch::Sender<Positions>,
}

/// The rows as of the last commit of SQLite, and what tantivy has yet to take.
pub(super) struct State {
    pub data: Data,
    pub changes: Vec<Change>,
    pub incarnation: Uuid,
    /// The changes do not tell all: tantivy is to be compared with the rows.
    pub compare: bool,
}

impl Shared {
    pub fn new(name: String, folder: PathBuf, state: State, view: View) -> Self {
        let reached = watch::Sender::new(view.data.sources.clone());
        Self { name, folder, state: Mutex::new(state), view: ArcSwap::from_pointee(view), reached }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs until `wake` is closed; what was asked for before is done first.
pub(super) fn run(shared: &Shared, lexical: Lexical, wake: &Receiver<()>) {
    let mut lexical = Some(lexical);
    follow(shared, &mut lexical, wake);
    close(shared, &mut lexical);
}

/// Whoever opens the directory next must not meet a merge that still writes to it.
fn close(shared: &Shared, lexical: &mut Option<Lexical>) {
    if let Some(Err(error)) = lexical.take().map(Lexical::close) {
        tracing::warn!(generation = shared.name, %error, "text index did not close well");
    }
}

fn follow(shared: &Shared, lexical: &mut Option<Lexical>, wake: &Receiver<()>) {
    let (mut asked, mut open) = (false, true);
    while open || asked {
        if !asked && wake.recv().is_err() {
            return;
        }
        let started = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| commit(shared, lexical)));
        let error = match outcome {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("panicked".to_owned()),
        };
        asked = error.is_some();
        let pause = if asked { RETRY } else { INTERVAL };
        if let Some(error) = error {
            tracing::warn!(generation = shared.name, error, "text index could not follow the rows; trying again");
            close(shared, lexical);
            if !open {
                // The next opening catches up.
                return;
            }
        }
        while open && let Some(rest) = pause.checked_sub(started.elapsed()) {
            match wake.recv_timeout(rest) {
                Ok(()) => asked = true,
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => open = false,
            }
        }
    }
}

fn commit(shared: &Shared, lexical: &mut Option<Lexical>) -> Result<(), IndexError> {
    let (data, changes, incarnation, compare) = {
        let mut state = shared.state();
        let compare = std::mem::take(&mut state.compare);
        (state.data.clone(), std::mem::take(&mut state.changes), state.incarnation, compare)
    };
    if compare {
        close(shared, lexical);
    }
    let view = match lexical {
        Some(lexical) => {
            if !changes.is_empty() {
                lexical.write(&changes, Payload { incarnation, sequence: data.sequence })?;
            }
            View::new(data, lexical.searcher()?, lexical.fields, Some(&shared.view.load()))?
        }
        None => {
            let opened = mend::open(&shared.folder, incarnation, &data)?;
            for repair in &opened.repairs {
                tracing::warn!(generation = shared.name, repair, "index was mended");
            }
            // Should the process end before the rows know it, the next opening makes it anew.
            shared.state().incarnation = opened.incarnation;
            *lexical = Some(opened.lexical);
            opened.view
        }
    };
    let sources = view.data.sources.clone();
    shared.view.store(Arc::new(view));
    shared.reached.send_replace(sources);
    Ok(())
}
