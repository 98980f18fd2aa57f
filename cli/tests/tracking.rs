//! Runs and experiments over MLflow's API, against the real binary.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use support::runs::{Log, ask, models, post, reads, started, text, verify, write};
use support::{Place, Random, Server};

on_every_store! {
    law_14_kill_9_while_runs_are_logged_loses_and_doubles_nothing,
    law_01_law_03_the_registry_comes_back_as_it_was,
    law_09_of_claims_at_once_one_wins,
    law_10_of_values_at_once_one_wins,
    law_12_tenants_have_experiments_of_their_own,
}

const WRITERS: usize = 4;

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
                logs.push(Log::new(run));
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
    let acknowledged: usize = logs.iter().map(|log| log.acknowledged()).sum();
    assert!(acknowledged > 20, "{acknowledged}");
    println!("{rounds} kills, {acknowledged} batches of the last runs acknowledged");
}

async fn law_01_law_03_the_registry_comes_back_as_it_was(place: Place) {
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
    place.forget_rows().await;
    let server = place.start().await;
    assert_eq!(reads(&server, &experiment, &runs).await, before);
    let file = format!("{}/get-artifact?run_id={}&path=a/f.txt", server.tracking, runs[3]);
    assert_eq!(server.http.get(file).send().await.unwrap().text().await.unwrap(), "file 3");
    // Numbers and names go on from there.
    let next = post(&server, "experiments/create", &json!({"name": "next"})).await.unwrap().1;
    assert_ne!(next["experiment_id"], experiment.as_str());
}

/// Many at once: how many took effect; each of the others is answered with this status and code.
async fn at_once(server: &Server, path: &str, bodies: Vec<Value>, code: &str) -> usize {
    let calls = bodies.iter().map(|body| post(server, path, body));
    let mut took_effect = 0;
    for (status, answer) in futures::future::join_all(calls).await.into_iter().map(Option::unwrap) {
        match status {
            200 => took_effect += 1,
            _ => assert_eq!((status, &answer["error_code"]), (400, &json!(code)), "{answer}"),
        }
    }
    took_effect
}

async fn law_09_of_claims_at_once_one_wins(place: Place) {
    let server = place.start().await;
    for path in ["experiments/create", "registered-models/create"] {
        let claims = vec![json!({"name": "contested"}); 16];
        assert_eq!(at_once(&server, path, claims, "RESOURCE_ALREADY_EXISTS").await, 1, "{path}");
        let different = (0..16).map(|n| json!({"name": format!("own{n}")})).collect();
        assert_eq!(at_once(&server, path, different, "").await, 16, "{path}");
    }
    let versions = vec![json!({"name": "contested", "source": "s3://elsewhere/model"}); 16];
    assert_eq!(at_once(&server, "model-versions/create", versions, "").await, 16);
    let found = ask(&server, "model-versions/search?max_results=100").await;
    let mut numbers: Vec<u64> = found["model_versions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|version| text(&version["version"]).parse().unwrap())
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=16).collect::<Vec<_>>());
}

async fn law_10_of_values_at_once_one_wins(place: Place) {
    let server = place.start().await;
    let run = started(&server, "0").await;
    let batch = |n: usize| json!({"run_id": run, "params": [{"key": "p", "value": n.to_string()}], "metrics": [{"key": "m", "value": n, "timestamp": n}]});
    let won = at_once(&server, "runs/log-batch", (0..16).map(batch).collect(), "INVALID_PARAMETER_VALUE").await;
    assert_eq!(won, 1);
    let read = ask(&server, &format!("runs/get?run_id={run}")).await;
    let data = &read["run"]["data"];
    // What was refused is refused whole.
    let history = ask(&server, &format!("metrics/get-history?run_id={run}&metric_key=m")).await;
    assert_eq!(history["metrics"].as_array().map(Vec::len), Some(1));
    assert_eq!(data["params"][0]["value"], data["metrics"][0]["timestamp"].to_string().as_str());
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

/// Each on files and on Postgres.
macro_rules! like_mlflow {
    ($($test:ident, $needs:literal;)*) => {
        mod on_files {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                #[ignore = $needs]
                async fn $test() {
                    super::$test(super::Place::embedded()).await;
                }
            )*
        }
        mod on_postgres {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                #[ignore = $needs]
                async fn $test() {
                    super::$test(super::Place::embedded().on_postgres().await).await;
                }
            )*
        }
    };
}

like_mlflow! {
    an_unmodified_mlflow_client_does_all_that_it_does_with_its_own_server, "fetches MLflow's client (1 GB, once); run with --ignored";
    bad_requests_are_answered_as_mlflow_does, "asks a server what MLflow's own was asked; needs the recordings";
    what_mlflow_answered_is_answered_so, "asks a server what MLflow's own was asked; needs the recordings";
}

/// A server that can keep the secrets of webhooks.
async fn with_key(place: &Place) -> Server {
    let mut settings = place.settings();
    settings.push(("ML_SECRET_KEY", "the key of this test"));
    Server::start_with(place.path(), &settings).await
}

async fn an_unmodified_mlflow_client_does_all_that_it_does_with_its_own_server(place: Place) {
    let server = with_key(&place).await;
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
async fn bad_requests_are_answered_as_mlflow_does(place: Place) {
    let Some(folder) = std::env::var_os("CARBON_MLFLOW_RECORDINGS") else {
        println!("skipped: CARBON_MLFLOW_RECORDINGS names no folder");
        return;
    };
    for file in ["error_probe.txt", "error_probe2.txt"] {
        // Rows of another log are thrown away.
        let place = place.afresh();
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
async fn what_mlflow_answered_is_answered_so(place: Place) {
    let Some(folder) = std::env::var_os("CARBON_MLFLOW_RECORDINGS") else {
        println!("skipped: CARBON_MLFLOW_RECORDINGS names no folder");
        return;
    };
    let server = with_key(&place).await;
    let mut pairs = tokio::process::Command::new("python3");
    pairs.arg(format!("{}/../scripts/foreign/mlflow_pairs", env!("CARGO_MANIFEST_DIR")));
    pairs.args(["--tracking-uri", &server.tracking]).arg(std::path::Path::new(&folder).join("endpoints"));
    let output = tokio::time::timeout(Duration::from_secs(300), pairs.kill_on_drop(true).output()).await;
    let output = output.expect("the pairs end").unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
