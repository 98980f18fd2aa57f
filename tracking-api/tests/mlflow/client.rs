//! A client of the service, and tables of what it asks.

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};

use crate::support::{Answer, Service};

pub const A: &str = "/api/2.0/mlflow";
pub const INVALID: &str = "INVALID_PARAMETER_VALUE";
pub const MISSING: &str = "RESOURCE_DOES_NOT_EXIST";
pub const EXISTS: &str = "RESOURCE_ALREADY_EXISTS";

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

    pub async fn at(prefix: &'static str) -> Self {
        Self { service: Service::with_registry().await, prefix }
    }

    /// The same service under another prefix.
    pub fn of(self, prefix: &'static str) -> Self {
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

    /// What is answered with 200.
    pub async fn ok(&self, path: &str, body: Value) -> Value {
        let answer = self.post(path, body.clone()).await;
        assert_eq!(answer.status, 200, "{path} {body}: {}", answer.body);
        answer.json()
    }

    pub async fn get(&self, path: &str) -> Value {
        let answer = self.send("GET", path, Body::empty()).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer.json()
    }

    pub async fn refuses(&self, path: &str, body: Value, status: u16, code: &str, message: &str) {
        let answer = self.post(path, body.clone()).await;
        refused(&format!("{path} {body}"), &answer, status, code, message);
    }

    pub async fn experiment(&self, name: &str) -> String {
        self.ok("experiments/create", json!({"name": name})).await["experiment_id"].as_str().unwrap().to_owned()
    }

    /// A run of the default experiment.
    pub async fn new_run(&self) -> String {
        let made = self.ok("runs/create", json!({"experiment_id": "0", "start_time": 1})).await;
        made["run"]["info"]["run_id"].as_str().unwrap().to_owned()
    }

    pub async fn run(&self, id: &str) -> Value {
        self.get(&format!("runs/get?run_id={id}")).await["run"].clone()
    }

    /// All that can be seen of a run: itself, and the histories of these metrics.
    pub async fn seen(&self, id: &str, metrics: &[&str]) -> Value {
        let mut seen = vec![self.run(id).await];
        for key in metrics {
            seen.push(self.get(&format!("metrics/get-history?run_id={id}&metric_key={key}")).await);
        }
        seen.into()
    }

    /// How many records the tracking topics hold.
    pub async fn events(&self) -> usize {
        let mut count = 0;
        for topic in TOPICS {
            let topic = carbon_core::TopicName::parse(topic).unwrap();
            let ends = self.service.parts.log.ends(&topic).await.unwrap();
            count += ends.iter().map(|(_, end)| end as usize).sum::<usize>();
        }
        count
    }

    /// Goes through a table, line by line; `$0` and the like are what `names` say.
    pub async fn follows(&self, names: &[&str], steps: &[Step]) {
        let named = |text: &str| -> String {
            let name = |text: String, (at, name): (usize, &&str)| text.replace(&format!("${at}"), name);
            names.iter().enumerate().fold(text.to_owned(), name)
        };
        for Step(method, path, body, expected) in steps {
            let (path, body) = (named(path), named(body));
            let answer = self.send(method, &path, body.clone()).await;
            let shown = format!("{method} {path} {}", body.chars().take(300).collect::<String>());
            match expected {
                Expect::Empty => assert_eq!((answer.status, answer.json()), (200, json!({})), "{shown}"),
                Expect::Is(json) => {
                    let json: Value = serde_json::from_str(&named(json)).unwrap();
                    assert_eq!((answer.status, answer.json()), (200, json), "{shown}");
                }
                Expect::Like(json) => {
                    let json: Value = serde_json::from_str(&named(json)).unwrap();
                    assert_eq!((answer.status, timeless(answer.json())), (200, json), "{shown}");
                }
                Expect::Ok => assert_eq!(answer.status, 200, "{shown}: {}", answer.body),
                Expect::Refused(status, code, message) => refused(&shown, &answer, *status, code, &named(message)),
            }
        }
    }
}

/// Without what differs from call to call.
pub fn timeless(mut json: Value) -> Value {
    match &mut json {
        Value::Object(fields) => {
            fields.retain(|name, _| !matches!(name.as_str(), "creation_timestamp" | "last_updated_timestamp"));
            fields.values_mut().for_each(|value| *value = timeless(value.take()));
        }
        Value::Array(values) => values.iter_mut().for_each(|value| *value = timeless(value.take())),
        _ => {}
    }
    json
}

/// An error in MLflow's own form; of a message that ends with `*` its beginning counts.
pub fn refused(shown: &str, answer: &Answer, status: u16, code: &str, message: &str) {
    assert_eq!(answer.status, status, "{shown}: {}", answer.body);
    assert_eq!(answer.headers["content-type"], "application/json", "{shown}");
    let body = answer.json();
    assert_eq!(body["error_code"], code, "{shown}: {}", answer.body);
    let said = body["message"].as_str().unwrap();
    match message.strip_suffix('*') {
        Some(start) => assert!(said.starts_with(start), "{shown}: {said}"),
        None => assert_eq!(said, message, "{shown}"),
    }
}

/// A method, a path, a body, and the answer.
pub struct Step(pub &'static str, pub &'static str, pub &'static str, pub Expect);

pub enum Expect {
    /// 200 and `{}`.
    Empty,
    /// 200 and this JSON.
    Is(&'static str),
    /// 200 and this JSON, which has no times.
    Like(&'static str),
    /// 200.
    Ok,
    Refused(u16, &'static str, &'static str),
}
