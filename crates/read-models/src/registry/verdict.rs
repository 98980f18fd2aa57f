//! The verdict of the fold on a record (law 9): a conflict row at its position, or none if the record took effect.

use std::fmt;

use carbon_core::Position;
use carbon_store::{Dialect, Namespace, QueryBuilder, StoreError};

use super::bulk::with_values;
use super::commits::RegistryCommits;

/// Why a record changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConflictCode {
    /// The name is taken.
    AlreadyExists,
    /// The number or id is taken: the writer may try the next one.
    IdTaken,
    DoesNotExist,
    /// The stored rows forbid the change.
    Refused,
}

impl ConflictCode {
    pub fn as_str(self) -> &'static str {
        match self {
            ConflictCode::AlreadyExists => "already_exists",
            ConflictCode::IdTaken => "id_taken",
            ConflictCode::DoesNotExist => "does_not_exist",
            ConflictCode::Refused => "refused",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let all = [Self::AlreadyExists, Self::IdTaken, Self::DoesNotExist, Self::Refused];
        all.into_iter().find(|code| code.as_str() == text)
    }
}

impl fmt::Display for ConflictCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The outcome of a record that changed nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    pub code: ConflictCode,
    pub message: String,
}

impl Conflict {
    pub fn new(code: ConflictCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// The verdict on the record at a position, which must be folded; `None` if the record took effect.
pub async fn verdict(namespace: &Namespace, position: &Position) -> Result<Option<Conflict>, StoreError> {
    // Nearly every record takes effect, and the process that folded it knows that without a query.
    if namespace.hook::<RegistryCommits>().and_then(|commits| commits.had_conflict(position)) == Some(false) {
        return Ok(None);
    }
    let row = carbon_store::query(
        "SELECT code, message FROM conflicts WHERE topic = $1 AND partition = $2 AND \"offset\" = $3",
    )
    .bind(position.topic.as_str())
    .bind(i64::from(position.partition))
    .bind(position.offset as i64)
    .fetch_optional(namespace.readers())
    .await?;
    let Some(row) = row else { return Ok(None) };
    let code: String = row.try_get(0)?;
    let code = ConflictCode::parse(&code).ok_or_else(|| StoreError::Corrupt(format!("conflicts: code {code:?}")))?;
    Ok(Some(Conflict { code, message: row.try_get(1)? }))
}

/// The statements that write conflict rows.
pub(super) fn writes<'c>(
    dialect: Dialect,
    conflicts: &'c [(&Position, Conflict)],
) -> impl Iterator<Item = QueryBuilder> + 'c {
    with_values(
        dialect,
        conflicts,
        "INSERT INTO conflicts (topic, partition, \"offset\", code, message) ",
        |mut bind, (position, conflict)| {
            bind.push_bind(position.topic.as_str())
                .push_bind(i64::from(position.partition))
                .push_bind(position.offset as i64)
                .push_bind(conflict.code.as_str())
                .push_bind(conflict.message.as_str());
        },
        " ON CONFLICT (topic, partition, \"offset\") DO NOTHING",
    )
}
