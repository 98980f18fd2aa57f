//! The points of metrics: their tables, the one relation that readers query, and the one writer. No other module names
//! `metrics`, `wide_metrics` or `metric_segments`.
//!
//! On SQLite the histories of a run's keys are far apart, so a record of 100 keys would write 100 pages of the file.
//! The points of such wide records go to `wide_metrics` instead, in segments of about 1,000 rows of a run and in key
//! order within a segment: a write touches few pages, and a history is in one place per segment. A point is in
//! `metrics` or in `wide_metrics`, and in `wide_metrics` perhaps in several segments. Readers see equal points as one;
//! the first in the log counts.
//!
//! Postgres appends rows to a heap, so it has `metrics` alone.

use std::collections::{BTreeMap, HashMap, HashSet};

use carbon_schemas::events::{Metric, RunLogged};
use carbon_store::IndexColumn::Asc;
use carbon_store::{Column, Dialect, Index, QueryBuilder, Row, Separated, Table};

use super::bulk::with_values;

/// A record of at least this many metrics is wide.
const WIDE: usize = 16;

/// A segment of at least this many rows takes no more.
const SEGMENT_ROWS: i64 = 1000;

/// The columns that tell two points apart.
macro_rules! identity {
    () => {
        "run_no, key, timestamp, step, value, is_nan"
    };
}

/// The columns that say which model and dataset a point was measured on.
macro_rules! origin {
    () => {
        "model_id, dataset_name, dataset_digest"
    };
}

const IDENTITY: &[&str] = &["run_no", "key", "timestamp", "step", "value", "is_nan"];

/// The columns of `metrics` and `latest_metrics`.
const COLUMNS: &[Column] = &[
    Column::int("run_no"),
    Column::text("key"),
    Column::int("timestamp"),
    Column::int("step"),
    Column::real("value"),
    Column::int("is_nan"),
    Column::text("model_id").nullable(),
    Column::text("dataset_name").nullable(),
    Column::text("dataset_digest").nullable(),
];

pub(super) const METRICS: Table = Table::new("metrics", COLUMNS, IDENTITY).clustered().indexes(&[Index::new(
    "metrics_model",
    &[Asc("model_id"), Asc("key")],
)
.only_where("model_id IS NOT NULL")]);

/// The latest point of each run and key. Searches read this table by its name.
pub(super) const LATEST_METRICS: Table = Table::new("latest_metrics", COLUMNS, &["run_no", "key"])
    .clustered()
    .indexes(&[Index::new("latest_metrics_value", &[Asc("key"), Asc("is_nan"), Asc("value"), Asc("run_no")])]);

/// The points of wide records that name no model and no dataset.
pub(super) const WIDE_METRICS: Table = Table::new(
    "wide_metrics",
    &[
        Column::int("run_no"),
        Column::int("segment"),
        Column::text("key"),
        Column::int("timestamp"),
        Column::int("step"),
        Column::real("value"),
        Column::int("is_nan"),
    ],
    &["run_no", "segment", "key", "timestamp", "step", "value", "is_nan"],
)
.clustered()
.only_on(Dialect::Sqlite);

/// The segments of `wide_metrics`: how many rows each holds, and the range of their timestamps.
pub(super) const METRIC_SEGMENTS: Table = Table::new(
    "metric_segments",
    &[
        Column::int("run_no"),
        Column::int("segment"),
        Column::int("held"),
        Column::int("earliest"),
        Column::int("latest"),
    ],
    &["run_no", "segment"],
)
.clustered()
.only_on(Dialect::Sqlite);

/// The table of all points that name a model: such points are never in `wide_metrics`.
pub(super) const OF_MODELS: &str = "metrics";

/// A table of points, for the `SELECT` of a reader. The columns of a point are those of `m`.
#[derive(Clone, Copy)]
pub(super) enum PointTable {
    Metrics,
    Wide,
}

impl PointTable {
    /// The `FROM` items.
    pub fn from(self) -> &'static str {
        match self {
            Self::Metrics => "metrics m",
            Self::Wide => "metric_segments g CROSS JOIN wide_metrics m",
        }
    }

    /// The condition that a point is of the run with this number, an SQL expression.
    pub fn of_run(self, run_no: &str) -> String {
        match self {
            Self::Metrics => format!("m.run_no = {run_no}"),
            Self::Wide => format!("g.run_no = {run_no} AND m.run_no = g.run_no AND m.segment = g.segment"),
        }
    }

    /// The columns `model_id`, `dataset_name` and `dataset_digest`.
    pub fn origin(self) -> &'static str {
        match self {
            Self::Metrics => "m.model_id, m.dataset_name, m.dataset_digest",
            Self::Wide => "NULL, NULL, NULL",
        }
    }

    /// The condition that a point is not in `metrics` too, with the word before it. A reader that selects
    /// [`Self::origin`] needs it: the union alone would return such a point twice.
    pub fn only_here(self, word: &str) -> String {
        match self {
            Self::Metrics => String::new(),
            Self::Wide => format!(
                " {word} NOT EXISTS (SELECT 1 FROM metrics s \
                 WHERE (s.run_no, s.key, s.timestamp, s.step, s.value, s.is_nan) = \
                 (m.run_no, m.key, m.timestamp, m.step, m.value, m.is_nan))"
            ),
        }
    }
}

/// All points: the `SELECT` of each table, as one that returns equal rows once. Postgres has one table, and no union.
pub(super) fn all(dialect: Dialect, select: impl Fn(PointTable) -> String) -> String {
    let metrics = select(PointTable::Metrics);
    match dialect {
        Dialect::Sqlite => format!("{metrics} UNION {}", select(PointTable::Wide)),
        Dialect::Postgres => metrics,
    }
}

/// A metric of a run that was logged.
#[derive(Clone, Copy)]
pub(super) struct LoggedPoint<'a> {
    pub run_no: i64,
    pub metric: &'a Metric,
    /// The point came in a wide record.
    pub wide: bool,
}

/// Whether a record is wide.
pub(super) fn is_wide(event: &RunLogged) -> bool {
    event.metrics.len() >= WIDE
}

/// The point names neither a model nor a dataset.
fn is_plain(metric: &Metric) -> bool {
    metric.model_id.is_none() && metric.dataset_name.is_none() && metric.dataset_digest.is_none()
}

fn identity<'a>(point: &LoggedPoint<'a>) -> (i64, &'a str, i64, i64, u64, bool) {
    let LoggedPoint { run_no, metric, .. } = *point;
    let (value, nan) = value(metric);
    (run_no, &metric.key, metric.timestamp, metric.step, value.to_bits(), nan)
}

/// The columns `value` and `is_nan`.
fn value(metric: &Metric) -> (f64, bool) {
    let nan = metric.value.is_nan();
    // -0.0 becomes 0.0: SQLite does not tell them apart.
    (if nan { 0.0 } else { metric.value + 0.0 }, nan)
}

/// The newest segment of a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewestSegment {
    segment: i64,
    held: i64,
}

impl NewestSegment {
    /// Columns of a `SELECT … FROM runs`, each with a comma before it; [`Self::read`] reads them.
    pub fn columns(dialect: Dialect) -> &'static str {
        match dialect {
            Dialect::Sqlite => {
                ", (SELECT g.segment FROM metric_segments g WHERE g.run_no = runs.run_no ORDER BY g.segment DESC LIMIT 1), \
                 (SELECT g.held FROM metric_segments g WHERE g.run_no = runs.run_no ORDER BY g.segment DESC LIMIT 1)"
            }
            Dialect::Postgres => "",
        }
    }

    /// The newest segment of the run of a row whose own columns end before `at`; `None` if the run has no segment.
    pub fn read(row: &Row, at: usize) -> Result<Option<Self>, sqlx::Error> {
        if row.len() <= at {
            return Ok(None);
        }
        Ok(match (row.try_get(at)?, row.try_get(at + 1)?) {
            (Some(segment), Some(held)) => Some(Self { segment, held }),
            _ => None,
        })
    }
}

/// The rows that a batch adds to a segment.
struct SegmentGrowth {
    run_no: i64,
    segment: i64,
    rows: i64,
    earliest: i64,
    latest: i64,
}

/// The writes of a batch's points.
pub(super) struct PointWrites<'a> {
    dialect: Dialect,
    direct: Vec<LoggedPoint<'a>>,
    /// Each with its segment.
    wide: Vec<(i64, LoggedPoint<'a>)>,
    segments: Vec<SegmentGrowth>,
    latest: Vec<LoggedPoint<'a>>,
}

impl<'a> PointWrites<'a> {
    /// The writes of `points`, in log order. `latest` are the latest points of the batch by run and key; `newest` are
    /// the newest segments of the runs.
    pub fn of(
        dialect: Dialect,
        points: &[LoggedPoint<'a>],
        latest: &BTreeMap<(i64, &'a str), &'a Metric>,
        newest: &HashMap<i64, NewestSegment>,
    ) -> Self {
        let goes_wide = |point: &LoggedPoint<'_>| dialect == Dialect::Sqlite && point.wide && is_plain(point.metric);
        let mixed = points.iter().any(goes_wide) && !points.iter().all(goes_wide);
        // A batch that writes both tables loses the order between them: only the first of equal points is written.
        let mut seen = HashSet::new();
        let firsts = points.iter().copied().filter(|point| !mixed || seen.insert(identity(point)));
        let (wide, direct): (Vec<_>, Vec<_>) = firsts.partition(goes_wide);
        let mut segments: BTreeMap<i64, SegmentGrowth> = BTreeMap::new();
        let mut in_segment = |point: LoggedPoint<'a>| {
            let LoggedPoint { run_no, metric, .. } = point;
            let own = segments.entry(run_no).or_insert_with(|| {
                let segment = match newest.get(&run_no) {
                    None => 0,
                    Some(newest) if newest.held < SEGMENT_ROWS => newest.segment,
                    Some(newest) => newest.segment + 1,
                };
                SegmentGrowth { run_no, segment, rows: 0, earliest: metric.timestamp, latest: metric.timestamp }
            });
            own.rows += 1;
            own.earliest = own.earliest.min(metric.timestamp);
            own.latest = own.latest.max(metric.timestamp);
            (own.segment, point)
        };
        let wide = wide.into_iter().map(&mut in_segment).collect();
        let segments = segments.into_values().collect();
        let latest = latest.iter();
        let latest = latest.map(|((run_no, _), metric)| LoggedPoint { run_no: *run_no, metric, wide: false }).collect();
        Self { dialect, direct, wide, segments, latest }
    }

    pub fn statements(&self) -> impl Iterator<Item = QueryBuilder> {
        self.write_direct().chain(self.write_wide()).chain(self.write_segments()).chain(self.write_latest())
    }

    fn write_direct(&self) -> impl Iterator<Item = QueryBuilder> {
        let (before, after) = match self.dialect {
            Dialect::Sqlite => (
                concat!("INSERT INTO metrics (", identity!(), ", ", origin!(), ") SELECT * FROM ("),
                concat!(
                    ") v WHERE NOT EXISTS (SELECT 1 FROM metric_segments g CROSS JOIN wide_metrics w \
                     WHERE g.run_no = v.column1 AND v.column3 BETWEEN g.earliest AND g.latest \
                     AND (w.run_no, w.segment, w.key, w.timestamp, w.step, w.value, w.is_nan) = \
                     (g.run_no, g.segment, v.column2, v.column3, v.column4, v.column5, v.column6)) \
                     ON CONFLICT (",
                    identity!(),
                    ") DO NOTHING"
                ),
            ),
            Dialect::Postgres => (
                concat!("INSERT INTO metrics (", identity!(), ", ", origin!(), ") "),
                concat!(" ON CONFLICT (", identity!(), ") DO NOTHING"),
            ),
        };
        with_values(self.dialect, &self.direct, before, bind_with_origin, after)
    }

    fn write_wide(&self) -> impl Iterator<Item = QueryBuilder> {
        with_values(
            self.dialect,
            &self.wide,
            concat!("INSERT INTO wide_metrics (segment, ", identity!(), ") "),
            |mut row, (segment, point)| {
                row.push_bind(segment);
                bind_identity(&mut row, point);
            },
            " ON CONFLICT (run_no, segment, key, timestamp, step, value, is_nan) DO NOTHING",
        )
    }

    fn write_segments(&self) -> impl Iterator<Item = QueryBuilder> {
        with_values(
            self.dialect,
            &self.segments,
            "INSERT INTO metric_segments (run_no, segment, held, earliest, latest) ",
            |mut row, own| {
                row.push_bind(own.run_no)
                    .push_bind(own.segment)
                    .push_bind(own.rows)
                    .push_bind(own.earliest)
                    .push_bind(own.latest);
            },
            " ON CONFLICT (run_no, segment) DO UPDATE SET held = metric_segments.held + excluded.held, \
             earliest = min(metric_segments.earliest, excluded.earliest), \
             latest = max(metric_segments.latest, excluded.latest)",
        )
    }

    fn write_latest(&self) -> impl Iterator<Item = QueryBuilder> {
        let all_plain = self.latest.iter().all(|point| is_plain(point.metric));
        let before = match all_plain {
            true => concat!("INSERT INTO latest_metrics (", identity!(), ") "),
            false => concat!("INSERT INTO latest_metrics (", identity!(), ", ", origin!(), ") "),
        };
        let bind = move |row: Separated<'_>, point: &LoggedPoint<'_>| match all_plain {
            true => bind_without_origin(row, point),
            false => bind_with_origin(row, point),
        };
        with_values(
            self.dialect,
            &self.latest,
            before,
            bind,
            " ON CONFLICT (run_no, key) DO UPDATE SET timestamp = excluded.timestamp, step = excluded.step, \
             value = excluded.value, is_nan = excluded.is_nan, model_id = excluded.model_id, \
             dataset_name = excluded.dataset_name, dataset_digest = excluded.dataset_digest \
             WHERE (excluded.step, excluded.timestamp, excluded.value) > \
             (latest_metrics.step, latest_metrics.timestamp, latest_metrics.value)",
        )
    }
}

fn bind_without_origin(mut row: Separated<'_>, point: &LoggedPoint<'_>) {
    bind_identity(&mut row, point);
}

fn bind_with_origin(mut row: Separated<'_>, point: &LoggedPoint<'_>) {
    let metric = point.metric;
    bind_identity(&mut row, point)
        .push_bind(&metric.model_id)
        .push_bind(&metric.dataset_name)
        .push_bind(&metric.dataset_digest);
}

fn bind_identity<'s, 'q>(row: &'s mut Separated<'q>, point: &LoggedPoint<'_>) -> &'s mut Separated<'q> {
    let LoggedPoint { run_no, metric, .. } = point;
    let (value, nan) = value(metric);
    row.push_bind(*run_no)
        .push_bind(metric.key.as_str())
        .push_bind(metric.timestamp)
        .push_bind(metric.step)
        .push_bind(value)
        .push_bind(nan)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn postgres_has_one_table_of_points_and_no_union() {
        let select =
            |table: PointTable| format!("SELECT {} FROM {} WHERE {}", table.origin(), table.from(), table.of_run("$1"));
        let (sqlite, postgres) = (all(Dialect::Sqlite, select), all(Dialect::Postgres, select));
        assert!(sqlite.contains(" UNION ") && sqlite.contains("wide_metrics"), "{sqlite}");
        assert_eq!(postgres, "SELECT m.model_id, m.dataset_name, m.dataset_digest FROM metrics m WHERE m.run_no = $1");
        assert_eq!(NewestSegment::columns(Dialect::Postgres), "");
        let tables = [METRICS, WIDE_METRICS, METRIC_SEGMENTS].map(|table| table.ddl(Dialect::Postgres));
        assert!(tables[0].contains("\"metrics\"") && tables[1].is_empty() && tables[2].is_empty());
    }
}
