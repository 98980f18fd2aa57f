//! What only a real broker and a real registry show. Each test has topics and groups of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

/// Of the suite: how a test opens the log, and how it reads. Not all of it is used here.
#[path = "conformance/kafka.rs"]
#[allow(dead_code)]
mod factory;
#[path = "conformance/support.rs"]
#[allow(dead_code)]
mod support;

mod kafka {
    pub mod compaction;
    pub mod foreign;
    pub mod markers;
    pub mod members;
    pub mod raw;
    pub mod registry;
    pub mod stub;
    pub mod takeover;
    pub mod time;
    pub mod topics;
    pub mod wire;
}
