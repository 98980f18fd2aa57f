//! Sends the deliveries of the outbox. Each webhook with pending deliveries has its own task, so a receiver that does
//! not answer delays no other webhook. The deliveries of one webhook are sent one at a time, in order.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use carbon_core::{Classify as _, Retry, TenantScope};
use carbon_read_models::registry::queries::{Webhook, webhook};
use carbon_runtime::Shutdown;
use carbon_runtime::consume::ProcessorError;
use carbon_schemas::Event as _;
use carbon_schemas::events::WebhookChanged;
use carbon_store::SqliteNamespace;
use carbon_webhooks::{Delivery, Webhooks};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::WebhookParts;
use super::outbox::{self, QueuedDelivery, WebhookKey};

/// The retry policy of a delivery.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Maximum number of attempts, after which the delivery is given up.
    pub max_attempts: u32,
    /// The delay before the second attempt. It doubles with each further attempt.
    pub initial_backoff: Duration,
    pub max_backoff: Duration,
}

impl Default for Pace {
    /// 8 attempts within about 2 minutes.
    fn default() -> Self {
        Self { max_attempts: 8, initial_backoff: Duration::from_secs(1), max_backoff: Duration::from_secs(60) }
    }
}

impl Pace {
    /// The delay after a failed attempt, with 50 % jitter, so that deliveries that failed together are not retried
    /// together.
    fn backoff(&self, attempt: u32) -> Duration {
        let doubled = self.initial_backoff.saturating_mul(1 << attempt.saturating_sub(1).min(16)).min(self.max_backoff);
        let random = (Uuid::new_v4().as_u128() as u16) as f64 / f64::from(u16::MAX);
        doubled.mul_f64(0.5 + random / 2.0)
    }
}

/// How long a request may still take after the shutdown began. A request that is cancelled is sent again after the
/// restart, with the same id.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);
/// Delay before a retry after an error of this process: the outbox, the registry or the log.
const ERROR_RETRY_DELAY: Duration = Duration::from_secs(1);
/// How long one wait for the registry to catch up may take.
const REGISTRY_TIMEOUT: Duration = Duration::from_secs(10);
/// Polling interval of the outbox, in case a notification is missed.
const POLL_INTERVAL: Duration = Duration::from_secs(30);

/// Counts a delivery in the metric `webhook_deliveries_total`.
pub(super) fn count(outcome: &'static str) {
    metrics::counter!("webhook_deliveries_total", "outcome" => outcome).increment(1);
}

/// The outcome of an attempt. The texts are reasons.
enum Outcome {
    Delivered,
    /// Another attempt may succeed. The duration is the delay that the receiver asked for.
    Retryable(String, Option<Duration>),
    /// No further attempt can succeed.
    Rejected(String),
    /// No attempt was made: the delivery waits until an operator fixes the configuration.
    Held(String),
    /// The shutdown cancelled the request.
    Cancelled,
}

/// The task that sends the deliveries of this process.
pub struct Deliveries {
    worker: Arc<Worker>,
    wake: Arc<Notify>,
}

struct Worker {
    outbox: SqliteNamespace,
    parts: WebhookParts,
    webhooks: Webhooks,
    pace: Pace,
}

impl Deliveries {
    pub(super) fn new(
        outbox: SqliteNamespace,
        parts: WebhookParts,
        webhooks: Webhooks,
        pace: Pace,
        wake: Arc<Notify>,
    ) -> Self {
        Self { worker: Arc::new(Worker { outbox, parts, webhooks, pace }), wake }
    }

    /// Sends deliveries until the shutdown.
    pub async fn run(&self, shutdown: Shutdown) {
        // A registry that is being rebuilt lacks webhooks, and the deliveries of a webhook that does not exist are
        // deleted.
        let mut ready = false;
        while !ready {
            ready = tokio::select! {
                ready = self.worker.registry_is_caught_up() => ready,
                () = shutdown.cancelled() => return,
            };
        }
        let mut running = JoinSet::new();
        // The webhooks that have a running task.
        let mut busy: HashSet<WebhookKey> = HashSet::new();
        while !shutdown.is_cancelled() {
            match outbox::pending_webhooks(&self.worker.outbox).await {
                Ok(keys) => {
                    for key in keys {
                        if busy.insert(key.clone()) {
                            let (worker, shutdown) = (self.worker.clone(), shutdown.clone());
                            running.spawn(async move {
                                worker.deliver_all(&key, &shutdown).await;
                                key
                            });
                        }
                    }
                }
                Err(error) => tracing::error!(%error, "reading the outbox failed; retrying"),
            }
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = self.wake.notified() => {}
                () = tokio::time::sleep(POLL_INTERVAL) => {}
                Some(ended) = running.join_next() => match ended {
                    Ok(key) => drop(busy.remove(&key)),
                    // The error does not name the webhook, so all tasks are stopped and started again.
                    Err(error) => {
                        tracing::error!(%error, "a delivery task failed; restarting the delivery tasks");
                        running.shutdown().await;
                        busy.clear();
                    }
                },
            }
        }
        while running.join_next().await.is_some() {}
    }
}

impl Worker {
    /// Waits up to [`REGISTRY_TIMEOUT`] until the registry has folded the topic of webhooks up to its current end.
    async fn registry_is_caught_up(&self) -> bool {
        let Ok(registry) = self.parts.registry.get() else {
            tokio::time::sleep(ERROR_RETRY_DELAY).await;
            return false;
        };
        match self.parts.end_offsets(&registry, &[WebhookChanged::NAME]).await {
            Ok(ends) => registry.view.reached(&ends, REGISTRY_TIMEOUT).await,
            Err(error) => {
                tracing::warn!(%error, "end offsets unavailable; retrying");
                tokio::time::sleep(ERROR_RETRY_DELAY).await;
                false
            }
        }
    }

    /// Looks a webhook up in the registry; `None` if it is deleted. Fails while the registry is being filled, because a
    /// webhook that it does not contain yet looks like a deleted one.
    async fn webhook(&self, key: &WebhookKey, scope: &TenantScope) -> Result<Option<Webhook>, ProcessorError> {
        let registry = self.parts.registry.get().map_err(|error| ProcessorError::of(&error))?;
        let found = webhook(&registry.namespace, scope, &key.webhook).await?;
        // A reset deletes the rows and the mark that they are filled in one transaction.
        if found.is_none() && !(self.parts.registry.is_current(&registry) && registry.namespace.is_filled().await?) {
            return Err(ProcessorError::unavailable("the registry is being filled"));
        }
        Ok(found)
    }

    /// Sends all pending deliveries of a webhook.
    async fn deliver_all(&self, key: &WebhookKey, shutdown: &Shutdown) {
        while !shutdown.is_cancelled() {
            match self.deliver_next(key, shutdown).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    tracing::warn!(%error, webhook = %key.webhook, "delivery postponed; retrying");
                    sleep(ERROR_RETRY_DELAY, shutdown).await;
                }
            }
        }
    }

    /// Makes one attempt at the oldest delivery of a webhook. Returns false if the webhook has none.
    async fn deliver_next(&self, key: &WebhookKey, shutdown: &Shutdown) -> Result<bool, ProcessorError> {
        let Some(next) = outbox::oldest(&self.outbox, key).await? else { return Ok(false) };
        let scope = TenantScope::authorised(key.tenant.clone());
        let webhook = self.webhook(key, &scope).await?;
        let Some(webhook) = webhook.filter(Webhook::is_active) else {
            outbox::delete_all(&self.outbox, key).await?;
            return Ok(false);
        };
        let attempt = next.attempts + 1;
        let seq = next.seq;
        let (id, delivery) = (&key.webhook, next.delivery);
        match self.attempt(&scope, &webhook, next, shutdown).await {
            Outcome::Delivered => {
                count("delivered");
                outbox::delete(&self.outbox, seq).await?;
            }
            Outcome::Retryable(reason, retry_after) if attempt < self.pace.max_attempts => {
                count("failed");
                tracing::debug!(webhook = %id, %delivery, reason, attempt, "delivery failed; retrying");
                outbox::count_attempt(&self.outbox, seq).await?;
                let delay = self.pace.backoff(attempt).max(retry_after.unwrap_or_default()).min(self.pace.max_backoff);
                sleep(delay, shutdown).await;
            }
            Outcome::Retryable(reason, _) | Outcome::Rejected(reason) => {
                count("given_up");
                tracing::warn!(webhook = %id, %delivery, reason, attempt, "delivery given up");
                outbox::delete(&self.outbox, seq).await?;
            }
            Outcome::Held(reason) => {
                count("held");
                tracing::error!(webhook = %id, %delivery, reason, "delivery held; retrying");
                sleep(self.pace.max_backoff, shutdown).await;
            }
            Outcome::Cancelled => {}
        }
        Ok(true)
    }

    async fn attempt(
        &self,
        scope: &TenantScope,
        webhook: &Webhook,
        next: QueuedDelivery,
        shutdown: &Shutdown,
    ) -> Outcome {
        let secret = match self.webhooks.open(scope, &webhook.webhook_id, &webhook.sealed_secret) {
            Ok(secret) => secret,
            // The receiver would not accept an unsigned request.
            Err(error) => return Outcome::Held(error.to_string()),
        };
        let delivery = Delivery { id: next.delivery, url: webhook.url.clone(), secret, body: next.body };
        let end_of_grace = async {
            shutdown.cancelled().await;
            tokio::time::sleep(SHUTDOWN_GRACE).await;
        };
        let reply = tokio::select! {
            reply = self.webhooks.send(&delivery) => reply,
            () = end_of_grace => return Outcome::Cancelled,
        };
        match reply {
            Ok(reply) if reply.status < 300 => Outcome::Delivered,
            Ok(reply) if reply.status == 429 || reply.status >= 500 => {
                Outcome::Retryable(format!("the receiver answered {}", reply.status), reply.retry_after)
            }
            Ok(reply) => Outcome::Rejected(format!("the receiver answered {}", reply.status)),
            Err(error) if error.retry() == Retry::Later => Outcome::Retryable(error.to_string(), None),
            Err(error) => Outcome::Rejected(error.to_string()),
        }
    }
}

/// Sleeps, but not beyond the shutdown.
async fn sleep(delay: Duration, shutdown: &Shutdown) {
    tokio::select! {
        () = tokio::time::sleep(delay) => {}
        () = shutdown.cancelled() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_its_maximum_with_jitter() {
        let pace = Pace::default();
        for (attempt, max_secs) in [(1, 1), (2, 2), (4, 8), (7, 60), (40, 60)] {
            let delays: HashSet<Duration> = (0..20).map(|_| pace.backoff(attempt)).collect();
            let bounds = Duration::from_secs(max_secs) / 2..=Duration::from_secs(max_secs);
            assert!(delays.len() > 10 && delays.iter().all(|delay| bounds.contains(delay)), "{attempt}: {delays:?}");
        }
    }
}
