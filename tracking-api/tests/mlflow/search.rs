//! `runs/search`, compared with recorded answers of MLflow's server.

use serde_json::{Value, json};

use crate::client::{Client, INVALID};

fn ids(answer: &Value) -> Vec<String> {
    let runs = answer["runs"].as_array().map(Vec::as_slice).unwrap_or_default();
    runs.iter().map(|run| run["info"]["run_id"].as_str().unwrap().to_owned()).collect()
}

async fn start(client: &Client, experiment: &str, start_time: i64) -> String {
    let body = json!({"experiment_id": experiment, "start_time": start_time});
    client.ok("runs/create", body).await["run"]["info"]["run_id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn searches_are_answered_as_recorded() {
    let client = Client::new().await;
    let experiment = client.experiment("e").await;
    let (a, b) = (start(&client, &experiment, 1).await, start(&client, &experiment, 2).await);
    for (run, key, value) in [(&a, "nan", json!("NaN")), (&a, "m", json!(1)), (&b, "inf", json!("Infinity"))] {
        client.ok("runs/log-metric", json!({"run_id": run, "key": key, "value": value, "timestamp": 1})).await;
    }
    for body in [
        json!({}),
        json!({"experiment_ids": []}),
        json!({"experiment_ids": ["9999"]}),
        json!({"experiment_ids": ["1"], "run_view_type": "DELETED_ONLY"}),
        json!({"experiment_ids": ["1"], "filter": "metrics.nan > 0"}),
        json!({"experiment_ids": ["1"], "filter": "metrics.m > 1"}),
    ] {
        assert_eq!(client.ok("runs/search", body.clone()).await, json!({}), "{body}");
    }
    for (filter, found) in [("metrics.nan != 5", &a), ("metrics.inf > 1e300", &b), ("metrics.m = 1", &a)] {
        let body = json!({"experiment_ids": ["1"], "filter": filter});
        assert_eq!(ids(&client.ok("runs/search", body).await), std::slice::from_ref(found), "{filter}");
    }
    let both = client.ok("runs/search", json!({"experiment_ids": ["1", "0", "1"]})).await;
    assert_eq!(ids(&both), [b.clone(), a.clone()]);
    assert_eq!(both["runs"][0], client.run(&b).await);
    assert_eq!(both.get("next_page_token"), None);
    // A token of MLflow's server.
    let body = json!({"experiment_ids": ["1"], "page_token": "eyJvZmZzZXQiOiAxfQ==", "max_results": 1});
    assert_eq!(ids(&client.ok("runs/search", body).await), std::slice::from_ref(&a));
    for (body, message) in [
        (
            json!({"experiment_ids": ["2"], "max_results": 0}),
            "Invalid value 0 for parameter 'max_results' supplied. It must be a positive integer",
        ),
        (
            json!({"experiment_ids": ["2"], "max_results": 50001}),
            "Invalid value 50001 for parameter 'max_results' supplied*",
        ),
        (json!({"experiment_ids": "2"}), "Invalid value \"2\" for parameter 'experiment_ids' supplied: Hint: *"),
        (json!({"experiment_ids": ["abc"]}), "Invalid experiment ID 'abc'. Experiment ID must be a valid integer."),
        (json!({"experiment_ids": ["2"], "page_token": "xx"}), "Invalid page token, could not base64-decode"),
        (
            json!({"experiment_ids": ["2"], "order_by": "metrics.a"}),
            "Invalid value \"metrics.a\" for parameter 'order_by' supplied: Hint: Value was of type 'str'.*",
        ),
        (
            json!({"experiment_ids": ["2"], "filter": "metrics.m == 1"}),
            "Invalid comparator '==' not one of '{'<=', '!=', '>=', '<', '=', '>'}",
        ),
        (
            json!({"experiment_ids": ["2"], "filter": "params.p NOT LIKE 'x'"}),
            "Invalid comparator 'NOT LIKE' not one of '{'LIKE', 'ILIKE', '!=', '=', 'IS NULL', 'IS NOT NULL'}'",
        ),
    ] {
        client.rejects("runs/search", body, 400, INVALID, message).await;
    }
}

#[tokio::test]
async fn the_pages_of_a_search_contain_every_run_once() {
    let client = Client::new().await;
    let experiment = client.experiment("e").await;
    let mut expected = Vec::new();
    for n in 0..23 {
        let run = start(&client, &experiment, n % 3).await;
        client.ok("runs/log-metric", json!({"run_id": run, "key": "m", "value": n % 4, "timestamp": 1})).await;
        expected.push(run);
    }
    expected.sort();
    for order in [json!([]), json!(["metrics.m DESC"]), json!(["start_time ASC", "metrics.m"])] {
        let (mut found, mut token) = (Vec::new(), json!(""));
        while token.is_string() {
            let body =
                json!({"experiment_ids": [experiment], "max_results": 5, "order_by": order, "page_token": token});
            let page = client.ok("runs/search", body).await;
            found.extend(ids(&page));
            token = page["next_page_token"].clone();
        }
        found.sort();
        assert_eq!(found, expected, "{order}");
    }
}

#[tokio::test]
async fn large_searches_are_answered_up_to_the_limits() {
    let client = Client::new().await;
    start(&client, "0", 1).await;
    let clauses =
        |count: usize| vec!["params.a IS NULL AND metrics.m != 1 AND tags.mlflow.x IS NULL"; count].join(" AND ");
    let search =
        |filter: String, order: Vec<String>| json!({"experiment_ids": ["0"], "filter": filter, "order_by": order});
    let orders = |count: usize| (0..count).map(|n| format!("metrics.m{n}")).collect::<Vec<_>>();
    for (body, status) in [
        (search(clauses(160), vec![]), 200),
        (search(clauses(200), vec![]), 400),
        (search(String::new(), orders(32)), 200),
        (search(clauses(160), orders(32)), 200),
        (search(String::new(), orders(33)), 400),
        (search(format!("params.a LIKE '{}'", "%a".repeat(5000)), vec![]), 200),
        (search(format!("run_id IN ({})", vec!["'a'"; 10_000].join(",")), vec![]), 200),
        (search(format!("params.a = '{}'", "x".repeat(70_000)), vec![]), 400),
    ] {
        let answer = client.post("runs/search", body).await;
        assert_eq!(answer.status, status, "{}", answer.body.chars().take(300).collect::<String>());
    }
}
