//! One generation: its file of rows, its view, and the way from a batch to both.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use carbon_core::Positions;
use carbon_store::{Durability, SqliteNamespace, StoreError};

use super::batch::{Batch, Incoming};
use super::committer::{self, Shared, State};
use super::lexical::Change;
use super::{load, mend, rows, schema};
use crate::error::IndexError;
use crate::index::{Applied, GenerationSpec};
use crate::types::{IndexOp, deduplicate};

/// Larger batches are prepared on a thread that may block.
const SMALL_BATCH: usize = 16;

pub(super) struct Generation {
    pub spec: GenerationSpec,
    pub space: SqliteNamespace,
    pub shared: Arc<Shared>,
    /// What had to be mended when it was opened.
    pub repairs: Vec<String>,
    writer: tokio::sync::Mutex<Writer>,
    committer: Mutex<Option<Committer>>,
}

struct Writer {
    next_number: u64,
    tombstones: u64,
    /// A commit was begun, and how it ended is not known.
    uncertain: bool,
}

struct Committer {
    wake: SyncSender<()>,
    thread: JoinHandle<()>,
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> IndexError {
    let path = path.display().to_string();
    move |source| IndexError::Io { path, source }
}

/// Whether the file is no database at all any more, so that it can only be thrown away.
fn is_ruined(error: &IndexError) -> bool {
    let sql = match error {
        IndexError::Store(StoreError::Corrupt(_)) => return true,
        IndexError::Store(StoreError::Sql(sql) | StoreError::Open { source: sql, .. }) => sql,
        _ => return false,
    };
    // SQLITE_CORRUPT and SQLITE_NOTADB.
    let code = sql.as_database_error().and_then(|error| error.code());
    code.and_then(|code| code.parse::<i32>().ok()).is_some_and(|code| matches!(code & 0xff, 11 | 26))
}

impl Generation {
    pub async fn open(folder: &Path, spec: &GenerationSpec) -> Result<Self, IndexError> {
        let opened = match Self::open_rows(folder, spec).await {
            Err(error) if is_ruined(&error) => {
                std::fs::remove_dir_all(folder).map_err(io(folder))?;
                let (space, mut loaded) = Self::open_rows(folder, spec).await?;
                loaded.repairs.push(format!("the rows could not be read ({error}); the generation begins anew"));
                (space, loaded)
            }
            other => other?,
        };
        let (space, loaded) = opened;
        let (texts, data, incarnation) = (folder.join("tantivy"), loaded.data.clone(), loaded.incarnation);
        let opened = blocking(move || mend::open(&texts, incarnation, &data)).await??;
        if opened.incarnation != loaded.incarnation {
            load::write_incarnation(&space, opened.incarnation).await?;
        }
        let repairs = [loaded.repairs, opened.repairs].concat();
        for repair in &repairs {
            tracing::warn!(generation = %spec.id, repair, "index was mended");
        }
        let state = State { data: loaded.data, changes: Vec::new(), incarnation: opened.incarnation, compare: false };
        let shared = Arc::new(Shared::new(spec.id.to_string(), folder.join("tantivy"), state, opened.view));
        let (wake, woken) = sync_channel(1);
        let (of_thread, lexical) = (Arc::clone(&shared), opened.lexical);
        let thread = std::thread::Builder::new()
            .name("index-committer".to_owned())
            .spawn(move || committer::run(&of_thread, lexical, &woken))
            .map_err(io(folder))?;
        Ok(Self {
            spec: spec.clone(),
            space,
            shared,
            repairs,
            writer: tokio::sync::Mutex::new(Writer {
                next_number: loaded.next_number,
                tombstones: loaded.tombstones,
                uncertain: false,
            }),
            committer: Mutex::new(Some(Committer { wake, thread })),
        })
    }

    async fn open_rows(folder: &Path, spec: &GenerationSpec) -> Result<(SqliteNamespace, load::Loaded), IndexError> {
        let file: PathBuf = folder.join("rows.db");
        let space = SqliteNamespace::open(&file, Durability::Derived, schema::LAYOUT, schema::DDL).await?;
        match load::load(&space, spec).await {
            Ok(loaded) => Ok((space, loaded)),
            Err(error) => {
                space.close().await;
                Err(error)
            }
        }
    }

    pub async fn apply(
        &self,
        log: &str,
        ops: Vec<IndexOp>,
        from: &Positions,
        upto: &Positions,
    ) -> Result<Applied, IndexError> {
        let sources = self.check(&ops)?;
        let prepare = move || deduplicate(ops).into_iter().map(Incoming::of).collect::<Vec<_>>();
        let incoming = if sources.1 <= SMALL_BATCH { prepare() } else { blocking(prepare).await? };
        let sources = sources.0;

        let mut writer = self.writer.lock().await;
        if writer.uncertain {
            self.settle(&mut writer).await?;
        }
        let mut tables = self.space.begin_at(log, from, upto).await?;
        let tombstones = if writer.tombstones > 0 {
            rows::tombstones(tables.connection(), incoming.iter().map(|op| &op.key)).await?
        } else {
            Default::default()
        };
        let batch = Batch::fold(&self.shared.state().data, &tombstones, writer.next_number, incoming)?;
        rows::write(tables.connection(), &batch, &sources).await?;
        writer.uncertain = true;
        tables.commit().await?;
        writer.uncertain = false;
        writer.next_number = batch.next_number;
        writer.tombstones += batch.removals.len() as u64;
        let applied = batch.applied;
        self.take(batch, &sources);
        Ok(applied)
    }

    /// Refuses what cannot be indexed; otherwise the positions that the ops have reached, and
    /// how many they are.
    fn check(&self, ops: &[IndexOp]) -> Result<(Positions, usize), IndexError> {
        let mut sources = Positions::new();
        for op in ops {
            if let crate::types::OpKind::Upsert { document, vector } = &op.kind {
                super::vectors::check(vector, self.spec.dimension)
                    .map_err(|reason| IndexError::Vector { key: document.key.clone(), reason })?;
            }
            sources.advance_past(&op.source);
        }
        Ok((sources, ops.len()))
    }

    /// Brings the rows in memory to what was committed, and wakes the committer.
    fn take(&self, batch: Batch, sources: &Positions) {
        let mut state = self.shared.state();
        if batch.changes_rows() {
            state.data.sequence = batch.sequence;
        } else if state.data.sources.covers(sources) {
            return;
        }
        state.data.sources.merge(sources);
        for number in batch.removals.iter().filter_map(|removal| removal.number) {
            state.data.remove(number);
            state.changes.push(Change::Remove(number));
        }
        for put in batch.puts {
            state.data.put(put.number, Arc::clone(&put.row));
            state.changes.push(Change::Put(put.number, put.row));
        }
        drop(state);
        self.wake();
    }

    fn wake(&self) {
        let committer = self.committer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(committer) = committer.as_ref() {
            // Full means that it is about to wake anyway.
            let _ = committer.wake.try_send(());
        }
    }

    /// After a commit whose end is not known: what the file says counts.
    async fn settle(&self, writer: &mut Writer) -> Result<(), IndexError> {
        if load::sequence(&self.space).await? != self.shared.state().data.sequence {
            let loaded = load::load(&self.space, &self.spec).await?;
            (writer.next_number, writer.tombstones) = (loaded.next_number, loaded.tombstones);
            let mut state = self.shared.state();
            state.data = loaded.data;
            state.changes.clear();
            state.compare = true;
            drop(state);
            self.wake();
        }
        writer.uncertain = false;
        Ok(())
    }

    /// Commits what is under way and lets go of all files.
    pub async fn close(&self) -> Result<(), IndexError> {
        if let Some(stopped) = self.stop() {
            blocking(move || stopped.join().is_ok()).await?;
        }
        self.space.close().await;
        Ok(())
    }

    fn stop(&self) -> Option<JoinHandle<()>> {
        let mut committer = self.committer.lock().unwrap_or_else(PoisonError::into_inner);
        // The thread ends when the sender is gone.
        committer.take().map(|committer| committer.thread)
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        // So that the directory's lock is free when this returns.
        if let Some(thread) = self.stop() {
            let _ = thread.join();
        }
    }
}

/// Runs what may block off the async threads.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, IndexError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| IndexError::Thread(error.to_string()))
}
