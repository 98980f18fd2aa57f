//! Metric histories, complete and sampled, compared with recorded answers of MLflow's server.

use serde_json::{Value, json};

use crate::client::{Client, INVALID, MISSING, assert_error};

async fn log(client: &Client, run: &str, values: &[(f64, i64, i64)]) {
    for chunk in values.chunks(1000) {
        let of = |(value, timestamp, step): &(f64, i64, i64)| {
            let value = if value.is_nan() { json!("NaN") } else { json!(value) };
            json!({"key": "m", "value": value, "timestamp": timestamp, "step": step})
        };
        let metrics: Vec<Value> = chunk.iter().map(of).collect();
        client.ok("runs/log-batch", json!({"run_id": run, "metrics": metrics})).await;
    }
}

fn steps(answer: &Value) -> Vec<i64> {
    let metrics = answer["metrics"].as_array().map(Vec::as_slice).unwrap_or_default();
    metrics.iter().map(|metric| metric["step"].as_i64().unwrap()).collect()
}

#[tokio::test]
async fn a_history_is_answered_as_recorded() {
    let client = Client::new().await;
    let run = client.new_run().await;
    log(&client, &run, &[(2.0, 2, 1), (1.0, 1, i64::MAX), (1.0, 1, 0), (1.0, 0, 0), (1.0, 0, 0)]).await;
    let path = format!("metrics/get-history?run_id={run}&metric_key=m");
    let point = |value: f64, timestamp: i64, step: i64| json!({"key": "m", "value": value, "timestamp": timestamp, "step": step});
    let all = [point(1.0, 0, 0), point(1.0, 1, 0), point(1.0, 1, i64::MAX), point(2.0, 2, 1)];
    assert_eq!(client.get(&path).await, json!({"metrics": all}));
    assert_eq!(client.get(&format!("metrics/get-history?run_uuid={run}&metric_key=m")).await, json!({"metrics": all}));
    assert_eq!(client.get(&format!("{path}&max_results=25000")).await, json!({"metrics": all}));
    let (mut found, mut next) = (Vec::new(), path.clone() + "&max_results=3");
    loop {
        let page = client.get(&next).await;
        found.extend(page["metrics"].as_array().unwrap().clone());
        let Some(token) = page["next_page_token"].as_str() else { break };
        next = format!("{path}&max_results=3&page_token={}", token.replace('=', "%3D"));
    }
    assert_eq!(found, all);
    assert_eq!(client.get(&format!("metrics/get-history?run_id={run}&metric_key=zzz")).await, json!({}));
    log(&client, &run, &[(f64::NAN, 9, 9)]).await;
    assert_eq!(client.get(&path).await["metrics"][4]["value"], "NaN");
    // The history of a deleted run remains.
    client.ok("runs/delete", json!({"run_id": run})).await;
    assert_eq!(client.get(&path).await["metrics"].as_array().unwrap().len(), 5);
    for (query, status, code, message) in [
        ("metric_key=m", 400, INVALID, "Missing value for required parameter 'run_id'*"),
        ("run_id=x", 400, INVALID, "Missing value for required parameter 'metric_key'*"),
        ("run_id=x&metric_key=m", 404, MISSING, "Run with id=x not found"),
        (
            &format!("run_id={run}&metric_key=m&max_results=0"),
            400,
            INVALID,
            "Invalid value 0 for parameter 'max_results' *",
        ),
        (
            &format!("run_id={run}&metric_key=m&max_results=x"),
            400,
            INVALID,
            "Invalid value \"x\" for parameter 'max_results' *",
        ),
        (&format!("run_id={run}&metric_key=m&page_token=%3F"), 400, INVALID, "Invalid page token*"),
    ] {
        let answer = client.send("GET", &format!("metrics/get-history?{query}"), "").await;
        assert_error(query, &answer, status, code, message);
    }
}

#[tokio::test]
async fn a_chart_is_answered_as_recorded() {
    let client = Client::at("/ajax-api/2.0/mlflow").await;
    let (a, b) = (client.new_run().await, client.new_run().await);
    log(&client, &a, &[(1.0, 0, 0), (1.0, 1, 0), (1.0, 1, i64::MAX), (2.0, 2, 1)]).await;
    let path = |ids: &[&str], rest: &str| -> String {
        let ids: String = ids.iter().map(|id| format!("run_ids={id}&")).collect();
        format!("metrics/get-history-bulk-interval?{ids}metric_key=m{rest}")
    };
    let point = |value: f64, timestamp: i64, step: i64| json!({"key": "m", "value": value, "timestamp": timestamp, "step": step, "run_id": a});
    let all = json!({"metrics": [point(1.0, 0, 0), point(1.0, 1, 0), point(2.0, 2, 1), point(1.0, 1, i64::MAX)]});
    assert_eq!(client.get(&path(&[&a], "&max_results=320")).await, all);
    assert_eq!(client.get(&path(&[&b], "&max_results=320")).await, json!({}));
    assert_eq!(client.get(&path(&[&a], "&start_step=0&end_step=1")).await["metrics"].as_array().unwrap().len(), 3);

    // At most the requested number of points, and always the last one.
    log(&client, &b, &(0..1100).map(|n| (n as f64, 5, n)).collect::<Vec<_>>()).await;
    assert_eq!(steps(&client.get(&path(&[&b], "&max_results=5")).await), [0, 220, 440, 660, 1099]);
    assert_eq!(steps(&client.get(&path(&[&b], "&max_results=1")).await), [1099]);
    assert_eq!(steps(&client.get(&path(&[&b], "")).await).len(), 320);
    assert_eq!(steps(&client.get(&path(&[&b], "&max_results=2500")).await).len(), 1100);
    // The runs are in the order of the request, and each is sampled separately.
    let both = client.get(&path(&[&b, &a], "&max_results=2")).await;
    assert_eq!(steps(&both), [0, 1099, 0, i64::MAX]);
    assert_eq!(steps(&client.get(&path(&[&a, &b], "&max_results=2")).await), [0, i64::MAX, 0, 1099]);

    let many: Vec<&str> = std::iter::repeat_n(a.as_str(), 101).collect();
    for (query, message) in [
        (path(&[&a], "&start_step=0"), "If either start step or end step are specified, both must be specified."),
        (path(&[&a], "&end_step=0"), "If either start step or end step are specified, both must be specified."),
        (
            path(&[&a], "&start_step=2&end_step=1"),
            "end_step must be greater than start_step. Found start_step=2 and end_step=1.",
        ),
        (path(&[&a], "&max_results=0"), "max_results must be between 1 and 2500.*"),
        (path(&[&a], "&max_results=2501"), "max_results must be between 1 and 2500.*"),
        (
            path(&many, ""),
            "GetMetricHistoryBulkInterval request must specify at most 100 run_ids. Received 101 run_ids.*",
        ),
        (path(&[], ""), "Missing value for required parameter 'run_ids'*"),
        (
            format!("metrics/get-history-bulk-interval?run_ids={a}"),
            "Missing value for required parameter 'metric_key'*",
        ),
    ] {
        let answer = client.send("GET", &query, "").await;
        assert_error(&query.chars().take(200).collect::<String>(), &answer, 400, INVALID, message);
    }
}

#[tokio::test]
async fn histories_of_several_runs_are_ordered_by_run_timestamp_and_step() {
    let client = Client::at("/ajax-api/2.0/mlflow").await;
    let mut runs = [client.new_run().await, client.new_run().await];
    runs.sort();
    log(&client, &runs[0], &[(1.0, 0, 0), (1.0, 1, 0), (1.0, 1, i64::MAX), (2.0, 2, 1)]).await;
    log(&client, &runs[1], &[(7.0, 7, 7)]).await;
    let path =
        |rest: &str| format!("metrics/get-history-bulk?run_id={}&run_id={}&metric_key=m{rest}", runs[1], runs[0]);
    let all = client.get(&path("")).await;
    assert_eq!(steps(&all), [0, 0, i64::MAX, 1, 7]);
    assert_eq!(all["metrics"][4], json!({"key": "m", "value": 7.0, "timestamp": 7, "step": 7, "run_id": runs[1]}));
    // The limit counts the points of all runs.
    assert_eq!(steps(&client.get(&path("&max_results=3")).await), [0, 0, i64::MAX]);
    let many: String = (0..101).map(|_| format!("run_id={}&", runs[0])).collect();
    for (query, message) in [
        ("metric_key=m".to_owned(), "GetMetricHistoryBulk request must specify at least one run_id."),
        (
            format!("{many}metric_key=m"),
            "GetMetricHistoryBulk request cannot specify more than 100 run_ids. Received 101 run_ids.",
        ),
    ] {
        let answer = client.send("GET", &format!("metrics/get-history-bulk?{query}"), "").await;
        assert_error("bulk", &answer, 400, INVALID, message);
    }
}
