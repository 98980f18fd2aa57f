//! `ml.logged_model.changed.v1`: changes of logged models, and their metrics, which are points of runs.

use carbon_core::Timestamp;
use carbon_read_models::registry::ConflictCode::{DoesNotExist, IdTaken, Refused};
use carbon_read_models::registry::filter::{Target, parse_filter};
use carbon_read_models::registry::queries::{LoggedModel, SearchLoggedModels, logged_model, search_logged_models};
use carbon_schemas::events::{LoggedModelChanged, LoggedModelKind, Metric};

use crate::world::{World, metric, metrics, model_created, model_of, pairs, scope, started};

async fn model(world: &World, id: &str) -> LoggedModel {
    logged_model(world.namespace(), &scope("acme"), id).await.unwrap().unwrap()
}

fn with(kind: LoggedModelKind, params: &[(&str, &str)], tags: &[(&str, &str)], removed: &[&str]) -> LoggedModelChanged {
    LoggedModelChanged {
        params: pairs(params),
        tags: pairs(tags),
        removed_tags: removed.iter().map(|key| (*key).into()).collect(),
        ..model_of("m-1", kind)
    }
}

#[tokio::test]
async fn given_a_model_when_it_changes_then_it_has_the_fields_of_its_events() {
    let mut world = World::with_run().await;
    let made =
        LoggedModelChanged { params: pairs(&[("a", "1")]), tags: pairs(&[("t", "x")]), ..model_created("m-1", "n") };
    world.takes(made).await;
    let found = model(&world, "m-1").await;
    assert_eq!((found.status.as_str(), found.deleted, found.name.as_str()), ("PENDING", false, "n"));
    assert_eq!((found.params, found.tags), (pairs(&[("a", "1")]), pairs(&[("t", "x")])));

    world.takes(with(LoggedModelKind::Params, &[("a", "1"), ("b", "2")], &[], &[])).await;
    world.takes(with(LoggedModelKind::Tagged, &[], &[("u", "1"), ("u", "2")], &["t"])).await;
    let ready = LoggedModelChanged {
        status: Some("READY".into()),
        occurred_at: Timestamp(2_000),
        ..model_of("m-1", LoggedModelKind::Finalised)
    };
    world.takes(ready).await;
    let found = model(&world, "m-1").await;
    assert_eq!(
        (found.status.as_str(), found.created_at, found.updated_at),
        ("READY", Timestamp(1_000), Timestamp(2_000))
    );
    assert_eq!((found.params, found.tags), (pairs(&[("a", "1"), ("b", "2")]), pairs(&[("u", "2")])));

    world.takes(model_of("m-1", LoggedModelKind::Deleted)).await;
    assert!(model(&world, "m-1").await.deleted);
    let gone = "Logged model with ID 'm-1' not found.";
    world.refuses(with(LoggedModelKind::Tagged, &[], &[("u", "3")], &[]), DoesNotExist, gone).await;
    world.refuses(model_of("m-1", LoggedModelKind::Deleted), DoesNotExist, gone).await;
    // An id stays taken.
    world.refuses(model_created("m-1", "again"), IdTaken, "logged model id m-1 is taken").await;
    world.refolds().await;
}

#[tokio::test]
async fn law_10_given_a_parameter_when_another_value_comes_then_the_record_changes_nothing() {
    let mut world = World::with_run().await;
    world.takes(LoggedModelChanged { params: pairs(&[("a", "1")]), ..model_created("m-1", "n") }).await;
    let message = "Changing param values is not allowed. Param with key='a' was already logged for model ID='m-1'.";
    world.refuses(with(LoggedModelKind::Params, &[("b", "2"), ("a", "2")], &[], &[]), Refused, message).await;
    let twice = message.replace("'a'", "'c'");
    world.refuses(with(LoggedModelKind::Params, &[("c", "1"), ("c", "2")], &[], &[]), Refused, &twice).await;
    let missing = "No tag with key 'x' found for model with ID 'm-1'.";
    world.refuses(with(LoggedModelKind::Tagged, &[], &[("y", "1")], &["x"]), DoesNotExist, missing).await;
    world.refolds().await;
}

#[tokio::test]
async fn given_metrics_of_runs_when_they_name_a_model_then_it_has_them() {
    let mut world = World::with_run().await;
    // The metric comes before the model: topics commute.
    let of_model = |value: f64, step: i64, dataset: Option<&str>| Metric {
        model_id: Some("m-1".into()),
        dataset_name: dataset.map(str::to_owned),
        ..metric("acc", value, step, step)
    };
    world
        .takes(metrics("r", vec![of_model(0.2, 1, None), of_model(0.9, 2, Some("d")), metric("acc", 7.0, 3, 3)]))
        .await;
    world.takes(model_created("m-1", "n")).await;
    world.takes(model_created("m-2", "n")).await;
    // A run of another tenant may name the same model id: its metric is not found by this tenant.
    let mut foreign = started("r", 1);
    foreign.tenant_id = crate::world::tenant("other");
    world.takes(foreign).await;
    let mut foreign = metrics("r", vec![of_model(0.5, 1, None)]);
    foreign.tenant_id = crate::world::tenant("other");
    world.takes(foreign).await;
    let found = model(&world, "m-1").await.metrics;
    let values: Vec<_> = found.iter().map(|logged| (logged.run_id.as_str(), logged.metric.value)).collect();
    assert_eq!(values, [("r", 0.2), ("r", 0.9)]);

    for (filter, datasets, expected) in [
        ("", &[][..], &["m-1", "m-2"][..]),
        ("metrics.acc > 0.5", &[], &["m-1"]),
        ("metrics.acc = 0.5", &[], &[]),
        ("metrics.acc > 1", &[], &[]),
        ("", &["d"], &["m-1"]),
        ("metrics.acc < 0.5", &["d"], &[]),
        ("name = 'n' AND model_id = 'm-2'", &[], &["m-2"]),
        ("tags.k = 'x'", &[], &[]),
    ] {
        let search = SearchLoggedModels {
            experiments: vec![1],
            filter: parse_filter(Target::LoggedModels, filter).unwrap(),
            datasets: datasets.iter().map(|name| ((*name).into(), None)).collect(),
            limit: 10,
            ..SearchLoggedModels::default()
        };
        let page = search_logged_models(world.namespace(), &scope("acme"), &search).await.unwrap();
        let ids: Vec<_> = page.items.iter().map(|model| model.model_id.as_str()).collect();
        assert_eq!(ids, expected, "{filter} {datasets:?}");
    }
    world.refolds().await;
}
