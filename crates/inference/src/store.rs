//! The weights on disk: each file under its SHA-256, written whole or not at all.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::InferenceError;
use crate::catalogue::{ModelEntry, ModelFile};
use crate::pull::Sources;

/// The folder of weights, `$ML_DATA_DIR/models`; files lie in `blobs/<sha256>`.
#[derive(Clone, Debug)]
pub struct ModelStore {
    root: PathBuf,
    pub(crate) sources: Sources,
}

impl ModelStore {
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), sources: Sources::from_env() }
    }

    /// Pulls from other places than the public ones.
    pub fn with_sources(mut self, sources: Sources) -> Self {
        self.sources = sources;
        self
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    pub(crate) fn path(&self, file: &ModelFile) -> PathBuf {
        self.blobs().join(&file.sha256)
    }

    /// The files that are not there, or not there whole; looks at sizes alone.
    pub fn missing<'a>(&self, entry: &'a ModelEntry) -> Vec<&'a ModelFile> {
        let there = |file: &ModelFile| {
            std::fs::metadata(self.path(file)).is_ok_and(|meta| meta.is_file() && meta.len() == file.size)
        };
        entry.files.iter().filter(|file| !there(file)).collect()
    }

    pub(crate) fn require(&self, entry: &ModelEntry) -> Result<(), InferenceError> {
        let missing = self.missing(entry);
        if missing.is_empty() {
            return Ok(());
        }
        let files = missing.into_iter().map(|file| file.path.clone()).collect();
        Err(InferenceError::NotPulled { model: entry.name().to_owned(), files })
    }

    /// Reads every file again and compares its hash.
    pub async fn verify(&self, entry: &ModelEntry) -> Result<(), InferenceError> {
        self.require(entry)?;
        match self.damaged(entry).await?.into_iter().next() {
            None => Ok(()),
            Some((file, found)) => Err(InferenceError::HashMismatch { file: file.path, expected: file.sha256, found }),
        }
    }

    /// The files whose hash is not theirs, each with what was found; those that are missing are not among them.
    pub(crate) async fn damaged(&self, entry: &ModelEntry) -> Result<Vec<(ModelFile, String)>, InferenceError> {
        let missing = self.missing(entry);
        let there: Vec<(ModelFile, PathBuf)> = entry
            .files
            .iter()
            .filter(|file| !missing.contains(file))
            .map(|file| (file.clone(), self.path(file)))
            .collect();
        blocking(move || {
            let mut damaged = Vec::new();
            for (file, path) in there {
                let found = hash_file(&path).map_err(InferenceError::storage(&path))?;
                if found != file.sha256 {
                    damaged.push((file, found));
                }
            }
            Ok(damaged)
        })
        .await
    }

    /// Reads a file, checks its hash, and hands the bytes to `parse`.
    pub(crate) async fn with_file<T: Send + 'static>(
        &self,
        entry: &ModelEntry,
        path: &str,
        parse: impl FnOnce(Vec<u8>) -> Result<T, String> + Send + 'static,
    ) -> Result<T, InferenceError> {
        let Some(file) = entry.files.iter().find(|file| file.path == path).cloned() else {
            return Err(InferenceError::Broken(format!("{} has no file {path} in the catalogue", entry.model)));
        };
        let blob = self.path(&file);
        blocking(move || {
            let bytes = std::fs::read(&blob).map_err(InferenceError::storage(&blob))?;
            let found = hex(&Sha256::digest(&bytes));
            if found != file.sha256 {
                return Err(InferenceError::HashMismatch { file: file.path, expected: file.sha256, found });
            }
            parse(bytes).map_err(|reason| InferenceError::Broken(format!("{}: {reason}", file.path)))
        })
        .await
    }
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, InferenceError> + Send + 'static,
) -> Result<T, InferenceError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(panic) => Err(InferenceError::Broken(panic.to_string())),
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn hash_file(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0u8; 256 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&hasher.finalize())),
            n => hasher.update(&buffer[..n]),
        }
    }
}

/// A file that is being written beside its place. Holding its lock says that its writer lives;
/// dropping it removes it.
pub(crate) struct Incoming {
    path: PathBuf,
    file: File,
    hasher: Sha256,
    pub written: u64,
    kept: bool,
}

const INCOMING: &str = ".incoming-";

impl Incoming {
    pub fn create(folder: &Path) -> Result<Self, InferenceError> {
        let path = folder.join(format!("{INCOMING}{}", uuid::Uuid::new_v4().simple()));
        let open = || -> std::io::Result<File> {
            std::fs::create_dir_all(folder)?;
            let file = File::options().read(true).write(true).create_new(true).open(&path)?;
            file.lock()?;
            Ok(file)
        };
        let file = open().map_err(InferenceError::storage(&path))?;
        Ok(Self { path, file, hasher: Sha256::new(), written: 0, kept: false })
    }

    pub fn write(&mut self, bytes: &[u8]) -> Result<(), InferenceError> {
        self.file.write_all(bytes).map_err(InferenceError::storage(&self.path))?;
        self.hasher.update(bytes);
        self.written += bytes.len() as u64;
        Ok(())
    }

    pub fn sha256(&self) -> String {
        hex(&self.hasher.clone().finalize())
    }

    /// The file itself, to be read from its start.
    pub fn reader(&self) -> Result<File, InferenceError> {
        File::open(&self.path).map_err(InferenceError::storage(&self.path))
    }

    /// Moves the file into its place, durably; the caller has checked its hash.
    pub fn keep(mut self, place: &Path) -> Result<(), InferenceError> {
        let settle = || -> std::io::Result<()> {
            self.file.sync_all()?;
            std::fs::rename(&self.path, place)?;
            match place.parent() {
                Some(folder) if cfg!(unix) => File::open(folder)?.sync_all(),
                _ => Ok(()),
            }
        };
        settle().map_err(InferenceError::storage(place))?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if !self.kept {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Removes what pulls that were killed have left: the lock of a living one cannot be taken.
pub(crate) fn sweep(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let left = entry.file_name().to_string_lossy().starts_with(INCOMING)
            // Younger ones may not have their lock yet.
            && entry.metadata().and_then(|meta| meta.modified()).is_ok_and(|at| at.elapsed().is_ok_and(|age| age.as_secs() >= 2))
            && File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok());
        if left {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}
