//! The HTTP client of pulls, with a timeout for the start of a response and one between its chunks.

use std::time::Duration;

use reqwest::{Client, Response};
use tokio::time::timeout;

use super::{Progress, Sources};
use crate::InferenceError;
use crate::store::TempFile;

/// The failure of one source.
pub(super) struct PullError {
    cause: Cause,
    /// Bytes downloaded before the failure.
    pub bytes: u64,
}

/// The cause of a failure. It decides whether the next source is tried.
enum Cause {
    /// The source failed. The next source is tried.
    Source(String),
    /// The source sent a file with the wrong SHA-256. The next source is tried; if it fails too, the pull fails with
    /// this.
    Mismatch(InferenceError),
    /// This machine failed, for example because the disk is full. The pull fails: the next source would fail too.
    Local(InferenceError),
}

impl PullError {
    /// A failure of the source. `reason` is a predicate, such as "did not answer".
    pub fn source(reason: impl Into<String>) -> Self {
        Self { cause: Cause::Source(reason.into()), bytes: 0 }
    }

    /// Adds bytes that were downloaded before.
    pub fn after(mut self, bytes: u64) -> Self {
        self.bytes += bytes;
        self
    }

    /// Logs the failure and records it for the final error. Fails if the next source would fail too.
    pub fn report(
        self,
        source: &str,
        failures: &mut Vec<String>,
        mismatch: &mut Option<InferenceError>,
    ) -> Result<(), InferenceError> {
        match self.cause {
            Cause::Source(reason) => failures.push(format!("{source} {reason}")),
            Cause::Mismatch(error) => {
                failures.push(format!("{source} sent a wrong file: {error}"));
                *mismatch = Some(error);
            }
            Cause::Local(error) => return Err(error),
        }
        if let Some(last) = failures.last() {
            tracing::warn!(reason = last, "download from a source of model files failed");
        }
        Ok(())
    }
}

impl From<InferenceError> for PullError {
    fn from(error: InferenceError) -> Self {
        let cause = match error {
            InferenceError::HashMismatch { .. } => Cause::Mismatch(error),
            _ => Cause::Local(error),
        };
        Self { cause, bytes: 0 }
    }
}

/// The HTTP client of a pull, with its timeout and its progress.
pub(super) struct Fetcher<'a> {
    client: Client,
    stall: Duration,
    pub progress: &'a dyn Progress,
}

impl<'a> Fetcher<'a> {
    pub fn new(sources: &Sources, progress: &'a dyn Progress) -> Result<Self, InferenceError> {
        // Fails if a provider is installed already; that one is used.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .user_agent(concat!("carbon-ml/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(sources.stall)
            .build()
            .map_err(|error| InferenceError::Broken(format!("the HTTP client cannot be created: {error}")))?;
        Ok(Self { client, stall: sources.stall, progress })
    }

    /// Sends a GET request. Fails unless a response with a success status starts within `patience`.
    pub async fn open(&self, url: &str, accept: Option<&str>, patience: Duration) -> Result<Response, PullError> {
        let mut request = self.client.get(url);
        if let Some(accept) = accept {
            request = request.header(reqwest::header::ACCEPT, accept);
        }
        let response = match timeout(patience, request.send()).await {
            Err(_) => return Err(PullError::source(format!("did not answer within {patience:?}"))),
            Ok(Err(error)) => return Err(PullError::source(format!("cannot be reached ({})", root_cause(error)))),
            Ok(Ok(response)) => response,
        };
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(PullError::source(format!("answered {}", response.status())))
        }
    }

    /// Writes the body of a response to `target`. Fails if the body is shorter than `size`, if that is given. Stops
    /// after `size` is exceeded; the caller's hash check then fails.
    pub async fn stream(
        &self,
        mut response: Response,
        file: &str,
        size: Option<u64>,
        target: &mut TempFile,
    ) -> Result<(), PullError> {
        self.progress.start(file, size.or(response.content_length()));
        loop {
            let so_far = target.written;
            let chunk = match timeout(self.stall, response.chunk()).await {
                Err(_) => Err(format!("sent no data of {file} for {:?}", self.stall)),
                Ok(Err(error)) => Err(format!("closed the connection during {file} ({})", root_cause(error))),
                Ok(Ok(chunk)) => Ok(chunk),
            };
            match chunk.map_err(|reason| PullError::source(reason).after(so_far))? {
                None => break,
                Some(chunk) => {
                    target.write(&chunk)?;
                    self.progress.advance(chunk.len() as u64);
                }
            }
            if size.is_some_and(|size| target.written > size) {
                break; // The hash cannot match any more.
            }
        }
        if let Some(size) = size
            && target.written < size
        {
            let reason = format!("sent {} of the {size} bytes of {file}", target.written);
            return Err(PullError::source(reason).after(target.written));
        }
        self.progress.finish(file);
        Ok(())
    }

    /// Reads the body of a response as UTF-8, at most `limit` bytes.
    pub async fn text(&self, mut response: Response, limit: usize) -> Result<String, PullError> {
        let mut body = Vec::new();
        loop {
            match timeout(self.stall, response.chunk()).await {
                Err(_) => return Err(PullError::source(format!("sent no data for {:?}", self.stall))),
                Ok(Err(error)) => {
                    return Err(PullError::source(format!("closed the connection ({})", root_cause(error))));
                }
                Ok(Ok(None)) => break,
                Ok(Ok(Some(chunk))) => body.extend_from_slice(&chunk),
            }
            if body.len() > limit {
                return Err(PullError::source(format!("sent a project page of more than {limit} bytes")));
            }
        }
        String::from_utf8(body).map_err(|_| PullError::source("sent a project page that is not UTF-8"))
    }
}

/// The innermost cause of an error, without the URL, which may contain a password.
fn root_cause(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut innermost: &dyn std::error::Error = &error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
