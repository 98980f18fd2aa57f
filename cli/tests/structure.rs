//! Who may use whom: fails on any edge between the project's crates that the table below does not allow.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// A crate, and what it may use directly; who may use a crate may use what that crate may, and core is open to all.
const ALLOWED: &[(&str, &[&str])] = &[
    ("carbon-core", &[]),
    ("carbon-schemas", &["carbon-core"]),
    ("carbon-topology", &["carbon-schemas"]),
    ("carbon-log", &["carbon-schemas"]),
    ("carbon-store", &["carbon-core"]),
    ("carbon-read-models", &["carbon-schemas", "carbon-store"]),
    ("carbon-search", &["carbon-store"]),
    ("carbon-artifacts", &["carbon-core"]),
    ("carbon-inference", &["carbon-core", "carbon-artifacts"]),
    ("carbon-runtime", &["carbon-log", "carbon-store", "carbon-topology"]),
    ("carbon-http", &["carbon-runtime"]),
    ("carbon-webhooks", &["carbon-core"]),
    (
        "carbon-processors",
        &["carbon-read-models", "carbon-search", "carbon-inference", "carbon-http", "carbon-webhooks"],
    ),
    (
        "carbon-tracking-api",
        &["carbon-read-models", "carbon-search", "carbon-inference", "carbon-http", "carbon-webhooks"],
    ),
    ("carbon-query-api", &["carbon-read-models", "carbon-search", "carbon-inference", "carbon-http"]),
    ("carbon-ml", &["carbon-processors", "carbon-tracking-api", "carbon-query-api"]),
    ("carbon-load", &["carbon-processors"]),
];

fn reachable(name: &str, allowed: &BTreeMap<&str, &[&str]>, found: &mut BTreeSet<String>) {
    for used in allowed.get(name).copied().unwrap_or_default() {
        if found.insert((*used).to_owned()) {
            reachable(used, allowed, found);
        }
    }
}

#[test]
fn the_arrows_between_crates_point_one_way() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let allowed: BTreeMap<_, _> = ALLOWED.iter().copied().collect();
    let mut faults = Vec::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        if !allowed.contains_key(name) {
            faults.push(format!("{name} is not in the table"));
        }
        let mut may = BTreeSet::from(["carbon-core".to_owned()]);
        reachable(name, &allowed, &mut may);
        for dependency in package["dependencies"].as_array().unwrap() {
            let used = dependency["name"].as_str().unwrap();
            if used.starts_with("carbon-") && dependency["kind"].is_null() && !may.contains(used) {
                faults.push(format!("{name} uses {used}"));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:?}");
    assert!(metadata["packages"].as_array().unwrap().len() > 10);
}
