//! The rows in memory: cheap to copy, because copies share what is not touched afterwards.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use carbon_core::{EntityKey, EntityType, Positions, TenantId};
use roaring::RoaringBitmap;

use super::vectors::quantise;
use crate::types::Document;

/// Rows in one chunk, which is what a change copies.
const CHUNK: usize = 256;

pub(super) struct Row {
    pub document: Arc<Document>,
    /// Of length 1.
    pub vector: Box<[f32]>,
    /// Of the write that made it.
    pub sequence: u64,
    pub tokens: u32,
}

#[derive(Clone)]
pub(super) struct Chunk {
    rows: Vec<Option<Arc<Row>>>,
    /// The vectors as bytes, row after row, each with its scale.
    codes: Vec<i8>,
    scales: Vec<f32>,
    live: usize,
}

impl Chunk {
    fn new(dimension: usize) -> Self {
        Self { rows: vec![None; CHUNK], codes: vec![0; CHUNK * dimension], scales: vec![0.0; CHUNK], live: 0 }
    }

    /// The quantised vector of a row, and its scale.
    pub fn code(&self, number: u32, dimension: usize) -> (&[i8], f32) {
        let slot = number as usize % CHUNK;
        (&self.codes[slot * dimension..(slot + 1) * dimension], self.scales[slot])
    }
}

/// What a tenant has: its rows, and the statistics that its scores stand on.
#[derive(Clone, Default)]
pub(super) struct Tenant {
    pub rows: RoaringBitmap,
    pub types: BTreeMap<EntityType, RoaringBitmap>,
    pub tokens: u64,
}

impl Tenant {
    pub fn documents(&self) -> u64 {
        self.rows.len()
    }
}

/// All rows of a generation as of one sequence.
#[derive(Clone)]
pub(super) struct Data {
    pub dimension: usize,
    chunks: Vec<Option<Arc<Chunk>>>,
    pub tenants: HashMap<TenantId, Arc<Tenant>>,
    keys: Keys,
    /// The source positions that these rows have reached.
    pub sources: Positions,
    pub sequence: u64,
}

impl Data {
    pub fn new(dimension: usize) -> Self {
        Self {
            dimension,
            chunks: Vec::new(),
            tenants: HashMap::new(),
            keys: Keys::default(),
            sources: Positions::new(),
            sequence: 0,
        }
    }

    pub fn chunk_of(&self, number: u32) -> Option<&Arc<Chunk>> {
        self.chunks.get(number as usize / CHUNK)?.as_ref()
    }

    /// Which chunk a row lies in: rows of one chunk have the same.
    pub fn chunk_number(number: u32) -> usize {
        number as usize / CHUNK
    }

    pub fn row(&self, number: u32) -> Option<&Arc<Row>> {
        self.chunk_of(number)?.rows[number as usize % CHUNK].as_ref()
    }

    pub fn key(&self, number: u32) -> Option<&EntityKey> {
        self.row(number).map(|row| &row.document.key)
    }

    pub fn find(&self, key: &EntityKey) -> Option<u32> {
        self.keys.candidates(hash(key)).find(|number| self.key(*number) == Some(key))
    }

    pub fn numbers(&self) -> impl Iterator<Item = u32> {
        self.tenants.values().flat_map(|tenant| tenant.rows.iter())
    }

    pub fn put(&mut self, number: u32, row: Arc<Row>) {
        self.remove(number);
        let key = &row.document.key;
        let tenant = Arc::make_mut(self.tenants.entry(key.tenant.clone()).or_default());
        tenant.rows.insert(number);
        tenant.types.entry(key.entity_type.clone()).or_default().insert(number);
        tenant.tokens += u64::from(row.tokens);
        self.keys.insert(hash(key), number);

        let (at, slot) = (number as usize / CHUNK, number as usize % CHUNK);
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

    pub fn remove(&mut self, number: u32) {
        let Some(row) = self.row(number).cloned() else { return };
        let key = &row.document.key;
        if let Some(tenant) = self.tenants.get_mut(&key.tenant) {
            let tenant = Arc::make_mut(tenant);
            tenant.rows.remove(number);
            tenant.tokens -= u64::from(row.tokens);
            if let Some(of_type) = tenant.types.get_mut(&key.entity_type) {
                of_type.remove(number);
                if of_type.is_empty() {
                    tenant.types.remove(&key.entity_type);
                }
            }
            if tenant.rows.is_empty() {
                self.tenants.remove(&key.tenant);
            }
        }
        self.keys.remove(hash(key), number);
        let place = &mut self.chunks[number as usize / CHUNK];
        if let Some(chunk) = place {
            if chunk.live == 1 {
                *place = None;
                return;
            }
            let chunk = Arc::make_mut(chunk);
            chunk.rows[number as usize % CHUNK] = None;
            chunk.live -= 1;
        }
    }
}

/// From the hash of a key to row numbers; the row itself says whether it is the one.
#[derive(Clone)]
struct Keys(Vec<Arc<Vec<(u64, u32)>>>);

const SHARDS: usize = 512;

impl Default for Keys {
    fn default() -> Self {
        Self(vec![Arc::default(); SHARDS])
    }
}

fn hash(key: &EntityKey) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

impl Keys {
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
