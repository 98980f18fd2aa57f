//! The rows of metrics. The histories of a run's keys lie apart, so that a record of a hundred keys would write a hundred pages
//! of a file. What such records say goes to `wide_metrics` instead, in segments of about a thousand rows: within one by key, so
//! that a write finds its pages close by, and a history has a place in each. A value is in either table, in `wide_metrics`
//! perhaps more than once; of two that say the same the first counts.

use std::collections::{BTreeMap, HashMap, HashSet};

use carbon_schemas::events::{Metric, RunLogged};
use carbon_store::{Dialect, QueryBuilder, Separated};

use super::run_rows::inserts;
use super::runs::Changes;

/// A record of so many metrics is wide.
const WIDE: usize = 16;

/// A segment with so many rows takes no more.
const SEGMENT: i64 = 1000;

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

/// What a batch adds to a segment.
struct Segment {
    number: i64,
    segment: i64,
    rows: i64,
    earliest: i64,
    latest: i64,
}

/// The rows of a batch.
pub(super) struct Metrics<'a> {
    dialect: Dialect,
    direct: Vec<Logged<'a>>,
    /// By segment.
    wide: Vec<(i64, Logged<'a>)>,
    segments: Vec<Segment>,
    latest: Vec<Logged<'a>>,
}

impl<'a> Metrics<'a> {
    /// With the newest segment of each run, and how many rows it holds.
    pub fn of(dialect: Dialect, changes: &Changes<'a>, newest: &HashMap<i64, (i64, i64)>) -> Self {
        // Postgres writes rows one after the other anyway.
        let is_wide = |logged: &Logged<'_>| dialect == Dialect::Sqlite && logged.wide && plain(logged.metric);
        let mixed = changes.metrics.iter().any(is_wide) && !changes.metrics.iter().all(is_wide);
        // Where both tables are written the order between them is lost.
        let mut seen = HashSet::new();
        let firsts = changes.metrics.iter().copied().filter(|logged| !mixed || seen.insert(identity(logged)));
        let (wide, direct): (Vec<_>, Vec<_>) = firsts.partition(is_wide);
        let mut segments: BTreeMap<i64, Segment> = BTreeMap::new();
        let mut in_segment = |logged: Logged<'a>| {
            let Logged { number, metric, .. } = logged;
            let own = segments.entry(number).or_insert_with(|| {
                let (segment, held) = newest.get(&number).copied().unwrap_or((0, 0));
                let segment = if held < SEGMENT { segment } else { segment + 1 };
                Segment { number, segment, rows: 0, earliest: metric.timestamp, latest: metric.timestamp }
            });
            own.rows += 1;
            own.earliest = own.earliest.min(metric.timestamp);
            own.latest = own.latest.max(metric.timestamp);
            (own.segment, logged)
        };
        let wide = wide.into_iter().map(&mut in_segment).collect();
        let segments = segments.into_values().collect();
        let latest = changes.latest.iter();
        let latest = latest.map(|((number, _), metric)| Logged { number: *number, metric, wide: false }).collect();
        Self { dialect, direct, wide, segments, latest }
    }

    pub fn writes(&self) -> impl Iterator<Item = QueryBuilder> {
        let wide = inserts(
            self.dialect,
            &self.wide,
            "INSERT INTO wide_metrics (segment, run_no, key, timestamp, step, value, is_nan) ",
            |mut row, (segment, logged)| {
                row.push_bind(segment);
                bind_value(&mut row, logged);
            },
            " ON CONFLICT (run_no, segment, key, timestamp, step, value, is_nan) DO NOTHING",
        );
        let segments = inserts(
            self.dialect,
            &self.segments,
            "INSERT INTO metric_segments (run_no, segment, held, earliest, latest) ",
            |mut row, own| {
                row.push_bind(own.number)
                    .push_bind(own.segment)
                    .push_bind(own.rows)
                    .push_bind(own.earliest)
                    .push_bind(own.latest);
            },
            " ON CONFLICT (run_no, segment) DO UPDATE SET held = metric_segments.held + excluded.held, \
             earliest = min(metric_segments.earliest, excluded.earliest), \
             latest = max(metric_segments.latest, excluded.latest)",
        );
        self.write_direct().chain(wide).chain(segments).chain(self.write_latest())
    }

    fn write_direct(&self) -> impl Iterator<Item = QueryBuilder> {
        let (before, after) = match self.dialect {
            Dialect::Sqlite => (
                "INSERT INTO metrics (run_no, key, timestamp, step, value, is_nan, model_id, dataset_name, \
                 dataset_digest) SELECT * FROM (",
                ") v WHERE NOT EXISTS (SELECT 1 FROM metric_segments g CROSS JOIN wide_metrics w \
                 WHERE g.run_no = v.column1 AND v.column3 BETWEEN g.earliest AND g.latest \
                 AND (w.run_no, w.segment, w.key, w.timestamp, w.step, w.value, w.is_nan) = \
                 (g.run_no, g.segment, v.column2, v.column3, v.column4, v.column5, v.column6)) \
                 ON CONFLICT (run_no, key, timestamp, step, value, is_nan) DO NOTHING",
            ),
            Dialect::Postgres => (
                "INSERT INTO metrics (run_no, key, timestamp, step, value, is_nan, model_id, dataset_name, dataset_digest) ",
                " ON CONFLICT (run_no, key, timestamp, step, value, is_nan) DO NOTHING",
            ),
        };
        inserts(self.dialect, &self.direct, before, bind_full, after)
    }

    fn write_latest(&self) -> impl Iterator<Item = QueryBuilder> {
        let all_plain = self.latest.iter().all(|logged| plain(logged.metric));
        let before = match all_plain {
            true => "INSERT INTO latest_metrics (run_no, key, timestamp, step, value, is_nan) ",
            false => {
                "INSERT INTO latest_metrics (run_no, key, timestamp, step, value, is_nan, model_id, dataset_name, \
                 dataset_digest) "
            }
        };
        let bind = move |row: Separated<'_>, logged: &Logged<'_>| match all_plain {
            true => bind_plain(row, logged),
            false => bind_full(row, logged),
        };
        inserts(
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

fn bind_plain(mut row: Separated<'_>, logged: &Logged<'_>) {
    bind_value(&mut row, logged);
}

fn bind_full(mut row: Separated<'_>, logged: &Logged<'_>) {
    let metric = logged.metric;
    bind_value(&mut row, logged)
        .push_bind(&metric.model_id)
        .push_bind(&metric.dataset_name)
        .push_bind(&metric.dataset_digest);
}

fn bind_value<'s, 'q>(row: &'s mut Separated<'q>, Logged { number, metric, .. }: &Logged<'_>) -> &'s mut Separated<'q> {
    let (value, nan) = value(metric);
    row.push_bind(*number)
        .push_bind(metric.key.as_str())
        .push_bind(metric.timestamp)
        .push_bind(metric.step)
        .push_bind(value)
        .push_bind(nan)
}
