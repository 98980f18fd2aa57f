//! A log in memory, and a registry that has folded it.

use carbon_core::Position;
use carbon_read_models::registry::filter::{Target, parse_filter, parse_order_by};
use carbon_read_models::registry::queries::{
    Experiment, Page, Run, SearchRuns, View, experiment, metric_history, run, run_info, search_runs,
};
use carbon_read_models::registry::{Conflict, ConflictCode, Registry, RegistryRecord, verdict};
use carbon_read_models::{Digest, Projection, digest, open};
use carbon_schemas::events::Metric;
use carbon_store::{Namespace, Site, testing};

pub use crate::events::*;
pub use crate::log::{Fact, LogWriter};

/// An empty registry, in a file or in the tests' Postgres.
pub struct Rows {
    pub namespace: Namespace,
    _dir: tempfile::TempDir,
}

impl Rows {
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self::at(testing::site(&dir.path().join("rows.db")).await, dir).await
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
        let tables = self.namespace.begin().await.unwrap();
        let folded = Registry.apply(tables, batch).await.unwrap();
        folded.commit().await.unwrap();
    }

    pub async fn digest(&self) -> Digest {
        digest::<Registry>(&self.namespace).await.unwrap()
    }
}

pub fn position(record: &RegistryRecord) -> &Position {
    carbon_schemas::Feed::position(record)
}

/// A log, and the registry that folds each record as it comes.
pub struct World {
    pub rows: Rows,
    writer: LogWriter,
    log: Vec<RegistryRecord>,
}

impl World {
    pub async fn new() -> Self {
        Self { rows: Rows::new().await, writer: LogWriter::default(), log: Vec::new() }
    }

    /// A world with experiment 1.
    pub async fn with_experiment() -> Self {
        let mut world = Self::new().await;
        world.takes(created(1, "one")).await;
        world
    }

    /// A world with experiment 1 and its run `r`.
    pub async fn with_run() -> Self {
        let mut world = Self::with_experiment().await;
        world.takes(started("r", 1)).await;
        world
    }

    pub fn namespace(&self) -> &Namespace {
        &self.rows.namespace
    }

    /// Folds a record alone and returns the verdict.
    pub async fn when(&mut self, fact: impl Into<Fact>) -> Option<Conflict> {
        let record = self.writer.write(fact);
        self.fold(std::slice::from_ref(&record)).await;
        verdict(self.namespace(), position(&record)).await.unwrap()
    }

    pub async fn fold(&mut self, batch: &[RegistryRecord]) {
        self.rows.fold(batch).await;
        self.log.extend_from_slice(batch);
    }

    pub fn writer(&mut self) -> &mut LogWriter {
        &mut self.writer
    }

    pub async fn takes(&mut self, fact: impl Into<Fact>) {
        assert_eq!(self.when(fact).await, None);
    }

    /// Asserts that the record changes nothing except for its conflict row, which has this code and message.
    pub async fn refuses(&mut self, fact: impl Into<Fact>, code: ConflictCode, message: &str) {
        let before = self.truth().await;
        assert_eq!(self.when(fact).await, Some(Conflict::new(code, message)));
        assert_eq!(self.truth().await, before, "a rejected record changes nothing");
    }

    /// All rows except conflicts.
    async fn truth(&self) -> Vec<String> {
        let mut rows = Vec::new();
        let canonical = Registry::canonical(self.namespace().dialect());
        for sql in canonical.into_iter().filter(|sql| !sql.starts_with("SELECT 'conflict'")) {
            for row in
                carbon_store::query(sqlx::AssertSqlSafe(sql)).fetch_all(self.namespace().readers()).await.unwrap()
            {
                rows.push(row.canonical().unwrap());
            }
        }
        rows
    }

    /// Asserts that the whole log in one batch, and record by record, folds to the same rows; also in a file.
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
