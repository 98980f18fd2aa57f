//! `GET /events/{topic}`.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use carbon_core::{Clock as _, GenerationId, Position, SystemClock, TenantId, Timestamp, TopicName};
use carbon_log::{NewRecord, Value as RecordValue};
use carbon_runtime::dead_letter;
use carbon_schemas::events::{
    EmbeddingGenerated, EntityChanged, IndexUpdated, Source, WebhookChanged, WebhookKind, vector_to_bytes,
};
use carbon_schemas::{Event as _, Poison, PoisonReason};
use futures::StreamExt as _;
use serde_json::{Value, json};
use support::{Service, entity};
use tower::ServiceExt as _;
use uuid::Uuid;

const ENTITIES: &str = "/events/ml.entity.changed.v1";

/// Parses the events of a stream that has ended: id and data.
fn frames(body: &str) -> Vec<(String, Value)> {
    let field = |block: &str, name: &str| {
        block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(|value| value.trim().to_owned())
    };
    let blocks = body.split("\n\n").filter(|block| field(block, "data").is_some());
    blocks
        .map(|block| {
            (field(block, "id").unwrap_or_default(), serde_json::from_str(&field(block, "data").unwrap()).unwrap())
        })
        .collect()
}

/// Gets a stream that ends; returns its events.
async fn read_stream(service: &Service, uri: &str) -> Vec<(String, Value)> {
    let answer = service.get(uri).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(answer.headers["content-type"].to_str().unwrap().starts_with("text/event-stream"));
    frames(&answer.body)
}

fn ids(frames: &[(String, Value)]) -> Vec<&str> {
    let mut ids: Vec<_> = frames.iter().map(|(_, data)| data["event"]["entity_id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    ids
}

#[tokio::test]
async fn events_are_decoded_and_have_their_position() {
    let service = Service::new().await;
    let record = NewRecord::event(&entity("acme", "A", "line\none")).unwrap().with_header("traceparent", "00-x");
    let position = service.log.append(vec![record]).await.unwrap().remove(0);
    let frames = read_stream(&service, &format!("/tenants/acme{ENTITIES}?from=earliest&follow=false")).await;
    let [(id, data)] = frames.as_slice() else { panic!("{} events", frames.len()) };
    assert_eq!(
        (id.as_str(), data["position"].as_str()),
        (position.to_string().as_str(), Some(position.to_string().as_str()))
    );
    assert_eq!((data["key"].as_str(), data["headers"]["traceparent"].as_str()), (Some("acme/curve/A"), Some("00-x")));
    assert!(data["timestamp"].as_str().unwrap().ends_with('Z'));
    assert_eq!(
        (data["event"]["text"].as_str(), &data["event"]["metadata"]),
        (Some("line\none"), &json!({"hub": "HH"}))
    );
}

#[tokio::test]
async fn law_12_a_stream_contains_only_events_of_the_tenant() {
    let service = Service::new().await;
    service.append(&[entity("default", "A", "x"), entity("acme", "SECRET", "x"), entity("default", "B", "x")]).await;
    let poison = |tenant: &str| {
        let mut record = NewRecord::event(&entity(tenant, "BAD", "x")).unwrap();
        record.value = RecordValue::Raw(b"\xc3\x01poison of somebody".to_vec());
        record
    };
    let mut keyless = poison("default");
    keyless.key = None;
    // The key names the tenant `default`, the payload `acme`.
    let mut stolen = NewRecord::event(&entity("acme", "STOLEN", "SECRET text")).unwrap();
    stolen.key = Some(b"default/curve/STOLEN".to_vec());
    stolen.placement = carbon_log::Placement::ByKey(b"default/curve/STOLEN".to_vec());
    let null = NewRecord::null::<EntityChanged>(&EntityChanged::parse_key("acme/curve/SECRET").unwrap()).unwrap();
    service.log.append(vec![poison("default"), poison("acme"), keyless, stolen, null]).await.unwrap();
    let frames = read_stream(&service, &format!("{ENTITIES}?follow=false")).await;
    let mut seen: Vec<_> = frames
        .iter()
        .map(|(_, data)| match data["poison"]["reason"].as_str() {
            Some(reason) => format!("{} {reason}", data["key"].as_str().unwrap()),
            None => data["key"].as_str().unwrap().to_owned(),
        })
        .collect();
    seen.sort();
    assert_eq!(
        seen,
        ["default/curve/A", "default/curve/B", "default/curve/BAD unknown_schema", "default/curve/STOLEN key_mismatch"]
    );
    let text = frames.iter().map(|(_, data)| data.to_string()).collect::<String>();
    assert!(!text.contains("SECRET text") && !text.contains("somebody"), "{text}");
}

#[tokio::test]
async fn a_stream_starts_at_from_and_resumes_after_last_event_id() {
    let service = Service::new().await;
    let events: Vec<_> = (0..20).map(|n| entity("default", &format!("E{n:02}"), "x")).collect();
    service.append(&events[..10]).await;
    let first = read_stream(&service, &format!("{ENTITIES}?from=earliest&follow=false")).await;
    assert_eq!(first.len(), 10);
    assert!(read_stream(&service, &format!("{ENTITIES}?from=latest&follow=false")).await.is_empty());
    tokio::time::sleep(Duration::from_millis(5)).await;
    let now = SystemClock.now().to_rfc3339();
    tokio::time::sleep(Duration::from_millis(5)).await;
    service.append(&events[10..]).await;
    let later = read_stream(&service, &format!("{ENTITIES}?from={now}&follow=false")).await;
    let expected: Vec<_> = events[10..].iter().map(|event| event.entity_id.as_str()).collect();
    assert_eq!(ids(&later), expected);
    // After each event, a resumed stream contains exactly the events after it.
    for (n, (id, _)) in first.iter().enumerate() {
        let answer =
            service.get_with(&format!("{ENTITIES}?from=earliest&follow=false"), &[("last-event-id", id)]).await;
        let rest = frames(&answer.body);
        assert_eq!(rest.len(), 20 - n - 1, "after {id}");
        let before: Vec<_> = first[..=n].iter().map(|(_, data)| data["position"].clone()).collect();
        assert!(rest.iter().all(|(_, data)| !before.contains(&data["position"])));
    }
    // A start position selects only its partition, and is the position of the first event.
    let position = first[4].1["position"].as_str().unwrap();
    let at: Position = position.parse().unwrap();
    let from = read_stream(&service, &format!("{ENTITIES}?from={position}&follow=false")).await;
    assert_eq!(from[0].1["position"], position);
    let same = |data: &Value| data["position"].as_str().unwrap().parse::<Position>().unwrap().partition == at.partition;
    assert!(from.iter().all(|(_, data)| same(data)));
}

#[tokio::test]
async fn a_stream_follows_the_topic_until_the_shutdown() {
    let service = Service::new().await;
    service.append(&[entity("default", "OLD", "x")]).await;
    let response = service.router.clone().oneshot(Request::get(ENTITIES).body(Body::empty()).unwrap()).await.unwrap();
    let mut body = response.into_body().into_data_stream();
    service.append(&[entity("acme", "SECRET", "x"), entity("default", "NEW", "x")]).await;
    let piece = tokio::time::timeout(Duration::from_secs(10), body.next()).await.unwrap().unwrap().unwrap();
    let frames = frames(std::str::from_utf8(&piece).unwrap());
    assert_eq!(ids(&frames), ["NEW"]);
    service.dependencies.shutdown.cancel();
    let end = tokio::time::timeout(Duration::from_secs(10), body.next()).await.unwrap();
    assert!(end.is_none(), "the stream ends");
}

#[tokio::test]
async fn bytes_are_base64_and_events_without_a_tenant_are_visible_to_all() {
    let service = Service::new().await;
    let source = Source { topic: "ml.entity.changed.v1".into(), partition: 0, offset: 0 };
    let embedding = EmbeddingGenerated {
        event_id: Uuid::now_v7(),
        occurred_at: Timestamp(1),
        tenant_id: TenantId::parse("default").unwrap(),
        entity_type: "curve".into(),
        entity_id: "A".into(),
        text: "x".into(),
        metadata: Default::default(),
        tags: vec![],
        deleted: false,
        reason: None,
        text_sha256: String::new(),
        model: "m@1@f32".into(),
        dimension: 2,
        vector: Some(vector_to_bytes(&[1.0, 2.0])),
        source,
    };
    let updated = IndexUpdated {
        event_id: Uuid::now_v7(),
        occurred_at: Timestamp(1),
        tenant_id: None,
        generation: GenerationId::parse("search-v1-1").unwrap(),
        upserts: 3,
        deletes: 0,
        up_to: vec![],
    };
    let records = vec![NewRecord::event(&embedding).unwrap(), NewRecord::event(&updated).unwrap()];
    service.log.append(records).await.unwrap();
    let frames = read_stream(&service, "/events/ml.embedding.generated.v1?follow=false").await;
    assert_eq!(frames[0].1["event"]["vector"], "AACAPwAAAEA=");
    for uri in
        ["/events/search.index.updated.v1?follow=false", "/tenants/acme/events/search.index.updated.v1?follow=false"]
    {
        assert_eq!(read_stream(&service, uri).await[0].1["event"]["upserts"], 3, "{uri}");
    }
    // Every topic of the topology has an event type.
    for topic in service.dependencies.topology.topics.keys() {
        assert_eq!(service.get(&format!("/events/{topic}?follow=false")).await.status, 200, "{topic}");
    }
}

#[tokio::test]
async fn law_12_the_bytes_of_a_dead_letter_are_visible_only_to_its_tenant() {
    let service = Service::new().await;
    let letter = |offset: u64, key: Option<&'static [u8]>, reason: PoisonReason| {
        let record = carbon_log::Record {
            position: Position::new(TopicName::parse("ml.entity.changed.v1").unwrap(), 0, offset),
            timestamp: Timestamp(1),
            key: key.map(bytes::Bytes::from_static),
            value: Some(bytes::Bytes::from_static(b"payload")),
            headers: vec![("h".into(), b"v".to_vec())],
        };
        dead_letter("catalog", &record, &Poison { reason, message: "why".into() }).unwrap()
    };
    let letters = vec![
        letter(0, Some(b"acme/curve/A"), PoisonReason::Malformed),
        letter(1, Some(b"default/curve/A"), PoisonReason::Malformed),
        letter(2, None, PoisonReason::Malformed),
        letter(3, Some(b"default/curve/A"), PoisonReason::WrongPartition),
        letter(4, Some(b"default"), PoisonReason::UnreadableKey),
        letter(5, Some(b"default/curve/A"), PoisonReason::KeyMismatch),
    ];
    service.log.append(letters).await.unwrap();
    let frames = read_stream(&service, "/events/ml.deadletter.v1?follow=false").await;
    let events: Vec<_> = frames.iter().map(|(_, data)| &data["event"]).collect();
    assert_eq!(events.len(), 5, "acme's is not shown");
    // The tenant of these payloads is not known or in doubt. The message is visible, so that the producer can be fixed.
    for event in &events[2..] {
        assert_eq!((&event["payload"], &event["headers"]), (&Value::Null, &json!({})), "{event}");
    }
    assert_eq!(events[2]["message"], "why");
    assert_eq!(
        (events[0]["payload"].as_str(), events[0]["headers"]["h"].as_str()),
        (Some("cGF5bG9hZA=="), Some("dg=="))
    );
    assert_eq!(
        (&events[1]["payload"], &events[1]["headers"], events[1]["reason"].as_str()),
        (&Value::Null, &json!({}), Some("malformed"))
    );
}

#[tokio::test]
async fn encrypted_secrets_of_webhooks_are_not_visible() {
    let service = Service::new().await;
    let tenant = TenantId::parse("acme").unwrap();
    for sealed in [Some("v1:c2VhbGVk"), Some(""), None] {
        let of = WebhookChanged::of(Uuid::nil(), Timestamp(0), &tenant, Uuid::nil(), WebhookKind::Updated);
        let event = WebhookChanged { sealed_secret: sealed.map(Into::into), ..of };
        service.log.append(vec![NewRecord::event(&event).unwrap()]).await.unwrap();
    }
    let uri = "/tenants/acme/events/ml.webhook.changed.v1?from=earliest&follow=false";
    let shown = read_stream(&service, uri).await;
    let secrets: Vec<_> = shown.iter().map(|(_, data)| data["event"]["sealed_secret"].clone()).collect();
    assert_eq!(secrets, [json!("***"), json!(""), Value::Null]);
}
