//! Webhooks from the log to a real receiver: what is told, to whom, how often, and what never is.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod receiver;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use carbon_core::{Clock as _, Position, SystemClock, TenantId, TenantScope};
use carbon_log::{DataFolder, EmbeddedLog, EventLog, Group, NewRecord};
use carbon_processors::{MOST_PENDING, Pace, ProjectionSink, WebhookParts, WebhookSink};
use carbon_read_models::registry::Registry;
use carbon_runtime::Shutdown;
use carbon_runtime::consume::{Options, ProcessorHandle, spawn_shared_sink, spawn_sink};
use carbon_schemas::Event;
use carbon_schemas::events::{KeyValue, ModelKind, ModelPromoted, ModelRegistered, WebhookChanged, WebhookKind};
use carbon_topology::Topology;
use carbon_webhooks::{Webhooks, signature};
use receiver::{Answer, Call, Receiver};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(30);
const SECRET: &str = "a-secret-of-some-length";

/// The registry and the webhooks over a log, in a folder that may be opened again.
struct World {
    dir: tempfile::TempDir,
    running: Option<Running>,
}

struct Running {
    log: Arc<EmbeddedLog>,
    handles: Vec<ProcessorHandle>,
    deliveries: JoinHandle<()>,
    outbox: std::path::PathBuf,
    shutdown: Shutdown,
    _folder: DataFolder,
}

fn webhooks(key: &str) -> Webhooks {
    Webhooks::new(key, true, Duration::from_millis(500)).unwrap()
}

fn pace() -> Pace {
    Pace { attempts: 5, first_wait: Duration::from_millis(5), longest_wait: Duration::from_millis(50) }
}

impl World {
    async fn new() -> Self {
        let mut world = Self { dir: tempfile::tempdir().unwrap(), running: None };
        world.start("the key").await;
        world
    }

    async fn start(&mut self, key: &str) {
        let folder = DataFolder::open(self.dir.path()).unwrap();
        let log = Arc::new(EmbeddedLog::open(&folder).await.unwrap());
        let topology = Topology::builtin().unwrap();
        log.ensure_topics(&topology.specs()).await.unwrap();
        let shutdown = Shutdown::new();
        let options = |name: &str, of: &str| {
            let processor = &topology.processors[name];
            Options {
                name: name.into(),
                group: Group::new(name, of),
                topics: processor.consumes.iter().map(|topic| topology.topics[topic.as_str()].clone()).collect(),
                batch: processor.batch,
                log: log.clone(),
                shutdown: shutdown.clone(),
            }
        };
        let registry = ProjectionSink::open(Registry, folder.read_models().join("registry")).await.unwrap();
        let rows = registry.namespace().clone();
        let fold = spawn_sink(registry, options("registry", "test"));
        let options = options("webhooks", "deliveries");
        let parts = WebhookParts {
            log: log.clone(),
            group: options.group.clone(),
            topics: options.topics.clone(),
            registry: rows,
            fold: fold.view(),
        };
        let sink = WebhookSink::open(&folder.webhooks_file(), parts).await.unwrap();
        let deliveries = tokio::spawn(sink.deliveries(webhooks(key), pace()).run(shutdown.clone()));
        let handles = vec![fold, spawn_shared_sink(sink, options)];
        let outbox = folder.webhooks_file();
        self.running = Some(Running { log, handles, deliveries, outbox, shutdown, _folder: folder });
        // Its place is taken before anything is appended.
        let view = self.running().handles[1].view();
        let mut progress = view.progress.clone();
        let assigned = progress.wait_for(|now| !now.positions.is_empty());
        tokio::time::timeout(PATIENCE, assigned).await.unwrap().unwrap();
    }

    async fn stop(&mut self) {
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

    fn path(&self) -> &Path {
        self.dir.path()
    }

    async fn append<E: Event>(&self, event: &E) -> Position {
        self.running().log.append(vec![NewRecord::event(event).unwrap()]).await.unwrap().remove(0)
    }

    /// Waits until registry and webhooks have taken what was appended.
    async fn settle(&self) {
        for handle in &self.running().handles {
            let view = handle.view();
            let ends = view.ends(&*self.running().log).await.unwrap();
            assert!(view.reached(&ends, PATIENCE).await, "{} stands at {:?}", view.name, view.progress.borrow());
        }
    }

    async fn hook(&self, url: &str, events: &[&str], secret: Option<&str>) -> Uuid {
        let id = Uuid::new_v4();
        let sealed = secret.map(|secret| webhooks("the key").seal(&scope(), &id.to_string(), secret).unwrap());
        let event = WebhookChanged {
            name: Some("hook".into()),
            url: Some(url.into()),
            events: events.iter().map(|event| (*event).into()).collect(),
            sealed_secret: sealed,
            ..hook_event(id, WebhookKind::Created)
        };
        self.append(&event).await;
        self.settle().await;
        id
    }

    /// A model that is registered now.
    async fn register(&self, name: &str) -> Position {
        self.append(&registration(name)).await
    }

    /// How many deliveries wait.
    async fn waiting(&self) -> i64 {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&self.running().outbox);
        let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
        let count = sqlx::query_scalar("SELECT count(*) FROM deliveries").fetch_one(&pool).await.unwrap();
        pool.close().await;
        count
    }

    async fn waits_for(&self, count: i64) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while self.waiting().await != count {
            assert!(tokio::time::Instant::now() < deadline, "{} wait, not {count}", self.waiting().await);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn tenant() -> TenantId {
    TenantId::parse("acme").unwrap()
}

fn scope() -> TenantScope {
    TenantScope::authorised(tenant())
}

fn hook_event(id: Uuid, kind: WebhookKind) -> WebhookChanged {
    WebhookChanged::of(Uuid::now_v7(), SystemClock.now(), &tenant(), id, kind)
}

fn of(name: &str, kind: ModelKind) -> ModelRegistered {
    ModelRegistered::of(Uuid::now_v7(), SystemClock.now(), &tenant(), name, kind)
}

fn registration(name: &str) -> ModelRegistered {
    ModelRegistered { registration_id: Some(Uuid::new_v4()), ..of(name, ModelKind::Created) }
}

fn version(name: &str, number: i64) -> ModelRegistered {
    ModelRegistered {
        version: Some(number),
        version_id: Some(Uuid::new_v4()),
        source: Some("s3://bucket/model".into()),
        ..of(name, ModelKind::VersionCreated)
    }
}

fn alias(name: &str, version: Option<i64>) -> ModelPromoted {
    let event = ModelPromoted::of(Uuid::now_v7(), SystemClock.now(), &tenant(), name);
    ModelPromoted { alias: Some("champion".into()), version, ..event }
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<KeyValue> {
    pairs.iter().map(|(key, value)| KeyValue::new(*key, *value)).collect()
}

/// `entity.action` and what was told of it.
fn told(call: &Call) -> (String, Value) {
    let body = call.json();
    (format!("{}.{}", body["entity"].as_str().unwrap(), body["action"].as_str().unwrap()), body["data"].clone())
}

const EVERYTHING: [&str; 10] = [
    "registered_model.created",
    "model_version.created",
    "model_version_tag.set",
    "model_version_tag.deleted",
    "model_version_alias.created",
    "model_version_alias.deleted",
    "prompt.created",
    "prompt_version.created",
    "prompt_tag.set",
    "prompt_alias.created",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn law_09_what_took_effect_is_told_signed_and_in_order_and_nothing_else_is() {
    let world = World::new().await;
    let mut receiver = Receiver::start().await;
    world.hook(&receiver.url, &EVERYTHING, Some(SECRET)).await;
    let mut other = registration("m");
    other.tenant_id = TenantId::parse("other").unwrap();
    world.append(&other).await;
    let first = ModelRegistered { description: Some("of gas".into()), tags: pairs(&[("a", "b")]), ..registration("m") };
    world.append(&first).await;
    // The name is taken: the fold refuses the second claim, and nobody hears of it.
    world.register("m").await;
    world.append(&ModelRegistered { run_id: Some("r".into()), ..version("m", 1) }).await;
    world.append(&version("m", 1)).await;
    let tagged = ModelRegistered {
        version: Some(1),
        tags: pairs(&[("k", "v"), ("l", "w")]),
        removed_tags: vec!["gone".into()],
        ..of("m", ModelKind::VersionTagged)
    };
    world.append(&tagged).await;
    world.append(&ModelRegistered { tags: pairs(&[("k", "v")]), ..of("m", ModelKind::Tagged) }).await;
    // The topics have no order among each other but by time.
    world.settle().await;
    world.append(&alias("m", Some(1))).await;
    world.append(&alias("m", Some(7))).await;
    let staged = ModelPromoted { alias: None, stage: Some("Production".into()), ..alias("m", Some(1)) };
    world.append(&staged).await;
    world.append(&alias("m", None)).await;

    let calls = receiver.take(7).await;
    let tag = |key: &str, value: &str| json!({"name": "m", "version": "1", "key": key, "value": value});
    let expected = [
        ("registered_model.created", json!({"name": "m", "tags": {"a": "b"}, "description": "of gas"})),
        (
            "model_version.created",
            json!({"name": "m", "version": "1", "source": "s3://bucket/model", "run_id": "r", "tags": {},
                "description": null}),
        ),
        ("model_version_tag.set", tag("k", "v")),
        ("model_version_tag.set", tag("l", "w")),
        ("model_version_tag.deleted", json!({"name": "m", "version": "1", "key": "gone"})),
        ("model_version_alias.created", json!({"name": "m", "alias": "champion", "version": "1"})),
        ("model_version_alias.deleted", json!({"name": "m", "alias": "champion"})),
    ];
    for (call, (event, data)) in calls.iter().zip(&expected) {
        assert_eq!(told(call), ((*event).to_owned(), data.clone()));
        let (id, at) = (call.header("x-mlflow-delivery-id"), call.header("x-mlflow-timestamp"));
        assert_eq!(call.header("x-mlflow-signature"), signature(SECRET, id, at, &call.body));
        assert_eq!(call.header("content-type"), "application/json");
        assert!(SystemClock.now().0 / 1000 - at.parse::<i64>().unwrap() < 60);
        assert!(carbon_core::parse_rfc3339(call.json()["timestamp"].as_str().unwrap()).is_some());
    }
    let mut ids: Vec<_> = calls.iter().map(|call| call.header("x-mlflow-delivery-id").to_owned()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), calls.len());
    world.settle().await;
    world.waits_for(0).await;
    assert!(receiver.rest().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prompts_are_told_by_their_own_names() {
    let world = World::new().await;
    let mut receiver = Receiver::start().await;
    world.hook(&receiver.url, &EVERYTHING, None).await;
    let prompt = pairs(&[("mlflow.prompt.is_prompt", "true"), ("mlflow.prompt.text", "Hi {{x}}"), ("a", "b")]);
    world.append(&ModelRegistered { tags: prompt.clone(), ..registration("p") }).await;
    world.append(&ModelRegistered { tags: prompt, ..version("p", 1) }).await;
    world.append(&ModelRegistered { tags: pairs(&[("k", "v")]), ..of("p", ModelKind::Tagged) }).await;
    world.settle().await;
    world.append(&alias("p", Some(1))).await;
    let calls: Vec<_> = receiver.take(4).await.iter().map(told).collect();
    let with_text = json!({"mlflow.prompt.text": "Hi {{x}}", "a": "b"});
    let expected = [
        ("prompt.created", json!({"name": "p", "tags": with_text, "description": null})),
        (
            "prompt_version.created",
            json!({"name": "p", "version": "1", "template": "Hi {{x}}", "tags": {"a": "b"}, "description": null}),
        ),
        ("prompt_tag.set", json!({"name": "p", "key": "k", "value": "v"})),
        ("prompt_alias.created", json!({"name": "p", "alias": "champion", "version": "1"})),
    ];
    assert_eq!(calls, expected.map(|(event, data)| (event.to_owned(), data)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_is_tried_again_with_the_same_id_and_what_never_will_is_not() {
    let world = World::new().await;
    let mut receiver = Receiver::start().await;
    world.hook(&receiver.url, &["registered_model.created"], Some(SECRET)).await;
    receiver.answers(&[Answer::Status(503), Answer::Status(429), Answer::Never, Answer::Status(204)]);
    world.register("again").await;
    let tries = receiver.take(4).await;
    for call in &tries {
        assert_eq!(call.header("x-mlflow-delivery-id"), tries[0].header("x-mlflow-delivery-id"));
        let (id, at) = (call.header("x-mlflow-delivery-id"), call.header("x-mlflow-timestamp"));
        assert_eq!(call.header("x-mlflow-signature"), signature(SECRET, id, at, &call.body));
        assert_eq!((call.name(), &call.body), ("again".to_owned(), &tries[0].body));
    }
    world.waits_for(0).await;
    // A refusal and a redirect are final, and so is the last attempt.
    receiver.answers(&[Answer::Status(404), Answer::Status(302)]);
    world.register("refused").await;
    world.register("redirected").await;
    receiver.answers(&[Answer::Status(500); 5]);
    world.register("given-up").await;
    world.register("after").await;
    let names: Vec<_> = receiver.take(8).await.iter().map(Call::name).collect();
    let expected = ["refused", "redirected", "given-up", "given-up", "given-up", "given-up", "given-up", "after"];
    assert_eq!(names, expected);
    world.waits_for(0).await;
    assert!(receiver.rest().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_does_not_answer_holds_up_nobody_and_keeps_so_much_only() {
    let mut world = World::new().await;
    let (mut silent, mut quick) = (Receiver::start().await, Receiver::start().await);
    silent.answers_always(Answer::Never);
    let events = ["model_version_tag.set", "registered_model.created"];
    world.hook(&silent.url, &events, None).await;
    let closed = world.hook("http://127.0.0.1:1/nobody", &["registered_model.created"], None).await;
    world.hook(&quick.url, &["registered_model.created"], None).await;
    world.register("m").await;
    world.append(&version("m", 1)).await;
    assert_eq!(quick.next().await.name(), "m");
    silent.next().await;
    let tags: Vec<KeyValue> = (0..600).map(|n| KeyValue::new(format!("k{n}"), "v")).collect();
    let tagged = ModelRegistered { version: Some(1), tags, ..of("m", ModelKind::VersionTagged) };
    world.append(&tagged).await;
    world.append(&ModelRegistered { event_id: Uuid::now_v7(), ..tagged }).await;
    world.register("n").await;
    assert_eq!(quick.next().await.name(), "n");
    world.settle().await;
    // Whoever is gone, or is not to be told any more, keeps nothing waiting.
    world.append(&hook_event(closed, WebhookKind::Deleted)).await;
    world.waits_for(MOST_PENDING).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn law_11_nothing_is_replayed_whatever_is_rebuilt_and_a_restart_goes_on() {
    let mut world = World::new().await;
    let mut receiver = Receiver::start().await;
    world.hook(&receiver.url, &["registered_model.created"], Some(SECRET)).await;
    world.register("first").await;
    assert_eq!(receiver.next().await.name(), "first");
    world.waits_for(0).await;
    // What happens while nobody looks is told afterwards, once.
    for (round, lost) in
        [&[][..], &["read-models"], &["webhooks.db"], &["read-models", "webhooks.db"]].iter().enumerate()
    {
        let missed = format!("missed-{round}");
        world.stop().await;
        append_to(world.path(), &registration(&missed)).await;
        for name in *lost {
            remove(&world.path().join(name));
        }
        world.start("the key").await;
        assert_eq!(receiver.next().await.name(), missed, "{lost:?}");
        let marker = format!("marker-{round}");
        world.register(&marker).await;
        assert_eq!(receiver.next().await.name(), marker, "{lost:?}");
        world.settle().await;
        world.waits_for(0).await;
        assert!(receiver.rest().is_empty(), "{lost:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn law_04_what_waited_under_another_log_is_not_told_and_its_history_neither() {
    let mut one = World::new().await;
    let mut receiver = Receiver::start().await;
    receiver.answers_always(Answer::Status(503));
    one.hook(&receiver.url, &["registered_model.created"], None).await;
    one.register("of-one").await;
    receiver.next().await;
    one.stop().await;
    // Another log, with a past of its own, comes under the file.
    let mut other = World::new().await;
    receiver.answers_always(Answer::Status(200));
    other.hook(&receiver.url, &["model_version.created", "registered_model.created"], None).await;
    other.register("past").await;
    other.settle().await;
    other.waits_for(0).await;
    receiver.rest();
    other.stop().await;
    remove(&other.path().join("webhooks.db"));
    std::fs::copy(one.path().join("webhooks.db"), other.path().join("webhooks.db")).unwrap();
    other.start("the key").await;
    other.register("now").await;
    assert_eq!(receiver.next().await.name(), "now");
    other.waits_for(0).await;
    assert!(receiver.rest().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_outlives_a_restart_and_is_held_without_its_key() {
    let mut world = World::new().await;
    let mut receiver = Receiver::start().await;
    let hook = world.hook(&receiver.url, &["registered_model.created"], Some(SECRET)).await;
    receiver.answers_always(Answer::Never);
    world.register("m").await;
    let first = receiver.next().await;
    world.stop().await;
    receiver.answers_always(Answer::Status(200));
    // Unsigned it would be worth nothing, so it waits; others are told meanwhile.
    world.start("another key").await;
    world.hook(&receiver.url, &["registered_model.created"], None).await;
    world.register("n").await;
    let other = receiver.next().await;
    assert_eq!((other.name(), other.header("x-mlflow-signature")), ("n".to_owned(), ""));
    world.waits_for(2).await;
    world.stop().await;
    world.start("the key").await;
    let again = receiver.next().await;
    assert_eq!((again.name(), again.body.as_str()), ("m".to_owned(), first.body.as_str()));
    assert_eq!(again.header("x-mlflow-delivery-id"), first.header("x-mlflow-delivery-id"));
    assert_eq!(receiver.next().await.name(), "n");
    // What a webhook that is disabled would have been told is forgotten.
    world.waits_for(0).await;
    let disabled = WebhookChanged { status: Some("DISABLED".into()), ..hook_event(hook, WebhookKind::Updated) };
    world.append(&disabled).await;
    world.settle().await;
    world.register("o").await;
    assert_eq!((receiver.next().await.name(), receiver.rest().len()), ("o".to_owned(), 0));
    world.waits_for(0).await;
}

/// Appends while nothing else runs.
async fn append_to<E: Event>(root: &Path, event: &E) {
    let folder = DataFolder::open(root).unwrap();
    let log = EmbeddedLog::open(&folder).await.unwrap();
    log.append(vec![NewRecord::event(event).unwrap()]).await.unwrap();
    log.close().await;
}

/// A folder, or a database with what lies beside it.
fn remove(path: &Path) {
    if path.is_dir() {
        return std::fs::remove_dir_all(path).unwrap();
    }
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", path.display()));
    }
}
