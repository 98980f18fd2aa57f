//! Python's scripts beside a platform on Kafka.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;
use std::time::{Duration, Instant};

use carbon_core::{Position, Positions};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::support::{PATIENCE, Place, Server, results};

pub const ENTITIES: &str = "ml.entity.changed.v1";
pub const EMBEDDINGS: &str = "ml.embedding.generated.v1";
/// All of them write for one tenant, and not for `default`.
pub const TENANT: &str = "acme";

/// A platform on Kafka, and a Python beside it.
pub struct Foreign {
    pub server: Server,
    place: Place,
    python: String,
}

/// Runs to the end: whether it succeeded, what it printed, what it complained of.
async fn run(mut command: Command, input: &str, patience: Duration) -> (bool, String, String) {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let (mut stdin, input) = (child.stdin.take().unwrap(), input.to_owned());
    // What fails at its start reads nothing.
    tokio::spawn(async move { stdin.write_all(input.as_bytes()).await });
    let output = tokio::time::timeout(patience, child.wait_with_output()).await;
    let output = output.unwrap_or_else(|_| panic!("{command:?} does not end")).unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

fn script(name: &str) -> String {
    format!("{}/../scripts/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn ndjson(values: &[Value]) -> String {
    values.iter().map(|value| format!("{value}\n")).collect()
}

pub fn entity(id: &str, text: &str) -> Value {
    let metadata = json!({"lot": 10, "id": id});
    json!({"entity_type": "curve", "entity_id": id, "text": text, "tags": ["foreign"], "metadata": metadata})
}

pub fn entities(prefix: &str, count: usize, text: &str) -> Vec<Value> {
    (0..count).map(|n| entity(&format!("{prefix}{n}"), &format!("{text} number{n}"))).collect()
}

pub fn key(id: &str) -> String {
    format!("{TENANT}/curve/{id}")
}

pub fn placed(line: &Value) -> Position {
    let place = format!("{}:{}:{}", line["topic"].as_str().unwrap(), line["partition"], line["offset"]);
    place.parse().unwrap()
}

pub fn ids(prefix: &str, numbers: impl IntoIterator<Item = usize>) -> BTreeSet<String> {
    numbers.into_iter().map(|n| format!("{prefix}{n}")).collect()
}

/// What `X-Min-Position` wants.
pub fn positions(lines: &[Value]) -> String {
    let mut positions = Positions::new();
    lines.iter().for_each(|line| positions.advance_past(&placed(line)));
    positions.to_done_string()
}

impl Foreign {
    pub async fn start() -> Self {
        // The first one on a machine installs packages.
        let python = run(Command::new(script("python_env.sh")), "", Duration::from_secs(300));
        let platform = async {
            let place = Place::kafka().await;
            let server = place.start().await;
            (place, server)
        };
        let ((good, python, complaint), (place, server)) = tokio::join!(python, platform);
        assert!(good, "{complaint}");
        Self { server, place, python: python.trim().to_owned() }
    }

    /// Whether a script succeeded, and the lines that it printed.
    pub async fn try_python(&self, name: &str, arguments: &[&str], input: &[Value]) -> (bool, Vec<Value>, String) {
        let mut command = Command::new(&self.python);
        command.arg("-B").arg(script(&format!("foreign/{name}"))).args(arguments).envs(self.place.settings());
        let (good, printed, complaint) = run(command, &ndjson(input), PATIENCE).await;
        (good, printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), complaint)
    }

    pub async fn python(&self, name: &str, arguments: &[&str], input: &[Value]) -> Vec<Value> {
        let (good, lines, complaint) = self.try_python(name, arguments, input).await;
        assert!(good, "{name} {arguments:?}: {complaint}");
        lines
    }

    /// Where each entity lies.
    pub async fn produce(&self, arguments: &[&str], entities: &[Value]) -> Vec<Value> {
        let arguments = [&["--tenant", TENANT], arguments].concat();
        let lines = self.python("produce_entities.py", &arguments, entities).await;
        assert_eq!(lines.len(), entities.len());
        lines
    }

    /// A position behind all that came before, also behind what had no effect.
    pub async fn fence(&self) -> String {
        positions(&self.produce(&[], &entities("FENCE", 60, "the fence behind")).await)
    }

    /// The ids that have this word.
    pub async fn found(&self, word: &str, position: &str) -> BTreeSet<String> {
        let query = json!({"query": word, "mode": "lexical", "limit": 1000});
        let found = results(&self.server.search(TENANT, query, Some(position)).await);
        found.into_iter().map(|(id, _)| id.strip_prefix("curve/").unwrap().to_owned()).collect()
    }

    pub async fn catalog(&self, id: &str, position: &str) -> (u16, Value) {
        self.server.get_after(&format!("/tenants/{TENANT}/entities/curve/{id}"), Some(position)).await
    }

    /// The newest version that the registry has of an event's schema.
    pub async fn latest_schema(&self, event: &str) -> Value {
        let registry = self.place.cluster.as_ref().unwrap().registry();
        let url = format!("{registry}/subjects/{event}-value/versions/latest");
        self.server.http.get(url).send().await.unwrap().json().await.unwrap()
    }

    /// The dead letters that the tenant may see, one a source position: every processor reports the same one.
    pub async fn dead_letters(&self) -> BTreeMap<Position, Value> {
        let url = format!("{}/tenants/{TENANT}/events/ml.deadletter.v1?from=earliest&follow=false", self.server.query);
        let text = self.server.http.get(url).send().await.unwrap().text().await.unwrap();
        let mut letters: BTreeMap<Position, Value> = BTreeMap::new();
        for line in text.lines().filter_map(|line| line.strip_prefix("data: ")) {
            let event = serde_json::from_str::<Value>(line).unwrap()["event"].clone();
            let letter = letters.entry(placed(&event["source"])).or_insert(event.clone());
            assert_eq!((&letter["event_id"], &letter["reason"]), (&event["event_id"], &event["reason"]));
        }
        letters
    }

    /// Waits until the read model of dead letters has these, each position once.
    pub async fn has_dead_letters(&self, reasons: Value) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.server.http.get(format!("{}/status", self.server.tracking)).send().await.unwrap();
            let status: Value = answer.json().await.unwrap();
            if status["dead_letters"]["by_reason"] == reasons {
                return;
            }
            assert!(Instant::now() < deadline, "{reasons}: {}", status["dead_letters"]);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
