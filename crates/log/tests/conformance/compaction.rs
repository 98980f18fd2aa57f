//! Compaction keeps the last record of each key (law 6).

use std::collections::BTreeMap;

use carbon_core::{Cleanup, Retention, TopicName, TopicSpec};
use carbon_log::{EventLog, Record};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::support::{Reader, TimedCluster, all, keyed, offsets, positions, spec, text, texts};

/// `min_compaction_lag_ms` of the topics.
const LAG_MS: i64 = 100;
/// `delete_retention_ms` of the topics.
const NULL_RETENTION_MS: i64 = 300;

fn compacted(name: &TopicName) -> TopicSpec {
    let retention =
        Retention { retention_ms: None, min_compaction_lag_ms: LAG_MS, delete_retention_ms: NULL_RETENTION_MS };
    TopicSpec { retention, ..spec(name, 1, Cleanup::Compact) }
}

async fn put(log: &dyn EventLog, topic: &TopicName, key: &str, value: Option<&str>) {
    log.append(vec![keyed(topic, key, value)]).await.unwrap();
}

pub async fn law_06_compaction_keeps_only_the_last_record_per_key(cluster: &impl TimedCluster) {
    let cleanable = cluster.open_cleanable().await;
    let (log, topic) = (cleanable.log(), cluster.topic("c"));
    log.ensure_topics(&[compacted(&topic)]).await.unwrap();
    for (key, value) in [("a", "a1"), ("b", "b1"), ("a", "a2"), ("c", "c1"), ("b", "b2"), ("a", "a3")] {
        put(log, &topic, key, Some(value)).await;
    }
    // Records without a key are never superseded.
    log.append(vec![text(&topic, 0, "keyless"), text(&topic, 0, "keyless")]).await.unwrap();
    let before = all(log, &topic, 0).await;
    cluster.set_now(cluster.now() + LAG_MS);
    for _ in 0..2 {
        cleanable.clean().await;
        let after = all(log, &topic, 0).await;
        assert_eq!(offsets(&after), [3, 4, 5, 6, 7]);
        // The remaining records are unchanged.
        assert!(after.iter().all(|record| before.contains(record)));
        assert_eq!(log.ends(&topic).await.unwrap(), positions(&topic, [(0, 8)]));
    }
    let mut reader = Reader::join(log, &cluster.group("g"), &topic, positions(&topic, [(0, 1)])).await;
    reader.read_to(&positions(&topic, [(0, 8)])).await;
    assert_eq!(texts(&reader.records), ["c1", "b2", "a3", "keyless", "keyless"]);
}

pub async fn law_06_records_younger_than_the_lag_stay(cluster: &impl TimedCluster) {
    let cleanable = cluster.open_cleanable().await;
    let (log, topic) = (cleanable.log(), cluster.topic("c"));
    log.ensure_topics(&[compacted(&topic)]).await.unwrap();
    let start = cluster.now();
    for step in [0, 10, 60, 70] {
        cluster.set_now(start + step);
        put(log, &topic, "k", Some(&step.to_string())).await;
    }
    for (now, expected) in [
        (99, vec!["0", "10", "60", "70"]),
        // 60 and 70 are younger than the lag. Of the others the last stays.
        (110, vec!["10", "60", "70"]),
        (159, vec!["10", "60", "70"]),
        (160, vec!["60", "70"]),
        (170, vec!["70"]),
        (99_999, vec!["70"]),
    ] {
        cluster.set_now(start + now);
        cleanable.clean().await;
        assert_eq!(texts(&all(log, &topic, 0).await), expected, "at {now}");
    }
}

pub async fn law_06_a_null_value_is_deleted_after_its_retention(cluster: &impl TimedCluster) {
    let cleanable = cluster.open_cleanable().await;
    let (log, topic) = (cleanable.log(), cluster.topic("c"));
    log.ensure_topics(&[compacted(&topic)]).await.unwrap();
    let start = cluster.now();
    put(log, &topic, "gone", Some("1")).await;
    put(log, &topic, "back", Some("2")).await;
    put(log, &topic, "gone", None).await;
    put(log, &topic, "back", None).await;
    cluster.set_now(start + 10);
    put(log, &topic, "back", Some("5")).await;
    for (now, expected) in [
        (99, vec!["1", "2", "null", "null", "5"]),
        (100, vec!["null", "null", "5"]),
        (110, vec!["null", "5"]),
        (299, vec!["null", "5"]),
        (300, vec!["5"]),
    ] {
        cluster.set_now(start + now);
        cleanable.clean().await;
        assert_eq!(texts(&all(log, &topic, 0).await), expected, "at {now}");
    }
}

pub async fn law_06_a_kept_topic_is_never_compacted(cluster: &impl TimedCluster) {
    let cleanable = cluster.open_cleanable().await;
    let (log, topic) = (cleanable.log(), cluster.topic("kept"));
    log.ensure_topics(&[TopicSpec { cleanup: Cleanup::Keep, ..compacted(&topic) }]).await.unwrap();
    for value in [Some("1"), None, Some("2"), None] {
        put(log, &topic, "k", value).await;
    }
    cluster.set_now(cluster.now() + 1_000_000_000);
    cleanable.clean().await;
    assert_eq!(offsets(&all(log, &topic, 0).await), [0, 1, 2, 3]);
}

/// One append of a history: after `after` milliseconds, `key` gets a value or a null value. `clean` runs the cleaner.
#[derive(Clone, Copy, Debug)]
struct Write {
    after: i64,
    key: u8,
    null: bool,
    clean: bool,
}

fn histories() -> impl Strategy<Value = Vec<Write>> {
    let after = prop_oneof![4 => 0..20_i64, 2 => 50..150_i64, 1 => 250..400_i64];
    let write = (after, 0..4_u8, prop::bool::weighted(0.3), prop::bool::weighted(0.15));
    prop::collection::vec(write.prop_map(|(after, key, null, clean)| Write { after, key, null, clean }), 1..30)
}

/// The state that the records fold to: the last value of each key.
fn fold(records: &[Record]) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut state = BTreeMap::new();
    for record in records {
        let key = record.key.as_ref().unwrap().to_vec();
        match &record.value {
            Some(value) => drop(state.insert(key, value.to_vec())),
            None => drop(state.remove(&key)),
        }
    }
    state
}

/// The records of a history that compaction must keep at `now`.
fn kept_at(history: &[Record], now: i64) -> Vec<Record> {
    let old = |record: &Record| record.timestamp.0 <= now - LAG_MS;
    let stays = |(n, record): (usize, &Record)| {
        let superseded = history[n + 1..].iter().any(|later| old(later) && later.key == record.key);
        let erased = record.value.is_none() && record.timestamp.0 <= now - NULL_RETENTION_MS;
        !old(record) || (!superseded && !erased)
    };
    history.iter().enumerate().filter(|(n, record)| stays((*n, record))).map(|(_, record)| record.clone()).collect()
}

pub async fn law_06_any_history_folds_to_the_same_state_after_compaction(cluster: &impl TimedCluster) {
    let cleanable = cluster.open_cleanable().await;
    let runtime = tokio::runtime::Handle::current();
    let mut case = 0;
    let mut removed = 0;
    let mut runner = TestRunner::new(Config { cases: 40, failure_persistence: None, ..Config::default() });
    let outcome = tokio::task::block_in_place(|| {
        let cell = std::cell::RefCell::new((&mut case, &mut removed));
        runner.run(&(histories(), 0..500_i64), |(history, later)| {
            let mut counts = cell.borrow_mut();
            *counts.0 += 1;
            let topic = cluster.topic(&format!("case{}", counts.0));
            runtime.block_on(async {
                let log = cleanable.log();
                log.ensure_topics(&[compacted(&topic)]).await.unwrap();
                let mut appended = Vec::new();
                for (n, write) in history.iter().enumerate() {
                    cluster.set_now(cluster.now() + write.after);
                    let value = format!("value {n}");
                    put(log, &topic, &write.key.to_string(), (!write.null).then_some(value.as_str())).await;
                    let last = log.ends(&topic).await.unwrap().next(&super::support::at(&topic, 0)) - 1;
                    appended.extend(log.read(&super::support::at(&topic, 0), last, 1).await.unwrap());
                    // A compaction in between must not change the result.
                    if write.clean {
                        cleanable.clean().await;
                    }
                }
                prop_assert_eq!(appended.len(), history.len());
                cluster.set_now(cluster.now() + later);
                cleanable.clean().await;
                let left = all(log, &topic, 0).await;
                *counts.1 += history.len() - left.len();
                prop_assert_eq!(&left, &kept_at(&appended, cluster.now()));
                prop_assert_eq!(fold(&left), fold(&appended));
                Ok(())
            })
        })
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    assert!(removed > 0, "compaction deleted no record");
}
