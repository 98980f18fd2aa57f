//! Statements over many rows: one statement for each chunk of rows.

use std::borrow::Cow;

use carbon_store::{Dialect, QueryBuilder, Separated};

/// Rows in one statement.
pub(super) const CHUNK: usize = 500;

/// Statements of the form `before VALUES (…), (…) after`, built one by one as they are asked for. `bind` binds one row.
pub(super) fn with_values<'r, T>(
    dialect: Dialect,
    rows: &'r [T],
    before: impl Into<Cow<'r, str>>,
    bind: impl Fn(Separated<'_>, &T) + 'r,
    after: impl Into<Cow<'r, str>>,
) -> impl Iterator<Item = QueryBuilder> + 'r {
    let (before, after) = (before.into(), after.into());
    rows.chunks(CHUNK).map(move |chunk| {
        let mut statement = QueryBuilder::new(dialect, &*before);
        statement.push_values(chunk, &bind).push(&after);
        statement
    })
}
