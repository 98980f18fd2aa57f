//! `model-versions/*`: create, get, search, update, tag, delete and promote versions of registered models.

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
use serde_json::json;
use uuid::Uuid;

use super::artifacts::{invalid_path, no_such_artifact, root, send, store_error};
use super::call::{Answer, Answered, Call, empty_answer};
use super::check;
use super::error::MlflowError;
use super::registered_models::{parse_id, parse_search, tag};
use super::shapes;

impl Call {
    /// Returns the version that the arguments name. The error tells a missing model from a missing version.
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

    /// Parses the argument `version`, a number or text.
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

    /// Returns a version of the model `name`.
    pub(super) async fn version_of(&self, name: &str, version: i64) -> Result<ModelVersion, MlflowError> {
        let found = model_version(self.rows()?, &self.scope, name, version).await?;
        found.ok_or_else(|| missing(name, version))
    }

    fn version_event(&self, version: &ModelVersion, kind: ModelKind) -> ModelRegistered {
        ModelRegistered {
            registration_id: parse_id(&version.registration_id),
            version: Some(version.version),
            version_id: parse_id(&version.version_id),
            ..ModelRegistered::of(self.event_id(), self.now(), self.scope.tenant(), &version.name, kind)
        }
    }

    /// Returns a promotion of `model` without a version, which removes an alias.
    pub(super) fn promotion_event(&self, model: &RegisteredModel) -> ModelPromoted {
        ModelPromoted {
            registration_id: parse_id(&model.registration_id),
            promoted_by: self.user.clone(),
            ..ModelPromoted::of(self.event_id(), self.now(), self.scope.tenant(), &model.name)
        }
    }

    /// Returns a promotion of `version`; the caller adds the stage or alias.
    pub(super) fn promotion_of(&self, version: &ModelVersion) -> ModelPromoted {
        ModelPromoted {
            registration_id: parse_id(&version.registration_id),
            version: Some(version.version),
            version_id: parse_id(&version.version_id),
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

/// Returns the files below `storage` as they are now. The version keeps them even if the folder changes later.
async fn manifest_of(call: &Call, storage: &str) -> Result<Vec<ManifestEntry>, MlflowError> {
    let Some(root) = root(storage) else { return Ok(Vec::new()) };
    let files = artifacts_below(call.rows()?, &call.scope, Some(root.as_str())).await?;
    let prefix = format!("{root}/");
    let entry = |file: &ArtifactFile| {
        Ok(ManifestEntry {
            path: ArtifactPath::parse(file.path.strip_prefix(&prefix).unwrap_or(&file.path)).map_err(store_error)?,
            size: file.size,
            sha256: Sha256Hex::parse(&file.sha256).map_err(store_error)?,
        })
    };
    files.iter().map(entry).collect()
}

pub(super) async fn create(call: Call) -> Answered {
    let args = &call.args;
    let name = args.required("name")?;
    let source = args.required("source")?;
    let tags: Vec<_> = args.objects("tags")?.iter().map(tag).collect::<Result<_, _>>()?;
    let resolved = super::sources::resolve(&call, source).await?;
    let model = call.model_named(name).await?;
    let manifest = Manifest::new(manifest_of(&call, &resolved.storage).await?).map_err(store_error)?;
    let file = |entry: &ManifestEntry| ManifestFile {
        path: entry.path.to_string(),
        size: i64::try_from(entry.size).unwrap_or(i64::MAX),
        sha256: entry.sha256.to_string(),
    };
    let event = ModelRegistered {
        description: args.text("description")?.map(str::to_owned),
        run_id: resolved.run_id,
        model_id: resolved.model_id,
        source: Some(source.to_owned()),
        storage: (resolved.storage != source).then_some(resolved.storage),
        run_link: args.non_empty("run_link")?,
        manifest_digest: (!manifest.entries().is_empty()).then(|| manifest.digest().to_string()),
        manifest: manifest.entries().iter().map(file).collect(),
        tags,
        ..call.model_event(&model, ModelKind::VersionCreated)
    };
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
            // Another process has claimed the same number. Try the next one.
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
    empty_answer()
}

pub(super) async fn set_tag(call: Call) -> Answered {
    let version = call.model_version().await?;
    let tags = vec![tag(&call.args)?];
    call.write(&ModelRegistered { tags, ..call.version_event(&version, ModelKind::VersionTagged) }).await?;
    empty_answer()
}

/// Deleting a tag that does not exist is no error.
pub(super) async fn delete_tag(call: Call) -> Answered {
    let version = call.model_version().await?;
    let key = call.args.required("key")?.to_owned();
    if version.tags.iter().any(|tag| tag.key == key) {
        let event =
            ModelRegistered { removed_tags: vec![key], ..call.version_event(&version, ModelKind::VersionTagged) };
        call.write(&event).await?;
    }
    empty_answer()
}

pub(super) async fn transition_stage(call: Call) -> Answered {
    let name = call.args.required("name")?;
    call.args.required("version")?;
    let stage = check::stage(call.args.required("stage")?)?;
    let archive_existing = call.args.boolean("archive_existing_versions")?.unwrap_or_default();
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
    let (search, paging) = parse_search(&call, Target::ModelVersions, 10_000, 200_000)?;
    let page = search_model_versions(call.rows()?, &call.scope, &search).await?;
    paging.answer(
        "model_versions",
        page.items.iter().map(|version| shapes::model_version(version, false)).collect(),
        page.more,
    )
}

pub(super) async fn download_uri(call: Call) -> Answered {
    let version = call.model_version().await?;
    Ok(Answer(json!({"artifact_uri": version.storage})))
}

/// GET `/model-versions/get-artifact?name=&version=&path=`: a file as it was at the time of the registration.
pub(super) async fn get_artifact(headers: HeaderMap, call: Call) -> Result<Response, MlflowError> {
    let path = ArtifactPath::parse(call.args.required("path")?).map_err(|_| invalid_path())?;
    let version = call.model_version().await?;
    let files = manifest(call.rows()?, &call.scope, &version.version_id).await?;
    let file =
        files.into_iter().find(|file| file.path == path.as_str()).ok_or_else(|| no_such_artifact(path.as_str()))?;
    let size = u64::try_from(file.size).unwrap_or_default();
    send(&call, ArtifactFile { path: file.path, owner: String::new(), size, sha256: file.sha256 }, &headers).await
}
