//! The appends that commit together: positions are given, groups compared, rows written, in one transaction.

use std::collections::{BTreeMap, HashMap};

use carbon_core::{Position, Positions, TopicName, TopicPartition};
use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection as _, Sqlite, Transaction};

use super::insert::{AT_ONCE, Row, at_once, insert, store_offsets, store_partitions};
use super::row_id;
use super::state::{Partition, Placed, State};
use super::writer::{Advance, Asked, Reply};
use crate::error::LogError;
use crate::event_log::Group;

/// An append whose records are written in the open transaction.
pub(super) struct Written {
    pub positions: Result<Vec<Position>, LogError>,
    pub reply: Reply<Vec<Position>>,
}

/// An append whose group must stand where it says.
type Compared = (Vec<Placed>, Advance, Reply<Vec<Position>>);

/// The appends of one transaction.
#[derive(Default)]
pub(super) struct Batch {
    /// Milliseconds.
    now: i64,
    pub changed: BTreeMap<TopicPartition, Partition>,
    pub rows: Vec<Row>,
    pub written: Vec<Written>,
    advances: BTreeMap<(String, TopicPartition), u64>,
}

impl Batch {
    pub fn new(now: i64) -> Self {
        Self { now, ..Self::default() }
    }

    pub async fn write(
        &mut self,
        connection: &mut SqliteConnection,
        state: &State,
        group: Vec<Asked>,
    ) -> Result<(), LogError> {
        let mut compared = Vec::new();
        for (records, advance, reply) in group {
            match advance {
                Some(advance) if advance.from.is_some() => compared.push((records, advance, reply)),
                advance => {
                    self.advances.extend(advance.into_iter().flat_map(moves));
                    let positions = Ok(self.number(state, records));
                    self.written.push(Written { positions, reply });
                }
            }
        }
        let small = compared.is_empty() && self.advances.is_empty() && self.rows.len() <= AT_ONCE;
        // From here on every reply is answered by way of `written`, also when a statement fails.
        let mut parked: Vec<_> = compared.into_iter().map(Some).collect();
        let outcome = async {
            fail::fail_point!("log::append", |_| Err(injected()));
            match small {
                true => at_once(connection, &self.rows, &self.changed).await?,
                false => self.in_turns(connection, state, &mut parked).await?,
            }
            fail::fail_point!("log::appended", |_| Err(injected()));
            Ok(())
        }
        .await;
        for (_, _, reply) in parked.into_iter().flatten() {
            self.written.push(Written { positions: Err(LogError::Closed), reply });
        }
        outcome
    }

    /// Statement by statement; the positions of groups are compared first.
    async fn in_turns(
        &mut self,
        connection: &mut SqliteConnection,
        state: &State,
        compared: &mut [Option<Compared>],
    ) -> Result<(), LogError> {
        let mut tx = connection.begin_with("BEGIN IMMEDIATE").await?;
        for slot in compared {
            let Some((_, advance, _)) = slot else { continue };
            let mut actual = offsets(&mut tx, state, &advance.group).await?;
            let Some((records, advance, reply)) = slot.take() else { continue };
            // What this transaction has moved already.
            for ((group, at), next) in &self.advances {
                if group == advance.group.as_str() {
                    actual.set(at.clone(), *next);
                }
            }
            let from = advance.from.clone().unwrap_or_default();
            let positions = if advance.upto.iter().all(|(at, _)| actual.next(at) == from.next(at)) {
                self.advances.extend(moves(advance));
                Ok(self.number(state, records))
            } else {
                Err(LogError::Fenced { group: advance.group.to_string(), actual })
            };
            self.written.push(Written { positions, reply });
        }
        insert(&mut tx, &self.rows).await?;
        store_partitions(&mut tx, &self.changed).await?;
        store_offsets(&mut tx, state, &self.advances).await?;
        rolled_back(&mut tx).await?;
        fail::fail_point!("log::commit", |_| Err(injected()));
        Ok(tx.commit().await?)
    }

    /// Gives each record its offset and its time, which never goes back within a partition.
    fn number(&mut self, state: &State, records: Vec<Placed>) -> Vec<Position> {
        let mut positions = Vec::with_capacity(records.len());
        for record in records {
            let at = record.at.clone();
            // `place` found the partition before.
            let Some(partition) = self.changed.get(&at).copied().or_else(|| state.partition(&at).ok()) else {
                continue;
            };
            let timestamp = self.now.max(partition.timestamp);
            self.rows.push((row_id(partition.topic_id, at.partition, partition.next), timestamp, record));
            positions.push(Position::new(at.topic.clone(), at.partition, partition.next));
            self.changed.insert(at, Partition { next: partition.next + 1, timestamp, ..partition });
        }
        positions
    }
}

fn injected() -> LogError {
    LogError::Unavailable("injected".into())
}

/// A test may have SQLite roll the transaction back by itself: `log::rolled_back`.
async fn rolled_back(tx: &mut SqliteConnection) -> Result<(), LogError> {
    fn is_set() -> bool {
        fail::fail_point!("log::rolled_back", |_| true);
        false
    }
    if is_set() {
        sqlx::raw_sql("ROLLBACK").execute(tx).await?;
        return Err(injected());
    }
    Ok(())
}

fn moves(advance: Advance) -> Vec<((String, TopicPartition), u64)> {
    let group = advance.group.to_string();
    advance.upto.iter().map(|(at, next)| ((group.clone(), at.clone()), next)).collect()
}

async fn offsets(tx: &mut Transaction<'_, Sqlite>, state: &State, group: &Group) -> Result<Positions, LogError> {
    let rows: Vec<(i64, i64, i64)> = sqlx::query_as("SELECT topic, partition, next FROM group_offset WHERE grp = $1")
        .bind(group.as_str())
        .fetch_all(&mut **tx)
        .await?;
    Ok(name_offsets(state, rows))
}

/// Turns rows of `group_offset` into positions.
pub(super) fn name_offsets(state: &State, rows: Vec<(i64, i64, i64)>) -> Positions {
    let names: HashMap<i64, TopicName> = state.topics().into_iter().map(|topic| (topic.id, topic.spec.name)).collect();
    rows.into_iter()
        .filter_map(|(topic, partition, next)| {
            Some((TopicPartition::new(names.get(&topic)?.clone(), partition as u32), next as u64))
        })
        .collect()
}
