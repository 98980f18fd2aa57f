//! Invalid requests: they never get a 5xx.
#![allow(clippy::unwrap_used)]

mod support;

use axum::body::Body;
use axum::http::Request;
use serde_json::json;
use support::{Service, assert_problem, json_request, request};

#[tokio::test]
async fn invalid_bodies_of_search_and_embed_are_rejected() {
    let service = Service::new().await;
    let search = |field: &str, value: serde_json::Value| {
        let mut body = json!({"query": "gas"});
        body[field] = value;
        body.to_string()
    };
    let item = |value: serde_json::Value| json!({"items": [value]}).to_string();
    let keys: serde_json::Map<_, _> = (0..65).map(|n| (n.to_string(), json!(1))).collect();
    let nested = format!("{{\"query\":\"x\",\"filters\":{}1{}}}", "{\"a\":".repeat(3000), "}".repeat(3000));
    for (name, uri, body, status) in [
        ("empty", "/search", String::new(), 400),
        ("malformed", "/search", "{".into(), 400),
        ("array", "/search", "[]".into(), 400),
        ("no query", "/search", "{}".into(), 400),
        ("blank query", "/search", search("query", json!(" \t")), 400),
        ("9 KiB query", "/search", search("query", json!("x".repeat(9 << 10))), 400),
        ("query of a wrong type", "/search", search("query", json!(["gas"])), 400),
        ("unknown field", "/search", search("top_k", json!(3)), 400),
        ("limit 0", "/search", search("limit", json!(0)), 400),
        ("limit 1001", "/search", search("limit", json!(1001)), 400),
        ("limit -1", "/search", search("limit", json!(-1)), 400),
        ("limit 1.5", "/search", search("limit", json!(1.5)), 400),
        ("limit text", "/search", search("limit", json!("10")), 400),
        ("huge limit", "/search", r#"{"query":"x","limit":99999999999999999999}"#.into(), 400),
        ("deep page", "/search", search("offset", json!(9_991)), 400),
        ("deepest page", "/search", search("offset", json!(u64::MAX)), 400),
        ("NaN weight", "/search", r#"{"query":"x","dense_weight":NaN}"#.into(), 400),
        ("weight 1.1", "/search", search("dense_weight", json!(1.1)), 400),
        ("infinite weight", "/search", search("dense_weight", json!(1e300)), 400),
        ("weight text", "/search", search("dense_weight", json!("NaN")), 400),
        ("infinite threshold", "/search", search("similarity_threshold", json!(-1e300)), 400),
        ("mode", "/search", search("mode", json!("fuzzy")), 400),
        ("fusion", "/search", search("fusion", json!("sum")), 400),
        ("filters as a list", "/search", search("filters", json!([1])), 400),
        ("filters as text", "/search", search("filters", json!("type=curve")), 400),
        ("filter of null", "/search", search("filters", json!({"a": null})), 400),
        ("filter of objects", "/search", search("filters", json!({"a": {"gt": 1}})), 400),
        ("empty filter", "/search", search("filters", json!({"type": []})), 400),
        ("numbers for tags", "/search", search("filters", json!({"tags": [1]})), 400),
        ("many filters", "/search", search("filters", keys.into()), 400),
        ("nested filters", "/search", nested, 400),
        ("tenant", "/search", search("tenant_id", json!("a/b")), 400),
        ("tenant in the filters", "/search", search("filters", json!({"tenant_id": "a/b"})), 400),
        ("too large", "/search", search("query", json!("x".repeat(3 << 20))), 413),
        ("no items", "/embed", "{}".into(), 400),
        ("empty items", "/embed", json!({"items": []}).to_string(), 400),
        ("blank text", "/embed", item(json!({"text": " "})), 400),
        ("1 MB text", "/embed", item(json!({"text": "x".repeat(1 << 20)})), 400),
        ("no text", "/embed", item(json!({"id": "x"})), 400),
        ("unknown field", "/embed", item(json!({"text": "x", "vector": []})), 400),
        ("id with a slash", "/embed", item(json!({"text": "x", "type": "curve", "id": "a/b"})), 400),
        ("bad type", "/embed", item(json!({"text": "x", "type": "a b", "id": "a"})), 400),
        ("tenant of an item", "/tenants/a/embed", item(json!({"text": "x", "tenant_id": "b"})), 400),
        ("batch size 0", "/embed", json!({"items": [{"text": "x"}], "batch_size": 0}).to_string(), 400),
        ("batch size 513", "/embed", json!({"items": [{"text": "x"}], "batch_size": 513}).to_string(), 400),
        ("513 items", "/embed", json!({"items": vec![json!({"text": "x"}); 513]}).to_string(), 413),
        ("endless model", "/embed", json!({"items": [{"text": "x"}], "model": "x".repeat(1 << 20)}).to_string(), 404),
        ("too large", "/embed", " ".repeat((32 << 20) + 1), 413),
        ("no route for writes", "/entities", "{}".into(), 404),
    ] {
        assert_problem(name, &service.send(json_request(uri, body, &[])).await, status);
    }
    for kind in ["", "text/plain", "application/x-ndjson", "application/xml; charset=utf-8"] {
        let builder = Request::post("/search").header("content-type", kind);
        assert_problem(kind, &service.send(request(builder, &[], Body::from(r#"{"query":"x"}"#))).await, 400);
    }
    let bare = request(Request::post("/search"), &[], Body::from(r#"{"query":"x"}"#));
    assert_problem("no content type", &service.send(bare).await, 400);
    let bytes = Request::post("/search").header("content-type", "application/json");
    assert_problem(
        "not utf-8",
        &service.send(request(bytes, &[], Body::from(b"{\"query\":\"\xff\"}".to_vec()))).await,
        400,
    );
}

#[tokio::test]
async fn invalid_paths_and_queries_are_rejected() {
    let service = Service::new().await;
    for (uri, status) in [
        ("/entities/curve/a%2Fb", 400),
        ("/entities/curve/..%2f..%2fetc", 400),
        ("/entities/curve/%00", 400),
        ("/entities/curve/%ff", 400),
        ("/entities/a%20b/x", 400),
        ("/entities/curve/a%2Fb/similar", 400),
        ("/entities/curve/x/similar?limit=0", 400),
        ("/entities/curve/x/similar?limit=1001", 400),
        ("/entities/curve/x/similar?limit=-1", 400),
        ("/entities/curve/x/similar?limit=ten", 400),
        ("/entities/curve/x/similar?limit=1&limit=2", 400),
        ("/entities/curve/x/similar?radius=1", 400),
        ("/entities/curve/x/similar", 404),
        ("/entities/curve/x", 404),
        ("/entities/curve/x?tenant_id=a.b", 400),
        ("/tenants/a/entities/curve/x?tenant_id=b", 400),
        ("/index/stats?tenant_id=", 400),
        ("/events/nothing", 404),
        ("/events/a%2Fb", 404),
        ("/events/%ff", 400),
        ("/events/ml.entity.changed.v1?from=", 400),
        ("/events/ml.entity.changed.v1?from=now", 400),
        ("/events/ml.entity.changed.v1?from=ml.entity.changed.v1:6:0", 400),
        ("/events/ml.entity.changed.v1?from=ml.deadletter.v1:0:0", 400),
        ("/events/ml.entity.changed.v1?from=ml.entity.changed.v1:0:-1", 400),
        ("/events/ml.entity.changed.v1?follow=maybe", 400),
        ("/events/ml.entity.changed.v1?until=x", 400),
        ("/search", 405),
        ("/nothing", 404),
    ] {
        assert_problem(uri, &service.get(uri).await, status);
    }
}

#[tokio::test]
async fn invalid_headers_are_rejected_or_ignored() {
    let service = Service::new().await;
    let long = "ml.entity.changed.v1:0:1,".repeat(2000);
    for (name, value, status) in [
        ("x-min-position", "", 400),
        ("x-min-position", "nonsense", 400),
        ("x-min-position", "ml.entity.changed.v1:0:-1", 400),
        ("x-min-position", "ml.entity.changed.v1:6:0", 400),
        ("x-min-position", "ml.deadletter.v1:0:0", 400),
        ("x-min-position", "ml.entity.changed.v1:0:18446744073709551615", 400),
        ("x-min-position", "é", 400),
        ("x-min-position", long.as_str(), 400),
        ("x-timeout-ms", "", 400),
        ("x-timeout-ms", "soon", 400),
        ("x-timeout-ms", "-1", 400),
        ("x-timeout-ms", "60001", 400),
        ("x-request-id", "\u{1f600}", 200),
        ("traceparent", "00-nonsense", 200),
    ] {
        let body = json!({"query": "gas", "mode": "lexical"}).to_string();
        let searched = service.send(json_request("/search", body, &[(name, value)])).await;
        assert_eq!(searched.status, status, "{name}: {value}: {}", searched.body);
        for uri in ["/entities/curve/x", "/entities/curve/x/similar", "/index/stats"] {
            let answer = service.get_with(uri, &[(name, value)]).await;
            assert!(answer.status < 500 && (status == 200 || answer.status == status), "{uri}: {}", answer.body);
        }
    }
    for value in ["x", "ml.deadletter.v1:0:0", "ml.entity.changed.v1:9:0"] {
        let answer = service.get_with("/events/ml.entity.changed.v1?follow=false", &[("last-event-id", value)]).await;
        assert_problem(value, &answer, 400);
    }
}
