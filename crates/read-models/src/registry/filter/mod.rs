//! MLflow's search grammar: `filter` and `order_by` of the searches for experiments, runs and models.
//!
//! Accepts what MLflow's server answers with 200. That is less than what MLflow's parser accepts: a key or an operator
//! that the target does not have is rejected here too. The messages are those of MLflow, since clients match on them.

mod attributes;
mod lex;
mod order;
mod parse;
mod sql;
#[cfg(test)]
mod tests;
mod values;

use std::fmt;

pub use order::parse_order_by;
pub use parse::parse_filter;
pub use sql::push_comparison;

/// Maximum length of a filter or of a term of `order_by`, in bytes.
pub const MAX_BYTES: usize = 64 * 1024;
/// Maximum number of clauses of a filter. SQLite accepts expressions up to a depth of 1,000, and a chain of ANDs is as
/// deep as it is long.
pub const MAX_CLAUSES: usize = 500;
/// Maximum length of a pattern of LIKE and ILIKE, in bytes. SQLite accepts 50,000, and the translation to GLOB may
/// triple the length.
pub const MAX_PATTERN_BYTES: usize = 16 * 1024;

/// The things that a search returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Runs,
    Experiments,
    RegisteredModels,
    ModelVersions,
    LoggedModels,
}

/// The kind of thing that a clause or an order refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entity {
    Attribute,
    Metric,
    Param,
    Tag,
    /// An input dataset of the run.
    Dataset,
}

/// The operator of a clause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparator {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    Like,
    Ilike,
    In,
    NotIn,
    IsNull,
    IsNotNull,
}

impl Comparator {
    /// The operator as the grammar writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Comparator::Eq => "=",
            Comparator::Ne => "!=",
            Comparator::Lt => "<",
            Comparator::Le => "<=",
            Comparator::Gt => ">",
            Comparator::Ge => ">=",
            Comparator::Like => "LIKE",
            Comparator::Ilike => "ILIKE",
            Comparator::In => "IN",
            Comparator::NotIn => "NOT IN",
            Comparator::IsNull => "IS NULL",
            Comparator::IsNotNull => "IS NOT NULL",
        }
    }
}

impl fmt::Display for Comparator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A number in a filter.
#[derive(Clone, Debug, PartialEq)]
pub struct Number {
    /// The text of the number.
    pub text: String,
    /// Never NaN. Infinite if the number exceeds an `f64`.
    pub value: f64,
    /// Set if the text is an integer, except for metrics, which are floats.
    pub integer: Option<i64>,
}

/// The right side of a clause.
#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    Text(String),
    Number(Number),
    /// For IN and NOT IN; never empty.
    List(Vec<String>),
    /// For IS NULL and IS NOT NULL.
    None,
}

/// One comparison. A filter matches if all of its clauses do.
#[derive(Clone, Debug, PartialEq)]
pub struct Clause {
    pub entity: Entity,
    /// For an attribute its canonical name, for example `start_time` for `created`.
    pub key: String,
    pub comparator: Comparator,
    pub value: Literal,
}

/// One term of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    pub entity: Entity,
    /// As in [`Clause`].
    pub key: String,
    pub ascending: bool,
}

/// The message for a filter or an order that is rejected, with the text of MLflow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct GrammarError(String);

impl GrammarError {
    /// Truncates a long message: it repeats what the caller sent.
    fn new(mut message: String) -> Self {
        const MOST: usize = 4096;
        if message.len() > MOST {
            message.truncate(message.floor_char_boundary(MOST));
            message.push_str("...");
        }
        Self(message)
    }
}

/// Rejects a text that no target accepts. The message does not repeat the text.
fn check_text(what: &str, text: &str) -> Result<(), GrammarError> {
    if text.len() > MAX_BYTES {
        return Err(GrammarError::new(format!(
            "Invalid {what}: it has {} bytes, at most {MAX_BYTES} are allowed.",
            text.len()
        )));
    }
    // A pattern of SQLite ends at a NUL, and Postgres stores no NUL.
    if text.contains('\0') {
        return Err(GrammarError::new(format!("Invalid {what}: it contains a NUL character.")));
    }
    Ok(())
}
