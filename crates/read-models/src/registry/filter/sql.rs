//! The SQL of a comparison.

use super::{Comparator, Literal};
use carbon_store::{Dialect, QueryBuilder};

/// Adds `column <comparator> value` to a query and binds the value. The column is an expression of the program, never
/// of a caller. If the column is NULL the comparison is NULL, also for `!=` and NOT IN: such a row is not found. A
/// combination that no filter produces, such as `<` with a list, finds nothing.
///
/// On SQLite LIKE becomes GLOB, since the LIKE of SQLite ignores the case of ASCII letters and therefore stands for
/// ILIKE. Postgres has both; each needs `ESCAPE ''`, since a backslash is an escape there.
pub fn push_comparison(query: &mut QueryBuilder, column: &str, comparator: Comparator, value: &Literal) {
    match (comparator, value) {
        (Comparator::IsNull | Comparator::IsNotNull, _) => {
            query.push(format_args!("{column} {comparator}"));
        }
        (Comparator::In | Comparator::NotIn, Literal::List(texts)) if !texts.is_empty() => {
            query.push(format_args!("{column} {comparator} ("));
            for (n, text) in texts.iter().enumerate() {
                query.push(if n == 0 { "" } else { ", " }).push_bind(text.clone());
            }
            query.push(")");
        }
        (Comparator::Like, Literal::Text(pattern)) => match query.dialect {
            Dialect::Sqlite => _ = query.push(format_args!("{column} GLOB ")).push_bind(glob(pattern)),
            Dialect::Postgres => {
                query.push(format_args!("{column} LIKE ")).push_bind(pattern.clone()).push(" ESCAPE ''");
            }
        },
        (Comparator::Ilike, Literal::Text(pattern)) => match query.dialect {
            Dialect::Sqlite => _ = query.push(format_args!("{column} LIKE ")).push_bind(pattern.clone()),
            Dialect::Postgres => {
                query.push(format_args!("{column} ILIKE ")).push_bind(pattern.clone()).push(" ESCAPE ''");
            }
        },
        (
            Comparator::Eq | Comparator::Ne | Comparator::Lt | Comparator::Le | Comparator::Gt | Comparator::Ge,
            Literal::Text(_) | Literal::Number(_),
        ) => {
            query.push(format_args!("{column} {comparator} "));
            match value {
                Literal::Number(number) => match number.integer {
                    Some(integer) => query.push_bind(integer),
                    None => query.push_bind(number.value),
                },
                Literal::Text(text) => query.push_bind(text.clone()),
                Literal::List(_) | Literal::None => query.push("NULL"),
            };
        }
        _ => {
            query.push("1 = 0");
        }
    }
}

/// Translates a pattern of LIKE to GLOB: the wildcards differ, and a character that is a wildcard only in GLOB becomes
/// a class.
pub(super) fn glob(pattern: &str) -> String {
    let mut glob = String::with_capacity(pattern.len());
    for c in pattern.chars() {
        match c {
            '%' => glob.push('*'),
            '_' => glob.push('?'),
            '*' | '?' | '[' => glob.extend(['[', c, ']']),
            c => glob.push(c),
        }
    }
    glob
}
