//! A test harness: the registry and the webhooks over an embedded log, and constructors of their events.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use carbon_core::{Clock as _, GenerationId, Position, SystemClock, TenantId, TenantScope, TopicName};
use carbon_log::{DataFolder, EmbeddedLog, EventLog, Group, NewRecord};
use carbon_processors::{Pace, ProjectionSink, WebhookParts, WebhookSink};
use carbon_read_models::Projection as _;
use carbon_read_models::registry::{Registry, RegistryRecord};
use carbon_runtime::consume::{Options, ProcessorHandle, spawn_shared_sink, spawn_sink};
use carbon_runtime::{Rows, Serving, Shutdown};
use carbon_schemas::events::{KeyValue, ModelKind, ModelPromoted, ModelRegistered, WebhookChanged, WebhookKind};
use carbon_schemas::{Decoded, Event, Recorded};
use carbon_topology::Topology;
use carbon_webhooks::Webhooks;
use tokio::task::JoinHandle;
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(30);

/// The passphrase that encrypts secrets in these tests.
pub const KEY: &str = "the key";

/// A data folder with the running registry and webhooks. A test can stop and start them.
pub struct Harness {
    dir: tempfile::TempDir,
    running: Option<Running>,
}

struct Running {
    log: Arc<EmbeddedLog>,
    handles: Vec<ProcessorHandle>,
    registry: Arc<Serving<Rows>>,
    deliveries: JoinHandle<()>,
    outbox: PathBuf,
    shutdown: Shutdown,
    _folder: DataFolder,
}

pub fn webhooks(key: &str) -> Webhooks {
    Webhooks::new(key, true, Duration::from_millis(500)).unwrap()
}

/// 5 attempts with short delays.
pub fn pace() -> Pace {
    Pace { max_attempts: 5, initial_backoff: Duration::from_millis(5), max_backoff: Duration::from_millis(50) }
}

impl Harness {
    pub async fn new() -> Self {
        Self::open(tempfile::tempdir().unwrap()).await
    }

    /// Starts in a folder that may contain a log.
    pub async fn open(dir: tempfile::TempDir) -> Self {
        let mut harness = Self { dir, running: None };
        harness.start(KEY).await;
        harness
    }

    /// Starts the registry, the sink and the deliveries, with this passphrase for secrets.
    pub async fn start(&mut self, key: &str) {
        let folder = DataFolder::open(self.dir.path()).unwrap();
        let log = Arc::new(EmbeddedLog::open(&folder).await.unwrap());
        let topology = Topology::builtin().unwrap();
        log.ensure_topics(&topology.specs()).await.unwrap();
        let shutdown = Shutdown::new();
        let options = |name: &str, group: &str| {
            let processor = &topology.processors[name];
            let topics = processor.consumes.iter().map(|topic| topology.topics[topic.as_str()].clone()).collect();
            Options::new(name, Group::new(name, group), topics, processor.batch, log.clone(), shutdown.clone())
        };
        let registry = ProjectionSink::open(Registry, folder.read_models().join("registry")).await.unwrap();
        let rows = registry.namespace().clone();
        rows.set_filled().await.unwrap();
        let fold = spawn_sink(registry, options("registry", "test"));
        let options = options("webhooks", "deliveries");
        let handle = Arc::new(Serving::new("registry"));
        let generation = GenerationId::parse("registry-test").unwrap();
        handle.set(Arc::new(Rows::new(generation, rows, fold.view())));
        let parts = WebhookParts {
            log: log.clone(),
            group: options.group.clone(),
            topics: options.topics.clone(),
            registry: handle.clone(),
        };
        let sink = WebhookSink::open(&folder.webhooks_file(), parts).await.unwrap();
        let (sender, stop) = (sink.deliveries(webhooks(key), pace()), shutdown.clone());
        let deliveries = tokio::spawn(async move { sender.run(stop).await });
        let handles = vec![fold, spawn_shared_sink(sink, options)];
        let outbox = folder.webhooks_file();
        self.running = Some(Running { log, handles, registry: handle, deliveries, outbox, shutdown, _folder: folder });
        // Nothing is appended before the sink has its start position, which is the end of each topic.
        let mut progress = self.running().handles[1].view().progress;
        let assigned = progress.wait_for(|now| !now.positions.is_empty());
        tokio::time::timeout(PATIENCE, assigned).await.unwrap().unwrap();
    }

    pub async fn stop(&mut self) {
        let running = self.running.take().unwrap();
        running.shutdown.cancel();
        running.deliveries.await.unwrap();
        for handle in running.handles {
            handle.join().await.unwrap();
        }
        running.log.close().await;
    }

    fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub async fn append<E: Event>(&self, event: &E) -> Position {
        self.running().log.append(vec![NewRecord::event(event).unwrap()]).await.unwrap().remove(0)
    }

    /// Waits until the registry and the sink of the webhooks have caught up.
    pub async fn settle(&self) {
        for handle in &self.running().handles {
            let view = handle.view();
            let ends = view.ends(&*self.running().log).await.unwrap();
            assert!(
                view.reached(&ends, PATIENCE).await,
                "{} has not caught up: {:?}",
                view.name,
                view.progress.borrow()
            );
        }
    }

    /// Creates a webhook and waits until the registry contains it.
    pub async fn create_webhook(&self, url: &str, events: &[&str], secret: Option<&str>) -> Uuid {
        let id = Uuid::new_v4();
        let sealed = secret.map(|secret| webhooks(KEY).seal(&scope(), &id.to_string(), secret).unwrap());
        self.append(&WebhookChanged { sealed_secret: sealed, ..webhook_created(id, url, events) }).await;
        self.settle().await;
        id
    }

    /// Empties the registry as a reset does: deletes its rows and the mark that they are filled.
    pub async fn empty_registry(&self) {
        self.running().registry.get().unwrap().namespace.clear().await.unwrap();
    }

    /// Fills the registry with one webhook.
    pub async fn fill_registry(&self, webhook: &WebhookChanged) {
        let rows = self.running().registry.get().unwrap();
        let topic = TopicName::parse(WebhookChanged::NAME).unwrap();
        let record = Recorded {
            position: Position::new(topic, 0, 0),
            timestamp: SystemClock.now(),
            traceparent: None,
            body: Decoded::Event { key: webhook.key().unwrap(), event: webhook.clone() },
        };
        let tables = rows.namespace.begin().await.unwrap();
        let folded = Registry.apply(tables, &[RegistryRecord::Webhook(record)]).await.unwrap();
        folded.commit().await.unwrap();
        rows.namespace.set_filled().await.unwrap();
    }

    /// Appends the registration of a model.
    pub async fn register(&self, name: &str) -> Position {
        self.append(&registration(name)).await
    }

    /// The number of pending deliveries.
    pub async fn pending(&self) -> i64 {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&self.running().outbox);
        let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
        let count = sqlx::query_scalar("SELECT count(*) FROM deliveries").fetch_one(&pool).await.unwrap();
        pool.close().await;
        count
    }

    /// Waits until this number of deliveries is pending.
    pub async fn wait_for_pending(&self, count: i64) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while self.pending().await != count {
            assert!(tokio::time::Instant::now() < deadline, "{} pending, not {count}", self.pending().await);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

pub fn tenant() -> TenantId {
    TenantId::parse("acme").unwrap()
}

pub fn scope() -> TenantScope {
    TenantScope::authorised(tenant())
}

pub fn webhook_event(id: Uuid, kind: WebhookKind) -> WebhookChanged {
    WebhookChanged::of(Uuid::now_v7(), SystemClock.now(), &tenant(), id, kind)
}

pub fn webhook_created(id: Uuid, url: &str, events: &[&str]) -> WebhookChanged {
    WebhookChanged {
        name: Some("hook".into()),
        url: Some(url.into()),
        events: events.iter().map(|event| (*event).into()).collect(),
        ..webhook_event(id, WebhookKind::Created)
    }
}

pub fn model_event(name: &str, kind: ModelKind) -> ModelRegistered {
    ModelRegistered::of(Uuid::now_v7(), SystemClock.now(), &tenant(), name, kind)
}

pub fn registration(name: &str) -> ModelRegistered {
    ModelRegistered { registration_id: Some(Uuid::new_v4()), ..model_event(name, ModelKind::Created) }
}

pub fn version(name: &str, number: i64) -> ModelRegistered {
    ModelRegistered {
        version: Some(number),
        version_id: Some(Uuid::new_v4()),
        source: Some("s3://bucket/model".into()),
        ..model_event(name, ModelKind::VersionCreated)
    }
}

/// Sets the alias `champion` to a version, or removes it with `None`.
pub fn alias(name: &str, version: Option<i64>) -> ModelPromoted {
    let event = ModelPromoted::of(Uuid::now_v7(), SystemClock.now(), &tenant(), name);
    ModelPromoted { alias: Some("champion".into()), version, ..event }
}

pub fn pairs(pairs: &[(&str, &str)]) -> Vec<KeyValue> {
    pairs.iter().map(|(key, value)| KeyValue::new(*key, *value)).collect()
}

/// Appends to the log in a data folder that no process has open.
pub async fn append_to<E: Event>(root: &Path, event: &E) {
    let folder = DataFolder::open(root).unwrap();
    let log = EmbeddedLog::open(&folder).await.unwrap();
    log.ensure_topics(&Topology::builtin().unwrap().specs()).await.unwrap();
    log.append(vec![NewRecord::event(event).unwrap()]).await.unwrap();
    log.close().await;
}

/// Deletes a folder, or a SQLite database with its WAL files.
pub fn remove(path: &Path) {
    if path.is_dir() {
        return std::fs::remove_dir_all(path).unwrap();
    }
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", path.display()));
    }
}
