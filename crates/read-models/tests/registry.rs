//! The registry's fold and its queries: given what the log holds, when a record comes, then its verdict and its rows.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "registry/commutes.rs"]
mod commutes;
#[path = "registry/events.rs"]
mod events;
#[path = "registry/experiments.rs"]
mod experiments;
#[path = "registry/log.rs"]
mod log;
#[path = "registry/logged_models.rs"]
mod logged_models;
#[path = "registry/metrics.rs"]
mod metrics;
#[path = "registry/models.rs"]
mod models;
#[path = "registry/promotions.rs"]
mod promotions;
#[path = "registry/runs.rs"]
mod runs;
#[path = "registry/search.rs"]
mod search;
#[path = "registry/tenants.rs"]
mod tenants;
#[path = "registry/webhooks.rs"]
mod webhooks;
#[path = "registry/world.rs"]
mod world;
