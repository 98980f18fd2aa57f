//! The digest of a read model: the proof that two generations are the same.

use carbon_store::{Namespace, Row, StoreError};
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
    for part in P::CANONICAL {
        let canonical = |row: &Row| {
            let row = row.canonical()?;
            hash.update((row.len() as u64).to_le_bytes());
            hash.update(&row);
            count += 1;
            Ok(())
        };
        namespace.each(carbon_store::query(*part), canonical).await?;
    }
    let sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Digest { rows: count, sha256 })
}
