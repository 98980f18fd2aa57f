//! A group commit: assigns offsets to the appends that wait, checks the offsets of their groups, and writes all of them
//! in one transaction.

use std::collections::{BTreeMap, HashMap};

use carbon_core::{Position, Positions, TopicName, TopicPartition};
use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection as _, Sqlite, Transaction};

use super::insert::{MAX_ONE_CALL_RECORDS, Row, commit_in_one_call, insert, store_offsets, store_partitions};
use super::row_id;
use super::state::{LogState, PackedRecord, PartitionState};
use super::writer::{Advance, AppendRequest, Reply};
use crate::error::LogError;
use crate::event_log::Group;

/// The answer to an append, sent after the commit.
pub(super) struct PendingReply {
    pub positions: Result<Vec<Position>, LogError>,
    pub reply: Reply<Vec<Position>>,
}

/// An append of a stage, whose group's offsets must be checked.
type CheckedAppend = (Vec<PackedRecord>, Advance, Reply<Vec<Position>>);

/// Owns the appends of one transaction.
#[derive(Default)]
pub(super) struct GroupCommit {
    /// The log-append time in milliseconds.
    now: i64,
    /// The partitions after the commit.
    pub changed: BTreeMap<TopicPartition, PartitionState>,
    pub rows: Vec<Row>,
    pub replies: Vec<PendingReply>,
    /// The group offsets after the commit.
    advances: BTreeMap<(String, TopicPartition), u64>,
}

impl GroupCommit {
    pub fn new(now: i64) -> Self {
        Self { now, ..Self::default() }
    }

    /// Writes and commits the appends. On success and on failure [`Self::replies`] holds an answer for each append.
    pub async fn write(
        &mut self,
        connection: &mut SqliteConnection,
        state: &LogState,
        group: Vec<AppendRequest>,
    ) -> Result<(), LogError> {
        let mut checked = Vec::new();
        for (records, advance, reply) in group {
            match advance {
                Some(advance) if advance.from.is_some() => checked.push((records, advance, reply)),
                advance => {
                    self.advances.extend(advance.into_iter().flat_map(advanced_offsets));
                    let positions = Ok(self.assign_offsets(state, records));
                    self.replies.push(PendingReply { positions, reply });
                }
            }
        }
        let small = checked.is_empty() && self.advances.is_empty() && self.rows.len() <= MAX_ONE_CALL_RECORDS;
        // An append leaves its slot when its answer is in `replies`. The slots that remain after a failure are answered
        // below.
        let mut slots: Vec<_> = checked.into_iter().map(Some).collect();
        let outcome = async {
            fail::fail_point!("log::append", |_| Err(injected()));
            match small {
                true => commit_in_one_call(connection, &self.rows, &self.changed).await?,
                false => self.commit_in_transaction(connection, state, &mut slots).await?,
            }
            fail::fail_point!("log::appended", |_| Err(injected()));
            Ok(())
        }
        .await;
        for (_, _, reply) in slots.into_iter().flatten() {
            self.replies.push(PendingReply { positions: Err(LogError::Closed), reply });
        }
        outcome
    }

    /// Commits statement by statement, after it has checked the groups' offsets.
    async fn commit_in_transaction(
        &mut self,
        connection: &mut SqliteConnection,
        state: &LogState,
        slots: &mut [Option<CheckedAppend>],
    ) -> Result<(), LogError> {
        let mut tx = connection.begin_with("BEGIN IMMEDIATE").await?;
        for slot in slots {
            let Some((_, advance, _)) = slot else { continue };
            let mut actual = offsets(&mut tx, state, &advance.group).await?;
            let Some((records, advance, reply)) = slot.take() else { continue };
            // Earlier appends of this transaction may have advanced the group.
            for ((group, at), next) in &self.advances {
                if group == advance.group.as_str() {
                    actual.set(at.clone(), *next);
                }
            }
            let from = advance.from.clone().unwrap_or_default();
            let positions = if advance.upto.iter().all(|(at, _)| actual.next(at) == from.next(at)) {
                self.advances.extend(advanced_offsets(advance));
                Ok(self.assign_offsets(state, records))
            } else {
                Err(LogError::Fenced { group: advance.group.to_string(), actual })
            };
            self.replies.push(PendingReply { positions, reply });
        }
        insert(&mut tx, &self.rows).await?;
        store_partitions(&mut tx, &self.changed).await?;
        store_offsets(&mut tx, state, &self.advances).await?;
        rolled_back(&mut tx).await?;
        fail::fail_point!("log::commit", |_| Err(injected()));
        Ok(tx.commit().await?)
    }

    /// Assigns each record its offset and timestamp. Timestamps never decrease within a partition.
    fn assign_offsets(&mut self, state: &LogState, records: Vec<PackedRecord>) -> Vec<Position> {
        let mut positions = Vec::with_capacity(records.len());
        for record in records {
            let at = record.at.clone();
            // `LogState::validate` has found the partition.
            let Some(partition) = self.changed.get(&at).copied().or_else(|| state.partition(&at).ok()) else {
                continue;
            };
            let timestamp = self.now.max(partition.timestamp);
            self.rows.push((row_id(partition.topic_id, at.partition, partition.next), timestamp, record));
            positions.push(Position::new(at.topic.clone(), at.partition, partition.next));
            self.changed.insert(at, PartitionState { next: partition.next + 1, timestamp, ..partition });
        }
        positions
    }
}

fn injected() -> LogError {
    LogError::Unavailable("injected".into())
}

/// Failpoint `log::rolled_back`: rolls the transaction back without sqlx's knowledge, as SQLite does when the disk is
/// full.
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

/// The group offsets after an advance.
fn advanced_offsets(advance: Advance) -> Vec<((String, TopicPartition), u64)> {
    let group = advance.group.to_string();
    advance.upto.iter().map(|(at, next)| ((group.clone(), at.clone()), next)).collect()
}

/// The committed offsets of a group.
async fn offsets(tx: &mut Transaction<'_, Sqlite>, state: &LogState, group: &Group) -> Result<Positions, LogError> {
    let rows: Vec<(i64, i64, i64)> = sqlx::query_as("SELECT topic, partition, next FROM group_offset WHERE grp = $1")
        .bind(group.as_str())
        .fetch_all(&mut **tx)
        .await?;
    Ok(positions_of_rows(state, rows))
}

/// The positions in rows of `group_offset`: topic id, partition, next offset.
pub(super) fn positions_of_rows(state: &LogState, rows: Vec<(i64, i64, i64)>) -> Positions {
    let names: HashMap<i64, TopicName> = state.topics().into_iter().map(|topic| (topic.id, topic.spec.name)).collect();
    rows.into_iter()
        .filter_map(|(topic, partition, next)| {
            Some((TopicPartition::new(names.get(&topic)?.clone(), partition as u32), next as u64))
        })
        .collect()
}
