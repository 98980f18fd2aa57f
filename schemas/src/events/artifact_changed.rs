//! `ml.artifact.changed.v1`: files of runs and logged models.

use carbon_core::{TenantId, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::tracking::{check_path, is_sha256};
use crate::event::{Event, common_fields, tenant_key, uuid_text};

/// The change to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ArtifactKind {
    Unknown,
    Stored,
    Deleted,
}

/// `ml.artifact.changed.v1`: a file of a run or a logged model was stored or deleted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ArtifactChanged {
    #[serde(with = "uuid_text")]
    pub event_id: Uuid,
    pub occurred_at: Timestamp,
    pub tenant_id: TenantId,
    pub owner: String,
    pub kind: ArtifactKind,
    pub path: String,
    pub size: Option<i64>,
    pub sha256: Option<String>,
}

/// The owner of paths that name neither a run nor a logged model.
const SHARED: &str = "shared";

impl ArtifactChanged {
    /// The run or logged model that owns a path, by MLflow's layout: `<experiment>/<run>/artifacts/…` and
    /// `<experiment>/models/<model>/artifacts/…`. The owner is the record key's id, so all events of one path are in
    /// one partition.
    pub fn owner_of(path: &str) -> &str {
        let mut parts = path.split('/');
        let (_, second, third, fourth) = (parts.next(), parts.next(), parts.next(), parts.next());
        match (second, third, fourth) {
            (Some("models"), Some(model), Some("artifacts")) => model,
            (Some(run), Some("artifacts"), _) => run,
            _ => SHARED,
        }
    }
}

impl Event for ArtifactChanged {
    common_fields!("ml.artifact.changed.v1");
    tenant_key!(owner);

    fn check(&self) -> Result<(), String> {
        check_path(&self.path)?;
        if Self::owner_of(&self.path) != self.owner {
            return Err(format!("the owner of path {:?} is not {:?}", self.path, self.owner));
        }
        if self.kind != ArtifactKind::Stored {
            return Ok(());
        }
        match (&self.size, &self.sha256) {
            (Some(size), Some(hash)) if *size >= 0 && is_sha256(hash) => Ok(()),
            _ => Err("stored needs size and sha256".into()),
        }
    }

    fn is_unknown(&self) -> bool {
        self.kind == ArtifactKind::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_determines_the_owner() {
        for (path, owner) in [
            ("10/abc/artifacts/a.txt", "abc"),
            ("10/abc/artifacts", "abc"),
            ("10/models/m-1/artifacts/MLmodel", "m-1"),
            ("10/models/m-1/x", "shared"),
            ("1/x/a.txt", "shared"),
            ("a", "shared"),
        ] {
            assert_eq!(ArtifactChanged::owner_of(path), owner, "{path}");
        }
    }
}
