//! Runs and models over MLflow's API: what is written, what is read, and whether all that was acknowledged is there.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::Server;

pub async fn post(server: &Server, path: &str, body: &Value) -> Option<(u16, Value)> {
    let url = format!("{}/api/2.0/mlflow/{path}", server.tracking);
    let answer = server.http.post(url).json(body).send().await.ok()?;
    Some((answer.status().as_u16(), answer.json().await.ok()?))
}

pub async fn ask(server: &Server, path: &str) -> Value {
    let url = format!("{}/api/2.0/mlflow/{path}", server.tracking);
    server.http.get(url).send().await.unwrap().json().await.unwrap()
}

pub async fn started(server: &Server, experiment: &str) -> String {
    let (status, run) =
        post(server, "runs/create", &json!({"experiment_id": experiment, "start_time": 1})).await.unwrap();
    assert_eq!(status, 200, "{run}");
    run["run"]["info"]["run_id"].as_str().unwrap().to_owned()
}

/// What one writer has logged to its run.
pub struct Log {
    pub run: String,
    next: AtomicI64,
    acknowledged: Mutex<Vec<i64>>,
}

impl Log {
    pub fn new(run: String) -> Arc<Self> {
        Arc::new(Self { run, next: AtomicI64::new(0), acknowledged: Mutex::default() })
    }

    /// How many batches were acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }
}

/// Logs a metric, a parameter and a tag of the same number in one batch, until the server is gone.
pub async fn write(http: reqwest::Client, tracking: String, log: Arc<Log>) {
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

/// Every acknowledged batch is there, once and in order. The steps that are there.
pub async fn verify_acknowledged(server: &Server, log: &Log) -> Vec<i64> {
    let acknowledged = log.acknowledged.lock().unwrap().clone();
    let history =
        ask(server, &format!("metrics/get-history?run_id={}&metric_key=loss&max_results=1000000", log.run)).await;
    let steps: Vec<i64> = history["metrics"]
        .as_array()
        .map(|metrics| metrics.iter().map(|metric| metric["step"].as_i64().unwrap()).collect())
        .unwrap_or_default();
    assert!(steps.is_sorted_by(|a, b| a < b), "{steps:?}");
    let missing: Vec<_> = acknowledged.iter().filter(|step| steps.binary_search(step).is_err()).collect();
    assert!(missing.is_empty(), "lost: {missing:?} of {}", acknowledged.len());
    steps
}

/// Every acknowledged batch is there, whole, once, and in order. Nothing may be on its way.
pub async fn verify(server: &Server, log: &Log) {
    let steps = verify_acknowledged(server, log).await;
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

pub fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// What the reads answer.
pub async fn reads(server: &Server, experiment: &str, runs: &[String]) -> Vec<Value> {
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
pub async fn models(server: &Server, experiment: &str, run: &str) {
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
