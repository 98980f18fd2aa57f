//! Webhooks against the real binary: whatever becomes of the process, nothing is lost, and nothing is told again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use serde_json::{Value, json};
use support::{PATIENCE, Place, Server};

on_both_logs! {
    law_14_kill_9_loses_no_delivery_and_what_is_rebuilt_repeats_none,
}

/// Name and delivery id of each call that was taken, in order.
type Calls = Arc<Mutex<Vec<(String, String)>>>;

async fn receiver() -> (String, Calls) {
    let calls = Calls::default();
    let kept = calls.clone();
    let count = Arc::new(Mutex::new(0));
    let take = move |headers: HeaderMap, body: String| {
        let (kept, count) = (kept.clone(), count.clone());
        async move {
            let mut count = count.lock().unwrap();
            *count += 1;
            // Each costs the webhook a second.
            if matches!(*count, 2 | 5 | 11) {
                return StatusCode::SERVICE_UNAVAILABLE;
            }
            let body: Value = serde_json::from_str(&body).unwrap();
            let name = body["data"]["name"].as_str().unwrap().to_owned();
            assert!(headers["x-mlflow-signature"].to_str().unwrap().starts_with("v1,"));
            kept.lock().unwrap().push((name, headers["x-mlflow-delivery-id"].to_str().unwrap().to_owned()));
            StatusCode::OK
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let router = axum::Router::new().route("/hook", post(take));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, calls)
}

async fn start(place: &Place) -> Server {
    let settings = [place.settings(), vec![("ML_SECRET_KEY", "the key of this test")]].concat();
    Server::start_with(place.path(), &settings).await
}

/// Whether it is acknowledged.
async fn register(http: &reqwest::Client, tracking: &str, name: &str) -> bool {
    let url = format!("{tracking}/api/2.0/mlflow/registered-models/create");
    let answer = http.post(url).json(&json!({"name": name})).send().await;
    answer.is_ok_and(|answer| answer.status() == 200)
}

async fn until_told(calls: &Calls, name: &str) {
    let deadline = Instant::now() + PATIENCE;
    while !calls.lock().unwrap().iter().any(|(told, _)| told == name) {
        assert!(Instant::now() < deadline, "{name} is not told: {:?}", calls.lock().unwrap());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn law_14_kill_9_loses_no_delivery_and_what_is_rebuilt_repeats_none(place: Place) {
    let server = start(&place).await;
    assert!(register(&server.http, &server.tracking, "before").await);
    let (url, calls) = receiver().await;
    let hook = json!({"name": "h", "url": url, "secret": "s",
        "events": [{"entity": "REGISTERED_MODEL", "action": "CREATED"}]});
    let hooks = format!("{}/api/2.0/mlflow/webhooks", server.tracking);
    assert_eq!(server.http.post(hooks).json(&hook).send().await.unwrap().status(), 200);
    let (http, tracking) = (server.http.clone(), server.tracking.clone());
    let writer = tokio::spawn(async move {
        let mut acknowledged = Vec::new();
        for n in 0.. {
            let name = format!("m{n}");
            match register(&http, &tracking, &name).await {
                true => acknowledged.push(name),
                false => break,
            }
        }
        acknowledged
    });
    until_told(&calls, "m3").await;
    server.kill();
    let acknowledged = writer.await.unwrap();

    let server = start(&place).await;
    assert!(register(&server.http, &server.tracking, "after").await);
    until_told(&calls, "after").await;
    let (mut first, mut ids) = (Vec::new(), BTreeMap::new());
    for (name, id) in calls.lock().unwrap().clone() {
        let known = ids.entry(name.clone()).or_insert_with(|| {
            first.push(name);
            id.clone()
        });
        assert_eq!(*known, id, "a repeat has the id of the first");
    }
    assert!(acknowledged.iter().all(|name| ids.contains_key(name)), "{acknowledged:?}: {first:?}");
    // The one that was not answered may be there.
    let mut expected: Vec<String> = (0..).map(|n| format!("m{n}")).take(first.len() - 1).collect();
    expected.push("after".into());
    assert_eq!(first, expected);

    assert!(server.interrupt().await.success());
    std::fs::remove_dir_all(place.path().join("read-models")).unwrap();
    let told = calls.lock().unwrap().len();
    let server = start(&place).await;
    assert!(register(&server.http, &server.tracking, "last").await);
    until_told(&calls, "last").await;
    assert_eq!(calls.lock().unwrap().len(), told + 1);
    assert!(server.interrupt().await.success());
}
