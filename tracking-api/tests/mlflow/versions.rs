//! Model versions: their files and their sources.

use serde_json::json;

use crate::client::Expect::{Invalid, Like, Missing, Success};
use crate::client::{Client, EXISTS, get, post};

const MODELS: &str = "registered-models";

#[tokio::test]
async fn a_version_keeps_the_files_of_the_time_of_its_registration() {
    let client = Client::new().await;
    let run = client.new_run().await;
    let put = async |path: &str, bytes: &'static str| {
        let path = format!("/api/2.0/mlflow-artifacts/artifacts/0/{path}");
        let request = axum::http::Request::put(path).body(axum::body::Body::from(bytes)).unwrap();
        assert_eq!(client.service.send(request).await.status, 200);
    };
    put(&format!("{run}/artifacts/model/MLmodel"), "flavors: {}").await;
    put(&format!("{run}/artifacts/model/data/model.pkl"), "one").await;
    client.ok("registered-models/create", json!({"name": "m"})).await;
    let source = format!("runs:/{run}/model");
    client.ok("model-versions/create", json!({"name": "m", "source": source, "run_id": run})).await;
    // The source changes; the version does not.
    put(&format!("{run}/artifacts/model/data/model.pkl"), "two").await;
    let file = async |path: &str| {
        let request = axum::http::Request::get(path).body(axum::body::Body::empty()).unwrap();
        let answer = client.service.send(request).await;
        (answer.status, answer.body)
    };
    let of_version = file("/model-versions/get-artifact?name=m&version=1&path=data/model.pkl").await;
    assert_eq!(of_version, (200, "one".to_owned()));
    assert_eq!(file("/model-versions/get-artifact?name=m&version=1&path=none").await.0, 404);
    assert_eq!(file("/model-versions/get-artifact?name=m&version=x&path=MLmodel").await.0, 400);
    assert_eq!(file("/model-versions/get-artifact?name=m&version=1&path=../MLmodel").await.0, 400);
    let uri = client.get("model-versions/get-download-uri?name=m&version=1").await;
    assert_eq!(uri["artifact_uri"], format!("mlflow-artifacts:/0/{run}/artifacts/model"));
    // A copy of a version has the same files.
    let copied = client.ok("model-versions/create", json!({"name": "m", "source": "models:/m/1"})).await;
    assert_eq!(copied["model_version"]["version"], "2");
    let uri = client.get("model-versions/get-download-uri?name=m&version=2").await;
    assert_eq!(uri["artifact_uri"], format!("mlflow-artifacts:/0/{run}/artifacts/model"));
}

#[tokio::test]
async fn a_source_must_lie_in_the_run_or_model_of_the_call() {
    let client = Client::new().await;
    let (run, other) = (client.new_run().await, client.new_run().await);
    let made = client.ok("logged-models", json!({"experiment_id": "0", "name": "lm", "source_run_id": run})).await;
    let model = made["model"]["info"]["model_id"].as_str().unwrap().to_owned();
    client.ok(&format!("{MODELS}/create"), json!({"name": "m"})).await;
    const LOCAL: &str = "Invalid model version source: '/etc/passwd'. To use a local path as a model version source, the \
        run_id request parameter has to be specified and the local path has to be contained within the artifact directory \
        of the run specified by the run_id.";
    let create = "model-versions/create";
    let steps = [
        post(create, r#"{"name": "m", "source": "/etc/passwd"}"#, Invalid(LOCAL)),
        post(
            create,
            r#"{"name": "m", "source": "file:///etc", "run_id": "$0"}"#,
            Invalid("Invalid model version source*"),
        ),
        post(
            create,
            r#"{"name": "m", "source": "models:/m-0/"}"#,
            Invalid(
                "Invalid model version source: 'models:/m-0/'. The model_id request parameter must identify the resource that contains the source.",
            ),
        ),
        post(
            create,
            r#"{"name": "m", "source": "models:/$2", "model_id": "m-1"}"#,
            Missing("Logged model with ID 'm-1' not found."),
        ),
        post(
            create,
            r#"{"name": "m", "source": "runs:/$0/x", "run_id": "$1"}"#,
            Invalid("Invalid model version source*"),
        ),
        post(
            create,
            r#"{"name": "m", "source": "mlflow-artifacts:/0/$0/artifacts/x", "run_id": "$1"}"#,
            Invalid("Invalid model version source*"),
        ),
        post(
            create,
            r#"{"name": "m", "source": "mlflow-artifacts:/0/$0/artifactsX", "run_id": "$0"}"#,
            Invalid("Invalid model version source*"),
        ),
        post(
            create,
            r#"{"name": "m", "source": "runs:/$0/%252e%252e/x", "run_id": "$0"}"#,
            Invalid("Invalid model version source*"),
        ),
        post(
            create,
            r#"{"name": "m", "source": "models:/m/7"}"#,
            Missing("Model Version (name=m, version=7) not found"),
        ),
        post(create, r#"{"name": "m", "source": "models:/m@none"}"#, Invalid("Invalid model version source*")),
        post(create, r#"{"name": "m", "source": "mlflow-artifacts:/0/$0/artifacts/x", "run_id": "$0"}"#, Success),
        post(
            create,
            r#"{"name": "m", "source": "models:/$2", "model_id": "$2"}"#,
            Like(
                r#"{"model_version": {"name": "m", "version": "2", "current_stage": "None", "description": "",
                "source": "models:/$2", "run_id": "$0", "status": "READY", "run_link": ""}}"#,
            ),
        ),
        get(
            "model-versions/get-download-uri?name=m&version=2",
            Like(r#"{"artifact_uri": "mlflow-artifacts:/0/models/$2/artifacts"}"#),
        ),
    ];
    client.run_steps(&[&run, &other, &model], &steps).await;
}

#[tokio::test]
async fn law_09_concurrently_created_versions_get_distinct_numbers() {
    let client = Client::new().await;
    client.ok("registered-models/create", json!({"name": "m"})).await;
    let made = (0..20).map(|_| client.ok("model-versions/create", json!({"name": "m", "source": "s3://b/x"})));
    let made = futures::future::join_all(made).await;
    let mut numbers: Vec<i64> =
        made.iter().map(|answer| answer["model_version"]["version"].as_str().unwrap().parse().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=20).collect::<Vec<_>>());
    let names = (0..8).map(|_| client.post("registered-models/create", json!({"name": "one"})));
    let answers = futures::future::join_all(names).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 1);
    assert!(answers.iter().filter(|answer| answer.status != 200).all(|answer| answer.json()["error_code"] == EXISTS));
}

#[tokio::test]
async fn invalid_models_are_rejected_without_an_event() {
    let client = Client::new().await;
    client.new_model("m", 1).await;
    let before = client.event_count().await;
    let long = "x".repeat(300);
    for (method, path, body) in [
        ("POST", "registered-models/create", json!({"name": long})),
        ("POST", "registered-models/create", json!({"name": 7})),
        ("POST", "registered-models/create", json!({"name": "a\u{0}b"})),
        ("POST", "registered-models/create", json!({"name": "t", "tags": [{"key": "../a", "value": ""}]})),
        (
            "POST",
            "registered-models/create",
            json!({"name": "t", "tags": [{"key": "k", "value": "v".repeat(100_001)}]}),
        ),
        ("POST", "registered-models/create", json!({"name": "t", "tags": "x"})),
        ("POST", "registered-models/rename", json!({"name": "m", "new_name": "a:b"})),
        ("POST", "registered-models/set-tag", json!({"name": "m", "value": "v"})),
        ("POST", "registered-models/alias", json!({"name": "m", "alias": long, "version": "1"})),
        ("POST", "registered-models/alias", json!({"name": "m", "alias": "a", "version": {"a": 1}})),
        ("POST", "model-versions/create", json!({"name": "m", "source": "x".repeat(70_000)})),
        ("POST", "model-versions/create", json!({"name": "m", "source": "s3://b/x", "run_link": "x".repeat(70_000)})),
        ("POST", "model-versions/transition-stage", json!({"name": "m", "version": "1", "stage": 1})),
        (
            "POST",
            "model-versions/transition-stage",
            json!({"name": "m", "version": "99999999999999999999", "stage": "Staging"}),
        ),
        ("PATCH", "model-versions/update", json!({"name": "m", "version": "1", "description": "d".repeat(70_000)})),
        ("GET", "registered-models/alias?name=m", json!(null)),
        ("GET", "registered-models/get?name=m&as_of=yesterday", json!(null)),
        ("GET", "registered-models/search?filter=name%20%3D%3D%20'x'", json!(null)),
    ] {
        let answer = client.send(method, path, body.to_string()).await;
        assert!((400..500).contains(&answer.status), "{method} {path} {}: {}", answer.status, answer.body);
    }
    assert_eq!(client.event_count().await, before);
}
