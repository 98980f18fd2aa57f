//! The data folder: its lock against a second process, and its format number.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::error::LogError;

/// The layout that this program writes.
const FORMAT: u32 = 1;

/// A data folder that this process holds. The lock goes with the value, or with the process.
#[derive(Debug)]
pub struct DataFolder {
    root: PathBuf,
    _lock: File,
}

impl DataFolder {
    /// Creates the folder if need be, takes its lock and checks its format.
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

    fn check_format(&self) -> Result<(), LogError> {
        let path = self.root.join("format");
        let io = |source| LogError::Io { path: path.display().to_string(), source };
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                let (number, writer) = text.trim().split_once(' ').unwrap_or((text.trim(), "an unknown version"));
                let found = number
                    .parse()
                    .map_err(|_| LogError::Corrupt(format!("{}: {text:?} is not a format", path.display())))?;
                if found > FORMAT {
                    let path = self.root.display().to_string();
                    return Err(LogError::NewerFormat { path, writer: writer.to_owned(), found, known: FORMAT });
                }
                Ok(())
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                // Written aside and renamed: a kill must not leave half a number.
                let aside = self.root.join("format.new");
                std::fs::write(&aside, format!("{FORMAT} carbon-ml {}\n", env!("CARGO_PKG_VERSION"))).map_err(io)?;
                std::fs::rename(&aside, &path).map_err(io)
            }
            Err(error) => Err(io(error)),
        }
    }

    /// A missing log beside read models is a loss, not a beginning: a new log would wipe what is left.
    pub(super) fn refuse_lost_log(&self) -> Result<(), LogError> {
        let there = std::fs::metadata(self.log_file()).is_ok_and(|file| file.len() > 0);
        let derived = std::fs::read_dir(self.read_models()).is_ok_and(|mut entries| entries.next().is_some());
        match !there && derived {
            true => Err(LogError::Lost { path: self.log_file().display().to_string() }),
            false => Ok(()),
        }
    }

    /// The name of this copy of the read models: a UUID, drawn once for the folder. It is what tells processes on
    /// one Kafka cluster apart, so a folder that is copied must lose its `instance` file.
    pub fn instance(&self) -> Result<String, LogError> {
        let path = self.root.join("instance");
        let io = |source| LogError::Io { path: path.display().to_string(), source };
        match std::fs::read_to_string(&path) {
            Ok(text) => text.trim().parse::<Uuid>().map(|id| id.to_string()).map_err(|_| {
                LogError::Corrupt(format!(
                    "{}: {text:?} is not a UUID; delete the file to draw another",
                    path.display()
                ))
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let drawn = Uuid::new_v4().to_string();
                let aside = self.root.join("instance.new");
                std::fs::write(&aside, format!("{drawn}\n")).map_err(io)?;
                std::fs::rename(&aside, &path).map_err(io)?;
                Ok(drawn)
            }
            Err(error) => Err(io(error)),
        }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn log_file(&self) -> PathBuf {
        self.root.join("log.db")
    }

    pub fn read_models(&self) -> PathBuf {
        self.root.join("read-models")
    }

    /// What is still to be told to webhooks. It is no read model: nothing makes it anew.
    pub fn webhooks_file(&self) -> PathBuf {
        self.root.join("webhooks.db")
    }

    pub fn models(&self) -> PathBuf {
        self.root.join("models")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_log_is_refused_beside_read_models() {
        let root = tempfile::tempdir().unwrap();
        let folder = DataFolder::open(root.path()).unwrap();
        assert!(folder.refuse_lost_log().is_ok());
        std::fs::create_dir_all(folder.read_models().join("catalog-v1-1")).unwrap();
        let error = folder.refuse_lost_log().unwrap_err().to_string();
        assert!(error.contains("read-models"), "{error}");
        std::fs::write(folder.log_file(), "log").unwrap();
        assert!(folder.refuse_lost_log().is_ok());
    }

    #[test]
    fn the_instance_is_drawn_once() {
        let root = tempfile::tempdir().unwrap();
        let drawn = DataFolder::open(root.path()).unwrap().instance().unwrap();
        assert_eq!(DataFolder::open(root.path()).unwrap().instance().unwrap(), drawn);
        std::fs::write(root.path().join("instance"), "x").unwrap();
        assert!(DataFolder::open(root.path()).unwrap().instance().is_err());
    }

    #[test]
    fn a_second_holder_is_refused_and_a_newer_format_named() {
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
