//! Law 12: a tenant finds and changes nothing of another tenant.

use carbon_read_models::registry::queries::{
    SearchExperiments, SearchRuns, View, experiment, experiment_by_name, metric_intervals, next_experiment_id, run,
    run_info, search_experiments, search_runs,
};
use carbon_schemas::events::{ExperimentChanged, ExperimentKind, RunKind, RunLogged};

use crate::world::{World, created, in_one, metric, metrics, of, params, run_of, scope, started, tags, tenant};

fn globex_experiment(event: ExperimentChanged) -> ExperimentChanged {
    ExperimentChanged { tenant_id: tenant("globex"), ..event }
}

fn globex_run(event: RunLogged) -> RunLogged {
    RunLogged { tenant_id: tenant("globex"), ..event }
}

#[tokio::test]
async fn law_12_a_tenant_finds_and_changes_only_its_own() {
    let mut world = World::with_run().await;
    world.takes(tags("r", &[("secret", "acme")])).await;
    world.takes(metrics("r", vec![metric("m", 1.0, 1, 1)])).await;
    world.takes(created(2, "acme only")).await;
    world.takes(started("acme-run", 2)).await;

    // The same names, ids and run ids are free for another tenant.
    world.takes(globex_experiment(created(1, "one"))).await;
    world.takes(globex_run(started("r", 1))).await;
    world.takes(globex_run(params("r", &[("p", "globex")]))).await;
    world.takes(params("r", &[("p", "acme")])).await;
    // Things of another tenant are not found.
    assert!(world.when(globex_run(tags("acme-run", &[("t", "1")]))).await.is_some());
    assert!(world.when(globex_experiment(of(2, ExperimentKind::Deleted))).await.is_some());
    assert!(
        world.when(globex_run(RunLogged { removed_tags: vec!["secret".into()], ..tags("r", &[]) })).await.is_some()
    );
    // A change of one's own does not affect the other tenant.
    world.takes(globex_experiment(of(1, ExperimentKind::Deleted))).await;
    assert!(!world.experiment(1).await.deleted && !world.run("r").await.info.deleted);
    world.takes(globex_experiment(of(1, ExperimentKind::Restored))).await;
    world.takes(globex_run(run_of("r", RunKind::Deleted))).await;
    assert!(!world.run("r").await.info.deleted);
    world.takes(globex_run(run_of("r", RunKind::Restored))).await;

    let (rows, globex) = (world.namespace(), scope("globex"));
    assert_eq!(experiment(rows, &globex, 2).await.unwrap(), None);
    assert_eq!(experiment_by_name(rows, &globex, "acme only").await.unwrap(), None);
    assert_eq!(next_experiment_id(rows, &globex).await.unwrap(), 2);
    assert_eq!(run_info(rows, &globex, "acme-run").await.unwrap(), None);
    assert_eq!(run(rows, &globex, "acme-run").await.unwrap(), None);
    let own = run(rows, &globex, "r").await.unwrap().unwrap();
    assert_eq!(
        (own.params[0].value.as_str(), own.params.len(), own.tags.len(), own.metrics.len()),
        ("globex", 1, 1, 0)
    );
    let all = SearchExperiments { view: View::All, limit: 100, ..SearchExperiments::default() };
    let found = search_experiments(rows, &globex, &all).await.unwrap();
    assert_eq!(found.items.iter().map(|experiment| experiment.id).collect::<Vec<_>>(), [1, 0]);

    for filter in ["", "tags.secret = 'acme'", "tags.secret IS NULL", "metrics.m > 0", "run_id = 'acme-run'"] {
        for order in [&[][..], &["metrics.m DESC"], &["tags.secret"]] {
            let search = SearchRuns { experiments: vec![1, 2], ..in_one(View::All, filter, order) };
            let found = search_runs(rows, &globex, &search).await.unwrap();
            assert!(found.items.iter().all(|run| run.params[0].value == "globex"), "{filter:?} {order:?}");
            let expected = usize::from(filter.is_empty() || filter.ends_with("IS NULL"));
            assert_eq!(found.items.len(), expected, "{filter:?} {order:?}");
        }
    }
    let ids = ["r".to_owned(), "acme-run".to_owned()];
    assert_eq!(metric_intervals(rows, &globex, &ids, "m", (None, None), 10).await.unwrap(), []);
    world.refolds().await;
}

#[tokio::test]
async fn law_12_a_stranger_finds_nothing() {
    let world = World::with_run().await;
    let (rows, nobody) = (world.namespace(), scope("nobody"));
    assert_eq!(experiment(rows, &nobody, 1).await.unwrap(), None);
    assert_eq!(run(rows, &nobody, "r").await.unwrap(), None);
    assert_eq!(search_runs(rows, &nobody, &in_one(View::All, "", &[])).await.unwrap().items, []);
}
