//! `model-versions/*`: what is registered under a name, and what becomes of it.

use axum::http::HeaderMap;
use axum::response::Response;
use carbon_artifacts::{ArtifactPath, Manifest, ManifestEntry, Sha256Hex};
use carbon_read_models::registry::ConflictCode;
use carbon_read_models::registry::filter::Target;
use carbon_read_models::registry::queries::{
    ArtifactFile, ModelVersion, RegisteredModel, artifacts_below, manifest, model_version, next_version,
    search_model_versions,
};
use carbon_schemas::events::{ManifestFile, ModelKind, ModelPromoted, ModelRegistered};
use serde_json::{Map, json};
use uuid::Uuid;

use super::artifacts::{invalid_path, no_such, root, send, stored};
use super::call::{Answer, Answered, Call, nothing};
use super::check;
use super::error::MlflowError;
use super::registered_models::{id, search_of, tag};
use super::shapes;

impl Call {
    /// The version that the arguments name; where there is none, the error says whether there is the model.
    pub(super) async fn model_version(&self) -> Result<ModelVersion, MlflowError> {
        let name = self.args.required("name")?;
        let version = self.version_number()?;
        match model_version(self.rows()?, &self.scope, name, version).await? {
            Some(found) => Ok(found),
            None => {
                self.model_named(name).await?;
                Err(missing(name, version))
            }
        }
    }

    pub(super) fn version_number(&self) -> Result<i64, MlflowError> {
        if let Some(text) = self.args.text("version").unwrap_or_default() {
            if text.is_empty() {
                return Err(MlflowError::missing("version"));
            }
            return text
                .parse()
                .map_err(|_| MlflowError::invalid(format!("Parameter 'version' must be an integer, got '{text}'.")));
        }
        self.args.integer("version")?.ok_or_else(|| MlflowError::missing("version"))
    }

    pub(super) async fn version_of(&self, name: &str, version: i64) -> Result<ModelVersion, MlflowError> {
        let found = model_version(self.rows()?, &self.scope, name, version).await?;
        found.ok_or_else(|| missing(name, version))
    }

    fn version_event(&self, version: &ModelVersion, kind: ModelKind) -> ModelRegistered {
        ModelRegistered {
            registration_id: id(&version.registration_id),
            version: Some(version.version),
            version_id: id(&version.version_id),
            ..ModelRegistered::of(self.event_id(), self.now(), self.scope.tenant(), &version.name, kind)
        }
    }

    pub(super) fn promotion_event(&self, model: &RegisteredModel) -> ModelPromoted {
        ModelPromoted {
            registration_id: id(&model.registration_id),
            promoted_by: self.user.clone(),
            ..ModelPromoted::of(self.event_id(), self.now(), self.scope.tenant(), &model.name)
        }
    }

    pub(super) fn promotion_of(&self, version: &ModelVersion) -> ModelPromoted {
        ModelPromoted {
            registration_id: id(&version.registration_id),
            version: Some(version.version),
            version_id: id(&version.version_id),
            promoted_by: self.user.clone(),
            ..ModelPromoted::of(self.event_id(), self.now(), self.scope.tenant(), &version.name)
        }
    }
}

fn missing(name: &str, version: i64) -> MlflowError {
    MlflowError::does_not_exist(format!("Model Version (name={name}, version={version}) not found"))
}

async fn answered(call: &Call, name: &str, version: i64) -> Answered {
    let version = call.version_of(name, version).await?;
    Ok(Answer(json!({"model_version": shapes::model_version(&version, true)})))
}

/// The files at a place in the artifact store, as they are now: a version keeps them whatever becomes of the place.
async fn manifest_of(call: &Call, storage: &str) -> Result<Vec<ManifestEntry>, MlflowError> {
    let Some(root) = root(storage) else { return Ok(Vec::new()) };
    let files = artifacts_below(call.rows()?, &call.scope, Some(root.as_str())).await?;
    let prefix = format!("{root}/");
    let entry = |file: &ArtifactFile| {
        Ok(ManifestEntry {
            path: ArtifactPath::parse(file.path.strip_prefix(&prefix).unwrap_or(&file.path)).map_err(stored)?,
            size: file.size,
            sha256: Sha256Hex::parse(&file.sha256).map_err(stored)?,
        })
    };
    files.iter().map(entry).collect()
}

pub(super) async fn create(call: Call) -> Answered {
    let args = &call.args;
    let name = args.required("name")?;
    let source = args.required("source")?;
    let tags: Vec<_> = args.objects("tags")?.iter().map(tag).collect::<Result<_, _>>()?;
    let place = super::sources::place(&call, source).await?;
    let model = call.model_named(name).await?;
    let manifest = Manifest::new(manifest_of(&call, &place.storage).await?).map_err(stored)?;
    let file = |entry: &ManifestEntry| ManifestFile {
        path: entry.path.to_string(),
        size: i64::try_from(entry.size).unwrap_or(i64::MAX),
        sha256: entry.sha256.to_string(),
    };
    let event = ModelRegistered {
        description: args.text("description")?.map(str::to_owned),
        run_id: place.run_id,
        model_id: place.model_id,
        source: Some(source.to_owned()),
        storage: (place.storage != source).then_some(place.storage),
        run_link: args.text("run_link")?.filter(|text| !text.is_empty()).map(str::to_owned),
        manifest_digest: (!manifest.entries().is_empty()).then(|| manifest.digest().to_string()),
        manifest: manifest.entries().iter().map(file).collect(),
        tags,
        ..call.model_event(&model, ModelKind::VersionCreated)
    };
    // Claims queue within a process, so that races are between replicas alone.
    let _claim = call.claim().await;
    loop {
        let version = next_version(call.rows()?, &call.scope, &model.registration_id).await?;
        let event = ModelRegistered {
            event_id: call.event_id(),
            version: Some(version),
            version_id: Some(Uuid::new_v4()),
            ..event.clone()
        };
        match call.append(&event).await? {
            None => return answered(&call, name, version).await,
            // Another replica has claimed the same number.
            Some(conflict) if conflict.code == ConflictCode::IdTaken => {}
            Some(conflict) => return Err(MlflowError::conflict(conflict)),
        }
    }
}

pub(super) async fn get(call: Call) -> Answered {
    let version = call.model_version().await?;
    Ok(Answer(json!({"model_version": shapes::model_version(&version, true)})))
}

pub(super) async fn update(call: Call) -> Answered {
    let version = call.model_version().await?;
    let description = Some(call.args.text("description")?.unwrap_or_default().to_owned());
    call.write(&ModelRegistered { description, ..call.version_event(&version, ModelKind::VersionDescribed) }).await?;
    answered(&call, &version.name, version.version).await
}

pub(super) async fn delete(call: Call) -> Answered {
    let version = call.model_version().await?;
    call.write(&call.version_event(&version, ModelKind::VersionDeleted)).await?;
    nothing()
}

pub(super) async fn set_tag(call: Call) -> Answered {
    let version = call.model_version().await?;
    let tags = vec![tag(&call.args)?];
    call.write(&ModelRegistered { tags, ..call.version_event(&version, ModelKind::VersionTagged) }).await?;
    nothing()
}

/// A tag that is not there is no error.
pub(super) async fn delete_tag(call: Call) -> Answered {
    let version = call.model_version().await?;
    let key = call.args.required("key")?.to_owned();
    if version.tags.iter().any(|tag| tag.key == key) {
        let event =
            ModelRegistered { removed_tags: vec![key], ..call.version_event(&version, ModelKind::VersionTagged) };
        call.write(&event).await?;
    }
    nothing()
}

pub(super) async fn transition_stage(call: Call) -> Answered {
    let name = call.args.required("name")?;
    call.args.required("version")?;
    let stage = check::stage(call.args.required("stage")?)?;
    let archive_existing = call.args.truth("archive_existing_versions")?.unwrap_or_default();
    if archive_existing && !matches!(stage, "Staging" | "Production") {
        return Err(MlflowError::invalid(format!(
            "Model version transition cannot archive existing model versions because '{stage}' is not an Active stage. \
             Valid stages are Staging, Production"
        )));
    }
    let model = call.model_named(name).await?;
    let version = call.version_of(name, call.version_number()?).await?;
    let previous = model.newest_in(stage);
    let event =
        ModelPromoted { stage: Some(stage.to_owned()), archive_existing, previous, ..call.promotion_of(&version) };
    call.promote(&event).await?;
    answered(&call, name, version.version).await
}

pub(super) async fn search(call: Call) -> Answered {
    let (search, paging) = search_of(&call, Target::ModelVersions, 10_000, 200_000)?;
    let page = search_model_versions(call.rows()?, &call.scope, &search).await?;
    let mut answer = Map::new();
    if !page.items.is_empty() {
        let items = page.items.iter().map(|version| shapes::model_version(version, false)).collect::<Vec<_>>();
        shapes::put(&mut answer, "model_versions", items);
    }
    paging.sign(&mut answer, page.more);
    Ok(Answer(answer.into()))
}

pub(super) async fn download_uri(call: Call) -> Answered {
    let version = call.model_version().await?;
    Ok(Answer(json!({"artifact_uri": version.storage})))
}

/// GET `/model-versions/get-artifact?name=&version=&path=`: the file as it was registered.
pub(super) async fn get_artifact(headers: HeaderMap, call: Call) -> Result<Response, MlflowError> {
    let path = ArtifactPath::parse(call.args.required("path")?).map_err(|_| invalid_path())?;
    let version = call.model_version().await?;
    let files = manifest(call.rows()?, &call.scope, &version.version_id).await?;
    let file = files.into_iter().find(|file| file.path == path.as_str()).ok_or_else(|| no_such(path.as_str()))?;
    let size = u64::try_from(file.size).unwrap_or_default();
    send(&call, ArtifactFile { path: file.path, owner: String::new(), size, sha256: file.sha256 }, &headers).await
}
