//! The parts of webhooks that do not need the log: their events, the check of their addresses, the encryption of their
//! secrets, and the sending of one signed delivery.

mod events;
mod seal;
mod send;
mod target;

use std::sync::Arc;
use std::time::Duration;

use carbon_core::{Classify, Fault, Retry, TenantScope};
use seal::SecretKey;

pub use events::{HookEvent, body, example};
pub use send::{Delivery, Reply, signature};
pub use target::is_public;

/// Errors of webhooks.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    #[error(
        "a webhook's secret is kept sealed, for which ML_SECRET_KEY must be set; `openssl rand -base64 32` draws one"
    )]
    NoKey,
    #[error(
        "the webhook's secret cannot be decrypted with this ML_SECRET_KEY; set the key that encrypted it, or a new secret"
    )]
    CannotDecrypt,
    #[error("Invalid webhook URL: {0}")]
    Url(String),
    /// The receiver did not answer.
    #[error("{0}")]
    NoResponse(String),
    #[error("{0}")]
    Internal(String),
}

impl Classify for WebhookError {
    fn fault(&self) -> Fault {
        match self {
            WebhookError::NoKey | WebhookError::Url(_) => Fault::User,
            WebhookError::NoResponse(_) => Fault::External,
            WebhookError::CannotDecrypt | WebhookError::Internal(_) => Fault::Internal,
        }
    }

    fn retry(&self) -> Retry {
        match self {
            WebhookError::NoResponse(_) => Retry::Later,
            _ => Retry::Never,
        }
    }
}

/// Sends deliveries, checks addresses, and encrypts and decrypts secrets.
#[derive(Clone)]
pub struct Webhooks {
    key: Option<Arc<SecretKey>>,
    client: reqwest::Client,
    allow_private: bool,
}

impl Webhooks {
    /// With an empty `passphrase`, no webhook can have a secret. `timeout` applies to one attempt.
    pub fn new(passphrase: &str, allow_private: bool, timeout: Duration) -> Result<Self, WebhookError> {
        let key = if passphrase.is_empty() { None } else { Some(Arc::new(SecretKey::derive(passphrase)?)) };
        Ok(Self { key, client: send::client(allow_private, timeout)?, allow_private })
    }

    /// Rejects a URL that deliveries must not go to. A host name is resolved and checked with every delivery, not here.
    pub fn check_url(&self, url: &str) -> Result<(), WebhookError> {
        target::check(url, self.allow_private).map(drop)
    }

    /// Encrypts the secret of a webhook. The result can be decrypted for the same tenant and webhook only.
    pub fn seal(&self, scope: &TenantScope, webhook_id: &str, secret: &str) -> Result<String, WebhookError> {
        self.key.as_ref().ok_or(WebhookError::NoKey)?.seal(scope, webhook_id, secret)
    }

    /// Decrypts the secret of a webhook; `None` if `sealed` is empty, which means that the webhook has no secret.
    pub fn open(&self, scope: &TenantScope, webhook_id: &str, sealed: &str) -> Result<Option<String>, WebhookError> {
        match sealed {
            "" => Ok(None),
            sealed => self.key.as_ref().ok_or(WebhookError::CannotDecrypt)?.open(scope, webhook_id, sealed).map(Some),
        }
    }

    /// Makes one attempt at a delivery. A response with any status is a [`Reply`], not an error.
    pub async fn send(&self, delivery: &Delivery) -> Result<Reply, WebhookError> {
        let url = target::check(&delivery.url, self.allow_private)?;
        send::send(&self.client, url, delivery).await
    }
}
