//! `POST /search`, `GET /index/stats` and `GET /entities/{type}/{id}/similar`.
#![allow(clippy::unwrap_used)]

mod support;

use carbon_core::TopicName;
use carbon_log::Group;
use serde_json::{Value, json};
use support::{EncoderFault, FaultyEncoder, Service, assert_problem, entity, hashing_encoder, json_request};

fn ids(answer: &Value) -> Vec<&str> {
    answer["results"].as_array().unwrap().iter().map(|result| result["entity_id"].as_str().unwrap()).collect()
}

/// A service with 3 entities of the default tenant and one of `acme`.
async fn service_with_entities() -> Service {
    let service = Service::new().await;
    let mut crude = entity("default", "WTI", "West Texas crude oil");
    crude.entity_type = "instrument".into();
    crude.tags = vec!["oil".into()];
    service
        .put(&[
            entity("default", "NG_HH", "Henry Hub natural gas"),
            entity("default", "NG_TTF", "Dutch natural gas at the title transfer facility"),
            crude,
            entity("acme", "SECRET", "Henry Hub natural gas of another tenant"),
        ])
        .await;
    service
}

#[tokio::test]
async fn a_search_answer_has_the_documented_fields() {
    let service = service_with_entities().await;
    let answer = service.post("/search", &json!({"query": "henry hub gas"})).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let json = answer.json();
    assert_eq!(ids(&json)[0], "NG_HH");
    assert_eq!((json["query"].as_str(), json["semantic"].as_bool()), (Some("henry hub gas"), Some(true)));
    assert_eq!(json["generation"], "search-v1-feature-hashing@1@f32-1");
    assert!(json["latency_ms"].as_f64().unwrap() > 0.0 && json["total"].as_u64().unwrap() >= 1);
    let first = &json["results"][0];
    assert_eq!((first["entity_type"].as_str(), &first["metadata"]), (Some("curve"), &json!({"hub": "HH"})));
    assert!(first.get("explain").is_none());

    let debug = service.post("/search", &json!({"query": "henry hub", "debug": true})).await.json();
    let explain = &debug["results"][0]["explain"];
    for field in [
        "semantic_rank",
        "lexical_rank",
        "semantic_score",
        "lexical_score",
        "fused_score",
        "fusion",
        "k",
        "boosts",
        "positions",
    ] {
        assert!(explain.get(field).is_some(), "{field}: {explain}");
    }
    assert_eq!(explain["fusion"], "weighted", "the configured default");
    assert!(explain["positions"]["entity"].as_str().unwrap().starts_with("ml.entity.changed.v1:"));
    let rrf = service.post("/search", &json!({"query": "henry hub", "debug": true, "fusion": "rrf"})).await.json();
    assert_eq!(rrf["results"][0]["explain"]["k"], 60);
}

#[tokio::test]
async fn filters_pages_and_modes_select_results() {
    let service = service_with_entities().await;
    let oil = service.post("/search", &json!({"query": "gas oil", "filters": {"type": "instrument"}})).await.json();
    assert_eq!(ids(&oil), ["WTI"]);
    let gas = service.post("/search", &json!({"query": "gas", "filters": {"tags": ["gas"], "hub": ["HH", "X"]}})).await;
    assert_eq!(ids(&gas.json()).len(), 2);
    let page = service.post("/search", &json!({"query": "gas", "limit": 1, "offset": 1})).await.json();
    assert_eq!(ids(&page).len(), 1);
    for body in
        [json!({"query": "crude", "mode": "lexical"}), json!({"query": "crude", "semantic": false, "mode": "dense"})]
    {
        let lexical = service.post("/search", &body).await.json();
        assert_eq!((ids(&lexical), lexical["semantic"].as_bool()), (vec!["WTI"], Some(false)));
    }
}

#[tokio::test]
async fn law_12_a_tenant_finds_only_its_own_entities() {
    let service = service_with_entities().await;
    let query = json!({"query": "henry hub natural gas"});
    for answer in [
        service.post("/tenants/acme/search", &query).await,
        service.post("/search?tenant_id=acme", &query).await,
        service.post("/search", &json!({"query": "henry hub natural gas", "tenant_id": "acme"})).await,
        service.post("/search", &json!({"query": "henry hub natural gas", "filters": {"tenant_id": "acme"}})).await,
    ] {
        assert_eq!(ids(&answer.json()), ["SECRET"]);
    }
    assert!(!service.post("/search", &query).await.body.contains("SECRET"));
    assert_eq!(ids(&service.post("/tenants/nobody/search", &query).await.json()), Vec::<&str>::new());
    for body in [json!({"query": "x", "tenant_id": "b"}), json!({"query": "x", "filters": {"tenant_id": "b"}})] {
        assert_problem("mismatch", &service.post("/tenants/acme/search", &body).await, 400);
    }
}

#[tokio::test]
async fn a_search_waits_for_min_position() {
    let service = service_with_entities().await;
    let done = service.append(&[entity("default", "NEW", "Brent crude")]).await.to_done_string();
    let search = |timeout: &'static str, done: String| {
        let body = json!({"query": "brent", "mode": "lexical"}).to_string();
        service.send(json_request("/search", body, &[("x-min-position", &done), ("x-timeout-ms", timeout)]))
    };
    let late = search("50", done.clone()).await;
    assert_problem("behind", &late, 503);
    assert_eq!(
        (late.json()["code"].as_str(), late.headers["retry-after"].to_str().ok()),
        (Some("unavailable"), Some("1"))
    );
    let (answer, ()) = tokio::join!(search("10000", done.clone()), service.fold());
    assert_eq!(ids(&answer.json()), ["NEW"]);
    assert_eq!(service.get_with("/index/stats", &[("x-min-position", &done)]).await.status, 200);
}

#[tokio::test]
async fn law_08_an_encoder_of_another_model_is_an_internal_error() {
    let service = Service::with_query_encoder(FaultyEncoder::encoder(EncoderFault::OtherModel)).await;
    assert_problem("another model", &service.post("/search", &json!({"query": "x"})).await, 500);
}

#[tokio::test]
async fn each_failure_of_the_encoder_has_its_status() {
    for (fault, status, code) in [
        (EncoderFault::Hangs, 504, "deadline_exceeded"),
        (EncoderFault::Overloaded, 429, "overloaded"),
        (EncoderFault::NotEmbeddable, 422, "unprocessable"),
    ] {
        let service = Service::with_query_encoder(FaultyEncoder::encoder(fault)).await;
        let request = json_request("/search", json!({"query": "x"}).to_string(), &[("x-timeout-ms", "50")]);
        let answer = service.send(request).await;
        assert_problem(code, &answer, status);
        assert_eq!(answer.json()["code"], code);
        assert_eq!(answer.headers.get("retry-after").map(|v| v.to_str().unwrap()), (status == 429).then_some("3"));
        // A lexical search needs no encoder.
        assert_eq!(service.post("/search", &json!({"query": "x", "mode": "lexical"})).await.status, 200);
    }
}

#[tokio::test]
async fn read_models_that_are_not_loaded_are_unavailable() {
    let service = Service::without_read_models(hashing_encoder().await).await;
    for answer in [
        service.post("/search", &json!({"query": "x"})).await,
        service.post("/embed", &json!({"items": [{"text": "x"}]})).await,
        service.get("/index/stats").await,
        service.get("/entities/curve/x").await,
        service.get("/entities/curve/x/similar").await,
    ] {
        assert_problem("not loaded", &answer, 503);
    }
    // Invalid requests are still rejected as such.
    assert_problem("not loaded", &service.post("/search", &json!({"query": ""})).await, 400);
    assert_problem("not loaded", &service.post("/embed", &json!({"items": [{"text": "x"}], "model": "no"})).await, 404);
    assert_eq!(service.get("/live").await.status, 200);
}

#[tokio::test]
async fn neighbours_belong_to_the_same_tenant_and_exclude_the_entity_itself() {
    let service = service_with_entities().await;
    let near = service.get("/entities/curve/NG_HH/similar?limit=2").await.json();
    assert_eq!(ids(&near)[0], "NG_TTF");
    assert!(!near.to_string().contains("SECRET") && !ids(&near).contains(&"NG_HH"));
    assert_problem("absent", &service.get("/entities/curve/SECRET/similar").await, 404);
    assert_eq!(service.get("/tenants/acme/entities/curve/SECRET/similar").await.json()["results"], json!([]));
}

#[tokio::test]
async fn stats_count_the_entities_of_the_tenant() {
    let service = service_with_entities().await;
    let stats = service.get("/index/stats").await.json();
    assert_eq!(stats["total_entities"], 3);
    assert_eq!(stats["by_entity_type"], json!({"curve": 2, "instrument": 1}));
    assert_eq!((stats["model"].as_str(), stats["lag"].as_u64()), (Some("feature-hashing@1@f32"), Some(4)));
    // The embedder has no committed offsets yet, so the lag counts all entities of all tenants.
    let topic = TopicName::parse("ml.entity.changed.v1").unwrap();
    let ends = service.log.ends(&topic).await.unwrap();
    service.log.commit(&Group::new("embedder", "feature-hashing@1@f32"), &ends).await.unwrap();
    assert_eq!(service.get("/index/stats").await.json()["lag"], 0);
    assert_eq!(service.get("/tenants/acme/index/stats").await.json()["total_entities"], 1);
}

#[tokio::test]
async fn searches_are_counted_in_the_metrics() {
    let service = service_with_entities().await;
    service.post("/search", &json!({"query": "gas"})).await;
    let metrics = service.get("/metrics").await.body;
    for name in ["search_query_latency_ms", "hybrid_merge_time_ms", "vector_hits_per_query", "http_requests_total"] {
        assert!(metrics.contains(name), "{name}");
    }
    assert!(metrics.contains("route=\"/search\""));
}
