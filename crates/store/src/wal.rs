//! Moving the pages of a file's write-ahead log into the file, beside the writer: done by a commit it would hold that one, and
//! who waits for it, up for tens of milliseconds.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::lanes::Lanes;

/// A move at the most so often, and only after so many commits.
const INTERVAL: Duration = Duration::from_secs(1);
const COMMITS: u32 = 64;

/// What moves the pages; SQLite's own checkpoint, which waits for nobody. The log begins anew only when all of it has been
/// moved, so the writer itself moves the few pages that came meanwhile.
pub(crate) const MOVE: &str = "PRAGMA wal_checkpoint(PASSIVE)";

#[derive(Clone, Debug)]
pub(crate) struct Wal {
    /// Where the move runs.
    lanes: Lanes,
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
    /// Most pages are being moved.
    Moving,
    /// The rest is the next commit's.
    Rest,
}

impl Wal {
    pub fn new(lanes: Lanes) -> Self {
        let state = State { last: Instant::now(), commits: 0, phase: Phase::Idle };
        Self { lanes, state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the writer is to move the rest now.
    pub fn takes_rest(&self) -> bool {
        let mut state = self.state();
        let takes = state.phase == Phase::Rest;
        if takes {
            state.phase = Phase::Idle;
        }
        takes
    }

    /// After a commit: starts a move when it is time.
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
            let moved = wal.move_pages().await;
            if let Err(error) = &moved {
                // The writer does it when the log has grown larger.
                tracing::debug!(%error, "pages were not moved beside the writer");
            }
            let phase = if moved.is_ok() { Phase::Rest } else { Phase::Idle };
            *wal.state() = State { last: Instant::now(), commits: 0, phase };
        });
    }

    async fn move_pages(&self) -> Result<(), sqlx::Error> {
        let mut lane = self.lanes.take().await?;
        lane.run(MOVE).await?;
        lane.give_back();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use carbon_core::Positions;

    use super::*;
    use crate::sqlite::{Durability, SqliteNamespace};

    #[tokio::test]
    async fn small_commits_reach_the_file_before_the_log_is_long() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.db");
        let ddl = "CREATE TABLE IF NOT EXISTS item (bytes BLOB);";
        let space = SqliteNamespace::open(&path, Durability::Derived, 1, ddl).await.unwrap();
        let length = || std::fs::metadata(&path).unwrap().len();
        let (empty, deadline) = (length(), Instant::now() + Duration::from_secs(30));
        while length() < empty + 64 * 4096 {
            assert!(Instant::now() < deadline, "nothing is moved");
            let mut tables = space.begin_at("log", &Positions::new(), &Positions::new()).await.unwrap();
            sqlx::query("INSERT INTO item VALUES (zeroblob(4096))").execute(tables.connection()).await.unwrap();
            tables.commit().await.unwrap();
        }
    }
}
