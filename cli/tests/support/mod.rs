//! The real binary in a data folder of its own, on ports chosen free.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod cluster;
pub mod database;
pub mod deployment;
pub mod runs;
pub mod world;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

pub const PATIENCE: Duration = Duration::from_secs(60);

/// A child process that does not outlive the test, however it ends.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where a test's platform lives: a data folder of its own, the log in it or on a cluster of its own, and its relational
/// read models in it or in a database of its own.
pub struct Place {
    pub data: tempfile::TempDir,
    pub cluster: Option<Arc<cluster::Cluster>>,
    pub database: Option<Arc<database::Database>>,
}

impl Place {
    pub fn embedded() -> Self {
        Self { data: tempfile::tempdir().unwrap(), cluster: None, database: None }
    }

    /// A fresh cluster with the topology applied.
    pub async fn kafka() -> Self {
        let cluster = tokio::task::spawn_blocking(cluster::Cluster::start).await.unwrap();
        cluster.apply_topology();
        Self { data: tempfile::tempdir().unwrap(), cluster: Some(Arc::new(cluster)), database: None }
    }

    /// The same with a database of its own.
    pub async fn on_postgres(mut self) -> Self {
        let database = tokio::task::spawn_blocking(database::Database::start).await.unwrap();
        self.database = Some(Arc::new(database));
        self
    }

    /// Throws all read models away.
    pub async fn forget_rows(&self) {
        std::fs::remove_dir_all(self.path().join("read-models")).unwrap();
        if let Some(database) = &self.database {
            database.forget().await;
        }
    }

    /// Another one of the same kind.
    pub async fn another(&self) -> Self {
        match self.cluster {
            Some(_) => Self::kafka().await,
            None => Self::embedded(),
        }
    }

    /// Another data folder on the same cluster, and the same database.
    pub fn beside(&self) -> Self {
        Self { data: tempfile::tempdir().unwrap(), cluster: self.cluster.clone(), database: self.database.clone() }
    }

    /// Another data folder, and with it another log, on the same database.
    pub fn afresh(&self) -> Self {
        Self { data: tempfile::tempdir().unwrap(), cluster: None, database: self.database.clone() }
    }

    pub fn path(&self) -> &Path {
        self.data.path()
    }

    pub fn settings(&self) -> Vec<(&str, &str)> {
        let mut settings = self.cluster.as_ref().map(|cluster| cluster.settings()).unwrap_or_default();
        settings.extend(self.database.as_ref().map(|database| database.setting()));
        settings
    }

    /// Starts `carbon-ml up` and waits until it is ready.
    pub async fn start(&self) -> Server {
        Server::start_with(self.path(), &self.settings()).await
    }
}

/// Makes two tests of each function: on the embedded log, and, where services are asked for, on Kafka.
#[macro_export]
macro_rules! on_both_logs {
    ($($test:ident,)*) => {
        mod embedded {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    super::$test(super::support::Place::embedded()).await;
                }
            )*
        }
        mod kafka {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                #[ignore = "starts brokers: scripts/services.sh fetches them; run with --ignored"]
                async fn $test() {
                    super::$test(super::support::Place::kafka().await).await;
                }
            )*
        }
    };
}

/// The same, and two more of each function with the relational read models on Postgres.
#[macro_export]
macro_rules! on_every_store {
    ($($test:ident,)*) => {
        on_both_logs! { $($test,)* }
        mod postgres {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                #[ignore = "starts a Postgres: scripts/postgres.py fetches it; run with --ignored"]
                async fn $test() {
                    super::$test(super::support::Place::embedded().on_postgres().await).await;
                }
            )*
        }
        mod postgres_and_kafka {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                #[ignore = "starts brokers and a Postgres: scripts/services.sh and scripts/postgres.py fetch them; run with --ignored"]
                async fn $test() {
                    super::$test(super::support::Place::kafka().await.on_postgres().await).await;
                }
            )*
        }
    };
}

/// A running `carbon-ml up`.
pub struct Server {
    child: Running,
    pub query: String,
    pub tracking: String,
    /// Where it says whether it is ready.
    health: String,
    pub http: reqwest::Client,
    pub data: PathBuf,
    output: mpsc::Receiver<String>,
    lines: Vec<String>,
}

/// The binary, with none of the caller's settings.
pub fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_carbon-ml"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ML_")) {
        command.env_remove(name);
    }
    command
}

/// Starts `carbon-ml up` without waiting for anything.
pub fn spawn(data: &Path, settings: &[(&str, &str)]) -> Running {
    spawn_roles(data, &["up"], settings)
}

/// Starts the binary without waiting for anything.
pub fn spawn_roles(data: &Path, arguments: &[&str], settings: &[(&str, &str)]) -> Running {
    let child = binary()
        .args(arguments)
        .env("ML_DATA_DIR", data)
        .env("ML_OPERATIONS_PORT", "0")
        .env("ML_QUERY_PORT", "0")
        .env("ML_TRACKING_PORT", "0")
        .env("ML_LOG_LEVEL", "warn")
        .env("ML_EMBEDDING_MODEL", "feature-hashing")
        .envs(settings.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    Running(child.unwrap())
}

impl Server {
    pub async fn start(data: &Path) -> Self {
        Self::start_with(data, &[]).await
    }

    /// Starts `carbon-ml up` and waits until it is ready.
    pub async fn start_with(data: &Path, settings: &[(&str, &str)]) -> Self {
        Self::start_roles(data, &["up"], settings).await
    }

    /// Starts and waits until it is ready. A process without query-api or tracking-api answers at its operations
    /// port alone; the addresses that it has not are empty.
    pub async fn start_roles(data: &Path, arguments: &[&str], settings: &[(&str, &str)]) -> Self {
        let mut child = spawn_roles(data, arguments, settings);
        let (lines, output) = mpsc::channel();
        let stdout = BufReader::new(child.0.stdout.take().unwrap());
        let stderr = BufReader::new(child.0.stderr.take().unwrap());
        for reader in [Box::new(stdout) as Box<dyn std::io::BufRead + Send>, Box::new(stderr)] {
            let lines = lines.clone();
            std::thread::spawn(move || {
                for line in reader.lines().map_while(Result::ok) {
                    let _ = lines.send(line);
                }
            });
        }
        let (mut query, mut tracking, mut operations, mut said) = (None, None, None, Vec::new());
        let deadline = Instant::now() + PATIENCE;
        // The line of the log comes after the addresses.
        while !said.last().is_some_and(|line: &String| line.starts_with("  log ")) {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = output.recv_timeout(left).unwrap_or_else(|_| panic!("it said only:\n{}", said.join("\n")));
            let address = || line.split_whitespace().find(|word| word.starts_with("http://")).map(str::to_owned);
            match line.trim_start() {
                text if text.starts_with("query-api") => query = address(),
                text if text.starts_with("tracking-api") => tracking = address(),
                text if text.starts_with("operations") => operations = address(),
                _ => {}
            }
            said.push(line);
        }
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
        let health = query.clone().or(tracking.clone()).or(operations).unwrap();
        let (query, tracking) = (query.unwrap_or_default(), tracking.unwrap_or_default());
        let mut server = Self { child, query, tracking, health, http, data: data.to_owned(), output, lines: said };
        server.wait_ready().await;
        server
    }

    pub async fn wait_ready(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.http.get(format!("{}/ready", self.health)).send().await;
            if answer.as_ref().is_ok_and(|answer| answer.status() == 200) {
                return;
            }
            assert!(Instant::now() < deadline, "not ready: {answer:?} {:?}", self.said());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// All that it has said.
    pub fn said(&mut self) -> String {
        self.lines.extend(self.output.try_iter());
        self.lines.join("\n")
    }

    /// Waits until it has said one of these; its two streams arrive in no order.
    pub async fn says(&mut self, any: &[&str]) {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let said = self.said();
            if any.iter().any(|part| said.contains(part)) {
                return;
            }
            assert!(Instant::now() < deadline, "none of {any:?} is said in:\n{said}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.0.id()
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.child.0.kill().unwrap();
        self.child.0.wait().unwrap();
    }

    /// Ctrl-C, and the exit status after the drain.
    pub async fn interrupt(mut self) -> std::process::ExitStatus {
        let pid = self.child.0.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.0.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not drain: {:?}", self.said());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// POSTs entities; answers the positions header.
    pub async fn produce(&self, tenant: &str, entities: &Value) -> String {
        let answer =
            self.http.post(format!("{}/tenants/{tenant}/entities", self.tracking)).json(entities).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{:?}", answer.text().await);
        answer.headers()["X-Log-Position"].to_str().unwrap().to_owned()
    }

    pub async fn delete(&self, tenant: &str, kind: &str, id: &str) -> String {
        let url = format!("{}/tenants/{tenant}/entities/{kind}/{id}", self.tracking);
        let answer = self.http.delete(url).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{:?}", answer.text().await);
        answer.headers()["X-Log-Position"].to_str().unwrap().to_owned()
    }

    /// A search that sees what was written up to `position`.
    pub async fn search(&self, tenant: &str, body: Value, position: Option<&str>) -> Value {
        let mut request = self.http.post(format!("{}/tenants/{tenant}/search", self.query)).json(&body);
        if let Some(position) = position {
            request = request.header("X-Min-Position", position).header("X-Timeout-Ms", "30000");
        }
        let answer = request.send().await.unwrap();
        let status = answer.status();
        let body: Value = answer.json().await.unwrap();
        assert_eq!(status, 200, "{body}");
        body
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        self.get_after(path, None).await
    }

    /// A read that sees what was written up to `position`.
    pub async fn get_after(&self, path: &str, position: Option<&str>) -> (u16, Value) {
        let mut request = self.http.get(format!("{}{path}", self.query));
        if let Some(position) = position {
            request = request.header("X-Min-Position", position).header("X-Timeout-Ms", "30000");
        }
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap_or(Value::Null))
    }
}

pub fn instrument(id: &str, text: &str) -> Value {
    json!({"entity_type": "instrument", "entity_id": id, "text": text, "tags": ["test"], "metadata": {"name": id, "lot": 10}})
}

/// `(type/id, score)` of each result.
pub fn results(answer: &Value) -> Vec<(String, f64)> {
    let results = answer["results"].as_array().unwrap().iter();
    results
        .map(|r| {
            let id = format!("{}/{}", r["entity_type"].as_str().unwrap(), r["entity_id"].as_str().unwrap());
            (id, r["score"].as_f64().unwrap())
        })
        .collect()
}

/// A small generator of random numbers whose seed is printed, so that a failure can be run again.
pub struct Random(u64);

impl Random {
    /// From `CARBON_TEST_SEED`, or from the clock.
    pub fn new() -> Self {
        let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
        let seed = std::env::var("CARBON_TEST_SEED").map_or(clock, |seed| seed.parse().unwrap());
        println!("CARBON_TEST_SEED={seed}");
        Self(seed | 1)
    }

    pub fn new_from(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub fn next(&mut self) -> u64 {
        // xorshift64* (Vigna 2016).
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// `GET /status`.
pub async fn status(server: &Server) -> Value {
    let answer = server.http.get(format!("{}/status", server.tracking)).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.json().await.unwrap()
}

/// POSTs to tracking-api; the status and the answer.
pub async fn post_tracking(server: &Server, path: &str, body: &Value) -> (u16, Value) {
    let answer = server.http.post(format!("{}{path}", server.tracking)).json(body).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap_or(Value::Null))
}

/// Waits until `/status` says so.
pub async fn until(server: &Server, what: &str, so: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = status(server).await;
        if so(&now) {
            return now;
        }
        assert!(Instant::now() < deadline, "not {what}: {now}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
