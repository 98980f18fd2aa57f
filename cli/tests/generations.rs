//! Generations of the real binary: filled beside the served one, switched under load, retired.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use support::{Place, Server, instrument, post_tracking, runs, status, until};

/// How often each read model is switched under load; the drill makes 1,000.
fn switches() -> usize {
    std::env::var("CARBON_SWITCHES").map_or(60, |switches| switches.parse().unwrap())
}

fn state_of(status: &Value, id: &str) -> String {
    let generations = status["generations"].as_array().unwrap();
    let own = generations.iter().find(|g| g["id"] == id);
    own.map_or_else(|| "absent".into(), |g| g["state"].as_str().unwrap().to_owned())
}

fn served(status: &Value, read_model: &str) -> Option<String> {
    let generations = status["generations"].as_array().unwrap();
    let own = generations.iter().find(|g| g["read_model"] == read_model && g["served"] == true);
    own.map(|g| g["id"].as_str().unwrap().to_owned())
}

/// Fills a second generation; answers the ids of both.
async fn second(server: &Server, read_model: &str) -> (String, String) {
    let first = served(&status(server).await, read_model).unwrap();
    let (code, made) = post_tracking(server, &format!("/read-models/{read_model}/replay"), &json!({})).await;
    assert_eq!((code, &made["state"]), (200, &json!("building")), "{made}");
    let second = made["id"].as_str().unwrap().to_owned();
    // The first one answers until an operator says otherwise.
    let now = until(server, "ready", |now| state_of(now, &second) == "ready").await;
    assert_eq!(served(&now, read_model), Some(first.clone()));
    (first, second)
}

async fn promote(server: &Server, id: &str) {
    let (code, answer) = post_tracking(server, &format!("/generations/{id}/promote"), &json!({})).await;
    assert_eq!(code, 200, "{answer}");
}

/// What the clients found wrong, and how much they asked.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    requests: AtomicUsize,
    generations: std::sync::Mutex<BTreeSet<String>>,
}

impl Load {
    fn goes_on(&self) -> bool {
        self.requests.fetch_add(1, Ordering::Relaxed);
        !self.stop.load(Ordering::Relaxed)
    }
}

/// A client that creates a run and reads it back, without a token, through any of the servers.
async fn track(servers: Arc<Vec<(String, reqwest::Client)>>, load: Arc<Load>) {
    let mut n = 0;
    while load.goes_on() {
        n += 1;
        let (writer, reader) = (&servers[n % servers.len()], &servers[(n / 2) % servers.len()]);
        let url = |base: &str, path: &str| format!("{base}/api/2.0/mlflow/{path}");
        let body = json!({"experiment_id": "0", "start_time": n, "run_name": format!("run {n}")});
        let answer = writer.1.post(url(&writer.0, "runs/create")).json(&body).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{:?}", answer.text().await);
        let run: Value = answer.json().await.unwrap();
        let id = run["run"]["info"]["run_id"].as_str().unwrap();
        let metric = json!({"run_id": id, "key": "m", "value": n, "timestamp": 1, "step": 0});
        let answer = writer.1.post(url(&writer.0, "runs/log-metric")).json(&metric).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{:?}", answer.text().await);
        let answer = reader.1.get(url(&reader.0, &format!("runs/get?run_id={id}"))).send().await.unwrap();
        assert_eq!(answer.status(), 200, "a run that was written is missed: {:?}", answer.text().await);
        let read: Value = answer.json().await.unwrap();
        assert_eq!(read["run"]["data"]["metrics"][0]["value"], json!(n as f64), "{read}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A client that writes an entity and finds it, and the others with it.
async fn search(servers: Arc<Vec<(String, String, reqwest::Client)>>, load: Arc<Load>) {
    let mut n = 0;
    while load.goes_on() {
        n += 1;
        let (query, tracking, http) = &servers[n % servers.len()];
        let entities = json!([instrument("MOVING", &format!("the moving one, version {n}"))]);
        let answer = http.post(format!("{tracking}/entities")).json(&entities).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let position = answer.headers()["X-Log-Position"].to_str().unwrap().to_owned();
        let body = json!({"query": "contract of the load", "mode": "lexical", "limit": 50});
        let request = http.post(format!("{query}/search")).json(&body);
        let request = request.header("X-Min-Position", position).header("X-Timeout-Ms", "20000");
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200, "{:?}", answer.text().await);
        let found: Value = answer.json().await.unwrap();
        assert_eq!(found["results"].as_array().unwrap().len(), 20, "{found}");
        load.generations.lock().unwrap().insert(found["generation"].as_str().unwrap().to_owned());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Switches the index and the registry back and forth while clients write and read through all servers.
async fn switch_under_load(servers: &[&Server]) {
    let first = servers[0];
    let entities: Vec<Value> = (0..20).map(|n| instrument(&format!("E{n}"), "a contract of the load")).collect();
    first.produce("default", &json!(entities)).await;
    let registry = second(first, "registry").await;
    let index = second(first, "search").await;
    let load = Arc::new(Load::default());
    let tracking: Vec<_> = servers.iter().map(|s| (s.tracking.clone(), s.http.clone())).collect();
    let all: Vec<_> = servers.iter().map(|s| (s.query.clone(), s.tracking.clone(), s.http.clone())).collect();
    let (tracking, all) = (Arc::new(tracking), Arc::new(all));
    let clients = [
        tokio::spawn(track(tracking.clone(), load.clone())),
        tokio::spawn(track(tracking, load.clone())),
        tokio::spawn(search(all, load.clone())),
    ];
    for n in 0..switches() {
        for (read_model, (old, new)) in [("registry", &registry), ("search", &index)] {
            let to = if n % 2 == 0 { new } else { old };
            promote(first, to).await;
            until(first, "switched", |now| served(now, read_model).as_deref() == Some(to)).await;
        }
    }
    load.stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    let (requests, seen) = (load.requests.load(Ordering::Relaxed), load.generations.lock().unwrap().clone());
    println!("{} switches of each, {requests} rounds of clients, searched {seen:?}", switches());
    assert_eq!(seen, BTreeSet::from([index.0.clone(), index.1.clone()]), "both generations answered");

    // The one that is not served goes, and nobody notices.
    let active = served(&status(first).await, "registry").unwrap();
    let other = if active == registry.0 { &registry.1 } else { &registry.0 };
    let (code, refused) = post_tracking(first, &format!("/generations/{active}/retire"), &json!({})).await;
    assert_eq!(code, 409, "{refused}");
    let (code, retired) = post_tracking(first, &format!("/generations/{other}/retire"), &json!({})).await;
    assert_eq!((code, &retired["state"]), (200, &json!("retired")));
    let run = runs::started(first, "0").await;
    assert_eq!(runs::ask(first, &format!("runs/get?run_id={run}")).await["run"]["info"]["run_id"], json!(run));
    let (code, answer) = post_tracking(first, &format!("/generations/{other}/promote"), &json!({})).await;
    assert_eq!(code, 409, "{answer}");
}

async fn switches_are_seen_by_nobody(place: Place) {
    let server = place.start().await;
    switch_under_load(&[&server]).await;
    let retired =
        until(&server, "dropped", |now| now["generations"].as_array().unwrap().iter().any(|g| g["state"] == "retired"))
            .await;
    if place.database.is_none() {
        let gone = retired["generations"].as_array().unwrap().iter().find(|g| g["state"] == "retired").unwrap();
        let folder = place.path().join("read-models").join(gone["id"].as_str().unwrap());
        let deadline = std::time::Instant::now() + support::PATIENCE;
        while folder.exists() {
            assert!(std::time::Instant::now() < deadline, "{folder:?} stays");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    // After a restart the last activation still decides.
    let before = served(&status(&server).await, "search");
    assert!(server.interrupt().await.success());
    let server = place.start().await;
    assert_eq!(served(&status(&server).await, "search"), before);
    assert!(server.interrupt().await.success());
}

on_every_store! { switches_are_seen_by_nobody, }

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts brokers and a Postgres: scripts/services.sh and scripts/postgres.py fetch them; run with --ignored"]
async fn two_replicas_switch_and_no_client_misses_what_it_wrote() {
    let place = Place::kafka().await.on_postgres().await;
    let other = place.beside();
    let (one, two) = (place.start().await, other.start().await);
    switch_under_load(&[&one, &two]).await;
    assert!(one.interrupt().await.success());
    assert!(two.interrupt().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_of_an_unknown_tenant_appends_nothing() {
    let place = Place::embedded();
    let server = place.start().await;
    let records = |status: &Value| {
        let topics = status["log"]["topics"].as_array().unwrap().iter();
        topics.map(|topic| (topic["name"].to_string(), topic["records"].as_u64().unwrap())).collect::<Vec<_>>()
    };
    let before = records(&status(&server).await);
    for n in 0..100 {
        let base = format!("{}/tenants/t{n}/api/2.0/mlflow", server.tracking);
        for path in [
            "experiments/get?experiment_id=0",
            "experiments/get-by-name?experiment_name=Default",
            "experiments/search?max_results=10",
            "registered-models/search",
        ] {
            let answer = server.http.get(format!("{base}/{path}")).send().await.unwrap();
            assert_eq!(answer.status(), 200, "{path}");
            let answer: Value = answer.json().await.unwrap();
            if path.starts_with("experiments") {
                let found = answer.get("experiment").unwrap_or(&answer["experiments"][0]);
                assert_eq!((&found["experiment_id"], &found["name"]), (&json!("0"), &json!("Default")), "{path}");
            }
        }
        let body = json!({"experiment_ids": ["0"]});
        let answer = server.http.post(format!("{base}/runs/search")).json(&body).send().await.unwrap();
        assert_eq!(answer.status(), 200);
    }
    assert_eq!(records(&status(&server).await), before);
    // The first write makes it, once.
    let base = "/tenants/t1/api/2.0/mlflow";
    for name in ["a", "b"] {
        let run = json!({"experiment_id": "0", "start_time": 1, "run_name": name});
        assert_eq!(post_tracking(&server, &format!("{base}/runs/create"), &run).await.0, 200);
    }
    let taken = json!({"name": "Default"});
    let (code, answer) = post_tracking(&server, "/tenants/t2/api/2.0/mlflow/experiments/create", &taken).await;
    assert_eq!((code, &answer["error_code"]), (400, &json!("RESOURCE_ALREADY_EXISTS")));
    let after = records(&status(&server).await);
    let of = |name: &str| after.iter().find(|(topic, _)| topic.contains(name)).unwrap().1;
    assert_eq!((of("ml.experiment.changed"), of("ml.run.logged")), (1, 2));
    assert!(server.interrupt().await.success());
}
