//! A client of MLflow's API for tests, and tables of requests with the expected answers.

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};

use crate::support::{Answer, Service};

/// The prefix of MLflow's client.
pub const A: &str = "/api/2.0/mlflow";

// Error codes of MLflow.
pub const INVALID: &str = "INVALID_PARAMETER_VALUE";
pub const MISSING: &str = "RESOURCE_DOES_NOT_EXIST";
pub const EXISTS: &str = "RESOURCE_ALREADY_EXISTS";

/// The topics that MLflow's writes append to.
const TOPICS: [&str; 5] = [
    "ml.experiment.changed.v1",
    "ml.run.logged.v1",
    "ml.logged_model.changed.v1",
    "ml.model.registered.v1",
    "ml.model.promoted.v1",
];

pub struct Client {
    pub service: Service,
    prefix: &'static str,
}

impl Client {
    pub async fn new() -> Self {
        Self::at(A).await
    }

    /// A client of a new service, with another prefix.
    pub async fn at(prefix: &'static str) -> Self {
        Self { service: Service::with_registry().await, prefix }
    }

    /// Returns a client of the same service with another prefix.
    pub fn with_prefix(self, prefix: &'static str) -> Self {
        Self { prefix, ..self }
    }

    pub async fn send(&self, method: &str, path: &str, body: impl Into<Body>) -> Answer {
        let request = Request::builder().method(method).uri(format!("{}/{path}", self.prefix));
        let request = if method == "GET" { request } else { request.header("content-type", "application/json") };
        self.service.send(request.body(body.into()).unwrap()).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send("POST", path, body.to_string()).await
    }

    /// Posts a request that must be answered with 200; returns the body of the answer.
    pub async fn ok(&self, path: &str, body: Value) -> Value {
        let answer = self.post(path, body.clone()).await;
        assert_eq!(answer.status, 200, "{path} {body}: {}", answer.body);
        answer.json()
    }

    /// Gets a path that must be answered with 200; returns the body of the answer.
    pub async fn get(&self, path: &str) -> Value {
        let answer = self.send("GET", path, Body::empty()).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer.json()
    }

    /// Posts a request that must be answered with this error.
    pub async fn rejects(&self, path: &str, body: Value, status: u16, code: &str, message: &str) {
        let answer = self.post(path, body.clone()).await;
        assert_error(&format!("{path} {body}"), &answer, status, code, message);
    }

    /// Creates an experiment and returns its id.
    pub async fn experiment(&self, name: &str) -> String {
        self.ok("experiments/create", json!({"name": name})).await["experiment_id"].as_str().unwrap().to_owned()
    }

    /// Creates a run of the default experiment and returns its id.
    pub async fn new_run(&self) -> String {
        let made = self.ok("runs/create", json!({"experiment_id": "0", "start_time": 1})).await;
        made["run"]["info"]["run_id"].as_str().unwrap().to_owned()
    }

    /// Creates a registered model with `versions` versions.
    pub async fn new_model(&self, name: &str, versions: usize) {
        self.ok("registered-models/create", json!({"name": name})).await;
        for _ in 0..versions {
            self.ok("model-versions/create", json!({"name": name, "source": "s3://b/x"})).await;
        }
    }

    pub async fn run(&self, id: &str) -> Value {
        self.get(&format!("runs/get?run_id={id}")).await["run"].clone()
    }

    /// Returns all that the API shows of a run: the run, and the histories of these metrics.
    pub async fn snapshot(&self, id: &str, metrics: &[&str]) -> Value {
        let mut snapshot = vec![self.run(id).await];
        for key in metrics {
            snapshot.push(self.get(&format!("metrics/get-history?run_id={id}&metric_key={key}")).await);
        }
        snapshot.into()
    }

    /// Returns the number of records in the topics of MLflow's writes.
    pub async fn event_count(&self) -> usize {
        let mut count = 0;
        for topic in TOPICS {
            let topic = carbon_core::TopicName::parse(topic).unwrap();
            let ends = self.service.dependencies.log.ends(&topic).await.unwrap();
            count += ends.iter().map(|(_, end)| end as usize).sum::<usize>();
        }
        count
    }

    /// Sends the requests of a table in order and compares the answers. `$0`, `$1` and so on stand for `names`.
    pub async fn run_steps(&self, names: &[&str], steps: &[Step]) {
        let substitute = |text: &str| -> String {
            let name = |text: String, (at, name): (usize, &&str)| text.replace(&format!("${at}"), name);
            names.iter().enumerate().fold(text.to_owned(), name)
        };
        for Step(method, path, body, expected) in steps {
            let (path, body) = (substitute(path), substitute(body));
            let answer = self.send(method, &path, body.clone()).await;
            let shown = format!("{method} {path} {}", body.chars().take(300).collect::<String>());
            let parse = |json: &str| -> Value { serde_json::from_str(&substitute(json)).unwrap() };
            match expected {
                Expect::Empty => assert_eq!((answer.status, answer.json()), (200, json!({})), "{shown}"),
                Expect::Is(json) => assert_eq!((answer.status, answer.json()), (200, parse(json)), "{shown}"),
                Expect::Like(json) => {
                    assert_eq!((answer.status, without_times(answer.json())), (200, parse(json)), "{shown}");
                }
                Expect::Success => assert_eq!(answer.status, 200, "{shown}: {}", answer.body),
                Expect::Invalid(message) => assert_error(&shown, &answer, 400, INVALID, &substitute(message)),
                Expect::Missing(message) => assert_error(&shown, &answer, 404, MISSING, &substitute(message)),
                Expect::Exists(message) => assert_error(&shown, &answer, 400, EXISTS, &substitute(message)),
            }
        }
    }
}

/// Returns the JSON without timestamps, which differ from call to call.
pub fn without_times(mut json: Value) -> Value {
    match &mut json {
        Value::Object(fields) => {
            fields.retain(|name, _| !matches!(name.as_str(), "creation_timestamp" | "last_updated_timestamp"));
            fields.values_mut().for_each(|value| *value = without_times(value.take()));
        }
        Value::Array(values) => values.iter_mut().for_each(|value| *value = without_times(value.take())),
        _ => {}
    }
    json
}

/// Asserts that an answer is this error in MLflow's format. If `message` ends with `*`, only its beginning is compared.
pub fn assert_error(shown: &str, answer: &Answer, status: u16, code: &str, message: &str) {
    assert_eq!(answer.status, status, "{shown}: {}", answer.body);
    assert_eq!(answer.headers["content-type"], "application/json", "{shown}");
    let body = answer.json();
    assert_eq!(body["error_code"], code, "{shown}: {}", answer.body);
    let actual = body["message"].as_str().unwrap();
    match message.strip_suffix('*') {
        Some(start) => assert!(actual.starts_with(start), "{shown}: {actual}"),
        None => assert_eq!(actual, message, "{shown}"),
    }
}

/// A request and its expected answer: method, path, body, answer.
pub struct Step(&'static str, &'static str, &'static str, Expect);

pub fn get(path: &'static str, expected: Expect) -> Step {
    Step("GET", path, "", expected)
}

pub fn post(path: &'static str, body: &'static str, expected: Expect) -> Step {
    Step("POST", path, body, expected)
}

pub fn patch(path: &'static str, body: &'static str, expected: Expect) -> Step {
    Step("PATCH", path, body, expected)
}

pub fn delete(path: &'static str, body: &'static str, expected: Expect) -> Step {
    Step("DELETE", path, body, expected)
}

/// The expected answer. A message that ends with `*` is the beginning of the expected one.
pub enum Expect {
    /// 200 and `{}`.
    Empty,
    /// 200 and this JSON.
    Is(&'static str),
    /// 200 and this JSON, apart from timestamps.
    Like(&'static str),
    /// 200 and any body.
    Success,
    /// 400 `INVALID_PARAMETER_VALUE` with this message.
    Invalid(&'static str),
    /// 404 `RESOURCE_DOES_NOT_EXIST` with this message.
    Missing(&'static str),
    /// 400 `RESOURCE_ALREADY_EXISTS` with this message.
    Exists(&'static str),
}
