//! `registered-models/*` and `model-versions/*`.

use serde_json::{Value, json};

use crate::client::Expect::{Empty, Like, Ok, Refused};
use crate::client::{Client, EXISTS, INVALID, MISSING, Step, timeless};

#[tokio::test]
async fn a_registered_model_lives_as_recorded() {
    let client = Client::new().await;
    let run = client.new_run().await;
    let v1 = r#"{"name": "m1", "version": "1", "current_stage": "None", "description": "", "source": "s3://b/x",
        "run_id": "$0", "status": "READY", "run_link": ""}"#;
    let steps = [
        Step(
            "POST",
            "registered-models/create",
            r#"{"name": "m1", "tags": [{"key": "a", "value": "b"}], "description": "d"}"#,
            Like(r#"{"registered_model": {"name": "m1", "description": "d", "tags": [{"key": "a", "value": "b"}]}}"#),
        ),
        Step(
            "POST",
            "registered-models/create",
            r#"{"name": "m1"}"#,
            Refused(400, EXISTS, "Registered Model (name=m1) already exists."),
        ),
        Step(
            "POST",
            "registered-models/create",
            r#"{"name": "a/b"}"#,
            Refused(400, INVALID, "Invalid model name 'a/b'. Names cannot contain '/' or ':'."),
        ),
        Step(
            "POST",
            "registered-models/create",
            r#"{"name": ""}"#,
            Refused(400, INVALID, "Missing value for required parameter 'name'.*"),
        ),
        Step(
            "GET",
            "registered-models/get?name=m1",
            "",
            Like(r#"{"registered_model": {"name": "m1", "description": "d", "tags": [{"key": "a", "value": "b"}]}}"#),
        ),
        Step(
            "GET",
            "registered-models/get?name=zz",
            "",
            Refused(404, MISSING, "Registered Model with name=zz not found"),
        ),
        Step(
            "POST",
            "model-versions/create",
            r#"{"name": "m1", "source": "s3://b/x", "run_id": "$0"}"#,
            Like(
                r#"{"model_version": {"name": "m1", "version": "1", "current_stage": "None", "description": "",
                "source": "s3://b/x", "run_id": "$0", "status": "READY", "run_link": ""}}"#,
            ),
        ),
        Step("POST", "model-versions/create", r#"{"name": "m1", "source": "s3://b/x"}"#, Ok),
        Step(
            "POST",
            "model-versions/create",
            r#"{"name": "nomodel", "source": "s3://b/x"}"#,
            Refused(404, MISSING, "Registered Model with name=nomodel not found"),
        ),
        Step(
            "POST",
            "model-versions/create",
            r#"{"name": "m1"}"#,
            Refused(400, INVALID, "Missing value for required parameter 'source'.*"),
        ),
        Step(
            "GET",
            "model-versions/get?name=m1&version=abc",
            "",
            Refused(400, INVALID, "Parameter 'version' must be an integer, got 'abc'."),
        ),
        Step(
            "GET",
            "model-versions/get?name=m1",
            "",
            Refused(400, INVALID, "Missing value for required parameter 'version'.*"),
        ),
        Step(
            "GET",
            "model-versions/get?name=m1&version=9",
            "",
            Refused(404, MISSING, "Model Version (name=m1, version=9) not found"),
        ),
        Step("GET", "model-versions/get-download-uri?name=m1&version=1", "", Like(r#"{"artifact_uri": "s3://b/x"}"#)),
    ];
    client.follows(&[&run], &steps).await;
    let own: Value = serde_json::from_str(&v1.replace("$0", &run)).unwrap();
    let found = client.get("model-versions/get?name=m1&version=1").await;
    assert_eq!(timeless(found), json!({"model_version": own}));

    let steps = [
        Step(
            "POST",
            "registered-models/rename",
            r#"{"name": "m1"}"#,
            Refused(400, INVALID, "Missing value for required parameter 'new_name'.*"),
        ),
        Step("POST", "registered-models/create", r#"{"name": "m3"}"#, Like(r#"{"registered_model": {"name": "m3"}}"#)),
        Step(
            "POST",
            "registered-models/rename",
            r#"{"name": "m1", "new_name": "m3"}"#,
            Refused(400, EXISTS, "Registered Model (name=m3) already exists.*"),
        ),
        Step("POST", "registered-models/rename", r#"{"name": "m1", "new_name": "m2"}"#, Ok),
        Step(
            "GET",
            "registered-models/get?name=m1",
            "",
            Refused(404, MISSING, "Registered Model with name=m1 not found"),
        ),
        Step("PATCH", "registered-models/update", r#"{"name": "m2", "description": "x"}"#, Ok),
        Step("POST", "registered-models/set-tag", r#"{"name": "m2", "key": "k", "value": "v"}"#, Empty),
        Step("DELETE", "registered-models/delete-tag", r#"{"name": "m2", "key": "a"}"#, Empty),
        Step("DELETE", "registered-models/delete-tag", r#"{"name": "m2", "key": "nokey"}"#, Empty),
        Step("POST", "model-versions/set-tag", r#"{"name": "m2", "version": "1", "key": "k", "value": "v"}"#, Empty),
        Step("DELETE", "model-versions/delete-tag", r#"{"name": "m2", "version": "1", "key": "nokey"}"#, Empty),
        Step(
            "PATCH",
            "model-versions/update",
            r#"{"name": "m2", "version": "1", "description": "dd"}"#,
            Like(
                r#"{"model_version": {"name": "m2", "version": "1", "current_stage": "None", "description": "dd",
                "source": "s3://b/x", "run_id": "$0", "status": "READY", "run_link": "", "tags": [{"key": "k", "value": "v"}]}}"#,
            ),
        ),
        Step("DELETE", "model-versions/delete-tag", r#"{"name": "m2", "version": "1", "key": "k"}"#, Empty),
        Step("DELETE", "model-versions/delete", r#"{"name": "m2", "version": "1"}"#, Empty),
        Step(
            "GET",
            "model-versions/get?name=m2&version=1",
            "",
            Refused(404, MISSING, "Model Version (name=m2, version=1) not found"),
        ),
        Step(
            "POST",
            "model-versions/create",
            r#"{"name": "m2", "source": "s3://b/x", "description": "three"}"#,
            Like(
                r#"{"model_version": {"name": "m2", "version": "3", "current_stage": "None", "description": "three",
                "source": "s3://b/x", "run_id": "", "status": "READY", "run_link": ""}}"#,
            ),
        ),
        Step(
            "GET",
            "registered-models/get?name=m2",
            "",
            Like(
                r#"{"registered_model": {"name": "m2", "description": "x", "tags": [{"key": "k", "value": "v"}], "latest_versions": [
                {"name": "m2", "version": "3", "current_stage": "None", "description": "three", "source": "s3://b/x",
                 "run_id": "", "status": "READY", "run_link": ""}]}}"#,
            ),
        ),
        Step(
            "DELETE",
            "registered-models/delete?name=m3",
            "",
            Refused(400, INVALID, "Missing value for required parameter 'name'.*"),
        ),
        Step("DELETE", "registered-models/delete", r#"{"name": "m2"}"#, Empty),
        Step(
            "DELETE",
            "registered-models/delete",
            r#"{"name": "m2"}"#,
            Refused(404, MISSING, "Registered Model with name=m2 not found"),
        ),
    ];
    client.follows(&[&run], &steps).await;
}

#[tokio::test]
async fn stages_and_aliases_are_as_recorded() {
    let client = Client::new().await;
    client.ok("registered-models/create", json!({"name": "m1"})).await;
    for _ in 0..3 {
        client.ok("model-versions/create", json!({"name": "m1", "source": "s3://b/x"})).await;
    }
    let absent = Refused(400, INVALID, "Registered model alias no not found.");
    let reserved = Refused(400, INVALID, "'latest' alias name (case insensitive) is reserved.");
    let steps = [
        Step("POST", "registered-models/alias", r#"{"name": "m1", "alias": "latest", "version": "1"}"#, reserved),
        Step(
            "POST",
            "registered-models/alias",
            r#"{"name": "m1", "alias": "v1", "version": "1"}"#,
            Refused(400, INVALID, "Version alias name 'v1' is reserved."),
        ),
        Step(
            "POST",
            "registered-models/alias",
            r#"{"name": "m1", "alias": "bad alias", "version": "1"}"#,
            Refused(
                400,
                INVALID,
                "Invalid alias name: 'bad alias'. Names may only contain alphanumerics, underscores (_), and dashes (-).",
            ),
        ),
        Step(
            "POST",
            "registered-models/alias",
            r#"{"name": "m1", "alias": "ok", "version": "9"}"#,
            Refused(404, MISSING, "Model Version (name=m1, version=9) not found"),
        ),
        Step("POST", "registered-models/alias", r#"{"name": "m1", "alias": "ok", "version": "1"}"#, Empty),
        Step(
            "GET",
            "registered-models/alias?name=m1&alias=ok",
            "",
            Like(
                r#"{"model_version": {"name": "m1", "version": "1", "current_stage": "None", "description": "",
                "source": "s3://b/x", "run_id": "", "status": "READY", "run_link": "", "aliases": ["ok"]}}"#,
            ),
        ),
        Step("GET", "registered-models/alias?name=m1&alias=no", "", absent),
        Step(
            "GET",
            "registered-models/alias?name=zz&alias=no",
            "",
            Refused(404, MISSING, "Registered Model with name=zz not found"),
        ),
        Step("DELETE", "registered-models/alias", r#"{"name": "m1", "alias": "no"}"#, Empty),
        Step(
            "GET",
            "registered-models/alias?name=m1&alias=latest",
            "",
            Like(
                r#"{"model_version": {"name": "m1", "version": "3", "current_stage": "None", "description": "",
                "source": "s3://b/x", "run_id": "", "status": "READY", "run_link": ""}}"#,
            ),
        ),
        Step(
            "GET",
            "registered-models/alias?name=m1&alias=v1",
            "",
            Refused(400, INVALID, "Registered model alias v1 not found."),
        ),
        Step(
            "POST",
            "model-versions/transition-stage",
            r#"{"name": "m1", "version": "1", "stage": "staging", "archive_existing_versions": true}"#,
            Like(
                r#"{"model_version": {"name": "m1", "version": "1", "current_stage": "Staging", "description": "",
                "source": "s3://b/x", "run_id": "", "status": "READY", "run_link": "", "aliases": ["ok"]}}"#,
            ),
        ),
        Step(
            "POST",
            "model-versions/transition-stage",
            r#"{"name": "m1", "version": "1", "stage": "X"}"#,
            Refused(
                400,
                INVALID,
                "Invalid Model Version stage: X. Value must be one of None, Staging, Production, Archived.",
            ),
        ),
        Step(
            "POST",
            "model-versions/transition-stage",
            r#"{"name": "m1", "version": "1", "stage": "None", "archive_existing_versions": true}"#,
            Refused(400, INVALID, "Model version transition cannot archive*"),
        ),
        Step(
            "POST",
            "model-versions/transition-stage",
            r#"{"name": "m1", "version": "9", "stage": "Staging"}"#,
            Refused(404, MISSING, "Model Version (name=m1, version=9) not found"),
        ),
        Step(
            "POST",
            "registered-models/get-latest-versions",
            r#"{"name": "m1", "stages": ["Staging"]}"#,
            Like(
                r#"{"model_versions": [{"name": "m1", "version": "1", "current_stage": "Staging", "description": "",
                "source": "s3://b/x", "run_id": "", "status": "READY", "run_link": "", "aliases": ["ok"]}]}"#,
            ),
        ),
        Step(
            "GET",
            "registered-models/get-latest-versions?name=m1&stages=None",
            "",
            Like(
                r#"{"model_versions": [{"name": "m1", "version": "3", "current_stage": "None", "description": "",
                "source": "s3://b/x", "run_id": "", "status": "READY", "run_link": ""}]}"#,
            ),
        ),
        Step(
            "POST",
            "registered-models/get-latest-versions",
            r#"{"name": "zz"}"#,
            Refused(404, MISSING, "Registered Model with name=zz not found"),
        ),
        Step(
            "POST",
            "registered-models/get-latest-versions",
            r#"{"name": "m1", "stages": ["Best"]}"#,
            Refused(400, INVALID, "Invalid Model Version stage: Best.*"),
        ),
        Step(
            "POST",
            "model-versions/transition-stage",
            r#"{"name": "m1", "version": "2", "stage": "Staging", "archive_existing_versions": true}"#,
            Ok,
        ),
    ];
    client.follows(&[], &steps).await;
    let model = client.get("registered-models/get?name=m1").await["registered_model"].clone();
    let stages: Vec<_> =
        model["latest_versions"].as_array().unwrap().iter().map(|own| own["current_stage"].clone()).collect();
    assert_eq!(
        (stages, &model["aliases"]),
        (vec!["Archived".into(), "Staging".into(), "None".into()], &json!([{"alias": "ok", "version": "1"}]))
    );
    assert_eq!(model["last_updated_timestamp"], model["latest_versions"][0]["last_updated_timestamp"]);
    client.follows(&[], &[Step("DELETE", "registered-models/alias", r#"{"name": "m1", "alias": "ok"}"#, Empty)]).await;
    assert_eq!(client.get("registered-models/get?name=m1").await["registered_model"].get("aliases"), None);
}

#[tokio::test]
async fn searches_filter_order_and_page() {
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

    let twice = Refused(400, INVALID, "`order_by` contains duplicate fields: *");
    let steps = [
        Step(
            "GET",
            "registered-models/search?max_results=1001",
            "",
            Refused(400, INVALID, "Invalid value 1001 for parameter 'max_results'*"),
        ),
        Step(
            "GET",
            "model-versions/search?max_results=200001",
            "",
            Refused(400, INVALID, "Invalid value 200001 for parameter 'max_results'*"),
        ),
        Step(
            "GET",
            "registered-models/search?filter=name%20%3E%20'x'",
            "",
            Refused(400, INVALID, "Invalid comparator for attribute: >"),
        ),
        Step("GET", "registered-models/search?order_by=name&order_by=name%20DESC", "", twice),
        Step("GET", "registered-models/search?page_token=!", "", Refused(400, INVALID, "Invalid page token*")),
    ];
    client.follows(&[], &steps).await;
}
