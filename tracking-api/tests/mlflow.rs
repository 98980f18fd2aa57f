//! MLflow's REST API, tested through the router of the service.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

#[path = "mlflow/client.rs"]
mod client;
#[path = "mlflow/differs.rs"]
mod differs;
#[path = "mlflow/experiments.rs"]
mod experiments;
#[path = "mlflow/hostile.rs"]
mod hostile;
#[path = "mlflow/laws.rs"]
mod laws;
#[path = "mlflow/logged_models.rs"]
mod logged_models;
#[path = "mlflow/logging.rs"]
mod logging;
#[path = "mlflow/metrics.rs"]
mod metrics;
#[path = "mlflow/models.rs"]
mod models;
#[path = "mlflow/promote.rs"]
mod promote;
#[path = "mlflow/runs.rs"]
mod runs;
#[path = "mlflow/search.rs"]
mod search;
#[path = "mlflow/ui.rs"]
mod ui;
#[path = "mlflow/versions.rs"]
mod versions;
#[path = "mlflow/webhooks.rs"]
mod webhooks;
