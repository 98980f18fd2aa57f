//! Metrics: latest points, histories and charts.

use carbon_read_models::registry::queries::{metric_intervals, run};
use carbon_read_models::registry::verdict;
use carbon_schemas::events::{Metric, RunLogged};

use crate::world::{World, metric, metrics, params, position, scope, started, tags};

/// The value, timestamp and step of a metric. The value is a text, since NaN does not equal itself.
fn show(metric: &Metric) -> (String, i64, i64) {
    (format!("{:?}", metric.value), metric.timestamp, metric.step)
}

async fn latest(world: &World, key: &str) -> (String, i64, i64) {
    let run = world.run("r").await;
    let of_key: Vec<_> = run.metrics.iter().filter(|metric| metric.key == key).collect();
    assert_eq!(of_key.len(), 1, "{key}");
    show(of_key[0])
}

#[tokio::test]
async fn the_latest_is_the_greatest_step_then_timestamp_then_value() {
    let mut world = World::with_run().await;
    let expect = |value: &str, timestamp, step| (value.to_owned(), timestamp, step);
    // (value, timestamp, step), and the latest point afterwards.
    for (value, timestamp, step, expected) in [
        (1.0, 10, 0, expect("1.0", 10, 0)),
        (9.0, 9, 0, expect("1.0", 10, 0)),
        (0.5, 10, 0, expect("1.0", 10, 0)),
        (1.5, 10, 0, expect("1.5", 10, 0)),
        (0.1, 11, 0, expect("0.1", 11, 0)),
        (-7.0, 0, 1, expect("-7.0", 0, 1)),
        (8.0, 99, -3, expect("-7.0", 0, 1)),
        // NaN counts as zero, as in MLflow: above negative values, below positive ones.
        (f64::NAN, 0, 1, expect("NaN", 0, 1)),
        (-1.0, 0, 1, expect("NaN", 0, 1)),
        // The first of equal points stays.
        (0.0, 0, 1, expect("NaN", 0, 1)),
        (0.25, 0, 1, expect("0.25", 0, 1)),
        (f64::NAN, 0, 1, expect("0.25", 0, 1)),
        (f64::NAN, 0, i64::MAX, expect("NaN", 0, i64::MAX)),
        (f64::MAX, i64::MAX, i64::MAX, expect("1.7976931348623157e308", i64::MAX, i64::MAX)),
        (-f64::MAX, i64::MAX, i64::MIN, expect("1.7976931348623157e308", i64::MAX, i64::MAX)),
    ] {
        world.takes(metrics("r", vec![metric("m", value, timestamp, step)])).await;
        assert_eq!(latest(&world, "m").await, expected, "after {value} at {timestamp}, {step}");
    }
    // The same holds within one record, in any order.
    world.takes(metrics("r", vec![metric("k", 1.0, 5, 5), metric("k", 2.0, 4, 5), metric("k", 3.0, 6, 4)])).await;
    assert_eq!(latest(&world, "k").await, expect("1.0", 5, 5));
    world.refolds().await;
}

#[tokio::test]
async fn an_exact_duplicate_is_ignored_and_anything_else_is_kept() {
    let mut world = World::with_run().await;
    let once = metric("m", 1.0, 1, 1);
    let of_model = Metric { model_id: Some("m-1".into()), ..once.clone() };
    world.takes(metrics("r", vec![once.clone(), once.clone(), of_model.clone()])).await;
    world.takes(metrics("r", vec![once.clone(), of_model])).await;
    let history = world.history("r", "m", 100, 0).await;
    assert_eq!(history.items, [once], "the first of an identity stays, with what it says of models");
    // Points that differ in one part of the identity are kept. NaN differs from zero.
    let others = [
        metric("m", 1.0, 1, 2),
        metric("m", 1.0, 2, 1),
        metric("m", 2.0, 1, 1),
        metric("m", 0.0, 1, 1),
        metric("m", f64::NAN, 1, 1),
        metric("m", f64::NAN, 1, 1),
        metric("other", 1.0, 1, 1),
    ];
    world.takes(metrics("r", others.to_vec())).await;
    let history = world.history("r", "m", 100, 0).await;
    assert_eq!(history.items.len(), 6);
    assert_eq!(history.items.iter().filter(|metric| metric.value.is_nan()).count(), 1);
    world.refolds().await;
}

/// The points of wide records and of narrow ones are in different tables on SQLite.
#[tokio::test]
async fn law_03_a_point_counts_once_whichever_table_holds_it() {
    let mut world = World::with_run().await;
    let wide = |step: i64| (0..100).map(|key| metric(&format!("k{key}"), step as f64 / 4.0, step, step)).collect();
    let of_model = |step: i64| Metric { model_id: Some("m-1".into()), ..metric("k7", step as f64 / 4.0, step, step) };
    let mut expected = Vec::new();
    for step in 0..90_i64 {
        let narrow = match step % 5 {
            0 => of_model(step),
            1 => metric("k7", step as f64 / 4.0, step, step),
            2 => metric("k7", f64::NAN, step, step),
            3 => metric("k7", -0.0, step, step),
            _ => metric("k7", 0.0, -step, step),
        };
        let plain = metric("k7", step as f64 / 4.0, step, step);
        // Equal points are one: the first in the log.
        let (first, second) = match step % 2 {
            0 => (metrics("r", vec![narrow.clone()]), metrics("r", wide(step))),
            _ => (metrics("r", wide(step)), metrics("r", vec![narrow.clone()])),
        };
        world.takes(first).await;
        world.takes(second).await;
        match step % 5 {
            0 if step % 2 == 0 => expected.push(narrow),
            0 | 1 => expected.push(plain),
            _ => expected.extend([narrow, plain]),
        }
        // At the end all points are logged again.
        if step == 89 {
            for step in 0..90 {
                world.takes(metrics("r", vec![of_model(step)])).await;
                world.takes(metrics("r", wide(step))).await;
            }
        }
    }
    let at = |metric: &Metric| (metric.timestamp, metric.step, if metric.value.is_nan() { 0.0 } else { metric.value });
    expected.sort_by(|one, other| at(one).partial_cmp(&at(other)).unwrap());
    let history = world.history("r", "k7", 1000, 0).await.items;
    let shown =
        |list: &[Metric]| list.iter().map(|metric| format!("{metric:?}").replace("-0.0", "0.0")).collect::<Vec<_>>();
    assert_eq!(shown(&history), shown(&expected));
    assert_eq!(world.history("r", "k8", 1000, 0).await.items.len(), 90);
    let mut pages = Vec::new();
    while pages.len() < history.len() {
        pages.extend(world.history("r", "k7", 7, pages.len()).await.items);
    }
    assert_eq!(shown(&pages), shown(&history));
    let of = async |key: &str| {
        metric_intervals(world.namespace(), &scope("acme"), &["r".to_owned()], key, (None, None), 2500).await.unwrap()
    };
    assert_eq!(of("k8").await.iter().map(|point| point.step).collect::<Vec<_>>(), (0..90).collect::<Vec<_>>());
    assert_eq!(of("k7").await.len(), expected.len());
    assert_eq!(latest(&world, "k8").await, ("22.25".to_owned(), 89, 89));
    // Both tables hold points: the test is not vacuous.
    if matches!(world.namespace(), carbon_store::Namespace::Sqlite { .. }) {
        for (table, least) in [("metrics", 50), ("wide_metrics", 1000), ("metric_segments", 2)] {
            let sql = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
            let rows: i64 = carbon_store::query(sql).scalar_one(world.namespace().readers()).await.unwrap();
            assert!(rows >= least, "{table}: {rows}");
        }
    }
    world.refolds().await;
}

#[tokio::test]
async fn a_history_is_paged_in_the_order_of_timestamp_step_and_value() {
    let mut world = World::with_run().await;
    let mut expected = Vec::new();
    for timestamp in 0..4 {
        for step in [-1, 0, 7] {
            for value in [-2.0, 1.0, 2.0] {
                expected.push(metric("m", value, timestamp, step));
            }
        }
    }
    let mut shuffled = expected.clone();
    shuffled.reverse();
    shuffled.swap(3, 30);
    for chunk in shuffled.chunks(7) {
        world.takes(metrics("r", chunk.to_vec())).await;
    }
    assert_eq!(world.history("r", "m", 36, 0).await.items, expected);
    assert!(!world.history("r", "m", 36, 0).await.more && world.history("r", "m", 35, 0).await.more);
    for size in [1, 5, 36, 40] {
        let (mut found, mut more) = (Vec::new(), true);
        while more {
            let page = world.history("r", "m", size, found.len()).await;
            assert!(page.items.len() <= size);
            found.extend(page.items);
            more = page.more;
        }
        assert_eq!(found, expected, "pages of {size}");
    }
    let beyond = world.history("r", "m", 10, 36).await;
    assert_eq!((beyond.items.len(), beyond.more), (0, false));
    assert_eq!(world.history("r", "none", 10, 0).await.items, []);
    world.refolds().await;
}

#[tokio::test]
async fn a_chart_has_evenly_spaced_points_up_to_its_maximum_and_always_the_last() {
    let mut world = World::with_run().await;
    world.takes(started("s", 1)).await;
    for chunk in (0..1000).collect::<Vec<i64>>().chunks(500) {
        world.takes(metrics("r", chunk.iter().map(|n| metric("m", *n as f64, 2000 - n, *n)).collect())).await;
    }
    world.takes(metrics("s", vec![metric("m", 5.0, 1, 3), metric("m", f64::NAN, 1, 4), metric("x", 1.0, 1, 1)])).await;
    let ids = ["s".to_owned(), "r".to_owned(), "absent".to_owned()];
    let points = async |steps, points| {
        let found = metric_intervals(world.namespace(), &scope("acme"), &ids, "m", steps, points).await.unwrap();
        let of = |run: &str| -> Vec<i64> { found.iter().filter(|p| p.run_id == run).map(|p| p.step).collect() };
        (of("r"), of("s"))
    };
    let (r, s) = points((None, None), 10).await;
    assert_eq!(r, [0, 100, 200, 300, 400, 500, 600, 700, 800, 999], "never more than was asked for");
    assert_eq!(s, [3, 4], "all of a few");
    assert_eq!(points((None, None), 1).await, (vec![999], vec![4]));
    assert_eq!(points((None, None), 2500).await.0.len(), 1000);
    assert_eq!(points((Some(10), Some(13)), 10).await, (vec![10, 11, 12, 13], vec![]));
    assert_eq!(points((Some(10), Some(19)), 3).await.0, [10, 14, 19]);
    assert_eq!(points((Some(i64::MIN), Some(3)), 320).await, (vec![0, 1, 2, 3], vec![3]));
    let found = metric_intervals(world.namespace(), &scope("acme"), &ids[..1], "m", (None, None), 9).await.unwrap();
    assert!(found[1].value.is_nan() && found[0].value == 5.0);
    let foreign = metric_intervals(world.namespace(), &scope("other"), &ids, "m", (None, None), 9).await.unwrap();
    assert_eq!(foreign, []);
}

/// More rows of every table than one statement writes.
#[tokio::test]
async fn three_thousand_records_fold_in_one_batch() {
    let mut world = World::with_experiment().await;
    let mut batch = Vec::new();
    for n in 0..600 {
        let id = format!("run{n}");
        let writer = world.writer();
        batch.push(writer.write(started(&id, 1)));
        batch.push(writer.write(params(&id, &[("a", &n.to_string()), ("b", "same")])));
        batch.push(writer.write(tags(&id, &[("t", &n.to_string()), ("gone", "1")])));
        batch.push(writer.write(metrics(&id, (0..4).map(|step| metric("m", f64::from(n), 1, step)).collect())));
        let mut last = params(&id, &[("a", "-1")]);
        last.removed_tags = vec!["gone".into()];
        // Every other record is rejected: its parameter differs.
        if n % 2 == 0 {
            last.params.clear();
        }
        batch.push(writer.write(last));
    }
    assert_eq!(batch.len(), 3000);
    world.fold(&batch).await;
    let counts = async |table: &str| -> i64 {
        let sql = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
        carbon_store::query(sql).scalar_one(world.namespace().readers()).await.unwrap()
    };
    assert_eq!(counts("runs").await, 600);
    assert_eq!(counts("params").await, 1200);
    assert_eq!(counts("run_tags").await, 600 * 2 + 300);
    assert_eq!(counts("metrics").await, 2400);
    assert_eq!(counts("latest_metrics").await, 600);
    assert_eq!(counts("conflicts").await, 300);
    for (n, record) in batch.iter().enumerate() {
        let said = verdict(world.namespace(), position(record)).await.unwrap();
        assert_eq!(said.is_some(), n % 10 == 9, "record {n}");
    }
    // Another batch with the same names meets stored rows.
    let again: Vec<_> = (0..3000)
        .map(|n| {
            let event = match n % 5 {
                0 => params(&format!("run{}", n / 5), &[("a", "x")]),
                1 => metrics(&format!("run{}", n / 5), vec![metric("m", 0.0, 2, 3)]),
                2 => RunLogged { removed_tags: vec!["t".into()], ..tags(&format!("run{}", n / 5), &[]) },
                3 => params(&format!("run{}", n / 5), &[("b", "same"), ("c", "new")]),
                _ => started(&format!("run{}", n / 5), 1),
            };
            world.writer().write(event)
        })
        .collect();
    world.fold(&again).await;
    let counts = async |table: &str| -> i64 {
        let sql = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
        carbon_store::query(sql).scalar_one(world.namespace().readers()).await.unwrap()
    };
    assert_eq!((counts("params").await, counts("run_tags").await), (1800, 600 + 300));
    assert_eq!((counts("metrics").await, counts("conflicts").await), (3000, 300 + 1200));
    let run = run(world.namespace(), &scope("acme"), "run7").await.unwrap().unwrap();
    assert_eq!(show(&run.metrics[0]), ("0.0".to_owned(), 2, 3));
    let (at_once, split) = (crate::world::Rows::new().await, crate::world::Rows::new().await);
    let log: Vec<_> = [created_one(), batch, again].concat();
    at_once.fold(&log).await;
    for part in log.chunks(777) {
        split.fold(part).await;
    }
    assert_eq!(at_once.digest().await, world.rows.digest().await);
    assert_eq!(split.digest().await, world.rows.digest().await);
}

fn created_one() -> Vec<carbon_read_models::registry::RegistryRecord> {
    vec![crate::world::LogWriter::default().write(crate::world::created(1, "one"))]
}
