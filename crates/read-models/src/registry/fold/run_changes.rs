//! What a batch of run events changes, and the statements that write it: one for each table and chunk.

use std::collections::{BTreeMap, HashMap};

use carbon_schemas::events::{DatasetInput, Metric};
use carbon_store::{Dialect, QueryBuilder, Separated};

use super::stored_runs::StoredRun;
use super::tags::RUN_TAGS;
use crate::projection::FoldError;
use crate::registry::bulk::with_values;
use crate::registry::points::{LoggedPoint, NewestSegment, PointWrites};
use crate::registry::run_info::STORED_COLUMNS;

/// What a batch changes, by `run_no`.
#[derive(Default)]
pub(super) struct RunChanges<'a> {
    pub runs: BTreeMap<i64, StoredRun>,
    pub params: BTreeMap<(i64, &'a str), &'a str>,
    /// `None` removes the tag.
    pub tags: BTreeMap<(i64, &'a str), Option<&'a str>>,
    pub points: Vec<LoggedPoint<'a>>,
    /// The latest points of the batch.
    pub latest: BTreeMap<(i64, &'a str), &'a Metric>,
    /// By name and digest.
    pub datasets: BTreeMap<(i64, &'a str, &'a str), &'a DatasetInput>,
    /// By direction and model; the value is the step.
    pub models: BTreeMap<(i64, &'static str, &'a str), i64>,
}

/// The writes of a batch's changes.
pub(super) struct RunWrites<'a> {
    dialect: Dialect,
    runs: Vec<&'a StoredRun>,
    params: Vec<(i64, &'a str, &'a str)>,
    tags: Vec<(i64, &'a str, &'a str)>,
    removed_tags: Vec<(i64, &'a str)>,
    points: PointWrites<'a>,
    datasets: Vec<(i64, &'a DatasetInput, String)>,
    models: Vec<(i64, &'static str, &'a str, i64)>,
}

impl<'a> RunWrites<'a> {
    pub fn of(
        dialect: Dialect,
        changes: &'a RunChanges<'_>,
        segments: &HashMap<i64, NewestSegment>,
    ) -> Result<Self, FoldError> {
        let (mut tags, mut removed_tags) = (Vec::new(), Vec::new());
        for ((run_no, key), value) in &changes.tags {
            match value {
                Some(value) => tags.push((*run_no, *key, *value)),
                None => removed_tags.push((*run_no, *key)),
            }
        }
        let mut datasets = Vec::with_capacity(changes.datasets.len());
        for ((run_no, ..), dataset) in &changes.datasets {
            datasets.push((*run_no, *dataset, serde_json::to_string(&dataset.tags)?));
        }
        let models = changes.models.iter();
        Ok(Self {
            dialect,
            runs: changes.runs.values().collect(),
            params: changes.params.iter().map(|((run_no, key), value)| (*run_no, *key, *value)).collect(),
            tags,
            removed_tags,
            points: PointWrites::of(dialect, &changes.points, &changes.latest, segments),
            datasets,
            models: models.map(|((run_no, direction, model), step)| (*run_no, *direction, *model, *step)).collect(),
        })
    }

    pub fn statements(&self) -> impl Iterator<Item = QueryBuilder> {
        let runs = self.write_runs();
        runs.chain(self.write_pairs()).chain(self.points.statements()).chain(self.write_links())
    }

    fn write_runs(&self) -> impl Iterator<Item = QueryBuilder> {
        with_values(
            self.dialect,
            &self.runs,
            format!("INSERT INTO runs ({STORED_COLUMNS}, tenant_id) "),
            |mut bind, StoredRun { tenant, info }| {
                bind.push_bind(info.run_no)
                    .push_bind(info.run_id.as_str())
                    .push_bind(info.experiment_id)
                    .push_bind(info.name.as_str())
                    .push_bind(info.user_id.as_str())
                    .push_bind(info.status.as_str())
                    .push_bind(info.start_time)
                    .push_bind(info.end_time)
                    .push_bind(info.artifact_uri.as_str())
                    .push_bind(info.deleted)
                    .push_bind(tenant.as_str());
            },
            " ON CONFLICT (run_no) DO UPDATE SET name = excluded.name, status = excluded.status, \
             end_time = excluded.end_time, deleted = excluded.deleted",
        )
    }

    /// Parameters, and tags that are set and removed.
    fn write_pairs(&self) -> impl Iterator<Item = QueryBuilder> {
        let pair = |mut bind: Separated<'_>, (run_no, key, value): &(i64, &str, &str)| {
            bind.push_bind(*run_no).push_bind(*key).push_bind(*value);
        };
        let params = with_values(self.dialect, &self.params, "INSERT INTO params (run_no, key, value) ", pair, "");
        let tags = RUN_TAGS.upserts(self.dialect, &self.tags, pair);
        let removed = with_values(
            self.dialect,
            &self.removed_tags,
            "DELETE FROM run_tags WHERE (run_no, key) IN (",
            |mut bind, (run_no, key)| {
                bind.push_bind(*run_no).push_bind(*key);
            },
            ")",
        );
        params.chain(tags).chain(removed)
    }

    /// Datasets and models that runs read and wrote.
    fn write_links(&self) -> impl Iterator<Item = QueryBuilder> {
        let datasets = with_values(
            self.dialect,
            &self.datasets,
            "INSERT INTO run_datasets (run_no, name, digest, source_type, source, schema, profile, tags) ",
            |mut bind, (run_no, dataset, tags)| {
                bind.push_bind(*run_no)
                    .push_bind(dataset.name.as_str())
                    .push_bind(dataset.digest.as_str())
                    .push_bind(dataset.source_type.as_str())
                    .push_bind(dataset.source.as_str())
                    .push_bind(dataset.schema.as_deref())
                    .push_bind(dataset.profile.as_deref())
                    .push_bind(tags.as_str());
            },
            " ON CONFLICT (run_no, name, digest) DO NOTHING",
        );
        let models = with_values(
            self.dialect,
            &self.models,
            "INSERT INTO run_models (run_no, direction, model_id, step) ",
            |mut bind, (run_no, direction, model, step)| {
                bind.push_bind(*run_no).push_bind(*direction).push_bind(*model).push_bind(*step);
            },
            " ON CONFLICT (run_no, direction, model_id) DO UPDATE SET step = excluded.step",
        );
        datasets.chain(models)
    }
}
