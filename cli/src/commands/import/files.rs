//! The server's artifact folder: each file of a run, a logged model or a version becomes a blob, and then its event.

use std::collections::{BTreeMap, HashSet};
use std::fs::FileType;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use carbon_artifacts::{ArtifactPath, ArtifactStore};
use carbon_schemas::events::{ArtifactChanged, ArtifactKind};
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncReadExt as _;

use super::Import;
use super::report::Kind;
use super::sink::at;
use super::store::{Bind, text};
use crate::error::CliError;
use crate::term;

/// Files on their way at once: a small one is mostly waiting for the disk.
const AT_ONCE: usize = 4;

/// Files whose events are appended together.
const ROUND: usize = 64;

/// Whether the log has a file of this path and hash.
type Known<'a> = &'a (dyn Fn(&str, &str) -> bool + Sync);

/// The largest file, as the server takes it.
const FILE_LIMIT: u64 = 64 * 1024 * 1024 * 1024;

const CHUNK: usize = 256 * 1024;

struct Found {
    path: PathBuf,
    /// From the folder; an error is why it cannot be one.
    name: Result<String, String>,
    size: u64,
    changed: i64,
}

pub async fn import(import: &mut Import, blobs: Option<&ArtifactStore>) -> Result<(), CliError> {
    let Some(root) = import.places.root().map(Path::to_owned) else { return Ok(()) };
    version_roots(import).await?;
    let (sender, walked) = tokio::sync::oneshot::channel();
    let folder = root.clone();
    tokio::task::spawn_blocking(move || drop(sender.send(walk(&folder))));
    let walked = walked.await.map_err(|_| CliError::Failed("the artifact folder cannot be read".into()))?;
    let (mut own, mut foreign) = (Vec::new(), 0);
    for found in walked? {
        match &found.name {
            Ok(name) if !is_below(&import.roots, name) => foreign += 1,
            Ok(_) => own.push(found),
            Err(reason) => {
                let shown = found.path.display().to_string();
                import.sink.report.refuse(Kind::Files, 1, &shown, reason);
            }
        }
    }
    import.sink.report.leave_out("files that belong to no imported run, model or version", foreign);
    let bar = term::bar(
        Some(own.iter().map(|found| found.size).sum()),
        "files {bar:30} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left",
    );
    let mut own = own.into_iter().peekable();
    while own.peek().is_some() {
        // So many blobs are durable before their events are appended.
        let some: Vec<Found> = own.by_ref().take(ROUND).collect();
        let stored: Vec<_> = {
            let sink = &import.sink;
            let known = |name: &str, sha256: &str| sink.has(sink.id("files", &[name, sha256]));
            let known = import.holds_files.then_some(&known as Known<'_>);
            stream::iter(some.iter().map(|found| store(found, blobs, known, &bar))).buffered(AT_ONCE).collect().await
        };
        for (found, stored) in some.iter().zip(stored) {
            let name = found.name.clone().unwrap_or_default();
            match stored {
                Ok((size, sha256)) => put(import, found, name, size, sha256).await?,
                Err(reason) => import.sink.report.refuse(Kind::Files, 1, &name, &reason),
            }
        }
    }
    bar.finish_and_clear();
    import.sink.flush().await
}

async fn put(import: &mut Import, found: &Found, name: String, size: u64, sha256: String) -> Result<(), CliError> {
    let event = ArtifactChanged {
        event_id: import.sink.id("files", &[&name, &sha256]),
        occurred_at: at(found.changed),
        tenant_id: import.sink.tenant.clone(),
        owner: ArtifactChanged::owner_of(&name).to_owned(),
        kind: ArtifactKind::Stored,
        path: name.clone(),
        size: Some(i64::try_from(size).unwrap_or(i64::MAX)),
        sha256: Some(sha256.clone()),
    };
    if import.sink.put(&event, &[(Kind::Files, 1)], &name).await? {
        import.files.insert(name, (size, sha256));
    }
    Ok(())
}

/// A version may lie apart from runs and logged models.
async fn version_roots(import: &mut Import) -> Result<(), CliError> {
    let sql = format!(
        "SELECT source, storage_location FROM model_versions WHERE {} AND current_stage <> 'Deleted_Internal'",
        import.store.in_workspace()
    );
    let workspace = import.store.workspace.clone();
    for row in import.store.rows(&sql, &[Bind::Text(&workspace)]).await? {
        for uri in [text(&row, 0)?, text(&row, 1)?] {
            let uri = import.places.rewritten(&uri);
            import.keep_root(&uri);
        }
    }
    Ok(())
}

/// Whether a folder of the path is a root.
fn is_below(roots: &HashSet<String>, path: &str) -> bool {
    path.match_indices('/').any(|(end, _)| roots.contains(&path[..end]))
}

/// All files below a folder, by path.
fn walk(root: &Path) -> Result<Vec<Found>, CliError> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).map_err(CliError::file(&folder))? {
            let entry = entry.map_err(CliError::file(&folder))?;
            let path = entry.path();
            let kind = entry.file_type().map_err(CliError::file(&path))?;
            if kind.is_dir() {
                folders.push(path);
                continue;
            }
            let meta = entry.metadata().map_err(CliError::file(&path))?;
            let changed = meta.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            let changed = changed.and_then(|age| i64::try_from(age.as_millis()).ok()).unwrap_or_default();
            let name = name(root, &path, kind);
            found.insert(path.clone(), Found { path, name, size: meta.len(), changed });
        }
    }
    Ok(found.into_values().collect())
}

fn name(root: &Path, path: &Path, kind: FileType) -> Result<String, String> {
    if !kind.is_file() {
        return Err("it is no file; links are not followed".into());
    }
    let below = path.strip_prefix(root).ok().and_then(Path::to_str).ok_or("its name is not UTF-8")?;
    ArtifactPath::parse(below).map(|path| path.to_string()).map_err(|error| error.to_string())
}

/// Stores a file, and says its size and hash. Where the log may have it already it is only read first.
async fn store(
    found: &Found,
    blobs: Option<&ArtifactStore>,
    known: Option<Known<'_>>,
    bar: &indicatif::ProgressBar,
) -> Result<(u64, String), String> {
    // A dry run counts, and stands for every file with the same hash.
    let Some(blobs) = blobs else { return Ok((found.size, "0".repeat(64))) };
    if let (Some(known), Ok(name)) = (known, &found.name) {
        let mut hasher = Sha256::new();
        let mut size = 0;
        let mut bytes = std::pin::pin!(read(found).await.map_err(|error| error.to_string())?);
        while let Some(part) = bytes.try_next().await.map_err(|error| error.to_string())? {
            hasher.update(&part);
            size += part.len() as u64;
        }
        let sha256 = format!("{:x}", hasher.finalize());
        if known(name, &sha256) {
            bar.inc(found.size);
            return Ok((size, sha256));
        }
    }
    let bytes = read(found).await.map_err(|error| error.to_string())?;
    let bytes = bytes.inspect_ok(|part| bar.inc(part.len() as u64));
    let blob = blobs.put(Box::pin(bytes), FILE_LIMIT).await.map_err(|error| error.to_string())?;
    Ok((blob.size, blob.sha256.to_string()))
}

async fn read(found: &Found) -> std::io::Result<impl Stream<Item = std::io::Result<Bytes>> + Send + use<>> {
    let file = tokio::fs::File::open(&found.path).await?;
    Ok(stream::try_unfold(file, |mut file| async move {
        let mut part = vec![0; CHUNK];
        let length = file.read(&mut part).await?;
        part.truncate(length);
        Ok((length > 0).then(|| (Bytes::from(part), file)))
    }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn files_are_walked_in_order_and_links_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        std::fs::create_dir_all(root.join("1/r/artifacts/model")).unwrap();
        for path in ["1/r/artifacts/model/weights.bin", "1/r/artifacts/a b.txt", "x.txt"] {
            std::fs::write(root.join(path), "x").unwrap();
        }
        std::os::unix::fs::symlink("/etc/hostname", root.join("1/r/artifacts/link")).unwrap();
        let found = walk(root).unwrap();
        let names: Vec<_> = found.iter().map(|found| found.name.as_deref().ok()).collect();
        assert_eq!(
            names,
            [Some("1/r/artifacts/a b.txt"), None, Some("1/r/artifacts/model/weights.bin"), Some("x.txt")]
        );
        let roots = HashSet::from(["1/r/artifacts".to_owned()]);
        assert!(is_below(&roots, "1/r/artifacts/model/weights.bin") && is_below(&roots, "1/r/artifacts/a"));
        assert!(
            !is_below(&roots, "x.txt") && !is_below(&roots, "1/r/artifacts2/a") && !is_below(&roots, "1/r/artifacts")
        );
    }
}
