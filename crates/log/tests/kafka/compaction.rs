//! Compaction by the brokers' log cleaner (law 6).

use std::collections::BTreeMap;
use std::time::Duration;

use carbon_core::{Cleanup, Retention, TopicSpec};
use carbon_log::{EventLog, Record};

use super::clients::{eventually, set};
use crate::factory::Kafka;
use crate::support::{Cluster, Reader, all, keyed, offsets, positions, spec, texts};

/// Maximum time that a test waits for the log cleaner. It runs every 15 s, and deletes a null value in its second run.
const CLEANER_TIMEOUT: Duration = Duration::from_secs(90);

/// The key of records that are appended only to roll the segments: the cleaner skips the active segment.
const ROLL_KEY: &str = "roll";

/// The records without those that roll the segments.
fn history(records: Vec<Record>) -> Vec<Record> {
    records.into_iter().filter(|record| record.key.as_deref() != Some(ROLL_KEY.as_bytes())).collect()
}

/// The state that the records fold to: the last value of each key.
fn fold(records: &[Record]) -> BTreeMap<String, String> {
    let mut state = BTreeMap::new();
    for record in records {
        let key = String::from_utf8(record.key.as_ref().unwrap().to_vec()).unwrap();
        match &record.value {
            Some(value) => drop(state.insert(key, String::from_utf8(value.to_vec()).unwrap())),
            None => drop(state.remove(&key)),
        }
    }
    state
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker and a registry: scripts/services.sh up, and its env"]
async fn law_06_compaction_keeps_the_last_record_per_key() {
    let kafka = Kafka::new();
    let (log, compacted, kept) = (kafka.connect().await, kafka.topic("c"), kafka.topic("k"));
    let retention = Retention { retention_ms: None, min_compaction_lag_ms: 100, delete_retention_ms: 100 };
    for (topic, cleanup) in [(&compacted, Cleanup::Compact), (&kept, Cleanup::Keep)] {
        let wanted = TopicSpec { retention, ..spec(topic, 1, cleanup) };
        log.ensure_topics(std::slice::from_ref(&wanted)).await.unwrap();
        set(&kafka, topic, &[("segment.ms", "200"), ("min.cleanable.dirty.ratio", "0.001")]).await;
        let described = log.describe().await.unwrap();
        assert!(described.iter().any(|found| found.spec == wanted), "an operator's settings are not a difference");
    }
    for (key, value) in [
        ("a", Some("a1")),
        ("b", Some("b1")),
        ("gone", Some("g1")),
        ("back", Some("k1")),
        ("a", Some("a2")),
        ("back", None),
        ("c", Some("c1")),
        ("gone", None),
        ("b", Some("b2")),
        ("back", Some("k2")),
        ("a", Some("a3")),
    ] {
        log.append(vec![keyed(&compacted, key, value), keyed(&kept, key, value)]).await.unwrap();
    }
    let whole = all(&log, &compacted, 0).await;
    let last = |records: &[Record], nulls: bool| {
        let later = |n: usize| records[n + 1..].iter().any(|later| later.key == records[n].key);
        let stays = |n: &usize| !later(*n) && (nulls || records[*n].value.is_some());
        (0..records.len()).filter(stays).map(|n| records[n].clone()).collect::<Vec<_>>()
    };
    let mut rolled = 0;
    let mut roll_until = async |what: &str, expected: Vec<Vec<Record>>| {
        let look = async || {
            rolled += 1;
            let value = rolled.to_string();
            log.append(vec![keyed(&compacted, ROLL_KEY, Some(&value)), keyed(&kept, ROLL_KEY, Some(&value))])
                .await
                .unwrap();
            let found = history(all(&log, &compacted, 0).await);
            // No compaction may delete the last record of a key.
            assert_eq!(fold(&found), fold(&whole));
            expected.contains(&found).then_some(())
        };
        eventually(CLEANER_TIMEOUT, what, look).await;
    };
    roll_until("the cleaner", vec![last(&whole, true), last(&whole, false)]).await;
    assert_eq!(offsets(&last(&whole, true)), [6, 7, 8, 9, 10]);
    roll_until("the cleaner of null values", vec![last(&whole, false)]).await;
    // The other topic still has all records.
    let found = all(&log, &kept, 0).await;
    assert!(offsets(&found).into_iter().eq(0..found.len() as u64), "nothing is missing");
    assert_eq!(texts(&history(found)), texts(&whole));
    // A reader from the start gets the same state, and reaches the end.
    let ends = log.ends(&compacted).await.unwrap();
    let mut reader = Reader::join(&log, &kafka.group("g"), &compacted, positions(&compacted, [(0, 0)])).await;
    reader.read_to(&ends).await;
    assert_eq!(reader.ended.values().copied().max(), ends.iter().map(|(_, next)| next).max());
    let mut expected = fold(&whole);
    expected.insert(ROLL_KEY.to_owned(), rolled.to_string());
    assert_eq!(fold(&reader.records), expected);
    // So does a reader whose start offset was compacted.
    let mut late = Reader::new(log.follow(&positions(&compacted, [(0, 2)])).await.unwrap());
    late.read_to(&ends).await;
    assert_eq!(fold(&late.records), expected);
}
