//! The embedded log: a SQLite file (WAL, `synchronous=FULL`, group commit) that one process opens. Appends notify the
//! readers in memory.

mod compact;
mod connection;
mod definitions;
mod folder;
mod group_commit;
mod headers;
mod health;
mod insert;
mod reader_task;
mod recent;
mod state;
mod writer;

use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use carbon_core::{Clock, Position, Positions, SystemClock, Timestamp, TopicName, TopicPartition, TopicSpec};
use carbon_schemas::{Fingerprint, SchemaId};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Row};
use uuid::Uuid;

use crate::error::LogError;
use crate::event_log::{EventLog, Foreign, Group, GroupDescription, TopicDescription};
use crate::record::{NewRecord, Record};
use crate::stream::RecordStream;
use connection::WriterConnection;
use health::{Access, Health};
use state::LogState;
use writer::{LogWriter, Request};

pub use compact::CompactionReport;
pub use folder::DataFolder;

const DDL: &str = "
CREATE TABLE IF NOT EXISTS topic (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, partitions INTEGER NOT NULL, cleanup TEXT NOT NULL,
    partitioner TEXT NOT NULL, retention_ms INTEGER, min_compaction_lag_ms INTEGER NOT NULL,
    delete_retention_ms INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS partition (
    topic INTEGER NOT NULL, partition INTEGER NOT NULL, start INTEGER NOT NULL, next INTEGER NOT NULL,
    timestamp INTEGER NOT NULL, PRIMARY KEY (topic, partition)
) WITHOUT ROWID;
-- id: topic (11 bits), partition (12 bits), offset (40 bits), so that a partition is one range of the table.
CREATE TABLE IF NOT EXISTS record (
    id INTEGER PRIMARY KEY, timestamp INTEGER NOT NULL, key BLOB, value BLOB, headers BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS schema (fingerprint BLOB PRIMARY KEY, event TEXT NOT NULL, json TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS group_offset (
    grp TEXT NOT NULL, topic INTEGER NOT NULL, partition INTEGER NOT NULL, next INTEGER NOT NULL,
    PRIMARY KEY (grp, topic, partition)
) WITHOUT ROWID;
-- One row each time the log was opened: its id, and the ends that it found (law 4).
CREATE TABLE IF NOT EXISTS opening (seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, ends TEXT NOT NULL);
";

/// Maximum time that a check waits for the writer task, which may be compacting.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// Bits of an offset in a row id.
const OFFSET_BITS: u32 = 40;
/// Bits of a partition number in a row id.
const PARTITION_BITS: u32 = 12;

/// The row id of a record.
pub(crate) fn row_id(topic: i64, partition: u32, offset: u64) -> i64 {
    (topic << (OFFSET_BITS + PARTITION_BITS)) | (i64::from(partition) << OFFSET_BITS) | offset as i64
}

/// The offset in the row id of a record.
pub(crate) fn offset_of(id: i64) -> u64 {
    (id & ((1 << OFFSET_BITS) - 1)) as u64
}

/// The log in one SQLite file. [`DataFolder`] holds a lock, so that only one process opens the file.
pub struct EmbeddedLog {
    /// The id of this opening.
    identity: String,
    state: Arc<LogState>,
    readers: SqlitePool,
    writer: LogWriter,
    path: std::path::PathBuf,
}

impl EmbeddedLog {
    /// Opens or creates `log.db` in a locked data folder.
    pub async fn open(folder: &DataFolder) -> Result<Self, LogError> {
        Self::open_with_clock(folder, Arc::new(SystemClock)).await
    }

    /// Opens or creates `log.db`. `clock` supplies the log-append time of the records.
    pub async fn open_with_clock(folder: &DataFolder, clock: Arc<dyn Clock>) -> Result<Self, LogError> {
        let path = folder.log_file();
        folder.reject_lost_log()?;
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(10))
            .pragma("mmap_size", "0")
            // The statements of an append depend on its number of records and partitions, so there are many.
            .statement_cache_capacity(256);
        let mut connection = options.connect().await?;
        sqlx::raw_sql(DDL).execute(&mut connection).await?;
        // If the file is deleted, a later connection must not create an empty one.
        let options = options.create_if_missing(false);
        let state = Arc::new(LogState::load(&mut connection, Health::of(&path)?).await?);
        let readers = open_readers(options.clone().pragma("query_only", "on"), state.clone());
        let identity = Uuid::now_v7().to_string();
        let ends: Vec<(String, u32, u64)> =
            state.ends().iter().map(|(at, next)| (at.topic.to_string(), at.partition, next)).collect();
        let ends = serde_json::to_string(&ends).map_err(|error| LogError::Corrupt(error.to_string()))?;
        sqlx::query("INSERT INTO opening (id, ends) VALUES ($1, $2)")
            .bind(&identity)
            .bind(ends)
            .execute(&mut connection)
            .await?;
        let connection = WriterConnection::new(options, connection, state.clone()).await?;
        let writer = LogWriter::spawn(connection, state.clone(), clock);
        let log = Self { identity, state, readers, writer, path };
        for version in carbon_schemas::versions() {
            log.put_schema(version.event, version.json).await?;
        }
        Ok(log)
    }

    /// Deletes the records that compaction and retention allow at the clock's time.
    pub async fn compact(&self) -> Result<CompactionReport, LogError> {
        self.writer.request(|reply| Request::Compact { reply }).await
    }

    /// Runs a query, and records its outcome for [`EventLog::check`].
    async fn query<T>(&self, query: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, LogError> {
        self.state.health.record_outcome(Access::Read, query.await.map_err(LogError::from))
    }
}

/// The pool of connections for reads. A connection is opened when it is needed, and rejected if the path then names
/// another file.
fn open_readers(options: SqliteConnectOptions, state: Arc<LogState>) -> SqlitePool {
    SqlitePoolOptions::new()
        .max_connections(6)
        .acquire_timeout(Duration::from_secs(30))
        .after_connect(move |_, _| {
            let files = state.health.check_files().map_err(|error| sqlx::Error::Configuration(Box::new(error)));
            Box::pin(std::future::ready(files))
        })
        .connect_lazy_with(options)
}

#[async_trait]
impl EventLog for EmbeddedLog {
    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Position>, LogError> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let records = self.state.validate(records)?;
        self.writer.request(|reply| Request::Append { records, advance: None, reply }).await
    }

    async fn append_and_advance(
        &self,
        group: &Group,
        records: Vec<NewRecord>,
        from: &Positions,
        upto: &Positions,
    ) -> Result<Vec<Position>, LogError> {
        let records = self.state.validate(records)?;
        self.state.check(upto)?;
        let advance = Some(writer::Advance { group: group.clone(), from: Some(from.clone()), upto: upto.clone() });
        self.writer.request(|reply| Request::Append { records, advance, reply }).await
    }

    async fn subscribe(&self, group: &Group, topics: &[TopicName]) -> Result<RecordStream, LogError> {
        let mut partitions = Vec::new();
        for topic in topics {
            let spec = self.state.topic(topic)?.spec;
            partitions.extend((0..spec.partitions).map(|partition| TopicPartition::new(topic.clone(), partition)));
        }
        Ok(reader_task::join(self.state.clone(), self.readers.clone(), group.clone(), partitions))
    }

    async fn follow(&self, from: &Positions) -> Result<RecordStream, LogError> {
        self.state.check(from)?;
        Ok(reader_task::follow(self.state.clone(), self.readers.clone(), from.clone()))
    }

    async fn read(&self, at: &TopicPartition, from: u64, max: usize) -> Result<Vec<Record>, LogError> {
        let partition = self.state.partition(at)?;
        let fetched = reader_task::fetch(&self.readers, at, partition.topic_id, from, partition.next, max).await;
        Ok(self.state.health.record_outcome(Access::Read, fetched)?.records)
    }

    async fn commit(&self, group: &Group, positions: &Positions) -> Result<(), LogError> {
        if positions.is_empty() {
            return Ok(());
        }
        self.state.check(positions)?;
        let advance = Some(writer::Advance { group: group.clone(), from: None, upto: positions.clone() });
        let answer: Result<Vec<Position>, LogError> =
            self.writer.request(|reply| Request::Append { records: Vec::new(), advance, reply }).await;
        answer.map(drop)
    }

    async fn committed(&self, group: &Group) -> Result<Positions, LogError> {
        self.state.health.record_outcome(Access::Read, reader_task::committed(&self.readers, &self.state, group).await)
    }

    async fn groups(&self) -> Result<Vec<GroupDescription>, LogError> {
        let names = sqlx::query_scalar("SELECT DISTINCT grp FROM group_offset").fetch_all(&self.readers);
        let names: Vec<String> = self.query(names).await?;
        let members =
            |group: &Group| usize::from(self.state.members().get(group).is_some_and(|member| !member.is_closed()));
        let mut groups: std::collections::BTreeSet<Group> =
            names.iter().filter_map(|name| Group::parse(name)).collect();
        groups.extend(self.state.members().keys().cloned());
        let mut found = Vec::with_capacity(groups.len());
        for group in groups {
            let positions = self.committed(&group).await?;
            found.push(GroupDescription { members: members(&group), positions, group });
        }
        Ok(found)
    }

    async fn ends(&self, topic: &TopicName) -> Result<Positions, LogError> {
        self.state.topic(topic)?;
        Ok(self.state.ends().of_topic(topic))
    }

    async fn positions_for_time(&self, topic: &TopicName, time: Timestamp) -> Result<Positions, LogError> {
        let spec = self.state.topic(topic)?.spec;
        let mut positions = Positions::new();
        for partition in 0..spec.partitions {
            let at = TopicPartition::new(topic.clone(), partition);
            let found = self.state.partition(&at)?;
            // Timestamps never decrease within a partition, so the first match is the answer. They have no index.
            let id = sqlx::query_scalar(
                "SELECT id FROM record WHERE id >= $1 AND id < $2 AND timestamp >= $3 ORDER BY id LIMIT 1",
            )
            .bind(row_id(found.topic_id, partition, 0))
            .bind(row_id(found.topic_id, partition, found.next))
            .bind(time.0)
            .fetch_optional(&self.readers);
            let id: Option<i64> = self.query(id).await?;
            positions.set(at, id.map_or(found.next, offset_of));
        }
        Ok(positions)
    }

    async fn ensure_topics(&self, topics: &[TopicSpec]) -> Result<(), LogError> {
        self.writer.request(|reply| Request::EnsureTopics { topics: topics.to_vec(), reply }).await
    }

    async fn describe(&self) -> Result<Vec<TopicDescription>, LogError> {
        Ok(self.state.describe())
    }

    async fn delete_records(&self, before: &Positions) -> Result<(), LogError> {
        self.state.check(before)?;
        self.writer.request(|reply| Request::DeleteRecords { before: before.clone(), reply }).await
    }

    async fn put_schema(&self, event: &str, json: &str) -> Result<SchemaId, LogError> {
        self.writer.request(|reply| Request::PutSchema { event: event.to_owned(), json: json.to_owned(), reply }).await
    }

    async fn schema(&self, id: SchemaId) -> Result<Option<String>, LogError> {
        let SchemaId::Fingerprint(Fingerprint(bytes)) = id else { return Ok(None) };
        let json = sqlx::query_scalar("SELECT json FROM schema WHERE fingerprint = $1");
        self.query(json.bind(bytes.to_vec()).fetch_optional(&self.readers)).await
    }

    fn identity(&self) -> &str {
        &self.identity
    }

    async fn recognise(&self, log: &str, positions: &Positions) -> Result<Option<Foreign>, LogError> {
        let seq = sqlx::query_scalar("SELECT seq FROM opening WHERE id = $1").bind(log);
        let seq: Option<i64> = self.query(seq.fetch_optional(&self.readers)).await?;
        let Some(seq) = seq else { return Ok(Some(Foreign::UnknownOpening { checkpoint: log.to_owned() })) };
        let next = sqlx::query_scalar("SELECT ends FROM opening WHERE seq > $1 ORDER BY seq LIMIT 1").bind(seq);
        let next: Option<String> = self.query(next.fetch_optional(&self.readers)).await?;
        let ends = match next {
            Some(json) => parse_ends(&json)?,
            // The checkpoint is from the current opening.
            None => self.state.ends(),
        };
        let past = positions.iter().find(|(at, next)| *next > ends.next(at));
        Ok(past.map(|(at, next)| Foreign::PastEnd { at: at.clone(), next, end: ends.next(at) }))
    }

    async fn check(&self) -> Result<(), LogError> {
        self.writer.check()?;
        let health = &self.state.health;
        health.check_writable()?;
        // A failed access is retried here: while the log is reported as failing, there may be no other request.
        if let Some(failure) = health.failure(Access::Write) {
            let probe =
                tokio::time::timeout(PROBE_TIMEOUT, self.writer.request(|reply| Request::Probe { reply })).await;
            probe.unwrap_or(Err(LogError::Unavailable(failure)))?;
        }
        if health.failure(Access::Read).is_some() {
            self.query(sqlx::query("SELECT seq FROM opening LIMIT 1").fetch_optional(&self.readers)).await?;
        }
        Ok(())
    }

    async fn size(&self) -> Result<Option<u64>, LogError> {
        let mut bytes = 0;
        for suffix in ["", "-wal"] {
            let mut name = self.path.clone().into_os_string();
            name.push(suffix);
            bytes += std::fs::metadata(name).map_or(0, |file| file.len());
        }
        Ok(Some(bytes))
    }

    async fn close(&self) {
        self.writer.close().await;
        self.state.close();
        self.readers.close().await;
    }
}

/// Parses the column `ends` of an opening.
fn parse_ends(json: &str) -> Result<Positions, LogError> {
    let ends: Vec<(String, u32, u64)> =
        serde_json::from_str(json).map_err(|error| LogError::Corrupt(format!("opening: {error}")))?;
    ends.into_iter()
        .map(|(topic, partition, next)| {
            let topic = TopicName::from_str(&topic).map_err(|error| LogError::Corrupt(error.to_string()))?;
            Ok((TopicPartition::new(topic, partition), next))
        })
        .collect()
}

/// A text column of a row.
pub(crate) fn text(row: &sqlx::sqlite::SqliteRow, index: usize) -> Result<&str, LogError> {
    Ok(row.try_get(index)?)
}
