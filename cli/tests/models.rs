//! Promotions of registered models: by the client, by the command, and straight to the log.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::time::Duration;

use carbon_core::{Clock as _, SystemClock, TenantId};
use carbon_schemas::events::ModelPromoted;
use carbon_schemas::{Event as _, SchemaId, encode, frame};
use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::{Value, json};
use support::cluster::Cluster;
use support::{Place, Server};
use uuid::Uuid;

on_both_logs! {
    a_promotion_has_one_effect_whoever_makes_it,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_is_no_web_ui_is_refused_before_anything_starts() {
    let place = Place::embedded();
    let mut command = support::binary();
    command.arg("up").arg("--data-dir").arg(place.path()).arg("--mlflow-ui").arg(place.path());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains("holds no index.html"), "{said}");
}

async fn post(server: &Server, path: &str, body: &Value) -> (u16, Value) {
    let url = format!("{}/api/2.0/mlflow/{path}", server.tracking);
    let answer = server.http.post(url).json(body).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

/// What `carbon-ml models` says with these arguments.
fn says(server: &Server, arguments: &[&str]) -> (bool, String) {
    let mut command = support::binary();
    command.arg("models").args(arguments).env("ML_URL", &server.query).env("ML_TRACKING_URL", &server.tracking);
    let output = command.output().unwrap();
    let said = if output.status.success() { output.stdout } else { output.stderr };
    (output.status.success(), String::from_utf8(said).unwrap())
}

async fn a_promotion_has_one_effect_whoever_makes_it(place: Place) {
    let server = place.start().await;
    post(&server, "registered-models/create", &json!({"name": "basis spread"})).await;
    for _ in 0..3 {
        let version = json!({"name": "basis spread", "source": "s3://models/x"});
        assert_eq!(post(&server, "model-versions/create", &version).await.0, 200);
    }
    let active = async || server.get("/models/basis%20spread").await.1["active_version"].clone();
    assert_eq!(active().await, json!(null));
    // The client's way.
    let staged = json!({"name": "basis spread", "version": "1", "stage": "Production"});
    assert_eq!(post(&server, "model-versions/transition-stage", &staged).await.0, 200);
    assert_eq!(active().await, json!(1));
    // The command's.
    let to = ["--stage", "production", "--archive-existing", "--by", "desk"];
    let (ok, said) = says(&server, &[&["promote", "basis spread", "--version", "2"], &to[..]].concat());
    assert!(ok && said.contains("before it was version 1"), "{said}");
    assert_eq!(active().await, json!(2));
    // A pipeline's, straight to the log.
    let mut expected = 2;
    if let Some(cluster) = &place.cluster {
        let position = promote_on(cluster, "basis spread", 3).await;
        let (status, found) = server.get_after("/models/basis%20spread", Some(&position)).await;
        assert_eq!((status, &found["active_version"]), (200, &json!(3)), "{found}");
        expected = 3;
    }
    let (ok, said) = says(&server, &["history", "basis spread", "--json"]);
    assert!(ok, "{said}");
    let history: Value = serde_json::from_str(&said).unwrap();
    let versions: Vec<_> = history["promotions"].as_array().unwrap().iter().map(|own| own["version"].clone()).collect();
    assert_eq!(versions, (1..=expected).rev().map(Value::from).collect::<Vec<_>>());
    assert_eq!(history["promotions"][expected as usize - 2]["promoted_by"], "desk");
    for refused in [
        &["promote", "basis spread", "--version", "9", "--stage", "Production"][..],
        &["promote", "none", "--version", "1", "--alias", "a"],
        &["promote", "basis spread", "--version", "1", "--alias", "v1"],
        &["promote", "basis spread", "--version", "1", "--stage", "best"],
        &["promote", "basis spread", "--version", "1"],
        &["history", "none"],
    ] {
        assert!(!says(&server, refused).0, "{refused:?}");
    }
    assert_eq!(active().await, json!(expected));
}

/// What a pipeline does that knows nothing of the platform but the topic.
async fn promote_on(cluster: &Cluster, name: &str, version: i64) -> String {
    let tenant = TenantId::parse("default").unwrap();
    let event = ModelPromoted {
        version: Some(version),
        stage: Some("Production".into()),
        archive_existing: true,
        ..ModelPromoted::of(Uuid::now_v7(), SystemClock.now(), &tenant, name)
    };
    let subject = format!("{}/subjects/{}-value/versions/latest", cluster.registry(), ModelPromoted::NAME);
    let latest: Value = reqwest::get(subject).await.unwrap().json().await.unwrap();
    let id = u32::try_from(latest["id"].as_u64().unwrap()).unwrap();
    let value = frame(SchemaId::Registry(id), &encode(&event).unwrap());
    let mut config = ClientConfig::new();
    let producer: FutureProducer = config.set("bootstrap.servers", cluster.brokers()).create().unwrap();
    let key = event.key().unwrap().to_string();
    let record = FutureRecord::to(ModelPromoted::NAME).key(&key).payload(&value).partition(0);
    let delivery = producer.send(record, Duration::from_secs(20)).await.unwrap();
    format!("{}:{}:{}", ModelPromoted::NAME, delivery.partition, delivery.offset)
}
