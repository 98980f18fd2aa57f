//! The HTTP client for deliveries, and one signed attempt at a delivery.

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

/// Maximum size of a response body that is read: 16 KiB. The rest is ignored.
const MAX_RESPONSE_BYTES: usize = 16 * 1024;

/// A request to a webhook.
#[derive(Clone)]
pub struct Delivery {
    /// The same in every attempt, so that the receiver recognises a repeat.
    pub id: Uuid,
    pub url: String,
    /// The decrypted secret, which signs the request.
    pub secret: Option<String>,
    pub body: String,
}

/// The response of a webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    /// The beginning of the body, up to 16 KiB.
    pub body: String,
    /// The delay that the header `Retry-After` asks for, if it is a number of seconds.
    pub retry_after: Option<Duration>,
}

pub(crate) fn client(allow_private: bool, timeout: Duration) -> Result<Client, WebhookError> {
    // Fails if a provider is installed already, which works as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = Client::builder()
        .user_agent(concat!("carbon-ml/", env!("CARGO_PKG_VERSION")))
        .timeout(timeout)
        // A redirect or a proxy would lead to an address that is not checked.
        .redirect(redirect::Policy::none())
        .no_proxy();
    let builder = if allow_private { builder } else { builder.dns_resolver(std::sync::Arc::new(PublicOnly)) };
    builder.build().map_err(|error| WebhookError::Internal(format!("the HTTP client cannot be created: {error}")))
}

/// MLflow's signature of a delivery: HMAC-SHA256 over `delivery_id.timestamp.body`. The timestamp is in Unix seconds.
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
    let response = request.header(TIMESTAMP, timestamp).body(delivery.body.clone()).send().await;
    let response = response.map_err(|error| WebhookError::NoResponse(with_causes(error)))?;
    let seconds = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let (status, retry_after) = (response.status().as_u16(), seconds.map(Duration::from_secs));
    Ok(Reply { status, body: read_prefix(response).await, retry_after })
}

/// Reads up to [`MAX_RESPONSE_BYTES`] of the body. A body that breaks off does not make the delivery fail.
async fn read_prefix(mut response: Response) -> String {
    let mut bytes = Vec::new();
    while bytes.len() < MAX_RESPONSE_BYTES
        && let Ok(Some(chunk)) = response.chunk().await
    {
        bytes.extend_from_slice(&chunk);
    }
    bytes.truncate(MAX_RESPONSE_BYTES);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The error's text with its causes, which `reqwest` omits, and without the URL, which may contain a token.
fn with_causes(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_equal_those_of_pythons_hmac() {
        // hmac.new(b"secret", b"id.1.{}", hashlib.sha256).digest(), in base64.
        assert_eq!(signature("secret", "id", "1", "{}"), "v1,490pAcC1LQ1k1cOcmH0da199+A88OKCj0Io4WnJlp68=");
    }
}
