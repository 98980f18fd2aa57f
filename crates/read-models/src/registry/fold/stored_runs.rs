//! The stored rows that a batch of run events refers to.

use std::collections::{BTreeSet, HashMap};

use carbon_core::Position;
use carbon_schemas::events::{RunKind, RunLogged};
use carbon_store::{Dialect, QueryBuilder, Row, Tables};

use crate::projection::FoldError;
use crate::registry::bulk::CHUNK;
use crate::registry::points::NewestSegment;
use crate::registry::run_info::{RunInfo, STORED_COLUMNS};

/// The row of a run with its tenant.
#[derive(Clone, Debug)]
pub(super) struct StoredRun {
    pub tenant: String,
    pub info: RunInfo,
}

/// The stored rows that a batch refers to.
pub(super) struct StoredRows {
    pub runs: Vec<StoredRun>,
    /// The number that the next run takes; 0 if no run of the batch starts.
    pub next_run_no: i64,
    pub params: HashMap<(i64, String), String>,
    pub tags: BTreeSet<(i64, String)>,
    /// By `run_no`.
    pub segments: HashMap<i64, NewestSegment>,
}

/// The column after those of [`STORED_COLUMNS`].
const TENANT: usize = 10;

/// Whether the event takes a run number: only a run that starts takes one.
fn takes_number(event: &RunLogged) -> bool {
    event.kind == RunKind::Started
}

/// The statements that read the runs of the events, and last the next run number if one is taken.
pub(super) fn reads<'e>(dialect: Dialect, events: impl Iterator<Item = &'e RunLogged>) -> Vec<QueryBuilder> {
    let (mut named, mut starts) = (BTreeSet::new(), false);
    for event in events {
        named.insert((event.tenant_id.as_str(), event.run_id.as_str()));
        starts |= takes_number(event);
    }
    let named: Vec<_> = named.into_iter().collect();
    let of_runs = named.chunks(CHUNK).map(|chunk| {
        let segment = NewestSegment::columns(dialect);
        let select = format!("SELECT {STORED_COLUMNS}, tenant_id{segment} FROM runs WHERE (tenant_id, run_id) IN (");
        let mut select = QueryBuilder::new(dialect, select);
        select.push_values(chunk, |mut bind, (tenant, run)| {
            bind.push_bind(*tenant).push_bind(*run);
        });
        select.push(")");
        select
    });
    let of_next = starts.then(|| QueryBuilder::new(dialect, "SELECT coalesce(max(run_no), 0) + 1 FROM runs"));
    of_runs.chain(of_next).collect()
}

/// Reads the stored rows. The rows of [`reads`] may have been read with the `BEGIN`.
pub(super) async fn load(tables: &mut Tables<'_>, batch: &[(&Position, &RunLogged)]) -> Result<StoredRows, FoldError> {
    let events = || batch.iter().map(|(_, event)| *event);
    let mut rows = match tables.take_first_rows() {
        Some(rows) => rows,
        None => tables.run(reads(tables.dialect(), events())).await?,
    };
    let next_run_no = match events().any(takes_number) {
        true => rows.pop().ok_or(sqlx::Error::RowNotFound)?.try_get(0)?,
        false => 0,
    };
    let read = |row: &Row| Ok(StoredRun { tenant: row.try_get(TENANT)?, info: RunInfo::read(row)? });
    let runs: Vec<_> = rows.iter().map(read).collect::<Result<_, sqlx::Error>>()?;
    let mut segments = HashMap::new();
    for (run, row) in runs.iter().zip(&rows) {
        if let Some(segment) = NewestSegment::read(row, TENANT + 1)? {
            segments.insert(run.info.run_no, segment);
        }
    }
    let numbers: HashMap<(&str, &str), i64> =
        runs.iter().map(|run| ((run.tenant.as_str(), run.info.run_id.as_str()), run.info.run_no)).collect();
    let (mut params, mut tags) = (BTreeSet::new(), BTreeSet::new());
    for event in events() {
        if let Some(run_no) = numbers.get(&(event.tenant_id.as_str(), event.run_id.as_str())).copied() {
            params.extend(event.params.iter().map(|param| (run_no, param.key.as_str())));
            tags.extend(event.removed_tags.iter().map(|key| (run_no, key.as_str())));
        }
    }
    let params = pairs(tables, "SELECT run_no, key, value FROM params", params).await?;
    let tags = pairs(tables, "SELECT run_no, key, value FROM run_tags", tags).await?;
    Ok(StoredRows { runs, next_run_no, params, tags: tags.into_keys().collect(), segments })
}

async fn pairs(
    tables: &mut Tables<'_>,
    select: &str,
    keys: BTreeSet<(i64, &str)>,
) -> Result<HashMap<(i64, String), String>, FoldError> {
    let (dialect, keys) = (tables.dialect(), keys.into_iter().collect::<Vec<_>>());
    let rows = tables.run(keys.chunks(CHUNK).map(|chunk| {
        let mut query = QueryBuilder::new(dialect, select);
        query.push(" WHERE (run_no, key) IN (");
        query.push_values(chunk, |mut bind, (run_no, key)| {
            bind.push_bind(*run_no).push_bind(*key);
        });
        query.push(")");
        query
    }));
    let mut found = HashMap::new();
    for row in rows.await? {
        found.insert((row.try_get(0)?, row.try_get(1)?), row.try_get(2)?);
    }
    Ok(found)
}
