//! Answers that differ from MLflow's on purpose, with the reasons.

use crate::client::{Client, INVALID, assert_error};

/// Path, body, the answer of MLflow's server, our message, and the reason.
#[rustfmt::skip]
const DIFFERENT: &[(&str, &str, &str, &str, &str)] = &[
    ("experiments/update", r#"{"experiment_id": "$deleted", "new_name": "q"}"#, "500 INVALID_STATE",
     "Cannot rename a non-active experiment.",
     "an invalid request must not get a 5xx, which clients retry for more than a minute"),
    ("experiments/search", r#"{"max_results": 1, "view_type": "BOGUS"}"#, "200, the value is ignored",
     "Invalid value \"BOGUS\" for parameter 'view_type' supplied: it is one of ACTIVE_ONLY, DELETED_ONLY, ALL",
     "the caller does not notice a value that is dropped silently"),
    ("runs/search", r#"{"experiment_ids": ["0"], "run_view_type": "active_only"}"#, "200, the value is ignored",
     "Invalid value \"active_only\" for parameter 'run_view_type' supplied: it is one of ACTIVE_ONLY, DELETED_ONLY, ALL",
     "the caller does not notice a value that is dropped silently"),
    ("runs/create", "{}", "400 BAD_REQUEST with the text of an SQL statement",
     "Missing value for required parameter 'experiment_id'*",
     "the message names the missing parameter"),
    ("runs/update", r#"{"run_id": "$run", "status": "BOGUS"}"#, "200, the value is ignored",
     "Invalid value \"BOGUS\" for parameter 'status' supplied: it is one of RUNNING, SCHEDULED, FINISHED, FAILED, KILLED",
     "the caller does not notice a value that is dropped silently"),
    ("runs/update", r#"{"run_id": "$run", "status": 3}"#, "200, status 3",
     "Invalid value 3 for parameter 'status' supplied: Hint: Value was of type 'int'.*",
     "a status is given by name"),
    ("runs/log-metric", r#"{"run_id": "$run", "key": "m", "value": 1, "timestamp": 1.5}"#, "200, at time 0",
     "Invalid value 1.5 for parameter 'timestamp' supplied: Hint: Value was of type 'float'.*",
     "the caller does not notice a value that is dropped silently"),
    ("runs/log-metric", r#"{"run_id": "$run", "key": "m", "value": 1, "timestamp": 1, "step": 0.5}"#, "200, at step 0",
     "Invalid value 0.5 for parameter 'step' supplied: Hint: Value was of type 'float'.*",
     "the caller does not notice a value that is dropped silently"),
    ("runs/search", r#"{"experiment_ids": ["0"], "order_by": ["metrics.a", "metric.a DESC"]}"#, "500 INTERNAL_ERROR",
     "`order_by` contains duplicate fields: *",
     "an invalid request must not get a 5xx"),
    ("runs/search", r#"{"experiment_ids": ["0"], "max_results": 50001}"#, "400, with a hint at the value's type",
     "Invalid value 50001 for parameter 'max_results' supplied. It must be at most 50000",
     "the type of the value is right"),
    ("runs/log-inputs", r#"{"run_id": "$run", "datasets": [{}]}"#, "200, a data set without a name",
     "Missing value for required parameter 'datasets[0].dataset'*",
     "a dataset without a name cannot be found"),
];

#[tokio::test]
async fn answers_differ_from_mlflow_as_listed() {
    let client = Client::new().await;
    let (run, deleted) = (client.new_run().await, client.experiment("deleted").await);
    client.ok("experiments/delete", serde_json::json!({"experiment_id": deleted})).await;
    for (path, body, theirs, message, why) in DIFFERENT {
        let body = body.replace("$run", &run).replace("$deleted", &deleted);
        let before = client.snapshot(&run, &["m"]).await;
        let answer = client.send("POST", path, body.clone()).await;
        let shown = format!("{path} {body}, where MLflow answers {theirs}: {why}");
        assert_error(&shown, &answer, 400, INVALID, message);
        assert_eq!(client.snapshot(&run, &["m"]).await, before, "{shown}");
    }
}
