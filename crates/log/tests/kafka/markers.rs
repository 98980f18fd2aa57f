//! End offsets after transaction markers, which are not delivered as records (law 4).

use carbon_core::{Cleanup, Positions, TopicName};
use carbon_log::{EventLog, KafkaLog};

use super::clients::{Transaction, wait_for_ends, with_topic};
use crate::factory::Kafka;
use crate::support::{Cluster, Reader, all, at, positions, spec, text, texts};

/// A group member and a follower of one topic, from offset 0.
async fn readers(kafka: &Kafka, log: &KafkaLog, topic: &TopicName) -> [Reader; 2] {
    let start = positions(topic, [(0, 0)]);
    let member = Reader::join(log, &kafka.group("g"), topic, start.clone()).await;
    [member, Reader::new(log.follow(&start).await.unwrap())]
}

async fn append(log: &KafkaLog, topic: &TopicName, values: &[&str]) {
    log.append(values.iter().map(|value| text(topic, 0, value)).collect()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker and a registry: scripts/services.sh up, and its env"]
async fn law_04_the_end_after_an_aborted_transaction_is_reported() {
    let kafka = Kafka::new();
    let (log, topic) = with_topic(&kafka, 1).await;
    append(&log, &topic, &["1", "2", "3"]).await;
    let aborted = Transaction::begin(&kafka, topic.as_str());
    for value in ["x", "y"] {
        aborted.send(&topic, value).await;
    }
    aborted.abort();
    // 3 records, 2 aborted records, and the marker.
    let ends = positions(&topic, [(0, 6)]);
    wait_for_ends(&log, &topic, &ends).await;
    let mut readers = readers(&kafka, &log, &topic).await;
    for reader in &mut readers {
        reader.read_to(&ends).await;
        assert_eq!(reader.ended.values().copied().collect::<Vec<_>>(), [6], "the reported end equals `ends`");
        assert_eq!(texts(&reader.records), ["1", "2", "3"]);
    }
    assert_eq!(texts(&all(&log, &topic, 0).await), ["1", "2", "3"]);
    // A reader that starts after the last record reports the end after the marker.
    let mut late = Reader::new(log.follow(&positions(&topic, [(0, 3)])).await.unwrap());
    late.read_to(&ends).await;
    assert!(late.records.is_empty());
    assert!(log.read(&at(&topic, 0), 3, 9).await.unwrap().is_empty());
    // The readers continue with the next record, which has the next offset.
    append(&log, &topic, &["4"]).await;
    for reader in &mut readers {
        reader.read_to(&positions(&topic, [(0, 7)])).await;
        assert_eq!(reader.records.last().unwrap().position.offset, 6);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker and a registry: scripts/services.sh up, and its env"]
async fn law_04_the_end_after_a_commit_marker_is_reported() {
    let kafka = Kafka::new();
    let (log, topic) = with_topic(&kafka, 1).await;
    append(&log, &topic, &["1"]).await;
    let committed = Transaction::begin(&kafka, topic.as_str());
    committed.send(&topic, "2").await;
    committed.commit().unwrap();
    let ends = positions(&topic, [(0, 3)]);
    wait_for_ends(&log, &topic, &ends).await;
    for mut reader in readers(&kafka, &log, &topic).await {
        reader.read_to(&ends).await;
        assert_eq!(texts(&reader.records), ["1", "2"]);
    }
    // The same holds for the transactions of stages.
    let (group, zero, one) = (kafka.group("s"), positions(&topic, [(0, 0)]), positions(&topic, [(0, 1)]));
    let mut readers = readers(&kafka, &log, &topic).await;
    log.append_and_advance(&group, vec![text(&topic, 0, "3")], &zero, &one).await.unwrap();
    let ends = positions(&topic, [(0, 5)]);
    for reader in &mut readers {
        reader.read_to(&ends).await;
        assert_eq!(texts(&reader.records), ["1", "2", "3"]);
    }
    assert_eq!(log.ends(&topic).await.unwrap(), ends);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker and a registry: scripts/services.sh up, and its env"]
async fn law_04_the_end_is_before_an_open_transaction() {
    let kafka = Kafka::new();
    let (log, topic) = with_topic(&kafka, 1).await;
    append(&log, &topic, &["1", "2"]).await;
    let open = Transaction::begin(&kafka, topic.as_str());
    assert_eq!(open.send(&topic, "3").await, 2);
    assert_eq!(open.send(&topic, "4").await, 3);
    // A record after the open transaction is acknowledged, but not readable until the transaction ends.
    append(&log, &topic, &["5"]).await;
    let stable = positions(&topic, [(0, 2)]);
    assert_eq!(log.ends(&topic).await.unwrap(), stable);
    let mut readers = readers(&kafka, &log, &topic).await;
    for reader in &mut readers {
        reader.read_to(&stable).await;
        assert_eq!(
            (texts(&reader.records), reader.ended.values().copied().max()),
            (texts(&all(&log, &topic, 0).await), Some(2))
        );
        assert_eq!(texts(&reader.records), ["1", "2"]);
    }
    assert_eq!(log.ends(&topic).await.unwrap(), stable);
    open.commit().unwrap();
    let ends = positions(&topic, [(0, 6)]);
    wait_for_ends(&log, &topic, &ends).await;
    for reader in &mut readers {
        reader.read_to(&ends).await;
        assert_eq!(texts(&reader.records), ["1", "2", "3", "4", "5"]);
    }
    assert_eq!(texts(&all(&log, &topic, 0).await), ["1", "2", "3", "4", "5"]);
}

/// librdkafka's end event does not name the topic.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker and a registry: scripts/services.sh up, and its env"]
async fn law_04_the_ends_of_several_topics_in_one_subscription_are_reported() {
    const MANY: u64 = 3_000;
    let kafka = Kafka::new();
    let log = kafka.connect().await;
    let [one, two, three] = ["one", "two", "three"].map(|name| kafka.topic(name));
    log.ensure_topics(&[&one, &two, &three].map(|topic| spec(topic, 1, Cleanup::Keep))).await.unwrap();
    // The first topic takes long to read. The third is empty, so its end comes first.
    log.append((0..MANY).map(|_| text(&one, 0, &"x".repeat(2_000))).collect()).await.unwrap();
    append(&log, &two, &["2", "3"]).await;
    let aborted = Transaction::begin(&kafka, one.as_str());
    for topic in [&one, &two] {
        aborted.send(topic, "x").await;
    }
    aborted.abort();
    // The first 2 topics have an aborted record and the marker.
    let counts = [(&one, MANY), (&two, 2), (&three, 0)];
    let ends = [(&one, MANY + 2), (&two, 4), (&three, 0)];
    let mut together = Positions::new();
    for (topic, next) in ends {
        wait_for_ends(&log, topic, &positions(topic, [(0, next)])).await;
        together.merge(&positions(topic, [(0, next)]));
    }
    let topics = [one.clone(), two.clone(), three.clone()];
    let mut member = Reader::new(log.subscribe(&kafka.group("g"), &topics).await.unwrap());
    member.take_assignment(Positions::new()).await;
    assert_eq!(member.assigned.len(), 3);
    let start = together.iter().map(|(at, _)| (at.clone(), 0)).collect();
    let mut readers = [member, Reader::new(log.follow(&start).await.unwrap())];
    for reader in &mut readers {
        while !together.iter().all(|(at, next)| reader.ended.get(at) == Some(&next)) {
            reader.step().await;
            // An end is reported for the right topic, after all its records were delivered.
            for (topic, count) in counts {
                let ended = reader.ended.get(&at(topic, 0));
                let delivered = reader.records.iter().filter(|record| record.position.topic == *topic).count() as u64;
                assert!(ended.is_none_or(|_| delivered == count), "{topic} ended at {ended:?} after {delivered}");
            }
        }
    }
    append(&log, &three, &["4"]).await;
    for reader in &mut readers {
        reader.read_to(&positions(&three, [(0, 1)])).await;
        assert_eq!(reader.records.last().unwrap().position.topic, three);
    }
}
