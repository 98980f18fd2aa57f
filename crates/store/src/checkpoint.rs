//! The checkpoint of a namespace: how far its rows have come, and in which log.

use carbon_core::{Positions, TopicName, TopicPartition};
use sqlx::SqliteConnection;

use crate::error::StoreError;
use crate::row::Row;
use crate::sql::{Dialect, QueryBuilder, Target, query};

pub(crate) const DDL: &str = "
CREATE TABLE IF NOT EXISTS checkpoint (
    topic TEXT NOT NULL, partition INTEGER NOT NULL, next INTEGER NOT NULL,
    PRIMARY KEY (topic, partition)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS checkpoint_log (id INTEGER PRIMARY KEY CHECK (id = 1), log TEXT NOT NULL);
";

/// A checkpoint: positions, and the log (law 4) in which they were reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    pub log: Option<String>,
    pub positions: Positions,
}

/// Why a checkpoint did not move.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// Somebody else has moved it: this batch must not land (law 4).
    #[error("the checkpoint stands at {actual}, not where this batch begins")]
    Moved { actual: Positions },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A move of the checkpoint that was found to begin where it stands; it is written with the batch's commit.
#[derive(Debug)]
pub(crate) struct Move {
    /// Where it is another than that of the rows so far.
    log: Option<String>,
    pub from: Positions,
    pub upto: Positions,
}

impl Move {
    /// Only the partitions of `upto` are compared and moved.
    pub fn of(found: Checkpoint, log: &str, from: &Positions, upto: &Positions) -> Result<Self, CheckpointError> {
        let Checkpoint { log: known, positions: actual } = found;
        if upto.iter().any(|(at, _)| actual.next(at) != from.next(at)) {
            return Err(CheckpointError::Moved { actual });
        }
        let log = (known.as_deref() != Some(log) && !upto.is_empty()).then(|| log.to_owned());
        Ok(Self { log, from: from.clone(), upto: upto.clone() })
    }

    /// The statements that write it.
    pub fn statements(&self, dialect: Dialect) -> Vec<QueryBuilder> {
        let mut statements = Vec::new();
        if !self.upto.is_empty() {
            let mut insert = QueryBuilder::new(dialect, "INSERT INTO checkpoint (topic, partition, next) ");
            insert.push_values(self.upto.iter(), |mut row, (at, next)| {
                row.push_bind(at.topic.as_str()).push_bind(i64::from(at.partition)).push_bind(next as i64);
            });
            insert.push(" ON CONFLICT (topic, partition) DO UPDATE SET next = excluded.next");
            statements.push(insert);
        }
        if let Some(log) = &self.log {
            let mut insert = QueryBuilder::new(dialect, "INSERT INTO checkpoint_log (id, log) VALUES (1, ");
            insert.push_bind(log).push(") ON CONFLICT (id) DO UPDATE SET log = excluded.log");
            statements.push(insert);
        }
        statements
    }
}

const READ: &str =
    "SELECT c.topic, c.partition, c.next, l.log FROM checkpoint c LEFT JOIN checkpoint_log l ON l.id = 1";

pub(crate) async fn read<'c>(on: impl Into<Target<'c>>) -> Result<Checkpoint, StoreError> {
    found(query(READ).fetch_all(on).await?)
}

/// Begins a write transaction on a file's connection, and reads the checkpoint and what else is asked for, all in one turn.
pub(crate) async fn begin(
    connection: &mut SqliteConnection,
    reads: Vec<QueryBuilder>,
) -> Result<(Checkpoint, Vec<Row>), StoreError> {
    let mut all = QueryBuilder::new(Dialect::Sqlite, "BEGIN IMMEDIATE");
    all.append(QueryBuilder::new(Dialect::Sqlite, READ));
    reads.into_iter().for_each(|read| all.append(read));
    let mut of_statements = all.build().fetch_each(connection).await?.into_iter().skip(1);
    let checkpoint = found(of_statements.next().unwrap_or_default())?;
    Ok((checkpoint, of_statements.flatten().collect()))
}

fn found(rows: Vec<Row>) -> Result<Checkpoint, StoreError> {
    let mut checkpoint = Checkpoint::default();
    for row in rows {
        let topic: String = row.try_get(0)?;
        let topic = TopicName::parse(&topic).map_err(|error| StoreError::Corrupt(error.to_string()))?;
        let (partition, next): (i64, i64) = (row.try_get(1)?, row.try_get(2)?);
        checkpoint.positions.set(TopicPartition::new(topic, partition as u32), next as u64);
        checkpoint.log = row.try_get(3)?;
    }
    Ok(checkpoint)
}
