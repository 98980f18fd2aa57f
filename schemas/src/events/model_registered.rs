use carbon_core::{TenantId, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::tracking::{
    KeyValue, TenantKey, TrackingLimits as Limits, at_most, at_most_of, check_key, check_model_name, check_pairs,
    check_path, is_sha256, needed,
};
use crate::event::{Event, event_schema, uuid_text};

/// What became of a registered model or one of its versions.
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

/// A file of a version.
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

/// Files of a manifest.
const FILES: usize = 2000;

impl ModelRegistered {
    /// An event that says nothing yet but what it is about.
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
        at_most_of("files of the manifest", self.manifest.len(), FILES)?;
        for file in &self.manifest {
            check_path(&file.path)?;
            if file.size < 0 || !is_sha256(&file.sha256) {
                return Err(format!("file {:?} needs size and sha256", file.path));
            }
        }
        if self.manifest.windows(2).any(|pair| pair[0].path >= pair[1].path) {
            return Err("the manifest is not sorted by path, or names a path twice".into());
        }
        match &self.manifest_digest {
            Some(digest) if is_sha256(digest) && !self.manifest.is_empty() => Ok(()),
            None if self.manifest.is_empty() => Ok(()),
            _ => Err("a manifest needs its digest, and only a manifest has one".into()),
        }
    }
}

impl Event for ModelRegistered {
    const NAME: &'static str = "ml.model.registered.v1";
    type Key = TenantKey;

    event_schema!(ModelRegistered);

    fn event_id(&self) -> Uuid {
        self.event_id
    }

    fn occurred_at(&self) -> Timestamp {
        self.occurred_at
    }

    fn tenant(&self) -> Option<&TenantId> {
        Some(&self.tenant_id)
    }

    fn key(&self) -> Result<TenantKey, String> {
        TenantKey::new(&self.tenant_id, &self.model_name)
    }

    fn parse_key(text: &str) -> Result<TenantKey, String> {
        TenantKey::parse(text)
    }

    fn check(&self) -> Result<(), String> {
        use ModelKind::{Created, Renamed, VersionCreated, VersionDeleted, VersionDescribed, VersionTagged};
        check_model_name(&self.model_name)?;
        match self.kind {
            Created => needed("created", "registration_id", self.registration_id.as_ref())?,
            Renamed => needed("renamed", "new_name", self.new_name.as_ref())?,
            VersionCreated => {
                needed("version_created", "version", self.version.as_ref())?;
                needed("version_created", "version_id", self.version_id.as_ref())?;
                needed("version_created", "source", self.source.as_ref())?;
            }
            VersionDescribed | VersionTagged | VersionDeleted => {
                needed("what changes a version", "version", self.version.as_ref())?;
            }
            _ => {}
        }
        if let Some(name) = &self.new_name {
            check_model_name(name)?;
        }
        if let Some(version) = self.version
            && !Limits::VERSIONS.contains(&version)
        {
            return Err(format!("version {version} is not from 1 to {}", Limits::VERSIONS.end()));
        }
        for (name, id) in [("run_id", &self.run_id), ("model_id", &self.model_id)] {
            at_most(name, id.as_deref().unwrap_or_default(), Limits::ID)?;
        }
        for text in [&self.description, &self.source, &self.storage, &self.run_link].into_iter().flatten() {
            at_most("description, source, storage or run_link", text, Limits::NAME)?;
        }
        self.check_manifest()?;
        check_pairs("tags", &self.tags, Limits::TAGS, Limits::MODEL_TAG_VALUE)?;
        at_most_of("removed tags", self.removed_tags.len(), Limits::TAGS)?;
        self.removed_tags.iter().try_for_each(|key| check_key("removed tags", key))
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
    fn limits_are_kept() {
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
        let refused = [
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
        for event in refused {
            assert!(event.check().is_err(), "{event:?}");
        }
    }
}
