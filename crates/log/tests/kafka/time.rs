//! The brokers set the timestamps (`LogAppendTime`), and ignore those of producers.

use carbon_core::{Positions, Timestamp};
use carbon_log::EventLog;

use super::clients::{Transaction, producer, send, to, wait_for_ends, with_topic};
use crate::factory::Kafka;
use crate::support::{all, at, positions, text, texts};

/// The current time in milliseconds.
fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap().as_millis().try_into().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker and a registry: scripts/services.sh up, and its env"]
async fn positions_for_time_are_the_first_not_older() {
    let kafka = Kafka::new();
    let (log, topic) = with_topic(&kafka, 3).await;
    let began = now();
    for n in 0..12 {
        let record = |count| vec![text(&topic, n % 2, &n.to_string()); count];
        log.append(record(1 + n as usize % 3)).await.unwrap();
    }
    let mut records = Vec::new();
    for partition in [0, 1] {
        let own = all(&log, &topic, partition).await;
        assert!(own.is_sorted_by_key(|record| record.timestamp), "timestamps decrease in partition {partition}");
        records.push(own);
    }
    let mut times: Vec<_> = records.iter().flatten().map(|record| record.timestamp.0).collect();
    assert!(
        times.iter().all(|time| (began..=now()).contains(time)),
        "the broker runs on this machine and has the same clock"
    );
    times.extend(times.clone().into_iter().flat_map(|time| [time - 1, time + 1]));
    times.extend([i64::MIN, -1, 0, 1, began + 1_000_000_000_000]);
    times.sort_unstable();
    times.dedup();
    let ends = log.ends(&topic).await.unwrap();
    for time in times {
        let first = |own: &[carbon_log::Record]| {
            own.iter().find(|record| record.timestamp.0 >= time).map(|record| record.position.offset)
        };
        let next = |partition: u32| match records.get(partition as usize).and_then(|own| first(own)) {
            Some(offset) => offset,
            None => ends.next(&at(&topic, partition)),
        };
        let found = log.positions_for_time(&topic, Timestamp(time)).await.unwrap();
        assert_eq!(found, positions(&topic, [(0, next(0)), (1, next(1)), (2, 0)]), "{time}");
    }
}

/// The last record may be followed by a transaction marker.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker and a registry: scripts/services.sh up, and its env"]
async fn a_time_after_the_last_record_returns_the_end() {
    let kafka = Kafka::new();
    let (log, topic) = with_topic(&kafka, 1).await;
    log.append(vec![text(&topic, 0, "1")]).await.unwrap();
    let aborted = Transaction::begin(&kafka, topic.as_str());
    aborted.send(&topic, "x").await;
    aborted.abort();
    let ends = positions(&topic, [(0, 3)]);
    wait_for_ends(&log, &topic, &ends).await;
    let later = Timestamp(now() + 1_000_000);
    assert_eq!(log.positions_for_time(&topic, later).await.unwrap(), ends);
    let first = all(&log, &topic, 0).await[0].timestamp;
    assert_eq!(log.positions_for_time(&topic, first).await.unwrap(), positions(&topic, [(0, 0)]));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker and a registry: scripts/services.sh up, and its env"]
async fn the_brokers_replace_a_producers_timestamp() {
    let kafka = Kafka::new();
    let (log, topic) = with_topic(&kafka, 1).await;
    let (began, foreign) = (now(), producer(&kafka, &[]));
    log.append(vec![text(&topic, 0, "ours")]).await.unwrap();
    send(&foreign, to(&topic, "1970").timestamp(1)).await;
    send(&foreign, to(&topic, "2100").timestamp(4_102_444_800_000)).await;
    log.append(vec![text(&topic, 0, "ours")]).await.unwrap();
    let records = all(&log, &topic, 0).await;
    assert_eq!(texts(&records), ["ours", "1970", "2100", "ours"]);
    assert!(records.is_sorted_by_key(|record| record.timestamp));
    assert!(records.iter().all(|record| (began..=now()).contains(&record.timestamp.0)), "{records:?}");
    let found: Positions = log.positions_for_time(&topic, records[1].timestamp).await.unwrap();
    assert!(found.next(&at(&topic, 0)) <= 1);
}
