//! The digest of a read model: the proof that two generations are the same.

use carbon_store::{Namespace, Row, Snapshot, StoreError};
use sha2::{Digest as _, Sha256};

use crate::projection::Projection;

/// SHA-256 over the canonical rows in key order, and how many there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    pub rows: u64,
    pub sha256: String,
}

#[derive(Default)]
struct Hash {
    sha256: Sha256,
    rows: u64,
}

impl Hash {
    fn add(&mut self, row: &Row) -> Result<(), StoreError> {
        let row = row.canonical()?;
        self.sha256.update((row.len() as u64).to_le_bytes());
        self.sha256.update(&row);
        self.rows += 1;
        Ok(())
    }

    fn finish(self) -> Digest {
        let sha256 = self.sha256.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Digest { rows: self.rows, sha256 }
    }
}

/// Computes the digest of a projection's rows, which nobody may change meanwhile.
pub async fn digest<P: Projection>(namespace: &Namespace) -> Result<Digest, StoreError> {
    let mut hash = Hash::default();
    for part in P::CANONICAL {
        namespace.each(carbon_store::query(*part), |row| hash.add(row)).await?;
    }
    Ok(hash.finish())
}

/// Computes the digest of a projection's rows at the moment of a snapshot.
pub async fn digest_of<P: Projection>(snapshot: &mut Snapshot) -> Result<Digest, StoreError> {
    let mut hash = Hash::default();
    for part in P::CANONICAL {
        snapshot.each(carbon_store::query(*part), |row| hash.add(row)).await?;
    }
    Ok(hash.finish())
}
