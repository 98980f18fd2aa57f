//! The digest of a read model: two generations with the same rows have the same digest, in either store.

use carbon_store::{Namespace, Row, Snapshot, StoreError};
use sha2::{Digest as _, Sha256};

use crate::projection::Projection;

/// The SHA-256 over the canonical rows in key order, and the number of rows.
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

/// Computes the digest of a read model's rows. Nothing may write to them meanwhile.
pub async fn digest<P: Projection>(namespace: &Namespace) -> Result<Digest, StoreError> {
    let mut hash = Hash::default();
    for sql in P::canonical(namespace.dialect()) {
        namespace.each(carbon_store::query(sqlx::AssertSqlSafe(sql)), |row| hash.add(row)).await?;
    }
    Ok(hash.finish())
}

/// Computes the digest of a read model's rows as of a snapshot.
pub async fn digest_of<P: Projection>(snapshot: &mut Snapshot) -> Result<Digest, StoreError> {
    let mut hash = Hash::default();
    for sql in P::canonical(snapshot.dialect()) {
        snapshot.each(carbon_store::query(sqlx::AssertSqlSafe(sql)), |row| hash.add(row)).await?;
    }
    Ok(hash.finish())
}
