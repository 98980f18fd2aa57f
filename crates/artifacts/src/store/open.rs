//! Opens the store that an artifact URI names.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::prefix::PrefixStore;
use object_store::{ClientConfigKey, ClientOptions, ObjectStore, RetryConfig};

use super::{ArtifactStore, disk};
use crate::ArtifactError;

/// The options of an `s3://` store. Without an endpoint the store is Amazon S3. Without an endpoint and keys, the
/// credentials come from the `AWS_` variables and roles.
#[derive(Clone, Default)]
pub struct StoreOptions {
    /// URL of the server: `http://` or `https://`, host and port.
    pub endpoint: Option<String>,
    pub access_key: Option<String>,
    pub secret_key: Option<String>,
    pub region: Option<String>,
}

impl fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { endpoint, region, .. } = self;
        f.debug_struct("StoreOptions").field("endpoint", endpoint).field("region", region).finish_non_exhaustive()
    }
}

/// A parsed artifact URI.
enum Address {
    Folder(PathBuf),
    S3 { bucket: String, prefix: Option<String> },
}

/// The error for an invalid URI. `problem` is a predicate, such as "names no bucket".
fn invalid_uri(uri: &str, problem: &str) -> ArtifactError {
    ArtifactError::Options(format!("ML_MLFLOW_ARTIFACT_URI {uri:?} {problem}"))
}

/// Parses an artifact URI.
fn address(uri: &str) -> Result<Address, ArtifactError> {
    const UNSUPPORTED: &str = "is not an artifact store: it must be a folder, file:///… or s3://bucket/prefix";
    if uri.trim().is_empty() {
        return Err(invalid_uri(uri, UNSUPPORTED));
    }
    // Checked first, because the other errors contain the URI.
    if uri.split_once("://").is_some_and(|(scheme, rest)| scheme != "file" && rest.contains('@')) {
        return Err(ArtifactError::Options(
            "ML_MLFLOW_ARTIFACT_URI contains credentials: set ML_MINIO_ACCESS_KEY and ML_MINIO_SECRET_KEY instead"
                .into(),
        ));
    }
    if let Some(rest) = uri.strip_prefix("s3://") {
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if bucket.is_empty() || !bucket.chars().all(plain) {
            return Err(invalid_uri(
                uri,
                "names no bucket: write s3://bucket/prefix, and set ML_MINIO_ENDPOINT to the server",
            ));
        }
        let prefix = prefix.trim_matches('/');
        if object_store::path::Path::parse(prefix).is_err() || prefix.contains(['?', '#']) {
            return Err(invalid_uri(uri, "has an invalid prefix"));
        }
        return Ok(Address::S3 { bucket: bucket.into(), prefix: (!prefix.is_empty()).then(|| prefix.into()) });
    }
    // A single letter before `:` is a Windows drive, not a scheme.
    match uri.split_once(':') {
        Some(("file", _)) => {
            let url = reqwest::Url::parse(uri).ok();
            let folder = url.filter(|_| uri.starts_with("file:/")).and_then(|url| url.to_file_path().ok());
            folder
                .map(Address::Folder)
                .ok_or_else(|| invalid_uri(uri, "names no local folder: write file:///path/to/it"))
        }
        Some((scheme, rest)) if scheme.len() > 1 && rest.starts_with('/') && !scheme.contains('/') => {
            Err(invalid_uri(uri, UNSUPPORTED))
        }
        _ => Ok(Address::Folder(uri.into())),
    }
}

impl ArtifactStore {
    /// Opens a store in a folder, which is created if it does not exist. Deletes the remains of uploads of killed
    /// processes.
    pub fn local(folder: impl AsRef<Path>) -> Result<Self, ArtifactError> {
        let folder = folder.as_ref();
        // Absolute, so that the store does not depend on the working directory.
        let root = std::path::absolute(folder).map_err(ArtifactError::io(folder))?;
        disk::prepare(&root)?;
        disk::sweep(&root)?;
        let store = LocalFileSystem::new_with_prefix(&root)?;
        Ok(Self { store: Arc::new(store), disk: Some(Arc::new(root)) })
    }

    /// Opens the store of a URI: a folder, `file:///…` or `s3://bucket/prefix`. Deletes the remains of uploads of
    /// killed processes; for S3 this also checks that the server answers and accepts the keys.
    pub async fn open(uri: &str, options: &StoreOptions) -> Result<Self, ArtifactError> {
        match address(uri)? {
            Address::Folder(folder) => super::blocking(move || Self::local(folder)).await,
            Address::S3 { bucket, prefix } => {
                let store = Self::new(s3(&bucket, prefix, options)?);
                store.sweep().await.map_err(|error| explain_rejection(error, &bucket))?;
                Ok(store)
            }
        }
    }
}

/// Builds the client of a bucket.
fn s3(bucket: &str, prefix: Option<String>, options: &StoreOptions) -> Result<Arc<dyn ObjectStore>, ArtifactError> {
    let wrong = |text: String| ArtifactError::Options(text);
    // No timeout for a whole request, which can be large. A read times out after 120 s without data.
    let client = ClientOptions::new().with_timeout_disabled().with_config(ClientConfigKey::ReadTimeout, "120 seconds");
    let retry = RetryConfig { max_retries: 5, retry_timeout: Duration::from_secs(30), ..RetryConfig::default() };
    // An empty value counts as not set.
    let given = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
    let mut builder = match (given(&options.access_key), given(&options.secret_key), given(&options.endpoint)) {
        (Some(access), Some(secret), _) => {
            AmazonS3Builder::new().with_access_key_id(access).with_secret_access_key(secret)
        }
        (None, None, None) => AmazonS3Builder::from_env(),
        (None, None, Some(_)) => {
            return Err(wrong(
                "ML_MINIO_ENDPOINT is set: set ML_MINIO_ACCESS_KEY and ML_MINIO_SECRET_KEY as well".into(),
            ));
        }
        (access, ..) => {
            let other = if access.is_some() { "ML_MINIO_SECRET_KEY" } else { "ML_MINIO_ACCESS_KEY" };
            return Err(wrong(format!("{other} is missing: set both keys or neither")));
        }
    };
    let mut http = false;
    if let Some(endpoint) = given(&options.endpoint) {
        let url = reqwest::Url::parse(&endpoint)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let Some(url) = url else {
            return Err(wrong(format!(
                "ML_MINIO_ENDPOINT {endpoint:?} is not a URL: write http://host:9000 or https://…"
            )));
        };
        http = url.scheme() == "http";
        // MinIO expects the bucket in the path, which is the builder's default.
        builder = builder.with_endpoint(endpoint.trim_end_matches('/'));
    }
    if let Some(region) = given(&options.region) {
        builder = builder.with_region(region);
    }
    // The HTTP client has no TLS provider. Fails if one is installed already; that one is used.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = client.with_allow_http(http);
    let store = builder.with_bucket_name(bucket).with_client_options(client).with_retry(retry).build();
    let store = store.map_err(|error| wrong(format!("the artifact store s3://{bucket} cannot be used: {error}")))?;
    Ok(match prefix {
        Some(prefix) => Arc::new(PrefixStore::new(store, prefix)),
        None => Arc::new(store),
    })
}

/// Replaces an error that a retry cannot fix by one that says which setting to correct. `object_store` has no error
/// kind for a rejected listing, so the text is searched.
fn explain_rejection(error: ArtifactError, bucket: &str) -> ArtifactError {
    let text = error.to_string();
    if text.contains("<Code>NoSuchBucket</Code>") {
        return ArtifactError::Options(format!(
            "the artifact store has no bucket {bucket}: create it, or correct ML_MLFLOW_ARTIFACT_URI"
        ));
    }
    if [" 401 Unauthorized", " 403 Forbidden"].iter().any(|status| text.contains(status)) {
        let code =
            text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>")).map_or("403", |(code, _)| code);
        return ArtifactError::Options(format!(
            "the artifact store denies access to bucket {bucket} ({code}): correct ML_MINIO_ACCESS_KEY and ML_MINIO_SECRET_KEY, or their permissions"
        ));
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The message of the rejection of a URI.
    async fn rejection(uri: &str, options: &StoreOptions) -> String {
        ArtifactStore::open(uri, options).await.unwrap_err().to_string()
    }

    #[tokio::test]
    async fn errors_of_invalid_uris_name_the_setting() {
        let none = StoreOptions::default();
        let key = Some("key".to_owned());
        for uri in ["", " ", "gs://bucket/x", "mlflow-artifacts:/1", "dbfs:/x", "http://host/x", "s3a://bucket"] {
            assert!(rejection(uri, &none).await.contains("a folder, file:///… or s3://bucket/prefix"), "{uri}");
        }
        for uri in ["file://host/x", "file:x", "file:"] {
            assert!(rejection(uri, &none).await.contains("file:///path/to/it"), "{uri}");
        }
        for uri in ["s3://", "s3:///x", "s3://minio:9000/bucket"] {
            assert!(rejection(uri, &none).await.contains("names no bucket"), "{uri}");
        }
        assert!(rejection("s3://bucket/a/../b", &none).await.contains("prefix"));
        for uri in ["s3://key:hush@bucket/x", "http://key:hush@host/x", "s3a://key:hush@bucket"] {
            let inline = rejection(uri, &none).await;
            assert!(inline.contains("ML_MINIO_SECRET_KEY") && !inline.contains("hush"), "{inline}");
        }
        let endpoint = Some("http://127.0.0.1:1".to_owned());
        let keyless = StoreOptions { endpoint: endpoint.clone(), access_key: Some(String::new()), ..none.clone() };
        assert!(rejection("s3://bucket", &keyless).await.contains("set ML_MINIO_ACCESS_KEY and ML_MINIO_SECRET_KEY"));
        let half = StoreOptions { endpoint, access_key: key.clone(), ..none.clone() };
        assert!(rejection("s3://bucket", &half).await.contains("ML_MINIO_SECRET_KEY is missing"));
        for endpoint in ["minio:9000", "127.0.0.1:9000", "ftp://x"] {
            let options = StoreOptions {
                endpoint: Some(endpoint.into()),
                access_key: key.clone(),
                secret_key: Some("hush".into()),
                ..none.clone()
            };
            assert!(rejection("s3://bucket", &options).await.contains("write http://host:9000"), "{endpoint}");
            assert!(!format!("{options:?}").contains("hush"));
        }
    }

    #[tokio::test]
    async fn a_folder_is_opened_by_path_or_by_file_uri() {
        let folder = tempfile::tempdir().unwrap();
        let plain = folder.path().join("new/é b");
        let url = reqwest::Url::from_file_path(&plain).unwrap();
        let sha256 = crate::Sha256Hex::of(b"x");
        let store = ArtifactStore::open(plain.to_str().unwrap(), &StoreOptions::default()).await.unwrap();
        let bytes = futures::stream::iter([Ok::<_, std::io::Error>(bytes::Bytes::from_static(b"x"))]);
        store.put(bytes, 1).await.unwrap();
        for uri in [url.as_str(), &url.as_str().replacen("file://", "file:", 1)] {
            let store = ArtifactStore::open(uri, &StoreOptions::default()).await.unwrap();
            assert!(store.contains(&sha256).await.unwrap(), "{uri}");
        }
        assert!(ArtifactStore::local(&plain).unwrap().contains(&sha256).await.unwrap());
        std::fs::write(folder.path().join("file"), "").unwrap();
        assert!(ArtifactStore::local(folder.path().join("file")).is_err());
    }
}
