//! The fold of the registry. Events of different topics commute: what an event says about things of another topic is
//! joined when it is read (law 3).

mod artifacts;
mod experiments;
mod logged_models;
mod models;
mod promotions;
mod run_changes;
mod runs;
mod standings;
mod stored_runs;
mod tags;
mod versions;
mod webhooks;

use async_trait::async_trait;
use carbon_schemas::events::{
    ArtifactChanged, ExperimentChanged, ExperimentKind, LoggedModelChanged, ModelPromoted, ModelRegistered, RunKind,
    RunLogged, WebhookChanged,
};
use carbon_schemas::{Decoded, Event, Feed as _, Recorded, feed};
use carbon_store::{Dialect, Folded, QueryBuilder, Table, Tables};

use super::commits::{BatchEffects, RegistryCommits};
use super::{tables, verdict};
use crate::projection::{FoldError, Projection};

feed! {
    /// The records that the registry folds.
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

/// The fold of the tracking events into experiments, runs, models, their files, and webhooks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Registry;

/// The event of a record. Poison of a topic that is not compacted folds to nothing (law 10).
fn event<E: Event>(record: &Recorded<E>) -> Option<&E> {
    match &record.body {
        Decoded::Event { event, .. } => Some(event),
        _ => None,
    }
}

#[async_trait]
impl Projection for Registry {
    const NAME: &'static str = "registry";
    const VERSION: u32 = 5;
    const TABLES: &'static [Table] = tables::TABLES;
    type Record = RegistryRecord;
    type Commits = RegistryCommits;

    fn canonical(dialect: Dialect) -> Vec<String> {
        tables::canonical(dialect)
    }

    fn first_reads(dialect: Dialect, batch: &[RegistryRecord]) -> Vec<QueryBuilder> {
        let run_events = batch.iter().filter_map(|record| match record {
            RegistryRecord::Run(record) => event(record),
            _ => None,
        });
        stored_runs::reads(dialect, run_events)
    }

    async fn apply<'t>(&self, mut tables: Tables<'t>, batch: &[RegistryRecord]) -> Result<Folded<'t>, FoldError> {
        let mut conflicts = Vec::new();
        let mut run_events = Vec::new();
        let mut touched = standings::Touched::default();
        let mut deletes = false;
        for record in batch {
            let position = record.position();
            let conflict = match record {
                RegistryRecord::Experiment(record) => match event(record) {
                    Some(event) => {
                        deletes |= event.kind == ExperimentKind::Deleted;
                        experiments::apply(&mut tables, event).await?
                    }
                    None => None,
                },
                RegistryRecord::LoggedModel(record) => match event(record) {
                    Some(event) => logged_models::apply(&mut tables, event).await?,
                    None => None,
                },
                RegistryRecord::Model(record) => match event(record) {
                    Some(event) => models::apply(&mut tables, &mut touched, position, event).await?,
                    None => None,
                },
                RegistryRecord::Promotion(record) => {
                    if let Some(event) = event(record) {
                        promotions::apply(&mut tables, &mut touched, position, event).await?;
                    }
                    None
                }
                RegistryRecord::Webhook(record) => match event(record) {
                    Some(event) => webhooks::apply(&mut tables, event).await?,
                    None => None,
                },
                RegistryRecord::Artifact(record) => {
                    if let Some(event) = event(record) {
                        artifacts::apply(&mut tables, event).await?;
                    }
                    None
                }
                RegistryRecord::Run(record) => {
                    if let Some(event) = event(record) {
                        deletes |= event.kind == RunKind::Deleted;
                        run_events.push((position, event));
                    }
                    None
                }
            };
            conflicts.extend(conflict.map(|conflict| (position, conflict)));
        }
        standings::settle(&mut tables, touched).await?;
        let mut runs = runs::apply(&mut tables, &run_events).await?;
        conflicts.append(&mut runs.conflicts);
        let effects =
            BatchEffects { conflicts: conflicts.iter().map(|(position, _)| (*position).clone()).collect(), deletes };
        let writes = runs.writes(tables.dialect())?;
        let verdicts = verdict::writes(tables.dialect(), &conflicts);
        let folded = tables.end(writes.statements().chain(verdicts)).await?;
        Ok(folded.with_effects::<RegistryCommits>(effects))
    }
}
