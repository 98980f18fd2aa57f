//! Uploads to a local folder. The content is written to a temporary file, fsynced, renamed to the blob's path, and the
//! folders are fsynced (law 14).

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;

use super::blocks::Blocks;
use super::{BLOBS, Blob, INCOMING, blocking};
use crate::digest::Hasher;
use crate::{ArtifactError, BoxError};

/// Bytes written at a time: 512 KiB.
const BLOCK: usize = 512 * 1024;

/// Stores the content of `blocks` in the folder `root`.
pub async fn put<S, E>(root: &Arc<PathBuf>, blocks: &mut Blocks<S>) -> Result<Blob, ArtifactError>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: Into<BoxError>,
{
    let root = Arc::clone(root);
    let mut upload = blocking(move || TempFile::create(&root)).await?;
    while let Some(block) = blocks.next(BLOCK).await? {
        upload = blocking(move || upload.write(&block)).await?;
    }
    blocking(move || upload.persist()).await
}

/// Creates the folders and fsyncs them.
pub fn prepare(root: &Path) -> Result<(), ArtifactError> {
    let create = || -> std::io::Result<()> {
        // The deepest folder that exists gets a new entry, so it must be fsynced too.
        let existing = root.ancestors().find(|folder| folder.is_dir()).map(Path::to_owned);
        std::fs::create_dir_all(root.join(BLOBS))?;
        std::fs::create_dir_all(root.join(INCOMING))?;
        for folder in root.ancestors() {
            sync_folder(folder)?;
            if Some(folder) == existing.as_deref() {
                break;
            }
        }
        Ok(())
    };
    create().map_err(ArtifactError::io(root))
}

/// Deletes the temporary files of killed processes: those whose lock is free. Returns their number.
pub fn sweep(root: &Path) -> Result<usize, ArtifactError> {
    let folder = root.join(INCOMING);
    let mut removed = 0;
    for entry in std::fs::read_dir(&folder).map_err(ArtifactError::io(&folder))? {
        let path = entry.map_err(ArtifactError::io(&folder))?.path();
        // Deleted while locked: an upload that waits for the lock then checks if its file still exists.
        let Ok(file) = File::open(&path) else { continue };
        if file.try_lock().is_ok() && std::fs::remove_file(&path).is_ok() {
            removed += 1;
        }
    }
    Ok(removed)
}

/// The temporary file of an upload. Its lock is held while the writer lives. Dropping it deletes the file, unless it
/// was persisted.
struct TempFile {
    root: Arc<PathBuf>,
    path: PathBuf,
    file: File,
    hasher: Hasher,
    persisted: bool,
}

impl TempFile {
    /// Creates and locks a file.
    fn create(root: &Arc<PathBuf>) -> Result<Self, ArtifactError> {
        loop {
            if let Some(file) = Self::create_unlocked(root)?.lock()? {
                return Ok(file);
            }
        }
    }

    /// Creates a file that is not locked yet. A sweep can delete it.
    fn create_unlocked(root: &Arc<PathBuf>) -> Result<Self, ArtifactError> {
        let path = root.join(INCOMING).join(uuid::Uuid::new_v4().simple().to_string());
        let file = File::create_new(&path).map_err(ArtifactError::io(&path))?;
        Ok(Self { root: Arc::clone(root), path, file, hasher: Hasher::default(), persisted: false })
    }

    /// Locks the file. `None` if a sweep locked it first and deleted it.
    fn lock(self) -> Result<Option<Self>, ArtifactError> {
        self.file.lock().map_err(ArtifactError::io(&self.path))?;
        Ok(self.path.exists().then_some(self))
    }

    /// Appends bytes.
    fn write(mut self, bytes: &[u8]) -> Result<Self, ArtifactError> {
        self.file.write_all(bytes).map_err(ArtifactError::io(&self.path))?;
        self.hasher.update(bytes);
        Ok(self)
    }

    /// Moves the file to the path of its blob, durably.
    fn persist(mut self) -> Result<Blob, ArtifactError> {
        let blob = Blob { size: self.hasher.bytes, sha256: std::mem::take(&mut self.hasher).finish() };
        let target = self.root.join(blob.path());
        self.rename_durably(&target, blob.size).map_err(ArtifactError::io(&target))?;
        Ok(blob)
    }

    /// Fsyncs the file, renames it to `target`, and fsyncs the folders. If `target` has a file of the
    /// same size, that file is kept and this one is deleted on drop.
    fn rename_durably(&mut self, target: &Path, size: u64) -> std::io::Result<()> {
        // A file of another size is damaged, and is replaced.
        let exists = std::fs::metadata(target).is_ok_and(|meta| meta.is_file() && meta.len() == size);
        let folder = target.parent().unwrap_or(&self.root);
        if !exists {
            self.file.sync_all()?;
            std::fs::create_dir_all(folder)?;
            std::fs::rename(&self.path, target)?;
            self.persisted = true;
        }
        // Also if the blob exists: the upload that renamed it may not have fsynced the folders yet.
        sync_folder(folder)?;
        sync_folder(&self.root.join(BLOBS))
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if !self.persisted {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Fsyncs a folder. Only Unix supports it; elsewhere this does nothing.
fn sync_folder(folder: &Path) -> std::io::Result<()> {
    match cfg!(unix) {
        true => File::open(folder)?.sync_all(),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> (tempfile::TempDir, Arc<PathBuf>) {
        let folder = tempfile::tempdir().unwrap();
        let root = Arc::new(folder.path().to_owned());
        prepare(&root).unwrap();
        (folder, root)
    }

    fn count_incoming(root: &Path) -> usize {
        std::fs::read_dir(root.join(INCOMING)).unwrap().count()
    }

    #[test]
    fn a_sweep_deletes_only_files_without_a_writer() {
        let (_folder, root) = root();
        std::fs::write(root.join(INCOMING).join("left"), "half").unwrap();
        let running = TempFile::create(&root).unwrap().write(b"bytes").unwrap();
        assert_eq!(sweep(&root).unwrap(), 1);
        assert!(count_incoming(&root) == 1 && running.path.exists());
        let blob = running.persist().unwrap();
        assert_eq!(std::fs::read(root.join(blob.path())).unwrap(), b"bytes");
        assert_eq!(count_incoming(&root), 0);
    }

    #[test]
    fn a_sweep_between_creation_and_lock_is_detected() {
        let (_folder, root) = root();
        let unlocked = TempFile::create_unlocked(&root).unwrap();
        assert_eq!(sweep(&root).unwrap(), 1);
        assert!(unlocked.lock().unwrap().is_none());
        let locked = TempFile::create_unlocked(&root).unwrap().lock().unwrap().unwrap();
        assert_eq!(sweep(&root).unwrap(), 0);
        drop(locked);
        assert_eq!(count_incoming(&root), 0);
    }
}
