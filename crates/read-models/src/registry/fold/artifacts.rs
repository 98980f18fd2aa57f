//! `ml.artifact.changed.v1`. The last record of a path wins; deleting a folder deletes all files in it.

use carbon_schemas::events::{ArtifactChanged, ArtifactKind};
use carbon_store::Tables;

use crate::projection::FoldError;

/// Applies one event.
pub(super) async fn apply(tables: &mut Tables<'_>, event: &ArtifactChanged) -> Result<(), FoldError> {
    match (event.kind, event.size, &event.sha256) {
        (ArtifactKind::Stored, Some(size), Some(sha256)) => {
            carbon_store::query(
                "INSERT INTO artifacts (tenant_id, path, owner, size, sha256, stored_at) VALUES ($1, $2, $3, $4, $5, $6) \
                 ON CONFLICT (tenant_id, path) DO UPDATE SET size = excluded.size, sha256 = excluded.sha256, \
                 stored_at = excluded.stored_at",
            )
            .bind(event.tenant_id.as_str())
            .bind(event.path.as_str())
            .bind(event.owner.as_str())
            .bind(size)
            .bind(sha256.as_str())
            .bind(event.occurred_at.0)
            .execute(tables.connection())
            .await?;
        }
        (ArtifactKind::Deleted, ..) => {
            // Only files of the same owner: files of other owners are in other partitions, without a common order.
            carbon_store::query(
                "DELETE FROM artifacts WHERE tenant_id = $1 AND owner = $2 \
                 AND (path = $3 OR (path >= $3 || '/' AND path < $3 || '0'))",
            )
            .bind(event.tenant_id.as_str())
            .bind(event.owner.as_str())
            .bind(event.path.as_str())
            .execute(tables.connection())
            .await?;
        }
        _ => {}
    }
    Ok(())
}
