//! The logging endpoints of runs, compared with recorded answers of MLflow's server.

use serde_json::{Value, json};

use crate::client::Expect::{Empty, Invalid, Missing};
use crate::client::{Client, INVALID, MISSING, post};

const NO_SUCH_RUN: &str = "Run with id=ffffffffffffffffffffffffffffffff not found";
const ALLOWED_CHARACTERS: &str = "Names may only contain alphanumerics, underscores (_), dashes (-), periods (.), spaces ( ), \
                          colon(:) and slashes (/).";

#[tokio::test]
async fn a_metric_is_logged_as_recorded() {
    let client = Client::new().await;
    let run = client.new_run().await;
    let missing = |name: &str| {
        format!(
            "Missing value for required parameter '{name}'. See the API docs for more information about request parameters."
        )
    };
    for accepted in [
        json!({"run_id": run, "key": "m", "value": 1, "timestamp": 1, "step": 0}),
        json!({"run_uuid": run, "key": "m", "value": 2, "timestamp": "2", "step": "1"}),
        json!({"run_id": run, "key": "nan", "value": "NaN", "timestamp": 1}),
        json!({"run_id": run, "key": "inf", "value": "Infinity", "timestamp": 1}),
        json!({"run_id": run, "key": "ninf", "value": "-Infinity", "timestamp": 1}),
        json!({"run_id": run, "key": "s", "value": "1.5", "timestamp": 1}),
        json!({"run_id": run, "key": "m", "value": true, "timestamp": 1}),
        json!({"run_id": run, "key": "m", "value": 1, "timestamp": 1, "step": i64::MAX}),
        json!({"run_id": run, "key": "train/loss: a-b_c.d", "value": 1, "timestamp": 0}),
    ] {
        assert_eq!(client.ok("runs/log-metric", accepted).await, json!({}));
    }
    let bare = format!(r#"{{"run_id":"{run}","key":"rawnan","value":NaN,"timestamp":1}}"#);
    assert_eq!(client.send("POST", "runs/log-metric", bare).await.status, 200);
    let long = "k".repeat(251);
    for (body, status, code, message) in [
        (
            json!({"run_id": run, "key": "s", "value": "abc", "timestamp": 1}),
            400,
            INVALID,
            "Invalid value \"abc\" for parameter 'value' supplied: Hint: Value was of type 'str'. See the API docs for more \
             information about request parameters."
                .to_owned(),
        ),
        (
            json!({"run_id": run, "key": "bad*key", "value": 1, "timestamp": 1}),
            400,
            INVALID,
            format!("Invalid value \"bad*key\" for parameter 'name' supplied: {ALLOWED_CHARACTERS}"),
        ),
        (
            json!({"run_id": run, "key": "../x", "value": 1, "timestamp": 1}),
            400,
            INVALID,
            "Invalid value \"../x\" for parameter 'name' supplied: Names may be treated as files in certain cases, and must not \
             resolve to other names when treated as such. This name would resolve to '../x'"
                .to_owned(),
        ),
        (
            json!({"run_id": run, "key": long, "value": 1, "timestamp": 1}),
            400,
            INVALID,
            "'Metric name' exceeds the maximum length of 250 characters".to_owned(),
        ),
        (
            json!({"run_id": run, "key": "m", "value": 1, "timestamp": -1}),
            400,
            INVALID,
            "Invalid value -1 for parameter 'timestamp' supplied: metric 'm' (value=1.0). Timestamp must be a nonnegative long \
             (64-bit integer) "
                .to_owned(),
        ),
        (json!({"run_id": run, "key": "m", "value": 1}), 400, INVALID, missing("timestamp")),
        (json!({"run_id": run, "key": "m", "timestamp": 1}), 400, INVALID, missing("value")),
        (json!({"run_id": run, "key": "m", "value": null, "timestamp": 1}), 400, INVALID, missing("value")),
        (json!({"run_id": run, "value": 1, "timestamp": 1}), 400, INVALID, missing("key")),
        (json!({"key": "m", "value": 1, "timestamp": 1}), 400, INVALID, missing("run_id")),
        (json!({"run_id": "f".repeat(32), "key": "m", "value": 1, "timestamp": 1}), 404, MISSING, NO_SUCH_RUN.to_owned()),
        (
            json!({"run_id": "bad id!", "key": "m", "value": 1, "timestamp": 1}),
            404,
            MISSING,
            "Run with id=bad id! not found".to_owned(),
        ),
    ] {
        let before = client.snapshot(&run, &["m", "s"]).await;
        client.rejects("runs/log-metric", body, status, code, &message).await;
        assert_eq!(client.snapshot(&run, &["m", "s"]).await, before);
    }
    let mut shown = client.run(&run).await["data"]["metrics"].as_array().unwrap().clone();
    shown.sort_by_key(|metric| metric["key"].as_str().unwrap().to_owned());
    let greatest = 1.797_693_134_862_315_7e308;
    let expected = json!([
        {"key": "inf", "value": greatest, "timestamp": 1, "step": 0},
        {"key": "m", "value": 1.0, "timestamp": 1, "step": i64::MAX},
        {"key": "nan", "value": "NaN", "timestamp": 1, "step": 0},
        {"key": "ninf", "value": -greatest, "timestamp": 1, "step": 0},
        {"key": "rawnan", "value": "NaN", "timestamp": 1, "step": 0},
        {"key": "s", "value": 1.5, "timestamp": 1, "step": 0},
        {"key": "train/loss: a-b_c.d", "value": 1.0, "timestamp": 0, "step": 0},
    ]);
    assert_eq!(Value::from(shown), expected);
}

#[tokio::test]
async fn a_parameter_is_logged_as_recorded() {
    let client = Client::new().await;
    let run = client.new_run().await;
    client
        .run_steps(
            &[&run, &"x".repeat(6001)],
            &[
                post("runs/log-parameter", r#"{"run_id": "$0", "key": "p", "value": "1"}"#, Empty),
                post("runs/log-parameter", r#"{"run_id": "$0", "key": "p", "value": "1"}"#, Empty),
                post("runs/log-parameter", r#"{"run_id": "$0", "key": "p", "value": "2"}"#, Invalid("Changing param values is not allowed. Param with key='p' was already logged with value='1' for run \
                         ID='$0'. Attempted logging new value '2'.")),
                post("runs/log-parameter", r#"{"run_id": "$0", "key": "p2"}"#, Empty),
                post("runs/log-parameter", r#"{"run_id": "$0", "key": "p3", "value": 5}"#, Invalid("Invalid value 5 for parameter 'value' supplied: Hint: Value was of type 'int'.*")),
                post("runs/log-parameter", r#"{"run_id": "$0", "key": "p4", "value": "$1"}"#, Empty),
                // A value that is too long is cut to the same text every time.
                post("runs/log-parameter", r#"{"run_id": "$0", "key": "p4", "value": "$1yz"}"#, Empty),
                post("runs/log-parameter", r#"{"run_id": "$0", "key": "", "value": "x"}"#, Invalid("Missing value for required parameter 'key'*")),
                post("runs/log-parameter", r#"{"run_id": "$0", "key": "a//b", "value": "x"}"#, Invalid("Invalid value \"a//b\" for parameter 'key' supplied: *")),
                post("runs/log-parameter", r#"{"run_id": "ffffffffffffffffffffffffffffffff", "key": "p"}"#, Missing(NO_SUCH_RUN)),
            ],
        )
        .await;
    let body = json!({"run_id": run, "key": "k".repeat(251), "value": "x"});
    let message = "'Param key' exceeds the maximum length of 250 characters";
    client.rejects("runs/log-parameter", body, 400, INVALID, message).await;
    let expected = json!([
        {"key": "p", "value": "1"}, {"key": "p2", "value": ""}, {"key": "p4", "value": "x".repeat(6000)},
    ]);
    assert_eq!(client.run(&run).await["data"]["params"], expected);
}

#[tokio::test]
async fn a_batch_is_logged_as_recorded() {
    let client = Client::new().await;
    let run = client.new_run().await;
    client
        .run_steps(
            &[&run],
            &[
                post("runs/log-batch", r#"{"run_id": "$0"}"#, Empty),
                post("runs/log-batch", r#"{"run_id": "$0", "metrics": [], "params": null}"#, Empty),
                post("runs/log-batch", r#"{"run_id": "$0", "metrics": [{"key": "a", "value": 1.0, "timestamp": 1, "step": 0}],
                        "params": [{"key": "q", "value": "1"}], "tags": [{"key": "t", "value": "1"}]}"#, Empty),
                post("runs/log-batch", r#"{"run_id": "$0", "params": [{"key": "q", "value": "2"}, {"key": "other", "value": "1"}],
                        "metrics": [{"key": "a", "value": 9, "timestamp": 9}], "tags": [{"key": "t", "value": "9"}]}"#, Invalid("Changing param values is not allowed. Params were already logged='[{'key': 'q', 'old_value': '1', \
                         'new_value': '2'}]' for run ID='$0'.")),
                post("runs/log-batch", r#"{"run_id": "$0", "params": [{"key": "d", "value": "1"}, {"key": "d", "value": "2"}]}"#, Invalid("Duplicate parameter keys have been submitted: ['d']. Please ensure the request contains only one param \
                         value per param key.")),
                post("runs/log-batch", r#"{"run_id": "$0", "params": [{"key": "d", "value": "1"}, {"key": "d", "value": "1"}]}"#, Invalid("Duplicate parameter keys have been submitted: ['d'].*")),
                post("runs/log-batch", r#"{"run_id": "$0", "metrics": [{"key": "a", "value": 1}]}"#, Invalid("Missing value for required parameter 'metrics[0].timestamp'*")),
                post("runs/log-batch", r#"{"run_id": "$0", "metrics": [{"value": 1, "timestamp": 1}]}"#, Invalid("Missing value for required parameter 'metrics[0].key'*")),
                post("runs/log-batch", r#"{"run_id": "$0", "metrics": "x"}"#, Invalid("Invalid value \"x\" for parameter 'metrics' supplied: Hint: Value was of type 'str'.*")),
                post("runs/log-batch", r#"{"metrics": []}"#, Invalid("Missing value for required parameter 'run_id'*")),
                post("runs/log-batch", r#"{"runId": "$0", "metrics": []}"#, Invalid("Missing value for required parameter 'run_id'*")),
                post("runs/log-batch", r#"{"run_id": "$0", "metrics": [{"key": "ok", "value": 1.0, "timestamp": 1, "step": 0},
                                                     {"key": "bad*", "value": 1.0, "timestamp": 1, "step": 0}]}"#, Invalid("Invalid value \"bad*\" for parameter 'metrics[1].name' supplied: Names may only *")),
                post("runs/log-batch", r#"{"run_id": "$0", "params": [{"key": "ok", "value": "1"}], "tags": [{"key": "bad*", "value": "1"}]}"#, Invalid("Invalid value \"bad*\" for parameter 'tags[0].key' supplied: Names may only *")),
                post("runs/log-batch", r#"{"run_id": "$0", "metrics": [{"key": "dup", "value": 1.0, "timestamp": 1, "step": 0},
                                                     {"key": "dup", "value": 1.0, "timestamp": 1, "step": 0}]}"#, Empty),
                post("runs/log-batch", r#"{"run_id": "ffffffffffffffffffffffffffffffff", "params": [{"key": "q", "value": "2"}]}"#, Missing(NO_SUCH_RUN)),
            ],
        )
        .await;
    client.ok("runs/log-batch", json!({"run_id": run, "tags": [{"key": "tt", "value": "v".repeat(8001)}]})).await;
    let shown = client.run(&run).await["data"].clone();
    assert_eq!(shown["params"], json!([{"key": "q", "value": "1"}]));
    assert_eq!(
        shown["metrics"],
        json!([
            {"key": "a", "value": 1.0, "timestamp": 1, "step": 0}, {"key": "dup", "value": 1.0, "timestamp": 1, "step": 0},
        ])
    );
    let tags = shown["tags"].as_array().unwrap();
    assert_eq!((tags.len(), &tags[1]["value"]), (3, &json!("1")));
    assert_eq!(tags[2]["value"].as_str().unwrap().len(), 8000);
}

#[tokio::test]
async fn batches_have_limits() {
    let client = Client::new().await;
    let run = client.new_run().await;
    let metrics = |count: usize| -> Vec<Value> {
        (0..count).map(|n| json!({"key": format!("a{n}"), "value": n, "timestamp": 1, "step": 0})).collect()
    };
    let pairs =
        |count: usize| -> Vec<Value> { (0..count).map(|n| json!({"key": format!("z{n}"), "value": "1"})).collect() };
    let before = client.event_count().await;
    for (body, limit, what, got) in [
        (json!({"run_id": run, "metrics": metrics(1001)}), 1000, "metrics", 1001),
        (json!({"run_id": run, "params": pairs(101)}), 100, "params", 101),
        (json!({"run_id": run, "tags": pairs(101)}), 100, "tags", 101),
        (
            json!({"run_id": run, "metrics": metrics(900), "params": pairs(100), "tags": pairs(1)}),
            1000,
            "metrics, params, and tags",
            1001,
        ),
    ] {
        let message = format!(
            "A batch logging request can contain at most {limit} {what}. Got {got} {what}. Please split up {what} across \
             multiple requests and try again."
        );
        client.rejects("runs/log-batch", body, 400, INVALID, &message).await;
    }
    assert_eq!(client.event_count().await, before, "an invalid batch was appended");
    client
        .ok("runs/log-batch", json!({"run_id": run, "metrics": metrics(800), "params": pairs(100), "tags": pairs(100)}))
        .await;
    client.ok("runs/log-batch", json!({"run_id": run, "metrics": metrics(1000)})).await;
    let shown = client.run(&run).await["data"].clone();
    let counts = ["metrics", "params", "tags"].map(|name| shown[name].as_array().unwrap().len());
    assert_eq!(counts, [1000, 100, 101]);
}
