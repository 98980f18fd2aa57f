//! Runs: start, updates and deletion, parameters, tags, inputs and outputs.

use carbon_read_models::registry::ConflictCode::{DoesNotExist, IdTaken, Refused};
use carbon_read_models::registry::queries::Run;
use carbon_read_models::registry::{Conflict, verdict};
use carbon_schemas::events::{DatasetInput, ExperimentKind, ModelOutput, RunKind, RunLogged};

use crate::world::{World, created, keys, logged, metric, metrics, of, pairs, params, position, run_of, started, tags};

const GONE: &str = "The run r must be in the 'active' state. Current state is deleted.";

fn differs(list: &str) -> String {
    format!("Changing param values is not allowed. Params were already logged='[{list}]' for run ID='r'.")
}

#[tokio::test]
async fn a_run_has_the_fields_of_its_start_and_its_updates() {
    let mut world = World::with_run().await;
    let run = world.run("r").await;
    assert_eq!((run.info.experiment_id, run.info.status.as_str(), run.info.user_id.as_str()), (1, "RUNNING", "ann"));
    assert_eq!((run.info.start_time, run.info.end_time, run.info.deleted), (100, None, false));
    assert_eq!(run.info.artifact_uri, "mlflow-artifacts:/1/r/artifacts");
    assert_eq!((run.info.name.as_str(), run.tags), ("name of r", pairs(&[("mlflow.runName", "name of r")])));

    let update = |status: Option<&str>, end_time| RunLogged {
        status: status.map(str::to_owned),
        end_time,
        ..run_of("r", RunKind::Updated)
    };
    world.takes(update(Some("FINISHED"), Some(0))).await;
    // An update leaves the fields that it does not set.
    world.takes(update(Some("FAILED"), None)).await;
    let run = world.run("r").await;
    assert_eq!((run.info.status.as_str(), run.info.end_time, run.info.name.as_str()), ("FAILED", Some(0), "name of r"));
    world.takes(update(None, Some(-5))).await;
    assert_eq!(world.run("r").await.info.end_time, Some(-5));
    world.refolds().await;
}

#[tokio::test]
async fn a_started_run_equals_what_a_query_returns() {
    let mut world = World::with_experiment().await;
    let all = [("b", "1"), ("a", "2"), ("b", "3"), ("mlflow.runName", "tagged")];
    for (id, tags) in [("r", &all[..]), ("s", &[])] {
        let event = RunLogged { tags: pairs(tags), ..started(id, 1) };
        let said = Run::started(&event);
        world.takes(event.clone()).await;
        let found = world.run(&event.run_id).await;
        let of = |run: &Run| {
            let info = run.info.clone();
            (info.run_id, info.experiment_id, info.name, info.user_id, info.status, info.start_time, info.artifact_uri)
        };
        assert_eq!(of(&said), of(&found));
        assert_eq!((said.info.end_time, said.info.deleted), (found.info.end_time, found.info.deleted));
        assert_eq!(Run { info: found.info.clone(), ..said }, found);
    }
}

#[tokio::test]
async fn the_name_of_a_run_and_its_tag_follow_each_other() {
    let mut world = World::with_run().await;
    let name_and_tag = async |world: &World, id: &str| {
        let run = world.run(id).await;
        let tag = run.tags.into_iter().find(|tag| tag.key == "mlflow.runName").map(|tag| tag.value);
        (run.info.name, tag)
    };
    let both = |name: &str| (name.to_owned(), Some(name.to_owned()));
    world.takes(RunLogged { run_name: Some("new".into()), ..run_of("r", RunKind::Updated) }).await;
    assert_eq!(name_and_tag(&world, "r").await, both("new"));
    world.takes(tags("r", &[("mlflow.runName", "by tag")])).await;
    assert_eq!(name_and_tag(&world, "r").await, both("by tag"));
    world.takes(tags("r", &[("mlflow.runName", "first"), ("mlflow.runName", "last")])).await;
    assert_eq!(name_and_tag(&world, "r").await, both("last"));
    // A start that sets both to different values: the name wins.
    let start = RunLogged { tags: pairs(&[("mlflow.runName", "tagged"), ("k", "v")]), ..started("s", 1) };
    world.takes(start).await;
    assert_eq!(name_and_tag(&world, "s").await, both("name of s"));
    assert_eq!(keys(&world.run("s").await.tags), ["k", "mlflow.runName"]);
    // Removing the tag keeps the name.
    world.takes(RunLogged { removed_tags: vec!["mlflow.runName".into()], ..logged("r") }).await;
    assert_eq!(name_and_tag(&world, "r").await, ("last".into(), None));
    world.takes(RunLogged { run_name: Some("again".into()), ..run_of("r", RunKind::Updated) }).await;
    assert_eq!(name_and_tag(&world, "r").await, both("again"));
    world.refolds().await;
}

#[tokio::test]
async fn law_09_a_run_id_belongs_to_the_first_start() {
    let mut world = World::with_run().await;
    let second = RunLogged { user_id: Some("eve".into()), tags: pairs(&[("t", "1")]), ..started("r", 2) };
    world.refuses(second.clone(), IdTaken, "run id r is taken").await;
    world.takes(run_of("r", RunKind::Deleted)).await;
    world.refuses(second, IdTaken, "run id r is taken").await;
    assert_eq!(world.run("r").await.info.user_id, "ann");
    // Also within one batch.
    let writer = world.writer();
    let batch = [
        writer.write(started("s", 1)),
        writer.write(RunLogged { user_id: Some("eve".into()), ..started("s", 1) }),
        writer.write(tags("s", &[("after", "1")])),
    ];
    world.fold(&batch).await;
    let said = verdict(world.namespace(), position(&batch[1])).await.unwrap();
    assert_eq!(said, Some(Conflict::new(IdTaken, "run id s is taken")));
    assert_eq!(world.run("s").await.info.user_id, "ann");
    assert_eq!(keys(&world.run("s").await.tags), ["after", "mlflow.runName"]);
    world.refolds().await;
}

#[tokio::test]
async fn law_10_a_parameter_is_set_once_and_a_record_that_changes_it_is_rejected_whole() {
    let mut world = World::with_run().await;
    world.takes(params("r", &[("lr", "0.1"), ("depth", "3")])).await;
    // The same value again is no conflict, also within one record.
    world.takes(params("r", &[("lr", "0.1"), ("seed", "1"), ("seed", "1")])).await;
    let whole = RunLogged {
        params: pairs(&[("new", "1"), ("lr", "0.2"), ("depth", "3"), ("seed", "2")]),
        metrics: vec![metric("m", 1.0, 1, 1)],
        tags: pairs(&[("t", "1"), ("mlflow.runName", "x")]),
        ..logged("r")
    };
    let list = "{'key': 'lr', 'old_value': '0.1', 'new_value': '0.2'}, \
                {'key': 'seed', 'old_value': '1', 'new_value': '2'}";
    world.refuses(whole, Refused, &differs(list)).await;
    let run = world.run("r").await;
    assert_eq!(run.params, pairs(&[("depth", "3"), ("lr", "0.1"), ("seed", "1")]));
    assert_eq!((run.metrics.len(), keys(&run.tags), run.info.name.as_str()), (0, vec!["mlflow.runName"], "name of r"));
    // A record that sets a parameter to two values is rejected.
    let list = "{'key': 'p', 'old_value': '1', 'new_value': '2'}";
    world.refuses(params("r", &[("p", "1"), ("p", "2")]), Refused, &differs(list)).await;
    // A rejected record sets nothing: another value is still accepted.
    world.takes(params("r", &[("p", "2"), ("new", "")])).await;
    world
        .refuses(params("r", &[("new", " ")]), Refused, &differs("{'key': 'new', 'old_value': '', 'new_value': ' '}"))
        .await;
    world.refolds().await;
}

#[tokio::test]
async fn law_10_within_one_batch_the_first_value_of_a_parameter_wins() {
    let mut world = World::with_experiment().await;
    let writer = world.writer();
    let mut rival = params("r", &[("p", "2"), ("q", "2")]);
    rival.metrics = vec![metric("m", 9.0, 9, 9)];
    rival.tags = pairs(&[("t", "rival")]);
    let batch = [
        writer.write(started("r", 1)),
        writer.write(params("r", &[("p", "1")])),
        writer.write(rival),
        writer.write(params("r", &[("q", "3")])),
        writer.write(params("r", &[("p", "1")])),
    ];
    world.fold(&batch).await;
    for (at, record) in batch.iter().enumerate() {
        let said = verdict(world.namespace(), position(record)).await.unwrap();
        let list = "{'key': 'p', 'old_value': '1', 'new_value': '2'}";
        assert_eq!(said, (at == 2).then(|| Conflict::new(Refused, differs(list))), "record {at}");
    }
    let run = world.run("r").await;
    assert_eq!(run.params, pairs(&[("p", "1"), ("q", "3")]));
    assert_eq!((run.metrics.len(), keys(&run.tags)), (0, vec!["mlflow.runName"]));
    world.refolds().await;
}

#[tokio::test]
async fn law_10_an_event_of_a_missing_run_is_a_conflict() {
    let mut world = World::with_run().await;
    for event in [
        metrics("x", vec![metric("m", 1.0, 1, 1)]),
        RunLogged { status: Some("FINISHED".into()), ..run_of("x", RunKind::Updated) },
        run_of("x", RunKind::Inputs),
        run_of("x", RunKind::Outputs),
        run_of("x", RunKind::Deleted),
        run_of("x", RunKind::Restored),
    ] {
        world.refuses(event, DoesNotExist, "Run with id=x not found").await;
    }
    // Also if the start follows.
    let writer = world.writer();
    let batch = [writer.write(params("x", &[("p", "1")])), writer.write(started("x", 1))];
    world.fold(&batch).await;
    assert_eq!(world.run("x").await.params, []);
    let said = verdict(world.namespace(), position(&batch[0])).await.unwrap();
    assert_eq!(said, Some(Conflict::new(DoesNotExist, "Run with id=x not found")));
    world.refolds().await;
}

#[tokio::test]
async fn law_10_a_deleted_run_rejects_writes_until_it_is_restored() {
    let mut world = World::with_run().await;
    let writes = || {
        [
            metrics("r", vec![metric("m", 1.0, 1, 1)]),
            params("r", &[("p", "1")]),
            tags("r", &[("t", "1")]),
            RunLogged { run_name: Some("x".into()), ..run_of("r", RunKind::Updated) },
            RunLogged { datasets: vec![dataset("d", "1", "train")], ..run_of("r", RunKind::Inputs) },
            RunLogged { output_models: vec![output("m-1", 1)], ..run_of("r", RunKind::Outputs) },
        ]
    };
    world.takes(run_of("r", RunKind::Deleted)).await;
    assert!(world.run("r").await.info.deleted);
    for event in writes() {
        world.refuses(event, Refused, GONE).await;
    }
    // To delete twice, or to restore twice, is no conflict.
    world.takes(run_of("r", RunKind::Deleted)).await;
    world.takes(run_of("r", RunKind::Restored)).await;
    world.takes(run_of("r", RunKind::Restored)).await;
    assert!(!world.run("r").await.info.deleted);
    for event in writes() {
        world.takes(event).await;
    }
    world.refolds().await;
}

#[tokio::test]
async fn runs_of_a_deleted_experiment_are_deleted_with_it_and_come_back() {
    let mut world = World::with_run().await;
    world.takes(started("own", 1)).await;
    world.takes(run_of("own", RunKind::Deleted)).await;
    world.takes(of(1, ExperimentKind::Deleted)).await;
    assert!(world.run("r").await.info.deleted && world.run("own").await.info.deleted);
    // Topics commute: events of the run at that time apply.
    world.takes(tags("r", &[("t", "1")])).await;
    world.takes(of(1, ExperimentKind::Restored)).await;
    assert!(!world.run("r").await.info.deleted);
    assert!(world.run("own").await.info.deleted, "it was deleted by itself");
    world.refolds().await;
}

#[tokio::test]
async fn law_10_poison_of_a_topic_without_compaction_folds_to_nothing() {
    let mut world = World::with_run().await;
    world.takes(tags("r", &[("t", "1")])).await;
    let before = world.rows.digest().await;
    let writer = world.writer();
    let batch = [writer.poison("r", false), writer.poison("r", true), writer.null("r"), writer.poison("new", false)];
    world.fold(&batch).await;
    assert_eq!(world.rows.digest().await, before);
    for record in &batch {
        assert_eq!(verdict(world.namespace(), position(record)).await.unwrap(), None);
    }
    // Later records fold as usual.
    world.takes(tags("r", &[("t", "2")])).await;
    world.refolds().await;
}

#[tokio::test]
async fn tags_are_set_changed_and_removed_and_a_missing_tag_cannot_be_removed() {
    let mut world = World::with_run().await;
    world.takes(tags("r", &[("a", "1"), ("b", ""), ("a", "2")])).await;
    assert_eq!(world.run("r").await.tags, pairs(&[("a", "2"), ("b", ""), ("mlflow.runName", "name of r")]));
    let remove = |keys: &[&str]| RunLogged {
        tags: pairs(&[("c", "3")]),
        removed_tags: keys.iter().map(|key| (*key).to_owned()).collect(),
        ..logged("r")
    };
    let absent = "No tag with name: absent in run with id r";
    world.refuses(remove(&["absent"]), DoesNotExist, absent).await;
    world.refuses(remove(&["a", "absent"]), DoesNotExist, absent).await;
    world.takes(remove(&["a"])).await;
    world.refuses(remove(&["a"]), DoesNotExist, "No tag with name: a in run with id r").await;
    assert_eq!(keys(&world.run("r").await.tags), ["b", "c", "mlflow.runName"]);
    // The same within one batch.
    let writer = world.writer();
    let batch = [
        writer.write(tags("r", &[("x", "1")])),
        writer.write(remove(&["x"])),
        writer.write(remove(&["x"])),
        writer.write(tags("r", &[("x", "2")])),
        writer.write(remove(&["b"])),
    ];
    world.fold(&batch).await;
    let said = verdict(world.namespace(), position(&batch[2])).await.unwrap();
    assert_eq!(said, Some(Conflict::new(DoesNotExist, "No tag with name: x in run with id r")));
    assert_eq!(keys(&world.run("r").await.tags), ["c", "mlflow.runName", "x"]);
    world.refolds().await;
}

fn dataset(name: &str, digest: &str, context: &str) -> DatasetInput {
    DatasetInput {
        name: name.into(),
        digest: digest.into(),
        source_type: "local".into(),
        source: "{\"uri\": \"a'b\"}".into(),
        schema: Some("s".into()),
        profile: None,
        tags: pairs(&[("mlflow.data.context", context)]),
    }
}

fn output(model_id: &str, step: i64) -> ModelOutput {
    ModelOutput { model_id: model_id.into(), step }
}

#[tokio::test]
async fn each_input_and_output_is_stored_once() {
    let mut world = World::with_run().await;
    let inputs = |datasets, models: &[&str]| RunLogged {
        datasets,
        input_models: models.iter().map(|id| (*id).to_owned()).collect(),
        ..run_of("r", RunKind::Inputs)
    };
    world.takes(inputs(vec![dataset("d", "1", "train"), dataset("d", "2", "test")], &["m-1", "m-1"])).await;
    // The first dataset of a name and digest stays.
    world.takes(inputs(vec![dataset("d", "1", "other"), dataset("e", "1", "other")], &["m-1", "m-2"])).await;
    let outputs = |models| RunLogged { output_models: models, ..run_of("r", RunKind::Outputs) };
    world.takes(outputs(vec![output("m-1", 1), output("m-3", i64::MIN)])).await;
    // The last step of an output model wins.
    world.takes(outputs(vec![output("m-1", 2), output("m-1", 5)])).await;
    let run = world.run("r").await;
    assert_eq!(run.datasets, [dataset("d", "1", "train"), dataset("d", "2", "test"), dataset("e", "1", "other")]);
    assert_eq!(run.input_models, ["m-1", "m-2"]);
    assert_eq!(run.output_models, [output("m-1", 5), output("m-3", i64::MIN)]);
    world.refolds().await;
}

#[tokio::test]
async fn equal_keys_of_different_runs_do_not_mix() {
    let mut world = World::with_run().await;
    world.takes(created(2, "two")).await;
    world.takes(started("s", 2)).await;
    world.takes(params("r", &[("p", "1")])).await;
    world.takes(params("s", &[("p", "2")])).await;
    world.takes(metrics("s", vec![metric("m", 1.0, 1, 1)])).await;
    assert_eq!(world.run("r").await.params, pairs(&[("p", "1")]));
    assert_eq!(world.run("s").await.params, pairs(&[("p", "2")]));
    assert_eq!((world.run("r").await.metrics.len(), world.run("s").await.metrics.len()), (0, 1));
    world.refolds().await;
}
