//! Claims of unique names and numbers, one at a time for each tenant. The fold decides in any case; the queue keeps the
//! claims of one process from losing against each other.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use carbon_core::TenantId;
use tokio::sync::OwnedMutexGuard;

type Queue = Arc<tokio::sync::Mutex<()>>;

/// The queues, by tenant; those that nobody waits in are dropped.
#[derive(Default)]
pub struct Claims(Mutex<HashMap<TenantId, Queue>>);

impl Claims {
    /// Waits for the tenant's other claims of this process.
    pub(crate) async fn enter(&self, tenant: &TenantId) -> OwnedMutexGuard<()> {
        let queue = {
            let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            queues.retain(|_, queue| Arc::strong_count(queue) > 1);
            queues.entry(tenant.clone()).or_default().clone()
        };
        queue.lock_owned().await
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_tenant_waits_for_itself_alone() {
        let (claims, own, other) =
            (Claims::default(), TenantId::parse("own").unwrap(), TenantId::parse("other").unwrap());
        let held = claims.enter(&own).await;
        drop(claims.enter(&other).await);
        let second = tokio::time::timeout(Duration::from_secs(1), claims.enter(&own)).await;
        assert!(second.is_err(), "two claims of one tenant at once");
        drop(held);
        drop(claims.enter(&own).await);
        drop(claims.enter(&other).await);
        assert_eq!(claims.0.lock().unwrap().len(), 1);
    }
}
