//! Roles: what a process may do.

use std::collections::BTreeSet;
use std::fmt;

use clap::ValueEnum;

use crate::error::CliError;

/// One part of the platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Role {
    /// Answers searches and reads
    QueryApi,
    /// Folds embeddings into the search index
    Indexer,
    /// Folds events into the relational read models
    Projections,
    /// Turns texts into embeddings
    Embedder,
    /// Turns writes into events
    TrackingApi,
}

impl Role {
    pub fn name(self) -> &'static str {
        match self {
            Role::QueryApi => "query-api",
            Role::Indexer => "indexer",
            Role::Projections => "projections",
            Role::Embedder => "embedder",
            Role::TrackingApi => "tracking-api",
        }
    }
}

/// The roles that share the embedded read models of a data folder, and so live in one process.
const SET: [Role; 3] = [Role::QueryApi, Role::Indexer, Role::Projections];

/// The roles of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roles(BTreeSet<Role>);

impl Roles {
    pub fn all() -> Self {
        Self(Role::value_variants().iter().copied().collect())
    }

    /// Refuses a part of the set.
    pub fn new(roles: &[Role]) -> Result<Self, CliError> {
        let roles: BTreeSet<Role> = roles.iter().copied().collect();
        let (named, missing): (Vec<Role>, Vec<Role>) = SET.iter().partition(|role| roles.contains(role));
        if named.is_empty() || missing.is_empty() {
            return Ok(Self(roles));
        }
        Err(CliError::Usage(format!(
            "query-api, indexer and projections share the files of one data folder, so they run in one process: add {}",
            list(missing)
        )))
    }

    pub fn has(&self, role: Role) -> bool {
        self.0.contains(&role)
    }

    /// Whether this process holds read models, and with them the data folder's lock.
    pub fn hold_read_models(&self) -> bool {
        SET.iter().all(|role| self.has(*role))
    }

    pub fn is_all(&self) -> bool {
        *self == Self::all()
    }
}

fn list(roles: impl IntoIterator<Item = Role>) -> String {
    let names: Vec<_> = roles.into_iter().map(Role::name).collect();
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => names.concat(),
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&list(self.0.iter().copied()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_the_set_is_refused_with_what_is_missing() {
        let error = Roles::new(&[Role::QueryApi, Role::Embedder]).unwrap_err().to_string();
        assert!(error.ends_with("add indexer and projections"), "{error}");
        assert!(Roles::new(&[Role::Embedder, Role::TrackingApi]).is_ok_and(|roles| !roles.hold_read_models()));
        let set = Roles::new(&[Role::Projections, Role::QueryApi, Role::Indexer, Role::Indexer]).unwrap();
        assert!(set.hold_read_models() && !set.is_all());
        assert_eq!(set.to_string(), "query-api, indexer and projections");
    }
}
