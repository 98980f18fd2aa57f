//! `GET /entities/{type}/{id}`, `POST /embed` and `POST /v1/embeddings`.
#![allow(clippy::unwrap_used)]

mod support;

use serde_json::{Value, json};
use support::{Service, assert_problem, entity, request};

#[tokio::test]
async fn an_entity_has_the_state_of_its_last_record() {
    let service = Service::new().await;
    let done = service.put(&[entity("default", "A", "old"), entity("default", "A", "new")]).await;
    let answer = service.get_with("/entities/curve/A", &[("x-min-position", &done.to_done_string())]).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let json = answer.json();
    assert_eq!((json["text"].as_str(), json["tenant_id"].as_str()), (Some("new"), Some("default")));
    assert_eq!((&json["metadata"], &json["tags"]), (&json!({"hub": "HH"}), &json!(["gas"])));
    assert_eq!(json["position"], done.to_done_string());
    assert!(json["updated_at"].as_str().unwrap().ends_with('Z'));
    assert_problem("another tenant's", &service.get("/tenants/acme/entities/curve/A").await, 404);
    assert_problem("another type's", &service.get("/entities/instrument/A").await, 404);
}

#[tokio::test]
async fn deleted_and_quarantined_entities_are_not_found() {
    let service = Service::new().await;
    let mut deletion = entity("default", "GONE", "");
    deletion.deleted = true;
    service.put(&[entity("default", "GONE", "here"), deletion]).await;
    let answer = service.get("/entities/curve/GONE").await;
    assert_problem("deleted", &answer, 404);
    assert!(answer.json()["detail"].as_str().unwrap().contains("deleted"));
    let mut bad = carbon_log::NewRecord::event(&entity("default", "BAD", "x")).unwrap();
    bad.value = carbon_log::Value::Raw(b"\xc3\x01nonsense".to_vec());
    service.log.append(vec![bad]).await.unwrap();
    service.fold().await;
    let answer = service.get("/entities/curve/BAD").await;
    assert_problem("quarantined", &answer, 404);
    assert!(answer.json()["detail"].as_str().unwrap().contains("quarantined"));
}

#[tokio::test]
async fn a_read_of_an_entity_waits_for_min_position() {
    let service = Service::new().await;
    let done = service.append(&[entity("default", "A", "x")]).await.to_done_string();
    let headers = |timeout: &'static str| [("x-min-position", done.clone()), ("x-timeout-ms", timeout.to_owned())];
    let get = |timeout: &'static str| {
        let pairs = headers(timeout);
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| (*name, value.as_str())).collect();
        service.send(request(axum::http::Request::get("/entities/curve/A"), &pairs, axum::body::Body::empty()))
    };
    assert_problem("behind", &get("30").await, 503);
    let (answer, ()) = tokio::join!(get("10000"), service.fold());
    assert_eq!(answer.status, 200, "{}", answer.body);
}

#[tokio::test]
async fn embed_returns_one_vector_per_text() {
    let service = Service::new().await;
    let long = "word ".repeat(5000);
    let body = json!({"items": [{"text": "gas", "type": "curve", "id": "A"}, {"text": long}], "batch_size": 1, "model": "hashing"});
    let answer = service.post("/embed", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let json = answer.json();
    assert_eq!((json["count"].as_u64(), json["model_version"].as_str()), (Some(2), Some("feature-hashing@1@f32")));
    assert_eq!(json["truncated"], json!([false, true]));
    let vector: Vec<f64> = json["vectors"][0].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
    assert!((vector.iter().map(|x| x * x).sum::<f64>() - 1.0).abs() < 1e-4 && vector.len() == 384);
    assert!(json["latency_ms"].as_f64().unwrap() > 0.0);
    for name in ["feature-hashing", "feature-hashing@1@f32"] {
        assert_eq!(service.post("/embed", &json!({"items": [{"text": "x"}], "model": name})).await.status, 200);
    }
    for name in ["all-MiniLM-L6-v2", "nothing", "", "feature-hashing@2@f32"] {
        let answer = service.post("/embed", &json!({"items": [{"text": "x"}], "model": name})).await;
        assert_problem(name, &answer, 404);
    }
}

#[tokio::test]
async fn v1_embeddings_has_the_format_of_openai() {
    let service = Service::new().await;
    let body = json!({"input": ["gas", "oil"], "model": "feature-hashing", "user": "somebody"});
    let float = service.post("/v1/embeddings", &body).await.json();
    assert_eq!((float["object"].as_str(), float["data"][1]["index"].as_u64()), (Some("list"), Some(1)));
    assert_eq!(float["usage"], json!({"prompt_tokens": 2, "total_tokens": 2}));
    let body = json!({"input": "gas", "model": "feature-hashing", "encoding_format": "base64"});
    let encoded = service.post("/v1/embeddings", &body).await.json();
    assert_eq!(encoded["data"][0]["embedding"].as_str().unwrap().len(), (384 * 4_usize).div_ceil(3) * 4);
    for (name, body, status) in [
        ("no model", json!({"input": "x"}), 400),
        ("numbers", json!({"input": [1, 2], "model": "feature-hashing"}), 400),
        ("empty", json!({"input": [], "model": "feature-hashing"}), 400),
        ("blank", json!({"input": [" "], "model": "feature-hashing"}), 400),
        ("dimensions", json!({"input": "x", "model": "feature-hashing", "dimensions": 3}), 400),
        ("format", json!({"input": "x", "model": "feature-hashing", "encoding_format": "int8"}), 400),
        ("unknown model", json!({"input": "x", "model": "text-embedding-3-small"}), 404),
        ("too many", json!({"input": vec!["x"; 513], "model": "feature-hashing"}), 413),
    ] {
        assert_problem(name, &service.post("/v1/embeddings", &body).await, status);
    }
}

#[tokio::test]
async fn the_openapi_document_lists_every_route() {
    let service = Service::new().await;
    let spec: Value = service.get("/openapi.json").await.json();
    for (path, method) in [
        ("/search", "post"),
        ("/embed", "post"),
        ("/v1/embeddings", "post"),
        ("/entities/{entity_type}/{entity_id}", "get"),
        ("/entities/{entity_type}/{entity_id}/similar", "get"),
        ("/index/stats", "get"),
        ("/events/{topic}", "get"),
    ] {
        assert!(spec["paths"][path][method].is_object(), "{method} {path}");
    }
    let schemas = spec["components"]["schemas"].as_object().unwrap();
    for name in ["SearchBody", "SearchAnswer", "EmbedBody", "Entity", "Problem", "ModeName", "FusionName"] {
        assert!(schemas.contains_key(name), "{name} is not among {:?}", schemas.keys());
    }
    assert_eq!(service.get("/tenants/a/docs").await.status, 200);
}
