//! `GET /status`, and the OpenAPI document.
#![allow(clippy::unwrap_used)]

mod support;

use carbon_core::{GenerationId, Positions, TopicName, TopicPartition};
use carbon_log::Group;
use carbon_runtime::consume::{Phase, ProcessorView, Progress};
use carbon_runtime::generations::changed;
use carbon_schemas::events::GenerationState;
use serde_json::json;
use support::Service;
use tokio::sync::watch;

#[tokio::test]
async fn status_shows_log_processors_generations_and_tasks() {
    let service = Service::new().await;
    let items: Vec<_> =
        (0..12).map(|n| json!({"entity_type": "curve", "entity_id": format!("E{n}"), "text": "x"})).collect();
    let answer = service.post("/entities", "application/json", json!(items).to_string()).await;
    let done = Positions::parse_done(answer.headers["x-log-position"].to_str().unwrap()).unwrap();
    let topic = TopicName::parse("ml.entity.changed.v1").unwrap();
    let (at, end) = done.iter().map(|(at, next)| (at.clone(), next)).max_by_key(|(_, next)| *next).unwrap();
    // All records but the last one of one partition are processed.
    let mut positions = done.clone();
    positions.set(at, end - 1);
    let progress = Progress {
        phase: Phase::Retrying { error: "no disk".into(), attempt: 3 },
        positions,
        records: 11,
        batches: 2,
        halted: [(TopicPartition::new(topic.clone(), 5), "a newer program".to_owned())].into_iter().collect(),
        ..Progress::default()
    };
    let (_keep, progress) = watch::channel(progress);
    let generation = GenerationId::derive("catalog", 1, None, 1).unwrap();
    let mut view = ProcessorView::new("catalog".into(), Group::new("catalog", "g"), vec![topic], progress);
    view.generation = Some(generation.clone());
    service.dependencies.processors.add(view);
    let active = changed("catalog", &generation, 1, GenerationState::Active);
    service.dependencies.generations.append(&active).await.unwrap();

    let answer = service.get("/status").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let status = answer.json();
    assert_eq!(
        (status["env"].as_str(), status["version"].as_str()),
        (Some("development"), Some(env!("CARGO_PKG_VERSION")))
    );
    assert!(status["log"]["bytes"].as_u64().unwrap() > 0);
    let topics = status["log"]["topics"].as_array().unwrap();
    let entities = topics.iter().find(|topic| topic["name"] == "ml.entity.changed.v1").unwrap();
    assert_eq!(
        *entities,
        json!({"name": "ml.entity.changed.v1", "partitions": 6, "records": 12, "cleanup": "compact"})
    );
    let processor = &status["processors"][0];
    assert_eq!((processor["phase"].as_str(), processor["error"].as_str()), (Some("retrying"), Some("no disk")));
    assert_eq!((processor["lag"].as_u64(), processor["group"].as_str()), (Some(1), Some("carbon.catalog.g")));
    assert!(processor["oldest_event_age_s"].as_f64().unwrap() < 60.0);
    assert_eq!(processor["halted"], json!({"ml.entity.changed.v1:5": "a newer program"}));
    assert_eq!(processor["generation"], "catalog-v1-1");
    assert_eq!(status["tasks"]["generations"]["phase"], "running");
    let generation = &status["generations"][0];
    assert_eq!((generation["id"].as_str(), generation["state"].as_str()), (Some("catalog-v1-1"), Some("active")));
    assert!(generation["since"].as_str().unwrap().ends_with('Z'));
    assert_eq!(status["dead_letters"], json!({"by_reason": {}}));
}

#[tokio::test]
async fn the_openapi_document_lists_every_route() {
    let service = Service::new().await;
    let spec = service.get("/openapi.json").await.json();
    for (path, method) in [
        ("/entities", "post"),
        ("/entities/{entity_type}/{entity_id}", "delete"),
        ("/status", "get"),
        ("/generations", "get"),
        ("/generations/{id}", "get"),
        ("/generations/{id}/promote", "post"),
        ("/generations/{id}/retire", "post"),
        ("/read-models/{name}/replay", "post"),
        ("/live", "get"),
        ("/ready", "get"),
        ("/health", "get"),
        ("/metrics", "get"),
    ] {
        assert!(spec["paths"][path][method].is_object(), "{method} {path}");
    }
    for name in ["EntityInput", "Appended", "Status", "Problem"] {
        assert!(spec["components"]["schemas"][name].is_object(), "{name}");
    }
    assert_eq!(service.get("/docs").await.status, 200);
}
