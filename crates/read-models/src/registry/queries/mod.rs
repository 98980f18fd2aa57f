//! Queries of the registry. Each is limited to the scope of one tenant (law 12).

mod artifacts;
mod datasets;
mod experiments;
mod hydrate;
mod logged_models;
mod metrics;
mod models;
mod promotions;
mod runs;
mod search_models;
mod search_runs;
mod versions;
mod webhooks;

use carbon_store::StoreError;

pub use super::run_info::RunInfo;

pub use artifacts::{ArtifactFile, artifact, artifacts_below};
pub use datasets::{DatasetSummary, dataset_summaries};
pub use experiments::{
    DEFAULT_EXPERIMENT, Experiment, SearchExperiments, experiment, experiment_by_name, next_experiment_id,
    search_experiments, stored_experiment,
};
pub use logged_models::{
    LoggedMetric, LoggedModel, MetricOrder, SearchLoggedModels, logged_model, search_logged_models,
};
pub use metrics::{BulkPoint, metric_history, metric_intervals};
pub use models::{RegisteredModel, registered_model, registered_model_as_of};
pub use promotions::{PromotionRecord, PromotionsPage, promotion_effect, promotions};
pub use runs::{Run, has_tag, run, run_info};
pub use search_models::{IS_PROMPT, SearchModels, search_model_versions, search_registered_models};
pub use search_runs::{SearchRuns, search_runs};
pub use versions::{ModelVersion, latest_versions, manifest, model_version, newest_version, next_version, versions_of};
pub use webhooks::{Webhook, registration_has_tag, webhook, webhooks, webhooks_told_of};

/// Whether active or deleted things are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum View {
    #[default]
    Active,
    Deleted,
    All,
}

/// One page, and whether another one follows.
#[derive(Clone, Debug, PartialEq)]
pub struct Page<T> {
    pub items: Vec<T>,
    pub more: bool,
}

impl<T> Page<T> {
    /// The page of `items`, of which `limit + 1` were queried: one item too many means that another page follows.
    fn of(mut items: Vec<T>, limit: usize) -> Self {
        let more = items.len() > limit;
        items.truncate(limit);
        Self { items, more }
    }
}

fn corrupt(error: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt(format!("registry: {error}"))
}
