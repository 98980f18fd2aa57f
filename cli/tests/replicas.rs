//! Two of every role at once, on one cluster and one Postgres: what is written by one is read from the other.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use support::deployment::{EMBEDDER, TRACKING, no_lag, start};
use support::runs::{Log, ask, models, post, reads, started, text, verify, verify_acknowledged, write};
use support::{Place, Random, Server};

/// A cluster and a database, and a folder for files that all processes share.
struct Site {
    place: Place,
    /// Of each process that writes to one.
    folders: Vec<tempfile::TempDir>,
    artifacts: tempfile::TempDir,
}

impl Site {
    async fn new() -> Self {
        let place = Place::kafka().await.on_postgres().await;
        Self { place, folders: Vec::new(), artifacts: tempfile::tempdir().unwrap() }
    }

    async fn start_in(&self, folder: &std::path::Path, roles: &[&str]) -> Server {
        let artifacts = self.artifacts.path().display().to_string();
        start(&self.place, folder, roles, &[("ML_MLFLOW_ARTIFACT_URI", artifacts.as_str())]).await
    }

    /// A process with a folder of its own.
    async fn start(&mut self, roles: &[&str]) -> Server {
        let folder = tempfile::tempdir().unwrap();
        let server = self.start_in(folder.path(), roles).await;
        self.folders.push(folder);
        server
    }
}

async fn metrics(server: &Server, run: &str) -> Vec<i64> {
    let history = ask(server, &format!("metrics/get-history?run_id={run}&metric_key=m")).await;
    let metrics = history["metrics"].as_array().cloned().unwrap_or_default();
    metrics.iter().map(|metric| metric["step"].as_i64().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts brokers and a Postgres: scripts/services.sh and scripts/postgres.py fetch them; run with --ignored"]
async fn two_of_every_role_answer_as_one() {
    let mut site = Site::new().await;
    let mut others = Vec::new();
    for roles in [["serve", "projections"].as_slice(), &["serve", "query-api", "indexer"], &EMBEDDER] {
        others.push((site.start(roles).await, site.start(roles).await));
    }
    let (one, two) = (site.start(&TRACKING).await, site.start(&TRACKING).await);
    reads_are_current(&one, &two).await;
    law_09_names_and_numbers_are_given_once(&one, &two).await;
    law_10_a_parameter_is_set_once(&one, &two).await;
    let queries = &others[1];
    an_entity_is_found_by_both(&one, &queries.0, &queries.1).await;
    // Each half of the folding and the asking may go.
    let mut left = Vec::new();
    for (first, second) in others {
        first.kill();
        others_go_on(&one, &two).await;
        left.push(second);
    }
}

/// No read waits, and every one sees what was answered before, whoever answered it.
async fn reads_are_current(one: &Server, two: &Server) {
    for round in 0..20 {
        let (writer, reader) = if round % 2 == 0 { (one, two) } else { (two, one) };
        let run = started(writer, "0").await;
        let read = ask(reader, &format!("runs/get?run_id={run}")).await;
        assert_eq!(read["run"]["info"]["run_id"], run.as_str(), "{read}");
        for step in 0..5 {
            let (writer, reader) = if step % 2 == 0 { (reader, writer) } else { (writer, reader) };
            let logged = json!({"run_id": run, "key": "m", "value": 1.5, "timestamp": step, "step": step});
            assert_eq!(post(writer, "runs/log-metric", &logged).await.unwrap().0, 200);
            assert_eq!(metrics(reader, &run).await, (0..=step).collect::<Vec<_>>());
        }
    }
}

async fn law_09_names_and_numbers_are_given_once(one: &Server, two: &Server) {
    for round in 0..10 {
        for path in ["experiments/create", "registered-models/create"] {
            let claim = json!({"name": format!("name{round}")});
            let (first, second) = tokio::join!(post(one, path, &claim), post(two, path, &claim));
            let mut outcomes = [first.unwrap(), second.unwrap()];
            outcomes.sort_by_key(|(status, _)| *status);
            let [(200, _), (400, loser)] = &outcomes else { panic!("{path}: {outcomes:?}") };
            assert_eq!(loser["error_code"], "RESOURCE_ALREADY_EXISTS");
        }
    }
    let source = json!({"name": "name0", "source": "s3://elsewhere/model"});
    let mut versions = Vec::new();
    for _ in 0..10 {
        let (first, second) =
            tokio::join!(post(one, "model-versions/create", &source), post(two, "model-versions/create", &source));
        for (status, answer) in [first.unwrap(), second.unwrap()] {
            assert_eq!(status, 200, "{answer}");
            versions.push(text(&answer["model_version"]["version"]).parse::<u64>().unwrap());
        }
    }
    let numbers: BTreeSet<u64> = versions.iter().copied().collect();
    assert_eq!(numbers, (1..=20).collect(), "{versions:?}");
    // A promotion by one is what the other says.
    let staged = json!({"name": "name0", "version": "7", "stage": "Production"});
    assert_eq!(post(one, "model-versions/transition-stage", &staged).await.unwrap().0, 200);
    let read = ask(two, "model-versions/get?name=name0&version=7").await;
    assert_eq!(read["model_version"]["current_stage"], "Production");
}

async fn law_10_a_parameter_is_set_once(one: &Server, two: &Server) {
    for _ in 0..10 {
        let run = started(one, "0").await;
        let batch = |value: &str| json!({"run_id": run, "params": [{"key": "p", "value": value}], "tags": [{"key": value, "value": ""}]});
        let (one_says, two_says) = (batch("one"), batch("two"));
        let (first, second) =
            tokio::join!(post(one, "runs/log-batch", &one_says), post(two, "runs/log-batch", &two_says));
        let (first, second) = (first.unwrap(), second.unwrap());
        let winner = match (first.0, second.0) {
            (200, 400) => "one",
            (400, 200) => "two",
            _ => panic!("{first:?} {second:?}"),
        };
        for server in [one, two] {
            let read = ask(server, &format!("runs/get?run_id={run}")).await;
            assert_eq!(read["run"]["data"]["params"], json!([{"key": "p", "value": winner}]));
            let tags: Vec<String> =
                read["run"]["data"]["tags"].as_array().unwrap().iter().map(|tag| text(&tag["key"])).collect();
            assert!(tags.contains(&winner.to_owned()) && tags.len() == 2, "{tags:?}");
        }
    }
}

async fn an_entity_is_found_by_both(tracking: &Server, one: &Server, two: &Server) {
    let position = tracking.produce("default", &json!([support::instrument("E1", "brent crude futures")])).await;
    for server in [one, two] {
        let (status, entity) = server.get_after("/entities/instrument/E1", Some(&position)).await;
        assert_eq!((status, &entity["text"]), (200, &json!("brent crude futures")));
        let answer = server.search("default", json!({"query": "brent crude"}), Some(&position)).await;
        assert_eq!(answer["results"][0]["entity_id"], "E1", "{answer}");
        let (status, model) = server.get("/models/name0").await;
        assert_eq!(status, 200, "{model}");
    }
}

/// Writes are answered, at the latest when the partitions of who is gone are another's.
async fn others_go_on(one: &Server, two: &Server) {
    let run = started(one, "0").await;
    let logged = json!({"run_id": run, "key": "m", "value": 1, "timestamp": 1, "step": 1});
    assert_eq!(post(two, "runs/log-metric", &logged).await.unwrap().0, 200);
    assert_eq!(metrics(one, &run).await, [1]);
}

/// `kill -9` of either of two whole platforms while both are logged to; then the same log, folded into files.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts brokers and a Postgres: scripts/services.sh and scripts/postgres.py fetch them; run with --ignored"]
async fn law_14_kill_9_of_either_replica_loses_and_doubles_nothing() {
    let rounds: usize = std::env::var("CARBON_CRASH_ROUNDS").map_or(20, |rounds| rounds.parse().unwrap());
    let mut random = Random::new();
    let mut site = Site::new().await;
    let mut servers = [site.start(&["up"]).await, site.start(&["up"]).await];
    let created = post(&servers[0], "experiments/create", &json!({"name": "spreads"})).await.unwrap().1;
    let experiment = text(&created["experiment_id"]);
    let first_run = started(&servers[1], &experiment).await;
    models(&servers[1], &experiment, &first_run).await;
    let (mut logs, mut runs) = (Vec::new(), vec![first_run]);
    for _ in 0..4 {
        let run = started(&servers[0], &experiment).await;
        runs.push(run.clone());
        logs.push(Log::new(run));
    }
    for round in 0..rounds {
        // Each run is logged to through one of the two.
        let writers: Vec<_> = logs
            .iter()
            .enumerate()
            .map(|(n, log): (usize, &Arc<Log>)| {
                let server = &servers[(n + round) % 2];
                tokio::spawn(write(server.http.clone(), server.tracking.clone(), log.clone()))
            })
            .collect();
        // The moment of the kill is the point of the test, not a synchronisation.
        tokio::time::sleep(Duration::from_millis(20 + random.below(400))).await;
        let [one, two] = servers;
        let (killed, survivor) = if random.below(2) == 0 { (one, two) } else { (two, one) };
        let folder = killed.data.clone();
        killed.kill();
        // What the killed one answered, the other shows at once.
        for log in &logs {
            verify_acknowledged(&survivor, log).await;
        }
        let started = site.start_in(&folder, &["up"]).await;
        let stop = survivor.data.clone();
        // The other's writers go on until it is gone, too.
        survivor.kill();
        for writer in writers {
            writer.await.unwrap();
        }
        servers = [started, site.start_in(&stop, &["up"]).await];
        no_lag(&servers[0]).await;
        for log in &logs {
            verify(&servers[round % 2], log).await;
        }
    }
    let acknowledged: usize = logs.iter().map(|log| log.acknowledged()).sum();
    assert!(acknowledged > 20 || rounds < 5, "{acknowledged}");
    let shared: Vec<Value> = reads(&servers[0], &experiment, &runs).await;
    assert_eq!(reads(&servers[1], &experiment, &runs).await, shared);
    // Files and Postgres fold the same.
    let alone = Place { database: None, ..site.place.beside() };
    let artifacts = site.artifacts.path().display().to_string();
    let alone = start(&alone, alone.path(), &["up"], &[("ML_MLFLOW_ARTIFACT_URI", artifacts.as_str())]).await;
    assert_eq!(reads(&alone, &experiment, &runs).await, shared);
    println!("{rounds} kills of each of two replicas, {acknowledged} batches acknowledged");
}
