//! Log-append time, and retention.

use carbon_core::{Cleanup, Retention, Timestamp, TopicSpec};

use super::support::{Reader, TimedCluster, all, offsets, positions, spec, text, texts, with_topic};

pub async fn log_append_time_never_decreases(cluster: &impl TimedCluster) {
    let (log, topic) = with_topic(cluster, 2).await;
    let start = cluster.now();
    for (step, partition) in [(0, 0), (50, 0), (-900, 0), (10, 1), (60, 0)] {
        cluster.set_now(start + step);
        log.append(vec![text(&topic, partition, "a"), text(&topic, partition, "b")]).await.unwrap();
    }
    log.close().await;
    // The timestamps do not decrease after the log is opened again.
    cluster.set_now(start - 5_000);
    let log = cluster.open().await;
    log.append(vec![text(&topic, 0, "c"), text(&topic, 1, "c")]).await.unwrap();
    let mut times = [Vec::new(), Vec::new()];
    for (partition, times) in times.iter_mut().enumerate() {
        let found = all(&*log, &topic, partition as u32).await;
        times.extend(found.iter().map(|record| record.timestamp.0 - start));
    }
    assert_eq!(times[0], [0, 0, 50, 50, 50, 50, 60, 60, 60]);
    assert_eq!(times[1], [10, 10, 10]);
}

pub async fn positions_for_time_are_the_first_not_older(cluster: &impl TimedCluster) {
    let (log, topic) = with_topic(cluster, 3).await;
    let start = cluster.now();
    for (step, partition) in [(10, 0), (20, 0), (20, 1), (20, 1), (30, 0)] {
        cluster.set_now(start + step);
        log.append(vec![text(&topic, partition, "a")]).await.unwrap();
    }
    for (time, expected) in [(0, [0, 0]), (10, [0, 0]), (11, [1, 0]), (20, [1, 0]), (21, [2, 2]), (31, [3, 2])] {
        let found = log.positions_for_time(&topic, Timestamp(start + time)).await.unwrap();
        assert_eq!(found, positions(&topic, [(0, expected[0]), (1, expected[1]), (2, 0)]), "{time}");
    }
    // Deleted records are skipped.
    log.delete_records(&positions(&topic, [(0, 2)])).await.unwrap();
    let found = log.positions_for_time(&topic, Timestamp(start)).await.unwrap();
    assert_eq!(found, positions(&topic, [(0, 2), (1, 0), (2, 0)]));
}

pub async fn retention_deletes_only_expired_records(cluster: &impl TimedCluster) {
    let cleanable = cluster.open_cleanable().await;
    let log = cleanable.log();
    let topic = cluster.topic("brief");
    let retention = Retention { retention_ms: Some(100), ..Retention::default() };
    log.ensure_topics(&[TopicSpec { retention, ..spec(&topic, 2, Cleanup::Delete) }]).await.unwrap();
    let start = cluster.now();
    for step in [0, 40, 80] {
        cluster.set_now(start + step);
        log.append(vec![text(&topic, 0, &step.to_string())]).await.unwrap();
    }
    cleanable.clean().await;
    assert_eq!(texts(&all(log, &topic, 0).await), ["0", "40", "80"]);
    // A record is deleted when its age exceeds the retention, not when its age equals it.
    cluster.set_now(start + 140);
    cleanable.clean().await;
    assert_eq!(offsets(&all(log, &topic, 0).await), [1, 2]);
    let described = log.describe().await.unwrap();
    assert_eq!(described[0].starts, positions(&topic, [(0, 1), (1, 0)]));
    let mut reader = Reader::join(log, &cluster.group("g"), &topic, positions(&topic, [(0, 0)])).await;
    reader.read_to(&positions(&topic, [(0, 3)])).await;
    assert_eq!(reader.texts_of(0), ["40", "80"]);
    cluster.set_now(start + 10_000);
    cleanable.clean().await;
    assert!(all(log, &topic, 0).await.is_empty());
    assert_eq!(log.append(vec![text(&topic, 0, "new")]).await.unwrap()[0].offset, 3);
    cleanable.clean().await;
    assert_eq!(texts(&all(log, &topic, 0).await), ["new"]);
}
