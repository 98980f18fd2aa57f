//! A log in memory, and a registry that has folded it.

use std::collections::BTreeMap;

use carbon_core::{Partitioner, Position, TenantId, TenantScope, Timestamp, TopicName};
use carbon_read_models::registry::filter::{Target, parse_filter, parse_order_by};
use carbon_read_models::registry::queries::{
    Experiment, Page, Run, SearchRuns, View, experiment, metric_history, run, run_info, search_runs,
};
use carbon_read_models::registry::{Conflict, ConflictCode, Registry, RegistryRecord, verdict};
use carbon_read_models::{Digest, Projection, digest, open};
use carbon_schemas::events::{
    ExperimentChanged, ExperimentKind, KeyValue, LoggedModelChanged, LoggedModelKind, Metric, ModelKind, ModelPromoted,
    ModelRegistered, RunKind, RunLogged, WebhookChanged, WebhookKind,
};
use carbon_schemas::{Decoded, Event, Poison, PoisonReason, Recorded};
use carbon_store::{Namespace, Postgres, Site};
use uuid::Uuid;

/// A registry of its own: a file, or a schema of the Postgres that `CARBON_TEST_POSTGRES` names.
pub struct Rows {
    pub namespace: Namespace,
    _dir: tempfile::TempDir,
}

impl Rows {
    pub async fn new() -> Self {
        match std::env::var("CARBON_TEST_POSTGRES") {
            Ok(address) => {
                let postgres = Postgres::open(&address).await.unwrap();
                Self::at(Site::Schema(postgres, Uuid::new_v4().to_string()), tempfile::tempdir().unwrap()).await
            }
            Err(_) => Self::in_file().await,
        }
    }

    pub async fn in_file() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self::at(Site::File(dir.path().join("rows.db")), dir).await
    }

    async fn at(site: Site, dir: tempfile::TempDir) -> Self {
        Self { namespace: open::<Registry>(&site).await.unwrap(), _dir: dir }
    }

    /// Folds one batch, in one transaction.
    pub async fn fold(&self, batch: &[RegistryRecord]) {
        let mut tables = self.namespace.begin().await.unwrap();
        Registry.apply(&mut tables, batch).await.unwrap();
        tables.commit().await.unwrap();
    }

    pub async fn digest(&self) -> Digest {
        digest::<Registry>(&self.namespace).await.unwrap()
    }
}

/// Any event of the registry's topics.
#[derive(Clone, Debug)]
pub enum Fact {
    Experiment(ExperimentChanged),
    Run(Box<RunLogged>),
    Model(Box<LoggedModelChanged>),
    Registered(Box<ModelRegistered>),
    Promoted(Box<ModelPromoted>),
    Webhook(Box<WebhookChanged>),
}

impl From<ModelRegistered> for Fact {
    fn from(event: ModelRegistered) -> Self {
        Self::Registered(Box::new(event))
    }
}

impl From<WebhookChanged> for Fact {
    fn from(event: WebhookChanged) -> Self {
        Self::Webhook(Box::new(event))
    }
}

impl From<ModelPromoted> for Fact {
    fn from(event: ModelPromoted) -> Self {
        Self::Promoted(Box::new(event))
    }
}

impl From<ExperimentChanged> for Fact {
    fn from(event: ExperimentChanged) -> Self {
        Self::Experiment(event)
    }
}

impl From<LoggedModelChanged> for Fact {
    fn from(event: LoggedModelChanged) -> Self {
        Self::Model(Box::new(event))
    }
}

impl From<RunLogged> for Fact {
    fn from(event: RunLogged) -> Self {
        Self::Run(Box::new(event))
    }
}

/// Gives events their positions, each in the partition of its key.
#[derive(Default)]
pub struct Writer {
    next: BTreeMap<(&'static str, u32), u64>,
}

impl Writer {
    fn place<E: Event>(&mut self, key: &E::Key, partitions: u32) -> Position {
        let partition = Partitioner::Murmur2.partition(E::partition_key(key).as_bytes(), partitions);
        let next = self.next.entry((E::NAME, partition)).or_default();
        *next += 1;
        Position::new(TopicName::parse(E::NAME).unwrap(), partition, *next - 1)
    }

    fn recorded<E: Event>(&mut self, event: E, partitions: u32) -> Recorded<E> {
        // What the decoder would not take is no test of the fold.
        event.check().unwrap();
        let key = event.key().unwrap();
        let position = self.place::<E>(&key, partitions);
        let body = Decoded::Event { key, event };
        Recorded { timestamp: Timestamp(position.offset as i64), position, traceparent: None, body }
    }

    pub fn write(&mut self, fact: impl Into<Fact>) -> RegistryRecord {
        match fact.into() {
            Fact::Experiment(event) => RegistryRecord::Experiment(self.recorded(event, 1)),
            Fact::Run(event) => RegistryRecord::Run(self.recorded(*event, 6)),
            Fact::Model(event) => RegistryRecord::LoggedModel(self.recorded(*event, 1)),
            Fact::Registered(event) => RegistryRecord::Model(self.recorded(*event, 1)),
            Fact::Promoted(event) => RegistryRecord::Promotion(self.recorded(*event, 1)),
            Fact::Webhook(event) => RegistryRecord::Webhook(self.recorded(*event, 1)),
        }
    }

    /// A record of a run that the decoder refused.
    pub fn poison(&mut self, run_id: &str, rejected: bool) -> RegistryRecord {
        let key = logged(run_id).key().unwrap();
        let position = self.place::<RunLogged>(&key, 6);
        let poison = Poison { reason: PoisonReason::Malformed, message: "bad".into() };
        let body = if rejected { Decoded::Rejected { poison } } else { Decoded::Quarantined { key, poison } };
        RegistryRecord::Run(Recorded { timestamp: Timestamp(0), position, traceparent: None, body })
    }

    /// A null value for a run.
    pub fn null(&mut self, run_id: &str) -> RegistryRecord {
        let key = logged(run_id).key().unwrap();
        let position = self.place::<RunLogged>(&key, 6);
        let body = Decoded::Null { key };
        RegistryRecord::Run(Recorded { timestamp: Timestamp(0), position, traceparent: None, body })
    }
}

pub fn position(record: &RegistryRecord) -> &Position {
    carbon_schemas::Feed::position(record)
}

/// A log, and the registry that folds each record as it comes.
pub struct World {
    pub rows: Rows,
    writer: Writer,
    log: Vec<RegistryRecord>,
}

impl World {
    pub async fn new() -> Self {
        Self { rows: Rows::new().await, writer: Writer::default(), log: Vec::new() }
    }

    /// With experiment 1 in it.
    pub async fn with_experiment() -> Self {
        let mut world = Self::new().await;
        world.takes(created(1, "one")).await;
        world
    }

    /// With experiment 1, and in it run `r`.
    pub async fn with_run() -> Self {
        let mut world = Self::with_experiment().await;
        world.takes(started("r", 1)).await;
        world
    }

    pub fn namespace(&self) -> &Namespace {
        &self.rows.namespace
    }

    /// The verdict on a record that comes alone.
    pub async fn when(&mut self, fact: impl Into<Fact>) -> Option<Conflict> {
        let record = self.writer.write(fact);
        self.fold(std::slice::from_ref(&record)).await;
        verdict(self.namespace(), position(&record)).await.unwrap()
    }

    pub async fn fold(&mut self, batch: &[RegistryRecord]) {
        self.rows.fold(batch).await;
        self.log.extend_from_slice(batch);
    }

    pub fn writer(&mut self) -> &mut Writer {
        &mut self.writer
    }

    pub async fn takes(&mut self, fact: impl Into<Fact>) {
        assert_eq!(self.when(fact).await, None);
    }

    /// The record changes nothing but for its conflict row, which has this code and message.
    pub async fn refuses(&mut self, fact: impl Into<Fact>, code: ConflictCode, message: &str) {
        let before = self.truth().await;
        assert_eq!(self.when(fact).await, Some(Conflict::new(code, message)));
        assert_eq!(self.truth().await, before, "what is refused changes nothing");
    }

    /// All rows but the conflicts.
    async fn truth(&self) -> Vec<String> {
        let mut rows = Vec::new();
        for part in Registry::CANONICAL.iter().filter(|part| !part.starts_with("SELECT 'conflict'")) {
            for row in carbon_store::query(*part).fetch_all(self.namespace().readers()).await.unwrap() {
                rows.push(row.canonical().unwrap());
            }
        }
        rows
    }

    /// The whole log at once, and record by record again, folds to the same rows; in a file too.
    pub async fn refolds(&self) {
        let (at_once, singly) = (Rows::in_file().await, Rows::new().await);
        at_once.fold(&self.log).await;
        for record in &self.log {
            singly.fold(std::slice::from_ref(record)).await;
        }
        let own = self.rows.digest().await;
        assert!(own.rows > 0);
        assert_eq!(at_once.digest().await, own);
        assert_eq!(singly.digest().await, own);
    }

    pub async fn experiment(&self, id: i64) -> Experiment {
        experiment(self.namespace(), &scope("acme"), id).await.unwrap().unwrap()
    }

    pub async fn run(&self, run_id: &str) -> Run {
        run(self.namespace(), &scope("acme"), run_id).await.unwrap().unwrap()
    }

    pub async fn history(&self, run_id: &str, key: &str, limit: usize, offset: usize) -> Page<Metric> {
        let info = run_info(self.namespace(), &scope("acme"), run_id).await.unwrap().unwrap();
        metric_history(self.namespace(), &info, key, limit, offset).await.unwrap()
    }

    pub async fn search(&self, search: &SearchRuns) -> Page<Run> {
        search_runs(self.namespace(), &scope("acme"), search).await.unwrap()
    }

    /// The ids of the active runs of experiment 1.
    pub async fn found(&self, filter: &str, order_by: &[&str]) -> Vec<String> {
        ids(self.search(&in_one(View::Active, filter, order_by)).await)
    }
}

pub fn ids(page: Page<Run>) -> Vec<String> {
    assert!(!page.more);
    page.items.into_iter().map(|run| run.info.run_id).collect()
}

/// A search of experiment 1.
pub fn in_one(view: View, filter: &str, order_by: &[&str]) -> SearchRuns {
    SearchRuns {
        experiments: vec![1],
        view,
        filter: parse_filter(Target::Runs, filter).unwrap(),
        order_by: order_by.iter().map(|term| parse_order_by(Target::Runs, term).unwrap()).collect(),
        limit: 1000,
        offset: 0,
    }
}

pub fn tenant(name: &str) -> TenantId {
    TenantId::parse(name).unwrap()
}

pub fn scope(name: &str) -> TenantScope {
    TenantScope::authorised(tenant(name))
}

/// Says nothing yet of experiment `id` of acme.
pub fn of(id: i64, kind: ExperimentKind) -> ExperimentChanged {
    ExperimentChanged::of(Uuid::nil(), Timestamp(1_000), &tenant("acme"), id, kind)
}

pub fn created(id: i64, name: &str) -> ExperimentChanged {
    ExperimentChanged {
        name: Some(name.into()),
        artifact_location: Some(format!("mlflow-artifacts:/{id}")),
        ..of(id, ExperimentKind::Created)
    }
}

pub fn renamed(id: i64, name: &str) -> ExperimentChanged {
    ExperimentChanged { name: Some(name.into()), ..of(id, ExperimentKind::Renamed) }
}

pub fn run_of(run_id: &str, kind: RunKind) -> RunLogged {
    RunLogged::of(Uuid::nil(), Timestamp(1_000), &tenant("acme"), run_id, kind)
}

pub fn started(run_id: &str, experiment_id: i64) -> RunLogged {
    RunLogged {
        experiment_id: Some(experiment_id.to_string()),
        run_name: Some(format!("name of {run_id}")),
        user_id: Some("ann".into()),
        status: Some("RUNNING".into()),
        start_time: Some(100),
        artifact_uri: Some(format!("mlflow-artifacts:/{experiment_id}/{run_id}/artifacts")),
        ..run_of(run_id, RunKind::Started)
    }
}

pub fn model_of(id: &str, kind: LoggedModelKind) -> LoggedModelChanged {
    LoggedModelChanged::of(Uuid::nil(), Timestamp(1_000), &tenant("acme"), id, kind)
}

/// A logged model of experiment 1.
pub fn model_created(id: &str, name: &str) -> LoggedModelChanged {
    LoggedModelChanged {
        experiment_id: Some("1".into()),
        name: Some(name.into()),
        artifact_uri: Some(format!("mlflow-artifacts:/1/models/{id}/artifacts")),
        ..model_of(id, LoggedModelKind::Created)
    }
}

pub fn registered(at: i64, name: &str, kind: ModelKind) -> ModelRegistered {
    ModelRegistered::of(Uuid::nil(), Timestamp(at), &tenant("acme"), name, kind)
}

/// A name that gets a life of its own.
pub fn registration(at: i64, name: &str, id: u128) -> ModelRegistered {
    ModelRegistered { registration_id: Some(Uuid::from_u128(id)), ..registered(at, name, ModelKind::Created) }
}

/// Version `number` of a name, with an id of its own.
pub fn version(at: i64, name: &str, number: i64, id: u128) -> ModelRegistered {
    ModelRegistered {
        version: Some(number),
        version_id: Some(Uuid::from_u128(id)),
        source: Some(format!("s3://models/{id}")),
        ..registered(at, name, ModelKind::VersionCreated)
    }
}

pub fn promotion(at: i64, name: &str) -> ModelPromoted {
    ModelPromoted::of(Uuid::nil(), Timestamp(at), &tenant("acme"), name)
}

pub fn staged(at: i64, name: &str, number: i64, stage: &str) -> ModelPromoted {
    ModelPromoted { version: Some(number), stage: Some(stage.into()), ..promotion(at, name) }
}

pub fn aliased(at: i64, name: &str, number: Option<i64>, alias: &str) -> ModelPromoted {
    ModelPromoted { version: number, alias: Some(alias.into()), ..promotion(at, name) }
}

pub fn webhook_of(at: i64, id: u128, kind: WebhookKind) -> WebhookChanged {
    WebhookChanged::of(Uuid::nil(), Timestamp(at), &tenant("acme"), Uuid::from_u128(id), kind)
}

pub fn hooked(at: i64, id: u128, events: &[&str]) -> WebhookChanged {
    WebhookChanged {
        name: Some(format!("hook {id}")),
        url: Some(format!("https://example.com/{id}")),
        events: events.iter().map(|event| (*event).into()).collect(),
        ..webhook_of(at, id, WebhookKind::Created)
    }
}

pub fn logged(run_id: &str) -> RunLogged {
    run_of(run_id, RunKind::Logged)
}

pub fn params(run_id: &str, params: &[(&str, &str)]) -> RunLogged {
    RunLogged { params: pairs(params), ..logged(run_id) }
}

pub fn tags(run_id: &str, tags: &[(&str, &str)]) -> RunLogged {
    RunLogged { tags: pairs(tags), ..logged(run_id) }
}

pub fn metrics(run_id: &str, metrics: Vec<Metric>) -> RunLogged {
    RunLogged { metrics, ..logged(run_id) }
}

pub fn metric(key: &str, value: f64, timestamp: i64, step: i64) -> Metric {
    Metric { key: key.into(), value, timestamp, step, model_id: None, dataset_name: None, dataset_digest: None }
}

pub fn pairs(pairs: &[(&str, &str)]) -> Vec<KeyValue> {
    pairs.iter().map(|(key, value)| KeyValue::new(*key, *value)).collect()
}

pub fn keys<'a>(pairs: impl IntoIterator<Item = &'a KeyValue>) -> Vec<&'a str> {
    pairs.into_iter().map(|pair| pair.key.as_str()).collect()
}
