//! HTTP: one client, patience with the first byte and with each one after it.

use std::time::Duration;

use reqwest::{Client, Response};
use tokio::time::timeout;

use super::{Progress, Sources};
use crate::InferenceError;
use crate::store::Incoming;

/// Why one source gave nothing, and how many bytes it had given by then.
pub(super) struct PullError {
    kind: Kind,
    pub bytes: u64,
}

enum Kind {
    /// The source's fault: try the next one.
    Source(String),
    /// The bytes are not the model's: try the next one, but say this if none helps.
    Mismatch(InferenceError),
    /// Ours (a full disk, say): the next source would fail too.
    Local(InferenceError),
}

impl PullError {
    pub fn source(reason: impl Into<String>) -> Self {
        Self { kind: Kind::Source(reason.into()), bytes: 0 }
    }

    pub fn after(mut self, bytes: u64) -> Self {
        self.bytes += bytes;
        self
    }

    /// Notes the failure for the final error; fails at once if no other source can help.
    pub fn report(
        self,
        who: &str,
        tried: &mut Vec<String>,
        mismatch: &mut Option<InferenceError>,
    ) -> Result<(), InferenceError> {
        match self.kind {
            Kind::Source(reason) => tried.push(format!("{who} {reason}")),
            Kind::Mismatch(error) => {
                tried.push(format!("{who} sent other bytes: {error}"));
                *mismatch = Some(error);
            }
            Kind::Local(error) => return Err(error),
        }
        if let Some(last) = tried.last() {
            tracing::warn!(reason = last, "a source of weights failed");
        }
        Ok(())
    }
}

impl From<InferenceError> for PullError {
    fn from(error: InferenceError) -> Self {
        let kind = match error {
            InferenceError::HashMismatch { .. } => Kind::Mismatch(error),
            _ => Kind::Local(error),
        };
        Self { kind, bytes: 0 }
    }
}

pub(super) struct Fetcher<'a> {
    client: Client,
    stall: Duration,
    pub progress: &'a dyn Progress,
}

impl<'a> Fetcher<'a> {
    pub fn new(sources: &Sources, progress: &'a dyn Progress) -> Result<Self, InferenceError> {
        // Fails if one is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .user_agent(concat!("carbon-ml/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(sources.stall)
            .build()
            .map_err(|error| InferenceError::Broken(format!("the HTTP client cannot be built: {error}")))?;
        Ok(Self { client, stall: sources.stall, progress })
    }

    /// Asks for a page; an answer must begin within `patience`.
    pub async fn open(&self, url: &str, accept: Option<&str>, patience: Duration) -> Result<Response, PullError> {
        let mut request = self.client.get(url);
        if let Some(accept) = accept {
            request = request.header(reqwest::header::ACCEPT, accept);
        }
        let response = match timeout(patience, request.send()).await {
            Err(_) => return Err(PullError::source(format!("did not answer within {patience:?}"))),
            Ok(Err(error)) => return Err(PullError::source(format!("cannot be reached ({})", cause(error)))),
            Ok(Ok(response)) => response,
        };
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(PullError::source(format!("answered {}", response.status())))
        }
    }

    /// Writes an answer's body to `incoming`. `size` is what it must be, where that is known.
    pub async fn stream(
        &self,
        mut response: Response,
        what: &str,
        size: Option<u64>,
        incoming: &mut Incoming,
    ) -> Result<(), PullError> {
        self.progress.start(what, size.or(response.content_length()));
        loop {
            let so_far = incoming.written;
            let chunk = match timeout(self.stall, response.chunk()).await {
                Err(_) => Err(format!("stood still for {:?} in {what}", self.stall)),
                Ok(Err(error)) => Err(format!("broke off in {what} ({})", cause(error))),
                Ok(Ok(chunk)) => Ok(chunk),
            };
            match chunk.map_err(|reason| PullError::source(reason).after(so_far))? {
                None => break,
                Some(chunk) => {
                    incoming.write(&chunk)?;
                    self.progress.advance(chunk.len() as u64);
                }
            }
            if size.is_some_and(|size| incoming.written > size) {
                break; // Its hash cannot be right any more.
            }
        }
        if let Some(size) = size
            && incoming.written < size
        {
            let reason = format!("sent {} of the {size} bytes of {what}", incoming.written);
            return Err(PullError::source(reason).after(incoming.written));
        }
        self.progress.finish(what);
        Ok(())
    }

    /// The whole of a small answer.
    pub async fn text(&self, mut response: Response, limit: usize) -> Result<String, PullError> {
        let mut body = Vec::new();
        loop {
            match timeout(self.stall, response.chunk()).await {
                Err(_) => return Err(PullError::source(format!("stood still for {:?}", self.stall))),
                Ok(Err(error)) => return Err(PullError::source(format!("broke off ({})", cause(error)))),
                Ok(Ok(None)) => break,
                Ok(Ok(Some(chunk))) => body.extend_from_slice(&chunk),
            }
            if body.len() > limit {
                return Err(PullError::source(format!("sent a listing of more than {limit} bytes")));
            }
        }
        String::from_utf8(body).map_err(|_| PullError::source("sent a listing that is not UTF-8"))
    }
}

/// The innermost reason, without the address: that may carry a password.
fn cause(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut innermost: &dyn std::error::Error = &error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
