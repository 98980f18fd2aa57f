//! MLflow's search grammar: `filter` and `order_by` of the searches for experiments, runs and models.
//!
//! What is accepted is what MLflow's server answers with 200, which is less than its parser lets
//! through: a key or an operator that the searched thing does not have is refused here as well. The
//! messages are MLflow's, as clients match on them.

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

/// The longest filter and order_by term, in bytes.
pub const MAX_BYTES: usize = 64 * 1024;
/// The most clauses of a filter. SQLite takes expressions up to a depth of 1000, and a chain of ANDs is
/// as deep as it is long.
pub const MAX_CLAUSES: usize = 500;
/// The longest pattern of LIKE and ILIKE, in bytes. SQLite takes 50 000, and one may grow threefold on
/// its way there.
pub const MAX_PATTERN_BYTES: usize = 16 * 1024;

/// What is searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Runs,
    Experiments,
    RegisteredModels,
    ModelVersions,
    LoggedModels,
}

/// What a clause or an order looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entity {
    Attribute,
    Metric,
    Param,
    Tag,
    /// A dataset that is an input of the run.
    Dataset,
}

/// How a clause compares.
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
    /// As the grammar writes it.
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

/// A number of a filter.
#[derive(Clone, Debug, PartialEq)]
pub struct Number {
    /// As it was written.
    pub text: String,
    /// Never NaN; infinite where the text is beyond a float.
    pub value: f64,
    /// Set where an integer was written, but for metrics: those are floats.
    pub integer: Option<i64>,
}

/// What a clause compares with.
#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    Text(String),
    Number(Number),
    /// For IN and NOT IN: at least one.
    List(Vec<String>),
    /// For IS NULL and IS NOT NULL.
    None,
}

/// One comparison. A filter is all of its clauses.
#[derive(Clone, Debug, PartialEq)]
pub struct Clause {
    pub entity: Entity,
    /// Of an attribute its one name, whichever was written: `start_time` for `created`.
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

/// Why a filter or an order is refused: the caller's mistake, in MLflow's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct GrammarError(String);

impl GrammarError {
    /// Long messages are cut: they echo what the caller sent.
    fn new(mut message: String) -> Self {
        const MOST: usize = 4096;
        if message.len() > MOST {
            message.truncate(message.floor_char_boundary(MOST));
            message.push_str("...");
        }
        Self(message)
    }
}

/// A refusal of what no target allows: it is not echoed, being long or unfit to print.
fn check_text(what: &str, text: &str) -> Result<(), GrammarError> {
    if text.len() > MAX_BYTES {
        return Err(GrammarError::new(format!(
            "Invalid {what}: it has {} bytes, at most {MAX_BYTES} are allowed.",
            text.len()
        )));
    }
    // SQLite's patterns end at a NUL and Postgres has no such text.
    if text.contains('\0') {
        return Err(GrammarError::new(format!("Invalid {what}: it contains a NUL character.")));
    }
    Ok(())
}
