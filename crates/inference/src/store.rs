//! The store of model files on disk. Each file is named by its SHA-256 and is renamed into place when it is complete.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::InferenceError;
use crate::catalogue::{ModelFile, Pullable};
use crate::pull::Sources;

/// The folder of model files, `$ML_DATA_DIR/models`. Files are at `blobs/<sha256>`.
#[derive(Clone, Debug)]
pub struct ModelStore {
    root: PathBuf,
    pub(crate) sources: Sources,
}

impl ModelStore {
    /// A store at `root` that downloads from the sources of the environment.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), sources: Sources::from_env() }
    }

    /// Replaces the sources of downloads.
    pub fn with_sources(mut self, sources: Sources) -> Self {
        self.sources = sources;
        self
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    /// The location of a file.
    pub(crate) fn path(&self, file: &ModelFile) -> PathBuf {
        self.blobs().join(&file.sha256)
    }

    /// Returns the files that are missing or have the wrong size. Does not verify hashes.
    pub fn missing<'a>(&self, entry: &'a impl Pullable) -> Vec<&'a ModelFile> {
        let present = |file: &ModelFile| {
            std::fs::metadata(self.path(file)).is_ok_and(|meta| meta.is_file() && meta.len() == file.size)
        };
        entry.files().iter().filter(|file| !present(file)).collect()
    }

    /// Fails with [`InferenceError::NotPulled`] if a file is missing.
    pub(crate) fn require(&self, entry: &impl Pullable) -> Result<(), InferenceError> {
        let missing = self.missing(entry);
        if missing.is_empty() {
            return Ok(());
        }
        let files = missing.into_iter().map(|file| file.path.clone()).collect();
        Err(InferenceError::NotPulled { model: entry.name().to_owned(), files })
    }

    /// Verifies the SHA-256 of every file. Fails with [`InferenceError::NotPulled`] or
    /// [`InferenceError::HashMismatch`].
    pub async fn verify(&self, entry: &impl Pullable) -> Result<(), InferenceError> {
        self.require(entry)?;
        match self.damaged(entry).await?.into_iter().next() {
            None => Ok(()),
            Some((file, found)) => Err(InferenceError::HashMismatch { file: file.path, expected: file.sha256, found }),
        }
    }

    /// Returns the present files whose SHA-256 is wrong, each with the actual SHA-256.
    pub(crate) async fn damaged(&self, entry: &impl Pullable) -> Result<Vec<(ModelFile, String)>, InferenceError> {
        let missing = self.missing(entry);
        let present: Vec<(ModelFile, PathBuf)> = entry
            .files()
            .iter()
            .filter(|file| !missing.contains(file))
            .map(|file| (file.clone(), self.path(file)))
            .collect();
        blocking(move || {
            let mut damaged = Vec::new();
            for (file, path) in present {
                let found = hash_file(&path).map_err(InferenceError::storage(&path))?;
                if found != file.sha256 {
                    damaged.push((file, found));
                }
            }
            Ok(damaged)
        })
        .await
    }

    /// Reads a file, verifies its SHA-256, and passes the bytes to `parse`, on a blocking thread.
    pub(crate) async fn with_file<T: Send + 'static>(
        &self,
        entry: &impl Pullable,
        path: &str,
        parse: impl FnOnce(Vec<u8>) -> Result<T, String> + Send + 'static,
    ) -> Result<T, InferenceError> {
        let Some(file) = entry.files().iter().find(|file| file.path == path).cloned() else {
            return Err(InferenceError::Broken(format!("{} has no file {path} in the catalogue", entry.name())));
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

/// Runs blocking work on a thread of the blocking pool.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, InferenceError> + Send + 'static,
) -> Result<T, InferenceError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(panic) => Err(InferenceError::Broken(panic.to_string())),
    }
}

/// The bytes in lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The SHA-256 of a file, in hexadecimal digits.
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

/// A temporary file of a download, in the folder of its final location. The file lock is held while the writer lives,
/// so that [`sweep`] does not delete the file. Dropping it deletes the file, unless it was persisted.
pub(crate) struct TempFile {
    path: PathBuf,
    file: File,
    hasher: Sha256,
    /// Bytes written.
    pub written: u64,
    persisted: bool,
}

/// Prefix of the names of temporary files.
const INCOMING: &str = ".incoming-";

impl TempFile {
    /// Creates and locks a file in `folder`.
    pub fn create(folder: &Path) -> Result<Self, InferenceError> {
        let path = folder.join(format!("{INCOMING}{}", uuid::Uuid::new_v4().simple()));
        let open = || -> std::io::Result<File> {
            std::fs::create_dir_all(folder)?;
            let file = File::options().read(true).write(true).create_new(true).open(&path)?;
            file.lock()?;
            Ok(file)
        };
        let file = open().map_err(InferenceError::storage(&path))?;
        Ok(Self { path, file, hasher: Sha256::new(), written: 0, persisted: false })
    }

    /// Appends bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), InferenceError> {
        self.file.write_all(bytes).map_err(InferenceError::storage(&self.path))?;
        self.hasher.update(bytes);
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// The SHA-256 of the bytes so far, in hexadecimal digits.
    pub fn sha256(&self) -> String {
        hex(&self.hasher.clone().finalize())
    }

    /// Opens the file for reading from its start.
    pub fn reader(&self) -> Result<File, InferenceError> {
        File::open(&self.path).map_err(InferenceError::storage(&self.path))
    }

    /// Renames the file to `target` and fsyncs file and folder. The caller must have verified the hash.
    pub fn persist(mut self, target: &Path) -> Result<(), InferenceError> {
        let rename_durably = || -> std::io::Result<()> {
            self.file.sync_all()?;
            std::fs::rename(&self.path, target)?;
            match target.parent() {
                Some(folder) if cfg!(unix) => File::open(folder)?.sync_all(),
                _ => Ok(()),
            }
        };
        rename_durably().map_err(InferenceError::storage(target))?;
        self.persisted = true;
        Ok(())
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if !self.persisted {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Deletes the temporary files that killed pulls left behind: those whose lock is free.
pub(crate) fn sweep(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let abandoned = entry.file_name().to_string_lossy().starts_with(INCOMING)
            // A file younger than 2 s may not be locked yet.
            && entry.metadata().and_then(|meta| meta.modified()).is_ok_and(|at| at.elapsed().is_ok_and(|age| age.as_secs() >= 2))
            && File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok());
        if abandoned {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}
