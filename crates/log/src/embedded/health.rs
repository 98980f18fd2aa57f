//! The health of the log's files: whether the paths still name the open files, and whether the last read and write
//! succeeded.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::error::LogError;

/// Device and inode number of a file. The file system does not reuse an inode number while the file is open.
type Inode = (u64, u64);

/// Reads a file's inode by `stat`. Must not open the file: closing it would drop SQLite's locks on it.
fn inode(path: &Path) -> std::io::Result<Inode> {
    let file = std::fs::metadata(path)?;
    #[cfg(unix)]
    let inode = {
        use std::os::unix::fs::MetadataExt as _;
        (file.dev(), file.ino())
    };
    // On other systems an open file cannot be deleted or replaced.
    #[cfg(not(unix))]
    let inode = (0, u64::from(file.is_file()));
    Ok(inode)
}

/// The failure of the last access of one kind. A success clears it.
#[derive(Debug, Default)]
struct LastFailure(Mutex<Option<String>>);

impl LastFailure {
    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The kind of an access to the log file.
#[derive(Clone, Copy, Debug)]
pub(super) enum Access {
    Read,
    Write,
}

/// Owns what is known about the log's files.
#[derive(Debug)]
pub(super) struct Health {
    database: (PathBuf, Inode),
    wal: (PathBuf, Inode),
    /// Set when a damaged page was found. Never cleared: it needs a restart with a restored file.
    damage: OnceLock<String>,
    read: LastFailure,
    write: LastFailure,
}

impl Health {
    /// The health of the open database at `path` and its WAL file.
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
            read: LastFailure::default(),
            write: LastFailure::default(),
        })
    }

    /// Fails with [`LogError::Removed`] if the database or its WAL file was deleted or replaced: a commit would go to a
    /// file without a path, and be lost when the process ends. Costs 2 `stat` calls.
    pub fn check_files(&self) -> Result<(), LogError> {
        check_same_file(&self.database.0, self.database.1)?;
        check_same_file(&self.wal.0, self.wal.1)
    }

    /// Fails if nothing may be written. Called before each transaction.
    pub fn check_writable(&self) -> Result<(), LogError> {
        match self.damage.get() {
            Some(damage) => Err(LogError::Corrupt(damage.clone())),
            None => self.check_files(),
        }
    }

    /// Records the outcome of a read or write, and returns it.
    pub fn record_outcome<T>(&self, access: Access, outcome: Result<T, LogError>) -> Result<T, LogError> {
        match &outcome {
            Ok(_) => *self.last_failure(access).lock() = None,
            Err(LogError::Corrupt(damage)) => {
                if self.damage.set(damage.clone()).is_ok() {
                    tracing::error!(
                        damage,
                        "log file is damaged; rejecting appends until the process is restarted with a restored file"
                    );
                }
            }
            Err(LogError::Unavailable(error)) => *self.last_failure(access).lock() = Some(error.clone()),
            Err(_) => {}
        }
        outcome
    }

    /// The failure of the last access of this kind; `None` if it succeeded.
    pub fn failure(&self, access: Access) -> Option<String> {
        self.last_failure(access).lock().clone()
    }

    fn last_failure(&self, access: Access) -> &LastFailure {
        match access {
            Access::Read => &self.read,
            Access::Write => &self.write,
        }
    }
}

/// Fails if the path no longer names the file that was opened.
fn check_same_file(path: &Path, opened: Inode) -> Result<(), LogError> {
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
    fn a_success_clears_a_failure_of_its_kind_but_never_damage() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.db");
        std::fs::write(&path, "").unwrap();
        std::fs::write(dir.path().join("log.db-wal"), "").unwrap();
        let health = Health::of(&path).unwrap();
        let failed = || (health.failure(Access::Read), health.failure(Access::Write));
        let failure = |message: &str| Err::<(), _>(LogError::Unavailable(message.to_owned()));
        health.record_outcome(Access::Read, failure("read")).unwrap_err();
        health.record_outcome(Access::Write, failure("write")).unwrap_err();
        health.record_outcome(Access::Read, Ok(())).unwrap();
        assert_eq!(failed(), (None, Some("write".into())));
        // An error of the caller does not concern the file.
        health.record_outcome(Access::Read, Err::<(), _>(LogError::Closed)).unwrap_err();
        health.record_outcome(Access::Write, Ok(())).unwrap();
        assert_eq!(failed(), (None, None));
        health.check_writable().unwrap();
        health.record_outcome(Access::Read, Err::<(), _>(LogError::Corrupt("pages".into()))).unwrap_err();
        health.record_outcome(Access::Read, Ok(())).unwrap();
        health.record_outcome(Access::Write, Ok(())).unwrap();
        assert!(matches!(health.check_writable(), Err(LogError::Corrupt(pages)) if pages == "pages"));
    }
}
