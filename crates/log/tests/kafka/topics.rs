//! Connecting to a cluster, and topics that operators or other processes change.

use std::time::{Duration, Instant};

use carbon_core::{Classify, Cleanup, Partitioner, Retention, Retry, TopicSpec};
use carbon_log::{EventLog, KafkaLog, KafkaOptions, LogError};

use super::clients::{connect_as, own_settings, set};
use crate::factory::Kafka;
use crate::support::{Cluster, in_time, spec};

/// The error of a connect with these properties.
async fn connect_error(settings: &[(&str, &str)]) -> LogError {
    let properties = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let options = KafkaOptions { properties, ..Kafka::new().options() };
    in_time("the error of the connect", KafkaLog::connect(options)).await.map(drop).unwrap_err()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker and a registry: scripts/services.sh up, and its env"]
async fn the_error_names_an_invalid_property() {
    for (name, value) in
        [("no.such.property", "1"), ("security.protocol", "carrier-pigeon"), ("session.timeout.ms", "soon")]
    {
        match connect_error(&[(name, value)]).await {
            LogError::Options(message) => assert!(message.contains(name), "{message}"),
            other => panic!("{other}"),
        }
    }
    // A property of one kind of client does not affect the others.
    connect_as(&Kafka::new(), "x", &[("linger.ms", "7"), ("fetch.min.bytes", "1"), ("session.timeout.ms", "9000")])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker and a registry: scripts/services.sh up, and its env"]
async fn an_unreachable_cluster_is_reported_in_time() {
    let options = KafkaOptions { brokers: "127.0.0.1:1".into(), ..Kafka::new().options() };
    let began = Instant::now();
    let error = KafkaLog::connect(options).await.map(drop).unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    assert_eq!(error.retry(), Retry::Later);
    assert_eq!(error.to_string(), "the log is unavailable: kafka: no cluster at 127.0.0.1:1: no broker can be reached");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker and a registry: scripts/services.sh up, and its env"]
async fn an_operators_settings_survive_a_changed_retention() {
    let kafka = Kafka::new();
    let log = kafka.connect().await;
    let retention = Retention { retention_ms: Some(60_000), min_compaction_lag_ms: 5, delete_retention_ms: 6 };
    let topic = TopicSpec { retention, ..spec(&kafka.topic("brief"), 1, Cleanup::Delete) };
    log.ensure_topics(std::slice::from_ref(&topic)).await.unwrap();
    let operator_settings = [("segment.bytes", "12345678"), ("follower.replication.throttled.replicas", "*")];
    set(&kafka, &topic.name, &operator_settings).await;
    let before = own_settings(&kafka, &topic.name).await;
    assert_eq!((&before["segment.bytes"][..], &before["retention.ms"][..]), ("12345678", "60000"));
    // The same spec changes nothing.
    log.ensure_topics(std::slice::from_ref(&topic)).await.unwrap();
    assert_eq!(own_settings(&kafka, &topic.name).await, before);
    let longer = TopicSpec { retention: Retention { retention_ms: Some(90_000), ..retention }, ..topic };
    log.ensure_topics(std::slice::from_ref(&longer)).await.unwrap();
    let mut expected = before;
    expected.insert("retention.ms".into(), "90000".into());
    assert_eq!(own_settings(&kafka, &longer.name).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker and a registry: scripts/services.sh up, and its env"]
async fn two_processes_create_the_same_topics_concurrently() {
    let kafka = Kafka::new();
    let (one, two) = (connect_as(&kafka, "a", &[]).await, connect_as(&kafka, "b", &[]).await);
    for round in 0..5 {
        let topics: Vec<_> = (0..4).map(|n| spec(&kafka.topic(&format!("{round}.{n}")), 2, Cleanup::Keep)).collect();
        let crc = TopicSpec {
            partitioner: Partitioner::Crc32,
            ..spec(&kafka.topic(&format!("{round}.crc")), 3, Cleanup::Compact)
        };
        let all = [topics, vec![crc]].concat();
        let (first, second) = futures::join!(one.ensure_topics(&all), two.ensure_topics(&all));
        first.unwrap();
        second.unwrap();
        // Both processes can use the topics at once.
        for log in [&one, &two] {
            let described = log.describe().await.unwrap();
            for wanted in &all {
                assert!(described.iter().any(|found| found.spec == *wanted), "{wanted:?}");
            }
            log.ensure_topics(&all).await.unwrap();
        }
    }
}
