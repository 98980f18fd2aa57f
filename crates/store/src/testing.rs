//! Sites for tests, which run on SQLite, or on the Postgres that `CARBON_TEST_POSTGRES` names. Only the feature
//! `testing`, which test builds turn on, has this module.
#![allow(clippy::expect_used, reason = "a test without its Postgres fails")]

use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::namespace::Site;
use crate::postgres::Postgres;

/// The setting that names the Postgres of the tests.
pub const POSTGRES: &str = "CARBON_TEST_POSTGRES";

/// The address of the tests' Postgres; `None` if the tests run on SQLite.
pub fn postgres_address() -> Option<String> {
    std::env::var(POSTGRES).ok()
}

/// The tests' Postgres, for a test that needs one.
pub async fn postgres() -> Postgres {
    let address = postgres_address().expect("CARBON_TEST_POSTGRES names a Postgres");
    Postgres::open(&address).await.expect("the Postgres of CARBON_TEST_POSTGRES answers")
}

/// The file at `path`, or a schema of the tests' Postgres whose name is derived from `path`. The same path is the same
/// site.
pub async fn site(path: &Path) -> Site {
    match postgres_address() {
        // Hashed: a schema's name is in lower case, while the names of temporary folders differ by case.
        Some(_) => {
            let hash = Sha256::digest(path.as_os_str().as_encoded_bytes());
            let name = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
            Site::Schema(postgres().await, name)
        }
        None => Site::File(path.to_owned()),
    }
}
