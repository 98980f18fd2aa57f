//! Artifact files of runs and models: upload, download, delete and list. The artifact store keeps the bytes by their hash;
//! an event assigns them to a path.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequestParts, Path, Request, State};
use axum::http::request::Parts as Head;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use carbon_artifacts::{ArtifactError, ArtifactPath, ByteRange, Sha256Hex, list};
use carbon_read_models::registry::queries::{ArtifactFile, artifact, artifacts_below};
use carbon_schemas::events::{ArtifactChanged, ArtifactKind};
use futures::StreamExt as _;
use serde_json::{Map, Value, json};

use super::call::{Answer, Answered, Call, empty_answer, list_answer};
use super::error::MlflowError;
use super::shapes;
use crate::state::Dependencies;

/// Maximum size of a file, in bytes.
const FILE_LIMIT: u64 = 64 * 1024 * 1024 * 1024;

/// Maximum time between two chunks of an upload.
const IDLE: Duration = Duration::from_secs(60);

/// Maps an error of the artifact store.
pub(super) fn store_error(error: ArtifactError) -> MlflowError {
    match error {
        ArtifactError::Path { .. } => invalid_path(),
        ArtifactError::TooLarge { .. } => MlflowError::too_large(error.to_string()),
        other => MlflowError::of(&other),
    }
}

pub(super) fn invalid_path() -> MlflowError {
    MlflowError::invalid("Invalid path")
}

pub(super) fn no_such_artifact(path: &str) -> MlflowError {
    MlflowError::does_not_exist(format!("No such artifact: '{path}'"))
}

/// The artifact path of the URL, percent-decoded once.
pub(super) struct FilePath(ArtifactPath);

impl<S: Send + Sync> FromRequestParts<S> for FilePath {
    type Rejection = MlflowError;

    async fn from_request_parts(head: &mut Head, state: &S) -> Result<Self, MlflowError> {
        let path = axum::extract::Path::<String>::from_request_parts(head, state).await.map_err(|_| invalid_path())?;
        Ok(Self(ArtifactPath::parse(&path.0).map_err(|_| invalid_path())?))
    }
}

impl Call {
    fn artifact_event(&self, path: &str, kind: ArtifactKind) -> ArtifactChanged {
        ArtifactChanged {
            event_id: self.event_id(),
            occurred_at: self.now(),
            tenant_id: self.scope.tenant().clone(),
            owner: ArtifactChanged::owner_of(path).to_owned(),
            kind,
            path: path.to_owned(),
            size: None,
            sha256: None,
        }
    }

    /// Returns the folder that an argument names; `None` for the root.
    fn folder(&self, name: &str) -> Result<Option<ArtifactPath>, MlflowError> {
        match self.args.text(name)?.map(|path| path.trim_end_matches('/')) {
            None | Some("" | ".") => Ok(None),
            Some(path) => ArtifactPath::parse(path).map(Some).map_err(|_| invalid_path()),
        }
    }
}

/// PUT `mlflow-artifacts/artifacts/{path}`. The bytes are durable before the event is appended.
pub(super) async fn upload(
    State(dependencies): State<Arc<Dependencies>>,
    path: FilePath,
    request: Request,
) -> Answered {
    let (mut head, body) = request.into_parts();
    let call = Call::of(&dependencies, &mut head).await?;
    call.registry()?;
    let bytes = futures::stream::unfold(body.into_data_stream(), |mut data| async move {
        match tokio::time::timeout(IDLE, data.next()).await {
            Ok(Some(part)) => Some((part.map_err(std::io::Error::other), data)),
            Ok(None) => None,
            Err(_) => Some((Err(std::io::Error::other("no data of the upload arrived for 60 s")), data)),
        }
    });
    let blob = dependencies.artifacts.put(Box::pin(bytes), FILE_LIMIT).await.map_err(store_error)?;
    let event = ArtifactChanged {
        size: Some(i64::try_from(blob.size).unwrap_or(i64::MAX)),
        sha256: Some(blob.sha256.to_string()),
        ..call.artifact_event(path.0.as_str(), ArtifactKind::Stored)
    };
    call.write(&event).await?;
    empty_answer()
}

/// GET `mlflow-artifacts/artifacts/{path}`.
pub(super) async fn download(
    State(dependencies): State<Arc<Dependencies>>,
    path: FilePath,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, MlflowError> {
    let (mut head, _) = request.into_parts();
    let call = Call::of(&dependencies, &mut head).await?;
    send_path(&call, path.0.as_str(), &headers).await
}

async fn send_path(call: &Call, path: &str, headers: &HeaderMap) -> Result<Response, MlflowError> {
    let file = artifact(call.rows()?, &call.scope, path).await?.ok_or_else(|| no_such_artifact(path))?;
    send(call, file, headers).await
}

/// Returns the bytes of a file, or the range of them that the header `Range` names.
pub(super) async fn send(call: &Call, file: ArtifactFile, headers: &HeaderMap) -> Result<Response, MlflowError> {
    let sha256 = Sha256Hex::parse(&file.sha256).map_err(store_error)?;
    let name = file.path.rsplit('/').next().unwrap_or_default();
    let mut response = Response::builder()
        .header(header::CONTENT_TYPE, media_type(name))
        .header(header::CONTENT_DISPOSITION, format!("attachment; filename*=UTF-8''{}", percent_encoded(name)))
        .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::ETAG, format!("\"{sha256}\""));
    let range = headers.get(header::RANGE).and_then(|value| value.to_str().ok());
    let range = range.map(|range| ByteRange::parse(range, file.size)).transpose();
    let body = match range {
        Err(unsatisfiable) => {
            let head = [(header::CONTENT_RANGE, unsatisfiable.content_range())];
            return Ok((StatusCode::RANGE_NOT_SATISFIABLE, head).into_response());
        }
        Ok(Some(Some(range))) => {
            response = response
                .status(StatusCode::PARTIAL_CONTENT)
                .header(header::CONTENT_RANGE, ByteRange::content_range(&range, file.size))
                .header(header::CONTENT_LENGTH, range.end - range.start);
            call.dependencies.artifacts.get_range(&sha256, range).await.map_err(store_error)?
        }
        Ok(_) => {
            response = response.header(header::CONTENT_LENGTH, file.size);
            call.dependencies.artifacts.get_verified(&sha256).await.map_err(store_error)?.1
        }
    };
    response.body(Body::from_stream(body)).map_err(|error| MlflowError::internal(error.to_string()))
}

/// Returns `name` with all characters but ASCII letters, digits and `-._` percent-encoded.
fn percent_encoded(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => encoded.push(char::from(byte)),
            other => encoded.push_str(&format!("%{other:02X}")),
        }
    }
    encoded
}

/// Returns the media type by the extension. The web UI shows text and images.
fn media_type(name: &str) -> &'static str {
    const TEXT: [&str; 16] = [
        "txt", "log", "err", "cfg", "conf", "cnf", "ini", "yaml", "yml", "json", "md", "py", "js", "csv", "tsv", "xml",
    ];
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension).to_ascii_lowercase();
    match extension.as_str() {
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "svg" => "image/svg+xml",
        "pdf" => "application/pdf",
        text if TEXT.contains(&text) || matches!(name, "MLmodel" | "MLproject") => "text/plain",
        _ => "application/octet-stream",
    }
}

/// DELETE `mlflow-artifacts/artifacts/{path}`: deletes a file, or a folder with all its files.
pub(super) async fn delete(
    State(dependencies): State<Arc<Dependencies>>,
    path: FilePath,
    request: Request,
) -> Answered {
    let (mut head, _) = request.into_parts();
    let call = Call::of(&dependencies, &mut head).await?;
    let path = path.0.as_str();
    let rows = call.rows()?;
    let mut files = artifacts_below(rows, &call.scope, Some(path)).await?;
    files.extend(artifact(rows, &call.scope, path).await?);
    let owner = ArtifactChanged::owner_of(path);
    // One event deletes all files of the path's owner. Files of other owners in the folder need one event each.
    let mut paths: BTreeSet<&str> =
        files.iter().filter(|file| file.owner != owner).map(|file| file.path.as_str()).collect();
    if files.iter().any(|file| file.owner == owner) {
        paths.insert(path);
    }
    for path in paths {
        call.write(&call.artifact_event(path, ArtifactKind::Deleted)).await?;
    }
    empty_answer()
}

/// Returns the entries of a folder. `display_path` returns the path of an entry in the answer.
fn listing(files: &[ArtifactFile], folder: Option<&ArtifactPath>, display_path: impl Fn(&str) -> String) -> Vec<Value> {
    let files: Vec<(&str, u64)> = files.iter().map(|file| (file.path.as_str(), file.size)).collect();
    let entry = |entry: carbon_artifacts::Listed<'_>| match entry.size {
        Some(size) => json!({"path": display_path(entry.path), "is_dir": false, "file_size": size}),
        None => json!({"path": display_path(entry.path), "is_dir": true}),
    };
    list(&files, folder).into_iter().map(entry).collect()
}

/// GET `mlflow-artifacts/artifacts?path=`: file names without their folder.
pub(super) async fn list_root(call: Call) -> Answered {
    let folder = call.folder("path")?;
    let files = artifacts_below(call.rows()?, &call.scope, folder.as_ref().map(ArtifactPath::as_str)).await?;
    let basename = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    list_answer("files", listing(&files, folder.as_ref(), basename))
}

/// Returns the root folder of an artifact URI; `None` if the files are not in the artifact store.
pub(super) fn root(uri: &str) -> Option<ArtifactPath> {
    ArtifactPath::parse(uri.strip_prefix("mlflow-artifacts:")?.trim_matches('/')).ok()
}

/// GET `artifacts/list`: paths relative to the run's root.
pub(super) async fn list_of_run(call: Call) -> Answered {
    let uri = call.run().await?.artifact_uri;
    list_of(&call, &uri, "path").await
}

/// GET `logged-models/{id}/artifacts/directories`: paths relative to the model's root.
pub(super) async fn list_of_model(Path(id): Path<String>, call: Call) -> Answered {
    let uri = call.logged_model(&id).await?.artifact_uri;
    list_of(&call, &uri, "artifact_directory_path").await
}

async fn list_of(call: &Call, uri: &str, folder: &str) -> Answered {
    let below = call.folder(folder)?;
    let mut answer = Map::new();
    shapes::put(&mut answer, "root_uri", uri);
    if let Some(root) = root(uri) {
        let folder = match &below {
            Some(below) => root.join(below.as_str()).map_err(store_error)?,
            None => root.clone(),
        };
        let files = artifacts_below(call.rows()?, &call.scope, Some(folder.as_str())).await?;
        let prefix = format!("{root}/");
        let entries = listing(&files, Some(&folder), |path| path.strip_prefix(&prefix).unwrap_or(path).to_owned());
        shapes::put_list(&mut answer, "files", entries);
    }
    Ok(Answer(answer.into()))
}

/// GET `/get-artifact?run_uuid=&path=`: the download of a run's file in the web UI.
pub(super) async fn get_of_run(headers: HeaderMap, call: Call) -> Result<Response, MlflowError> {
    let run = call.run().await?;
    let path = ArtifactPath::parse(call.args.required("path")?).map_err(|_| invalid_path())?;
    let root = root(&run.artifact_uri).ok_or_else(|| no_such_artifact(path.as_str()))?;
    send_path(&call, root.join(path.as_str()).map_err(store_error)?.as_str(), &headers).await
}
