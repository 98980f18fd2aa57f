//! WAL checkpoints beside the writer. SQLite's own checkpoint runs within a commit and delays that commit by tens of
//! milliseconds.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::file_pool::FilePool;

/// Minimum interval between WAL checkpoints.
const INTERVAL: Duration = Duration::from_secs(1);
/// Minimum number of commits between WAL checkpoints.
const COMMITS: u32 = 64;

/// Moves WAL pages into the database file without waiting for readers or the writer. SQLite reuses the WAL only when
/// all of it was moved, so the writer moves the few pages that were added meanwhile.
pub(crate) const CHECKPOINT: &str = "PRAGMA wal_checkpoint(PASSIVE)";

#[derive(Clone, Debug)]
pub(crate) struct Wal {
    /// The connections that run the checkpoint.
    pool: FilePool,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    last: Instant,
    commits: u32,
    phase: Phase,
}

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    /// A reader's connection moves most pages.
    Moving,
    /// The next commit moves the rest.
    Rest,
}

impl Wal {
    pub fn new(pool: FilePool) -> Self {
        let state = State { last: Instant::now(), commits: 0, phase: Phase::Idle };
        Self { pool, state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True, once, if the writer has to move the rest now.
    pub fn takes_rest(&self) -> bool {
        let mut state = self.state();
        let takes = state.phase == Phase::Rest;
        if takes {
            state.phase = Phase::Idle;
        }
        takes
    }

    /// Called after a commit: starts a WAL checkpoint when it is due.
    pub fn committed(&self) {
        {
            let mut state = self.state();
            state.commits += 1;
            if state.phase != Phase::Idle || state.commits < COMMITS || state.last.elapsed() < INTERVAL {
                return;
            }
            state.phase = Phase::Moving;
        }
        let wal = self.clone();
        tokio::spawn(async move {
            let moved = wal.checkpoint().await;
            if let Err(error) = &moved {
                // SQLite does it within a commit when the WAL has grown to 64 MiB.
                tracing::debug!(%error, "WAL checkpoint beside the writer failed");
            }
            let phase = if moved.is_ok() { Phase::Rest } else { Phase::Idle };
            *wal.state() = State { last: Instant::now(), commits: 0, phase };
        });
    }

    async fn checkpoint(&self) -> Result<(), sqlx::Error> {
        let mut connection = self.pool.take().await?;
        connection.run(CHECKPOINT).await?;
        connection.give_back();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use carbon_core::Positions;

    use super::*;
    use crate::sqlite::{Durability, SqliteNamespace};

    #[tokio::test]
    async fn pages_of_small_commits_reach_the_file_while_the_wal_is_short() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.db");
        let ddl = "CREATE TABLE IF NOT EXISTS item (bytes BLOB);";
        let space = SqliteNamespace::open(&path, Durability::Derived, 1, ddl).await.unwrap();
        let length = || std::fs::metadata(&path).unwrap().len();
        let (empty, deadline) = (length(), Instant::now() + Duration::from_secs(30));
        while length() < empty + 64 * 4096 {
            assert!(Instant::now() < deadline, "no page reaches the database file");
            let mut tables = space.begin_at("log", &Positions::new(), &Positions::new()).await.unwrap();
            sqlx::query("INSERT INTO item VALUES (zeroblob(4096))").execute(tables.connection()).await.unwrap();
            tables.commit().await.unwrap();
        }
    }
}
