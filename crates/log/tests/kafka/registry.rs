//! The schema registry: an id that is not registered is poison, but an unavailable registry is a retriable error (law
//! 13).

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use carbon_core::{Classify, Retry, TopicName};
use carbon_log::{EventLog, KafkaLog, KafkaOptions, LogError, NewRecord};
use carbon_schemas::events::{EntityChanged, IndexUpdated};
use carbon_schemas::{Event, SchemaId};
use tokio::net::TcpListener;

use super::clients::with_topic;
use super::stub::RegistryStub;
use crate::factory::Kafka;
use crate::support::{all, in_time, spec, text, texts};

fn topic(name: &str) -> TopicName {
    TopicName::parse(name).unwrap()
}

/// An id that no schema has.
const UNREGISTERED_ID: u32 = 1_999_999_999;

async fn with_registry(kafka: &Kafka, registry: &str) -> KafkaLog {
    KafkaLog::connect(KafkaOptions { registry: registry.to_owned(), ..kafka.options() }).await.unwrap()
}

/// A valid record of an event. Its topic is shared with the conformance suite, and nothing is appended to it here.
async fn event_record(log: &KafkaLog) -> NewRecord {
    let entities = topic(EntityChanged::NAME);
    // Another program may have created the topic already, with compaction.
    if log.ends(&entities).await.is_err() {
        log.ensure_topics(&[spec(&entities, 6, carbon_core::Cleanup::Keep)]).await.unwrap();
    }
    let event = EntityChanged {
        event_id: uuid::Uuid::from_u128(7),
        occurred_at: carbon_core::Timestamp(1_700_000_000_000),
        tenant_id: carbon_core::TenantId::parse("acme").unwrap(),
        entity_type: "instrument".into(),
        entity_id: "NG_HH_BALMO".into(),
        text: "Henry Hub natural gas, balance of month".into(),
        metadata: [].into(),
        tags: vec![],
        deleted: false,
    };
    NewRecord::event(&event).unwrap()
}

/// Asserts that every request that needs the registry fails with a retriable error, and that other requests succeed.
async fn assert_retriable(address: &str) {
    let kafka = Kafka::new();
    let (_, own) = with_topic(&kafka, 1).await;
    let log = with_registry(&kafka, address).await;
    let event = event_record(&log).await;
    let events = [topic(EntityChanged::NAME)];
    // An append with one such record is rejected as a whole.
    let outcomes = [
        log.append(vec![text(&own, 0, "other"), event]).await.map(drop),
        log.schema(SchemaId::Registry(UNREGISTERED_ID)).await.map(drop),
        log.put_schema("x.v1", r#"{"type":"record","name":"X","fields":[]}"#).await.map(drop),
        log.register_schemas(&events).await.map(drop),
        log.missing_schemas(&events).await.map(drop),
    ];
    for (n, outcome) in outcomes.into_iter().enumerate() {
        match outcome {
            Err(error @ LogError::Unavailable(_)) => {
                assert_eq!(error.retry(), Retry::Later);
                assert!(error.to_string().contains("schema registry: "), "{n}: {error}");
            }
            other => panic!("{n}: {other:?}"),
        }
    }
    log.append(vec![text(&own, 0, "raw")]).await.unwrap();
    assert_eq!(texts(&all(&log, &own, 0).await), ["raw"]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker and a registry: scripts/services.sh up, and its env"]
async fn law_13_an_id_that_is_not_registered_is_unknown() {
    let log = Kafka::new().connect().await;
    assert_eq!(log.schema(SchemaId::Registry(UNREGISTERED_ID)).await.unwrap(), None);
    // The answer is not cached: the schema may be registered later.
    assert_eq!(log.schema(SchemaId::Registry(UNREGISTERED_ID)).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker and a registry: scripts/services.sh up, and its env"]
async fn law_13_an_unreachable_registry_is_a_retriable_error() {
    assert_retriable("http://127.0.0.1:1/").await;
}

/// A 404 of a proxy, or for an unknown route, does not mean that a schema is not registered.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker and a registry: scripts/services.sh up, and its env"]
async fn law_13_a_404_from_another_server_is_a_retriable_error() {
    for body in ["<html>404 page not found</html>", r#"{"error_code":404,"message":"HTTP 404 Not Found"}"#, ""] {
        let stub = RegistryStub::start(|_| (404, body.to_owned())).await;
        assert_retriable(&stub.address).await;
        assert!(stub.request_count() >= 5);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker and a registry: scripts/services.sh up, and its env"]
async fn law_13_a_failing_registry_is_a_retriable_error() {
    let failures = [
        (500, r#"{"error_code":50001,"message":"Error in the backend data store"}"#),
        (503, "upstream connect error"),
        (401, r#"{"error_code":40101,"message":"Unauthorized"}"#),
        // Not an answer of a registry.
        (200, "<html>please log in</html>"),
        (200, "{}"),
    ];
    for (status, body) in failures {
        let stub = RegistryStub::start(move |_| (status, body.to_owned())).await;
        assert_retriable(&stub.address).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker and a registry: scripts/services.sh up, and its env"]
async fn law_13_a_request_to_a_silent_registry_times_out() {
    // The kernel accepts the connection, and nobody answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let log = with_registry(&Kafka::new(), &format!("http://{}", silent.local_addr().unwrap())).await;
    let began = Instant::now();
    let error =
        in_time("the timeout of the request", log.schema(SchemaId::Registry(UNREGISTERED_ID))).await.unwrap_err();
    assert!(matches!(&error, LogError::Unavailable(message) if message.contains("no answer in time")), "{error}");
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker and a registry: scripts/services.sh up, and its env"]
async fn law_13_the_error_for_a_missing_schema_says_what_to_do() {
    for code in [40401, 40403] {
        let stub =
            RegistryStub::start(move |_| (404, format!(r#"{{"error_code":{code},"message":"not found"}}"#))).await;
        let log = with_registry(&Kafka::new(), &stub.address).await;
        let event = event_record(&log).await;
        let error = log.append(vec![event]).await.unwrap_err();
        assert!(matches!(error, LogError::SchemaMissing { version: 1, .. }), "{error}");
        for named in ["topology apply", "ml.entity.changed.v1-value"] {
            assert!(error.to_string().contains(named), "{error}");
        }
        // The error is retriable: an operator may run `topology apply`.
        assert_eq!(error.retry(), Retry::Later);
        let missing = log.missing_schemas(&[topic(EntityChanged::NAME)]).await.unwrap();
        assert_eq!(missing, [("ml.entity.changed.v1-value".to_owned(), 1)]);
        // The registry's own error code means that the id is not registered.
        assert_eq!(log.schema(SchemaId::Registry(UNREGISTERED_ID)).await.unwrap(), None);
        assert_eq!(stub.writes(), [""; 0]);
    }
}

/// A stub with one version of one subject, and no other subjects.
async fn stub_with_version(subject: &'static str, schema: String) -> RegistryStub {
    RegistryStub::start(move |request| {
        let body = serde_json::json!({"subject": subject, "id": 1, "version": 1, "schema": schema});
        match request.strip_prefix("GET /subjects/").and_then(|path| path.split_once("/versions")) {
            Some((of, "")) if of == subject => (200, "[1]".to_owned()),
            Some((of, "/1")) if of == subject => (200, body.to_string()),
            Some(_) => (404, r#"{"error_code":40401,"message":"Subject not found"}"#.to_owned()),
            None => (200, r#"{"id":1}"#.to_owned()),
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker and a registry: scripts/services.sh up, and its env"]
async fn law_13_an_incompatible_subject_is_rejected_before_any_change() {
    let ours = IndexUpdated::schema().version.json;
    let differing = ours.replace(r#""upserts", "type": "long""#, r#""upserts", "type": "string""#);
    assert_ne!(ours, differing);
    let stub = stub_with_version("search.index.updated.v1-value", differing).await;
    let log = with_registry(&Kafka::new(), &stub.address).await;
    // The first topic is compatible, but is not registered either.
    let error = log.register_schemas(&[topic(EntityChanged::NAME), topic(IndexUpdated::NAME)]).await.unwrap_err();
    assert!(matches!(error, LogError::SchemaRefused { .. }), "{error}");
    for named in ["search.index.updated.v1-value", "'upserts'", "version 1"] {
        assert!(error.to_string().contains(named), "{error}");
    }
    assert_eq!(error.retry(), Retry::Never);
    assert_eq!(stub.writes(), [""; 0]);
    // With a compatible subject, both are registered.
    let stub = stub_with_version("search.index.updated.v1-value", ours.to_owned()).await;
    let log = with_registry(&Kafka::new(), &stub.address).await;
    let registrations = log.register_schemas(&[topic(EntityChanged::NAME), topic(IndexUpdated::NAME)]).await.unwrap();
    assert_eq!(registrations.iter().map(|registration| registration.version).collect::<Vec<_>>(), [1, 1]);
    let [entity, index] = ["ml.entity.changed.v1-value", "search.index.updated.v1-value"];
    let writes = [entity, index].map(|of| [format!("POST /subjects/{of}/versions"), format!("PUT /config/{of}")]);
    assert_eq!(stub.writes(), writes.concat());
}

/// If two clients register a subject at once, some registries reject the second with a conflict, though both schemas
/// are the same.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker and a registry: scripts/services.sh up, and its env"]
async fn law_13_a_lost_registration_race_returns_the_id() {
    let (registered, configured) = (AtomicBool::new(false), AtomicBool::new(false));
    let stub = RegistryStub::start(move |request| {
        let registers = request.starts_with("POST ") && request.ends_with("/versions");
        let raced = match (registers, request.starts_with("PUT /config/")) {
            (true, _) => !registered.swap(true, Ordering::Relaxed),
            (_, true) => !configured.swap(true, Ordering::Relaxed),
            _ => false,
        };
        match (request.starts_with("GET /subjects/"), raced) {
            (true, _) => (404, r#"{"error_code":40401,"message":"Subject not found"}"#.to_owned()),
            (_, true) => (409, r#"{"error_code":409,"message":"It already exists."}"#.to_owned()),
            _ => (200, r#"{"id":7}"#.to_owned()),
        }
    })
    .await;
    let log = with_registry(&Kafka::new(), &stub.address).await;
    let registrations = log.register_schemas(&[topic(EntityChanged::NAME)]).await.unwrap();
    assert_eq!(
        registrations.iter().map(|registration| (registration.version, registration.id)).collect::<Vec<_>>(),
        [(1, 7)]
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker and a registry: scripts/services.sh up, and its env"]
async fn law_13_a_schema_that_the_registry_rejects_is_an_error() {
    for (status, body) in [
        (409, r#"{"error_code":409,"message":"incompatible with an earlier schema: field x"}"#),
        (422, r#"{"error_code":42201,"message":"invalid schema: field x"}"#),
    ] {
        let stub = RegistryStub::start(move |request| match request.starts_with("POST ") {
            true => (status, body.to_owned()),
            false => (404, r#"{"error_code":40401,"message":"Subject not found"}"#.to_owned()),
        })
        .await;
        let log = with_registry(&Kafka::new(), &stub.address).await;
        let error = log.register_schemas(&[topic(IndexUpdated::NAME)]).await.unwrap_err();
        assert!(matches!(error, LogError::SchemaRefused { .. }), "{error}");
        assert!(error.to_string().contains("field x"), "the error contains the registry's message: {error}");
    }
}
