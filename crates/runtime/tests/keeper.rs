//! The keeper of generations, with a read model in memory, over a log in memory. Time is paused.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

#[path = "keeper/fake.rs"]
mod fake;
#[path = "keeper/first.rs"]
mod first;
#[path = "keeper/restarts.rs"]
mod restarts;
#[path = "consume/script.rs"]
#[allow(dead_code)]
mod script;
#[path = "consume/session.rs"]
#[allow(dead_code)]
mod session;
#[path = "keeper/switches.rs"]
mod switches;

/// How long a test waits for anything. The time is paused, so it costs nothing.
pub const PATIENCE: Duration = Duration::from_secs(600);
