//! Runs with tags, inputs and outputs, compared with recorded answers of MLflow's server.

use serde_json::{Value, json};

use crate::client::Expect::{Empty, Invalid, Missing, Success};
use crate::client::{Client, INVALID, MISSING, get, post};

const NO_SUCH_RUN: &str = "Run with id=ffffffffffffffffffffffffffffffff not found";
const DELETED_RUN: &str = "The run $0 must be in the 'active' state. Current state is deleted.";

/// Adds the empty outputs, which are missing only in the answer of `runs/create`.
pub fn with_outputs(mut made: Value) -> Value {
    made["outputs"] = json!({});
    made
}

#[tokio::test]
async fn runs_are_created_as_recorded() {
    let client = Client::new().await;
    client.experiment("e").await;
    let body = json!({"experiment_id": "1", "start_time": "1700000000000", "user_id": "u", "run_name": "n"});
    let run = client.ok("runs/create", body).await["run"].clone();
    let id = run["info"]["run_id"].as_str().unwrap().to_owned();
    assert!(id.len() == 32 && id.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f')), "{id}");
    let expected = json!({
        "run_uuid": id, "experiment_id": "1", "run_name": "n", "user_id": "u", "status": "RUNNING",
        "start_time": 1_700_000_000_000_i64, "artifact_uri": format!("mlflow-artifacts:/1/{id}/artifacts"),
        "lifecycle_stage": "active", "run_id": id,
    });
    assert_eq!(run["info"], expected);
    assert_eq!(run["data"], json!({"tags": [{"key": "mlflow.runName", "value": "n"}]}));
    assert_eq!((&run["inputs"], run.get("outputs")), (&json!({}), None));
    let run = with_outputs(run);
    assert_eq!(client.run(&id).await, run);
    assert_eq!(client.get(&format!("runs/get?run_uuid={id}")).await["run"], run);

    // Only the experiment is given.
    let bare = client.ok("runs/create", json!({"experiment_id": "1"})).await["run"].clone();
    assert_eq!((&bare["info"]["user_id"], &bare["info"]["start_time"]), (&json!(""), &json!(0)));
    let name = bare["info"]["run_name"].as_str().unwrap();
    assert_eq!(name.split('-').count(), 3, "{name}");
    assert_eq!(bare["data"]["tags"][0]["value"], name);
    // Only this call accepts camelCase names.
    let camel = json!({"experimentId": "1", "runName": "camel", "startTime": 5});
    let camel = client.ok("runs/create", camel).await["run"]["info"].clone();
    assert_eq!((&camel["run_name"], &camel["start_time"]), (&json!("camel"), &json!(5)));
    let tagged = json!({"experiment_id": "1", "tags": [{"key": "mlflow.runName", "value": "t"}, {"key": "k"}]});
    let tagged = client.ok("runs/create", tagged).await["run"].clone();
    assert_eq!(tagged["info"]["run_name"], "t");
    assert_eq!(tagged["data"]["tags"], json!([{"key": "k", "value": ""}, {"key": "mlflow.runName", "value": "t"}]));

    let body = json!({"experiment_id": "777"});
    client.rejects("runs/create", body, 404, MISSING, "No Experiment with id=777 exists").await;
    let body = json!({"experiment_id": "1", "run_name": "a", "tags": [{"key": "mlflow.runName", "value": "b"}]});
    let message = "Both 'run_name' argument and 'mlflow.runName' tag are specified, but with different values \
                   (run_name='a', mlflow.runName='b').";
    client.rejects("runs/create", body, 400, INVALID, message).await;
}

#[tokio::test]
async fn a_run_is_updated_tagged_deleted_and_restored_as_recorded() {
    let client = Client::new().await;
    let made = client.ok("runs/create", json!({"experiment_id": "0", "run_name": "n", "user_id": "u"})).await;
    let run = made["run"]["info"]["run_id"].as_str().unwrap().to_owned();
    let update = client.ok("runs/update", json!({"run_id": run, "status": "FINISHED", "end_time": 5})).await;
    let mut expected = made["run"]["info"].clone();
    expected["status"] = json!("FINISHED");
    expected["end_time"] = json!(5);
    assert_eq!(update, json!({"run_info": expected}));
    let update = client.ok("runs/update", json!({"run_id": run, "run_name": "new"})).await;
    assert_eq!((&update["run_info"]["run_name"], &update["run_info"]["status"]), (&json!("new"), &json!("FINISHED")));
    assert_eq!(client.run(&run).await["data"]["tags"], json!([{"key": "mlflow.runName", "value": "new"}]));
    client
        .run_steps(
            &[&run],
            &[
                post("runs/set-tag", r#"{"run_id": "$0", "key": "mlflow.runName", "value": "viatag"}"#, Empty),
                post("runs/set-tag", r#"{"run_id": "$0", "key": "k"}"#, Empty),
                post(
                    "runs/set-tag",
                    r#"{"run_id": "$0", "key": "a*b", "value": "v"}"#,
                    Invalid("Invalid value \"a*b\" for parameter 'key' supplied: Names may only contain *"),
                ),
                post(
                    "runs/delete-tag",
                    r#"{"run_id": "$0", "key": "none"}"#,
                    Missing("No tag with name: none in run with id $0"),
                ),
                post(
                    "runs/delete-tag",
                    r#"{"run_id": "ffffffffffffffffffffffffffffffff", "key": "none"}"#,
                    Missing(NO_SUCH_RUN),
                ),
                post("runs/delete", r#"{"run_id": "$0"}"#, Empty),
                post("runs/delete", r#"{"run_id": "$0"}"#, Empty),
                post(
                    "runs/log-metric",
                    r#"{"run_id": "$0", "key": "m", "value": 1, "timestamp": 1}"#,
                    Invalid(DELETED_RUN),
                ),
                post("runs/set-tag", r#"{"run_id": "$0", "key": "k", "value": "v"}"#, Invalid(DELETED_RUN)),
                post("runs/delete-tag", r#"{"run_id": "$0", "key": "k"}"#, Invalid(DELETED_RUN)),
                post("runs/log-batch", r#"{"run_id": "$0"}"#, Invalid(DELETED_RUN)),
                post("runs/update", r#"{"run_id": "$0", "status": "FAILED"}"#, Invalid(DELETED_RUN)),
                get("runs/get?run_id=$0", Success),
                post("runs/restore", r#"{"run_id": "$0"}"#, Empty),
                post("runs/restore", r#"{"run_id": "$0"}"#, Empty),
                post("runs/delete-tag", r#"{"run_id": "$0", "key": "k"}"#, Empty),
                post("runs/delete", r#"{"run_id": "ffffffffffffffffffffffffffffffff"}"#, Missing(NO_SUCH_RUN)),
                post("runs/restore", r#"{"run_id": "ffffffffffffffffffffffffffffffff"}"#, Missing(NO_SUCH_RUN)),
                get("runs/get?run_id=ffffffffffffffffffffffffffffffff", Missing(NO_SUCH_RUN)),
                get("runs/get", Invalid("Missing value for required parameter 'run_id'*")),
            ],
        )
        .await;
    let shown = client.run(&run).await;
    assert_eq!((&shown["info"]["run_name"], &shown["info"]["lifecycle_stage"]), (&json!("viatag"), &json!("active")));
    assert_eq!(shown["data"]["tags"], json!([{"key": "mlflow.runName", "value": "viatag"}]));
    // The runs of a deleted experiment are deleted and reject writes.
    client.ok("experiments/delete", json!({"experiment_id": "0"})).await;
    assert_eq!(client.run(&run).await["info"]["lifecycle_stage"], "deleted");
    let body = json!({"run_id": run, "key": "k", "value": "v"});
    client.rejects("runs/set-tag", body, 400, INVALID, &DELETED_RUN.replace("$0", &run)).await;
    client.ok("experiments/restore", json!({"experiment_id": "0"})).await;
    assert_eq!(client.run(&run).await, shown);
}

#[tokio::test]
async fn a_run_contains_its_inputs_and_outputs() {
    let client = Client::new().await;
    let run = client.new_run().await;
    client
        .run_steps(
            &[&run],
            &[
                post("runs/log-inputs", r#"{"run_id": "$0"}"#, Empty),
                post(
                    "runs/log-inputs",
                    r#"{"run_id": "$0", "datasets": [{"tags": [{"key": "mlflow.data.context", "value": "train"}],
                        "dataset": {"name": "d", "digest": "abc", "source_type": "local", "source": "{}", "schema": "s",
                        "profile": "p"}}], "models": [{"model_id": "m-1"}]}"#,
                    Empty,
                ),
                post("runs/log-inputs", r#"{"run_id": "$0", "datasets": [{"dataset": {"name": "bare"}}]}"#, Empty),
                post("runs/outputs", r#"{"run_id": "$0", "models": [{"model_id": "m-2", "step": 3}]}"#, Empty),
                post(
                    "runs/log-inputs",
                    r#"{"run_id": "$0", "datasets": [{"dataset": {"digest": "x"}}]}"#,
                    Invalid("Missing value for required parameter 'datasets[0].dataset.name'*"),
                ),
            ],
        )
        .await;
    let shown = client.run(&run).await;
    let expected = json!({
        "dataset_inputs": [
            {"dataset": {"name": "bare", "digest": "", "source_type": "", "source": ""}},
            {
                "tags": [{"key": "mlflow.data.context", "value": "train"}],
                "dataset": {
                    "name": "d", "digest": "abc", "source_type": "local", "source": "{}", "schema": "s", "profile": "p",
                },
            },
        ],
        "model_inputs": [{"model_id": "m-1"}],
    });
    assert_eq!(shown["inputs"], expected);
    assert_eq!(shown["outputs"], json!({"model_outputs": [{"model_id": "m-2", "step": 3}]}));
    let nothing = client.ok("runs/search", json!({"experiment_ids": ["0"], "filter": "dataset.name = 'x'"})).await;
    assert_eq!(nothing, json!({}));
    let found = client.ok("runs/search", json!({"experiment_ids": ["0"], "filter": "dataset.context = 'train'"})).await;
    assert_eq!(found, json!({"runs": [shown]}));
}
