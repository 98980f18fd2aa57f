//! The read models of a process: those of the list, as the topology says.

mod guard;
mod index;
mod relational;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use carbon_read_models::{Projection, Visitor};
use carbon_topology::{ReadModelKind, Topology};

pub use index::{Index, IndexParts};
pub use relational::{Place, Relational};

use crate::error::CliError;

/// The one read model that is an index.
pub const SEARCH: &str = "search";

/// How long a switch waits for the new generation before it lets the old one go on.
const SWITCH_WITHIN: Duration = Duration::from_secs(2);

/// The version of the index's fold: another one is another generation.
pub const INDEX_VERSION: u32 = 1;

/// Compares the list of read models in the code with the topology, and names everything that is in one alone.
pub fn check(topology: &Topology) -> Result<(), CliError> {
    struct Names(BTreeMap<&'static str, ReadModelKind>);
    impl Visitor for Names {
        fn visit<P: Projection>(&mut self, _: P) {
            self.0.insert(P::NAME, ReadModelKind::Relational);
        }
    }
    let mut listed = Names(BTreeMap::from([(SEARCH, ReadModelKind::Index)]));
    carbon_read_models::list(&mut listed);
    let declared = &topology.read_models;
    let names: BTreeSet<&str> = listed.0.keys().copied().chain(declared.keys().map(String::as_str)).collect();
    let mismatches: Vec<String> = names
        .into_iter()
        .filter_map(|name| match (listed.0.get(name), declared.get(name).map(|declared| declared.kind)) {
            (Some(_), None) => Some(format!("read model {name} is in the code, but not in topology.yaml")),
            (None, Some(_)) => Some(format!("read model {name} is in topology.yaml, but not in the code's list")),
            (Some(code), Some(file)) if *code != file => {
                Some(format!("read model {name} is {code:?} in the code and {file:?} in topology.yaml"))
            }
            _ => None,
        })
        .collect();
    match mismatches.is_empty() {
        true => Ok(()),
        false => Err(CliError::Failed(mismatches.join("; "))),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn all_mismatches_are_named_at_once() {
        let mut topology = Topology::builtin().unwrap();
        check(&topology).unwrap();
        let catalog = topology.read_models.remove("catalog").unwrap();
        topology.read_models.insert("prices".into(), catalog);
        topology.read_models.get_mut("search").unwrap().kind = ReadModelKind::Relational;
        let error = check(&topology).unwrap_err().to_string();
        for part in ["catalog is in the code", "prices is in topology.yaml", "search is Index in the code"] {
            assert!(error.contains(part), "{error}");
        }
    }
}
