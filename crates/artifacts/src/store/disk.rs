//! Writing to a local folder: written aside, fsynced, renamed into place, and the folders fsynced (law 14).

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

/// What one trip to the disk takes.
const BLOCK: usize = 512 * 1024;

pub async fn put<S, E>(root: &Arc<PathBuf>, blocks: &mut Blocks<S>) -> Result<Blob, ArtifactError>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: Into<BoxError>,
{
    let place = Arc::clone(root);
    let mut incoming = blocking(move || Incoming::create(&place)).await?;
    while let Some(block) = blocks.next(BLOCK).await? {
        incoming = blocking(move || incoming.write(&block)).await?;
    }
    blocking(move || incoming.keep()).await
}

/// Makes the folders, durably.
pub fn prepare(root: &Path) -> Result<(), ArtifactError> {
    let make = || -> std::io::Result<()> {
        // The deepest folder that is there already gets a new entry as well.
        let there = root.ancestors().find(|folder| folder.is_dir()).map(Path::to_owned);
        std::fs::create_dir_all(root.join(BLOBS))?;
        std::fs::create_dir_all(root.join(INCOMING))?;
        for folder in root.ancestors() {
            sync_folder(folder)?;
            if Some(folder) == there.as_deref() {
                break;
            }
        }
        Ok(())
    };
    make().map_err(ArtifactError::io(root))
}

/// Removes the files whose writer is gone: the lock of a living one cannot be taken.
pub fn sweep(root: &Path) -> Result<usize, ArtifactError> {
    let folder = root.join(INCOMING);
    let mut removed = 0;
    for entry in std::fs::read_dir(&folder).map_err(ArtifactError::io(&folder))? {
        let path = entry.map_err(ArtifactError::io(&folder))?.path();
        // Removed under the lock: who waits for it looks whether its file is still there.
        let Ok(file) = File::open(&path) else { continue };
        if file.try_lock().is_ok() && std::fs::remove_file(&path).is_ok() {
            removed += 1;
        }
    }
    Ok(removed)
}

/// A file that is being written. Holding its lock says that its writer lives; dropping it removes it.
struct Incoming {
    root: Arc<PathBuf>,
    path: PathBuf,
    file: File,
    hasher: Hasher,
    kept: bool,
}

impl Incoming {
    fn create(root: &Arc<PathBuf>) -> Result<Self, ArtifactError> {
        loop {
            if let Some(incoming) = Self::begin(root)?.claim()? {
                return Ok(incoming);
            }
        }
    }

    fn begin(root: &Arc<PathBuf>) -> Result<Self, ArtifactError> {
        let path = root.join(INCOMING).join(uuid::Uuid::new_v4().simple().to_string());
        let file = File::create_new(&path).map_err(ArtifactError::io(&path))?;
        Ok(Self { root: Arc::clone(root), path, file, hasher: Hasher::default(), kept: false })
    }

    /// Nothing where a sweep had the lock first, and the file is gone.
    fn claim(self) -> Result<Option<Self>, ArtifactError> {
        self.file.lock().map_err(ArtifactError::io(&self.path))?;
        Ok(self.path.exists().then_some(self))
    }

    fn write(mut self, bytes: &[u8]) -> Result<Self, ArtifactError> {
        self.file.write_all(bytes).map_err(ArtifactError::io(&self.path))?;
        self.hasher.update(bytes);
        Ok(self)
    }

    fn keep(mut self) -> Result<Blob, ArtifactError> {
        let blob = Blob { size: self.hasher.bytes, sha256: std::mem::take(&mut self.hasher).finish() };
        let place = self.root.join(blob.place());
        self.settle(&place, blob.size).map_err(ArtifactError::io(&place))?;
        Ok(blob)
    }

    fn settle(&mut self, place: &Path, size: u64) -> std::io::Result<()> {
        // One of another size is damaged: it is replaced.
        let there = std::fs::metadata(place).is_ok_and(|meta| meta.is_file() && meta.len() == size);
        let folder = place.parent().unwrap_or(&self.root);
        if !there {
            self.file.sync_all()?;
            std::fs::create_dir_all(folder)?;
            std::fs::rename(&self.path, place)?;
            self.kept = true;
        }
        // Also where it was there: whoever has renamed it may not have come this far.
        sync_folder(folder)?;
        sync_folder(&self.root.join(BLOBS))
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if !self.kept {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Folders can be synced on Unix alone.
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

    fn incoming(root: &Path) -> usize {
        std::fs::read_dir(root.join(INCOMING)).unwrap().count()
    }

    #[test]
    fn a_sweep_removes_what_has_no_writer() {
        let (_folder, root) = root();
        std::fs::write(root.join(INCOMING).join("left"), "half").unwrap();
        let running = Incoming::create(&root).unwrap().write(b"bytes").unwrap();
        assert_eq!(sweep(&root).unwrap(), 1);
        assert!(incoming(&root) == 1 && running.path.exists());
        let blob = running.keep().unwrap();
        assert_eq!(std::fs::read(root.join(blob.place())).unwrap(), b"bytes");
        assert_eq!(incoming(&root), 0);
    }

    #[test]
    fn a_sweep_that_comes_between_file_and_lock_is_noticed() {
        let (_folder, root) = root();
        let begun = Incoming::begin(&root).unwrap();
        assert_eq!(sweep(&root).unwrap(), 1);
        assert!(begun.claim().unwrap().is_none());
        let claimed = Incoming::begin(&root).unwrap().claim().unwrap().unwrap();
        assert_eq!(sweep(&root).unwrap(), 0);
        drop(claimed);
        assert_eq!(incoming(&root), 0);
    }
}
