//! Files of runs and models: `mlflow-artifacts/*` and what lists and downloads them. The bytes lie in the artifact store,
//! by their hash; that a path has them is an event.

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

use super::call::{Answer, Answered, Call, nothing};
use super::error::MlflowError;
use super::shapes;
use crate::Parts;

/// The largest file.
const FILE_LIMIT: u64 = 64 * 1024 * 1024 * 1024;

/// How long an upload may stand still.
const IDLE: Duration = Duration::from_secs(60);

pub(super) fn stored(error: ArtifactError) -> MlflowError {
    match error {
        ArtifactError::Path { .. } => invalid_path(),
        ArtifactError::TooLarge { .. } => MlflowError::too_large(error.to_string()),
        other => MlflowError::of(&other),
    }
}

pub(super) fn invalid_path() -> MlflowError {
    MlflowError::invalid("Invalid path")
}

pub(super) fn no_such(path: &str) -> MlflowError {
    MlflowError::does_not_exist(format!("No such artifact: '{path}'"))
}

/// A path of the URL, decoded once.
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

    /// The folder that an argument names; `None` for the root.
    fn folder(&self, name: &str) -> Result<Option<ArtifactPath>, MlflowError> {
        match self.args.text(name)?.map(|path| path.trim_end_matches('/')) {
            None | Some("" | ".") => Ok(None),
            Some(path) => ArtifactPath::parse(path).map(Some).map_err(|_| invalid_path()),
        }
    }
}

/// PUT `mlflow-artifacts/artifacts/{path}`: the blob is durable before its event.
pub(super) async fn upload(State(parts): State<Arc<Parts>>, path: FilePath, request: Request) -> Answered {
    let (mut head, body) = request.into_parts();
    let call = Call::of(&parts, &mut head).await?;
    call.registry()?;
    let bytes = futures::stream::unfold(body.into_data_stream(), |mut data| async move {
        match tokio::time::timeout(IDLE, data.next()).await {
            Ok(Some(part)) => Some((part.map_err(std::io::Error::other), data)),
            Ok(None) => None,
            Err(_) => Some((Err(std::io::Error::other("the upload stood still")), data)),
        }
    });
    let blob = parts.artifacts.put(Box::pin(bytes), FILE_LIMIT).await.map_err(stored)?;
    let event = ArtifactChanged {
        size: Some(i64::try_from(blob.size).unwrap_or(i64::MAX)),
        sha256: Some(blob.sha256.to_string()),
        ..call.artifact_event(path.0.as_str(), ArtifactKind::Stored)
    };
    call.write(&event).await?;
    nothing()
}

/// GET `mlflow-artifacts/artifacts/{path}`.
pub(super) async fn download(
    State(parts): State<Arc<Parts>>,
    path: FilePath,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, MlflowError> {
    let (mut head, _) = request.into_parts();
    let call = Call::of(&parts, &mut head).await?;
    send_path(&call, path.0.as_str(), &headers).await
}

async fn send_path(call: &Call, path: &str, headers: &HeaderMap) -> Result<Response, MlflowError> {
    let file = artifact(call.rows()?, &call.scope, path).await?.ok_or_else(|| no_such(path))?;
    send(call, file, headers).await
}

pub(super) async fn send(call: &Call, file: ArtifactFile, headers: &HeaderMap) -> Result<Response, MlflowError> {
    let sha256 = Sha256Hex::parse(&file.sha256).map_err(stored)?;
    let name = file.path.rsplit('/').next().unwrap_or_default();
    let mut response = Response::builder()
        .header(header::CONTENT_TYPE, media_type(name))
        .header(header::CONTENT_DISPOSITION, format!("attachment; filename*=UTF-8''{}", encoded(name)))
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
            call.parts.artifacts.get_range(&sha256, range).await.map_err(stored)?
        }
        Ok(_) => {
            response = response.header(header::CONTENT_LENGTH, file.size);
            call.parts.artifacts.get_verified(&sha256).await.map_err(stored)?.1
        }
    };
    response.body(Body::from_stream(body)).map_err(|error| MlflowError::internal(error.to_string()))
}

/// For a header: everything but letters, digits and `-._` in percent encoding.
fn encoded(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => encoded.push(char::from(byte)),
            other => encoded.push_str(&format!("%{other:02X}")),
        }
    }
    encoded
}

/// The web UI shows text and pictures; everything else is bytes.
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

/// DELETE `mlflow-artifacts/artifacts/{path}`: a file, or a folder with all that is in it.
pub(super) async fn delete(State(parts): State<Arc<Parts>>, path: FilePath, request: Request) -> Answered {
    let (mut head, _) = request.into_parts();
    let call = Call::of(&parts, &mut head).await?;
    let path = path.0.as_str();
    let rows = call.rows()?;
    let mut files = artifacts_below(rows, &call.scope, Some(path)).await?;
    files.extend(artifact(rows, &call.scope, path).await?);
    let own = ArtifactChanged::owner_of(path);
    // One event says all of one owner; of a folder that holds several owners' files, each file its own.
    let mut paths: BTreeSet<&str> =
        files.iter().filter(|file| file.owner != own).map(|file| file.path.as_str()).collect();
    if files.iter().any(|file| file.owner == own) {
        paths.insert(path);
    }
    for path in paths {
        call.write(&call.artifact_event(path, ArtifactKind::Deleted)).await?;
    }
    nothing()
}

/// What a folder holds, its files named by `shown`.
fn listing(files: &[ArtifactFile], folder: Option<&ArtifactPath>, shown: impl Fn(&str) -> String) -> Vec<Value> {
    let files: Vec<(&str, u64)> = files.iter().map(|file| (file.path.as_str(), file.size)).collect();
    let entry = |entry: carbon_artifacts::Listed<'_>| match entry.size {
        Some(size) => json!({"path": shown(entry.path), "is_dir": false, "file_size": size}),
        None => json!({"path": shown(entry.path), "is_dir": true}),
    };
    list(&files, folder).into_iter().map(entry).collect()
}

/// GET `mlflow-artifacts/artifacts?path=`: names without their folder.
pub(super) async fn list_root(call: Call) -> Answered {
    let folder = call.folder("path")?;
    let files = artifacts_below(call.rows()?, &call.scope, folder.as_ref().map(ArtifactPath::as_str)).await?;
    let basename = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    let entries = listing(&files, folder.as_ref(), basename);
    let mut answer = Map::new();
    if !entries.is_empty() {
        shapes::put(&mut answer, "files", entries);
    }
    Ok(Answer(answer.into()))
}

/// The root of a run's files, where they lie here.
pub(super) fn root(uri: &str) -> Option<ArtifactPath> {
    ArtifactPath::parse(uri.strip_prefix("mlflow-artifacts:")?.trim_matches('/')).ok()
}

/// GET `artifacts/list`: paths from the run's root.
pub(super) async fn list_of_run(call: Call) -> Answered {
    let uri = call.run().await?.artifact_uri;
    list_of(&call, &uri, "path").await
}

/// GET `logged-models/{id}/artifacts/directories`: paths from the model's root.
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
            Some(below) => root.join(below.as_str()).map_err(stored)?,
            None => root.clone(),
        };
        let files = artifacts_below(call.rows()?, &call.scope, Some(folder.as_str())).await?;
        let prefix = format!("{root}/");
        let entries = listing(&files, Some(&folder), |path| path.strip_prefix(&prefix).unwrap_or(path).to_owned());
        if !entries.is_empty() {
            shapes::put(&mut answer, "files", entries);
        }
    }
    Ok(Answer(answer.into()))
}

/// GET `/get-artifact?run_uuid=&path=`: what the web UI shows of a run's files.
pub(super) async fn get_of_run(headers: HeaderMap, call: Call) -> Result<Response, MlflowError> {
    let run = call.run().await?;
    let path = ArtifactPath::parse(call.args.required("path")?).map_err(|_| invalid_path())?;
    let root = root(&run.artifact_uri).ok_or_else(|| no_such(path.as_str()))?;
    send_path(&call, root.join(path.as_str()).map_err(stored)?.as_str(), &headers).await
}
