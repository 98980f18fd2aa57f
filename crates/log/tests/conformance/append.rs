//! Appending records.

use std::sync::Arc;

use carbon_core::{Cleanup, Partitioner, Position, Timestamp};
use carbon_log::{LogError, NewRecord, Placement, Value};
use carbon_schemas::events::EntityChanged;
use carbon_schemas::{Decoded, Decoder, Event, Fingerprint, MAX_RECORD_BYTES, parse, unframe};

use super::support::{Cluster, all, at, in_time, keyed, offsets, positions, spec, text, texts, with_topic};

pub async fn positions_are_returned_in_order_and_offsets_are_dense(cluster: &impl Cluster) {
    let (log, topic) = with_topic(cluster, 3).await;
    assert_eq!(log.append(vec![]).await.unwrap(), vec![]);
    let mut appended = Vec::new();
    for (batch, partitions) in [vec![2, 0, 2, 1], vec![1, 1, 2]].into_iter().enumerate() {
        let record = |partition: &u32| text(&topic, *partition, &format!("{batch}-{partition}"));
        appended.extend(log.append(partitions.iter().map(record).collect()).await.unwrap());
    }
    let expected = [(2, 0), (0, 0), (2, 1), (1, 0), (1, 1), (1, 2), (2, 2)];
    let expected = expected.map(|(partition, offset)| Position::new(topic.clone(), partition, offset));
    assert_eq!(appended, expected);
    assert_eq!(log.ends(&topic).await.unwrap(), positions(&topic, [(0, 1), (1, 3), (2, 3)]));
    assert_eq!(texts(&all(&*log, &topic, 2).await), ["0-2", "0-2", "1-2"]);
    let found = all(&*log, &topic, 1).await;
    assert_eq!(
        found.iter().map(|r| r.position.clone()).collect::<Vec<_>>(),
        [&appended[3], &appended[4], &appended[5]].map(Clone::clone)
    );
}

pub async fn a_key_goes_to_the_partition_that_kafka_clients_compute(cluster: &impl Cluster) {
    let (log, topic) = with_topic(cluster, 6).await;
    let crc = cluster.topic("crc");
    log.ensure_topics(&[carbon_core::TopicSpec { partitioner: Partitioner::Crc32, ..spec(&crc, 6, Cleanup::Keep) }])
        .await
        .unwrap();
    // The hashes are those of Apache Kafka's own test (UtilsTest.testMurmur2).
    let hashes = [
        ("21", -973_932_308_i32),
        ("foobar", -790_332_482),
        ("a-little-bit-long-string", -985_981_536),
        ("a-little-bit-longer-string", -1_486_304_829),
        ("abc", 479_470_107),
    ];
    for (key, hash) in hashes {
        let appended = log.append(vec![keyed(&topic, key, Some("v"))]).await.unwrap();
        assert_eq!(appended[0].partition, (hash as u32 & 0x7fff_ffff) % 6, "{key}");
    }
    // The CRC-32 of this text is the algorithm's published check value.
    let appended = log.append(vec![keyed(&crc, "123456789", Some("v"))]).await.unwrap();
    assert_eq!(appended[0].partition, 0xcbf4_3926 % 6);
    // The partition key need not be the record's key.
    let placement = Placement::ByKey(b"foobar".to_vec());
    let appended = log.append(vec![NewRecord { placement, ..keyed(&topic, "21", Some("v")) }]).await.unwrap();
    assert_eq!(appended[0].partition, (-790_332_482_i32 as u32 & 0x7fff_ffff) % 6);
}

pub async fn keys_values_and_headers_are_read_unchanged(cluster: &impl Cluster) {
    let (log, topic) = with_topic(cluster, 1).await;
    let headers: Vec<(String, Vec<u8>)> = vec![
        ("a".into(), vec![0, 255, 128]),
        ("a".into(), vec![]),
        ("b".into(), "später".as_bytes().to_vec()),
        ("traceparent".into(), vec![b'x'; 5000]),
    ];
    let mut sent = Vec::new();
    for key in [None, Some(vec![]), Some(b"k".to_vec()), Some(vec![0, 159, 146])] {
        for value in [Value::Null, Value::Raw(vec![]), Value::Raw(vec![0, 1, 2, 255])] {
            for headers in [vec![], headers.clone()] {
                let (topic, key, value, placement) =
                    (topic.clone(), key.clone(), value.clone(), Placement::Partition(0));
                sent.push(NewRecord { topic, key, placement, value, headers });
            }
        }
    }
    log.append(sent.clone()).await.unwrap();
    log.close().await;
    let log = cluster.open().await;
    let found = all(&*log, &topic, 0).await;
    assert_eq!(found.len(), sent.len());
    for (sent, found) in sent.iter().zip(&found) {
        assert_eq!(found.key.as_deref(), sent.key.as_deref());
        let value = match &sent.value {
            Value::Raw(bytes) => Some(bytes.as_slice()),
            _ => None,
        };
        assert_eq!(found.value.as_deref(), value);
        assert_eq!(found.headers, sent.headers);
    }
}

pub async fn an_event_is_read_unchanged(cluster: &impl Cluster) {
    let (log, topic) = (cluster.open().await, carbon_core::TopicName::parse(EntityChanged::NAME).unwrap());
    // The topic's name is fixed, so another program may have created it already.
    if log.ends(&topic).await.is_err() {
        log.ensure_topics(&[spec(&topic, 6, Cleanup::Keep)]).await.unwrap();
    }
    let event = EntityChanged {
        event_id: uuid::Uuid::from_u128(7),
        occurred_at: Timestamp(1_700_000_000_000),
        tenant_id: carbon_core::TenantId::parse("acme").unwrap(),
        entity_type: "instrument".into(),
        entity_id: "NG_HH_BALMO".into(),
        text: "Henry Hub natural gas, balance of month".into(),
        metadata: [("unit".to_owned(), carbon_core::MetadataValue::String("mmbtu".into()))].into(),
        tags: vec!["gas".into()],
        deleted: false,
    };
    let appended = log.append(vec![NewRecord::event(&event).unwrap()]).await.unwrap();
    let key = event.key().unwrap();
    log.append(vec![NewRecord::null::<EntityChanged>(&key).unwrap()]).await.unwrap();
    let found = log.read(&at(&topic, appended[0].partition), appended[0].offset, 2).await.unwrap();
    let mut decoder = Decoder::<EntityChanged>::new(6, Partitioner::Murmur2);
    // The schema of a registry id comes from the log; the decoder knows the fingerprints.
    let id = unframe(found[0].value.as_ref().unwrap()).unwrap().schema;
    decoder.learn(id, log.schema(id).await.unwrap().as_deref());
    let decoded = decoder.decode(&found[0].raw()).unwrap();
    assert_eq!(decoded, Decoded::Event { key: key.clone(), event: event.clone() });
    assert_eq!(found[0].raw().header("event_id"), Some(event.event_id.to_string().as_bytes()));
    assert_eq!(found[0].raw().header("tenant_id"), Some(b"acme".as_slice()));
    assert_eq!(found[0].raw().header("content_type"), Some(b"application/avro".as_slice()));
    assert_eq!(decoder.decode(&found[1].raw()).unwrap(), Decoded::Null { key });
}

pub async fn law_14_an_append_with_one_invalid_record_is_rejected_as_a_whole(cluster: &impl Cluster) {
    let (log, topic) = with_topic(cluster, 2).await;
    let missing = cluster.topic("missing");
    let too_large = Value::Raw(vec![1; MAX_RECORD_BYTES + 1]);
    let framed = Value::Body { schema: Fingerprint([0; 8]), avro: vec![1; MAX_RECORD_BYTES - 9] };
    let bad = [
        text(&missing, 0, "x"),
        keyed(&missing, "k", Some("x")),
        text(&topic, 2, "x"),
        NewRecord { value: too_large, ..text(&topic, 0, "") },
        // The body alone is below the limit, but not with its frame.
        NewRecord { value: framed, ..text(&topic, 0, "") },
    ];
    for (n, bad) in bad.into_iter().enumerate() {
        for order in [[0, 1, 2], [2, 0, 1]] {
            let good = text(&topic, 0, "good");
            let three = [good.clone(), bad.clone(), text(&topic, 1, "good")];
            let error = log.append(order.map(|i| three[i].clone()).to_vec()).await.unwrap_err();
            match (n, &error) {
                (0 | 1, LogError::UnknownTopic(name)) => assert_eq!(*name, missing),
                (2, LogError::NoPartition { partition: 2, partitions: 2, .. }) => {}
                (3 | 4, LogError::TooLarge { max: MAX_RECORD_BYTES, .. }) => {}
                _ => panic!("case {n}: {error}"),
            }
        }
    }
    assert_eq!(log.ends(&topic).await.unwrap(), positions(&topic, [(0, 0), (1, 0)]));
    assert!(all(&*log, &topic, 0).await.is_empty() && all(&*log, &topic, 1).await.is_empty());
    let next = log.append(vec![text(&topic, 0, "next")]).await.unwrap();
    assert_eq!(next, [Position::new(topic.clone(), 0, 0)]);
}

pub async fn a_record_of_exactly_the_maximum_size_is_accepted(cluster: &impl Cluster) {
    let (log, topic) = with_topic(cluster, 1).await;
    let schema = r#"{"type":"record","name":"Blob","fields":[{"name":"bytes","type":"bytes"}]}"#;
    log.put_schema(topic.as_str(), schema).await.unwrap();
    let schema = Fingerprint::of(&parse(schema).unwrap());
    // The frames of the two logs differ in length. The limit counts the longer one.
    let raw = Value::Raw(vec![7; MAX_RECORD_BYTES]);
    let framed = Value::Body { schema, avro: vec![8; MAX_RECORD_BYTES - 10] };
    for value in [raw, framed] {
        log.append(vec![NewRecord { value, ..keyed(&topic, "key", None) }]).await.unwrap();
    }
    for (offset, byte) in [(0, 7), (1, 8)] {
        let found = log.read(&at(&topic, 0), offset, 1).await.unwrap();
        let value = found[0].value.as_ref().unwrap();
        assert!(value.len() > MAX_RECORD_BYTES - 10 && value.len() <= MAX_RECORD_BYTES, "{}", value.len());
        assert_eq!(value[value.len() - 1], byte);
    }
}

pub async fn concurrent_appends_get_distinct_and_dense_positions(cluster: &impl Cluster) {
    const TASKS: usize = 32;
    const BATCHES: usize = 8;
    let (log, topic) = with_topic(cluster, 2).await;
    let log: Arc<dyn carbon_log::EventLog> = Arc::from(log);
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let (log, topic) = (log.clone(), topic.clone());
            tokio::spawn(async move {
                let mut mine = Vec::new();
                for batch in 0..BATCHES {
                    let record = |n: usize| text(&topic, (n % 2) as u32, &format!("{task}-{batch}-{n}"));
                    let appended = log.append((0..3).map(record).collect()).await.unwrap();
                    let text = |(n, position)| (position, format!("{task}-{batch}-{n}"));
                    mine.extend(appended.into_iter().enumerate().map(text));
                }
                mine
            })
        })
        .collect();
    let mut appended = Vec::new();
    for task in tasks {
        let mine = in_time("a task", task).await.unwrap();
        assert_eq!(mine.len(), BATCHES * 3);
        assert!(mine.windows(2).all(|w| w[0].0.partition != w[1].0.partition || w[0].0 < w[1].0));
        appended.extend(mine);
    }
    appended.sort();
    let mut found = Vec::new();
    for (partition, count) in [(0, TASKS * BATCHES * 2), (1, TASKS * BATCHES)] {
        let records = all(&*log, &topic, partition).await;
        assert_eq!(offsets(&records), (0..count as u64).collect::<Vec<_>>());
        found.extend(records.iter().map(|r| r.position.clone()).zip(texts(&records)));
    }
    assert!(appended == found, "a position was returned for another record");
}
