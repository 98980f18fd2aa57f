//! What the fold says of a record (law 9): nothing where it took effect, else a conflict row at its position.

use std::fmt;

use carbon_core::Position;
use carbon_store::{Namespace, QueryBuilder, StoreError, Tables};

/// Why a record changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConflictCode {
    /// A name that somebody has.
    AlreadyExists,
    /// A number or id that somebody has: the writer may try the next.
    IdTaken,
    DoesNotExist,
    /// Something that is there forbids it.
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

/// A record's outcome, where it changed nothing.
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

/// The verdict on the record at a position that is folded; `None` where it took effect.
pub async fn verdict(namespace: &Namespace, position: &Position) -> Result<Option<Conflict>, StoreError> {
    // Nearly every record takes effect, and who folded it here need not be asked.
    if namespace.remarked(position) == Some(false) {
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

pub(super) async fn write(tables: &mut Tables<'_>, conflicts: &[(&Position, Conflict)]) -> Result<(), StoreError> {
    conflicts.iter().for_each(|(position, _)| tables.remark(position));
    for chunk in conflicts.chunks(500) {
        let mut insert =
            QueryBuilder::new(tables.dialect(), "INSERT INTO conflicts (topic, partition, \"offset\", code, message) ");
        insert.push_values(chunk, |mut bind, (position, conflict)| {
            bind.push_bind(position.topic.as_str())
                .push_bind(i64::from(position.partition))
                .push_bind(position.offset as i64)
                .push_bind(conflict.code.as_str())
                .push_bind(conflict.message.as_str());
        });
        insert.push(" ON CONFLICT (topic, partition, \"offset\") DO NOTHING");
        insert.build().execute(tables.connection()).await?;
    }
    Ok(())
}
