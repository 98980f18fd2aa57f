//! Tests of the Kafka log that need a real broker and a real registry. Each test has its own topics and groups.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

/// Shared with the conformance suite: opening a log, and reading from it. Not all of it is used here.
#[path = "conformance/kafka.rs"]
#[allow(dead_code)]
mod factory;
#[path = "conformance/support.rs"]
#[allow(dead_code)]
mod support;

mod kafka {
    pub mod clients;
    pub mod compaction;
    pub mod fencing;
    pub mod foreign;
    pub mod markers;
    pub mod members;
    pub mod registry;
    pub mod stub;
    pub mod time;
    pub mod topics;
    pub mod wire;
}
