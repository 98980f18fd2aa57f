//! An HTTP server that receives webhooks: it records the requests and answers as the test sets it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::Value;
use tokio::sync::mpsc;

const PATIENCE: Duration = Duration::from_secs(30);

/// A received request.
#[derive(Clone, Debug)]
pub struct Call {
    pub headers: HeaderMap,
    pub body: String,
}

impl Call {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// The name of the model or prompt in the payload.
    pub fn name(&self) -> String {
        self.json()["data"]["name"].as_str().unwrap_or_default().to_owned()
    }
}

/// How the receiver answers: with a status, or never.
#[derive(Clone, Copy, Debug)]
pub enum Answer {
    Status(u16),
    Never,
}

#[derive(Clone)]
struct Shared {
    calls: mpsc::UnboundedSender<Call>,
    answers: Arc<Mutex<VecDeque<Answer>>>,
    default_answer: Arc<Mutex<Answer>>,
}

pub struct Receiver {
    pub url: String,
    calls: mpsc::UnboundedReceiver<Call>,
    shared: Shared,
}

async fn receive(State(shared): State<Shared>, headers: HeaderMap, body: String) -> Response {
    let _ = shared.calls.send(Call { headers, body });
    let next = shared.answers.lock().unwrap().pop_front();
    match next.unwrap_or_else(|| *shared.default_answer.lock().unwrap()) {
        Answer::Status(status) => {
            let location = [("location", "/elsewhere")];
            (StatusCode::from_u16(status).unwrap(), location, "said").into_response()
        }
        Answer::Never => std::future::pending().await,
    }
}

impl Receiver {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let (sender, calls) = mpsc::unbounded_channel();
        let default_answer = Arc::new(Mutex::new(Answer::Status(200)));
        let shared = Shared { calls: sender, answers: Arc::default(), default_answer };
        let router = Router::new().route("/{*path}", post(receive)).with_state(shared.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, calls, shared }
    }

    /// Queues answers for the next requests.
    pub fn answers(&self, answers: &[Answer]) {
        self.shared.answers.lock().unwrap().extend(answers);
    }

    /// Sets the answer to all requests that have no queued answer.
    pub fn answers_always(&self, answer: Answer) {
        *self.shared.default_answer.lock().unwrap() = answer;
    }

    /// Waits for the next request.
    pub async fn next(&mut self) -> Call {
        let next = tokio::time::timeout(PATIENCE, self.calls.recv()).await;
        next.expect("a request within 30 s").unwrap()
    }

    /// Waits for the next `count` requests.
    pub async fn take(&mut self, count: usize) -> Vec<Call> {
        let mut calls = Vec::new();
        for _ in 0..count {
            calls.push(self.next().await);
        }
        calls
    }

    /// The requests that were received already, without waiting.
    pub fn rest(&mut self) -> Vec<Call> {
        let mut rest = Vec::new();
        while let Ok(call) = self.calls.try_recv() {
            rest.push(call);
        }
        rest
    }
}
