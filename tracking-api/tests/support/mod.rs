//! A tracking-api for tests, on an embedded log in a temporary folder.
#![allow(clippy::unwrap_used, dead_code)]

mod fold;

use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use carbon_core::{
    Clock, GenerationId, Position, Positions, SystemClock, Timestamp, TopicName, TopicPartition, TopicSpec,
};
use carbon_log::{
    DataFolder, EmbeddedLog, EventLog, Foreign, Group, GroupDescription, LogError, NewRecord, Record, RecordStream,
    TopicDescription,
};
use carbon_read_models::deadletters::DeadLetters;
use carbon_runtime::consume::{ProcessorHandle, ProcessorView};
use carbon_runtime::{Config, GenerationLog, Health, Metrics, ReadModels, Rows, Shutdown, Supervisor};
use carbon_schemas::events::EntityChanged;
use carbon_schemas::{Decoded, Decoder, Event as _, SchemaId};
use carbon_store::Site;
use carbon_topology::Topology;
use carbon_tracking_api::{Dependencies, router};
use carbon_webhooks::Webhooks;
use serde_json::Value;
use tower::ServiceExt as _;

pub struct Service {
    pub router: axum::Router,
    pub dependencies: Arc<Dependencies>,
    pub log: Arc<FaultyLog>,
    pub clock: Arc<OffsetClock>,
    /// The fold of the registry, if the service holds the registry.
    pub fold: Option<ProcessorHandle>,
    _folder: DataFolder,
    dir: tempfile::TempDir,
}

/// The system clock plus an offset that tests advance.
#[derive(Default)]
pub struct OffsetClock(AtomicI64);

impl OffsetClock {
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_millis() as i64, Ordering::SeqCst);
    }
}

impl Clock for OffsetClock {
    fn now(&self) -> Timestamp {
        Timestamp(SystemClock.now().0 + self.0.load(Ordering::SeqCst))
    }
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

impl Service {
    pub async fn new() -> Self {
        Self::open(false, webhooks()).await
    }

    /// A service that holds the registry and runs its fold.
    pub async fn with_registry() -> Self {
        Self::with_webhooks(webhooks()).await
    }

    /// A service that holds the registry and uses `webhooks`.
    pub async fn with_webhooks(webhooks: Webhooks) -> Self {
        Self::open(true, webhooks).await
    }

    /// Another process on the same log, with its own registry.
    pub async fn replica(&self) -> axum::Router {
        let log = self.dependencies.log.clone();
        let mut dependencies = dependencies(log, self.dir.path(), "replica", self.clock.clone()).await;
        let rows = fold::registry(&dependencies, &self.dir.path().join("replica.db"), "replica").await.0;
        dependencies.read_models.add("registry").set(Arc::new(rows));
        router(Arc::new(dependencies))
    }

    async fn open(with_registry: bool, webhooks: Webhooks) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let folder = DataFolder::open(&dir.path().join("data")).unwrap();
        let embedded = EmbeddedLog::open(&folder).await.unwrap();
        let log = Arc::new(FaultyLog { log: embedded, appends_left: AtomicUsize::new(usize::MAX) });
        let clock = Arc::new(OffsetClock::default());
        let mut dependencies = dependencies(log.clone(), dir.path(), "own", clock.clone()).await;
        dependencies.webhooks = webhooks;
        let mut fold = None;
        if with_registry {
            let (rows, handle) = fold::registry(&dependencies, &dir.path().join("registry.db"), "own").await;
            dependencies.read_models.add("registry").set(Arc::new(rows));
            fold = Some(handle);
        }
        let dependencies = Arc::new(dependencies);
        Self { router: router(dependencies.clone()), dependencies, log, clock, fold, _folder: folder, dir }
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, 64 << 20).await.unwrap();
        let body = String::from_utf8(bytes.to_vec()).unwrap();
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    pub async fn get(&self, uri: &str) -> Answer {
        self.send(Request::get(uri).body(Body::empty()).unwrap()).await
    }

    pub async fn post(&self, uri: &str, kind: &str, body: impl Into<Body>) -> Answer {
        self.send(Request::post(uri).header("content-type", kind).body(body.into()).unwrap()).await
    }

    /// Returns the entities of the log, partition by partition in log order.
    pub async fn entities(&self) -> Vec<(Record, EntityChanged)> {
        let topic = &self.dependencies.topology.topics[EntityChanged::NAME].spec;
        let mut decoder = Decoder::<EntityChanged>::new(topic.partitions, topic.partitioner);
        let mut entities = Vec::new();
        for partition in 0..topic.partitions {
            let at = TopicPartition::new(topic.name.clone(), partition);
            let end = self.dependencies.log.ends(&topic.name).await.unwrap().next(&at);
            let mut next = 0;
            while next < end {
                for record in self.dependencies.log.read(&at, next, 1000).await.unwrap() {
                    next = record.position.offset + 1;
                    let Decoded::Event { event, .. } = decoder.decode(&record.raw()).unwrap() else { panic!("poison") };
                    entities.push((record, event));
                }
            }
        }
        entities
    }

    /// Returns the number of entity records in the log.
    pub async fn entity_count(&self) -> usize {
        let topic = TopicName::parse(EntityChanged::NAME).unwrap();
        self.dependencies.log.ends(&topic).await.unwrap().iter().map(|(_, end)| end as usize).sum()
    }
}

/// Returns the dependencies of the service `process`, without the registry.
async fn dependencies(log: Arc<dyn EventLog>, dir: &Path, process: &str, clock: Arc<dyn Clock>) -> Dependencies {
    static METRICS: OnceLock<Metrics> = OnceLock::new();
    let topology = Arc::new(Topology::builtin().unwrap());
    log.ensure_topics(&topology.specs()).await.unwrap();
    let shutdown = Shutdown::new();
    let supervisor = Supervisor::new(shutdown.clone());
    let generations = GenerationLog::start(log.clone(), &topology, &supervisor).unwrap();
    generations.caught_up().await;
    let site = Site::File(dir.join(process).join("deadletters.db"));
    let deadletters = carbon_read_models::open::<DeadLetters>(&site).await.unwrap();
    let mut read_models = ReadModels::default();
    let generation = GenerationId::derive("deadletters", 1, None, 1).unwrap();
    let (_, progress) = tokio::sync::watch::channel(Default::default());
    let view = ProcessorView::new("deadletters".into(), Group::new("deadletters", "test"), Vec::new(), progress);
    read_models.add("deadletters").set(Arc::new(Rows::new(generation, deadletters, view)));
    let (mut config, _) = Config::load(None).unwrap();
    let ui = dir.join("ui");
    std::fs::create_dir_all(ui.join("static")).unwrap();
    std::fs::write(ui.join("index.html"), "<!doctype html><title>ui</title>").unwrap();
    std::fs::write(ui.join("static/a.js"), "let a;").unwrap();
    config.mlflow_ui = ui.display().to_string();
    Dependencies {
        log,
        topology,
        generations,
        keepers: Arc::default(),
        processors: Default::default(),
        supervisor,
        read_models,
        artifacts: carbon_artifacts::ArtifactStore::local(dir.join("artifacts")).unwrap(),
        webhooks: webhooks(),
        health: Arc::new(Health::new(&["log"])),
        metrics: METRICS.get_or_init(Metrics::install).clone(),
        config: Arc::new(config),
        clock,
        shutdown,
        claims: Default::default(),
    }
}

fn webhooks() -> Webhooks {
    Webhooks::new("a key of these tests", true, Duration::from_secs(10)).unwrap()
}

/// Asserts that an answer is a problem with this status and the request's id.
pub fn assert_problem(name: &str, answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{name}: {}", answer.body);
    assert_eq!(answer.headers["content-type"], "application/problem+json", "{name}");
    let problem = answer.json();
    assert_eq!(problem["status"], StatusCode::from_u16(status).unwrap().as_u16(), "{name}");
    assert_eq!(problem["request_id"].as_str(), answer.headers["x-request-id"].to_str().ok(), "{name}");
}

/// A log that performs `appends_left` appends and then accepts only half of the records of each append.
pub struct FaultyLog {
    log: EmbeddedLog,
    pub appends_left: AtomicUsize,
}

#[async_trait]
impl EventLog for FaultyLog {
    async fn append(&self, mut records: Vec<NewRecord>) -> Result<Vec<Position>, LogError> {
        let left = self.appends_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if left.is_ok() {
            return self.log.append(records).await;
        }
        let count = records.len();
        records.truncate(count / 2);
        let positions = self.log.append(records).await?;
        let mut accepted: Vec<_> = positions.into_iter().map(Some).collect();
        accepted.resize(count, None);
        Err(LogError::Partial { accepted, message: "the disk is full".into() })
    }

    async fn append_and_advance(
        &self,
        group: &Group,
        records: Vec<NewRecord>,
        from: &Positions,
        upto: &Positions,
    ) -> Result<Vec<Position>, LogError> {
        self.log.append_and_advance(group, records, from, upto).await
    }
    async fn subscribe(&self, group: &Group, topics: &[TopicName]) -> Result<RecordStream, LogError> {
        self.log.subscribe(group, topics).await
    }
    async fn follow(&self, from: &Positions) -> Result<RecordStream, LogError> {
        self.log.follow(from).await
    }
    async fn read(&self, at: &TopicPartition, from: u64, max: usize) -> Result<Vec<Record>, LogError> {
        self.log.read(at, from, max).await
    }
    async fn commit(&self, group: &Group, positions: &Positions) -> Result<(), LogError> {
        self.log.commit(group, positions).await
    }
    async fn committed(&self, group: &Group) -> Result<Positions, LogError> {
        self.log.committed(group).await
    }
    async fn groups(&self) -> Result<Vec<GroupDescription>, LogError> {
        self.log.groups().await
    }
    async fn ends(&self, topic: &TopicName) -> Result<Positions, LogError> {
        self.log.ends(topic).await
    }
    async fn positions_for_time(&self, topic: &TopicName, time: Timestamp) -> Result<Positions, LogError> {
        self.log.positions_for_time(topic, time).await
    }
    async fn ensure_topics(&self, topics: &[TopicSpec]) -> Result<(), LogError> {
        self.log.ensure_topics(topics).await
    }
    async fn describe(&self) -> Result<Vec<TopicDescription>, LogError> {
        self.log.describe().await
    }
    async fn delete_records(&self, before: &Positions) -> Result<(), LogError> {
        self.log.delete_records(before).await
    }
    async fn put_schema(&self, event: &str, json: &str) -> Result<SchemaId, LogError> {
        self.log.put_schema(event, json).await
    }
    async fn schema(&self, id: SchemaId) -> Result<Option<String>, LogError> {
        self.log.schema(id).await
    }
    fn identity(&self) -> &str {
        self.log.identity()
    }
    async fn recognise(&self, log: &str, positions: &Positions) -> Result<Option<Foreign>, LogError> {
        self.log.recognise(log, positions).await
    }
    async fn size(&self) -> Result<Option<u64>, LogError> {
        self.log.size().await
    }
    async fn close(&self) {
        self.log.close().await;
    }
}
