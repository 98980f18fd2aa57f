//! `ml.model.registered.v1`: registered models and their versions.

use carbon_core::{TenantId, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::tracking::{
    KeyValue, TrackingLimits, check_count, check_model_name, check_optional, check_path, check_tags, check_version,
    is_sha256, require,
};
use crate::event::{Event, common_fields, tenant_key, uuid_text};

/// The change to a registered model or to one of its versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelKind {
    Unknown,
    Created,
    Renamed,
    Described,
    Tagged,
    Deleted,
    VersionCreated,
    VersionDescribed,
    VersionTagged,
    VersionDeleted,
}

/// A file in the manifest of a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestFile {
    pub path: String,
    pub size: i64,
    pub sha256: String,
}

/// `ml.model.registered.v1`: a registered model or one of its versions was created or changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelRegistered {
    #[serde(with = "uuid_text")]
    pub event_id: Uuid,
    pub occurred_at: Timestamp,
    pub tenant_id: TenantId,
    pub model_name: String,
    pub kind: ModelKind,
    #[serde(with = "uuid_text::option")]
    pub registration_id: Option<Uuid>,
    pub new_name: Option<String>,
    pub description: Option<String>,
    pub version: Option<i64>,
    #[serde(with = "uuid_text::option")]
    pub version_id: Option<Uuid>,
    pub run_id: Option<String>,
    pub model_id: Option<String>,
    pub source: Option<String>,
    pub storage: Option<String>,
    pub run_link: Option<String>,
    pub manifest: Vec<ManifestFile>,
    pub manifest_digest: Option<String>,
    pub tags: Vec<KeyValue>,
    pub removed_tags: Vec<String>,
}

/// Maximum number of files in a manifest.
const MANIFEST_FILES: usize = 2000;

impl ModelRegistered {
    /// An event with its identity and kind; every other field is empty.
    pub fn of(event_id: Uuid, at: Timestamp, tenant: &TenantId, model_name: &str, kind: ModelKind) -> Self {
        Self {
            event_id,
            occurred_at: at,
            tenant_id: tenant.clone(),
            model_name: model_name.to_owned(),
            kind,
            registration_id: None,
            new_name: None,
            description: None,
            version: None,
            version_id: None,
            run_id: None,
            model_id: None,
            source: None,
            storage: None,
            run_link: None,
            manifest: Vec::new(),
            manifest_digest: None,
            tags: Vec::new(),
            removed_tags: Vec::new(),
        }
    }

    fn check_manifest(&self) -> Result<(), String> {
        check_count("files of the manifest", self.manifest.len(), MANIFEST_FILES)?;
        for file in &self.manifest {
            check_path(&file.path)?;
            if file.size < 0 || !is_sha256(&file.sha256) {
                return Err(format!("file {:?} needs size and sha256", file.path));
            }
        }
        if self.manifest.windows(2).any(|pair| pair[0].path >= pair[1].path) {
            return Err("the manifest is not sorted by path, or contains a path twice".into());
        }
        match &self.manifest_digest {
            Some(digest) if is_sha256(digest) && !self.manifest.is_empty() => Ok(()),
            None if self.manifest.is_empty() => Ok(()),
            _ => Err("manifest and manifest_digest must both be set or both be empty".into()),
        }
    }
}

impl Event for ModelRegistered {
    common_fields!("ml.model.registered.v1");
    tenant_key!(model_name);

    fn check(&self) -> Result<(), String> {
        use ModelKind::{Created, Renamed, VersionCreated, VersionDeleted, VersionDescribed, VersionTagged};
        check_model_name(&self.model_name)?;
        match self.kind {
            Created => require("created", "registration_id", self.registration_id.as_ref())?,
            Renamed => require("renamed", "new_name", self.new_name.as_ref())?,
            VersionCreated => {
                require("version_created", "version", self.version.as_ref())?;
                require("version_created", "version_id", self.version_id.as_ref())?;
                require("version_created", "source", self.source.as_ref())?;
            }
            VersionDescribed | VersionTagged | VersionDeleted => {
                require("a change to a version", "version", self.version.as_ref())?;
            }
            _ => {}
        }
        if let Some(name) = &self.new_name {
            check_model_name(name)?;
        }
        check_version(self.version)?;
        check_optional("run_id", &[&self.run_id], TrackingLimits::ID)?;
        check_optional("model_id", &[&self.model_id], TrackingLimits::ID)?;
        let texts = [&self.description, &self.source, &self.storage, &self.run_link];
        check_optional("description, source, storage or run_link", &texts, TrackingLimits::NAME)?;
        self.check_manifest()?;
        check_tags(&self.tags, &self.removed_tags, TrackingLimits::MODEL_TAG_VALUE)
    }

    fn is_unknown(&self) -> bool {
        self.kind == ModelKind::Unknown
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn fields_beyond_their_limits_are_rejected() {
        let tenant = TenantId::parse("acme").unwrap();
        let of = |kind| ModelRegistered::of(Uuid::nil(), Timestamp(0), &tenant, "m", kind);
        let file = |path: &str| ManifestFile { path: path.into(), size: 1, sha256: "0".repeat(64) };
        let version = ModelRegistered {
            version: Some(1),
            version_id: Some(Uuid::nil()),
            source: Some("s3://b/x".into()),
            ..of(ModelKind::VersionCreated)
        };
        assert_eq!(version.check(), Ok(()));
        let with = |files: Vec<ManifestFile>| ModelRegistered {
            manifest: files,
            manifest_digest: Some("0".repeat(64)),
            ..version.clone()
        };
        assert_eq!(with(vec![file("a"), file("b/c")]).check(), Ok(()));
        let invalid = [
            of(ModelKind::Created),
            of(ModelKind::Renamed),
            of(ModelKind::VersionCreated),
            of(ModelKind::VersionDeleted),
            ModelRegistered { version: Some(0), ..version.clone() },
            ModelRegistered { model_name: "a:b".into(), ..of(ModelKind::Deleted) },
            ModelRegistered { new_name: Some("a/b".into()), ..of(ModelKind::Renamed) },
            with(vec![]),
            with(vec![file("b"), file("a")]),
            with(vec![file("a"), file("a")]),
            with(vec![file("../a")]),
            ModelRegistered { manifest_digest: None, ..with(vec![file("a")]) },
        ];
        for event in invalid {
            assert!(event.check().is_err(), "{event:?}");
        }
    }
}
