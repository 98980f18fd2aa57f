//! The identity of an open file. If the path names another file, or none, the open file was deleted or replaced. Only
//! `stat` is called: opening and closing the file here would drop SQLite's locks on it.

use std::path::{Path, PathBuf};

use crate::error::StoreError;

/// Device and inode of a file. The system does not reuse an inode while its file is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Inode(u64, u64);

impl Inode {
    fn at(path: &Path) -> std::io::Result<Self> {
        let file = std::fs::metadata(path)?;
        #[cfg(unix)]
        let inode = {
            use std::os::unix::fs::MetadataExt as _;
            Self(file.dev(), file.ino())
        };
        // Elsewhere an open file can be neither deleted nor replaced.
        #[cfg(not(unix))]
        let inode = Self(0, u64::from(file.is_file()));
        Ok(inode)
    }
}

/// A file that a namespace holds open.
#[derive(Clone, Debug)]
pub(crate) struct OpenFile {
    path: PathBuf,
    inode: Inode,
}

impl OpenFile {
    /// The file that was just opened at `path`.
    pub fn of(path: &Path) -> Result<Self, StoreError> {
        let inode = Inode::at(path).map_err(|source| StoreError::Io { path: path.display().to_string(), source })?;
        Ok(Self { path: path.to_owned(), inode })
    }

    /// [`StoreError::Gone`] if the path no longer names the open file.
    pub fn check(&self) -> Result<(), StoreError> {
        let path = || self.path.display().to_string();
        match Inode::at(&self.path) {
            Ok(inode) if inode == self.inode => Ok(()),
            Ok(_) => Err(StoreError::Gone { path: path() }),
            Err(error) => match error.kind() {
                std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => {
                    Err(StoreError::Gone { path: path() })
                }
                _ => Err(StoreError::Io { path: path(), source: error }),
            },
        }
    }
}
