//! What is known of the log's files: whether the paths still name the open ones, and what the last reads and writes met.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::error::LogError;

/// Device and inode of a file. An inode is not given to another file while the first one is open.
type Inode = (u64, u64);

/// One `stat`. Opening and closing a file here would drop SQLite's locks on it.
fn inode(path: &Path) -> std::io::Result<Inode> {
    let file = std::fs::metadata(path)?;
    #[cfg(unix)]
    let inode = {
        use std::os::unix::fs::MetadataExt as _;
        (file.dev(), file.ino())
    };
    // Elsewhere an open file can be neither deleted nor replaced.
    #[cfg(not(unix))]
    let inode = (0, u64::from(file.is_file()));
    Ok(inode)
}

/// The failure of the last reads or writes; a success clears it.
#[derive(Debug, Default)]
struct Last(Mutex<Option<String>>);

impl Last {
    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads or writes of the log's file.
#[derive(Clone, Copy, Debug)]
pub(super) enum Access {
    Read,
    Write,
}

#[derive(Debug)]
pub(super) struct Health {
    database: (PathBuf, Inode),
    wal: (PathBuf, Inode),
    /// Damaged pages stay damaged until the process is started with another file.
    damage: OnceLock<String>,
    read: Last,
    write: Last,
}

impl Health {
    /// Of the database at `path` and its write-ahead log, which are open.
    pub fn of(path: &Path) -> Result<Self, LogError> {
        let mut wal = path.to_owned().into_os_string();
        wal.push("-wal");
        let wal = PathBuf::from(wal);
        let found = |path: &Path| inode(path).map_err(|source| io(path, source));
        let inodes = (found(path)?, found(&wal)?);
        Ok(Self {
            database: (path.to_owned(), inodes.0),
            wal: (wal, inodes.1),
            damage: OnceLock::new(),
            read: Last::default(),
            write: Last::default(),
        })
    }

    /// [`LogError::Removed`] if the database or its write-ahead log was deleted or replaced: a commit would go to a file
    /// without a name, and be lost with the process. Two `stat` calls.
    pub fn files(&self) -> Result<(), LogError> {
        same(&self.database.0, self.database.1)?;
        same(&self.wal.0, self.wal.1)
    }

    /// Whether something may be written: asked before each transaction.
    pub fn writable(&self) -> Result<(), LogError> {
        match self.damage.get() {
            Some(damage) => Err(LogError::Corrupt(damage.clone())),
            None => self.files(),
        }
    }

    /// Remembers how a read or write of the file ended.
    pub fn note<T>(&self, access: Access, outcome: Result<T, LogError>) -> Result<T, LogError> {
        match &outcome {
            Ok(_) => *self.last(access).lock() = None,
            Err(LogError::Corrupt(damage)) => {
                if self.damage.set(damage.clone()).is_ok() {
                    tracing::error!(
                        damage,
                        "log file is damaged; nothing is appended until the process is started again"
                    );
                }
            }
            Err(LogError::Unavailable(error)) => *self.last(access).lock() = Some(error.clone()),
            Err(_) => {}
        }
        outcome
    }

    /// The failure of the last read or write.
    pub fn failure(&self, access: Access) -> Option<String> {
        self.last(access).lock().clone()
    }

    fn last(&self, access: Access) -> &Last {
        match access {
            Access::Read => &self.read,
            Access::Write => &self.write,
        }
    }
}

fn same(path: &Path, opened: Inode) -> Result<(), LogError> {
    let removed = || LogError::Removed { path: path.display().to_string() };
    match inode(path) {
        Ok(found) if found == opened => Ok(()),
        Ok(_) => Err(removed()),
        Err(error) => match error.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => Err(removed()),
            _ => Err(io(path, error)),
        },
    }
}

fn io(path: &Path, source: std::io::Error) -> LogError {
    LogError::Io { path: path.display().to_string(), source }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_remembered_until_a_success_of_its_kind_and_damage_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.db");
        std::fs::write(&path, "").unwrap();
        std::fs::write(dir.path().join("log.db-wal"), "").unwrap();
        let health = Health::of(&path).unwrap();
        let failed = || (health.failure(Access::Read), health.failure(Access::Write));
        let failure = |message: &str| Err::<(), _>(LogError::Unavailable(message.to_owned()));
        health.note(Access::Read, failure("read")).unwrap_err();
        health.note(Access::Write, failure("write")).unwrap_err();
        health.note(Access::Read, Ok(())).unwrap();
        assert_eq!(failed(), (None, Some("write".into())));
        // The caller's mistake says nothing of the file.
        health.note(Access::Read, Err::<(), _>(LogError::Closed)).unwrap_err();
        health.note(Access::Write, Ok(())).unwrap();
        assert_eq!(failed(), (None, None));
        health.writable().unwrap();
        health.note(Access::Read, Err::<(), _>(LogError::Corrupt("pages".into()))).unwrap_err();
        health.note(Access::Read, Ok(())).unwrap();
        health.note(Access::Write, Ok(())).unwrap();
        assert!(matches!(health.writable(), Err(LogError::Corrupt(pages)) if pages == "pages"));
    }
}
