//! The checkpoint of a namespace: the next position of each partition, and the log that the positions belong to.

use carbon_core::{Positions, TopicName, TopicPartition};
use sqlx::SqliteConnection;

use crate::error::StoreError;
use crate::row::Row;
use crate::sql::{Dialect, QueryBuilder, Target, query};
use crate::table::{Column, Table};

pub(crate) const TABLES: &[Table] = &[
    Table::new(
        "checkpoint",
        &[Column::text("topic"), Column::int("partition"), Column::int("next")],
        &["topic", "partition"],
    )
    .clustered(),
    // One row.
    Table::new("checkpoint_log", &[Column::int("id").check("id = 1"), Column::text("log")], &["id"]),
];

/// The positions up to which the rows are folded, and the identity of the log that they belong to (law 4).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    pub log: Option<String>,
    pub positions: Positions,
}

/// Why a checkpoint did not move.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// Another process moved the checkpoint: this batch must not commit (law 4).
    #[error("the checkpoint stands at {actual}, not where this batch begins")]
    Moved { actual: Positions },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A move of the checkpoint whose start was compared with the stored one. It commits with the batch.
#[derive(Debug)]
pub(crate) struct Move {
    /// Set if the stored checkpoint names another log, or none.
    log: Option<String>,
    pub from: Positions,
    pub upto: Positions,
}

impl Move {
    /// Compares the stored checkpoint with `from`, in the partitions of `upto`.
    pub fn of(found: Checkpoint, log: &str, from: &Positions, upto: &Positions) -> Result<Self, CheckpointError> {
        let Checkpoint { log: known, positions: actual } = found;
        if upto.iter().any(|(at, _)| actual.next(at) != from.next(at)) {
            return Err(CheckpointError::Moved { actual });
        }
        let log = (known.as_deref() != Some(log) && !upto.is_empty()).then(|| log.to_owned());
        Ok(Self { log, from: from.clone(), upto: upto.clone() })
    }

    /// The statements that write the new checkpoint.
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

/// Begins a write transaction on a connection to a file, and reads the checkpoint and the rows of `reads`, all in one
/// turn.
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
