//! Invalid and malicious input: it never gets a 5xx and never causes a partial write.

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};

use crate::client::{A, Client, INVALID, assert_error};

/// Every endpoint that takes a body, with a valid body. `$run` and `$experiment` stand for existing ids.
const CALLS: &[(&str, &str)] = &[
    ("experiments/create", r#"{"name": "n", "artifact_location": "s3://x", "tags": [{"key": "a", "value": "b"}]}"#),
    (
        "experiments/search",
        r#"{"max_results": 1, "filter": "", "order_by": ["name"], "view_type": "ALL", "page_token": ""}"#,
    ),
    ("experiments/update", r#"{"experiment_id": "$experiment", "new_name": "new"}"#),
    ("experiments/set-experiment-tag", r#"{"experiment_id": "$experiment", "key": "a", "value": "b"}"#),
    ("experiments/delete-experiment-tag", r#"{"experiment_id": "$experiment", "key": "a"}"#),
    (
        "runs/create",
        r#"{"experiment_id": "$experiment", "start_time": 1, "user_id": "u", "run_name": "n", "tags": [{"key": "a", "value": "b"}]}"#,
    ),
    ("runs/update", r#"{"run_id": "$run", "run_uuid": "$run", "status": "FINISHED", "end_time": 1, "run_name": "x"}"#),
    (
        "runs/log-metric",
        r#"{"run_id": "$run", "key": "m", "value": 1, "timestamp": 1, "step": 1, "model_id": "m-1", "dataset_name": "d",
            "dataset_digest": "d"}"#,
    ),
    ("runs/log-parameter", r#"{"run_id": "$run", "key": "p", "value": "1"}"#),
    (
        "runs/log-batch",
        r#"{"run_id": "$run", "metrics": [{"key": "m", "value": 1, "timestamp": 1, "step": 1}],
            "params": [{"key": "p", "value": "1"}], "tags": [{"key": "t", "value": "1"}]}"#,
    ),
    ("runs/set-tag", r#"{"run_id": "$run", "key": "t", "value": "1"}"#),
    ("runs/delete-tag", r#"{"run_id": "$run", "key": "t"}"#),
    (
        "runs/log-inputs",
        r#"{"run_id": "$run", "datasets": [{"tags": [{"key": "a", "value": "b"}], "dataset": {"name": "d", "digest": "x",
            "source_type": "t", "source": "s", "schema": "s", "profile": "p"}}], "models": [{"model_id": "m-1"}]}"#,
    ),
    ("runs/outputs", r#"{"run_id": "$run", "models": [{"model_id": "m-1", "step": 1}]}"#),
    (
        "runs/search",
        r#"{"experiment_ids": ["$experiment"], "filter": "", "order_by": ["start_time"], "max_results": 5, "page_token": "",
            "run_view_type": "ALL"}"#,
    ),
    ("runs/delete", r#"{"run_id": "$run"}"#),
    ("runs/restore", r#"{"run_id": "$run"}"#),
    ("experiments/delete", r#"{"experiment_id": "$experiment"}"#),
    ("experiments/restore", r#"{"experiment_id": "$experiment"}"#),
];

fn wrong_values() -> Vec<Value> {
    vec![
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(1.5),
        json!(1e300),
        json!(u64::MAX),
        json!(""),
        json!("x"),
        json!("a/../b\u{7f}"),
        json!("🦀".repeat(300)),
        json!([]),
        json!([null]),
        json!(["x", 1]),
        json!([[[]]]),
        json!({}),
        json!({"key": {}}),
        json!([{"key": "k", "value": []}]),
    ]
}

/// Adds to `mutated` a copy of `body` for each of its values, at any depth, and each replacement.
fn mutate(body: &Value, replacements: &[Value], mutated: &mut Vec<Value>) {
    fn at(whole: &Value, path: &mut Vec<String>, replacements: &[Value], mutated: &mut Vec<Value>) {
        let pointer: String = path.iter().map(|part| format!("/{part}")).collect();
        let inner = whole.pointer(&pointer).unwrap().clone();
        if !path.is_empty() {
            for replacement in replacements {
                let mut copy = whole.clone();
                *copy.pointer_mut(&pointer).unwrap() = replacement.clone();
                mutated.push(copy);
            }
        }
        let parts: Vec<String> = match &inner {
            Value::Object(fields) => fields.keys().cloned().collect(),
            Value::Array(items) => (0..items.len()).map(|n| n.to_string()).collect(),
            _ => return,
        };
        for part in parts {
            path.push(part);
            at(whole, path, replacements, mutated);
            path.pop();
        }
    }
    at(body, &mut Vec::new(), replacements, mutated);
}

#[tokio::test]
async fn values_of_a_wrong_type_are_rejected_and_change_nothing() {
    let client = Client::new().await;
    let (experiment, run) = (client.experiment("e").await, client.new_run().await);
    let mut rejected = 0;
    for (path, body) in CALLS {
        let body = body.replace("$run", &run).replace("$experiment", &experiment);
        let mut bodies = Vec::new();
        mutate(&serde_json::from_str(&body).unwrap(), &wrong_values(), &mut bodies);
        for body in bodies {
            let before = (client.snapshot(&run, &["m"]).await, client.get("experiments/get?experiment_id=1").await);
            let answer = client.post(path, body.clone()).await;
            let shown = format!("{path} {body}: {}", answer.body);
            match answer.status {
                200 => continue,
                400 | 404 => rejected += 1,
                _ => panic!("{} {shown}", answer.status),
            }
            let error = answer.json();
            let code = error["error_code"].as_str().unwrap();
            assert!([INVALID, "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS"].contains(&code), "{shown}");
            let after = (client.snapshot(&run, &["m"]).await, client.get("experiments/get?experiment_id=1").await);
            assert_eq!(after, before, "{shown}");
        }
    }
    assert!(rejected > 500, "{rejected}");
}

#[tokio::test]
async fn bodies_that_are_not_json_objects_are_rejected() {
    let client = Client::new().await;
    let deep = |open: &str, close: &str, depth: usize| format!("{}1{}", open.repeat(depth), close.repeat(depth));
    let bodies: Vec<Vec<u8>> = vec![
        b"".into(),
        b"null".into(),
        b"[]".into(),
        b"\"".into(),
        b"\"\\\"".into(),
        b"{\"name\": \"\xff\xfe\"}".into(),
        b"\xef\xbb\xbf{\"name\": \"bom\"}".into(),
        b"{\"name\": \"a\"} trailing".into(),
        b"{\"name\": \"a\",}".into(),
        b"{'name': 'a'}".into(),
        b"{\"name\": \"\\ud800\"}".into(),
        b"{\"name\": \"a\nb\"}".into(),
        b"{\"name\": NaNs}".into(),
        b"\x1f\x8b\x08\x00gzip".into(),
        deep("[", "]", 100_000).into(),
        deep("{\"name\":", "}", 100_000).into(),
        deep("{\"name\":", "}", 127).into(),
    ];
    for body in bodies {
        let shown = String::from_utf8_lossy(&body).chars().take(80).collect::<String>();
        let answer = client.send("POST", "experiments/create", body).await;
        assert_error(&shown, &answer, 400, INVALID, "*");
    }
    // Deep nesting within serde's limit is rejected because of its type.
    let deep = format!("{{\"name\": {}}}", deep("[", "]", 100));
    let answer = client.send("POST", "experiments/create", deep).await;
    assert_error("100 deep", &answer, 400, INVALID, "Invalid value [[[*");
    // The last value of a duplicate field counts, as in Python.
    let answer = client.send("POST", "experiments/create", r#"{"name": "one", "name": "two"}"#).await;
    assert_eq!(answer.status, 200);
    client.get("experiments/get-by-name?experiment_name=two").await;
}

#[tokio::test]
async fn a_body_that_is_too_large_gets_a_413() {
    let client = Client::new().await;
    let run = client.new_run().await;
    let before = client.event_count().await;
    // With and without a declared length.
    let huge = vec![b' '; 50 << 20];
    for declared in [true, false] {
        let mut request = Request::post(format!("{A}/runs/log-batch")).header("content-type", "application/json");
        if declared {
            request = request.header("content-length", huge.len());
        }
        let answer = client.service.send(request.body(Body::from(huge.clone())).unwrap()).await;
        assert_error("50 MiB", &answer, 413, "REQUEST_LIMIT_EXCEEDED", "*");
    }
    // The body is within its limit, but the record would be too large for the log.
    let dataset =
        |n: usize| json!({"dataset": {"name": format!("d{n}"), "digest": "x", "profile": "p".repeat(4_000_000)}});
    let body = json!({"run_id": run, "datasets": [dataset(0), dataset(1), dataset(2)]});
    let answer = client.post("runs/log-inputs", body).await;
    assert!(matches!(answer.status, 400 | 413), "{} {}", answer.status, answer.body);
    assert_eq!(client.event_count().await, before);
    assert_eq!(client.run(&run).await["inputs"], json!({}));
}

#[tokio::test]
async fn texts_that_are_too_long_for_an_event_are_rejected() {
    let client = Client::new().await;
    let (experiment, run) = (client.experiment("e").await, client.new_run().await);
    let long = "x".repeat(70_000);
    let before = client.event_count().await;
    for (path, body) in [
        ("experiments/create", json!({"name": "n", "artifact_location": long})),
        ("experiments/create", json!({"name": "n", "tags": vec![json!({"key": "k", "value": "v"}); 1001]})),
        ("experiments/set-experiment-tag", json!({"experiment_id": experiment, "key": "k".repeat(251), "value": ""})),
        ("experiments/delete-experiment-tag", json!({"experiment_id": experiment, "key": long})),
        ("runs/create", json!({"experiment_id": experiment, "run_name": long})),
        ("runs/create", json!({"experiment_id": experiment, "user_id": long})),
        ("runs/create", json!({"experiment_id": experiment, "tags": vec![json!({"key": "k", "value": "v"}); 1001]})),
        ("runs/update", json!({"run_id": run, "run_name": long})),
        ("runs/log-metric", json!({"run_id": run, "key": "m", "value": 1, "timestamp": 1, "model_id": long})),
        ("runs/log-metric", json!({"run_id": long, "key": "m", "value": 1, "timestamp": 1})),
        ("runs/delete-tag", json!({"run_id": run, "key": long})),
        ("runs/log-inputs", json!({"run_id": run, "datasets": [{"dataset": {"name": long}}]})),
        ("runs/log-inputs", json!({"run_id": run, "datasets": vec![json!({"dataset": {"name": "d"}}); 1001]})),
        ("runs/outputs", json!({"run_id": run, "models": [{"model_id": "m".repeat(300)}]})),
        ("runs/search", json!({"experiment_ids": ["0"], "page_token": long})),
    ] {
        let answer = client.post(path, body).await;
        assert!(matches!(answer.status, 400 | 404), "{path}: {} {}", answer.status, answer.body);
        assert!(answer.json()["error_code"].is_string() && answer.body.len() < 100_000, "{path}");
    }
    assert_eq!(client.event_count().await, before, "an invalid request was appended");
}

#[tokio::test]
async fn numbers_are_stored_exactly_or_rejected() {
    let client = Client::new().await;
    let run = client.new_run().await;
    let send = async |field: &str, number: &str| {
        let mut fields = vec![("value", "1"), ("timestamp", "1"), ("step", "1")];
        fields.retain(|(name, _)| *name != field);
        fields.push((field, number));
        let fields: String = fields.iter().map(|(name, value)| format!(", \"{name}\": {value}")).collect();
        client.send("POST", "runs/log-metric", format!("{{\"run_id\": \"{run}\", \"key\": \"k\"{fields}}}")).await
    };
    for (field, number, status) in [
        ("step", "9223372036854775807", 200),
        ("step", "-9223372036854775808", 200),
        ("step", "\"-9223372036854775808\"", 200),
        ("step", "9223372036854775808", 400),
        ("step", "-9223372036854775809", 400),
        ("step", "\"9223372036854775808\"", 400),
        ("step", "1e30", 400),
        ("step", "2.0", 200),
        ("step", "1.5", 400),
        ("step", "true", 400),
        ("step", "NaN", 400),
        ("step", "\"1.5\"", 400),
        ("step", "\"0x10\"", 400),
        ("step", "null", 200),
        ("timestamp", "9223372036854775807", 200),
        ("timestamp", "9223372036854775808", 400),
        ("timestamp", "-1", 400),
        ("timestamp", "\"-1\"", 400),
        ("timestamp", "Infinity", 400),
        ("value", "NaN", 200),
        ("value", "Infinity", 200),
        ("value", "-Infinity", 200),
        ("value", "\"NaN\"", 200),
        ("value", "\"-Infinity\"", 200),
        ("value", "\" 1e5 \"", 200),
        ("value", "1e-400", 200),
        ("value", "18446744073709551615", 200),
        ("value", "99999999999999999999999999999999", 200),
        ("value", "\"1,5\"", 400),
        ("value", "\"\"", 400),
        ("value", "\"0x10\"", 400),
        ("value", "[1]", 400),
        ("value", "{}", 400),
        ("value", "+1", 400),
        ("value", "01", 400),
        ("value", ".5", 400),
    ] {
        let answer = send(field, number).await;
        assert_eq!(answer.status, status, "{field} {number}: {}", answer.body);
    }
    // A number beyond the range of a float makes the whole body invalid, so the message names another parameter.
    assert_eq!(send("value", "1e400").await.status, 400);
    // NaN and Infinity without quotes are numbers; within texts they stay unchanged.
    let batch = format!(
        r#"{{"run_id": "{run}", "metrics": [{{"key": "a", "value": NaN, "timestamp": 1}}, {{"key": "b", "value": -Infinity,
            "timestamp": 1}}], "tags": [{{"key": "t", "value": "NaN, Infinity \" -Infinity"}}]}}"#
    );
    assert_eq!(client.send("POST", "runs/log-batch", batch).await.status, 200);
    let data = client.run(&run).await["data"].clone();
    assert_eq!((&data["metrics"][0]["value"], &data["metrics"][1]["value"]), (&json!("NaN"), &json!(-f64::MAX)));
    assert_eq!(data["tags"][1]["value"], "NaN, Infinity \" -Infinity");
}

/// SQLite and the events can store NUL characters. Postgres cannot: such texts must be rejected or mapped there.
#[tokio::test]
async fn nul_characters_are_stored_in_values_and_rejected_in_keys_and_filters() {
    let client = Client::new().await;
    let text = "a\u{0}b";
    client.experiment(text).await;
    let found = client.get("experiments/get-by-name?experiment_name=a%00b").await["experiment"].clone();
    assert_eq!(found["name"], text);
    let answer = client.send("GET", "experiments/get-by-name?experiment_name=a", "").await;
    assert_eq!(answer.status, 404, "the name was cut at the NUL character");
    client.ok("experiments/set-experiment-tag", json!({"experiment_id": "1", "key": "t", "value": text})).await;
    assert_eq!(client.get("experiments/get?experiment_id=1").await["experiment"]["tags"][0]["value"], text);

    let made = client.ok("runs/create", json!({"experiment_id": "1", "run_name": text, "user_id": text})).await;
    let run = made["run"]["info"]["run_id"].as_str().unwrap();
    client.ok("runs/log-parameter", json!({"run_id": run, "key": "p", "value": text})).await;
    client.ok("runs/log-parameter", json!({"run_id": run, "key": "p", "value": text})).await;
    assert_eq!(client.post("runs/log-parameter", json!({"run_id": run, "key": "p", "value": "a"})).await.status, 400);
    client.ok("runs/set-tag", json!({"run_id": run, "key": "t", "value": text})).await;
    let tags = json!([{"key": "mlflow.data.context", "value": text}]);
    let dataset = json!({"tags": tags, "dataset": {"name": text, "digest": text, "source": text, "profile": text}});
    client.ok("runs/log-inputs", json!({"run_id": run, "datasets": [dataset], "models": [{"model_id": text}]})).await;
    let shown = client.run(run).await;
    assert_eq!((&shown["info"]["run_name"], &shown["info"]["user_id"]), (&json!(text), &json!(text)));
    assert_eq!(shown["data"]["params"][0]["value"], text);
    assert_eq!(shown["data"]["tags"][1]["value"], text);
    let input = &shown["inputs"]["dataset_inputs"][0];
    assert_eq!(
        (&input["tags"], &input["dataset"]["name"], &input["dataset"]["profile"]),
        (&tags, &json!(text), &json!(text))
    );
    assert_eq!(shown["inputs"]["model_inputs"][0]["model_id"], text);
    assert_eq!(client.ok("runs/search", json!({"experiment_ids": ["1"]})).await["runs"][0], shown);

    for (path, body) in [
        ("runs/log-parameter", json!({"run_id": run, "key": text, "value": "x"})),
        ("runs/log-metric", json!({"run_id": run, "key": text, "value": 1, "timestamp": 1})),
        ("runs/set-tag", json!({"run_id": run, "key": text, "value": "x"})),
        ("experiments/set-experiment-tag", json!({"experiment_id": "1", "key": text, "value": "x"})),
        ("runs/search", json!({"experiment_ids": ["1"], "filter": format!("tags.t = '{text}'")})),
        ("runs/search", json!({"experiment_ids": ["1"], "order_by": [format!("tags.{text}")]})),
    ] {
        client.rejects(path, body, 400, INVALID, "*").await;
    }
    for body in [json!({"run_id": text, "key": "k", "value": "x"}), json!({"run_id": "a/b", "key": "k", "value": "x"})]
    {
        assert_eq!(client.post("runs/set-tag", body).await.status, 404);
    }
}

#[tokio::test]
async fn malformed_queries_are_rejected() {
    let client = Client::new().await;
    let run = client.new_run().await;
    for path in [
        "runs/get?run_id=%ff%fe",
        "runs/get?run_id=%zz",
        "runs/get?run_id=",
        "runs/get?run_id[]=x",
        "runs/get?&&=&=x",
        "experiments/get?experiment_id=-1",
        "experiments/get?experiment_id=1e3",
        "experiments/get?experiment_id=99999999999999999999",
        "experiments/get?experiment_id=%00",
        "experiments/search?max_results=x",
        "experiments/search?max_results=",
        "experiments/search?max_results=1&page_token=eyJvZmZzZXQiOiAtMX0%3D",
        "experiments/search?max_results=1&page_token=W10%3D",
        "metrics/get-history-bulk-interval?run_ids=x&metric_key=m&max_results=1.5",
        "metrics/get-history-bulk-interval?run_ids=x&metric_key=m&start_step=a&end_step=b",
        "metrics/get-history-bulk?run_id=x&metric_key=m&max_results=x",
    ] {
        let answer = client.send("GET", path, "").await;
        assert!(matches!(answer.status, 400 | 404), "{path}: {} {}", answer.status, answer.body);
        assert!(answer.json()["error_code"].is_string(), "{path}: {}", answer.body);
    }
    // The page at the greatest offset is empty.
    for offset in ["9223372036854775807", "18446744073709551615"] {
        let token = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, format!("{{\"offset\": {offset}}}"));
        let body = json!({"experiment_ids": ["0"], "page_token": token, "max_results": 50000});
        assert_eq!(client.ok("runs/search", body).await, json!({}));
    }
    // The last value of a repeated parameter counts; unknown parameters are ignored.
    assert_eq!(client.get(&format!("runs/get?run_id=x&run_id={run}&unknown=1")).await["run"]["info"]["run_id"], run);
}
