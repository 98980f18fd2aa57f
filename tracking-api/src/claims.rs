//! Serialises the claims of unique names and numbers of each tenant within this process. The fold decides who gets a name;
//! the lock only avoids conflicts between requests of the same process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use carbon_core::TenantId;
use tokio::sync::OwnedMutexGuard;

type TenantLock = Arc<tokio::sync::Mutex<()>>;

/// One lock per tenant. Unused locks are removed.
#[derive(Default)]
pub struct Claims(Mutex<HashMap<TenantId, TenantLock>>);

impl Claims {
    /// Waits until no other request of this process makes a claim of the tenant. The claim ends when the guard is dropped.
    pub(crate) async fn lock(&self, tenant: &TenantId) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            locks.retain(|_, lock| Arc::strong_count(lock) > 1);
            locks.entry(tenant.clone()).or_default().clone()
        };
        lock.lock_owned().await
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn claims_of_one_tenant_wait_and_claims_of_others_do_not() {
        let (claims, own, other) =
            (Claims::default(), TenantId::parse("own").unwrap(), TenantId::parse("other").unwrap());
        let held = claims.lock(&own).await;
        drop(claims.lock(&other).await);
        let second = tokio::time::timeout(Duration::from_secs(1), claims.lock(&own)).await;
        assert!(second.is_err(), "two claims of one tenant must not overlap");
        drop(held);
        drop(claims.lock(&own).await);
        drop(claims.lock(&other).await);
        assert_eq!(claims.0.lock().unwrap().len(), 1);
    }
}
