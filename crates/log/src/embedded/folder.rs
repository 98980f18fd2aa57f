//! The data folder: its lock, its format number and its paths.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::error::LogError;

/// The format number that this program writes.
const FORMAT: u32 = 1;

/// A locked data folder. The lock is released when the value is dropped or the process ends.
#[derive(Debug)]
pub struct DataFolder {
    root: PathBuf,
    _lock: File,
}

impl DataFolder {
    /// Creates the folder if it is missing, takes its lock and checks its format.
    pub fn open(root: &Path) -> Result<Self, LogError> {
        let io = |path: &Path| {
            let path = path.display().to_string();
            move |source| LogError::Io { path, source }
        };
        if root.exists() && !root.is_dir() {
            let source = std::io::Error::from(std::io::ErrorKind::NotADirectory);
            return Err(io(root)(source));
        }
        std::fs::create_dir_all(root).map_err(io(root))?;
        let path = root.join("lock");
        let mut lock =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(io(&path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                let read = lock.read_to_string(&mut pid);
                let pid = if read.is_ok() { pid.trim().to_owned() } else { "unknown".into() };
                return Err(LogError::Locked { path: root.display().to_string(), pid });
            }
            Err(TryLockError::Error(source)) => return Err(io(&path)(source)),
        }
        lock.set_len(0).and_then(|()| lock.rewind()).map_err(io(&path))?;
        writeln!(lock, "{}", std::process::id()).map_err(io(&path))?;
        let folder = Self { root: root.to_owned(), _lock: lock };
        folder.check_format()?;
        Ok(folder)
    }

    /// Fails if a newer program wrote the folder. Writes the format number into a new folder.
    fn check_format(&self) -> Result<(), LogError> {
        let path = self.root.join("format");
        let io = |source| LogError::Io { path: path.display().to_string(), source };
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                let (number, writer) = text.trim().split_once(' ').unwrap_or((text.trim(), "an unknown version"));
                let found = number
                    .parse()
                    .map_err(|_| LogError::Corrupt(format!("{}: {text:?} is not a format number", path.display())))?;
                if found > FORMAT {
                    let path = self.root.display().to_string();
                    return Err(LogError::NewerFormat { path, writer: writer.to_owned(), found, known: FORMAT });
                }
                Ok(())
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                // A temporary file is renamed, so that a crash cannot leave a partial number.
                let temporary = self.root.join("format.new");
                std::fs::write(&temporary, format!("{FORMAT} carbon-ml {}\n", env!("CARGO_PKG_VERSION")))
                    .map_err(io)?;
                std::fs::rename(&temporary, &path).map_err(io)
            }
            Err(error) => Err(io(error)),
        }
    }

    /// Fails if the log is missing beside read models: the log was lost, and a new log would discard the read models.
    pub(super) fn reject_lost_log(&self) -> Result<(), LogError> {
        let has_log = std::fs::metadata(self.log_file()).is_ok_and(|file| file.len() > 0);
        let has_read_models = std::fs::read_dir(self.read_models()).is_ok_and(|mut entries| entries.next().is_some());
        match !has_log && has_read_models {
            true => Err(LogError::Lost { path: self.log_file().display().to_string() }),
            false => Ok(()),
        }
    }

    /// The instance name of the folder: a random UUID that is generated once. It distinguishes the processes on one
    /// Kafka cluster, so the file `instance` must be deleted from a copy of the folder.
    pub fn instance(&self) -> Result<String, LogError> {
        let path = self.root.join("instance");
        let io = |source| LogError::Io { path: path.display().to_string(), source };
        match std::fs::read_to_string(&path) {
            Ok(text) => text.trim().parse::<Uuid>().map(|id| id.to_string()).map_err(|_| {
                LogError::Corrupt(format!(
                    "{}: {text:?} is not a UUID; delete the file to generate another",
                    path.display()
                ))
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let instance = Uuid::new_v4().to_string();
                let temporary = self.root.join("instance.new");
                std::fs::write(&temporary, format!("{instance}\n")).map_err(io)?;
                std::fs::rename(&temporary, &path).map_err(io)?;
                Ok(instance)
            }
            Err(error) => Err(io(error)),
        }
    }

    /// The path of the folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The file of the embedded log.
    pub fn log_file(&self) -> PathBuf {
        self.root.join("log.db")
    }

    /// The folder of the read models.
    pub fn read_models(&self) -> PathBuf {
        self.root.join("read-models")
    }

    /// The file of the pending webhook deliveries. It is not a read model and cannot be rebuilt.
    pub fn webhooks_file(&self) -> PathBuf {
        self.root.join("webhooks.db")
    }

    /// The folder of downloaded models.
    pub fn models(&self) -> PathBuf {
        self.root.join("models")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_log_beside_read_models_is_rejected() {
        let root = tempfile::tempdir().unwrap();
        let folder = DataFolder::open(root.path()).unwrap();
        assert!(folder.reject_lost_log().is_ok());
        std::fs::create_dir_all(folder.read_models().join("catalog-v1-1")).unwrap();
        let error = folder.reject_lost_log().unwrap_err().to_string();
        assert!(error.contains("read-models"), "{error}");
        std::fs::write(folder.log_file(), "log").unwrap();
        assert!(folder.reject_lost_log().is_ok());
    }

    #[test]
    fn the_instance_is_generated_once() {
        let root = tempfile::tempdir().unwrap();
        let instance = DataFolder::open(root.path()).unwrap().instance().unwrap();
        assert_eq!(DataFolder::open(root.path()).unwrap().instance().unwrap(), instance);
        std::fs::write(root.path().join("instance"), "x").unwrap();
        assert!(DataFolder::open(root.path()).unwrap().instance().is_err());
    }

    #[test]
    fn a_second_open_and_a_newer_format_are_rejected() {
        let root = tempfile::tempdir().unwrap();
        let held = DataFolder::open(root.path()).unwrap();
        let error = DataFolder::open(root.path()).unwrap_err().to_string();
        assert!(error.contains(&std::process::id().to_string()), "{error}");
        drop(held);
        std::fs::write(root.path().join("format"), "9 carbon-ml 7.0.0\n").unwrap();
        let error = DataFolder::open(root.path()).unwrap_err().to_string();
        assert!(error.contains("carbon-ml 7.0.0"), "{error}");
    }
}
