//! Runs and experiments over MLflow's API, against the real binary.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use support::{Place, Random, Server};

on_both_logs! {
    law_14_kill_9_while_runs_are_logged_loses_and_doubles_nothing,
    law_01_the_registry_comes_back_as_it_was,
    law_12_tenants_have_experiments_of_their_own,
}

const WRITERS: usize = 4;

async fn post(server: &Server, path: &str, body: &Value) -> Option<(u16, Value)> {
    let url = format!("{}/api/2.0/mlflow/{path}", server.tracking);
    let answer = server.http.post(url).json(body).send().await.ok()?;
    Some((answer.status().as_u16(), answer.json().await.ok()?))
}

async fn ask(server: &Server, path: &str) -> Value {
    let url = format!("{}/api/2.0/mlflow/{path}", server.tracking);
    server.http.get(url).send().await.unwrap().json().await.unwrap()
}

async fn started(server: &Server, experiment: &str) -> String {
    let (status, run) =
        post(server, "runs/create", &json!({"experiment_id": experiment, "start_time": 1})).await.unwrap();
    assert_eq!(status, 200, "{run}");
    run["run"]["info"]["run_id"].as_str().unwrap().to_owned()
}

/// What one writer has logged to its run.
struct Log {
    run: String,
    next: AtomicI64,
    acknowledged: Mutex<Vec<i64>>,
}

/// Logs a metric, a parameter and a tag of the same number in one batch, until the server is gone.
async fn write(http: reqwest::Client, tracking: String, log: Arc<Log>) {
    loop {
        let step = log.next.fetch_add(1, Ordering::Relaxed);
        let batch = json!({
            "run_id": log.run,
            "metrics": [{"key": "loss", "value": step as f64, "timestamp": step, "step": step}],
            "params": [{"key": format!("p{step}"), "value": step.to_string()}],
            "tags": [{"key": "last", "value": step.to_string()}],
        });
        let url = format!("{tracking}/api/2.0/mlflow/runs/log-batch");
        match http.post(url).json(&batch).send().await {
            Ok(answer) if answer.status() == 200 => log.acknowledged.lock().unwrap().push(step),
            Ok(answer) => assert!(answer.status().is_server_error(), "{answer:?}"),
            Err(_) => return,
        }
    }
}

/// Every acknowledged batch is there, whole, once, and in order.
async fn verify(server: &Server, log: &Log) {
    let history =
        ask(server, &format!("metrics/get-history?run_id={}&metric_key=loss&max_results=1000000", log.run)).await;
    let steps: Vec<i64> = history["metrics"]
        .as_array()
        .map(|metrics| metrics.iter().map(|metric| metric["step"].as_i64().unwrap()).collect())
        .unwrap_or_default();
    assert!(steps.is_sorted_by(|a, b| a < b), "{steps:?}");
    let acknowledged = log.acknowledged.lock().unwrap().clone();
    let missing: Vec<_> = acknowledged.iter().filter(|step| steps.binary_search(step).is_err()).collect();
    assert!(missing.is_empty(), "lost: {missing:?} of {}", acknowledged.len());
    let run = ask(server, &format!("runs/get?run_id={}", log.run)).await;
    let params: BTreeMap<String, String> = run["run"]["data"]["params"]
        .as_array()
        .map(|params| params.iter().map(|p| (text(&p["key"]), text(&p["value"]))).collect())
        .unwrap_or_default();
    let expected: BTreeMap<_, _> = steps.iter().map(|step| (format!("p{step}"), step.to_string())).collect();
    assert_eq!(params, expected, "a batch is there whole or not at all");
    let latest = run["run"]["data"]["metrics"][0]["step"].as_i64();
    assert_eq!(latest, steps.last().copied());
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

async fn law_14_kill_9_while_runs_are_logged_loses_and_doubles_nothing(place: Place) {
    let rounds: usize = std::env::var("CARBON_CRASH_ROUNDS").map_or(20, |rounds| rounds.parse().unwrap());
    let mut random = Random::new();
    let mut logs: Vec<Arc<Log>> = Vec::new();
    for round in 0..=rounds {
        let server = place.start().await;
        for log in &logs {
            verify(&server, log).await;
        }
        if round == rounds {
            break;
        }
        // Runs of their own for some rounds, so that both old and new ones are logged to.
        if round % 10 == 0 {
            logs.clear();
            for _ in 0..WRITERS {
                let run = started(&server, "0").await;
                logs.push(Arc::new(Log { run, next: AtomicI64::new(0), acknowledged: Mutex::default() }));
            }
        }
        let writers: Vec<_> = logs
            .iter()
            .map(|log| tokio::spawn(write(server.http.clone(), server.tracking.clone(), log.clone())))
            .collect();
        // The moment of the kill is the point of the test, not a synchronisation.
        tokio::time::sleep(Duration::from_millis(20 + random.below(300))).await;
        server.kill();
        for writer in writers {
            writer.await.unwrap();
        }
    }
    let acknowledged: usize = logs.iter().map(|log| log.acknowledged.lock().unwrap().len()).sum();
    assert!(acknowledged > 20, "{acknowledged}");
    println!("{rounds} kills, {acknowledged} batches of the last runs acknowledged");
}

/// What the reads answer.
async fn reads(server: &Server, experiment: &str, runs: &[String]) -> Vec<Value> {
    let mut answers = vec![
        ask(server, &format!("experiments/get?experiment_id={experiment}")).await,
        ask(server, "experiments/get-by-name?experiment_name=Default").await,
        ask(server, "experiments/search?max_results=100&view_type=ALL").await,
    ];
    for run in runs {
        answers.push(ask(server, &format!("runs/get?run_id={run}")).await);
        answers.push(ask(server, &format!("metrics/get-history?run_id={run}&metric_key=m")).await);
        answers.push(ask(server, &format!("artifacts/list?run_id={run}")).await);
    }
    for path in [
        "registered-models/get?name=spread",
        "registered-models/search",
        "registered-models/alias?name=spread&alias=champion",
        "model-versions/search",
        "model-versions/get?name=spread&version=1",
    ] {
        answers.push(ask(server, path).await);
    }
    answers.push(server.get("/models/spread/history").await.1);
    for search in [
        json!({"experiment_ids": [experiment]}),
        json!({"experiment_ids": [experiment], "order_by": ["metrics.m DESC"], "filter": "metrics.m > 1"}),
        json!({"experiment_ids": [experiment], "run_view_type": "ALL", "max_results": 2}),
    ] {
        answers.push(post(server, "runs/search", &search).await.unwrap().1);
    }
    answers.push(post(server, "logged-models/search", &json!({"experiment_ids": [experiment]})).await.unwrap().1);
    answers
}

/// Registered models with all that can become of them.
async fn models(server: &Server, experiment: &str, run: &str) {
    let made = json!({"experiment_id": experiment, "name": "lm", "source_run_id": run});
    let made = post(server, "logged-models", &made).await.unwrap().1;
    let id = text(&made["model"]["info"]["model_id"]);
    for (path, body) in [
        ("registered-models/create", json!({"name": "basis", "tags": [{"key": "desk", "value": "gas"}]})),
        ("model-versions/create", json!({"name": "basis", "source": format!("models:/{id}"), "model_id": id})),
        ("model-versions/create", json!({"name": "basis", "source": format!("runs:/{run}/a"), "run_id": run})),
        ("registered-models/alias", json!({"name": "basis", "alias": "champion", "version": "1"})),
        ("model-versions/transition-stage", json!({"name": "basis", "version": "2", "stage": "Staging"})),
        ("registered-models/rename", json!({"name": "basis", "new_name": "spread"})),
        ("model-versions/transition-stage", json!({"name": "spread", "version": "1", "stage": "Production"})),
        ("registered-models/create", json!({"name": "basis"})),
    ] {
        let (status, answer) = post(server, path, &body).await.unwrap();
        assert_eq!(status, 200, "{path} {body}: {answer}");
    }
    let taken = post(server, "registered-models/create", &json!({"name": "spread"})).await.unwrap();
    assert_eq!((taken.0, &taken.1["error_code"]), (400, &json!("RESOURCE_ALREADY_EXISTS")));
}

async fn law_01_the_registry_comes_back_as_it_was(place: Place) {
    let server = place.start().await;
    let created = json!({"name": "spreads", "tags": [{"key": "desk", "value": "gas"}]});
    let experiment = text(&post(&server, "experiments/create", &created).await.unwrap().1["experiment_id"]);
    let mut runs = Vec::new();
    for n in 0..5 {
        let run = started(&server, &experiment).await;
        let batch = json!({
            "run_id": run,
            "metrics": [{"key": "m", "value": n, "timestamp": n, "step": 0}, {"key": "m", "value": "NaN", "timestamp": 0}],
            "params": [{"key": "n", "value": n.to_string()}],
        });
        assert_eq!(post(&server, "runs/log-batch", &batch).await.unwrap().0, 200);
        // A refusal is an outcome of the fold, and comes back as well.
        let again = json!({"run_id": run, "key": "n", "value": "other"});
        assert_eq!(post(&server, "runs/log-parameter", &again).await.unwrap().0, 400);
        let file =
            format!("{}/api/2.0/mlflow-artifacts/artifacts/{experiment}/{run}/artifacts/a/f.txt", server.tracking);
        assert_eq!(server.http.put(file).body(format!("file {n}")).send().await.unwrap().status(), 200);
        runs.push(run);
    }
    post(&server, "runs/delete", &json!({"run_id": runs[1]})).await.unwrap();
    post(&server, "runs/update", &json!({"run_id": runs[2], "status": "FAILED", "end_time": 9})).await.unwrap();
    assert_eq!(post(&server, "experiments/create", &created).await.unwrap().1["error_code"], "RESOURCE_ALREADY_EXISTS");
    models(&server, &experiment, &runs[0]).await;
    let before = reads(&server, &experiment, &runs).await;
    assert!(server.interrupt().await.success());
    std::fs::remove_dir_all(place.path().join("read-models")).unwrap();
    let server = place.start().await;
    assert_eq!(reads(&server, &experiment, &runs).await, before);
    let file = format!("{}/get-artifact?run_id={}&path=a/f.txt", server.tracking, runs[3]);
    assert_eq!(server.http.get(file).send().await.unwrap().text().await.unwrap(), "file 3");
    // Numbers and names go on from there.
    let next = post(&server, "experiments/create", &json!({"name": "next"})).await.unwrap().1;
    assert_ne!(next["experiment_id"], experiment.as_str());
}

async fn law_12_tenants_have_experiments_of_their_own(place: Place) {
    let server = place.start().await;
    let acme = |path: &str| format!("{}/tenants/acme/api/2.0/mlflow/{path}", server.tracking);
    let created = server.http.post(acme("experiments/create")).json(&json!({"name": "e"})).send().await.unwrap();
    let id = text(&created.json::<Value>().await.unwrap()["experiment_id"]);
    let run = server.http.post(acme("runs/create")).json(&json!({"experiment_id": id})).send().await.unwrap();
    let run = text(&run.json::<Value>().await.unwrap()["run"]["info"]["run_id"]);
    for path in [format!("runs/get?run_id={run}"), "experiments/get-by-name?experiment_name=e".to_owned()] {
        assert_eq!(server.http.get(acme(&path)).send().await.unwrap().status(), 200, "{path}");
        assert_eq!(ask(&server, &path).await["error_code"], "RESOURCE_DOES_NOT_EXIST", "{path}");
    }
    let search = json!({"experiment_ids": [id], "run_view_type": "ALL"});
    assert_eq!(post(&server, "runs/search", &search).await.unwrap().1, json!({}));
    // The same name is free for another.
    assert_eq!(post(&server, "experiments/create", &json!({"name": "e"})).await.unwrap().0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "fetches MLflow's client (1 GB, once); run with --ignored"]
async fn an_unmodified_mlflow_client_does_all_that_it_does_with_its_own_server() {
    let place = Place::embedded();
    let server = Server::start_with(place.path(), &[("ML_SECRET_KEY", "the key of this test")]).await;
    let scripts = format!("{}/../scripts", env!("CARGO_MANIFEST_DIR"));
    let python = tokio::process::Command::new(format!("{scripts}/python_env.sh"))
        .args(["-r", &format!("{scripts}/foreign/mlflow.txt")])
        .stderr(Stdio::inherit())
        .output()
        .await
        .unwrap();
    assert!(python.status.success());
    let python = String::from_utf8(python.stdout).unwrap();
    let mut flows = tokio::process::Command::new(python.trim());
    flows.arg(format!("{scripts}/foreign/mlflow_flows.py")).args(["--tracking-uri", &server.tracking]);
    flows.kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_secs(600), flows.output()).await.expect("the flows end").unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.lines().filter(|line| line.starts_with("ok ")).count() >= 31, "{said}");
}

/// Where `CARBON_MLFLOW_RECORDINGS` names the folder of what MLflow's own server was asked and answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "asks a server what MLflow's own was asked; needs the recordings"]
async fn bad_requests_are_answered_as_mlflow_does() {
    let Some(folder) = std::env::var_os("CARBON_MLFLOW_RECORDINGS") else {
        println!("skipped: CARBON_MLFLOW_RECORDINGS names no folder");
        return;
    };
    for file in ["error_probe.txt", "error_probe2.txt"] {
        let place = Place::embedded();
        let server = place.start().await;
        let mut probes = tokio::process::Command::new("python3");
        probes.arg(format!("{}/../scripts/foreign/mlflow_probes.py", env!("CARGO_MANIFEST_DIR")));
        probes.args(["--tracking-uri", &server.tracking]).arg(std::path::Path::new(&folder).join(file));
        let output = tokio::time::timeout(Duration::from_secs(120), probes.kill_on_drop(true).output()).await;
        let output = output.expect("the probes end").unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}

/// Every recorded pair but traces, each after the state that it needs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "asks a server what MLflow's own was asked; needs the recordings"]
async fn what_mlflow_answered_is_answered_so() {
    let Some(folder) = std::env::var_os("CARBON_MLFLOW_RECORDINGS") else {
        println!("skipped: CARBON_MLFLOW_RECORDINGS names no folder");
        return;
    };
    let place = Place::embedded();
    let server = Server::start_with(place.path(), &[("ML_SECRET_KEY", "a key of this test")]).await;
    let mut pairs = tokio::process::Command::new("python3");
    pairs.arg(format!("{}/../scripts/foreign/mlflow_pairs", env!("CARGO_MANIFEST_DIR")));
    pairs.args(["--tracking-uri", &server.tracking]).arg(std::path::Path::new(&folder).join("endpoints"));
    let output = tokio::time::timeout(Duration::from_secs(300), pairs.kill_on_drop(true).output()).await;
    let output = output.expect("the pairs end").unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
