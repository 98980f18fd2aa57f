//! A query-api for tests, on an embedded log and index with the hashing encoder. No processors run: tests fold the log
//! explicitly.
#![allow(clippy::unwrap_used, dead_code)]

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request};
use carbon_core::{GenerationId, ModelRef, Position, Positions, TenantId, Timestamp, TopicName, TopicPartition};
use carbon_inference::{Catalogue, Embedding, Encoder, EncoderOptions, InferenceError, Lane, ModelStore, load_encoder};
use carbon_log::{DataFolder, EmbeddedLog, EventLog, Group, NewRecord};
use carbon_query_api::{Dependencies, SearchIndex, router};
use carbon_read_models::Projection as _;
use carbon_read_models::catalog::Catalog;
use carbon_runtime::consume::{ProcessorView, Progress};
use carbon_runtime::{Config, Health, Metrics, ReadModels, Rows, Serving, Shutdown};
use carbon_schemas::events::EntityChanged;
use carbon_schemas::{DecodeError, Decoded, Decoder, Event as _, Recorded};
use carbon_search::{Document, EmbeddedIndex, GenerationSpec, HybridIndex, IndexOp};
use carbon_store::{Namespace, Site};
use carbon_topology::Topology;
use serde_json::Value;
use tokio::sync::watch;
use tower::ServiceExt as _;
use uuid::Uuid;

pub struct Service {
    pub router: axum::Router,
    pub dependencies: Arc<Dependencies>,
    pub log: Arc<dyn EventLog>,
    pub index: Arc<EmbeddedIndex>,
    pub generation: GenerationId,
    pub catalog: Namespace,
    /// The progress that the folds of all read models report.
    pub progress: watch::Sender<Progress>,
    encoder: Arc<dyn Encoder>,
    _folder: DataFolder,
    _dir: tempfile::TempDir,
}

pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

pub async fn hashing_encoder() -> Arc<dyn Encoder> {
    let entry = Catalogue::builtin().find("feature-hashing").unwrap();
    let options = EncoderOptions { threads: 1, ..EncoderOptions::default() };
    load_encoder(entry, &ModelStore::new("unused"), options).await.unwrap().lane(Lane::Interactive)
}

pub fn entity(tenant: &str, id: &str, text: &str) -> EntityChanged {
    EntityChanged {
        event_id: Uuid::now_v7(),
        occurred_at: Timestamp(1),
        tenant_id: TenantId::parse(tenant).unwrap(),
        entity_type: "curve".into(),
        entity_id: id.into(),
        text: text.into(),
        metadata: [("hub".to_owned(), carbon_core::MetadataValue::String("HH".into()))].into_iter().collect(),
        tags: vec!["gas".into()],
        deleted: false,
    }
}

impl Service {
    pub async fn new() -> Self {
        let encoder = hashing_encoder().await;
        let service = Self::without_read_models(encoder.clone()).await;
        service.serve_index_and_catalog(encoder);
        service
    }

    /// A service that encodes queries with another encoder than entities.
    pub async fn with_query_encoder(query_encoder: Arc<dyn Encoder>) -> Self {
        let service = Self::without_read_models(hashing_encoder().await).await;
        service.serve_index_and_catalog(query_encoder);
        service
    }

    /// A service that does not serve the index and the catalog yet.
    pub async fn without_read_models(encoder: Arc<dyn Encoder>) -> Self {
        static METRICS: OnceLock<Metrics> = OnceLock::new();
        let dir = tempfile::tempdir().unwrap();
        let folder = DataFolder::open(&dir.path().join("data")).unwrap();
        let log: Arc<dyn EventLog> = Arc::new(EmbeddedLog::open(&folder).await.unwrap());
        let topology = Arc::new(Topology::builtin().unwrap());
        log.ensure_topics(&topology.specs()).await.unwrap();
        let site = Site::File(dir.path().join("catalog.db"));
        let catalog = carbon_read_models::open::<Catalog>(&site).await.unwrap();
        let index = Arc::new(EmbeddedIndex::new(dir.path().join("index")));
        let model = encoder.model().clone();
        let generation = GenerationId::derive("search", 1, Some(&model), 1).unwrap();
        let spec = GenerationSpec { id: generation.clone(), model, dimension: encoder.dimension() };
        index.create(&spec).await.unwrap();
        let (config, _) = Config::load(None).unwrap();
        let mut read_models = ReadModels::default();
        read_models.add("catalog");
        read_models.add("registry");
        let dependencies = Arc::new(Dependencies {
            log: log.clone(),
            topology,
            search: Some(Arc::new(Serving::new("search"))),
            read_models,
            health: Arc::new(Health::new(&["log"])),
            metrics: METRICS.get_or_init(Metrics::install).clone(),
            config: Arc::new(config),
            shutdown: Shutdown::new(),
        });
        let router = router(dependencies.clone());
        let (progress, _) = watch::channel(Progress::default());
        Self { router, dependencies, log, index, generation, catalog, progress, encoder, _folder: folder, _dir: dir }
    }

    fn serve_index_and_catalog(&self, query_encoder: Arc<dyn Encoder>) {
        let index: Arc<dyn HybridIndex> = self.index.clone();
        let (generation, model) = (self.generation.clone(), self.encoder.model().clone());
        let indexer = view("indexer", "ml.embedding.generated.v1", &self.progress);
        let embedder = Group::new("embedder", &model);
        let search = SearchIndex::new(index, (generation, model), query_encoder, indexer, embedder);
        self.dependencies.search.as_ref().unwrap().set(Arc::new(search));
        self.serve("catalog", &self.catalog, EntityChanged::NAME);
    }

    /// Serves a relational read model whose fold reports `self.progress`.
    pub fn serve(&self, read_model: &str, namespace: &Namespace, topic: &str) {
        let generation = GenerationId::derive(read_model, 1, None, 1).unwrap();
        let rows = Rows::new(generation, namespace.clone(), view(read_model, topic, &self.progress));
        self.dependencies.read_models.get(read_model).unwrap().set(Arc::new(rows));
    }

    pub async fn append(&self, events: &[EntityChanged]) -> Positions {
        let records = events.iter().map(|event| NewRecord::event(event).unwrap()).collect();
        let mut done = Positions::new();
        self.log.append(records).await.unwrap().iter().for_each(|position| done.advance_past(position));
        done
    }

    /// Folds all records of the log into catalog and index, like the processors do.
    pub async fn fold(&self) {
        let topic = &self.dependencies.topology.topics[EntityChanged::NAME].spec;
        let mut decoder = Decoder::<EntityChanged>::new(topic.partitions, topic.partitioner);
        let (mut batch, mut ops, mut positions) = (Vec::new(), Vec::new(), Positions::new());
        for partition in 0..topic.partitions {
            let at = TopicPartition::new(topic.name.clone(), partition);
            for record in self.log.read(&at, 0, 10_000).await.unwrap() {
                positions.advance_past(&record.position);
                let body = match decoder.decode(&record.raw()) {
                    Err(DecodeError::NeedSchema(id)) => {
                        decoder.learn(id, self.log.schema(id).await.unwrap().as_deref());
                        decoder.decode(&record.raw()).unwrap()
                    }
                    decoded => decoded.unwrap(),
                };
                if let Decoded::Event { key, event } = &body {
                    let source = record.position.clone();
                    ops.push(match event.deleted {
                        true => IndexOp::delete(key.clone(), source),
                        false => {
                            let text = event.text.clone();
                            let vector =
                                self.encoder.encode(std::slice::from_ref(&text)).await.unwrap().remove(0).vector;
                            let (metadata, tags) = (event.metadata.clone(), event.tags.clone());
                            let document = Document {
                                key: key.clone(),
                                text,
                                metadata,
                                tags,
                                updated_at: record.timestamp,
                                source,
                                embedding: None,
                            };
                            IndexOp::upsert(document, vector)
                        }
                    });
                }
                // The embedder emits a deletion for a quarantined entity.
                if let Decoded::Quarantined { key, .. } = &body {
                    ops.push(IndexOp::delete(key.clone(), record.position.clone()));
                }
                let (position, timestamp) = (record.position, record.timestamp);
                batch.push(Recorded { position, timestamp, traceparent: None, body });
            }
        }
        let tables = self.catalog.begin().await.unwrap();
        let folded = Catalog.apply(tables, &batch).await.unwrap();
        folded.commit().await.unwrap();
        let from = self.index.checkpoint(&self.generation).await.unwrap().positions;
        let mut upto = from.clone();
        let output = TopicName::parse("ml.embedding.generated.v1").unwrap();
        upto.advance_past(&Position::new(output, 0, from.iter().map(|(_, next)| next).sum::<u64>()));
        self.index.apply(&self.generation, self.log.identity(), ops, &from, &upto).await.unwrap();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        assert!(self.index.reached(&self.generation, &positions, deadline).await.unwrap());
        self.progress.send_modify(|progress| progress.positions = positions);
    }

    /// Appends and folds events.
    pub async fn put(&self, events: &[EntityChanged]) -> Positions {
        let done = self.append(events).await;
        self.fold().await;
        done
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = tokio::time::timeout(Duration::from_secs(20), axum::body::to_bytes(body, 64 << 20)).await;
        let body = String::from_utf8(bytes.unwrap().unwrap().to_vec()).unwrap();
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    pub async fn post(&self, uri: &str, body: &Value) -> Answer {
        self.send(json_request(uri, body.to_string(), &[])).await
    }

    pub async fn get(&self, uri: &str) -> Answer {
        self.send(request(Request::get(uri), &[], Body::empty())).await
    }

    pub async fn get_with(&self, uri: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(request(Request::get(uri), headers, Body::empty())).await
    }
}

fn view(name: &str, topic: &str, progress: &watch::Sender<Progress>) -> ProcessorView {
    let topics = vec![TopicName::parse(topic).unwrap()];
    ProcessorView::new(name.into(), Group::new(name, "test"), topics, progress.subscribe())
}

pub fn json_request(uri: &str, body: String, headers: &[(&str, &str)]) -> Request<Body> {
    request(Request::post(uri).header("content-type", "application/json"), headers, Body::from(body))
}

pub fn request(mut builder: axum::http::request::Builder, headers: &[(&str, &str)], body: Body) -> Request<Body> {
    for (name, value) in headers {
        let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
        builder = builder.header(HeaderName::try_from(*name).unwrap(), value);
    }
    builder.body(body).unwrap()
}

/// Asserts that an answer is a problem with this status and the request's id.
pub fn assert_problem(name: &str, answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{name}: {}", answer.body);
    assert_eq!(answer.headers["content-type"], "application/problem+json", "{name}");
    let problem = answer.json();
    assert_eq!(problem["status"], status, "{name}");
    assert_eq!(problem["request_id"].as_str(), answer.headers["x-request-id"].to_str().ok(), "{name}");
}

/// How a [`FaultyEncoder`] behaves.
#[derive(Clone, Copy, PartialEq)]
pub enum EncoderFault {
    /// It never returns.
    Hangs,
    Overloaded,
    NotEmbeddable,
    /// It returns vectors of another model.
    OtherModel,
}

pub struct FaultyEncoder(EncoderFault, ModelRef);

impl FaultyEncoder {
    pub fn encoder(fault: EncoderFault) -> Arc<dyn Encoder> {
        let name = if fault == EncoderFault::OtherModel { "other" } else { "feature-hashing" };
        Arc::new(Self(fault, ModelRef::new(name, "1", carbon_core::Precision::F32).unwrap()))
    }
}

#[async_trait::async_trait]
impl Encoder for FaultyEncoder {
    fn model(&self) -> &ModelRef {
        &self.1
    }

    fn dimension(&self) -> usize {
        384
    }

    async fn encode(&self, texts: &[String]) -> Result<Vec<Embedding>, InferenceError> {
        match self.0 {
            EncoderFault::Hangs => std::future::pending().await,
            EncoderFault::Overloaded => Err(InferenceError::Overloaded { retry_after: Duration::from_secs(3) }),
            EncoderFault::NotEmbeddable => Err(InferenceError::NotEmbeddable { index: 0, reason: "it is empty" }),
            EncoderFault::OtherModel => {
                let one = Embedding { vector: vec![0.05; 384], tokens: 1, truncated: false };
                Ok(vec![one; texts.len()])
            }
        }
    }
}
