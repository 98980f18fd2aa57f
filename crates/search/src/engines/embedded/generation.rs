//! An open generation: `rows.db`, the committer thread, and the application of batches.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use carbon_core::Positions;
use carbon_store::{Durability, SqliteNamespace, StoreError};

use super::committer::{self, CommittedRows, Shared};
use super::lexical::Change;
use super::write_set::{PreparedOp, WriteSet};
use super::{load, repair, schema, write};
use crate::error::IndexError;
use crate::index::{Applied, GenerationSpec};
use crate::types::{IndexOp, deduplicate};

/// Maximum number of ops that are prepared on the async thread. Larger batches are prepared on a blocking thread.
const SMALL_BATCH: usize = 16;

/// An open generation.
pub(super) struct Generation {
    pub spec: GenerationSpec,
    /// `rows.db`.
    pub space: SqliteNamespace,
    pub shared: Arc<Shared>,
    /// Descriptions of the repairs made at the opening.
    pub repairs: Vec<String>,
    writer: tokio::sync::Mutex<WriterState>,
    committer: Mutex<Option<CommitterThread>>,
}

/// The state of the only writer of `rows.db`.
struct WriterState {
    /// The first unused row number.
    next_number: u64,
    /// Upper bound of the number of tombstones. While it is 0, no batch queries them.
    tombstones: u64,
    /// True if a commit was started and its outcome is unknown, because its future was dropped or it failed.
    uncertain: bool,
}

/// The committer thread and the channel that wakes it.
struct CommitterThread {
    wake: SyncSender<()>,
    thread: JoinHandle<()>,
}

/// Maps an I/O error to an [`IndexError`] with its path.
fn io(path: &Path) -> impl FnOnce(std::io::Error) -> IndexError {
    let path = path.display().to_string();
    move |source| IndexError::Io { path, source }
}

/// True if the error says that `rows.db` is corrupt or is not a database. The only way out is to delete it.
fn is_corrupt(error: &IndexError) -> bool {
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
    /// Opens or creates a generation. Deletes it first if `rows.db` is corrupt, and repairs the tantivy directory.
    pub async fn open(folder: &Path, spec: &GenerationSpec) -> Result<Self, IndexError> {
        let opened = match Self::open_rows(folder, spec).await {
            Err(error) if is_corrupt(&error) => {
                std::fs::remove_dir_all(folder).map_err(io(folder))?;
                let (space, mut loaded) = Self::open_rows(folder, spec).await?;
                loaded
                    .repairs
                    .push(format!("rows.db is corrupt ({error}) and was deleted; the generation starts empty"));
                (space, loaded)
            }
            other => other?,
        };
        let (space, loaded) = opened;
        let (tantivy, table, incarnation) = (folder.join("tantivy"), loaded.table.clone(), loaded.incarnation);
        let opened = blocking(move || repair::open(&tantivy, incarnation, &table)).await??;
        if opened.incarnation != loaded.incarnation {
            load::write_incarnation(&space, opened.incarnation).await?;
        }
        let repairs = [loaded.repairs, opened.repairs].concat();
        for repair in &repairs {
            tracing::warn!(generation = %spec.id, repair, "index was repaired");
        }
        let state =
            CommittedRows { table: loaded.table, changes: Vec::new(), incarnation: opened.incarnation, compare: false };
        let shared = Arc::new(Shared::new(spec.id.to_string(), folder.join("tantivy"), state, opened.view));
        let (wake, woken) = sync_channel(1);
        let (thread_shared, lexical) = (Arc::clone(&shared), opened.lexical);
        let thread = std::thread::Builder::new()
            .name("index-committer".to_owned())
            .spawn(move || committer::run(&thread_shared, lexical, &woken))
            .map_err(io(folder))?;
        Ok(Self {
            spec: spec.clone(),
            space,
            shared,
            repairs,
            writer: tokio::sync::Mutex::new(WriterState {
                next_number: loaded.next_number,
                tombstones: loaded.tombstones,
                uncertain: false,
            }),
            committer: Mutex::new(Some(CommitterThread { wake, thread })),
        })
    }

    /// Opens `rows.db` and loads it.
    async fn open_rows(
        folder: &Path,
        spec: &GenerationSpec,
    ) -> Result<(SqliteNamespace, load::LoadedRows), IndexError> {
        let file: PathBuf = folder.join("rows.db");
        let space = SqliteNamespace::open(&file, Durability::Derived, schema::LAYOUT_VERSION, schema::DDL).await?;
        match load::load(&space, spec).await {
            Ok(loaded) => Ok((space, loaded)),
            Err(error) => {
                space.close().await;
                Err(error)
            }
        }
    }

    /// Applies a batch: commits its rows with the checkpoint, and passes the changes to the committer.
    pub async fn apply(
        &self,
        log: &str,
        ops: Vec<IndexOp>,
        from: &Positions,
        upto: &Positions,
    ) -> Result<Applied, IndexError> {
        let (sources, count) = self.validate(&ops)?;
        let prepare = move || deduplicate(ops).into_iter().map(PreparedOp::of).collect::<Vec<_>>();
        let prepared = if count <= SMALL_BATCH { prepare() } else { blocking(prepare).await? };

        let mut writer = self.writer.lock().await;
        if writer.uncertain {
            self.resolve_uncertain_commit(&mut writer).await?;
        }
        let mut transaction = self.space.begin_at(log, from, upto).await?;
        let tombstones = if writer.tombstones > 0 {
            write::tombstones(transaction.connection(), prepared.iter().map(|op| &op.key)).await?
        } else {
            Default::default()
        };
        let write_set = WriteSet::fold(&self.shared.state().table, &tombstones, writer.next_number, prepared)?;
        write::write(transaction.connection(), &write_set, &sources).await?;
        writer.uncertain = true;
        transaction.commit().await?;
        writer.uncertain = false;
        writer.next_number = write_set.next_number;
        writer.tombstones += write_set.deletes.len() as u64;
        let applied = write_set.applied;
        self.publish(write_set, &sources);
        Ok(applied)
    }

    /// Fails if a vector is invalid. Returns the source positions past the ops, and the number of ops.
    fn validate(&self, ops: &[IndexOp]) -> Result<(Positions, usize), IndexError> {
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

    /// Applies a committed batch to the rows in memory, and wakes the committer.
    fn publish(&self, write_set: WriteSet, sources: &Positions) {
        let mut state = self.shared.state();
        if write_set.changes_rows() {
            state.table.sequence = write_set.sequence;
        } else if state.table.sources.covers(sources) {
            return;
        }
        state.table.sources.merge(sources);
        for number in write_set.deletes.iter().filter_map(|delete| delete.number) {
            state.table.remove(number);
            state.changes.push(Change::Remove(number));
        }
        for upsert in write_set.upserts {
            state.table.put(upsert.number, Arc::clone(&upsert.row));
            state.changes.push(Change::Put(upsert.number, upsert.row));
        }
        drop(state);
        self.wake();
    }

    /// Wakes the committer, if it is not stopped.
    fn wake(&self) {
        let committer = self.committer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(committer) = committer.as_ref() {
            // A full channel means that a wake-up is pending.
            let _ = committer.wake.try_send(());
        }
    }

    /// Loads the rows from `rows.db` after an uncertain commit, and makes the committer compare tantivy with them.
    ///
    /// The sequence alone does not say whether the commit succeeded: a batch of tombstones does not change it.
    async fn resolve_uncertain_commit(&self, writer: &mut WriterState) -> Result<(), IndexError> {
        let loaded = load::load(&self.space, &self.spec).await?;
        (writer.next_number, writer.tombstones) = (loaded.next_number, loaded.tombstones);
        let mut state = self.shared.state();
        state.table = loaded.table;
        state.changes.clear();
        state.compare = true;
        drop(state);
        self.wake();
        writer.uncertain = false;
        Ok(())
    }

    /// Stops the committer, which commits the pending changes first, and closes all files.
    pub async fn close(&self) -> Result<(), IndexError> {
        if let Some(stopped) = self.stop() {
            blocking(move || stopped.join().is_ok()).await?;
        }
        self.space.close().await;
        Ok(())
    }

    /// Tells the committer to stop and returns its thread; `None` if it was stopped before.
    fn stop(&self) -> Option<JoinHandle<()>> {
        let mut committer = self.committer.lock().unwrap_or_else(PoisonError::into_inner);
        // Dropping the sender ends the thread.
        committer.take().map(|committer| committer.thread)
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        // Releases the lock of the tantivy directory before this returns.
        if let Some(thread) = self.stop() {
            let _ = thread.join();
        }
    }
}

/// Runs blocking work on a thread of the blocking pool. Fails with [`IndexError::Thread`] if it panics.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, IndexError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| IndexError::Thread(error.to_string()))
}
