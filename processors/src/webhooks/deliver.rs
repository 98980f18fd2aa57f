//! Works off what is to be told: one task for each webhook that has something waiting, so that one that does not answer
//! holds up nobody else. A webhook is told in order, and one thing at a time.

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
use super::outbox::{self, Queued, Target};

/// How often and how fast a delivery is tried again.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    pub attempts: u32,
    /// Before the second attempt; doubled before each that follows.
    pub first_wait: Duration,
    pub longest_wait: Duration,
}

impl Default for Pace {
    /// About two minutes in all.
    fn default() -> Self {
        Self { attempts: 8, first_wait: Duration::from_secs(1), longest_wait: Duration::from_secs(60) }
    }
}

impl Pace {
    /// Half of it by chance, so that those who failed together do not come back together.
    fn wait(&self, attempt: u32) -> Duration {
        let doubled = self.first_wait.saturating_mul(1 << attempt.saturating_sub(1).min(16)).min(self.longest_wait);
        let chance = (Uuid::new_v4().as_u128() as u16) as f64 / f64::from(u16::MAX);
        doubled.mul_f64(0.5 + chance / 2.0)
    }
}

/// How long a request under way may still take at a shutdown; what is cut off is sent again with the same id.
const LAST_MOMENT: Duration = Duration::from_secs(2);
/// After a fault of our own.
const AGAIN: Duration = Duration::from_secs(1);
const REGISTRY: Duration = Duration::from_secs(10);
/// What a missed wake-up costs at the most.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

pub(super) fn count(outcome: &'static str) {
    metrics::counter!("webhook_deliveries_total", "outcome" => outcome).increment(1);
}

/// What became of an attempt.
enum Outcome {
    Delivered,
    /// Another attempt may succeed.
    Later(String, Option<Duration>),
    /// None will.
    Never(String),
    /// None may be made: it waits for whoever runs this.
    Held(String),
    /// The shutdown came first.
    CutOff,
}

/// The deliveries of this process.
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

    /// Delivers until the shutdown.
    pub async fn run(&self, shutdown: Shutdown) {
        // A registry that is being rebuilt knows no webhook yet, and would have what waits forgotten.
        let mut there = false;
        while !there {
            there = tokio::select! {
                there = self.worker.registry_is_there() => there,
                () = shutdown.cancelled() => return,
            };
        }
        let mut running = JoinSet::new();
        let mut busy: HashSet<Target> = HashSet::new();
        while !shutdown.is_cancelled() {
            match outbox::targets(&self.worker.outbox).await {
                Ok(targets) => {
                    for target in targets {
                        if busy.insert(target.clone()) {
                            let (worker, shutdown) = (self.worker.clone(), shutdown.clone());
                            running.spawn(async move {
                                worker.tell(&target, &shutdown).await;
                                target
                            });
                        }
                    }
                }
                Err(error) => tracing::error!(%error, "deliveries cannot be read; trying again"),
            }
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = self.wake.notified() => {}
                () = tokio::time::sleep(LOOK_AGAIN) => {}
                Some(ended) = running.join_next() => match ended {
                    Ok(target) => drop(busy.remove(&target)),
                    // Whose it was is not known: whoever still has something waiting begins again.
                    Err(error) => {
                        tracing::error!(%error, "a delivery ended badly");
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
    /// Whether the registry has folded what the log held of webhooks when it was asked.
    async fn registry_is_there(&self) -> bool {
        let Ok(registry) = self.parts.registry.get() else {
            tokio::time::sleep(AGAIN).await;
            return false;
        };
        match self.parts.ends(&registry, &[WebhookChanged::NAME]).await {
            Ok(ends) => registry.view.reached(&ends, REGISTRY).await,
            Err(error) => {
                tracing::warn!(%error, "end offsets unavailable; retrying");
                tokio::time::sleep(AGAIN).await;
                false
            }
        }
    }

    /// The webhook that a delivery is for; `None` where it is deleted. A registry that is being filled knows no webhook yet,
    /// and would have the delivery dropped: it is waited for.
    async fn webhook(&self, target: &Target, scope: &TenantScope) -> Result<Option<Webhook>, ProcessorError> {
        let registry = self.parts.registry.get().map_err(|error| ProcessorError::of(&error))?;
        let known = webhook(&registry.namespace, scope, &target.webhook).await?;
        // A reset empties the rows and marks them as unfilled in one transaction.
        if known.is_none() && !(self.parts.registry.is_current(&registry) && registry.namespace.is_filled().await?) {
            return Err(ProcessorError::unavailable("the registry is being filled"));
        }
        Ok(known)
    }

    /// Tells one webhook all that waits for it.
    async fn tell(&self, target: &Target, shutdown: &Shutdown) {
        while !shutdown.is_cancelled() {
            match self.tell_next(target, shutdown).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    tracing::warn!(%error, webhook = %target.webhook, "delivery postponed; retrying");
                    sleep(AGAIN, shutdown).await;
                }
            }
        }
    }

    /// Makes one attempt at the next; false when nothing waits any more.
    async fn tell_next(&self, target: &Target, shutdown: &Shutdown) -> Result<bool, ProcessorError> {
        let Some(next) = outbox::next(&self.outbox, target).await? else { return Ok(false) };
        let scope = TenantScope::authorised(target.tenant.clone());
        let known = self.webhook(target, &scope).await?;
        let Some(known) = known.filter(Webhook::is_active) else {
            outbox::forget(&self.outbox, target).await?;
            return Ok(false);
        };
        let attempt = next.attempts + 1;
        let seq = next.seq;
        let (webhook, delivery) = (&target.webhook, next.delivery);
        match self.attempt(&scope, &known, next, shutdown).await {
            Outcome::Delivered => {
                count("delivered");
                outbox::done(&self.outbox, seq).await?;
            }
            Outcome::Later(why, asked) if attempt < self.pace.attempts => {
                count("failed");
                tracing::debug!(%webhook, %delivery, why, attempt, "delivery failed");
                outbox::tried(&self.outbox, seq).await?;
                let wait = self.pace.wait(attempt).max(asked.unwrap_or_default()).min(self.pace.longest_wait);
                sleep(wait, shutdown).await;
            }
            Outcome::Later(why, _) | Outcome::Never(why) => {
                count("given_up");
                tracing::warn!(%webhook, %delivery, why, attempt, "delivery given up");
                outbox::done(&self.outbox, seq).await?;
            }
            Outcome::Held(why) => {
                count("held");
                tracing::error!(%webhook, %delivery, why, "delivery held");
                sleep(self.pace.longest_wait, shutdown).await;
            }
            Outcome::CutOff => {}
        }
        Ok(true)
    }

    async fn attempt(&self, scope: &TenantScope, known: &Webhook, next: Queued, shutdown: &Shutdown) -> Outcome {
        let secret = match self.webhooks.open(scope, &known.webhook_id, &known.sealed_secret) {
            Ok(secret) => secret,
            // Unsigned it would be worth nothing.
            Err(error) => return Outcome::Held(error.to_string()),
        };
        let delivery = Delivery { id: next.delivery, url: known.url.clone(), secret, body: next.body };
        let last_moment = async {
            shutdown.cancelled().await;
            tokio::time::sleep(LAST_MOMENT).await;
        };
        let reply = tokio::select! {
            reply = self.webhooks.send(&delivery) => reply,
            () = last_moment => return Outcome::CutOff,
        };
        match reply {
            Ok(reply) if reply.status < 300 => Outcome::Delivered,
            Ok(reply) if reply.status == 429 || reply.status >= 500 => {
                Outcome::Later(format!("answered {}", reply.status), reply.retry_after)
            }
            Ok(reply) => Outcome::Never(format!("answered {}", reply.status)),
            Err(error) if error.retry() == Retry::Later => Outcome::Later(error.to_string(), None),
            Err(error) => Outcome::Never(error.to_string()),
        }
    }
}

async fn sleep(wait: Duration, shutdown: &Shutdown) {
    tokio::select! {
        () = tokio::time::sleep(wait) => {}
        () = shutdown.cancelled() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_differ() {
        let pace = Pace::default();
        for (attempt, most) in [(1, 1), (2, 2), (4, 8), (7, 60), (40, 60)] {
            let waits: HashSet<Duration> = (0..20).map(|_| pace.wait(attempt)).collect();
            let bounds = Duration::from_secs(most) / 2..=Duration::from_secs(most);
            assert!(waits.len() > 10 && waits.iter().all(|wait| bounds.contains(wait)), "{attempt}: {waits:?}");
        }
    }
}
