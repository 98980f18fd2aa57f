//! The consume loop, over a log in memory that the test scripts delivery by delivery. Time is paused: it advances when
//! every task waits, so a test that hangs fails at once.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

#[path = "consume/ends.rs"]
mod ends;
#[path = "consume/faults.rs"]
mod faults;
#[path = "consume/landing.rs"]
mod landing;
#[path = "consume/letters.rs"]
mod letters;
#[path = "consume/property.rs"]
mod property;
#[path = "consume/rebalance.rs"]
mod rebalance;
#[path = "consume/running.rs"]
mod running;
#[path = "consume/script.rs"]
mod script;
#[path = "consume/session.rs"]
mod session;
#[path = "consume/sinks.rs"]
mod sinks;
#[path = "consume/stages.rs"]
mod stages;

/// How long a test waits for anything. The time is paused, so it costs nothing.
pub const PATIENCE: Duration = Duration::from_secs(3600);
