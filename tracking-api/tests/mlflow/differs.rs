//! Where the answer is not MLflow's, and why.

use crate::client::{Client, INVALID};

/// A path, a body, what MLflow's server answers, our code and message, and the reason.
#[rustfmt::skip]
const DIFFERENT: &[(&str, &str, &str, &str, &str)] = &[
    ("experiments/update", r#"{"experiment_id": "$deleted", "new_name": "q"}"#, "500 INVALID_STATE",
     "Cannot rename a non-active experiment.",
     "a caller's mistake is never a 5xx, which clients try again for over a minute"),
    ("experiments/search", r#"{"max_results": 1, "view_type": "BOGUS"}"#, "200, as if nothing was said",
     "Invalid value \"BOGUS\" for parameter 'view_type' supplied: it is one of ACTIVE_ONLY, DELETED_ONLY, ALL",
     "what is dropped silently is a mistake that nobody sees"),
    ("runs/search", r#"{"experiment_ids": ["0"], "run_view_type": "active_only"}"#, "200, as if nothing was said",
     "Invalid value \"active_only\" for parameter 'run_view_type' supplied: it is one of ACTIVE_ONLY, DELETED_ONLY, ALL",
     "the same"),
    ("runs/create", "{}", "400 BAD_REQUEST with the text of an SQL statement",
     "Missing value for required parameter 'experiment_id'*",
     "it says what is missing"),
    ("runs/update", r#"{"run_id": "$run", "status": "BOGUS"}"#, "200, as if nothing was said",
     "Invalid value \"BOGUS\" for parameter 'status' supplied: it is one of RUNNING, SCHEDULED, FINISHED, FAILED, KILLED",
     "what is dropped silently is a mistake that nobody sees"),
    ("runs/update", r#"{"run_id": "$run", "status": 3}"#, "200, status 3",
     "Invalid value 3 for parameter 'status' supplied: Hint: Value was of type 'int'.*",
     "statuses have names"),
    ("runs/log-metric", r#"{"run_id": "$run", "key": "m", "value": 1, "timestamp": 1.5}"#, "200, at time 0",
     "Invalid value 1.5 for parameter 'timestamp' supplied: Hint: Value was of type 'float'.*",
     "what is dropped silently is a mistake that nobody sees"),
    ("runs/log-metric", r#"{"run_id": "$run", "key": "m", "value": 1, "timestamp": 1, "step": 0.5}"#, "200, at step 0",
     "Invalid value 0.5 for parameter 'step' supplied: Hint: Value was of type 'float'.*",
     "the same"),
    ("runs/search", r#"{"experiment_ids": ["0"], "order_by": ["metrics.a", "metric.a DESC"]}"#, "500 INTERNAL_ERROR",
     "`order_by` contains duplicate fields: *",
     "a caller's mistake is never a 5xx"),
    ("runs/search", r#"{"experiment_ids": ["0"], "max_results": 50001}"#, "400, with a hint at the value's type",
     "Invalid value 50001 for parameter 'max_results' supplied. It must be at most 50000",
     "the type is not what is wrong"),
    ("runs/log-inputs", r#"{"run_id": "$run", "datasets": [{}]}"#, "200, a data set without a name",
     "Missing value for required parameter 'datasets[0].dataset'*",
     "what has no name cannot be found"),
];

#[tokio::test]
async fn what_differs_from_mlflow_differs_on_purpose() {
    let client = Client::new().await;
    let (run, deleted) = (client.new_run().await, client.experiment("deleted").await);
    client.ok("experiments/delete", serde_json::json!({"experiment_id": deleted})).await;
    for (path, body, theirs, message, why) in DIFFERENT {
        let body = body.replace("$run", &run).replace("$deleted", &deleted);
        let before = client.seen(&run, &["m"]).await;
        let answer = client.send("POST", path, body.clone()).await;
        let shown = format!("{path} {body}, where MLflow answers {theirs}: {why}");
        crate::client::refused(&shown, &answer, 400, INVALID, message);
        assert_eq!(client.seen(&run, &["m"]).await, before, "{shown}");
    }
}
