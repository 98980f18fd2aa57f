//! Rows that a statement returns.

use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{Column as _, Row as _, TypeInfo as _, ValueRef as _};

use crate::value::{json_unescaped, unescaped};

/// A row of either store.
pub enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

impl From<SqliteRow> for Row {
    fn from(row: SqliteRow) -> Self {
        Row::Sqlite(row)
    }
}

impl From<PgRow> for Row {
    fn from(row: PgRow) -> Self {
        Row::Postgres(row)
    }
}

impl Row {
    pub fn try_get<T: Get>(&self, at: usize) -> Result<T, sqlx::Error> {
        T::get(self, at)
    }

    /// A column of JSON that the store built from stored texts.
    pub fn json_text(&self, at: usize) -> Result<Option<String>, sqlx::Error> {
        match self {
            Row::Sqlite(row) => row.try_get(at),
            Row::Postgres(row) => row.try_get::<Option<String>, _>(at).map(|text| text.map(json_unescaped)),
        }
    }

    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        match self {
            Row::Sqlite(row) => row.len(),
            Row::Postgres(row) => row.len(),
        }
    }

    /// The row as a JSON array, which is the same in either store. Bytes are written in hexadecimal.
    pub fn canonical(&self) -> Result<String, sqlx::Error> {
        let values: Result<Vec<serde_json::Value>, sqlx::Error> = (0..self.len()).map(|at| self.json(at)).collect();
        Ok(serde_json::Value::Array(values?).to_string())
    }

    fn json(&self, at: usize) -> Result<serde_json::Value, sqlx::Error> {
        let kind = match self {
            Row::Sqlite(row) => {
                let value = row.try_get_raw(at)?;
                if value.is_null() { None } else { Some(value.type_info().name().to_owned()) }
            }
            Row::Postgres(row) => {
                let null = row.try_get_raw(at)?.is_null();
                (!null).then(|| row.column(at).type_info().name().to_owned())
            }
        };
        Ok(match kind.as_deref() {
            None => serde_json::Value::Null,
            Some("INTEGER" | "BOOLEAN" | "INT8" | "INT4" | "BOOL") => self.try_get::<i64>(at)?.into(),
            Some("REAL" | "FLOAT8") => {
                let value = self.try_get::<f64>(at)?;
                // JSON has no infinity: the number becomes a text.
                serde_json::Number::from_f64(value).map_or_else(|| value.to_string().into(), Into::into)
            }
            Some("BLOB" | "BYTEA") => {
                let bytes = self.try_get::<Vec<u8>>(at)?;
                bytes.iter().map(|byte| format!("{byte:02X}")).collect::<String>().into()
            }
            Some(_) => self.try_get::<String>(at)?.into(),
        })
    }
}

/// A type in which a column can be read.
pub trait Get: Sized {
    fn get(row: &Row, at: usize) -> Result<Self, sqlx::Error>;
}

impl Get for i64 {
    fn get(row: &Row, at: usize) -> Result<Self, sqlx::Error> {
        Option::<i64>::get(row, at)?.ok_or_else(|| null(at))
    }
}

impl Get for bool {
    fn get(row: &Row, at: usize) -> Result<Self, sqlx::Error> {
        i64::get(row, at).map(|value| value != 0)
    }
}

impl Get for f64 {
    fn get(row: &Row, at: usize) -> Result<Self, sqlx::Error> {
        Option::<f64>::get(row, at)?.ok_or_else(|| null(at))
    }
}

impl Get for String {
    fn get(row: &Row, at: usize) -> Result<Self, sqlx::Error> {
        Option::<String>::get(row, at)?.ok_or_else(|| null(at))
    }
}

impl Get for Vec<u8> {
    fn get(row: &Row, at: usize) -> Result<Self, sqlx::Error> {
        Option::<Vec<u8>>::get(row, at)?.ok_or_else(|| null(at))
    }
}

impl Get for Option<i64> {
    fn get(row: &Row, at: usize) -> Result<Self, sqlx::Error> {
        match row {
            Row::Sqlite(row) => row.try_get(at),
            // The type of a literal is `int4`, that of a condition is `bool`.
            Row::Postgres(row) => match row.column(at).type_info().name() {
                "INT4" => row.try_get::<Option<i32>, _>(at).map(|value| value.map(i64::from)),
                "BOOL" => row.try_get::<Option<bool>, _>(at).map(|value| value.map(i64::from)),
                _ => row.try_get(at),
            },
        }
    }
}

impl Get for Option<bool> {
    fn get(row: &Row, at: usize) -> Result<Self, sqlx::Error> {
        Option::<i64>::get(row, at).map(|value| value.map(|value| value != 0))
    }
}

impl Get for Option<f64> {
    fn get(row: &Row, at: usize) -> Result<Self, sqlx::Error> {
        match row {
            Row::Sqlite(row) => row.try_get(at),
            Row::Postgres(row) => row.try_get(at),
        }
    }
}

impl Get for Option<String> {
    fn get(row: &Row, at: usize) -> Result<Self, sqlx::Error> {
        match row {
            Row::Sqlite(row) => row.try_get(at),
            Row::Postgres(row) => row.try_get::<Option<String>, _>(at).map(|text| text.map(unescaped)),
        }
    }
}

impl Get for Option<Vec<u8>> {
    fn get(row: &Row, at: usize) -> Result<Self, sqlx::Error> {
        match row {
            Row::Sqlite(row) => row.try_get(at),
            Row::Postgres(row) => row.try_get(at),
        }
    }
}

fn null(at: usize) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: at.to_string(), source: Box::new(sqlx::error::UnexpectedNullError) }
}
