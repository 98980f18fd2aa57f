//! A test rig: all processors over an embedded log in a temporary folder, with an encoder that counts its texts.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use carbon_core::{
    EntityKey, GenerationId, ModelRef, Partitioner, Position, Precision, TenantId, Timestamp, TopicName,
};
use carbon_inference::{Embedding, Encoder, InferenceError};
use carbon_log::{CompactionReport, DataFolder, EmbeddedLog, EventLog, Group, NewRecord, Record, Value};
use carbon_processors::{Embedder, Indexer, ProjectionSink};
use carbon_read_models::catalog::Catalog;
use carbon_read_models::deadletters::DeadLetters;
use carbon_read_models::{Digest, Projection, digest};
use carbon_runtime::Shutdown;
use carbon_runtime::consume::{Options, ProcessorHandle, ProcessorView, Sink, Stage, spawn_sink, spawn_stage};
use carbon_schemas::Event;
use carbon_schemas::events::{EmbeddingGenerated, EntityChanged};
use carbon_search::{EmbeddedIndex, GenerationSpec, HybridIndex, StoredRow};
use carbon_store::{Namespace, Site, testing};
use carbon_topology::Topology;
use uuid::Uuid;

pub const DIMENSION: usize = 16;
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A deterministic encoder that counts its texts. It rejects texts that contain "not embeddable".
pub struct CountingEncoder {
    model: ModelRef,
    pub texts: AtomicUsize,
    /// True to fail every call, as an encoder with bad weights does.
    pub failing: AtomicBool,
}

impl CountingEncoder {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { model: model(), texts: AtomicUsize::new(0), failing: AtomicBool::new(false) })
    }
}

pub fn model() -> ModelRef {
    ModelRef::new("counting", "1", Precision::F32).unwrap()
}

#[async_trait::async_trait]
impl Encoder for CountingEncoder {
    fn model(&self) -> &ModelRef {
        &self.model
    }

    fn dimension(&self) -> usize {
        DIMENSION
    }

    async fn encode(&self, texts: &[String]) -> Result<Vec<Embedding>, InferenceError> {
        self.texts.fetch_add(texts.len(), Ordering::SeqCst);
        if self.failing.load(Ordering::SeqCst) {
            return Err(InferenceError::Broken("bad weights".into()));
        }
        if let Some(index) = texts.iter().position(|text| text.contains("not embeddable")) {
            return Err(InferenceError::NotEmbeddable { index, reason: "the text contains its rejection" });
        }
        Ok(texts
            .iter()
            .map(|text| {
                let mut vector = vec![0.1_f32; DIMENSION];
                for byte in text.bytes() {
                    vector[byte as usize % DIMENSION] += 1.0;
                }
                let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
                vector.iter_mut().for_each(|x| *x /= length);
                Embedding { vector, tokens: 1, truncated: false }
            })
            .collect())
    }
}

pub fn topology() -> Topology {
    Topology::builtin().unwrap()
}

pub fn topic(name: &str) -> TopicName {
    TopicName::parse(name).unwrap()
}

/// An entity of type `instrument`. An empty text makes a deletion.
pub fn entity(tenant: &str, id: &str, text: &str) -> EntityChanged {
    EntityChanged {
        event_id: Uuid::now_v7(),
        occurred_at: Timestamp(1_700_000_000_000),
        tenant_id: TenantId::parse(tenant).unwrap(),
        entity_type: "instrument".into(),
        entity_id: id.into(),
        text: text.into(),
        metadata: [("name".to_owned(), carbon_core::MetadataValue::String(id.to_owned()))].into(),
        tags: vec!["test".into()],
        deleted: text.is_empty(),
    }
}

pub fn key(tenant: &str, id: &str) -> EntityKey {
    EntityKey::parse(tenant, "instrument", id).unwrap()
}

/// A record with an arbitrary key and value, in the partition of its key.
pub fn raw<E: Event>(key: &str, value: Option<Vec<u8>>) -> NewRecord {
    let spec = topology().topics[E::NAME].spec.clone();
    let partition_key = E::parse_key(key).map_or_else(|_| key.to_owned(), |key| E::partition_key(&key));
    let partition = Partitioner::Murmur2.partition(partition_key.as_bytes(), spec.partitions);
    NewRecord {
        topic: spec.name,
        key: Some(key.as_bytes().to_vec()),
        placement: carbon_log::Placement::Partition(partition),
        value: value.map_or(Value::Null, Value::Raw),
        headers: Vec::new(),
    }
}

/// Everything that is derived from the log, to compare before and after a rebuild.
#[derive(Clone, Debug, PartialEq)]
pub struct Derived {
    /// The rows of the index, in key order.
    pub index: Vec<StoredRow>,
    pub catalog: Digest,
    pub deadletters: Digest,
}

/// The running processors and their stores.
pub struct Rig {
    pub folder: Arc<tempfile::TempDir>,
    pub log: Arc<EmbeddedLog>,
    pub index: Arc<EmbeddedIndex>,
    pub encoder: Arc<CountingEncoder>,
    pub catalog: Namespace,
    pub deadletters: Namespace,
    pub handles: Vec<ProcessorHandle>,
    pub shutdown: Shutdown,
    data: DataFolder,
}

pub fn generation(name: &str) -> GenerationId {
    GenerationId::parse(name).unwrap()
}

pub fn search_generation() -> GenerationId {
    GenerationId::derive("search", 1, Some(&model()), 1).unwrap()
}

pub fn options(name: &str, group: &str, log: Arc<dyn EventLog>, shutdown: &Shutdown) -> Options {
    let topology = topology();
    let processor = &topology.processors[name];
    let topics = processor.consumes.iter().map(|topic| topology.topics[topic.as_str()].clone()).collect();
    Options::new(name, Group::new(name, group), topics, processor.batch, log, shutdown.clone())
}

/// Opens a projection in a folder, or in a Postgres schema named after the folder if `CARBON_TEST_POSTGRES` is set.
pub async fn open<P: Projection>(projection: P, folder: PathBuf) -> ProjectionSink<P> {
    match testing::site(&folder).await {
        Site::File(folder) => ProjectionSink::open(projection, folder).await.unwrap(),
        schema => ProjectionSink::at(projection, &schema).await.unwrap(),
    }
}

impl Rig {
    pub async fn new() -> Self {
        Self::open(Arc::new(tempfile::tempdir().unwrap()), CountingEncoder::new()).await
    }

    pub async fn open(folder: Arc<tempfile::TempDir>, encoder: Arc<CountingEncoder>) -> Self {
        let data = DataFolder::open(folder.path()).unwrap();
        let log = Arc::new(EmbeddedLog::open(&data).await.unwrap());
        log.ensure_topics(&topology().specs()).await.unwrap();
        let index = Arc::new(EmbeddedIndex::new(data.read_models()));
        let spec = GenerationSpec { id: search_generation(), model: model(), dimension: DIMENSION };
        index.create(&spec).await.unwrap();
        let shutdown = Shutdown::new();
        let catalog = open(Catalog, data.read_models().join("catalog-v1-1")).await;
        let letters = open(DeadLetters, data.read_models().join("deadletters-v1-1")).await;
        let (catalog_rows, letter_rows) = (catalog.namespace().clone(), letters.namespace().clone());
        let mut rig = Self {
            folder,
            log,
            index: index.clone(),
            encoder: encoder.clone(),
            catalog: catalog_rows,
            deadletters: letter_rows,
            handles: Vec::new(),
            shutdown,
            data,
        };
        rig.sink("catalog", catalog);
        rig.stage("embedder", Embedder::new(encoder, Group::new("embedder", model())));
        rig.sink("indexer", Indexer::new(index, spec));
        rig.sink("deadletters", letters);
        rig
    }

    pub fn sink<S: Sink>(&mut self, name: &str, sink: S) {
        let group = if name == "indexer" { search_generation().to_string() } else { format!("{name}-v1-1") };
        self.handles.push(spawn_sink(sink, options(name, &group, self.log.clone(), &self.shutdown)));
    }

    pub fn stage<S: Stage>(&mut self, name: &str, stage: S) {
        self.handles.push(spawn_stage(stage, options(name, &model().to_string(), self.log.clone(), &self.shutdown)));
    }

    pub async fn append(&self, records: Vec<NewRecord>) -> Vec<Position> {
        self.log.append(records).await.unwrap()
    }

    pub async fn produce(&self, entities: &[EntityChanged]) -> Vec<Position> {
        self.append(entities.iter().map(|entity| NewRecord::event(entity).unwrap()).collect()).await
    }

    /// Waits until all processors have caught up, in the order of the data flow, and the index serves all rows.
    pub async fn settle(&self) {
        for handle in &self.handles {
            let view = handle.view();
            let ends = view.ends(&*self.log).await.unwrap();
            assert!(
                view.reached(&ends, PATIENCE).await,
                "{} has not caught up: {:?}",
                view.name,
                view.progress.borrow()
            );
        }
        let rows = self.index.source_positions(&search_generation()).await.unwrap();
        let deadline = tokio::time::Instant::now() + PATIENCE;
        assert!(self.index.reached(&search_generation(), &rows, deadline).await.unwrap());
    }

    /// All rows of the index, in key order.
    pub async fn indexed(&self) -> Vec<StoredRow> {
        self.index.scroll(&search_generation(), None, 100_000).await.unwrap()
    }

    pub async fn indexed_ids(&self) -> Vec<String> {
        self.indexed().await.iter().map(|row| row.document.key.to_string()).collect()
    }

    pub async fn catalog_digest(&self) -> Digest {
        digest::<Catalog>(&self.catalog).await.unwrap()
    }

    pub async fn derived(&self) -> Derived {
        Derived {
            index: self.indexed().await,
            catalog: self.catalog_digest().await,
            deadletters: digest::<DeadLetters>(&self.deadletters).await.unwrap(),
        }
    }

    /// The view of the processor with this name.
    pub fn view(&self, name: &str) -> ProcessorView {
        self.handles.iter().map(ProcessorHandle::view).find(|view| view.name == name).unwrap()
    }

    /// Compacts the log now, without the minimum lag that the topology sets.
    pub async fn compact(&self) -> CompactionReport {
        let mut specs = topology().specs();
        specs.iter_mut().for_each(|spec| spec.retention.min_compaction_lag_ms = -1000);
        self.log.ensure_topics(&specs).await.unwrap();
        self.log.compact().await.unwrap()
    }

    /// The state of an entity in the catalog.
    pub async fn state_of(&self, tenant: &str, id: &str) -> Option<String> {
        carbon_store::query("SELECT state FROM search_items WHERE tenant_id = $1 AND entity_id = $2")
            .bind(tenant)
            .bind(id)
            .scalar(self.catalog.readers())
            .await
            .unwrap()
    }

    /// The open dead letters: position, reason, message.
    pub async fn letters(&self) -> Vec<(String, String, String)> {
        let rows = carbon_store::query(
            "SELECT topic || ':' || partition || ':' || \"offset\", reason, message FROM dead_letters ORDER BY 1",
        )
        .fetch_all(self.deadletters.readers())
        .await
        .unwrap();
        let text = |row: &carbon_store::Row, at| row.try_get::<String>(at).unwrap();
        rows.iter().map(|row| (text(row, 0), text(row, 1), text(row, 2))).collect()
    }

    /// All records of a topic.
    pub async fn all(&self, name: &str) -> Vec<Record> {
        let mut records = Vec::new();
        for (at, end) in self.log.ends(&topic(name)).await.unwrap().iter() {
            let mut from = 0;
            while from < end {
                let read = self.log.read(at, from, 1000).await.unwrap();
                let Some(last) = read.last() else { break };
                from = last.position.offset + 1;
                records.extend(read);
            }
        }
        records
    }

    /// The first embedding of an entity.
    pub async fn embedding_of(&self, id: &str) -> EmbeddingGenerated {
        let records = self.all(EmbeddingGenerated::NAME).await;
        records.iter().map(decode::<EmbeddingGenerated>).find(|event| event.entity_id == id).unwrap()
    }

    pub fn read_models(&self) -> PathBuf {
        self.data.read_models()
    }

    /// Stops all processors and closes the stores, as a shutdown does.
    pub async fn stop(self) -> (Arc<tempfile::TempDir>, Arc<CountingEncoder>) {
        self.shutdown.cancel();
        for handle in self.handles {
            handle.join().await.unwrap();
        }
        self.index.close().await.unwrap();
        self.catalog.close().await;
        self.deadletters.close().await;
        self.log.close().await;
        (self.folder, self.encoder)
    }

    pub async fn restart(self) -> Self {
        let (folder, encoder) = self.stop().await;
        Self::open(folder, encoder).await
    }

    /// Deletes all read models, starts again, and waits until the processors have caught up.
    pub async fn rebuild(self) -> Self {
        let read_models = self.read_models();
        let (folder, encoder) = self.stop().await;
        std::fs::remove_dir_all(read_models).unwrap();
        let rig = Self::open(folder, encoder).await;
        rig.settle().await;
        rig
    }

    /// Rebuilds, and checks that the result equals `before`.
    pub async fn rebuild_equal_to(self, before: &Derived) -> Self {
        let rig = self.rebuild().await;
        let after = rig.derived().await;
        assert_eq!(after.index, before.index);
        assert_eq!((after.catalog, after.deadletters), (before.catalog.clone(), before.deadletters.clone()));
        rig
    }
}

/// The event of a good record.
pub fn decode<E: Event>(record: &Record) -> E {
    let spec = topology().topics[E::NAME].spec.clone();
    let mut decoder = carbon_schemas::Decoder::<E>::new(spec.partitions, spec.partitioner);
    match decoder.decode(&record.raw()).unwrap() {
        carbon_schemas::Decoded::Event { event, .. } => event,
        other => panic!("{other:?}"),
    }
}
