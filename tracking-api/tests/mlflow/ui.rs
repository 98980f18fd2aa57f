//! The files of the web UI, and the endpoints that only the UI calls.

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};

use crate::client::Expect::{Invalid, Is};
use crate::client::{Client, post};

#[tokio::test]
async fn only_the_files_of_the_ui_are_served() {
    let client = Client::new().await;
    for prefix in ["", "/tenants/acme"] {
        let page = client.service.get(&format!("{prefix}/")).await;
        assert_eq!((page.status, page.headers["cache-control"].to_str().unwrap()), (200, "no-cache"));
        assert!(page.body.contains("<title>ui</title>"));
        let script = client.service.get(&format!("{prefix}/static-files/static/a.js")).await;
        assert_eq!((script.status, script.body.as_str()), (200, "let a;"));
        assert_eq!(script.headers["content-type"], "text/javascript");
    }
    for outside in ["..%2fui%2findex.html", "%2e%2e/data/log.db", "static/none.js", "..%5c..%5cdata", "static"] {
        let answer = client.service.get(&format!("/static-files/{outside}")).await;
        assert!((300..500).contains(&answer.status), "{outside}: {}", answer.status);
    }
}

#[tokio::test]
async fn the_server_lists_its_features() {
    let client = Client::new().await;
    for prefix in ["/api/3.0/mlflow", "/ajax-api/3.0/mlflow"] {
        let about = client.service.get(&format!("{prefix}/server-info")).await.json();
        assert_eq!((&about["store_type"], &about["features_enabled"]["gateway"]), (&json!("SqlStore"), &json!(false)));
        assert_eq!(client.service.get(&format!("{prefix}/ui-telemetry")).await.json()["disable_ui_telemetry"], true);
        assert_eq!(client.service.get(&format!("{prefix}/traces")).await.status, 404);
        assert_eq!(client.service.get(&format!("{prefix}/scorers/list?experiment_id=0")).await.json(), json!({}));
    }
    assert_eq!(client.get("gateway-proxy?gateway_path=api/2.0/endpoints/").await, json!({"endpoints": []}));
}

async fn graphql(client: &Client, name: &str, variables: Value) -> Value {
    let body = json!({"operationName": name, "variables": variables, "query": "query"}).to_string();
    let request = Request::post("/graphql").header("content-type", "application/json").body(Body::from(body)).unwrap();
    let answer = client.service.send(request).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()
}

#[tokio::test]
async fn graphql_returns_the_run_of_a_page() {
    let client = Client::new().await;
    let run = client.new_run().await;
    let batch = json!({
        "run_id": run,
        "metrics": [{"key": "m", "value": 1.5, "timestamp": 9_007_199_254_740_993i64, "step": 3}, {"key": "n", "value": "NaN", "timestamp": 1}],
        "params": [{"key": "p", "value": "1"}],
    });
    client.ok("runs/log-batch", batch).await;
    let dataset = json!({"run_id": run, "datasets": [{
        "dataset": {"name": "d", "digest": "abc", "source_type": "local", "source": "s"},
        "tags": [{"key": "mlflow.data.context", "value": "training"}],
    }]});
    client.ok("runs/log-inputs", dataset).await;
    client.ok("registered-models/create", json!({"name": "m"})).await;
    client.ok("model-versions/create", json!({"name": "m", "source": "s3://b/x", "run_id": run})).await;

    let answer = graphql(&client, "GetRun", json!({"data": {"runId": run}})).await;
    assert_eq!(answer["errors"], json!(null));
    let found = &answer["data"]["mlflowGetRun"];
    assert_eq!((&found["__typename"], &found["apiError"]), (&json!("MlflowGetRunResponse"), &json!(null)));
    let found = &found["run"];
    assert_eq!(
        (&found["info"]["runUuid"], &found["info"]["startTime"], &found["info"]["endTime"]),
        (&json!(run), &json!("1"), &json!(null))
    );
    assert_eq!(found["experiment"]["experimentId"], "0");
    let metric = |key: &str, value: Value, step: &str, timestamp: &str| json!({"__typename": "MlflowMetricExtension", "key": key, "value": value, "step": step, "timestamp": timestamp});
    let metrics = [metric("m", json!(1.5), "3", "9007199254740993"), metric("n", json!(null), "0", "1")];
    assert_eq!(found["data"]["metrics"], json!(metrics));
    assert_eq!(found["data"]["params"], json!([{"__typename": "MlflowParam", "key": "p", "value": "1"}]));
    assert_eq!(found["inputs"]["datasetInputs"][0]["dataset"]["digest"], "abc");
    assert_eq!((&found["modelVersions"][0]["name"], &found["modelVersions"][0]["version"]), (&json!("m"), &json!("1")));

    let answer = graphql(&client, "MlflowGetExperimentQuery", json!({"input": {"experimentId": "0"}})).await;
    let found = &answer["data"]["mlflowGetExperiment"]["experiment"];
    assert_eq!((&found["name"], &found["lifecycleStage"]), (&json!("Default"), &json!("active")));
    assert!(found["creationTime"].is_string());

    let steps = [
        post(
            "experiments/search-datasets",
            r#"{"experiment_ids": ["0"]}"#,
            Is(
                r#"{"dataset_summaries": [{"experiment_id": "0", "name": "d", "digest": "abc", "context": "training"}]}"#,
            ),
        ),
        post("experiments/search-datasets", r#"{"experiment_ids": ["7"]}"#, Is("{}")),
        post("experiments/search-datasets", "{}", Invalid("Missing value for required parameter 'experiment_ids'.*")),
        post("experiments/search-datasets", r#"{"experiment_ids": ["x"]}"#, Invalid("Invalid experiment ID 'x'.*")),
    ];
    client.run_steps(&[], &steps).await;
}

#[tokio::test]
async fn graphql_errors_have_the_format_of_graphql() {
    let client = Client::new().await;
    let answer = graphql(&client, "GetRun", json!({"data": {"runId": "none"}})).await;
    let error = &answer["data"]["mlflowGetRun"]["apiError"];
    assert_eq!(
        (&error["code"], &error["message"]),
        (&json!("RESOURCE_DOES_NOT_EXIST"), &json!("Run with id=none not found"))
    );
    for (name, variables) in [
        ("GetRun", json!({})),
        ("GetRun", json!(7)),
        ("MlflowGetExperimentQuery", json!({"input": {"experimentId": 1.5}})),
    ] {
        let body = json!({"operationName": name, "variables": variables}).to_string();
        let request =
            Request::post("/graphql").header("content-type", "application/json").body(Body::from(body)).unwrap();
        let answer = client.service.send(request).await;
        assert!(answer.status < 500 && !answer.body.contains("MlflowRunExtension"), "{}", answer.body);
    }
    let unknown = graphql(&client, "DropEverything", json!({})).await;
    assert_eq!((&unknown["data"], unknown["errors"][0]["message"].is_string()), (&json!(null), true));
    let request = Request::post("/graphql").body(Body::from("{broken")).unwrap();
    assert_eq!(client.service.send(request).await.status, 200);
}
