//! Reading: group members, followers and ranges.

use std::time::Duration;

use carbon_core::Positions;
use carbon_log::Delivery;

use super::support::{Cluster, Reader, at, in_time, next, offsets, positions, text, texts, with_topic, within};

pub async fn the_assignment_comes_first_and_reading_starts_at_the_answer(cluster: &impl Cluster) {
    let (log, topic) = with_topic(cluster, 2).await;
    let record = |n: usize| text(&topic, (n % 2) as u32, &n.to_string());
    log.append((0..10).map(record).collect()).await.unwrap();
    let mut reader = Reader::join(&*log, &cluster.group("g"), &topic, positions(&topic, [(0, 3), (1, 5)])).await;
    assert_eq!(reader.assigned, [at(&topic, 0), at(&topic, 1)]);
    reader.read_to(&positions(&topic, [(0, 5), (1, 5)])).await;
    assert_eq!(reader.texts_of(0), ["6", "8"]);
    assert_eq!(reader.texts_of(1), [""; 0]);
    assert_eq!(offsets(&reader.records), [3, 4]);
}

pub async fn every_partition_reports_its_end_and_an_append_notifies_the_reader(cluster: &impl Cluster) {
    let (log, topic) = with_topic(cluster, 3).await;
    log.append(vec![text(&topic, 0, "a"), text(&topic, 2, "b")]).await.unwrap();
    let mut reader = Reader::join(&*log, &cluster.group("g"), &topic, Positions::new()).await;
    // An empty partition reports its end as well.
    reader.read_to(&positions(&topic, [(0, 1), (1, 0), (2, 1)])).await;
    assert_eq!(reader.ended.values().copied().collect::<Vec<_>>(), [1, 0, 1]);
    for round in 1..=3 {
        log.append(vec![text(&topic, 1, &format!("{round}"))]).await.unwrap();
        let ends = positions(&topic, [(1, round)]);
        within(Duration::from_secs(2), "an append notifies the reader", reader.read_to(&ends)).await;
        assert_eq!(reader.ended[&at(&topic, 1)], round);
    }
    assert_eq!(reader.texts_of(1), ["1", "2", "3"]);
    assert_eq!((reader.texts_of(0), reader.texts_of(2)), (vec!["a".into()], vec!["b".into()]));
}

pub async fn many_deliveries_keep_the_order(cluster: &impl Cluster) {
    const COUNT: u64 = 2_500;
    let (log, topic) = with_topic(cluster, 2).await;
    // Some records are large, so that bytes limit some deliveries, and the count others.
    let record = |n: u64| text(&topic, (n % 2) as u32, &"x".repeat(if n.is_multiple_of(250) { 700_000 } else { 10 }));
    for start in (0..2 * COUNT).step_by(500) {
        log.append((start..start + 500).map(record).collect()).await.unwrap();
    }
    let mut reader = Reader::join(&*log, &cluster.group("g"), &topic, Positions::new()).await;
    reader.read_to(&positions(&topic, [(0, COUNT), (1, COUNT)])).await;
    for partition in [0, 1] {
        let own = reader.records.iter().filter(|record| record.position.partition == partition);
        assert!(own.map(|record| record.position.offset).eq(0..COUNT), "partition {partition}");
    }
}

pub async fn committed_offsets_are_durable_and_the_default_start(cluster: &impl Cluster) {
    let (log, topic) = with_topic(cluster, 3).await;
    let record = |n: usize| text(&topic, (n % 3) as u32, &n.to_string());
    log.append((0..9).map(record).collect()).await.unwrap();
    let (group, other) = (cluster.group("g"), cluster.group("other"));
    assert_eq!(log.committed(&group).await.unwrap(), Positions::new());
    log.commit(&group, &positions(&topic, [(0, 1), (1, 3)])).await.unwrap();
    log.commit(&group, &positions(&topic, [(0, 2)])).await.unwrap();
    log.commit(&group, &Positions::new()).await.unwrap();
    log.close().await;
    let log = cluster.open().await;
    assert_eq!(log.committed(&group).await.unwrap(), positions(&topic, [(0, 2), (1, 3)]));
    assert_eq!(log.committed(&other).await.unwrap(), Positions::new());
    // Partition 0 starts at the answer, 1 at the committed offset, 2 at 0.
    let mut reader = Reader::join(&*log, &group, &topic, positions(&topic, [(0, 0)])).await;
    reader.read_to(&positions(&topic, [(0, 3), (1, 3), (2, 3)])).await;
    assert_eq!(reader.texts_of(0), ["0", "3", "6"]);
    assert_eq!(reader.texts_of(1), [""; 0]);
    assert_eq!(reader.texts_of(2), ["2", "5", "8"]);
}

/// A log may assign all partitions to the second member, or a share.
pub async fn a_second_member_waits_until_the_first_acknowledges(cluster: &impl Cluster) {
    let (log, topic) = with_topic(cluster, 2).await;
    let group = cluster.group("g");
    let mut first = Reader::join(&*log, &group, &topic, Positions::new()).await;
    first.read_to(&positions(&topic, [(0, 0), (1, 0)])).await;
    let mut second = Reader::new(log.subscribe(&group, std::slice::from_ref(&topic)).await.unwrap());
    let (lost, done) = match next(&mut first.stream).await {
        Delivery::Revoked { partitions, done } => (partitions, done),
        other => panic!("expected a revocation, got {other:?}"),
    };
    let moved = lost[0].partition;
    // The first may finish its work before the second starts.
    log.append(vec![text(&topic, moved, "a"), text(&topic, moved, "b")]).await.unwrap();
    assert!(second.stream.try_next().is_none(), "the second got a delivery before the first acknowledged");
    log.commit(&group, &positions(&topic, [(moved, 1)])).await.unwrap();
    assert!(second.stream.try_next().is_none(), "the second got a delivery before the first acknowledged");
    done.send(()).unwrap();
    second.take_assignment(Positions::new()).await;
    assert_eq!(second.assigned, lost);
    second.read_to(&positions(&topic, [(moved, 2)])).await;
    assert_eq!(texts(&second.records), ["b"]);
    if lost.len() == 2 {
        assert!(in_time("the end of the first", first.stream.next()).await.is_none());
        return;
    }
    // The first continues with its other partition only.
    let kept = 1 - moved;
    log.append(vec![text(&topic, moved, "c"), text(&topic, kept, "d")]).await.unwrap();
    first.read_to(&positions(&topic, [(kept, 1)])).await;
    second.read_to(&positions(&topic, [(moved, 3)])).await;
    assert_eq!((texts(&first.records), texts(&second.records)), (vec!["d".into()], vec!["b".into(), "c".into()]));
    // When the second leaves, the first gets the partition back, and starts at its own answer.
    drop(second);
    first.take_assignment(positions(&topic, [(moved, 2)])).await;
    assert_eq!(first.assigned, lost);
    first.read_to(&positions(&topic, [(moved, 3)])).await;
    assert_eq!(texts(&first.records), ["d", "c"]);
}

pub async fn a_second_member_gets_the_partitions_of_a_dropped_member(cluster: &impl Cluster) {
    let (log, topic) = with_topic(cluster, 1).await;
    let group = cluster.group("g");
    log.append(vec![text(&topic, 0, "a")]).await.unwrap();
    // A member is dropped before its assignment, while it reads, and during its revocation.
    drop(log.subscribe(&group, std::slice::from_ref(&topic)).await.unwrap());
    let mut reading = Reader::join(&*log, &group, &topic, Positions::new()).await;
    reading.read_to(&positions(&topic, [(0, 1)])).await;
    drop(reading);
    let mut revoked = Reader::join(&*log, &group, &topic, Positions::new()).await;
    revoked.read_to(&positions(&topic, [(0, 1)])).await;
    let mut last = Reader::new(log.subscribe(&group, std::slice::from_ref(&topic)).await.unwrap());
    // A log that assigns shares does not revoke the only partition. Then the member is dropped while it reads.
    let revocation = tokio::time::timeout(Duration::from_secs(1), next(&mut revoked.stream)).await;
    assert!(matches!(revocation, Err(_) | Ok(Delivery::Revoked { .. })), "{revocation:?}");
    drop(revocation);
    drop(revoked);
    last.take_assignment(Positions::new()).await;
    last.read_to(&positions(&topic, [(0, 1)])).await;
    assert_eq!(texts(&last.records), ["a"]);
}

pub async fn groups_read_independently(cluster: &impl Cluster) {
    let (log, topic) = with_topic(cluster, 1).await;
    log.append(vec![text(&topic, 0, "a")]).await.unwrap();
    let mut one = Reader::join(&*log, &cluster.group("one"), &topic, Positions::new()).await;
    let mut two = Reader::join(&*log, &cluster.group("two"), &topic, Positions::new()).await;
    for reader in [&mut one, &mut two] {
        reader.read_to(&positions(&topic, [(0, 1)])).await;
        assert_eq!(texts(&reader.records), ["a"]);
    }
}

pub async fn follow_reads_only_the_partitions_it_is_given(cluster: &impl Cluster) {
    let (log, topic) = with_topic(cluster, 3).await;
    let record = |n: usize| text(&topic, (n % 3) as u32, &n.to_string());
    log.append((0..9).map(record).collect()).await.unwrap();
    let mut reader = Reader::new(log.follow(&positions(&topic, [(1, 1), (2, 0)])).await.unwrap());
    reader.read_to(&positions(&topic, [(1, 3), (2, 3)])).await;
    log.append((9..12).map(record).collect()).await.unwrap();
    reader.read_to(&positions(&topic, [(1, 4), (2, 4)])).await;
    assert_eq!(reader.texts_of(0), [""; 0]);
    assert_eq!(reader.texts_of(1), ["4", "7", "10"]);
    assert_eq!(reader.texts_of(2), ["2", "5", "8", "11"]);
}

pub async fn read_returns_a_range_without_waiting(cluster: &impl Cluster) {
    let (log, topic) = with_topic(cluster, 2).await;
    log.append((0..5).map(|n: u32| text(&topic, 1, &n.to_string())).collect()).await.unwrap();
    for (from, max, expected) in
        [(0, 2, vec![0, 1]), (3, 100, vec![3, 4]), (4, 1, vec![4]), (5, 9, vec![]), (9, 9, vec![])]
    {
        let found = in_time("a read", log.read(&at(&topic, 1), from, max)).await.unwrap();
        assert_eq!(offsets(&found), expected, "{max} from {from}");
    }
    assert!(log.read(&at(&topic, 0), 0, 9).await.unwrap().is_empty());
}
