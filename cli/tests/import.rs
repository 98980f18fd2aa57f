//! `carbon-ml import mlflow`: an MLflow store in, and out again over MLflow's API.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "import/source.rs"]
mod source;
mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use source::{LONG, MODEL, MOVED, RUN, Source, counts, get, map, map_of, post};
use support::{Place, Random, Running, Server};

on_both_logs! {
    what_a_store_kept_is_answered_as_it_was_and_an_import_again_changes_nothing,
    what_is_taken_or_too_long_is_named_and_the_rest_is_imported,
}

/// All that the API says of what the store has.
async fn everything(server: &Server) -> Value {
    let experiments = post(server, "experiments/search", json!({"view_type": "ALL", "max_results": 1000})).await;
    let search = json!({"experiment_ids": ["0", "1", "2", "7"], "run_view_type": "ALL", "max_results": 1000});
    let mut history = Vec::new();
    for (run, key) in [(RUN, "rmse"), (RUN, "pnl"), (LONG, "loss"), (MOVED, "mae")] {
        let path = format!("mlflow/metrics/get-history?run_id={run}&metric_key={key}&max_results=100000");
        history.push(get(server, &path).await);
    }
    let models = json!({"experiment_ids": ["0", "1", "2", "7"], "max_results": 50});
    json!({
        "experiments": experiments,
        "runs": post(server, "runs/search", search).await,
        "history": history,
        "logged_models": post(server, "logged-models/search", models).await,
        "models": get(server, "mlflow/registered-models/search").await,
        "versions": get(server, "mlflow/model-versions/search").await,
        "files": get(server, &format!("mlflow/artifacts/list?run_id={RUN}&path=plots")).await,
    })
}

async fn file(server: &Server, path: &str) -> String {
    let url = format!("{}/api/2.0/mlflow-artifacts/artifacts/{path}", server.tracking);
    let answer = server.http.get(url).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{path}");
    answer.text().await.unwrap()
}

async fn what_a_store_kept_is_answered_as_it_was_and_an_import_again_changes_nothing(place: Place) {
    let source = Source::new().await;
    let (code, dry) = source.import(&place, &["--dry-run"]);
    assert_eq!((code, counts(&dry, "runs"), counts(&dry, "files")), (0, (5, 5, 0, 0), (4, 4, 0, 0)), "{dry}");
    let (code, outcome) = source.import(&place, &[]);
    assert_eq!(code, 0, "{outcome}");
    assert_eq!(dry["kinds"], outcome["kinds"]);
    assert_eq!(counts(&outcome, "metric values"), (2505, 2505, 0, 0));
    assert_eq!(counts(&outcome, "model versions"), (3, 3, 0, 0));
    let left: BTreeMap<_, _> = outcome["not_imported"]
        .as_array()
        .unwrap()
        .iter()
        .map(|left| (left["kind"].as_str().unwrap(), left["found"].as_i64().unwrap()))
        .collect();
    assert_eq!(
        left,
        BTreeMap::from([
            ("files that belong to no imported run, model or version", 1),
            ("metric values of logged models beside those of their runs", 1),
            ("traces", 2),
            ("webhooks", 1),
        ])
    );

    let server = place.start().await;
    experiments_and_runs(&server).await;
    models(&server).await;
    assert_eq!(file(&server, &format!("1/{RUN}/artifacts/plots/curve.txt")).await, "henry hub");
    assert_eq!(file(&server, &format!("1/models/{MODEL}/artifacts/data/a%20b.bin")).await, "spline");
    assert_eq!(file(&server, &format!("7/{MOVED}/artifacts/model/MLmodel")).await, "flavors: {}");

    // What was changed here since is not changed back.
    post(&server, "runs/set-tag", json!({"run_id": RUN, "key": "desk", "value": "power"})).await;
    let before = everything(&server).await;
    // The embedded log is one process's; beside a cluster's services an import may run.
    let beside = source.command(&place, &["--json"]).output().unwrap();
    assert!(server.interrupt().await.success());
    let (code, again) = match place.cluster {
        Some(_) => (beside.status.code().unwrap(), serde_json::from_slice(&beside.stdout).unwrap()),
        None => {
            let error = String::from_utf8_lossy(&beside.stderr).into_owned();
            assert!(beside.status.code() == Some(1) && error.contains("stop the server, import"), "{error}");
            source.import(&place, &[])
        }
    };
    assert_eq!((code, again["events"].as_i64()), (0, Some(0)), "{again}");
    for counts in again["kinds"].as_array().unwrap() {
        assert_eq!(counts["found"], counts["already_there"], "{counts}");
    }
    let server = place.start().await;
    assert_eq!(everything(&server).await, before);
    drop(server);

    // The store's server has gone on: what is new comes, and nothing else.
    let new = format!(
        "INSERT INTO metrics VALUES ('loss', 0.5, 1700000099000, '{LONG}', 9999, 0); \
         UPDATE runs SET status = 'FINISHED', end_time = 1700000099000 WHERE run_uuid = '{LONG}'"
    );
    source.change(&new).await;
    let (code, more) = source.import(&place, &[]);
    assert_eq!((code, more["events"].as_i64()), (0, Some(2)), "{more}");
    let server = place.start().await;
    let run = get(&server, &format!("mlflow/runs/get?run_id={LONG}")).await;
    assert_eq!(run["run"]["info"]["status"], "FINISHED");
    assert_eq!(run["run"]["data"]["metrics"][0]["step"], 9999);
}

async fn experiments_and_runs(server: &Server) {
    for (id, name, stage, created, updated) in [
        (0, "Default", "active", 1_700_000_000_000_i64, 1_700_000_000_000_i64),
        (1, "henry-hub-curve", "active", 1_700_000_001_000, 1_700_000_009_000),
        (2, "brent-backtests", "deleted", 1_700_000_002_000, 1_700_000_008_000),
        (7, "ttf-nbp-spread", "active", 1_700_000_003_000, 1_700_000_004_000),
    ] {
        let found = get(server, &format!("mlflow/experiments/get?experiment_id={id}")).await;
        let found = &found["experiment"];
        assert_eq!((&found["name"], &found["lifecycle_stage"]), (&json!(name), &json!(stage)));
        assert_eq!((&found["creation_time"], &found["last_update_time"]), (&json!(created), &json!(updated)), "{name}");
        // The folder of the moved store is under the same number in the copy.
        assert_eq!(found["artifact_location"], json!(format!("mlflow-artifacts:/{id}")));
    }
    let tags = get(server, "mlflow/experiments/get?experiment_id=1").await["experiment"]["tags"].clone();
    assert_eq!(map(&tags), map_of([("desk", "gas"), ("mlflow.note.content", "Forward curve of Henry Hub")]));

    let run = &get(server, &format!("mlflow/runs/get?run_id={RUN}")).await["run"];
    let info = &run["info"];
    assert_eq!(
        (&info["run_name"], &info["user_id"], &info["status"]),
        (&json!("bright-gas-1"), &json!("ana"), &json!("FINISHED"))
    );
    assert_eq!(
        (&info["start_time"], &info["end_time"]),
        (&json!(1_700_000_010_000_i64), &json!(1_700_000_020_000_i64))
    );
    assert_eq!(map(&run["data"]["params"]), map_of([("knots", "7"), ("tenor", "36M")]));
    assert_eq!(map(&run["data"]["tags"]), map_of([("desk", "gas"), ("mlflow.runName", "bright-gas-1")]));
    let dataset = &run["inputs"]["dataset_inputs"][0];
    assert_eq!(
        (&dataset["dataset"]["name"], &dataset["tags"][0]["value"]),
        (&json!("settlements"), &json!("training"))
    );
    assert_eq!(run["outputs"]["model_outputs"][0], json!({"model_id": MODEL, "step": 1}));
    let history = get(server, &format!("mlflow/metrics/get-history?run_id={RUN}&metric_key=rmse")).await;
    let values: Vec<_> = history["metrics"].as_array().unwrap().iter().map(|metric| metric["value"].clone()).collect();
    assert_eq!(values, [json!(0.25), json!(0.125), json!("NaN")]);
    let history =
        get(server, &format!("mlflow/metrics/get-history?run_id={LONG}&metric_key=loss&max_results=5000")).await;
    assert_eq!(history["metrics"].as_array().unwrap().len(), 2500);

    let long = &get(server, &format!("mlflow/runs/get?run_id={LONG}")).await["run"];
    assert_eq!((map(&long["data"]["params"]).len(), &long["info"]["status"]), (1200, &json!("RUNNING")));
    assert_eq!(long["inputs"]["model_inputs"][0]["model_id"], MODEL);
    let moved = &get(server, &format!("mlflow/runs/get?run_id={MOVED}")).await["run"];
    assert_eq!(moved["info"]["artifact_uri"], format!("mlflow-artifacts:/7/{MOVED}/artifacts"));
    assert_eq!(map(&moved["data"]["params"]), map_of([("hub", "Été, \"TTF\"")]));
    let deleted = post(server, "runs/search", json!({"experiment_ids": ["1"], "run_view_type": "DELETED_ONLY"})).await;
    assert_eq!(deleted["runs"][0]["info"]["run_name"], "calm-gas-2");
    // With its experiment a run comes back.
    post(server, "experiments/restore", json!({"experiment_id": "2"})).await;
    let back = post(server, "runs/search", json!({"experiment_ids": ["2"]})).await;
    assert_eq!(back["runs"][0]["info"]["status"], "KILLED");
    post(server, "experiments/delete", json!({"experiment_id": "2"})).await;
}

async fn models(server: &Server) {
    let logged = &get(server, &format!("mlflow/logged-models/{MODEL}")).await["model"];
    assert_eq!(
        (&logged["info"]["status"], &logged["info"]["model_type"]),
        (&json!("LOGGED_MODEL_READY"), &json!("spline"))
    );
    assert_eq!(map(&logged["data"]["params"]), map_of([("knots", "7")]));
    assert_eq!(map(&logged["data"]["metrics"]), BTreeMap::from([("rmse".to_owned(), json!(0.125))]));
    assert_eq!(logged["info"]["last_updated_timestamp_ms"], 1_700_000_015_000_i64);

    let model = &get(server, "mlflow/registered-models/get?name=hub-forecast").await["registered_model"];
    assert_eq!(
        (&model["description"], &model["last_updated_timestamp"]),
        (&json!("Forward curve of Henry Hub"), &json!(1_700_000_079_000_i64))
    );
    assert_eq!(map(&model["tags"]), map_of([("desk", "gas")]));
    assert_eq!(model["aliases"], json!([{"alias": "champion", "version": "3"}]));
    let first = &get(server, "mlflow/model-versions/get?name=hub-forecast&version=1").await["model_version"];
    assert_eq!((&first["current_stage"], &first["description"]), (&json!("Archived"), &json!("the first")));
    assert_eq!((&first["source"], &first["run_id"]), (&json!(format!("models:/{MODEL}")), &json!(RUN)));
    let third = &get(server, "mlflow/registered-models/alias?name=hub-forecast&alias=champion").await["model_version"];
    assert_eq!((&third["version"], &third["current_stage"]), (&json!("3"), &json!("Production")));
    assert_eq!(
        (&third["creation_timestamp"], &third["last_updated_timestamp"]),
        (&json!(1_700_000_075_000_i64), &json!(1_700_000_076_000_i64))
    );
    assert_eq!(map(&third["tags"]), map_of([("approved", "yes")]));
    let uri = get(server, "mlflow/model-versions/get-download-uri?name=hub-forecast&version=3").await;
    assert_eq!(uri["artifact_uri"], format!("mlflow-artifacts:/7/{MOVED}/artifacts/model"));
    let url = format!("{}/model-versions/get-artifact?name=hub-forecast&version=1&path=MLmodel", server.tracking);
    assert_eq!(
        server.http.get(url).send().await.unwrap().text().await.unwrap(),
        "flavors: {}",
        "the version's manifest"
    );
    let gone = format!("{}/api/2.0/mlflow/model-versions/get?name=hub-forecast&version=2", server.tracking);
    assert_eq!(server.http.get(gone).send().await.unwrap().status(), 404);
}

async fn what_is_taken_or_too_long_is_named_and_the_rest_is_imported(place: Place) {
    let source = Source::new().await;
    let long = format!(
        "UPDATE tags SET value = replace(hex(zeroblob(40000)), '00', 'x') WHERE run_uuid = '{RUN}' AND key = 'desk'"
    );
    source.change(&long).await;
    let server = place.start().await;
    // Takes id 1 under another name, and the name of another.
    post(&server, "experiments/create", json!({"name": "somebody's"})).await;
    post(&server, "experiments/create", json!({"name": "ttf-nbp-spread"})).await;
    post(&server, "registered-models/create", json!({"name": "empty"})).await;
    drop(server);
    let check = |code: i32, outcome: &Value| {
        assert_eq!((code, outcome["refused_count"].as_i64()), (1, Some(4)), "{outcome}");
        let refused: BTreeMap<_, _> = outcome["refused"]
            .as_array()
            .unwrap()
            .iter()
            .map(|refused| (refused["kind"].as_str().unwrap(), refused["id"].as_str().unwrap()))
            .collect();
        let expected =
            [("experiments", "7 \"ttf-nbp-spread\""), ("runs", "7 \"ttf-nbp-spread\""), ("registered models", "empty")];
        assert_eq!(refused, BTreeMap::from_iter([&expected[..], &[("run tags", &format!("{RUN} desk"))]].concat()));
        assert_eq!(outcome["renumbered_experiments"].as_array().unwrap().len(), 2, "{outcome}");
        assert_eq!(counts(outcome, "runs"), (5, counts(outcome, "runs").1, counts(outcome, "runs").2, 1));
    };
    let (code, outcome) = source.import(&place, &[]);
    check(code, &outcome);
    let (code, again) = source.import(&place, &[]);
    check(code, &again);
    assert_eq!(again["events"], 0);
    let server = place.start().await;
    let here = get(&server, "mlflow/experiments/get-by-name?experiment_name=henry-hub-curve").await;
    let id = here["experiment"]["experiment_id"].as_str().unwrap().to_owned();
    assert_ne!(id, "1");
    let run = get(&server, &format!("mlflow/runs/get?run_id={RUN}")).await;
    assert_eq!((&run["run"]["info"]["experiment_id"], map(&run["run"]["data"]["tags"]).len()), (&json!(id), 1));
    let untouched = post(&server, "runs/search", json!({"experiment_ids": ["1", "2"], "run_view_type": "ALL"})).await;
    assert_eq!(untouched, json!({}));
    drop(server);
    // For another tenant everything is free.
    source.change(&format!("UPDATE tags SET value = 'gas' WHERE run_uuid = '{RUN}' AND key = 'desk'")).await;
    let (code, other) = source.import(&place, &["--tenant", "acme"]);
    assert_eq!((code, counts(&other, "runs")), (0, (5, 5, 0, 0)), "{other}");
}

#[tokio::test]
async fn an_older_schema_has_no_workspaces_and_an_unknown_one_is_refused() {
    let (source, place) = (Source::new().await, Place::embedded());
    source
        .change(
            "INSERT INTO experiments (experiment_id, name, workspace, artifact_location) VALUES (9, 'x', 'oil', '')",
        )
        .await;
    let (_, outcome) = source.import(&place, &["--dry-run"]);
    assert_eq!(counts(&outcome, "experiments").0, 4);
    let left = outcome["not_imported"].as_array().unwrap();
    assert!(left.contains(&json!({"kind": "experiments of other workspaces (--workspace)", "found": 1})), "{left:?}");
    assert_eq!(counts(&source.import(&place, &["--dry-run", "--workspace", "oil"]).1, "experiments").0, 1);
    for table in [
        "experiments",
        "registered_models",
        "registered_model_tags",
        "model_versions",
        "model_version_tags",
        "registered_model_aliases",
    ] {
        source.change(&format!("ALTER TABLE {table} DROP COLUMN workspace")).await;
    }
    source.change("DROP TABLE workspaces; UPDATE alembic_version SET version_num = '6953534de441'").await;
    let (code, outcome) = source.import(&place, &[]);
    assert_eq!((code, counts(&outcome, "experiments")), (0, (5, 5, 0, 0)), "{outcome}");
    let refused = source.command(&place, &["--workspace", "oil"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    source.change("UPDATE alembic_version SET version_num = 'f00'").await;
    let refused = source.command(&place, &[]).output().unwrap();
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && error.contains("revision \"f00\""), "{error}");
}

/// How many records each topic has.
async fn records(data: &Path) -> BTreeMap<String, u64> {
    use carbon_log::EventLog as _;
    let folder = carbon_log::DataFolder::open(data).unwrap();
    let log = carbon_log::EmbeddedLog::open(&folder).await.unwrap();
    let mut counts = BTreeMap::new();
    for topic in log.describe().await.unwrap() {
        counts.insert(topic.spec.name.to_string(), topic.ends.iter().map(|(_, end)| end).sum());
    }
    log.close().await;
    counts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn law_14_kill_9_in_an_import_loses_and_doubles_nothing() {
    let rounds: usize = std::env::var("CARBON_CRASH_ROUNDS").map_or(20, |rounds| rounds.parse().unwrap());
    let source = Source::new().await;
    // Enough of it that a kill may come anywhere.
    let many = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) \
        INSERT INTO runs (run_uuid, name, status, start_time, end_time, lifecycle_stage, artifact_uri, experiment_id) \
        SELECT printf('e%031d', i), 'gas-' || i, 'FINISHED', i, i + 1, 'active', 'mlflow-artifacts:/1/' || printf('e%031d', i) || '/artifacts', 1 FROM n; \
        INSERT INTO params SELECT 'tenor', name, run_uuid FROM runs WHERE run_uuid LIKE 'e%'; \
        INSERT INTO metrics SELECT 'rmse', 0.5, 1, run_uuid, 0, 0 FROM runs WHERE run_uuid LIKE 'e%'";
    source.change(many).await;
    let whole = Place::embedded();
    assert_eq!(source.import(&whole, &[]).0, 0);
    let expected = records(whole.path()).await;
    let server = whole.start().await;
    let answers = everything(&server).await;
    drop(server);

    let place = Place::embedded();
    let mut random = Random::new();
    let mut killed = 0;
    for _ in 0..rounds {
        let mut child =
            Running(source.command(&place, &[]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        // The moment of the kill is the point of the test, not a synchronisation.
        tokio::time::sleep(Duration::from_millis(random.below(600))).await;
        if child.0.try_wait().unwrap().is_none() {
            child.0.kill().unwrap();
            killed += 1;
        }
        child.0.wait().unwrap();
    }
    let (code, outcome) = source.import(&place, &[]);
    println!("{killed} of {rounds} were killed; at last {} events", outcome["events"]);
    assert!(killed > 0);
    assert_eq!((code, counts(&outcome, "runs").0), (0, 2005), "{outcome}");
    assert_eq!(records(place.path()).await, expected);
    let server = place.start().await;
    assert_eq!(everything(&server).await, answers);
}
