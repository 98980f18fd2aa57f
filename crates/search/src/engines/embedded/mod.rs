//! The embedded engine. Each generation is a SQLite file of rows (`rows.db`, the source of truth of the generation) and
//! a tantivy directory derived from them. Vectors are scanned in memory: all rows by int8 codes, the best of them by
//! f32.

mod bm25;
mod committer;
mod directory;
mod generation;
mod lexical;
mod load;
mod query;
mod repair;
mod row_table;
mod schema;
mod tokenizer;
mod top_k;
mod vectors;
mod view;
mod write;
mod write_set;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use carbon_core::{EntityKey, GenerationId, Positions, TenantScope};
use carbon_store::Checkpoint;
use tokio::time::Instant;

use self::generation::{Generation, blocking};
use self::row_table::{Row, TenantRows};
use self::view::View;
use crate::error::IndexError;
use crate::index::{Applied, Candidates, GenerationSpec, HybridIndex, Retrieval, Stats, StoredRow};
use crate::types::{Document, IndexOp};

/// The embedded index: one folder per generation under one root folder.
pub struct EmbeddedIndex {
    root: PathBuf,
    open: RwLock<HashMap<GenerationId, Arc<Generation>>>,
    /// Held while a generation is opened, closed or removed.
    changing: tokio::sync::Mutex<()>,
}

impl EmbeddedIndex {
    /// An index without open generations. [`HybridIndex::create`] opens them.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), open: RwLock::default(), changing: tokio::sync::Mutex::default() }
    }

    /// Descriptions of the repairs made when the generation was opened; empty if none was necessary.
    pub fn repairs(&self, generation: &GenerationId) -> Result<Vec<String>, IndexError> {
        Ok(self.generation(generation)?.repairs.clone())
    }

    /// Fails if the generation's `rows.db` is not the file that was opened: it was deleted or replaced.
    pub fn check(&self, generation: &GenerationId) -> Result<(), IndexError> {
        Ok(self.generation(generation)?.space.check()?)
    }

    /// Commits the pending changes of one generation and closes its files.
    pub async fn close_generation(&self, generation: &GenerationId) -> Result<(), IndexError> {
        let _changing = self.changing.lock().await;
        let closed = self.open.write().unwrap_or_else(PoisonError::into_inner).remove(generation);
        match closed {
            Some(generation) => generation.close().await,
            None => Ok(()),
        }
    }

    /// Commits the pending changes of all generations and closes their files.
    pub async fn close(&self) -> Result<(), IndexError> {
        let _changing = self.changing.lock().await;
        let open = std::mem::take(&mut *self.open.write().unwrap_or_else(PoisonError::into_inner));
        for generation in open.into_values() {
            generation.close().await?;
        }
        Ok(())
    }

    fn folder(&self, id: &GenerationId) -> PathBuf {
        self.root.join(id.as_str())
    }

    fn generation(&self, id: &GenerationId) -> Result<Arc<Generation>, IndexError> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.get(id).cloned().ok_or_else(|| IndexError::UnknownGeneration(id.clone()))
    }

    fn view(&self, id: &GenerationId) -> Result<Arc<View>, IndexError> {
        Ok(self.generation(id)?.shared.view.load_full())
    }

    fn row(&self, id: &GenerationId, scope: &TenantScope, key: &EntityKey) -> Result<Option<Arc<Row>>, IndexError> {
        let view = self.view(id)?;
        if key.tenant != *scope.tenant() {
            return Ok(None);
        }
        Ok(view.table.find(key).and_then(|number| view.table.row(number)).cloned())
    }

    fn insert(&self, generation: Generation) {
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        open.insert(generation.spec.id.clone(), Arc::new(generation));
    }

    /// Closes a generation if it is open, and deletes its folder.
    async fn remove(&self, id: &GenerationId) -> Result<(), IndexError> {
        let closed = self.open.write().unwrap_or_else(PoisonError::into_inner).remove(id);
        if let Some(generation) = closed {
            generation.close().await?;
        }
        let folder = self.folder(id);
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(IndexError::Io { path: folder.display().to_string(), source: error })
            }
            _ => Ok(()),
        }
    }
}

/// The generations with an index folder under `root`. Other read models also have folders there.
fn index_folders(root: &Path) -> Vec<GenerationId> {
    let Ok(entries) = std::fs::read_dir(root) else { return Vec::new() };
    let is_index = |path: &Path| path.join("rows.db").exists() && path.join("tantivy").exists();
    let names = entries.flatten().filter(|entry| is_index(&entry.path()));
    names.filter_map(|entry| GenerationId::parse(&entry.file_name().to_string_lossy()).ok()).collect()
}

fn add_counts(stats: &mut Stats, tenant: &TenantRows) {
    stats.total += tenant.documents();
    for (name, rows) in &tenant.types {
        *stats.by_entity_type.entry(name.clone()).or_default() += rows.len();
    }
}

#[async_trait]
impl HybridIndex for EmbeddedIndex {
    async fn create(&self, spec: &GenerationSpec) -> Result<(), IndexError> {
        let _changing = self.changing.lock().await;
        match self.generation(&spec.id) {
            Ok(open) if open.spec == *spec => Ok(()),
            Ok(open) => Err(IndexError::Spec {
                id: spec.id.clone(),
                found: format!("{}/{}", open.spec.model, open.spec.dimension),
                expected: format!("{}/{}", spec.model, spec.dimension),
            }),
            Err(_) => {
                self.insert(Generation::open(&self.folder(&spec.id), spec).await?);
                Ok(())
            }
        }
    }

    async fn list(&self) -> Result<Vec<GenerationId>, IndexError> {
        let mut ids = index_folders(&self.root);
        ids.extend(self.open.read().unwrap_or_else(PoisonError::into_inner).keys().cloned());
        ids.sort();
        ids.dedup();
        Ok(ids)
    }

    async fn checkpoint(&self, generation: &GenerationId) -> Result<Checkpoint, IndexError> {
        Ok(self.generation(generation)?.space.checkpoint().await?)
    }

    async fn apply(
        &self,
        generation: &GenerationId,
        log: &str,
        ops: Vec<IndexOp>,
        from: &Positions,
        upto: &Positions,
    ) -> Result<Applied, IndexError> {
        let generation = self.generation(generation)?;
        let (log, from, upto) = (log.to_owned(), from.clone(), upto.clone());
        // In its own task: if the caller is cancelled, the batch still completes.
        let applied = tokio::spawn(async move { generation.apply(&log, ops, &from, &upto).await });
        applied.await.map_err(|error| IndexError::Thread(error.to_string()))?
    }

    async fn query(
        &self,
        generation: &GenerationId,
        scope: &TenantScope,
        retrieval: &Retrieval,
    ) -> Result<Candidates, IndexError> {
        let view = self.view(generation)?;
        let (tenant, retrieval) = (scope.tenant().clone(), retrieval.clone());
        blocking(move || query::run(&view, &tenant, &retrieval)).await?
    }

    async fn get(
        &self,
        generation: &GenerationId,
        scope: &TenantScope,
        key: &EntityKey,
    ) -> Result<Option<Arc<Document>>, IndexError> {
        Ok(self.row(generation, scope, key)?.map(|row| Arc::clone(&row.document)))
    }

    async fn vector(
        &self,
        generation: &GenerationId,
        scope: &TenantScope,
        key: &EntityKey,
    ) -> Result<Option<Vec<f32>>, IndexError> {
        Ok(self.row(generation, scope, key)?.map(|row| row.vector.to_vec()))
    }

    async fn stats(&self, generation: &GenerationId, scope: Option<&TenantScope>) -> Result<Stats, IndexError> {
        let view = self.view(generation)?;
        let mut stats = Stats::default();
        match scope {
            Some(scope) => {
                if let Some(tenant) = view.table.tenants.get(scope.tenant()) {
                    add_counts(&mut stats, tenant);
                }
            }
            None => {
                for (id, tenant) in &view.table.tenants {
                    add_counts(&mut stats, tenant);
                    stats.by_tenant.insert(id.clone(), tenant.documents());
                }
            }
        }
        Ok(stats)
    }

    async fn scroll(
        &self,
        generation: &GenerationId,
        after: Option<&EntityKey>,
        limit: usize,
    ) -> Result<Vec<StoredRow>, IndexError> {
        load::scroll(&self.generation(generation)?.space, after, limit).await
    }

    async fn view_positions(&self, generation: &GenerationId) -> Result<Positions, IndexError> {
        Ok(self.view(generation)?.table.sources.clone())
    }

    async fn source_positions(&self, generation: &GenerationId) -> Result<Positions, IndexError> {
        Ok(self.generation(generation)?.shared.state().table.sources.clone())
    }

    async fn reached(
        &self,
        generation: &GenerationId,
        sources: &Positions,
        deadline: Instant,
    ) -> Result<bool, IndexError> {
        let generation = self.generation(generation)?;
        let mut watched = generation.shared.reached.subscribe();
        let reached = watched.wait_for(|seen| seen.covers(sources));
        Ok(matches!(tokio::time::timeout_at(deadline, reached).await, Ok(Ok(_))))
    }

    async fn is_filled(&self, generation: &GenerationId) -> Result<bool, IndexError> {
        Ok(self.generation(generation)?.space.is_filled().await?)
    }

    async fn set_filled(&self, generation: &GenerationId) -> Result<(), IndexError> {
        Ok(self.generation(generation)?.space.set_filled().await?)
    }

    async fn reset(&self, generation: &GenerationId) -> Result<(), IndexError> {
        let _changing = self.changing.lock().await;
        let spec = self.generation(generation)?.spec.clone();
        self.remove(generation).await?;
        self.insert(Generation::open(&self.folder(generation), &spec).await?);
        Ok(())
    }

    async fn drop_generation(&self, generation: &GenerationId) -> Result<(), IndexError> {
        let _changing = self.changing.lock().await;
        self.remove(generation).await
    }
}
