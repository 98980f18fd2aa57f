//! `logged-models/*`, compared with recorded answers of MLflow's server.

use axum::body::Body;
use serde_json::{Value, json};

use crate::client::Expect::{Empty, Invalid, Missing, Success};
use crate::client::{Client, MISSING, assert_error, delete, get, patch, post};

async fn created(client: &Client, body: Value) -> Value {
    client.ok("logged-models", body).await["model"].clone()
}

#[tokio::test]
async fn the_calls_of_a_logged_model_are_answered_as_recorded() {
    let client = Client::new().await;
    let run = client.new_run().await;
    let body = json!({"experiment_id": "0", "name": "lm", "source_run_id": run,
        "params": [{"key": "a", "value": "1"}], "tags": [{"key": "t", "value": "x"}]});
    let model = created(&client, body).await;
    let id = model["info"]["model_id"].as_str().unwrap();
    assert!(id.len() == 34 && id.starts_with("m-"), "{id}");
    let at = &model["info"]["creation_timestamp_ms"];
    let expected = json!({
        "info": {"model_id": id, "experiment_id": "0", "name": "lm", "creation_timestamp_ms": at,
            "last_updated_timestamp_ms": at, "artifact_uri": format!("mlflow-artifacts:/0/models/{id}/artifacts"),
            "status": "LOGGED_MODEL_PENDING", "model_type": "", "source_run_id": run,
            "tags": [{"key": "t", "value": "x"}]},
        "data": {"params": [{"key": "a", "value": "1"}]},
    });
    assert_eq!(model, expected);
    assert_eq!(client.get(&format!("logged-models/{id}")).await["model"], model);
    // A model without a name gets a random one.
    let bare = created(&client, json!({"experiment_id": "0"})).await;
    assert_eq!(bare["info"]["name"].as_str().unwrap().split('-').count(), 3);
    assert_eq!(bare["data"], json!({}));

    let not_found = "Logged model with ID '$0' not found.";
    client
        .run_steps(
            &[id, &run],
            &[
                patch("logged-models/$0", r#"{"model_id": "$0", "status": "LOGGED_MODEL_READY"}"#, Success),
                post(
                    "logged-models/$0/params",
                    r#"{"params": [{"key": "z", "value": "2"}, {"key": "a", "value": "1"}]}"#,
                    Empty,
                ),
                post(
                    "logged-models/$0/params",
                    r#"{"params": [{"key": "y", "value": "1"}, {"key": "z", "value": "3"}]}"#,
                    Invalid("Changing param values is not allowed.*"),
                ),
                patch("logged-models/$0/tags", r#"{"tags": [{"key": "a/b c", "value": "1"}]}"#, Empty),
                delete("logged-models/$0/tags/t", "", Empty),
                delete(
                    "logged-models/$0/tags/none",
                    "",
                    Missing("No tag with key 'none' found for model with ID '$0'."),
                ),
                post(
                    "runs/log-metric",
                    r#"{"run_id": "$1", "key": "acc", "value": 0.5, "timestamp": 7, "model_id": "$0"}"#,
                    Empty,
                ),
            ],
        )
        .await;
    let now = client.get(&format!("logged-models/{id}")).await["model"].clone();
    assert_eq!(now["info"]["status"], "LOGGED_MODEL_READY");
    assert_eq!(now["info"]["tags"], json!([{"key": "a/b c", "value": "1"}]));
    assert_eq!(now["data"]["params"], json!([{"key": "a", "value": "1"}, {"key": "z", "value": "2"}]));
    let metric = json!([{"key": "acc", "value": 0.5, "timestamp": 7, "step": 0, "model_id": id, "run_id": run}]);
    assert_eq!(now["data"]["metrics"], metric);
    let root = format!("mlflow-artifacts:/0/models/{id}/artifacts");
    let files = client.get(&format!("logged-models/{id}/artifacts/directories")).await;
    assert_eq!(files, json!({"root_uri": root}));

    client
        .run_steps(
            &[id],
            &[
                delete("logged-models/$0/tags/a%2Fb%20c", "", Empty),
                delete("logged-models/$0", r#"{"model_id": "$0"}"#, Empty),
                get("logged-models/$0", Missing(not_found)),
                get("logged-models/$0?allow_deleted=true", Success),
                get("logged-models/$0?allow_deleted=maybe", Invalid("Invalid value*")),
                delete("logged-models/$0", "{}", Missing(not_found)),
                patch("logged-models/$0", r#"{"status": "LOGGED_MODEL_READY"}"#, Missing(not_found)),
                patch("logged-models/$0/tags", r#"{"tags": [{"key": "k", "value": ""}]}"#, Missing(not_found)),
                post("logged-models/$0/params", r#"{"params": []}"#, Missing(not_found)),
                get("logged-models/$0/artifacts/directories", Missing(not_found)),
            ],
        )
        .await;
}

#[tokio::test]
async fn invalid_calls_append_no_event() {
    let client = Client::new().await;
    let model = created(&client, json!({"experiment_id": "0", "name": "m"})).await;
    let id = model["info"]["model_id"].as_str().unwrap();
    let before = client.event_count().await;
    client
        .run_steps(
            &[id],
            &[
                post(
                    "logged-models",
                    r#"{"experiment_id": "0", "name": "bad/name"}"#,
                    Invalid("Invalid model name ('bad/name') provided. Model name must be a non-empty string*"),
                ),
                post(
                    "logged-models",
                    r#"{"name": "x"}"#,
                    Invalid("Missing value for required parameter 'experiment_id'*"),
                ),
                post("logged-models", r#"{"experiment_id": "77"}"#, Missing("No Experiment with id=77 exists")),
                post(
                    "logged-models",
                    r#"{"experiment_id": "0", "params": [{"key": "../x", "value": ""}]}"#,
                    Invalid("Invalid value*"),
                ),
                post("logged-models", r#"{"experiment_id": "0", "tags": [{"value": ""}]}"#, Invalid("Missing value*")),
                patch(
                    "logged-models/$0",
                    r#"{"status": "BOGUS"}"#,
                    Invalid("Invalid value \"BOGUS\" for parameter 'status'*"),
                ),
                patch("logged-models/$0", "{}", Invalid("Missing value for required parameter 'status'*")),
                get("logged-models/m-zzz", Missing("Logged model with ID 'm-zzz' not found.")),
                post(
                    "logged-models/search",
                    r#"{"experiment_ids": ["0"], "filter": "bad.x='1'"}"#,
                    Invalid("Invalid entity type: 'bad'. Expected one of ['attributes', 'metrics', 'params', 'tags']."),
                ),
                post(
                    "logged-models/search",
                    r#"{"experiment_ids": ["0"], "order_by": [{"field_name": "name", "ascending": "no"}]}"#,
                    Invalid("Invalid value*"),
                ),
                post(
                    "logged-models/search",
                    r#"{"experiment_ids": ["0"], "order_by": [{"field_name": "metrics.a", "dataset_digest": "d"}]}"#,
                    Invalid("`dataset_digest` can only be specified*"),
                ),
                post(
                    "logged-models/search",
                    r#"{"experiment_ids": ["0"], "datasets": [{"dataset_digest": "d"}]}"#,
                    Invalid("`dataset_name` in the `datasets` clause must be specified."),
                ),
                post(
                    "logged-models/search",
                    r#"{"experiment_ids": ["0"], "max_results": 0}"#,
                    Invalid("Invalid value*"),
                ),
                post("logged-models/search", r#"{"experiment_ids": ["0"], "filter": "name='zz'"}"#, Empty),
                post("logged-models/search", "{}", Empty),
            ],
        )
        .await;
    // The route of a tag takes no body.
    let long = format!("logged-models/{id}/tags/{}", "k".repeat(5000));
    assert_error("a long key", &client.send("DELETE", &long, Body::empty()).await, 404, MISSING, "No tag with key*");
    assert_eq!(client.event_count().await, before);
}

#[tokio::test]
async fn pages_of_a_search_hold_each_model_once() {
    let client = Client::new().await;
    for n in 0..7 {
        created(&client, json!({"experiment_id": "0", "name": format!("m{n}")})).await;
    }
    let (mut names, mut token) = (Vec::new(), json!(""));
    for _ in 0..4 {
        let body = json!({"experiment_ids": ["0"], "max_results": 2, "page_token": token,
            "order_by": [{"field_name": "name", "ascending": false}]});
        let page = client.ok("logged-models/search", body).await;
        names.extend(page["models"].as_array().unwrap().iter().map(|model| model["info"]["name"].clone()));
        token = page["next_page_token"].clone();
    }
    assert_eq!(token, Value::Null);
    assert_eq!(names, ["m6", "m5", "m4", "m3", "m2", "m1", "m0"]);
}
