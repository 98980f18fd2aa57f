//! The digest of a read model: the proof that two generations are the same.

use carbon_store::{Namespace, StoreError};
use futures::TryStreamExt as _;
use sha2::{Digest as _, Sha256};

use crate::projection::Projection;

/// SHA-256 over the canonical rows in key order, and how many there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    pub rows: u64,
    pub sha256: String,
}

/// Computes the digest of a projection's rows.
pub async fn digest<P: Projection>(namespace: &Namespace) -> Result<Digest, StoreError> {
    let mut hash = Sha256::new();
    let mut count = 0;
    let mut rows = sqlx::query_scalar::<_, String>(P::CANONICAL).fetch(namespace.readers());
    while let Some(row) = rows.try_next().await? {
        hash.update((row.len() as u64).to_le_bytes());
        hash.update(&row);
        count += 1;
    }
    let sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Digest { rows: count, sha256 })
}
