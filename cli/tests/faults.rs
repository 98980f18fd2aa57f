//! Faults injected into the running binary: each is named in `/ready`, and when it goes everything catches up. Nothing is
//! lost or doubled.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{PATIENCE, Server, instrument, runs, spawn};

/// A server whose failpoints are lines of a file.
struct Faulty {
    server: Server,
    file: PathBuf,
    data: tempfile::TempDir,
}

impl Faulty {
    async fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let file = data.path().join("failpoints");
        std::fs::write(&file, "").unwrap();
        let setting = file.display().to_string();
        let server = Server::start_with(&data.path().join("data"), &[("CARBON_FAILPOINTS", &setting)]).await;
        Self { server, file, data }
    }

    /// Replaces all failpoints, and waits until they are in force in the process.
    async fn inject(&self, lines: &str) {
        let aside = self.data.path().join("aside");
        std::fs::write(&aside, lines).unwrap();
        std::fs::rename(aside, &self.file).unwrap();
        let (seen, began) = (self.file.with_extension("seen"), Instant::now());
        while std::fs::read_to_string(&seen).ok().as_deref() != Some(lines) {
            assert!(began.elapsed() < Duration::from_secs(10), "the process does not see {lines:?}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn ready(&self) -> (u16, Value) {
        self.server.get("/ready").await
    }

    /// Waits until `/ready` names a part; answers how long that took.
    async fn names(&self, part: &str, within: Duration) -> Duration {
        let began = Instant::now();
        loop {
            let (_, ready) = self.ready().await;
            let names = ready["not_running"].as_array().unwrap();
            if names.iter().any(|name| name.as_str().unwrap().starts_with(part)) {
                return began.elapsed();
            }
            assert!(began.elapsed() < within, "{part} is not named within {within:?}: {ready}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until nothing is named.
    async fn recovers(&self) {
        let began = Instant::now();
        loop {
            let (code, ready) = self.ready().await;
            if code == 200 && ready["not_running"] == json!([]) {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "it does not recover: {ready}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Everything that was produced is found, once.
    async fn holds(&self, count: usize, position: &str) {
        let query = json!({"query": "injected fault", "mode": "lexical", "limit": 1000});
        let found = self.server.search("default", query, Some(position)).await;
        assert_eq!(found["results"].as_array().unwrap().len(), count);
        for n in 0..count {
            let (code, _) = self.server.get_after(&format!("/entities/instrument/F{n}"), Some(position)).await;
            assert_eq!(code, 200, "F{n}");
        }
    }
}

const SECOND: Duration = Duration::from_secs(1);
/// A hang is one after 10 s without progress.
const HANG: Duration = Duration::from_secs(13);

fn entities(from: usize, count: usize) -> Value {
    (from..from + count).map(|n| instrument(&format!("F{n}"), &format!("injected fault number {n}"))).collect()
}

/// A fault in the fold or the stage behind `/entities`.
async fn entities_survive(failpoint: &str, part: &str, action: &str, within: Duration) {
    let faulty = Faulty::start().await;
    faulty.server.produce("default", &entities(0, 20)).await;
    faulty.inject(&format!("{failpoint}={action}\n")).await;
    let position = faulty.server.produce("default", &entities(20, 20)).await;
    let took = faulty.names(part, within).await;
    // Routes that do not need it are answered meanwhile.
    assert_eq!(faulty.ready().await.0, 200, "{failpoint}={action}");
    println!("{failpoint}={action}: named after {took:?}");
    faulty.inject("").await;
    faulty.recovers().await;
    faulty.holds(40, &position).await;
    assert!(faulty.server.interrupt().await.success());
}

macro_rules! entity_faults {
    ($($name:ident: $failpoint:literal, $part:literal, $action:literal, $within:expr;)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                entities_survive($failpoint, $part, $action, $within).await;
            }
        )*
    };
}

entity_faults! {
    the_catalogs_fold_panics: "catalog::apply", "catalog", "panic", SECOND;
    the_catalogs_fold_fails: "catalog::apply", "catalog", "return(internal)", SECOND;
    the_catalogs_store_is_unavailable: "catalog::apply", "catalog", "return(external)", SECOND;
    the_catalogs_fold_hangs: "catalog::apply", "catalog", "return(hang)", HANG;
    the_indexer_panics: "indexer::apply", "indexer", "panic", SECOND;
    the_indexer_fails: "indexer::apply", "indexer", "return(internal)", SECOND;
    the_indexer_hangs: "indexer::apply", "indexer", "return(hang)", HANG;
    the_embedder_panics: "embedder::process", "embedder", "panic", SECOND;
    the_embedder_fails: "embedder::process", "embedder", "return(internal)", SECOND;
    the_embedder_hangs: "embedder::process", "embedder", "return(hang)", HANG;
    the_encoders_threads_panic: "encoder::run", "embedder", "panic", SECOND;
    the_encoders_threads_fail: "encoder::run", "embedder", "return(bad weights)", SECOND;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn law_09_a_write_is_rejected_before_the_append_while_the_fold_of_the_registry_does_not_move() {
    for (action, within) in [("panic", SECOND), ("return(internal)", SECOND), ("return(hang)", HANG)] {
        let faulty = Faulty::start().await;
        let server = &faulty.server;
        let run = runs::started(server, "0").await;
        faulty.inject(&format!("registry::apply={action}\n")).await;
        let metric = |step: i64| json!({"run_id": run, "key": "m", "value": step, "timestamp": 1, "step": step});
        // The first write may be appended before the fault is detected: its answer tells.
        let first = tokio::spawn({
            let (http, url) = (server.http.clone(), format!("{}/api/2.0/mlflow/runs/log-metric", server.tracking));
            let body = metric(0);
            async move { http.post(url).json(&body).send().await.unwrap().status().as_u16() }
        });
        faulty.names("registry", within).await;
        assert_eq!(faulty.ready().await.0, 503, "writes cannot be answered");
        let ends = |status: &Value| {
            let topics = status["log"]["topics"].as_array().unwrap().clone();
            topics.iter().find(|topic| topic["name"] == "ml.run.logged.v1").unwrap()["records"].as_u64().unwrap()
        };
        let before = ends(&support::status(server).await);
        let mut rejected = 0;
        for step in 1..5 {
            let url = format!("{}/api/2.0/mlflow/runs/log-metric", server.tracking);
            let answer = server.http.post(url).json(&metric(step)).send().await.unwrap();
            assert_eq!(answer.status(), 503);
            assert!(answer.headers().contains_key("retry-after"));
            let body: Value = answer.json().await.unwrap();
            rejected += usize::from(body["message"].as_str().unwrap().starts_with("nothing was written"));
        }
        assert_eq!((rejected, ends(&support::status(server).await)), (4, before), "{action}");
        // Reads are answered from what is folded.
        let read = runs::ask(server, &format!("runs/get?run_id={run}")).await;
        assert_eq!(read["run"]["info"]["run_id"], json!(run));
        faulty.inject("").await;
        faulty.recovers().await;
        let first = first.await.unwrap();
        assert!(first == 200 || first == 503, "{first}");
        let history = runs::ask(server, &format!("metrics/get-history?run_id={run}&metric_key=m")).await;
        assert_eq!(history["metrics"].as_array().unwrap().len(), 1, "the first one is there once");
        assert!(faulty.server.interrupt().await.success());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_follower_of_generations_panics_and_is_restarted() {
    let faulty = Faulty::start().await;
    faulty.inject("generations::follow=panic\n").await;
    let replay = format!("{}/read-models/catalog/replay", faulty.server.tracking);
    let asked = tokio::spawn(faulty.server.http.post(replay).json(&json!({})).send());
    faulty.names("generations", SECOND).await;
    assert_eq!(faulty.ready().await.0, 200);
    faulty.inject("").await;
    faulty.recovers().await;
    assert_eq!(asked.await.unwrap().unwrap().status(), 200);
    assert!(faulty.server.interrupt().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_logs_writer_fails_and_nothing_acknowledged_is_lost() {
    let faulty = Faulty::start().await;
    faulty.server.produce("default", &entities(0, 20)).await;
    for action in ["return", "panic"] {
        // The connection of a failed append is closed, and cannot be opened again for now.
        faulty.inject(&format!("log::append={action}\nlog::reopen=return\n")).await;
        let url = format!("{}/entities", faulty.server.tracking);
        let answer = faulty.server.http.post(url).json(&entities(100, 1)).send().await.unwrap();
        assert_eq!(answer.status(), 503, "{action}");
        faulty.names("log", SECOND).await;
        faulty.inject("").await;
        if action == "return" {
            let url = format!("{}/entities", faulty.server.tracking);
            let answer = faulty.server.http.post(url).json(&entities(20, 20)).send().await.unwrap();
            assert_eq!(answer.status(), 200, "{:?}", answer.text().await);
            faulty.recovers().await;
        }
    }
    // A writer that panicked is gone: a restart brings it back.
    let data = faulty.data.path().join("data");
    faulty.server.kill();
    let server = Server::start(&data).await;
    let query = json!({"query": "injected fault", "mode": "lexical", "limit": 1000});
    assert_eq!(server.search("default", query, None).await["results"].as_array().unwrap().len(), 40);
    assert!(server.interrupt().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_panics_or_hangs_ends_the_process() {
    for (action, within) in [("panic", Duration::from_secs(20)), ("return(hang)", Duration::from_secs(60))] {
        let data = tempfile::tempdir().unwrap();
        let file = data.path().join("failpoints");
        std::fs::write(&file, format!("http::accept={action}\n")).unwrap();
        let setting = file.display().to_string();
        let mut child = spawn(&data.path().join("data"), &[("CARBON_FAILPOINTS", &setting), ("ML_QUERY_PORT", "0")]);
        // Any connection meets the fault.
        let stdout = std::io::BufReader::new(child.0.stdout.take().unwrap());
        let mut lines = std::io::BufRead::lines(stdout).map_while(Result::ok);
        let line = lines.find(|line| line.contains("query-api")).unwrap();
        // What it says later must be read: a closed pipe is a reason to stop of its own.
        std::thread::spawn(move || lines.for_each(drop));
        let address = line.split_whitespace().find(|word| word.starts_with("http://")).unwrap();
        let _ = std::net::TcpStream::connect(address.trim_start_matches("http://"));
        let deadline = Instant::now() + within;
        let status = loop {
            if let Some(status) = child.0.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "it goes on after {action}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert!(!status.success(), "{action}: {status}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_are_deleted_while_it_runs_are_named_and_take_no_writes() {
    for gone in ["log.db", "."] {
        let faulty = Faulty::start().await;
        let data = faulty.data.path().join("data");
        faulty.server.produce("default", &entities(0, 3)).await;
        match gone {
            "." => std::fs::remove_dir_all(&data).unwrap(),
            file => std::fs::remove_file(data.join(file)).unwrap(),
        }
        faulty.names("log", SECOND).await;
        assert_eq!(faulty.ready().await.0, 503);
        let url = format!("{}/entities", faulty.server.tracking);
        let answer = faulty.server.http.post(url).json(&entities(3, 1)).send().await.unwrap();
        assert_eq!(answer.status(), 503, "{gone}: an acknowledged write would be lost");
        faulty.server.kill();
    }
    let faulty = Faulty::start().await;
    let folder = faulty.data.path().join("data/read-models/registry-v5-1");
    std::fs::remove_dir_all(folder).unwrap();
    faulty.names("registry", SECOND).await;
    assert_eq!(faulty.ready().await.0, 503);
    faulty.server.kill();
}
