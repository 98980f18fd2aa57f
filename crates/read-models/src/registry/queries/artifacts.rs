//! Files of runs and models.

use carbon_core::TenantScope;
use carbon_store::{Namespace, Row, StoreError};

/// A stored file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArtifactFile {
    pub path: String,
    pub owner: String,
    pub size: u64,
    /// The SHA-256 of the content.
    pub sha256: String,
}

/// The file at a path.
pub async fn artifact(
    namespace: &Namespace,
    scope: &TenantScope,
    path: &str,
) -> Result<Option<ArtifactFile>, StoreError> {
    let row = carbon_store::query("SELECT path, owner, size, sha256 FROM artifacts WHERE tenant_id = $1 AND path = $2")
        .bind(scope.tenant().as_str())
        .bind(path)
        .fetch_optional(namespace.readers())
        .await?;
    row.as_ref().map(read).transpose()
}

/// The files below a folder at any depth, in the order of their paths; all files of the tenant if there is no folder.
pub async fn artifacts_below(
    namespace: &Namespace,
    scope: &TenantScope,
    folder: Option<&str>,
) -> Result<Vec<ArtifactFile>, StoreError> {
    // `0` is the character after `/`.
    let (from, to) = match folder {
        Some(folder) => (format!("{folder}/"), format!("{folder}0")),
        None => (String::new(), char::MAX.to_string()),
    };
    let rows = carbon_store::query(
        "SELECT path, owner, size, sha256 FROM artifacts WHERE tenant_id = $1 AND path >= $2 AND path < $3 ORDER BY path",
    )
    .bind(scope.tenant().as_str())
    .bind(from)
    .bind(to)
    .fetch_all(namespace.readers())
    .await?;
    rows.iter().map(read).collect()
}

fn read(row: &Row) -> Result<ArtifactFile, StoreError> {
    let size: i64 = row.try_get(2)?;
    let size = u64::try_from(size).map_err(|_| super::corrupt("a size is negative"))?;
    Ok(ArtifactFile { path: row.try_get(0)?, owner: row.try_get(1)?, size, sha256: row.try_get(3)? })
}
