//! The fold. Topics commute: what an event says of another topic's things is joined on read.

mod artifacts;
mod experiments;
mod logged_models;
mod metrics;
mod models;
mod promotions;
mod run_rows;
mod runs;
mod standings;
mod versions;
mod webhooks;

use async_trait::async_trait;
use carbon_schemas::events::{
    ArtifactChanged, ExperimentChanged, ExperimentKind, LoggedModelChanged, ModelPromoted, ModelRegistered, RunKind,
    RunLogged, WebhookChanged,
};
use carbon_schemas::{Decoded, Recorded, feed};
use carbon_store::{Dialect, QueryBuilder, Tables};

pub(super) use self::run_rows::RunRow;
pub(super) use self::runs::NAME_TAG;
use super::{tables, verdict};
use crate::projection::{FoldError, Projection};

feed! {
    /// What the registry folds.
    pub enum RegistryRecord with RegistryDecoders {
        Experiment(ExperimentChanged),
        Run(RunLogged),
        LoggedModel(LoggedModelChanged),
        Model(ModelRegistered),
        Promotion(ModelPromoted),
        Webhook(WebhookChanged),
        Artifact(ArtifactChanged),
    }
}

/// The fold of the tracking events into experiments, runs, models, their files, and who is told of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Registry;

#[async_trait]
impl Projection for Registry {
    const NAME: &'static str = "registry";
    const VERSION: u32 = 5;
    const DDL: &'static str = tables::DDL;
    const CANONICAL: &'static [&'static str] = tables::CANONICAL;
    type Record = RegistryRecord;

    fn first_reads(dialect: Dialect, batch: &[RegistryRecord]) -> Vec<QueryBuilder> {
        let of_runs = batch.iter().filter_map(|record| match record {
            RegistryRecord::Run(Recorded { body: Decoded::Event { event, .. }, .. }) => Some(event),
            _ => None,
        });
        run_rows::reads(dialect, of_runs)
    }

    async fn apply(&self, tables: &mut Tables<'_>, batch: &[RegistryRecord]) -> Result<(), FoldError> {
        let mut conflicts = Vec::new();
        let mut of_runs = Vec::new();
        let mut touched = standings::Touched::default();
        for record in batch {
            match record {
                RegistryRecord::Experiment(record) => {
                    // Poison of a kept topic folds to nothing (law 10).
                    if let Decoded::Event { event, .. } = &record.body {
                        if event.kind == ExperimentKind::Deleted {
                            tables.revoke();
                        }
                        if let Some(conflict) = experiments::apply(tables, event).await? {
                            conflicts.push((&record.position, conflict));
                        }
                    }
                }
                RegistryRecord::LoggedModel(record) => {
                    if let Decoded::Event { event, .. } = &record.body
                        && let Some(conflict) = logged_models::apply(tables, event).await?
                    {
                        conflicts.push((&record.position, conflict));
                    }
                }
                RegistryRecord::Model(record) => {
                    if let Decoded::Event { event, .. } = &record.body
                        && let Some(conflict) = models::apply(tables, &mut touched, &record.position, event).await?
                    {
                        conflicts.push((&record.position, conflict));
                    }
                }
                RegistryRecord::Promotion(record) => {
                    if let Decoded::Event { event, .. } = &record.body {
                        promotions::apply(tables, &mut touched, &record.position, event).await?;
                    }
                }
                RegistryRecord::Webhook(record) => {
                    if let Decoded::Event { event, .. } = &record.body
                        && let Some(conflict) = webhooks::apply(tables, event).await?
                    {
                        conflicts.push((&record.position, conflict));
                    }
                }
                RegistryRecord::Artifact(record) => {
                    if let Decoded::Event { event, .. } = &record.body {
                        artifacts::apply(tables, event).await?;
                    }
                }
                RegistryRecord::Run(record) => {
                    if let Decoded::Event { event, .. } = &record.body {
                        if event.kind == RunKind::Deleted {
                            tables.revoke();
                        }
                        of_runs.push((&record.position, event));
                    }
                }
            }
        }
        standings::settle(tables, touched).await?;
        conflicts.extend(runs::apply(tables, &of_runs).await?);
        Ok(verdict::write(tables, &conflicts).await?)
    }
}
