//! Logged models, as MLflow's server was recorded to answer.

use axum::body::Body;
use serde_json::{Value, json};

use crate::client::Expect::{Empty, Ok, Refused};
use crate::client::{Client, INVALID, MISSING, Step, refused};

async fn created(client: &Client, body: Value) -> Value {
    client.ok("logged-models", body).await["model"].clone()
}

#[tokio::test]
async fn a_logged_model_lives_as_recorded() {
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
    // Without a name one is drawn.
    let bare = created(&client, json!({"experiment_id": "0"})).await;
    assert_eq!(bare["info"]["name"].as_str().unwrap().split('-').count(), 3);
    assert_eq!(bare["data"], json!({}));

    let gone = "Logged model with ID '$0' not found.";
    client
        .follows(
            &[id, &run],
            &[
                Step("PATCH", "logged-models/$0", r#"{"model_id": "$0", "status": "LOGGED_MODEL_READY"}"#, Ok),
                Step(
                    "POST",
                    "logged-models/$0/params",
                    r#"{"params": [{"key": "z", "value": "2"}, {"key": "a", "value": "1"}]}"#,
                    Empty,
                ),
                Step(
                    "POST",
                    "logged-models/$0/params",
                    r#"{"params": [{"key": "y", "value": "1"}, {"key": "z", "value": "3"}]}"#,
                    Refused(400, INVALID, "Changing param values is not allowed.*"),
                ),
                Step("PATCH", "logged-models/$0/tags", r#"{"tags": [{"key": "a/b c", "value": "1"}]}"#, Empty),
                Step("DELETE", "logged-models/$0/tags/t", "", Empty),
                Step(
                    "DELETE",
                    "logged-models/$0/tags/none",
                    "",
                    Refused(404, MISSING, "No tag with key 'none' found for model with ID '$0'."),
                ),
                Step(
                    "POST",
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
        .follows(
            &[id],
            &[
                Step("DELETE", "logged-models/$0/tags/a%2Fb%20c", "", Empty),
                Step("DELETE", "logged-models/$0", r#"{"model_id": "$0"}"#, Empty),
                Step("GET", "logged-models/$0", "", Refused(404, MISSING, gone)),
                Step("GET", "logged-models/$0?allow_deleted=true", "", Ok),
                Step("GET", "logged-models/$0?allow_deleted=maybe", "", Refused(400, INVALID, "Invalid value*")),
                Step("DELETE", "logged-models/$0", "{}", Refused(404, MISSING, gone)),
                Step("PATCH", "logged-models/$0", r#"{"status": "LOGGED_MODEL_READY"}"#, Refused(404, MISSING, gone)),
                Step(
                    "PATCH",
                    "logged-models/$0/tags",
                    r#"{"tags": [{"key": "k", "value": ""}]}"#,
                    Refused(404, MISSING, gone),
                ),
                Step("POST", "logged-models/$0/params", r#"{"params": []}"#, Refused(404, MISSING, gone)),
                Step("GET", "logged-models/$0/artifacts/directories", "", Refused(404, MISSING, gone)),
            ],
        )
        .await;
}

#[tokio::test]
async fn what_is_wrong_is_refused_before_an_event() {
    let client = Client::new().await;
    let model = created(&client, json!({"experiment_id": "0", "name": "m"})).await;
    let id = model["info"]["model_id"].as_str().unwrap();
    let before = client.events().await;
    client
        .follows(
            &[id],
            &[
                Step(
                    "POST",
                    "logged-models",
                    r#"{"experiment_id": "0", "name": "bad/name"}"#,
                    Refused(
                        400,
                        INVALID,
                        "Invalid model name ('bad/name') provided. Model name must be a non-empty string*",
                    ),
                ),
                Step(
                    "POST",
                    "logged-models",
                    r#"{"name": "x"}"#,
                    Refused(400, INVALID, "Missing value for required parameter 'experiment_id'*"),
                ),
                Step(
                    "POST",
                    "logged-models",
                    r#"{"experiment_id": "77"}"#,
                    Refused(404, MISSING, "No Experiment with id=77 exists"),
                ),
                Step(
                    "POST",
                    "logged-models",
                    r#"{"experiment_id": "0", "params": [{"key": "../x", "value": ""}]}"#,
                    Refused(400, INVALID, "Invalid value*"),
                ),
                Step(
                    "POST",
                    "logged-models",
                    r#"{"experiment_id": "0", "tags": [{"value": ""}]}"#,
                    Refused(400, INVALID, "Missing value*"),
                ),
                Step(
                    "PATCH",
                    "logged-models/$0",
                    r#"{"status": "BOGUS"}"#,
                    Refused(400, INVALID, "Invalid value \"BOGUS\" for parameter 'status'*"),
                ),
                Step(
                    "PATCH",
                    "logged-models/$0",
                    "{}",
                    Refused(400, INVALID, "Missing value for required parameter 'status'*"),
                ),
                Step(
                    "GET",
                    "logged-models/m-zzz",
                    "",
                    Refused(404, MISSING, "Logged model with ID 'm-zzz' not found."),
                ),
                Step(
                    "POST",
                    "logged-models/search",
                    r#"{"experiment_ids": ["0"], "filter": "bad.x='1'"}"#,
                    Refused(
                        400,
                        INVALID,
                        "Invalid entity type: 'bad'. Expected one of ['attributes', 'metrics', 'params', 'tags'].",
                    ),
                ),
                Step(
                    "POST",
                    "logged-models/search",
                    r#"{"experiment_ids": ["0"], "order_by": [{"field_name": "name", "ascending": "no"}]}"#,
                    Refused(400, INVALID, "Invalid value*"),
                ),
                Step(
                    "POST",
                    "logged-models/search",
                    r#"{"experiment_ids": ["0"], "order_by": [{"field_name": "metrics.a", "dataset_digest": "d"}]}"#,
                    Refused(400, INVALID, "`dataset_digest` can only be specified*"),
                ),
                Step(
                    "POST",
                    "logged-models/search",
                    r#"{"experiment_ids": ["0"], "datasets": [{"dataset_digest": "d"}]}"#,
                    Refused(400, INVALID, "`dataset_name` in the `datasets` clause must be specified."),
                ),
                Step(
                    "POST",
                    "logged-models/search",
                    r#"{"experiment_ids": ["0"], "max_results": 0}"#,
                    Refused(400, INVALID, "Invalid value*"),
                ),
                Step("POST", "logged-models/search", r#"{"experiment_ids": ["0"], "filter": "name='zz'"}"#, Empty),
                Step("POST", "logged-models/search", "{}", Empty),
            ],
        )
        .await;
    // The tag's own route takes no body, and no key that is not there.
    let long = format!("logged-models/{id}/tags/{}", "k".repeat(5000));
    refused("a long key", &client.send("DELETE", &long, Body::empty()).await, 404, MISSING, "No tag with key*");
    assert_eq!(client.events().await, before);
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
