//! `registered-models/*` and `model-versions/*`, compared with recorded answers of MLflow's server.

use serde_json::{Value, json};

use crate::client::Expect::{Empty, Exists, Invalid, Like, Missing, Success};
use crate::client::{Client, delete, get, patch, post, without_times};

#[tokio::test]
async fn the_calls_of_a_registered_model_are_answered_as_recorded() {
    let client = Client::new().await;
    let run = client.new_run().await;
    let v1 = r#"{"name": "m1", "version": "1", "current_stage": "None", "description": "", "source": "s3://b/x",
        "run_id": "$0", "status": "READY", "run_link": ""}"#;
    let steps = [
        post(
            "registered-models/create",
            r#"{"name": "m1", "tags": [{"key": "a", "value": "b"}], "description": "d"}"#,
            Like(r#"{"registered_model": {"name": "m1", "description": "d", "tags": [{"key": "a", "value": "b"}]}}"#),
        ),
        post("registered-models/create", r#"{"name": "m1"}"#, Exists("Registered Model (name=m1) already exists.")),
        post(
            "registered-models/create",
            r#"{"name": "a/b"}"#,
            Invalid("Invalid model name 'a/b'. Names cannot contain '/' or ':'."),
        ),
        post("registered-models/create", r#"{"name": ""}"#, Invalid("Missing value for required parameter 'name'.*")),
        get(
            "registered-models/get?name=m1",
            Like(r#"{"registered_model": {"name": "m1", "description": "d", "tags": [{"key": "a", "value": "b"}]}}"#),
        ),
        get("registered-models/get?name=zz", Missing("Registered Model with name=zz not found")),
        post(
            "model-versions/create",
            r#"{"name": "m1", "source": "s3://b/x", "run_id": "$0"}"#,
            Like(
                r#"{"model_version": {"name": "m1", "version": "1", "current_stage": "None", "description": "",
                "source": "s3://b/x", "run_id": "$0", "status": "READY", "run_link": ""}}"#,
            ),
        ),
        post("model-versions/create", r#"{"name": "m1", "source": "s3://b/x"}"#, Success),
        post(
            "model-versions/create",
            r#"{"name": "nomodel", "source": "s3://b/x"}"#,
            Missing("Registered Model with name=nomodel not found"),
        ),
        post("model-versions/create", r#"{"name": "m1"}"#, Invalid("Missing value for required parameter 'source'.*")),
        get("model-versions/get?name=m1&version=abc", Invalid("Parameter 'version' must be an integer, got 'abc'.")),
        get("model-versions/get?name=m1", Invalid("Missing value for required parameter 'version'.*")),
        get("model-versions/get?name=m1&version=9", Missing("Model Version (name=m1, version=9) not found")),
        get("model-versions/get-download-uri?name=m1&version=1", Like(r#"{"artifact_uri": "s3://b/x"}"#)),
    ];
    client.run_steps(&[&run], &steps).await;
    let own: Value = serde_json::from_str(&v1.replace("$0", &run)).unwrap();
    let found = client.get("model-versions/get?name=m1&version=1").await;
    assert_eq!(without_times(found), json!({"model_version": own}));

    let steps = [
        post(
            "registered-models/rename",
            r#"{"name": "m1"}"#,
            Invalid("Missing value for required parameter 'new_name'.*"),
        ),
        post("registered-models/create", r#"{"name": "m3"}"#, Like(r#"{"registered_model": {"name": "m3"}}"#)),
        post(
            "registered-models/rename",
            r#"{"name": "m1", "new_name": "m3"}"#,
            Exists("Registered Model (name=m3) already exists.*"),
        ),
        post("registered-models/rename", r#"{"name": "m1", "new_name": "m2"}"#, Success),
        get("registered-models/get?name=m1", Missing("Registered Model with name=m1 not found")),
        patch("registered-models/update", r#"{"name": "m2", "description": "x"}"#, Success),
        post("registered-models/set-tag", r#"{"name": "m2", "key": "k", "value": "v"}"#, Empty),
        delete("registered-models/delete-tag", r#"{"name": "m2", "key": "a"}"#, Empty),
        delete("registered-models/delete-tag", r#"{"name": "m2", "key": "nokey"}"#, Empty),
        post("model-versions/set-tag", r#"{"name": "m2", "version": "1", "key": "k", "value": "v"}"#, Empty),
        delete("model-versions/delete-tag", r#"{"name": "m2", "version": "1", "key": "nokey"}"#, Empty),
        patch(
            "model-versions/update",
            r#"{"name": "m2", "version": "1", "description": "dd"}"#,
            Like(
                r#"{"model_version": {"name": "m2", "version": "1", "current_stage": "None", "description": "dd",
                "source": "s3://b/x", "run_id": "$0", "status": "READY", "run_link": "", "tags": [{"key": "k", "value": "v"}]}}"#,
            ),
        ),
        delete("model-versions/delete-tag", r#"{"name": "m2", "version": "1", "key": "k"}"#, Empty),
        delete("model-versions/delete", r#"{"name": "m2", "version": "1"}"#, Empty),
        get("model-versions/get?name=m2&version=1", Missing("Model Version (name=m2, version=1) not found")),
        post(
            "model-versions/create",
            r#"{"name": "m2", "source": "s3://b/x", "description": "three"}"#,
            Like(
                r#"{"model_version": {"name": "m2", "version": "3", "current_stage": "None", "description": "three",
                "source": "s3://b/x", "run_id": "", "status": "READY", "run_link": ""}}"#,
            ),
        ),
        get(
            "registered-models/get?name=m2",
            Like(
                r#"{"registered_model": {"name": "m2", "description": "x", "tags": [{"key": "k", "value": "v"}], "latest_versions": [
                {"name": "m2", "version": "3", "current_stage": "None", "description": "three", "source": "s3://b/x",
                 "run_id": "", "status": "READY", "run_link": ""}]}}"#,
            ),
        ),
        delete("registered-models/delete?name=m3", "", Invalid("Missing value for required parameter 'name'.*")),
        delete("registered-models/delete", r#"{"name": "m2"}"#, Empty),
        delete("registered-models/delete", r#"{"name": "m2"}"#, Missing("Registered Model with name=m2 not found")),
    ];
    client.run_steps(&[&run], &steps).await;
}

#[tokio::test]
async fn stages_and_aliases_are_answered_as_recorded() {
    let client = Client::new().await;
    client.new_model("m1", 3).await;
    let absent = Invalid("Registered model alias no not found.");
    let reserved = Invalid("'latest' alias name (case insensitive) is reserved.");
    let steps = [
        post("registered-models/alias", r#"{"name": "m1", "alias": "latest", "version": "1"}"#, reserved),
        post(
            "registered-models/alias",
            r#"{"name": "m1", "alias": "v1", "version": "1"}"#,
            Invalid("Version alias name 'v1' is reserved."),
        ),
        post(
            "registered-models/alias",
            r#"{"name": "m1", "alias": "bad alias", "version": "1"}"#,
            Invalid(
                "Invalid alias name: 'bad alias'. Names may only contain alphanumerics, underscores (_), and dashes (-).",
            ),
        ),
        post(
            "registered-models/alias",
            r#"{"name": "m1", "alias": "ok", "version": "9"}"#,
            Missing("Model Version (name=m1, version=9) not found"),
        ),
        post("registered-models/alias", r#"{"name": "m1", "alias": "ok", "version": "1"}"#, Empty),
        get(
            "registered-models/alias?name=m1&alias=ok",
            Like(
                r#"{"model_version": {"name": "m1", "version": "1", "current_stage": "None", "description": "",
                "source": "s3://b/x", "run_id": "", "status": "READY", "run_link": "", "aliases": ["ok"]}}"#,
            ),
        ),
        get("registered-models/alias?name=m1&alias=no", absent),
        get("registered-models/alias?name=zz&alias=no", Missing("Registered Model with name=zz not found")),
        delete("registered-models/alias", r#"{"name": "m1", "alias": "no"}"#, Empty),
        get(
            "registered-models/alias?name=m1&alias=latest",
            Like(
                r#"{"model_version": {"name": "m1", "version": "3", "current_stage": "None", "description": "",
                "source": "s3://b/x", "run_id": "", "status": "READY", "run_link": ""}}"#,
            ),
        ),
        get("registered-models/alias?name=m1&alias=v1", Invalid("Registered model alias v1 not found.")),
        post(
            "model-versions/transition-stage",
            r#"{"name": "m1", "version": "1", "stage": "staging", "archive_existing_versions": true}"#,
            Like(
                r#"{"model_version": {"name": "m1", "version": "1", "current_stage": "Staging", "description": "",
                "source": "s3://b/x", "run_id": "", "status": "READY", "run_link": "", "aliases": ["ok"]}}"#,
            ),
        ),
        post(
            "model-versions/transition-stage",
            r#"{"name": "m1", "version": "1", "stage": "X"}"#,
            Invalid("Invalid Model Version stage: X. Value must be one of None, Staging, Production, Archived."),
        ),
        post(
            "model-versions/transition-stage",
            r#"{"name": "m1", "version": "1", "stage": "None", "archive_existing_versions": true}"#,
            Invalid("Model version transition cannot archive*"),
        ),
        post(
            "model-versions/transition-stage",
            r#"{"name": "m1", "version": "9", "stage": "Staging"}"#,
            Missing("Model Version (name=m1, version=9) not found"),
        ),
        post(
            "registered-models/get-latest-versions",
            r#"{"name": "m1", "stages": ["Staging"]}"#,
            Like(
                r#"{"model_versions": [{"name": "m1", "version": "1", "current_stage": "Staging", "description": "",
                "source": "s3://b/x", "run_id": "", "status": "READY", "run_link": "", "aliases": ["ok"]}]}"#,
            ),
        ),
        get(
            "registered-models/get-latest-versions?name=m1&stages=None",
            Like(
                r#"{"model_versions": [{"name": "m1", "version": "3", "current_stage": "None", "description": "",
                "source": "s3://b/x", "run_id": "", "status": "READY", "run_link": ""}]}"#,
            ),
        ),
        post(
            "registered-models/get-latest-versions",
            r#"{"name": "zz"}"#,
            Missing("Registered Model with name=zz not found"),
        ),
        post(
            "registered-models/get-latest-versions",
            r#"{"name": "m1", "stages": ["Best"]}"#,
            Invalid("Invalid Model Version stage: Best.*"),
        ),
        post(
            "model-versions/transition-stage",
            r#"{"name": "m1", "version": "2", "stage": "Staging", "archive_existing_versions": true}"#,
            Success,
        ),
    ];
    client.run_steps(&[], &steps).await;
    let model = client.get("registered-models/get?name=m1").await["registered_model"].clone();
    let stages: Vec<_> =
        model["latest_versions"].as_array().unwrap().iter().map(|version| version["current_stage"].clone()).collect();
    assert_eq!(
        (stages, &model["aliases"]),
        (vec!["Archived".into(), "Staging".into(), "None".into()], &json!([{"alias": "ok", "version": "1"}]))
    );
    assert_eq!(model["last_updated_timestamp"], model["latest_versions"][0]["last_updated_timestamp"]);
    client.run_steps(&[], &[delete("registered-models/alias", r#"{"name": "m1", "alias": "ok"}"#, Empty)]).await;
    assert_eq!(client.get("registered-models/get?name=m1").await["registered_model"].get("aliases"), None);
}

#[tokio::test]
async fn searches_filter_order_and_paginate() {
    let client = Client::new().await;
    for name in ["a", "b", "c"] {
        client.ok("registered-models/create", json!({"name": name, "tags": [{"key": "desk", "value": name}]})).await;
        client.ok("model-versions/create", json!({"name": name, "source": "s3://b/x"})).await;
    }
    let prompt = json!([{"key": "mlflow.prompt.is_prompt", "value": "true"}]);
    client.ok("registered-models/create", json!({"name": "p", "tags": prompt})).await;
    let names = |answer: Value, list: &str| -> Vec<String> {
        let items = answer[list].as_array().cloned().unwrap_or_default();
        items.iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
    };
    let found = client.get("registered-models/search").await;
    assert_eq!(found["registered_models"][0]["latest_versions"][0]["version"], "1");
    assert_eq!(names(found, "registered_models"), ["a", "b", "c"]);
    let page = client.get("registered-models/search?max_results=2&order_by=name%20DESC").await;
    let token = page["next_page_token"].as_str().unwrap().to_owned();
    assert_eq!(names(page, "registered_models"), ["c", "b"]);
    let page =
        client.get(&format!("registered-models/search?max_results=2&order_by=name%20DESC&page_token={token}")).await;
    assert_eq!((page.get("next_page_token"), names(page.clone(), "registered_models")), (None, vec!["a".into()]));
    let filtered = "model-versions/search?filter=name%20%3D%20'b'&order_by=version_number%20DESC&order_by=name";
    assert_eq!(names(client.get(filtered).await, "model_versions"), ["b"]);
    assert_eq!(client.get("model-versions/search?filter=run_id%3D'none'").await, json!({}));

    let twice = Invalid("`order_by` contains duplicate fields: *");
    let steps = [
        get("registered-models/search?max_results=1001", Invalid("Invalid value 1001 for parameter 'max_results'*")),
        get("model-versions/search?max_results=200001", Invalid("Invalid value 200001 for parameter 'max_results'*")),
        get("registered-models/search?filter=name%20%3E%20'x'", Invalid("Invalid comparator for attribute: >")),
        get("registered-models/search?order_by=name&order_by=name%20DESC", twice),
        get("registered-models/search?page_token=!", Invalid("Invalid page token*")),
    ];
    client.run_steps(&[], &steps).await;
}
