//! `experiments/*`, compared with recorded answers of MLflow's server.

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};

use crate::client::Expect::{Empty, Exists, Invalid, Is, Missing, Success};
use crate::client::{A, Client, INVALID, assert_error, get, post};

const NAME_MISSING: &str =
    "Missing value for required parameter 'name'. See the API docs for more information about request parameters.";
const ID_MISSING: &str = "Missing value for required parameter 'experiment_id'. See the API docs for more information \
                          about request parameters.";
const GONE: &str = "The experiment 2 must be in the 'active' state. Current state is deleted.";

#[tokio::test]
async fn experiments_are_answered_as_recorded() {
    let client = Client::new().await;
    let long = json!({"name": "n".repeat(501)}).to_string();
    client
        .run_steps(
            &[],
            &[
                post("experiments/create", "{}", Invalid(NAME_MISSING)),
                post("experiments/create", r#"{"name": 123}"#, Invalid("Invalid value 123 for parameter 'name' supplied: Hint: Value was of type 'int'. See the API docs for \
                         more information about request parameters.")),
                post("experiments/create", r#"{"name": ""}"#, Invalid(NAME_MISSING)),
                post("experiments/create", "{bad json", Invalid(NAME_MISSING)),
                post("experiments/create", r#""{\"name\":\"dbl\"}""#, Is(r#"{"experiment_id": "1"}"#)),
                get("experiments/get", Invalid(ID_MISSING)),
                get("experiments/get?experiment_id=abc", Invalid("Invalid experiment ID 'abc'. Experiment ID must be a valid integer.")),
                get("experiments/get?experimentId=0", Invalid(ID_MISSING)),
                get("experiments/get?experiment_id=99", Missing("No Experiment with id=99 exists")),
                get("experiments/get-by-name?experiment_name=dbl", Success),
                get("experiments/get-by-name?experiment_name=DBL", Missing("Could not find *")),
                post("experiments/create", r#"{"name": "e1", "unknown_field": 1, "tags": [{"key": "a", "value": "b"}]}"#, Is(r#"{"experiment_id": "2"}"#)),
                post("experiments/create", r#"{"name": "e1"}"#, Exists("Experiment(name=e1) already exists.*")),
                post("experiments/delete", r#"{"experiment_id": "2"}"#, Empty),
                post("experiments/delete", r#"{"experiment_id": "2"}"#, Missing("No Experiment with id=2 exists")),
                post("experiments/create", r#"{"name": "e1"}"#, Exists("Experiment(name=e1) already exists.*")),
                post("runs/create", r#"{"experiment_id": "2"}"#, Invalid(GONE)),
                post("experiments/set-experiment-tag", r#"{"experiment_id": "2", "key": "a", "value": "v"}"#, Invalid(GONE)),
                post("experiments/restore", r#"{"experiment_id": "2"}"#, Empty),
                post("experiments/restore", r#"{"experiment_id": "2"}"#, Missing("No Experiment with id=2 exists")),
                post("experiments/delete-experiment-tag", r#"{"experiment_id": "2", "key": "zz"}"#, Missing("No tag with name: zz in experiment with id 2")),
                post("experiments/delete-experiment-tag", r#"{"experiment_id": "2", "key": "a"}"#, Empty),
                post("experiments/update", r#"{"experiment_id": "2"}"#, Invalid("Missing value for required parameter 'new_name'*")),
                post("experiments/update", r#"{"experiment_id": "2", "new_name": "dbl"}"#, Exists("Experiment(name=dbl) already exists.*")),
                post("experiments/update", r#"{"experiment_id": "2", "new_name": "e2"}"#, Empty),
                post("experiments/update", r#"{"experiment_id": "7", "new_name": "e7"}"#, Missing("No Experiment with id=7 exists")),
            ],
        )
        .await;
    let answer = client.send("POST", "experiments/create", long).await;
    let message = "'name' exceeds the maximum length of 500 characters";
    assert_error("a long name", &answer, 400, INVALID, message);
    // The limit counts characters, not bytes.
    client.experiment(&"ü".repeat(500)).await;
}

#[tokio::test]
async fn a_body_needs_the_content_type_json() {
    let client = Client::new().await;
    let message = "Bad Request. Content-Type must be one of ['application/json'].";
    for kind in [None, Some("text/plain"), Some("application/x-www-form-urlencoded")] {
        let mut request = Request::post(format!("{A}/experiments/create"));
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        let answer = client.service.send(request.body(Body::from(r#"{"name":"ctx"}"#)).unwrap()).await;
        assert_error("no content type", &answer, 400, INVALID, message);
    }
    let path = format!("{A}/experiments/create");
    let answer = client.service.post(&path, "application/JSON; charset=utf-8", r#"{"name":"ctx"}"#).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn an_unknown_endpoint_is_404_and_a_wrong_method_405() {
    let client = Client::new().await;
    for path in ["nope/nope", "experiments", "runs/get/x"] {
        let answer = client.send("GET", path, "").await;
        assert_error(path, &answer, 404, "ENDPOINT_NOT_FOUND", "*");
    }
    for (method, path) in [("GET", "experiments/create"), ("POST", "experiments/get"), ("PUT", "runs/create")] {
        assert_eq!(client.send(method, path, "{}").await.status, 405, "{method} {path}");
    }
    let answer = client.service.get("/version").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "3.17.2"));
}

#[tokio::test]
async fn an_experiment_has_only_the_fields_that_are_set() {
    let client = Client::new().await;
    // The default experiment has no row before the first write to it.
    let implicit = client.get("experiments/get?experiment_id=0").await["experiment"].clone();
    let expected = json!({
        "experiment_id": "0", "name": "Default", "artifact_location": "mlflow-artifacts:/0", "lifecycle_stage": "active",
        "workspace": "default",
    });
    assert_eq!(implicit, expected);
    client.ok("runs/create", json!({"experiment_id": "0", "start_time": 1})).await;
    let default = client.get("experiments/get?experiment_id=0").await["experiment"].clone();
    let times = json!([default["creation_time"], default["last_update_time"]]);
    assert!(times[0].as_i64().unwrap() > 1_600_000_000_000 && times[0] == times[1], "{times}");
    let expected = json!({
        "experiment_id": "0", "name": "Default", "artifact_location": "mlflow-artifacts:/0", "lifecycle_stage": "active",
        "creation_time": times[0], "last_update_time": times[1], "workspace": "default",
    });
    assert_eq!(default, expected);
    let answer = client.send("GET", "experiments/get?experiment_id=0", "").await;
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!(answer.headers["x-content-type-options"], "nosniff");

    let tags = json!([{"key": "b", "value": ""}, {"key": "a", "value": "ü\"'"}]);
    let body = json!({"name": "é / \"x\"", "artifact_location": "s3://bucket/x/", "tags": tags});
    let id = client.ok("experiments/create", body).await["experiment_id"].clone();
    assert_eq!(id, "1");
    let shown = client.get("experiments/get?experiment_id=1").await["experiment"].clone();
    assert_eq!((&shown["name"], &shown["artifact_location"]), (&json!("é / \"x\""), &json!("s3://bucket/x/")));
    assert_eq!(shown["tags"], json!([{"key": "a", "value": "ü\"'"}, {"key": "b", "value": ""}]));
    let by_name = client.get("experiments/get-by-name?experiment_name=%C3%A9%20%2F%20%22x%22").await;
    assert_eq!(by_name["experiment"], shown);
    // The artifacts of a run lie below the experiment's location.
    let run = client.ok("runs/create", json!({"experiment_id": "1"})).await["run"]["info"].clone();
    let uri = format!("s3://bucket/x/{}/artifacts", run["run_id"].as_str().unwrap());
    assert_eq!(run["artifact_uri"], uri);
    client.ok("experiments/delete", json!({"experiment_id": "1"})).await;
    assert_eq!(client.get("experiments/get?experiment_id=1").await["experiment"]["lifecycle_stage"], "deleted");
}

#[tokio::test]
async fn a_tag_of_an_experiment_holds_20_000_characters() {
    let client = Client::new().await;
    // The web UI stores the description of an experiment in a tag.
    let note = "x".repeat(20_000);
    let body = |value: &str| json!({"experiment_id": "0", "key": "mlflow.note.content", "value": value});
    client.ok("experiments/set-experiment-tag", body(&note)).await;
    let shown = client.get("experiments/get?experiment_id=0").await["experiment"].clone();
    assert_eq!(shown["tags"][0]["value"].as_str().unwrap().len(), 20_000, "the value was cut");
    // The limit counts characters, not bytes.
    client.ok("experiments/set-experiment-tag", body(&"🦀".repeat(20_000))).await;
    let shown = client.get("experiments/get?experiment_id=0").await["experiment"].clone();
    assert_eq!(shown["tags"][0]["value"].as_str().unwrap().chars().count(), 20_000);
    let message = "'value' exceeds the maximum length of 20000 characters";
    client.rejects("experiments/set-experiment-tag", body(&"x".repeat(20_001)), 400, INVALID, message).await;
    let create = json!({"name": "long", "tags": [{"key": "k", "value": "x".repeat(20_001)}]});
    client.rejects("experiments/create", create, 400, INVALID, message).await;
    assert_eq!(client.get("experiments/get?experiment_id=0").await["experiment"], shown);
}

#[tokio::test]
async fn experiments_are_searched_as_recorded() {
    let client = Client::new().await;
    client.experiment("first").await;
    client.ok("experiments/create", json!({"name": "e1", "tags": [{"key": "a", "value": "b"}]})).await;
    let size = |size: &str| format!("Invalid value {size} for parameter 'max_results' supplied. It must be *");
    for (body, message) in [
        (json!({}), size("0")),
        (json!({"max_results": 0}), size("0")),
        (json!({"max_results": -1}), size("-1")),
        (json!({"max_results": 50001}), size("50001")),
        (json!({"max_results": 1, "page_token": "zzz"}), "Invalid page token, could not base64-decode".into()),
        (json!({"max_results": 1, "page_token": "e30="}), "Invalid page token*".into()),
        (
            json!({"max_results": 5, "filter": "bad = 'x'"}),
            "Invalid attribute key 'bad' specified. Valid keys are *".into(),
        ),
        (
            json!({"max_results": 5, "order_by": ["bad"]}),
            "Invalid attribute key 'bad' specified. Valid keys are *".into(),
        ),
    ] {
        client.rejects("experiments/search", body, 400, INVALID, &message).await;
    }
    let ids = |answer: &Value| -> Vec<String> {
        let of = |experiment: &Value| experiment["experiment_id"].as_str().unwrap().to_owned();
        answer["experiments"].as_array().unwrap().iter().map(of).collect()
    };
    let page = client.ok("experiments/search", json!({"max_results": "2"})).await;
    assert_eq!((ids(&page), page["next_page_token"].as_str().is_some()), (vec!["2".into(), "1".into()], true));
    // GET returns the same; list parameters are repeated.
    let by_get = client.get("experiments/search?max_results=2").await;
    assert_eq!(by_get, page);
    let token = page["next_page_token"].as_str().unwrap().replace('=', "%3D");
    let last = client.get(&format!("experiments/search?max_results=2&page_token={token}")).await;
    assert_eq!((ids(&last), last.get("next_page_token")), (vec!["0".into()], None));
    let ordered = client.get("experiments/search?max_results=9&order_by=name+DESC&order_by=experiment_id").await;
    assert_eq!(ids(&ordered), ["1", "2", "0"]);
    let found = client.get("experiments/search?max_results=9&filter=tags.a+%3D+%27b%27").await;
    assert_eq!(ids(&found), ["2"]);
    assert_eq!(client.get("experiments/search?max_results=9&filter=name+%3D+%27zz%27").await, json!({}));
    client.ok("experiments/delete", json!({"experiment_id": "2"})).await;
    for (view, expected) in [("ACTIVE_ONLY", &["1", "0"][..]), ("DELETED_ONLY", &["2"]), ("ALL", &["2", "1", "0"])] {
        let found = client.ok("experiments/search", json!({"max_results": 9, "view_type": view})).await;
        assert_eq!(ids(&found), expected, "{view}");
    }
    assert_eq!(ids(&client.ok("experiments/search", json!({"max_results": 9})).await), ["1", "0"]);
}
