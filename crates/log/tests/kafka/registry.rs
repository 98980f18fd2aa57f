//! The registry: what it does not know is not the same as what it does not say (law 13).

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use carbon_core::{Classify, Retry, TopicName};
use carbon_log::{EventLog, KafkaLog, KafkaOptions, LogError, NewRecord};
use carbon_schemas::events::{EntityChanged, IndexUpdated};
use carbon_schemas::{Event, SchemaId};
use tokio::net::TcpListener;

use super::raw::with_topic;
use super::stub::Stub;
use crate::factory::Kafka;
use crate::support::{all, soon, spec, text, texts};

fn topic(name: &str) -> TopicName {
    TopicName::parse(name).unwrap()
}

/// An id that this process has not asked for.
const ID: u32 = 1_999_999_999;

async fn with_registry(kafka: &Kafka, registry: &str) -> KafkaLog {
    KafkaLog::connect(KafkaOptions { registry: registry.to_owned(), ..kafka.options() }).await.unwrap()
}

/// A good record of an event. Its topic is the suite's too, and nothing is written to it here.
async fn an_event(log: &KafkaLog) -> NewRecord {
    let entities = topic(EntityChanged::NAME);
    // A platform may have made it already, compacted.
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

/// Nothing that needs the registry is answered, and what needs none goes on.
async fn waits_for_the_registry(address: &str) {
    let kafka = Kafka::new();
    let (_, own) = with_topic(&kafka, 1).await;
    let log = with_registry(&kafka, address).await;
    let event = an_event(&log).await;
    let events = [topic(EntityChanged::NAME)];
    // A batch with one such record is refused whole.
    let outcomes = [
        log.append(vec![text(&own, 0, "beside it"), event]).await.map(drop),
        log.schema(SchemaId::Registry(ID)).await.map(drop),
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
async fn law_13_an_id_that_the_registry_does_not_know_is_unknown() {
    let log = Kafka::new().connect().await;
    assert_eq!(log.schema(SchemaId::Registry(ID)).await.unwrap(), None);
    // Not for ever: somebody may register it.
    assert_eq!(log.schema(SchemaId::Registry(ID)).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker and a registry: scripts/services.sh up, and its env"]
async fn law_13_a_registry_that_cannot_be_reached_is_waited_for() {
    waits_for_the_registry("http://127.0.0.1:1/").await;
}

/// A proxy's answer, a route that is not there: none of it says that a schema is unknown.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker and a registry: scripts/services.sh up, and its env"]
async fn law_13_a_404_that_another_server_answers_is_no_answer() {
    for body in ["<html>404 page not found</html>", r#"{"error_code":404,"message":"HTTP 404 Not Found"}"#, ""] {
        let stub = Stub::start(|_| (404, body.to_owned())).await;
        waits_for_the_registry(&stub.address).await;
        assert!(stub.asked() >= 5);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker and a registry: scripts/services.sh up, and its env"]
async fn law_13_a_registry_that_fails_is_waited_for() {
    let failures = [
        (500, r#"{"error_code":50001,"message":"Error in the backend data store"}"#),
        (503, "upstream connect error"),
        (401, r#"{"error_code":40101,"message":"Unauthorized"}"#),
        // What is no answer to the question.
        (200, "<html>please log in</html>"),
        (200, "{}"),
    ];
    for (status, body) in failures {
        let stub = Stub::start(move |_| (status, body.to_owned())).await;
        waits_for_the_registry(&stub.address).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker and a registry: scripts/services.sh up, and its env"]
async fn law_13_a_registry_that_never_answers_is_given_up_in_time() {
    // The kernel takes the connection; nobody reads.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let log = with_registry(&Kafka::new(), &format!("http://{}", silent.local_addr().unwrap())).await;
    let began = Instant::now();
    let error = soon("an end to the waiting", log.schema(SchemaId::Registry(ID))).await.unwrap_err();
    assert!(matches!(&error, LogError::Unavailable(message) if message.contains("no answer in time")), "{error}");
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker and a registry: scripts/services.sh up, and its env"]
async fn law_13_a_schema_that_is_not_registered_says_what_to_do() {
    for code in [40401, 40403] {
        let stub = Stub::start(move |_| (404, format!(r#"{{"error_code":{code},"message":"not found"}}"#))).await;
        let log = with_registry(&Kafka::new(), &stub.address).await;
        let event = an_event(&log).await;
        let error = log.append(vec![event]).await.unwrap_err();
        assert!(matches!(error, LogError::SchemaMissing { version: 1, .. }), "{error}");
        for named in ["topology apply", "ml.entity.changed.v1-value"] {
            assert!(error.to_string().contains(named), "{error}");
        }
        // Somebody applies it, and it goes on.
        assert_eq!(error.retry(), Retry::Later);
        let missing = log.missing_schemas(&[topic(EntityChanged::NAME)]).await.unwrap();
        assert_eq!(missing, [("ml.entity.changed.v1-value".to_owned(), 1)]);
        // Only the registry's word counts as not knowing an id.
        assert_eq!(log.schema(SchemaId::Registry(ID)).await.unwrap(), None);
        assert_eq!(stub.writes(), [""; 0]);
    }
}

/// A registry that has one version of a subject, and of others nothing.
async fn holding(subject: &'static str, schema: String) -> Stub {
    Stub::start(move |asked| {
        let body = serde_json::json!({"subject": subject, "id": 1, "version": 1, "schema": schema});
        match asked.strip_prefix("GET /subjects/").and_then(|asked| asked.split_once("/versions")) {
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
async fn law_13_an_incompatible_subject_is_refused_before_anything_changes() {
    let ours = IndexUpdated::schema().version.json;
    let differing = ours.replace(r#""upserts", "type": "long""#, r#""upserts", "type": "string""#);
    assert_ne!(ours, differing);
    let stub = holding("search.index.updated.v1-value", differing).await;
    let log = with_registry(&Kafka::new(), &stub.address).await;
    // The first of them has nothing wrong with it.
    let error = log.register_schemas(&[topic(EntityChanged::NAME), topic(IndexUpdated::NAME)]).await.unwrap_err();
    assert!(matches!(error, LogError::SchemaRefused { .. }), "{error}");
    for named in ["search.index.updated.v1-value", "'upserts'", "version 1"] {
        assert!(error.to_string().contains(named), "{error}");
    }
    assert_eq!(error.retry(), Retry::Never);
    assert_eq!(stub.writes(), [""; 0]);
    // With what it may hold, it is registered.
    let stub = holding("search.index.updated.v1-value", ours.to_owned()).await;
    let log = with_registry(&Kafka::new(), &stub.address).await;
    let made = log.register_schemas(&[topic(EntityChanged::NAME), topic(IndexUpdated::NAME)]).await.unwrap();
    assert_eq!(made.iter().map(|made| made.version).collect::<Vec<_>>(), [1, 1]);
    let [entity, index] = ["ml.entity.changed.v1-value", "search.index.updated.v1-value"];
    let writes = [entity, index].map(|of| [format!("POST /subjects/{of}/versions"), format!("PUT /config/{of}")]);
    assert_eq!(stub.writes(), writes.concat());
}

/// Of two who register a subject at once, some registries refuse the second, though both say the same.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker and a registry: scripts/services.sh up, and its env"]
async fn law_13_who_loses_a_race_of_registrations_has_its_id() {
    let (registered, ruled) = (AtomicBool::new(false), AtomicBool::new(false));
    let stub = Stub::start(move |asked| {
        let registers = asked.starts_with("POST ") && asked.ends_with("/versions");
        let raced = match (registers, asked.starts_with("PUT /config/")) {
            (true, _) => !registered.swap(true, Ordering::Relaxed),
            (_, true) => !ruled.swap(true, Ordering::Relaxed),
            _ => false,
        };
        match (asked.starts_with("GET /subjects/"), raced) {
            (true, _) => (404, r#"{"error_code":40401,"message":"Subject not found"}"#.to_owned()),
            (_, true) => (409, r#"{"error_code":409,"message":"It already exists."}"#.to_owned()),
            _ => (200, r#"{"id":7}"#.to_owned()),
        }
    })
    .await;
    let log = with_registry(&Kafka::new(), &stub.address).await;
    let made = log.register_schemas(&[topic(EntityChanged::NAME)]).await.unwrap();
    assert_eq!(made.iter().map(|made| (made.version, made.id)).collect::<Vec<_>>(), [(1, 7)]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker and a registry: scripts/services.sh up, and its env"]
async fn law_13_what_the_registry_refuses_is_refused() {
    for (status, body) in [
        (409, r#"{"error_code":409,"message":"incompatible with an earlier schema: field x"}"#),
        (422, r#"{"error_code":42201,"message":"invalid schema: field x"}"#),
    ] {
        let stub = Stub::start(move |asked| match asked.starts_with("POST ") {
            true => (status, body.to_owned()),
            false => (404, r#"{"error_code":40401,"message":"Subject not found"}"#.to_owned()),
        })
        .await;
        let log = with_registry(&Kafka::new(), &stub.address).await;
        let error = log.register_schemas(&[topic(IndexUpdated::NAME)]).await.unwrap_err();
        assert!(matches!(error, LogError::SchemaRefused { .. }), "{error}");
        assert!(error.to_string().contains("field x"), "the registry's own words: {error}");
    }
}
