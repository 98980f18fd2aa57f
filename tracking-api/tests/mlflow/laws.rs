//! The laws of the design, tested through MLflow's API.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::client::{A, Client, EXISTS, INVALID, MISSING, assert_error};

/// Posts to one of several replicas; returns the status and the body of the answer.
async fn post(router: Router, path: &str, body: Value) -> (u16, Value) {
    let request = Request::post(format!("{A}/{path}")).header("content-type", "application/json");
    let response = router.oneshot(request.body(Body::from(body.to_string())).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    let bytes = axum::body::to_bytes(response.into_body(), 64 << 20).await.unwrap();
    (status, serde_json::from_slice(&bytes).unwrap())
}

/// Posts all bodies concurrently, to the replicas in turn.
async fn post_all(routers: &[Router], path: &'static str, bodies: Vec<Value>) -> Vec<(u16, Value)> {
    let tasks: Vec<_> = bodies
        .into_iter()
        .enumerate()
        .map(|(at, body)| tokio::spawn(post(routers[at % routers.len()].clone(), path, body)))
        .collect();
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(task.await.unwrap());
    }
    answers
}

async fn replicas(client: &Client, count: usize) -> Vec<Router> {
    let mut routers = vec![client.service.router.clone()];
    if count > 1 {
        routers.push(client.service.replica().await);
    }
    routers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn law_09_one_of_16_concurrent_creations_of_a_name_wins() {
    for count in [1, 2] {
        let client = Client::new().await;
        let routers = replicas(&client, count).await;
        let answers = post_all(&routers, "experiments/create", vec![json!({"name": "one"}); 16]).await;
        let won: Vec<_> = answers.iter().filter(|(status, _)| *status == 200).collect();
        assert_eq!(won.len(), 1, "{answers:?}");
        for (status, body) in answers.iter().filter(|(status, _)| *status != 200) {
            assert_eq!((*status, &body["error_code"]), (400, &json!(EXISTS)), "{body}");
            assert!(body["message"].as_str().unwrap().starts_with("Experiment(name=one) already exists."), "{body}");
        }
        // Every replica has the same winner.
        for router in routers {
            let request = Request::get(format!("{A}/experiments/get-by-name?experiment_name=one"));
            let response = router.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
            let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
            let found: Value = serde_json::from_slice(&bytes).unwrap();
            // A replica that is behind does not know the name yet.
            if found.get("experiment").is_some() {
                assert_eq!(found["experiment"]["experiment_id"], won[0].1["experiment_id"]);
            }
        }
        assert_eq!(
            client.ok("experiments/search", json!({"max_results": 9})).await["experiments"].as_array().unwrap().len(),
            2
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn law_09_concurrently_created_experiments_get_distinct_ids() {
    for count in [1, 2] {
        let client = Client::new().await;
        let routers = replicas(&client, count).await;
        let names = (0..16).map(|n| json!({"name": format!("e{n}")})).collect();
        let answers = post_all(&routers, "experiments/create", names).await;
        let ids: BTreeSet<i64> = answers
            .iter()
            .map(|(status, body)| {
                assert_eq!(*status, 200, "{body}");
                body["experiment_id"].as_str().unwrap().parse().unwrap()
            })
            .collect();
        assert_eq!(ids, (1..=16).collect(), "the numbers are not distinct and without gaps");
        // A write is answered when all earlier records are folded, so the first replica now has the other's experiments.
        assert_eq!(client.experiment("last").await, "17");
        for (at, (_, body)) in answers.iter().enumerate() {
            let id = body["experiment_id"].as_str().unwrap();
            let name = client.get(&format!("experiments/get?experiment_id={id}")).await["experiment"]["name"].clone();
            assert_eq!(name, format!("e{at}"), "the id belongs to another experiment");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn law_09_two_replicas_never_assign_the_same_version_number() {
    let client = Client::new().await;
    let routers = replicas(&client, 2).await;
    let names = post_all(&routers, "registered-models/create", vec![json!({"name": "m"}); 16]).await;
    assert_eq!(names.iter().filter(|(status, _)| *status == 200).count(), 1, "{names:?}");
    // The conflicts were answered after the fold, so both replicas have the model.
    let body = json!({"name": "m", "source": "s3://b/x"});
    let answers = post_all(&routers, "model-versions/create", vec![body; 16]).await;
    let numbers: BTreeSet<i64> = answers
        .iter()
        .map(|(status, body)| {
            assert_eq!(*status, 200, "{body}");
            body["model_version"]["version"].as_str().unwrap().parse().unwrap()
        })
        .collect();
    assert_eq!(numbers, (1..=16).collect(), "the numbers are not distinct and without gaps");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn law_09_concurrent_first_calls_of_a_tenant_create_one_default_experiment() {
    let client = Client::new().await;
    let answers = post_all(
        std::slice::from_ref(&client.service.router),
        "experiments/search",
        vec![json!({"max_results": 5}); 16],
    )
    .await;
    for (status, body) in answers {
        assert_eq!((status, body["experiments"].as_array().unwrap().len()), (200, 1), "{body}");
        assert_eq!(body["experiments"][0]["experiment_id"], "0");
    }
    client
        .rejects(
            "experiments/create",
            json!({"name": "Default"}),
            400,
            EXISTS,
            "Experiment(name=Default) already exists.*",
        )
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn law_10_one_of_several_conflicting_batches_is_applied_completely() {
    for count in [1, 2] {
        let client = Client::new().await;
        let run = client.new_run().await;
        let routers = replicas(&client, count).await;
        let batch = |n: usize| {
            json!({
                "run_id": run, "params": [{"key": "p", "value": n.to_string()}, {"key": format!("own{n}"), "value": "1"}],
                "metrics": [{"key": "m", "value": n, "timestamp": 1, "step": n}], "tags": [{"key": format!("t{n}"), "value": "1"}],
            })
        };
        // Both replicas have the run before the race.
        for router in &routers {
            let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
            while post(router.clone(), "runs/log-batch", json!({"run_id": run})).await.0 != 200 {
                assert!(tokio::time::Instant::now() < deadline);
                tokio::task::yield_now().await;
            }
        }
        let answers = post_all(&routers, "runs/log-batch", (0..16).map(batch).collect()).await;
        let won: Vec<usize> = (0..16).filter(|n| answers[*n].0 == 200).collect();
        assert_eq!(won.len(), 1, "{answers:?}");
        let won = won[0];
        for (n, (status, body)) in answers.iter().enumerate().filter(|(n, _)| *n != won) {
            let expected = format!(
                "Changing param values is not allowed. Params were already logged='[{{'key': 'p', 'old_value': '{won}', \
                 'new_value': '{n}'}}]' for run ID='{run}'."
            );
            assert_eq!((*status, &body["error_code"], &body["message"]), (400, &json!(INVALID), &json!(expected)));
        }
        // Nothing of the other batches is applied.
        let data = client.run(&run).await["data"].clone();
        let own = json!([{"key": format!("own{won}"), "value": "1"}, {"key": "p", "value": won.to_string()}]);
        assert_eq!(data["params"], own);
        assert_eq!(data["metrics"], json!([{"key": "m", "value": won as f64, "timestamp": 1, "step": won}]));
        assert_eq!(data["tags"].as_array().unwrap().len(), 2);
        assert_eq!(
            client.get(&format!("metrics/get-history?run_id={run}&metric_key=m")).await["metrics"],
            data["metrics"]
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn law_10_concurrent_equal_values_are_no_conflict() {
    let client = Client::new().await;
    let run = client.new_run().await;
    let body = json!({"run_id": run, "key": "p", "value": "1"});
    let answers = post_all(std::slice::from_ref(&client.service.router), "runs/log-parameter", vec![body; 16]).await;
    assert!(answers.iter().all(|(status, _)| *status == 200), "{answers:?}");
    assert_eq!(client.run(&run).await["data"]["params"], json!([{"key": "p", "value": "1"}]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_write_is_visible_to_the_next_read() {
    let client = Client::new().await;
    for round in 0..10 {
        let name = format!("e{round}");
        let id = client.experiment(&name).await;
        let by_name = client.get(&format!("experiments/get-by-name?experiment_name={name}")).await;
        assert_eq!(by_name["experiment"]["experiment_id"], id);
        let made = client.ok("runs/create", json!({"experiment_id": id, "run_name": "n"})).await["run"].clone();
        let run = made["info"]["run_id"].as_str().unwrap();
        assert_eq!(client.run(run).await, crate::runs::with_outputs(made.clone()));
        let search = json!({"experiment_ids": [id], "filter": "params.p = '1' AND metrics.m > 0 AND tags.t != 'x'"});
        assert_eq!(client.ok("runs/search", search.clone()).await, json!({}));
        client.ok("runs/log-parameter", json!({"run_id": run, "key": "p", "value": "1"})).await;
        client.ok("runs/log-metric", json!({"run_id": run, "key": "m", "value": 1, "timestamp": 1})).await;
        client.ok("runs/set-tag", json!({"run_id": run, "key": "t", "value": "1"})).await;
        assert_eq!(client.ok("runs/search", search.clone()).await["runs"][0], client.run(run).await);
        let history = client.get(&format!("metrics/get-history?run_id={run}&metric_key=m")).await;
        assert_eq!(history["metrics"].as_array().unwrap().len(), 1);
        client.ok("runs/delete-tag", json!({"run_id": run, "key": "t"})).await;
        assert_eq!(client.ok("runs/search", search).await, json!({}));
        client.ok("runs/update", json!({"run_id": run, "status": "FINISHED", "end_time": 5})).await;
        assert_eq!(client.run(run).await["info"]["status"], "FINISHED");
        client.ok("runs/delete", json!({"run_id": run})).await;
        assert_eq!(client.run(run).await["info"]["lifecycle_stage"], "deleted");
        client.ok("experiments/delete", json!({"experiment_id": id})).await;
        let search = json!({"max_results": 99, "filter": format!("name = '{name}'")});
        assert_eq!(client.ok("experiments/search", search).await, json!({}));
    }
}

#[tokio::test]
async fn law_12_experiments_and_runs_belong_to_one_tenant() {
    let client = Client::new().await;
    let run = client.new_run().await;
    client.experiment("one").await;
    let at = |tenant: &str, path: &str| format!("/tenants/{tenant}{A}/{path}");
    let get = async |path: String| client.service.get(&path).await;
    let post = async |path: String, body: Value| client.service.post(&path, "application/json", body.to_string()).await;
    let made = post(at("acme", "experiments/create"), json!({"name": "one"})).await;
    assert_eq!(made.json(), json!({"experiment_id": "1"}), "names and ids are not per tenant");
    let default = get(at("acme", "experiments/get?experiment_id=0")).await.json();
    assert_eq!(default["experiment"]["name"], "Default");
    for path in [format!("runs/get?run_id={run}"), format!("metrics/get-history?run_id={run}&metric_key=m")] {
        assert_error(&path, &get(at("acme", &path)).await, 404, MISSING, "Run with id=*");
    }
    for path in ["runs/set-tag", "runs/delete", "runs/update", "runs/log-parameter"] {
        let answer = post(at("acme", path), json!({"run_id": run, "key": "k", "value": "v"})).await;
        assert_error(path, &answer, 404, MISSING, "Run with id=*");
    }
    let found = post(at("acme", "runs/search"), json!({"experiment_ids": ["0", "1"], "run_view_type": "ALL"})).await;
    assert_eq!(found.json(), json!({}));
    let chart = get(at("acme", &format!("metrics/get-history-bulk-interval?run_ids={run}&metric_key=m"))).await;
    assert_eq!((chart.status, chart.json()), (200, json!({})));
    // The other prefix and the query string name the same tenant.
    let own =
        post(at("acme", "runs/create"), json!({"experiment_id": "1"})).await.json()["run"]["info"]["run_id"].clone();
    let own = own.as_str().unwrap();
    for path in [
        format!("/tenants/acme/ajax-api/2.0/mlflow/runs/get?run_id={own}"),
        format!("/ajax-api/2.0/mlflow/runs/get?run_id={own}&tenant_id=acme"),
        format!("/api/v1/tenants/acme{A}/runs/get?run_id={own}"),
    ] {
        assert_eq!(get(path.clone()).await.status, 200, "{path}");
    }
    assert_eq!(get(format!("{A}/runs/get?run_id={own}")).await.status, 404);
    for path in [
        format!("/tenants/a%20b{A}/runs/get?run_id={own}"),
        format!("/tenants/acme{A}/runs/get?run_id={own}&tenant_id=b"),
    ] {
        assert_eq!(get(path.clone()).await.status, 400, "{path}");
    }
}

#[tokio::test]
async fn both_prefixes_serve_the_same_api() {
    let client = Client::at("/ajax-api/2.0/mlflow").await;
    let run = client.new_run().await;
    client.ok("runs/set-tag", json!({"run_id": run, "key": "t", "value": "1"})).await;
    let request = Request::get(format!("{A}/runs/get?run_id={run}")).body(Body::empty()).unwrap();
    assert_eq!(client.service.send(request).await.json()["run"], client.run(&run).await);
}

#[tokio::test]
async fn law_14_a_failed_append_is_503_and_writes_nothing() {
    let client = Client::new().await;
    let run = client.new_run().await;
    let before = (client.event_count().await, client.snapshot(&run, &["m"]).await);
    client.service.log.appends_left.store(0, Ordering::SeqCst);
    for (path, body) in [
        ("experiments/create", json!({"name": "n"})),
        ("runs/create", json!({"experiment_id": "0"})),
        ("runs/log-metric", json!({"run_id": run, "key": "m", "value": 1, "timestamp": 1})),
        ("runs/delete", json!({"run_id": run})),
    ] {
        let answer = client.post(path, body).await;
        assert_eq!(
            (answer.status, answer.headers["retry-after"].to_str().unwrap()),
            (503, "1"),
            "{path}: {}",
            answer.body
        );
        assert_eq!(answer.json()["error_code"], "TEMPORARILY_UNAVAILABLE");
    }
    // Reads still work.
    assert_eq!((client.event_count().await, client.snapshot(&run, &["m"]).await), before);
    client.service.log.appends_left.store(usize::MAX, Ordering::SeqCst);
    client.ok("runs/log-metric", json!({"run_id": run, "key": "m", "value": 1, "timestamp": 1})).await;
    assert_eq!(client.experiment("n").await, "1");
}

#[tokio::test]
async fn law_09_writes_are_rejected_before_the_append_if_the_fold_is_stopped() {
    let mut client = Client::new().await;
    let run = client.new_run().await;
    client.service.dependencies.shutdown.cancel();
    client.service.fold.take().unwrap().join().await.unwrap();
    let before = client.event_count().await;
    let answer = client.post("runs/set-tag", json!({"run_id": run, "key": "t", "value": "1"})).await;
    assert_eq!((answer.status, client.event_count().await), (503, before), "{}", answer.body);
    assert_eq!(client.run(&run).await["info"]["run_id"], run);
}

#[tokio::test]
async fn a_process_without_the_registry_answers_503() {
    let service = crate::support::Service::new().await;
    let answer = service.post(&format!("{A}/experiments/create"), "application/json", r#"{"name": "n"}"#).await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json()["error_code"], "TEMPORARILY_UNAVAILABLE");
}
