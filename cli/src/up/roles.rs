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

/// The roles that share the search index of a data folder, and so live in one process.
const OF_INDEX: [Role; 2] = [Role::QueryApi, Role::Indexer];

/// The roles of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roles {
    roles: BTreeSet<Role>,
    /// Whether the relational read models lie in a database that processes share.
    shared_rows: bool,
}

impl Roles {
    pub fn all(shared_rows: bool) -> Self {
        Self { roles: Role::value_variants().iter().copied().collect(), shared_rows }
    }

    /// Refuses a part of what shares files.
    pub fn new(roles: &[Role], shared_rows: bool) -> Result<Self, CliError> {
        let roles: BTreeSet<Role> = roles.iter().copied().collect();
        let of_files = (!shared_rows).then_some(Role::Projections);
        let set: Vec<Role> = OF_INDEX.into_iter().chain(of_files).collect();
        let (named, missing): (Vec<Role>, Vec<Role>) = set.iter().partition(|role| roles.contains(role));
        if named.is_empty() || missing.is_empty() {
            return Ok(Self { roles, shared_rows });
        }
        Err(CliError::Usage(format!(
            "{} share the files of one data folder, so they run in one process: add {}",
            list(set),
            list(missing)
        )))
    }

    pub fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    /// Whether this process holds a search index.
    pub fn hold_index(&self) -> bool {
        OF_INDEX.iter().all(|role| self.has(*role))
    }

    /// Whether this process writes to the data folder, and so holds its lock.
    pub fn hold_folder(&self) -> bool {
        self.hold_index() || self.has(Role::Projections)
    }

    /// Whether this process reads the relational read models, or folds them.
    pub fn read_rows(&self) -> bool {
        match self.shared_rows {
            true => self.has(Role::Projections) || self.has(Role::QueryApi) || self.has(Role::TrackingApi),
            false => self.has(Role::Projections),
        }
    }

    pub fn is_all(&self) -> bool {
        *self == Self::all(self.shared_rows)
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
        f.write_str(&list(self.roles.iter().copied()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_the_set_is_refused_with_what_is_missing() {
        let error = Roles::new(&[Role::QueryApi, Role::Embedder], false).unwrap_err().to_string();
        assert!(error.ends_with("add indexer and projections"), "{error}");
        assert!(Roles::new(&[Role::Embedder, Role::TrackingApi], false).is_ok_and(|roles| !roles.hold_folder()));
        let set = Roles::new(&[Role::Projections, Role::QueryApi, Role::Indexer, Role::Indexer], false).unwrap();
        assert!(set.hold_index() && set.hold_folder() && set.read_rows() && !set.is_all());
        assert_eq!(set.to_string(), "query-api, indexer and projections");
    }

    #[test]
    fn shared_rows_are_folded_and_read_anywhere() {
        let roles = |roles: &[Role]| Roles::new(roles, true);
        let error = roles(&[Role::QueryApi, Role::Projections]).unwrap_err().to_string();
        assert!(error.ends_with("add indexer"), "{error}");
        assert!(roles(&[Role::Projections]).is_ok_and(|roles| roles.read_rows() && !roles.hold_index()));
        assert!(roles(&[Role::TrackingApi]).is_ok_and(|roles| roles.read_rows() && !roles.hold_folder()));
        assert!(roles(&[Role::Embedder]).is_ok_and(|roles| !roles.read_rows()));
        assert!(Roles::new(&[Role::TrackingApi], false).is_ok_and(|roles| !roles.read_rows()));
    }
}
