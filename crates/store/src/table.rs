//! Tables and indexes as values. The DDL of each store is produced from them, so it is written once.

use std::fmt::Write as _;

use crate::sql::Dialect;
use crate::value::Kind;

/// Characters of a long text that an index on Postgres covers: an index entry holds at most 2,700 bytes there.
pub const INDEXED_CHARS: usize = 256;

/// A table of a namespace, with its indexes.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    name: &'static str,
    columns: &'static [Column],
    primary_key: &'static [&'static str],
    clustered: bool,
    indexes: &'static [Index],
    only: Option<Dialect>,
}

/// A column of a table. It rejects NULL unless [`Column::nullable`] says otherwise.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    name: &'static str,
    kind: Kind,
    nullable: bool,
    check: Option<&'static str>,
}

impl Column {
    pub const fn int(name: &'static str) -> Self {
        Self::new(name, Kind::Int)
    }

    pub const fn real(name: &'static str) -> Self {
        Self::new(name, Kind::Real)
    }

    /// A text. Both stores compare texts by their bytes.
    pub const fn text(name: &'static str) -> Self {
        Self::new(name, Kind::Text)
    }

    pub const fn bytes(name: &'static str) -> Self {
        Self::new(name, Kind::Bytes)
    }

    const fn new(name: &'static str, kind: Kind) -> Self {
        Self { name, kind, nullable: false, check: None }
    }

    /// The column accepts NULL.
    pub const fn nullable(mut self) -> Self {
        self.nullable = true;
        self
    }

    /// The column accepts only values for which this SQL condition holds.
    pub const fn check(mut self, condition: &'static str) -> Self {
        self.check = Some(condition);
        self
    }

    fn ddl(&self, dialect: Dialect) -> String {
        let kind = match (dialect, self.kind) {
            (Dialect::Sqlite, Kind::Int) => "INTEGER",
            (Dialect::Sqlite, Kind::Real) => "REAL",
            (Dialect::Sqlite, Kind::Text) => "TEXT",
            (Dialect::Sqlite, Kind::Bytes) => "BLOB",
            (Dialect::Postgres, Kind::Int) => "BIGINT",
            (Dialect::Postgres, Kind::Real) => "DOUBLE PRECISION",
            (Dialect::Postgres, Kind::Text) => "TEXT COLLATE \"C\"",
            (Dialect::Postgres, Kind::Bytes) => "BYTEA",
        };
        let null = if self.nullable { "" } else { " NOT NULL" };
        let check = self.check.map(|condition| format!(" CHECK ({condition})")).unwrap_or_default();
        format!("{} {kind}{null}{check}", quoted(self.name))
    }
}

/// An index of a table.
#[derive(Clone, Copy, Debug)]
pub struct Index {
    name: &'static str,
    columns: &'static [IndexColumn],
    unique: bool,
    filter: Option<&'static str>,
}

/// A column of an index.
#[derive(Clone, Copy, Debug)]
pub enum IndexColumn {
    Asc(&'static str),
    Desc(&'static str),
    /// A text that may be long: Postgres covers its first [`INDEXED_CHARS`] characters, SQLite all of it.
    Long(&'static str),
}

impl Index {
    pub const fn new(name: &'static str, columns: &'static [IndexColumn]) -> Self {
        Self { name, columns, unique: false, filter: None }
    }

    pub const fn unique(mut self) -> Self {
        self.unique = true;
        self
    }

    /// Covers only the rows for which this SQL condition holds.
    pub const fn only_where(mut self, condition: &'static str) -> Self {
        self.filter = Some(condition);
        self
    }

    fn ddl(&self, table: &str, dialect: Dialect) -> String {
        let column = |column: &IndexColumn| match (dialect, *column) {
            (_, IndexColumn::Asc(name)) | (Dialect::Sqlite, IndexColumn::Long(name)) => quoted(name),
            (_, IndexColumn::Desc(name)) => format!("{} DESC", quoted(name)),
            (Dialect::Postgres, IndexColumn::Long(name)) => format!("left({}, {INDEXED_CHARS})", quoted(name)),
        };
        let columns: Vec<String> = self.columns.iter().map(column).collect();
        let unique = if self.unique { "UNIQUE " } else { "" };
        let filter = self.filter.map(|condition| format!(" WHERE {condition}")).unwrap_or_default();
        let (name, table) = (quoted(self.name), quoted(table));
        format!("CREATE {unique}INDEX IF NOT EXISTS {name} ON {table} ({}){filter};\n", columns.join(", "))
    }
}

impl Table {
    pub const fn new(name: &'static str, columns: &'static [Column], primary_key: &'static [&'static str]) -> Self {
        Self { name, columns, primary_key, clustered: false, indexes: &[], only: None }
    }

    /// SQLite stores the rows in the order of the primary key (`WITHOUT ROWID`). Postgres has no such tables.
    pub const fn clustered(mut self) -> Self {
        self.clustered = true;
        self
    }

    pub const fn indexes(mut self, indexes: &'static [Index]) -> Self {
        self.indexes = indexes;
        self
    }

    /// Only this store has the table.
    pub const fn only_on(mut self, dialect: Dialect) -> Self {
        self.only = Some(dialect);
        self
    }

    /// The statements that create the table and its indexes where they are missing; empty for a table of the other
    /// store.
    pub fn ddl(&self, dialect: Dialect) -> String {
        if self.only.is_some_and(|only| only != dialect) {
            return String::new();
        }
        let mut ddl = format!("CREATE TABLE IF NOT EXISTS {} (", quoted(self.name));
        for column in self.columns {
            // A `String` takes everything.
            let _ = write!(ddl, "{}, ", column.ddl(dialect));
        }
        let key: Vec<String> = self.primary_key.iter().map(|name| quoted(name)).collect();
        let clustered = if self.clustered && dialect == Dialect::Sqlite { " WITHOUT ROWID" } else { "" };
        let _ = writeln!(ddl, "PRIMARY KEY ({})){clustered};", key.join(", "));
        self.indexes.iter().for_each(|index| ddl.push_str(&index.ddl(self.name, dialect)));
        ddl
    }
}

/// The DDL of several tables.
pub(crate) fn ddl<'t>(tables: impl IntoIterator<Item = &'t Table>, dialect: Dialect) -> String {
    tables.into_iter().map(|table| table.ddl(dialect)).collect()
}

/// Quoted, so that a column may have the name of a keyword, such as `offset`.
fn quoted(name: &str) -> String {
    format!("\"{name}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNS: Table = Table::new(
        "runs",
        &[
            Column::text("tenant_id"),
            Column::int("offset"),
            Column::real("score").nullable(),
            Column::bytes("body"),
            Column::text("state").check("state IN ('open', 'closed')"),
        ],
        &["tenant_id", "offset"],
    )
    .clustered()
    .indexes(&[
        Index::new("runs_page", &[IndexColumn::Asc("tenant_id"), IndexColumn::Desc("offset")]).unique(),
        Index::new("runs_state", &[IndexColumn::Long("state")]).only_where("score IS NULL"),
    ]);

    #[test]
    fn each_store_gets_ddl_in_its_own_types() {
        assert_eq!(
            RUNS.ddl(Dialect::Sqlite),
            "CREATE TABLE IF NOT EXISTS \"runs\" (\"tenant_id\" TEXT NOT NULL, \"offset\" INTEGER NOT NULL, \
             \"score\" REAL, \"body\" BLOB NOT NULL, \"state\" TEXT NOT NULL CHECK (state IN ('open', 'closed')), \
             PRIMARY KEY (\"tenant_id\", \"offset\")) WITHOUT ROWID;\n\
             CREATE UNIQUE INDEX IF NOT EXISTS \"runs_page\" ON \"runs\" (\"tenant_id\", \"offset\" DESC);\n\
             CREATE INDEX IF NOT EXISTS \"runs_state\" ON \"runs\" (\"state\") WHERE score IS NULL;\n"
        );
        assert_eq!(
            RUNS.ddl(Dialect::Postgres),
            "CREATE TABLE IF NOT EXISTS \"runs\" (\"tenant_id\" TEXT COLLATE \"C\" NOT NULL, \"offset\" BIGINT NOT NULL, \
             \"score\" DOUBLE PRECISION, \"body\" BYTEA NOT NULL, \
             \"state\" TEXT COLLATE \"C\" NOT NULL CHECK (state IN ('open', 'closed')), \
             PRIMARY KEY (\"tenant_id\", \"offset\"));\n\
             CREATE UNIQUE INDEX IF NOT EXISTS \"runs_page\" ON \"runs\" (\"tenant_id\", \"offset\" DESC);\n\
             CREATE INDEX IF NOT EXISTS \"runs_state\" ON \"runs\" (left(\"state\", 256)) WHERE score IS NULL;\n"
        );
    }

    #[test]
    fn a_table_of_one_store_has_no_ddl_for_the_other() {
        let table = RUNS.only_on(Dialect::Sqlite);
        assert!(table.ddl(Dialect::Postgres).is_empty() && !table.ddl(Dialect::Sqlite).is_empty());
    }
}
