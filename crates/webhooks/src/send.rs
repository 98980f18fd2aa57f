//! One attempt at a delivery.

use std::error::Error as _;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use carbon_core::{Clock as _, SystemClock};
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Client, Response, Url, redirect};
use ring::hmac;
use uuid::Uuid;

use crate::WebhookError;
use crate::target::PublicOnly;

const SIGNATURE: &str = "X-MLflow-Signature";
const TIMESTAMP: &str = "X-MLflow-Timestamp";
const DELIVERY_ID: &str = "X-MLflow-Delivery-Id";

/// Of an answer no more is read.
const ANSWER_BYTES: usize = 16 * 1024;

/// What is told to whom.
#[derive(Clone)]
pub struct Delivery {
    /// The same with every attempt, so that a repeat is recognised.
    pub id: Uuid,
    pub url: String,
    pub secret: Option<String>,
    pub body: String,
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    pub body: String,
    /// When it asks to be tried again.
    pub retry_after: Option<Duration>,
}

pub(crate) fn client(allow_private: bool, timeout: Duration) -> Result<Client, WebhookError> {
    // Fails if one is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = Client::builder()
        .user_agent(concat!("carbon-ml/", env!("CARGO_PKG_VERSION")))
        .timeout(timeout)
        // A redirect or a proxy would lead where nobody has looked.
        .redirect(redirect::Policy::none())
        .no_proxy();
    let builder = if allow_private { builder } else { builder.dns_resolver(std::sync::Arc::new(PublicOnly)) };
    builder.build().map_err(|error| WebhookError::Internal(format!("no HTTP client: {error}")))
}

/// MLflow's signature of a delivery.
pub fn signature(secret: &str, delivery_id: &str, timestamp: &str, body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hmac::sign(&key, format!("{delivery_id}.{timestamp}.{body}").as_bytes());
    format!("v1,{}", BASE64_STANDARD.encode(tag))
}

pub(crate) async fn send(client: &Client, url: Url, delivery: &Delivery) -> Result<Reply, WebhookError> {
    let (id, timestamp) = (delivery.id.to_string(), (SystemClock.now().0 / 1000).to_string());
    let mut request = client.post(url).header(CONTENT_TYPE, "application/json").header(DELIVERY_ID, &id);
    if let Some(secret) = &delivery.secret {
        request = request.header(SIGNATURE, signature(secret, &id, &timestamp, &delivery.body));
    }
    let answer = request.header(TIMESTAMP, timestamp).body(delivery.body.clone()).send().await;
    let answer = answer.map_err(|error| WebhookError::Unanswered(told(error)))?;
    let seconds = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let (status, retry_after) = (answer.status().as_u16(), seconds.map(Duration::from_secs));
    Ok(Reply { status, body: beginning(answer).await, retry_after })
}

/// A body that breaks off, or never ends, changes nothing about the answer.
async fn beginning(mut answer: Response) -> String {
    let mut bytes = Vec::new();
    while bytes.len() < ANSWER_BYTES
        && let Ok(Some(chunk)) = answer.chunk().await
    {
        bytes.extend_from_slice(&chunk);
    }
    bytes.truncate(ANSWER_BYTES);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// With its causes, which the library leaves out, and without the address, which may hold a token.
fn told(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        said = format!("{said}: {inner}");
        cause = inner.source();
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_those_that_pythons_hmac_computes() {
        // hmac.new(b"secret", b"id.1.{}", hashlib.sha256).digest(), in base64.
        assert_eq!(signature("secret", "id", "1", "{}"), "v1,490pAcC1LQ1k1cOcmH0da199+A88OKCj0Io4WnJlp68=");
    }
}
