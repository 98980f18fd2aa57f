//! Webhooks, as far as they are no matter of the log: what they may be told of, where they may be, their sealed secrets,
//! and one signed delivery.

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

/// What can go wrong with a webhook.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    #[error(
        "a webhook's secret is kept sealed, for which ML_SECRET_KEY must be set; `openssl rand -base64 32` draws one"
    )]
    NoKey,
    #[error(
        "the secret cannot be opened with this ML_SECRET_KEY; set the one that it was sealed with, or the secret anew"
    )]
    Sealed,
    #[error("Invalid webhook URL: {0}")]
    Url(String),
    /// It did not answer.
    #[error("{0}")]
    Unanswered(String),
    #[error("{0}")]
    Internal(String),
}

impl Classify for WebhookError {
    fn fault(&self) -> Fault {
        match self {
            WebhookError::NoKey | WebhookError::Url(_) => Fault::User,
            WebhookError::Unanswered(_) => Fault::External,
            WebhookError::Sealed | WebhookError::Internal(_) => Fault::Internal,
        }
    }

    fn retry(&self) -> Retry {
        match self {
            WebhookError::Unanswered(_) => Retry::Later,
            _ => Retry::Never,
        }
    }
}

/// How webhooks are reached, and what opens their secrets.
#[derive(Clone)]
pub struct Webhooks {
    key: Option<Arc<SecretKey>>,
    client: reqwest::Client,
    allow_private: bool,
}

impl Webhooks {
    /// `passphrase` may be empty: then no webhook can have a secret. `timeout` is that of one attempt.
    pub fn new(passphrase: &str, allow_private: bool, timeout: Duration) -> Result<Self, WebhookError> {
        let key = if passphrase.is_empty() { None } else { Some(Arc::new(SecretKey::derive(passphrase)?)) };
        Ok(Self { key, client: send::client(allow_private, timeout)?, allow_private })
    }

    /// Refuses an address that deliveries may not go to. What a name stands for is looked at with every delivery.
    pub fn check_url(&self, url: &str) -> Result<(), WebhookError> {
        target::check(url, self.allow_private).map(drop)
    }

    /// Seals the secret of a webhook, for it alone.
    pub fn seal(&self, scope: &TenantScope, webhook_id: &str, secret: &str) -> Result<String, WebhookError> {
        self.key.as_ref().ok_or(WebhookError::NoKey)?.seal(scope, webhook_id, secret)
    }

    /// Opens what was sealed for this webhook; `None` where it has no secret.
    pub fn open(&self, scope: &TenantScope, webhook_id: &str, sealed: &str) -> Result<Option<String>, WebhookError> {
        match sealed {
            "" => Ok(None),
            sealed => self.key.as_ref().ok_or(WebhookError::Sealed)?.open(scope, webhook_id, sealed).map(Some),
        }
    }

    /// Makes one attempt at a delivery. Any answer is a reply.
    pub async fn send(&self, delivery: &Delivery) -> Result<Reply, WebhookError> {
        let url = target::check(&delivery.url, self.allow_private)?;
        send::send(&self.client, url, delivery).await
    }
}
