//! Records of foreign producers.

use carbon_core::{Cleanup, Partitioner, TopicSpec};
use carbon_log::EventLog;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::FutureRecord;

use super::clients::{producer, send, to, with_topic};
use super::wire;
use crate::factory::Kafka;
use crate::support::{Cluster, Reader, all, keyed, positions, spec, text, texts};

fn header(name: &str, value: &str) -> (String, Vec<u8>) {
    (name.to_owned(), value.as_bytes().to_vec())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker and a registry: scripts/services.sh up, and its env"]
async fn unusual_headers_are_read() {
    let kafka = Kafka::new();
    let (log, topic) = with_topic(&kafka, 1).await;
    let mut headers = OwnedHeaders::new();
    for (key, value) in
        [("a", Some("1")), ("none", None), ("", Some("nameless")), ("a", Some("2")), ("empty", Some(""))]
    {
        headers = headers.insert(Header { key, value });
    }
    send(&producer(&kafka, &[]), to(&topic, "odd").headers(headers)).await;
    log.append(vec![text(&topic, 0, "ours").with_header("", "x").with_header("", "y")]).await.unwrap();
    let records = all(&log, &topic, 0).await;
    assert_eq!(texts(&records), ["odd", "ours"]);
    // A header without a value is read as a header with an empty value.
    let unusual = [("a", "1"), ("none", ""), ("", "nameless"), ("a", "2"), ("empty", "")];
    assert_eq!(records[0].headers, unusual.map(|(name, value)| header(name, value)));
    assert_eq!(records[1].headers, [header("", "x"), header("", "y")]);
}

/// rdkafka panics on such headers.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker and a registry: scripts/services.sh up, and its env"]
async fn headers_with_names_that_are_not_utf8_are_omitted() {
    let kafka = Kafka::new();
    let (log, topic) = with_topic(&kafka, 1).await;
    let brokers = kafka.options().brokers;
    let broker = brokers.split(',').next().unwrap();
    let mut reader = Reader::join(&log, &kafka.group("g"), &topic, positions(&topic, [(0, 0)])).await;
    log.append(vec![text(&topic, 0, "before")]).await.unwrap();
    let headers: [(&[u8], Option<&[u8]>); 4] =
        [(b"good", Some(b"1")), (b"\xff\xfe", Some(b"2")), (b"cut\xc3", None), (b"last", Some(b"\xff"))];
    wire::produce(broker, topic.as_str(), b"odd", &headers).await;
    log.append(vec![text(&topic, 0, "after")]).await.unwrap();
    // The readers still work: no thread has panicked.
    reader.read_to(&positions(&topic, [(0, 3)])).await;
    for _ in 0..2 {
        let records = all(&log, &topic, 0).await;
        assert_eq!(texts(&records), ["before", "odd", "after"]);
        assert_eq!(records, reader.records);
        assert_eq!(records[1].headers, [header("good", "1"), ("last".to_owned(), vec![0xff])]);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker and a registry: scripts/services.sh up, and its env"]
async fn records_of_every_compression_are_read() {
    let kafka = Kafka::new();
    let (log, topic) = with_topic(&kafka, 1).await;
    let mut expected = Vec::new();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        // One batch that is large enough to be compressed.
        let settings = [("compression.type", codec), ("linger.ms", "100"), ("enable.idempotence", "true")];
        let foreign = producer(&kafka, &settings);
        let values: Vec<_> = (0..50).map(|n| format!("{codec} {n} {}", "again and ".repeat(50))).collect();
        futures::future::join_all(values.iter().map(|value| send(&foreign, to(&topic, value)))).await;
        expected.extend(values);
    }
    let mut reader = Reader::new(log.follow(&positions(&topic, [(0, 0)])).await.unwrap());
    reader.read_to(&positions(&topic, [(0, 250)])).await;
    assert_eq!(texts(&reader.records), expected);
    assert_eq!(all(&log, &topic, 0).await, reader.records);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker and a registry: scripts/services.sh up, and its env"]
async fn librdkafka_computes_the_same_partition() {
    let kafka = Kafka::new();
    let (log, murmur2) = with_topic(&kafka, 7).await;
    let crc32 = kafka.topic("crc");
    let other = TopicSpec { partitioner: Partitioner::Crc32, ..spec(&crc32, 7, Cleanup::Keep) };
    log.ensure_topics(&[other]).await.unwrap();
    // `consistent_random` is librdkafka's default.
    for (topic, partitioner) in [(&murmur2, "murmur2_random"), (&crc32, "consistent_random")] {
        let foreign = producer(&kafka, &[("partitioner", partitioner)]);
        for n in 0..40 {
            let key = format!("acme/instrument/{}", "é".repeat(n) + &n.to_string());
            let record = FutureRecord::to(topic.as_str()).key(key.as_bytes()).payload(b"v".as_slice());
            let (theirs, _) = send(&foreign, record).await;
            let ours = log.append(vec![keyed(topic, &key, Some("v"))]).await.unwrap();
            assert_eq!(theirs, ours[0].partition, "{key} by {partitioner}");
        }
    }
}
