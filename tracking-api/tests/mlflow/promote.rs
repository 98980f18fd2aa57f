//! `POST /models/{name}/promote`, and reads of earlier promotions.

use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use carbon_core::Clock as _;
use serde_json::{Value, json};

use crate::client::Client;
use crate::support::Answer;

async fn promote(client: &Client, path: &str, body: Value) -> Answer {
    let request = Request::post(path).header("content-type", "application/json");
    client.service.send(request.body(Body::from(body.to_string())).unwrap()).await
}

async fn with_versions() -> Client {
    let client = Client::new().await;
    client.new_model("m", 2).await;
    client
}

#[tokio::test]
async fn a_promotion_is_visible_in_mlflows_api() {
    let client = with_versions().await;
    let body = json!({"version": 1, "stage": "production", "promoted_by": "desk"});
    let answer = promote(&client, "/models/m/promote", body).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let json = answer.json();
    assert_eq!((&json["version"], &json["stage"], &json["previous"]), (&json!(1), &json!("Production"), &json!(null)));
    assert_eq!(answer.headers["x-log-position"], json["position"].as_str().unwrap());
    let answer = promote(
        &client,
        "/api/v1/models/m/promote",
        json!({"version": "2", "stage": "Production", "archive_existing": true}),
    )
    .await;
    assert_eq!((answer.status, &answer.json()["previous"]), (200, &json!(1)));
    let latest = client.get("registered-models/get-latest-versions?name=m&stages=Production").await;
    assert_eq!(latest["model_versions"][0]["version"], "2");
    let answer = promote(&client, "/models/m/promote", json!({"version": 2, "alias": "champion"})).await;
    assert_eq!(answer.status, 200);
    assert_eq!(client.get("registered-models/alias?name=m&alias=champion").await["model_version"]["version"], "2");
}

#[tokio::test]
async fn reads_as_of_a_time_return_the_promotions_of_that_time() {
    let client = with_versions().await;
    assert_eq!(promote(&client, "/models/m/promote", json!({"version": 1, "alias": "champion"})).await.status, 200);
    client.service.clock.advance(Duration::from_secs(60));
    let then = client.service.clock.now().to_rfc3339();
    client.service.clock.advance(Duration::from_secs(60));
    assert_eq!(promote(&client, "/models/m/promote", json!({"version": 2, "alias": "champion"})).await.status, 200);
    let alias = async |query: &str| {
        let found = client.get(&format!("registered-models/alias?name=m&alias=champion{query}")).await;
        found["model_version"]["version"].clone()
    };
    assert_eq!((alias("").await, alias(&format!("&as_of={then}")).await), (json!("2"), json!("1")));
    let model = client.get(&format!("registered-models/get?name=m&as_of={then}")).await;
    assert_eq!(model["registered_model"]["aliases"], json!([{"alias": "champion", "version": "1"}]));
    let early = client.send("GET", "registered-models/get?name=m&as_of=2001-01-01T00:00:00Z", Body::empty()).await;
    assert_eq!(early.status, 404);
}

#[tokio::test]
async fn invalid_promotions_are_rejected() {
    let client = with_versions().await;
    let before = client.event_count().await;
    for (path, body, status, code) in [
        ("/models/none/promote", json!({"version": 1, "stage": "Production"}), 404, "not_found"),
        ("/models/m/promote", json!({"version": 9, "stage": "Production"}), 404, "not_found"),
        ("/models/m/promote", json!({"run_id": "r", "stage": "Production"}), 404, "not_found"),
        ("/models/m/promote", json!({"version": 1}), 400, "invalid_input"),
        ("/models/m/promote", json!({"stage": "Production"}), 400, "invalid_input"),
        ("/models/m/promote", json!({"version": 1, "run_id": "r", "stage": "Production"}), 400, "invalid_input"),
        ("/models/m/promote", json!({"version": 1, "stage": "Production", "alias": "a"}), 400, "invalid_input"),
        ("/models/m/promote", json!({"version": 1, "stage": "Best"}), 400, "invalid_input"),
        ("/models/m/promote", json!({"version": 1, "alias": "v1"}), 400, "invalid_input"),
        ("/models/m/promote", json!({"version": "one", "alias": "a"}), 400, "invalid_input"),
        ("/models/m/promote", json!({"version": 1, "alias": "a", "archive_existing": true}), 400, "invalid_input"),
        ("/models/m/promote", json!({"version": 1, "alias": "a", "unknown": true}), 400, "invalid_input"),
        (
            "/models/m/promote",
            json!({"version": 1, "alias": "a", "promoted_by": "x".repeat(300)}),
            400,
            "invalid_input",
        ),
        ("/models/m/promote", json!([1]), 400, "invalid_input"),
        ("/models/m/promote", json!({"version": 1, "alias": "a", "x": "y".repeat(70_000)}), 413, "too_large"),
    ] {
        let answer = promote(&client, path, body.clone()).await;
        assert_eq!((answer.status, &answer.json()["code"]), (status, &json!(code)), "{body}: {}", answer.body);
    }
    assert_eq!(client.event_count().await, before);
}
