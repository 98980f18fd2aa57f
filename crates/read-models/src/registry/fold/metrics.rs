//! The rows of metrics. The histories of a run's keys lie apart, so that a record of a hundred keys would write a hundred pages
//! of a file. What such records say goes to `recent_metrics` first, where what came together lies together, and moves to
//! `metrics` when there is more of it: many rows a page. A value is in either, and of two that say the same the first counts,
//! whenever it moved.

use std::collections::{BTreeMap, HashSet};

use carbon_schemas::events::{Metric, RunLogged};
use carbon_store::{Dialect, QueryBuilder, Tables};

use super::run_rows::CHUNK;
use super::runs::Changes;
use crate::projection::FoldError;

/// A record of so many metrics is wide.
const WIDE: usize = 16;

/// A run's recent rows move when there are so many of them.
const MOVED: i64 = 4000;

/// A metric of a run, and whether it came in a wide record.
#[derive(Clone, Copy)]
pub(super) struct Logged<'a> {
    pub number: i64,
    pub metric: &'a Metric,
    pub wide: bool,
}

impl Logged<'_> {
    pub fn is_wide(event: &RunLogged) -> bool {
        event.metrics.len() >= WIDE
    }
}

/// Nothing is said of models and datasets.
fn plain(metric: &Metric) -> bool {
    metric.model_id.is_none() && metric.dataset_name.is_none() && metric.dataset_digest.is_none()
}

/// What tells values apart: of two that are the same the first stays.
fn identity<'a>(logged: &Logged<'a>) -> (i64, &'a str, i64, i64, u64, bool) {
    let Logged { number, metric, .. } = *logged;
    let (value, nan) = value(metric);
    (number, &metric.key, metric.timestamp, metric.step, value.to_bits(), nan)
}

fn value(metric: &Metric) -> (f64, bool) {
    let nan = metric.value.is_nan();
    // Of the two forms of nought SQLite knows one.
    (if nan { 0.0 } else { metric.value + 0.0 }, nan)
}

pub(super) async fn write(tables: &mut Tables<'_>, changes: &Changes<'_>) -> Result<(), FoldError> {
    if changes.metrics.is_empty() {
        return Ok(());
    }
    // Postgres writes rows one after the other anyway.
    let sqlite = tables.dialect() == Dialect::Sqlite;
    let is_recent = |logged: &Logged<'_>| sqlite && logged.wide && plain(logged.metric);
    let mixed = changes.metrics.iter().any(is_recent) && !changes.metrics.iter().all(is_recent);
    // Where both tables are written the order between them is lost.
    let mut seen = HashSet::new();
    let firsts = changes.metrics.iter().copied().filter(|logged| !mixed || seen.insert(identity(logged)));
    let (recent, direct): (Vec<Logged<'_>>, Vec<_>) = firsts.partition(is_recent);
    write_direct(tables, &direct).await?;
    write_recent(tables, &recent).await?;
    let latest: Vec<_> =
        changes.latest.iter().map(|((number, _), metric)| Logged { number: *number, metric, wide: false }).collect();
    write_latest(tables, &latest).await
}

async fn write_direct(tables: &mut Tables<'_>, rows: &[Logged<'_>]) -> Result<(), FoldError> {
    for chunk in rows.chunks(CHUNK) {
        let mut insert = QueryBuilder::new(tables.dialect(), "INSERT INTO metrics ");
        match tables.dialect() {
            Dialect::Sqlite => {
                insert.push(columns(false)).push("SELECT * FROM (");
                values(&mut insert, chunk, false);
                insert.push(
                    ") v WHERE NOT EXISTS (SELECT 1 FROM recent_metrics r \
                     WHERE (r.run_no, r.timestamp, r.step, r.key, r.value, r.is_nan) = \
                     (v.column1, v.column3, v.column4, v.column2, v.column5, v.column6))",
                );
            }
            Dialect::Postgres => {
                insert.push(columns(false));
                values(&mut insert, chunk, false);
            }
        }
        // One that is there already says nothing new.
        insert.push(" ON CONFLICT (run_no, key, timestamp, step, value, is_nan) DO NOTHING");
        insert.build().execute(tables.connection()).await?;
    }
    Ok(())
}

async fn write_recent(tables: &mut Tables<'_>, rows: &[Logged<'_>]) -> Result<(), FoldError> {
    if rows.is_empty() {
        return Ok(());
    }
    for chunk in rows.chunks(CHUNK) {
        let mut insert = QueryBuilder::new(tables.dialect(), "INSERT INTO recent_metrics ");
        insert.push(columns(true));
        values(&mut insert, chunk, true);
        insert.push(" ON CONFLICT (run_no, timestamp, step, key, value, is_nan) DO NOTHING");
        insert.build().execute(tables.connection()).await?;
    }
    let mut added: BTreeMap<i64, i64> = BTreeMap::new();
    rows.iter().for_each(|logged| *added.entry(logged.number).or_default() += 1);
    let mut full: Vec<(i64, i64)> = Vec::new();
    for chunk in added.into_iter().collect::<Vec<_>>().chunks(CHUNK) {
        let mut count = QueryBuilder::new(tables.dialect(), "INSERT INTO recent_counts (run_no, held) ");
        count.push_values(chunk, |mut bind, (number, rows)| {
            bind.push_bind(*number).push_bind(*rows);
        });
        count.push(
            " ON CONFLICT (run_no) DO UPDATE SET held = recent_counts.held + excluded.held RETURNING run_no, held",
        );
        for row in count.build().fetch_all(tables.connection()).await? {
            let (number, held) = (row.try_get(0)?, row.try_get(1)?);
            if held >= MOVED {
                full.push((held, number));
            }
        }
    }
    // The fullest first, and as many rows as came: runs that fill together do not hold one commit up.
    full.sort_unstable();
    let mut moved = 0;
    while moved < rows.len() as i64
        && let Some((held, number)) = full.pop()
    {
        move_run(tables, number).await?;
        moved += held;
    }
    Ok(())
}

async fn move_run(tables: &mut Tables<'_>, number: i64) -> Result<(), FoldError> {
    for statement in [
        "INSERT INTO metrics (run_no, key, timestamp, step, value, is_nan) \
         SELECT run_no, key, timestamp, step, value, is_nan FROM recent_metrics WHERE run_no = $1 \
         ORDER BY run_no, key, timestamp, step, value, is_nan \
         ON CONFLICT (run_no, key, timestamp, step, value, is_nan) DO NOTHING",
        "DELETE FROM recent_metrics WHERE run_no = $1",
        "DELETE FROM recent_counts WHERE run_no = $1",
    ] {
        carbon_store::query(statement).bind(number).execute(tables.connection()).await?;
    }
    Ok(())
}

async fn write_latest(tables: &mut Tables<'_>, rows: &[Logged<'_>]) -> Result<(), FoldError> {
    let all_plain = rows.iter().all(|logged| plain(logged.metric));
    for chunk in rows.chunks(CHUNK) {
        let mut insert = QueryBuilder::new(tables.dialect(), "INSERT INTO latest_metrics ");
        insert.push(columns(all_plain));
        values(&mut insert, chunk, all_plain);
        insert.push(
            " ON CONFLICT (run_no, key) DO UPDATE SET timestamp = excluded.timestamp, step = excluded.step, \
             value = excluded.value, is_nan = excluded.is_nan, model_id = excluded.model_id, \
             dataset_name = excluded.dataset_name, dataset_digest = excluded.dataset_digest \
             WHERE (excluded.step, excluded.timestamp, excluded.value) > \
             (latest_metrics.step, latest_metrics.timestamp, latest_metrics.value)",
        );
        insert.build().execute(tables.connection()).await?;
    }
    Ok(())
}

fn columns(plain: bool) -> &'static str {
    match plain {
        true => "(run_no, key, timestamp, step, value, is_nan) ",
        false => "(run_no, key, timestamp, step, value, is_nan, model_id, dataset_name, dataset_digest) ",
    }
}

fn values(insert: &mut QueryBuilder, rows: &[Logged<'_>], plain: bool) {
    insert.push_values(rows, |mut bind, Logged { number, metric, .. }| {
        let (value, nan) = value(metric);
        bind.push_bind(*number)
            .push_bind(metric.key.as_str())
            .push_bind(metric.timestamp)
            .push_bind(metric.step)
            .push_bind(value)
            .push_bind(nan);
        if !plain {
            bind.push_bind(&metric.model_id).push_bind(&metric.dataset_name).push_bind(&metric.dataset_digest);
        }
    });
}
