//! The row of a run, which the fold writes and queries read.

use carbon_schemas::events::RunLogged;
use carbon_store::Row;

/// The columns of `runs` that [`RunInfo::read`] reads.
pub(super) const STORED_COLUMNS: &str =
    "run_no, run_id, experiment_id, name, user_id, status, start_time, end_time, artifact_uri, deleted";

/// The same columns of `runs r` for queries: a run is deleted with its experiment too.
pub(super) const COLUMNS: &str = "r.run_no, r.run_id, r.experiment_id, r.name, r.user_id, r.status, r.start_time, \
    r.end_time, r.artifact_uri, CASE WHEN r.deleted = 1 THEN 1 ELSE coalesce((SELECT e.deleted FROM experiments e \
    WHERE e.tenant_id = r.tenant_id AND e.experiment_id = r.experiment_id), 0) END";

/// A run without what was logged to it.
#[derive(Clone, Debug, PartialEq)]
pub struct RunInfo {
    pub(super) run_no: i64,
    pub run_id: String,
    pub experiment_id: i64,
    pub name: String,
    pub user_id: String,
    pub status: String,
    pub start_time: i64,
    pub end_time: Option<i64>,
    pub artifact_uri: String,
    /// The run is deleted. In the answer of a query also if its experiment is deleted.
    pub deleted: bool,
}

impl RunInfo {
    /// The row of a run as its first event leaves it.
    pub(super) fn started(run_no: i64, event: &RunLogged) -> Self {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        Self {
            run_no,
            run_id: event.run_id.clone(),
            experiment_id: event.experiment_id.as_deref().and_then(|id| id.parse().ok()).unwrap_or_default(),
            name: text(&event.run_name),
            user_id: text(&event.user_id),
            status: text(&event.status),
            start_time: event.start_time.unwrap_or_default(),
            end_time: event.end_time,
            artifact_uri: text(&event.artifact_uri),
            deleted: false,
        }
    }

    /// Reads the first columns of a row: [`STORED_COLUMNS`] or [`COLUMNS`].
    pub(super) fn read(row: &Row) -> Result<Self, sqlx::Error> {
        Ok(Self {
            run_no: row.try_get(0)?,
            run_id: row.try_get(1)?,
            experiment_id: row.try_get(2)?,
            name: row.try_get(3)?,
            user_id: row.try_get(4)?,
            status: row.try_get(5)?,
            start_time: row.try_get(6)?,
            end_time: row.try_get(7)?,
            artifact_uri: row.try_get(8)?,
            deleted: row.try_get(9)?,
        })
    }
}
