//! The search for runs.

use carbon_read_models::registry::queries::{Page, Run, SearchRuns, View};
use carbon_schemas::events::{DatasetInput, ExperimentKind, KeyValue, RunKind, RunLogged};

use crate::world::{
    World, created, ids, in_one, logged, metric, metrics, of, pairs, params, run_of, scope, started, tags,
};

fn dataset(name: &str, digest: &str, tags: Vec<KeyValue>) -> DatasetInput {
    let (source_type, source) = ("local".into(), "s".into());
    DatasetInput { name: name.into(), digest: digest.into(), source_type, source, schema: None, profile: None, tags }
}

/// Experiment 1 with six runs, `a` to `f`, which start one after the other.
async fn world() -> World {
    let mut world = World::with_experiment().await;
    world.takes(created(2, "two")).await;
    for (at, id) in ["a", "b", "c", "d", "e", "f"].into_iter().enumerate() {
        let start = RunLogged {
            start_time: Some(100 + at as i64),
            run_name: Some(format!("Run {}", id.to_uppercase())),
            user_id: Some(if at < 3 { "ann" } else { "bob" }.into()),
            ..started(id, 1)
        };
        world.takes(start).await;
    }
    world.takes(started("other", 2)).await;
    for (id, value) in [("a", 1.0), ("b", 3.0), ("c", f64::NAN), ("d", -2.5), ("e", f64::NAN), ("other", 1.0)] {
        // An older point, which is not the latest.
        world.takes(metrics(id, vec![metric("m", 99.0, 1, 0), metric("m", value, 1, 1)])).await;
    }
    world.takes(metrics("a", vec![metric("inf", f64::MAX, 1, 1), metric("a b", 0.5, 1, 1)])).await;
    for (id, value) in [("a", "adam"), ("b", "Adam W"), ("c", ""), ("d", "10"), ("e", "9")] {
        world.takes(params(id, &[("opt", value)])).await;
        world.takes(tags(id, &[("kind", value), ("mlflow.x", "1")])).await;
    }
    let update = |id: &str, status: &str, end_time| RunLogged {
        status: Some(status.into()),
        end_time,
        ..run_of(id, RunKind::Updated)
    };
    world.takes(update("a", "FINISHED", Some(500))).await;
    world.takes(update("b", "FAILED", Some(400))).await;
    let context = |value: &str| pairs(&[("other", "test"), ("mlflow.data.context", value)]);
    let inputs = |id: &str, datasets| RunLogged { datasets, ..run_of(id, RunKind::Inputs) };
    world.takes(inputs("a", vec![dataset("prices", "d1", context("train")), dataset("curves", "d2", vec![])])).await;
    world.takes(inputs("b", vec![dataset("prices", "d3", context("eval"))])).await;
    world
}

#[tokio::test]
async fn filters_find_the_matching_runs() {
    let world = world().await;
    let uri = "mlflow-artifacts:/1/d/artifacts";
    let by_uri = format!("artifact_uri = '{uri}'");
    let cases: &[(&str, &[&str])] = &[
        ("", &["a", "b", "c", "d", "e", "f"]),
        // Metrics: the latest value. NaN differs from every number, and no other comparison with it is true.
        ("metrics.m = 1", &["a"]),
        ("metrics.m = 1.0", &["a"]),
        ("metrics.m != 1", &["b", "c", "d", "e"]),
        ("metrics.m != 0", &["a", "b", "c", "d", "e"]),
        ("metrics.m = 0", &[]),
        ("metrics.m < 1", &["d"]),
        ("metrics.m <= 1", &["a", "d"]),
        ("metrics.m > -3", &["a", "b", "d"]),
        ("metrics.m >= 3", &["b"]),
        ("metrics.m > 98", &[]),
        ("metrics.inf > 1e300", &["a"]),
        ("metrics.inf < 1e999", &["a"]),
        ("metrics.`a b` = .5", &["a"]),
        ("metrics.none != 1", &[]),
        // Parameters and tags.
        ("params.opt = 'adam'", &["a"]),
        ("params.opt != 'adam'", &["b", "c", "d", "e"]),
        ("params.opt = ''", &["c"]),
        ("params.opt LIKE 'adam%'", &["a"]),
        ("params.opt LIKE 'A%'", &["b"]),
        ("params.opt ILIKE 'ADAM%'", &["a", "b"]),
        ("params.opt LIKE '____'", &["a"]),
        ("params.opt LIKE '*'", &[]),
        ("params.opt IS NULL", &["f"]),
        ("params.opt IS NOT NULL", &["a", "b", "c", "d", "e"]),
        ("params.none IS NULL", &["a", "b", "c", "d", "e", "f"]),
        ("tags.kind = 'adam'", &["a"]),
        ("tags.kind != 'adam'", &["b", "c", "d", "e"]),
        ("tags.kind ILIKE '%W'", &["b"]),
        ("tags.kind IS NULL", &["f"]),
        ("tags.`mlflow.x` = '1' AND tags.kind = '9'", &["e"]),
        ("tags.mlflow.runName = 'Run C'", &["c"]),
        // Attributes.
        ("run_id = 'b'", &["b"]),
        ("run_id != 'b'", &["a", "c", "d", "e", "f"]),
        ("run_id IN ('a', 'f', 'zz')", &["a", "f"]),
        ("run_id NOT IN ('a', 'f')", &["b", "c", "d", "e"]),
        ("run_name LIKE 'run%'", &[]),
        ("run_name ILIKE 'run%'", &["a", "b", "c", "d", "e", "f"]),
        ("`Run Name` = 'Run A'", &["a"]),
        ("status = 'RUNNING'", &["c", "d", "e", "f"]),
        ("attributes.status != 'RUNNING'", &["a", "b"]),
        ("user_id = 'ann'", &["a", "b", "c"]),
        (&by_uri, &["d"]),
        ("start_time >= 104", &["e", "f"]),
        ("created < 100.5", &["a"]),
        ("end_time > 0", &["a", "b"]),
        ("end_time != 400", &["a"]),
        ("end_time <= 400", &["b"]),
        // Datasets.
        ("dataset.name = 'prices'", &["a", "b"]),
        ("datasets.digest = 'd2'", &["a"]),
        ("datasets.digest IN ('d2', 'd3')", &["a", "b"]),
        ("datasets.digest NOT IN ('d1', 'd2')", &["b"]),
        ("datasets.context = 'train'", &["a"]),
        ("datasets.context LIKE '%a%'", &["a", "b"]),
        ("datasets.context = 'test'", &[]),
        ("dataset.name ILIKE 'CUR%' AND dataset.context = 'train'", &["a"]),
        ("metrics.m > -3 AND params.opt != 'adam' AND status = 'FAILED'", &["b"]),
    ];
    for (filter, expected) in cases {
        assert_eq!(world.found(filter, &["run_id"]).await, *expected, "{filter}");
    }
}

#[tokio::test]
async fn orders_put_missing_values_last_and_break_ties_by_start_time() {
    let world = world().await;
    let cases: &[(&[&str], &[&str])] = &[
        // The latest start first.
        (&[], &["f", "e", "d", "c", "b", "a"]),
        (&["start_time"], &["a", "b", "c", "d", "e", "f"]),
        (&["created DESC"], &["f", "e", "d", "c", "b", "a"]),
        // Numbers, NaN, missing; ties in the order of the latest start.
        (&["metrics.m ASC"], &["d", "a", "b", "e", "c", "f"]),
        (&["metrics.m DESC"], &["b", "a", "d", "e", "c", "f"]),
        (&["metrics.none"], &["f", "e", "d", "c", "b", "a"]),
        (&["params.opt"], &["c", "d", "e", "b", "a", "f"]),
        (&["params.opt DESC"], &["a", "b", "e", "d", "c", "f"]),
        (&["tags.kind"], &["c", "d", "e", "b", "a", "f"]),
        (&["tags.kind DESC"], &["a", "b", "e", "d", "c", "f"]),
        (&["tags.`mlflow.x`"], &["e", "d", "c", "b", "a", "f"]),
        (&["end_time"], &["b", "a", "f", "e", "d", "c"]),
        (&["end_time DESC"], &["a", "b", "f", "e", "d", "c"]),
        (&["status"], &["b", "a", "f", "e", "d", "c"]),
        (&["user_id DESC", "run_name ASC"], &["d", "e", "f", "a", "b", "c"]),
        (&["user_id", "metrics.m DESC"], &["b", "a", "c", "d", "e", "f"]),
        (&["run_id DESC"], &["f", "e", "d", "c", "b", "a"]),
    ];
    for (order, expected) in cases {
        assert_eq!(world.found("", order).await, *expected, "{order:?}");
    }
    // Runs with the same start time are ordered by id.
    let mut world = World::with_experiment().await;
    for id in ["z", "x", "y"] {
        world.takes(started(id, 1)).await;
    }
    assert_eq!(world.found("", &[]).await, ["x", "y", "z"]);
    assert_eq!(world.found("", &["status DESC"]).await, ["x", "y", "z"]);
}

#[tokio::test]
async fn views_show_active_runs_or_runs_deleted_alone_or_with_their_experiment() {
    let mut world = world().await;
    world.takes(run_of("b", RunKind::Deleted)).await;
    let both = |view| SearchRuns { experiments: vec![1, 2, 77], ..in_one(view, "", &["run_id"]) };
    let found = async |world: &World, view| ids(world.search(&both(view)).await);
    assert_eq!(found(&world, View::Active).await, ["a", "c", "d", "e", "f", "other"]);
    assert_eq!(found(&world, View::Deleted).await, ["b"]);
    assert_eq!(found(&world, View::All).await, ["a", "b", "c", "d", "e", "f", "other"]);
    world.takes(of(1, ExperimentKind::Deleted)).await;
    assert_eq!(found(&world, View::Active).await, ["other"]);
    assert_eq!(found(&world, View::Deleted).await, ["a", "b", "c", "d", "e", "f"]);
    let page = world.search(&both(View::All)).await;
    assert!(page.items.iter().all(|run| run.info.deleted == (run.info.experiment_id == 1)));
    // A filter applies to every part of the view.
    let filtered = SearchRuns { experiments: vec![1, 2], ..in_one(View::Deleted, "run_id = 'b'", &[]) };
    assert_eq!(ids(world.search(&filtered).await), ["b"]);
    // A search in no experiment finds nothing.
    assert_eq!(ids(world.search(&SearchRuns { experiments: vec![], ..both(View::All) }).await), Vec::<String>::new());
}

#[tokio::test]
async fn pages_hold_every_run_exactly_once() {
    let mut world = World::with_experiment().await;
    for n in 0..53 {
        let id = format!("run{n:02}");
        let start = RunLogged { start_time: Some(n % 4), ..started(&id, 1) };
        world.takes(start).await;
        if n % 3 != 0 {
            let value = if n % 3 == 1 { f64::NAN } else { (n % 5) as f64 };
            world.takes(metrics(&id, vec![metric("m", value, 1, 1)])).await;
        }
    }
    for order in [&[][..], &["metrics.m DESC"], &["metrics.m"], &["start_time"], &["tags.none", "status"]] {
        let whole = world.found("", order).await;
        assert_eq!(whole.len(), 53);
        for size in [1, 7, 26, 53, 60] {
            let (mut found, mut more) = (Vec::new(), true);
            while more {
                let search = SearchRuns { limit: size, offset: found.len(), ..in_one(View::Active, "", order) };
                let page = world.search(&search).await;
                assert!(page.items.len() <= size && (page.items.len() == size || !page.more));
                found.extend(page.items.into_iter().map(|run| run.info.run_id));
                more = page.more;
            }
            assert_eq!(found, whole, "{order:?} in pages of {size}");
        }
    }
    let beyond = SearchRuns { offset: 1000, ..in_one(View::Active, "", &[]) };
    assert_eq!(ids(world.search(&beyond).await), Vec::<String>::new());
}

#[tokio::test]
async fn found_runs_have_everything_that_was_logged() {
    let mut world = world().await;
    world.takes(RunLogged { input_models: vec!["m-1".into()], ..run_of("a", RunKind::Inputs) }).await;
    world.takes(RunLogged { metrics: vec![metric("k", 7.0, 2, 3)], ..logged("a") }).await;
    let found = world.search(&in_one(View::Active, "run_id IN ('a', 'c')", &["run_id"])).await.items;
    for run in &found {
        // The run equals the run as it is read alone. NaN does not equal itself, so the texts are compared.
        let alone = world.run(&run.info.run_id).await;
        assert_eq!(format!("{run:?}"), format!("{alone:?}"));
    }
    let keys: Vec<&str> = found[0].metrics.iter().map(|metric| metric.key.as_str()).collect();
    assert_eq!(keys, ["a b", "inf", "k", "m"]);
    assert_eq!((found[0].datasets.len(), found[0].input_models.len()), (2, 1));
    assert!(found[1].metrics[0].value.is_nan());
    assert_eq!(scope("acme").tenant().as_str(), "acme");
}

#[tokio::test]
async fn the_best_runs_are_the_same_by_the_index_and_by_the_general_statement() {
    let mut world = World::with_experiment().await;
    world.takes(created(2, "two")).await;
    // Few values and times, so that there are ties. Every third run is in another experiment.
    for n in 0..600_i64 {
        let run = format!("run{:03}", n * 7919 % 600);
        let experiment = if n % 3 == 0 { 2 } else { 1 };
        let mut start = started(&run, experiment);
        start.start_time = Some(n % 5);
        world.takes(start).await;
        match n % 7 {
            0 => {}
            1 => world.takes(metrics(&run, vec![metric("m", f64::NAN, 0, 0)])).await,
            _ => world.takes(metrics(&run, vec![metric("m", (n % 40) as f64, 0, 0)])).await,
        }
    }
    for (filter, terms) in [
        ("", ["metrics.m DESC", "attributes.start_time DESC"]),
        ("", ["metrics.m ASC", "attributes.start_time DESC"]),
        ("metrics.m > 10", ["metrics.m DESC", "attributes.start_time DESC"]),
        ("metrics.m <= 35 AND metrics.m > 5", ["metrics.m ASC", "attributes.start_time DESC"]),
        ("metrics.m != 12", ["metrics.m DESC", "attributes.start_time DESC"]),
        ("attributes.run_name LIKE '%5'", ["metrics.m DESC", "attributes.start_time DESC"]),
        ("metrics.m = 3", ["metrics.m DESC", "attributes.start_time DESC"]),
        ("metrics.m > 100", ["metrics.m DESC", "attributes.start_time DESC"]),
    ] {
        for (limit, offset) in [(1, 0), (7, 0), (7, 60), (50, 100), (1000, 0), (20, 390)] {
            // The second term is the tie-break in any case, and selects the general statement.
            let [short, long] = [&terms[..1], &terms[..]].map(|terms| SearchRuns {
                limit,
                offset,
                ..in_one(View::Active, filter, terms)
            });
            let (short, long) = (world.search(&short).await, world.search(&long).await);
            assert_eq!(short.more, long.more, "{filter} {terms:?} {limit} {offset}");
            // Runs are compared by id, since NaN does not equal itself.
            let names = |page: Page<Run>| page.items.into_iter().map(|run| run.info.run_id).collect::<Vec<_>>();
            assert_eq!(names(short), names(long), "{filter} {terms:?} {limit} {offset}");
        }
    }
}
