//! The rows of a generation in memory. A clone is cheap: it shares all chunks until one of them is changed
//! (copy-on-write).

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use carbon_core::{EntityKey, EntityType, Positions, TenantId};
use roaring::RoaringBitmap;

use super::vectors::quantise;
use crate::types::Document;

/// Number of rows of a chunk. A change to a row copies its chunk if a clone of the table shares it.
const CHUNK_ROWS: usize = 256;

/// A row in memory.
pub(super) struct Row {
    pub document: Arc<Document>,
    /// The vector, normalised to unit length.
    pub vector: Box<[f32]>,
    /// Sequence of the transaction that wrote the row.
    pub sequence: u64,
    /// Number of terms: the document's length for BM25.
    pub tokens: u32,
}

/// [`CHUNK_ROWS`] consecutive row numbers.
#[derive(Clone)]
pub(super) struct Chunk {
    rows: Vec<Option<Arc<Row>>>,
    /// The quantised vectors, `CHUNK_ROWS * dimension` codes, row after row.
    codes: Vec<i8>,
    /// The scale of each row's codes: component = code * scale.
    scales: Vec<f32>,
    /// Number of rows that are not `None`.
    live: usize,
}

impl Chunk {
    fn new(dimension: usize) -> Self {
        Self {
            rows: vec![None; CHUNK_ROWS],
            codes: vec![0; CHUNK_ROWS * dimension],
            scales: vec![0.0; CHUNK_ROWS],
            live: 0,
        }
    }

    /// The quantised vector of a row (`dimension` codes) and its scale.
    pub fn code(&self, number: u32, dimension: usize) -> (&[i8], f32) {
        let slot = number as usize % CHUNK_ROWS;
        (&self.codes[slot * dimension..(slot + 1) * dimension], self.scales[slot])
    }
}

/// The rows of a tenant, and the statistics for its BM25 scores.
#[derive(Clone, Default)]
pub(super) struct TenantRows {
    /// Row numbers.
    pub rows: RoaringBitmap,
    /// Row numbers by entity type.
    pub types: BTreeMap<EntityType, RoaringBitmap>,
    /// Total number of terms of the tenant's documents.
    pub tokens: u64,
}

impl TenantRows {
    /// The number of documents.
    pub fn documents(&self) -> u64 {
        self.rows.len()
    }
}

/// All rows of a generation at one sequence, by row number.
#[derive(Clone)]
pub(super) struct RowTable {
    /// Number of components of every vector.
    pub dimension: usize,
    /// Chunk `n` has the rows from `n * CHUNK_ROWS`; `None` if all its rows are deleted.
    chunks: Vec<Option<Arc<Chunk>>>,
    pub tenants: HashMap<TenantId, Arc<TenantRows>>,
    keys: KeyIndex,
    /// The source positions of the applied ops.
    pub sources: Positions,
    /// Sequence of the last transaction that changed a row.
    pub sequence: u64,
}

impl RowTable {
    /// An empty table.
    pub fn new(dimension: usize) -> Self {
        Self {
            dimension,
            chunks: Vec::new(),
            tenants: HashMap::new(),
            keys: KeyIndex::default(),
            sources: Positions::new(),
            sequence: 0,
        }
    }

    /// The chunk of a row.
    pub fn chunk_of(&self, number: u32) -> Option<&Arc<Chunk>> {
        self.chunks.get(number as usize / CHUNK_ROWS)?.as_ref()
    }

    /// The number of a row's chunk.
    pub fn chunk_number(number: u32) -> usize {
        number as usize / CHUNK_ROWS
    }

    /// The row with a number.
    pub fn row(&self, number: u32) -> Option<&Arc<Row>> {
        self.chunk_of(number)?.rows[number as usize % CHUNK_ROWS].as_ref()
    }

    /// The key of the row with a number.
    pub fn key(&self, number: u32) -> Option<&EntityKey> {
        self.row(number).map(|row| &row.document.key)
    }

    /// The row number of an entity.
    pub fn find(&self, key: &EntityKey) -> Option<u32> {
        self.keys.candidates(hash(key)).find(|number| self.key(*number) == Some(key))
    }

    /// All row numbers, not sorted.
    pub fn numbers(&self) -> impl Iterator<Item = u32> {
        self.tenants.values().flat_map(|tenant| tenant.rows.iter())
    }

    /// Inserts or replaces a row.
    pub fn put(&mut self, number: u32, row: Arc<Row>) {
        self.remove(number);
        let key = &row.document.key;
        let tenant = Arc::make_mut(self.tenants.entry(key.tenant.clone()).or_default());
        tenant.rows.insert(number);
        tenant.types.entry(key.entity_type.clone()).or_default().insert(number);
        tenant.tokens += u64::from(row.tokens);
        self.keys.insert(hash(key), number);

        let (at, slot) = (number as usize / CHUNK_ROWS, number as usize % CHUNK_ROWS);
        if self.chunks.len() <= at {
            self.chunks.resize(at + 1, None);
        }
        let chunk = self.chunks[at].get_or_insert_with(|| Arc::new(Chunk::new(self.dimension)));
        let chunk = Arc::make_mut(chunk);
        let codes = &mut chunk.codes[slot * self.dimension..(slot + 1) * self.dimension];
        chunk.scales[slot] = quantise(&row.vector, codes);
        chunk.rows[slot] = Some(row);
        chunk.live += 1;
    }

    /// Deletes a row, if there is one.
    pub fn remove(&mut self, number: u32) {
        let Some(row) = self.row(number).cloned() else { return };
        let key = &row.document.key;
        if let Some(tenant) = self.tenants.get_mut(&key.tenant) {
            let tenant = Arc::make_mut(tenant);
            tenant.rows.remove(number);
            tenant.tokens -= u64::from(row.tokens);
            if let Some(type_rows) = tenant.types.get_mut(&key.entity_type) {
                type_rows.remove(number);
                if type_rows.is_empty() {
                    tenant.types.remove(&key.entity_type);
                }
            }
            if tenant.rows.is_empty() {
                self.tenants.remove(&key.tenant);
            }
        }
        self.keys.remove(hash(key), number);
        let entry = &mut self.chunks[number as usize / CHUNK_ROWS];
        if let Some(chunk) = entry {
            if chunk.live == 1 {
                *entry = None;
                return;
            }
            let chunk = Arc::make_mut(chunk);
            chunk.rows[number as usize % CHUNK_ROWS] = None;
            chunk.live -= 1;
        }
    }
}

/// Maps the hash of an entity key to row numbers: sorted pairs (hash, row number) in [`SHARDS`] copy-on-write shards.
/// Hashes can collide, so the caller compares the key of the row.
#[derive(Clone)]
struct KeyIndex(Vec<Arc<Vec<(u64, u32)>>>);

/// Number of shards. An insert copies one shard if a clone shares it.
const SHARDS: usize = 512;

impl Default for KeyIndex {
    fn default() -> Self {
        Self(vec![Arc::default(); SHARDS])
    }
}

fn hash(key: &EntityKey) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

impl KeyIndex {
    fn candidates(&self, hash: u64) -> impl Iterator<Item = u32> {
        let shard = &self.0[hash as usize % SHARDS];
        let from = shard.partition_point(|(h, _)| *h < hash);
        shard[from..].iter().take_while(move |(h, _)| *h == hash).map(|(_, number)| *number)
    }

    fn insert(&mut self, hash: u64, number: u32) {
        let shard = Arc::make_mut(&mut self.0[hash as usize % SHARDS]);
        if let Err(at) = shard.binary_search(&(hash, number)) {
            shard.insert(at, (hash, number));
        }
    }

    fn remove(&mut self, hash: u64, number: u32) {
        let shard = Arc::make_mut(&mut self.0[hash as usize % SHARDS]);
        if let Ok(at) = shard.binary_search(&(hash, number)) {
            shard.remove(at);
        }
    }
}
