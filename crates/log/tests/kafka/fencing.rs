//! Fencing: the brokers reject the transactions of a member that has lost its partitions (law 5; KIP-447).

use std::sync::atomic::{AtomicBool, Ordering};

use carbon_core::{Cleanup, Position, Positions, TopicName};
use carbon_log::{Delivery, EventLog, Group, KafkaLog, LogError};
use tokio::sync::oneshot;

use super::clients::{WAIT_TIMEOUT, connect_as, eventually, members};
use crate::factory::Kafka;
use crate::support::{Cluster, Reader, at, next, positions, spec, text, texts};

/// A stage in 2 processes, over 2 partitions with 3 records each.
struct Stage {
    kafka: Kafka,
    first: KafkaLog,
    second: KafkaLog,
    group: Group,
    input: TopicName,
    output: TopicName,
}

impl Stage {
    async fn new(settings: &[(&str, &str)]) -> Self {
        let kafka = Kafka::new();
        let (first, second) = (connect_as(&kafka, "a", settings).await, connect_as(&kafka, "b", &[]).await);
        let (group, input, output) = (kafka.group("stage"), kafka.topic("in"), kafka.topic("out"));
        let topics = [&input, &output].map(|topic| spec(topic, 2, Cleanup::Keep));
        first.ensure_topics(&topics).await.unwrap();
        first.append((0..6).map(|n| text(&input, n % 2, &(n / 2).to_string())).collect()).await.unwrap();
        Self { kafka, first, second, group, input, output }
    }

    fn at(&self, partition: u32, next: u64) -> Positions {
        positions(&self.input, [(partition, next)])
    }

    /// Appends the output of the input at `from`, and advances the group past it.
    async fn step(&self, log: &KafkaLog, partition: u32, from: u64, name: &str) -> Result<Vec<Position>, LogError> {
        let output = text(&self.output, partition, &format!("{name}{from}"));
        let (from, upto) = (self.at(partition, from), self.at(partition, from + 1));
        log.append_and_advance(&self.group, vec![output], &from, &upto).await
    }

    /// Asserts that the first process is fenced at `from`, and that the error reports the offset `committed`.
    async fn assert_fenced(&self, partition: u32, from: u64, committed: u64) {
        match self.step(&self.first, partition, from, "zombie").await {
            Err(LogError::Fenced { group, actual }) => {
                assert_eq!((group.as_str(), actual.of_topic(&self.input)), (self.group.as_str(), actual.clone()));
                let at = at(&self.input, partition);
                assert_eq!(actual.next(&at), committed, "the error reports the committed offset");
            }
            other => panic!("{partition} at {from}: {other:?}"),
        }
    }

    /// The second process joins while the first owns both partitions. Returns the partition that is revoked from the
    /// first, the sender that acknowledges the revocation, and the second's reader.
    async fn rebalance_to_second(&self, first: &mut Reader) -> (u32, oneshot::Sender<()>, Reader) {
        let second = self.second.subscribe(&self.group, std::slice::from_ref(&self.input)).await.unwrap();
        let (lost, done) = revoked(first).await;
        assert_eq!(lost.len(), 1, "one of 2 partitions is revoked");
        (lost[0], done, Reader::new(second))
    }

    /// Joins the group, and reads both partitions to their ends. Waits until a dropped member has left.
    async fn join(&self, log: &KafkaLog) -> Reader {
        let mut reader = Reader::new(log.subscribe(&self.group, std::slice::from_ref(&self.input)).await.unwrap());
        take_both_partitions(&mut reader).await;
        reader.read_to(&positions(&self.input, [(0, 3), (1, 3)])).await;
        reader
    }

    /// The outputs of both partitions, read to their ends.
    async fn outputs(&self) -> [Vec<String>; 2] {
        let ends = self.second.ends(&self.output).await.unwrap();
        let start = positions(&self.output, [(0, 0), (1, 0)]);
        let mut reader = Reader::new(self.second.follow(&start).await.unwrap());
        reader.read_to(&ends).await;
        [reader.texts_of(0), reader.texts_of(1)]
    }
}

/// Accepts the assignment of both partitions, which may come in 2 deliveries.
async fn take_both_partitions(reader: &mut Reader) {
    let mut assigned = Vec::new();
    while assigned.len() < 2 {
        reader.take_assignment(Positions::new()).await;
        assigned.append(&mut reader.assigned);
    }
    assigned.sort();
    reader.assigned = assigned;
}

/// The next delivery, which must be a revocation: its partitions, and the sender that acknowledges it.
async fn revoked(reader: &mut Reader) -> (Vec<u32>, oneshot::Sender<()>) {
    match next(&mut reader.stream).await {
        Delivery::Revoked { partitions, done } => (partitions.iter().map(|at| at.partition).collect(), done),
        other => panic!("expected a revocation, got {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker and a registry: scripts/services.sh up, and its env"]
async fn law_05_a_member_whose_partitions_were_reassigned_is_fenced() {
    let stage = Stage::new(&[("max.poll.interval.ms", "6000"), ("session.timeout.ms", "6000")]).await;
    let mut first = stage.join(&stage.first).await;
    let (moved, done, mut second) = stage.rebalance_to_second(&mut first).await;
    let kept = 1 - moved;
    // Until it acknowledges the revocation, the first may commit work that it has finished.
    stage.step(&stage.first, moved, 0, "a").await.unwrap();
    // The first does not acknowledge, so the brokers remove it, and the second gets both partitions.
    take_both_partitions(&mut second).await;
    // The offsets have not changed since, so the brokers fence the first, not the comparison of offsets.
    stage.assert_fenced(moved, 1, 1).await;
    stage.assert_fenced(kept, 0, 0).await;
    second.read_to(&positions(&stage.input, [(0, 3), (1, 3)])).await;
    let read = |partition| second.texts_of(partition);
    assert_eq!(
        [read(moved), read(kept)],
        [vec!["1", "2"], vec!["0", "1", "2"]],
        "the second starts at the committed offset"
    );
    stage.step(&stage.second, moved, 1, "b").await.unwrap();
    stage.assert_fenced(moved, 1, 2).await;
    stage.step(&stage.second, moved, 2, "b").await.unwrap();
    for from in 0..3 {
        stage.step(&stage.second, kept, from, "b").await.unwrap();
        stage.assert_fenced(kept, 0, from + 1).await;
    }
    let all = positions(&stage.input, [(0, 3), (1, 3)]);
    assert_eq!(stage.second.committed(&stage.group).await.unwrap(), all);
    // Each input has one output, and the zombie has appended none.
    let expected = [["a0", "b1", "b2"], ["b0", "b1", "b2"]];
    let outputs = stage.outputs().await;
    assert_eq!([&outputs[moved as usize], &outputs[kept as usize]], [&expected[0], &expected[1]]);
    // When the first acknowledges, its other partition is revoked as well, and it joins again.
    done.send(()).unwrap();
    stage.assert_fenced(kept, 0, 3).await;
    let (lost, done) = revoked(&mut first).await;
    assert_eq!(lost, [kept]);
    stage.assert_fenced(kept, 2, 3).await;
    stage.assert_fenced(kept, 3, 3).await;
    done.send(()).unwrap();
    let (returned, done) = revoked(&mut second).await;
    done.send(()).unwrap();
    first.take_assignment(Positions::new()).await;
    assert_eq!(first.assigned.iter().map(|at| at.partition).collect::<Vec<_>>(), returned);
    let log = &stage.first;
    log.append(vec![text(&stage.input, returned[0], "3")]).await.unwrap();
    let before = first.records.len();
    first.read_to(&stage.at(returned[0], 4)).await;
    assert_eq!(texts(&first.records[before..]), ["3"]);
    stage.step(log, returned[0], 3, "a").await.unwrap();
    assert_eq!(stage.outputs().await[returned[0] as usize].last().unwrap(), "a3");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker and a registry: scripts/services.sh up, and its env"]
async fn law_05_a_member_advances_only_the_partitions_it_owns() {
    let stage = Stage::new(&[]).await;
    let mut first = stage.join(&stage.first).await;
    let (moved, done, mut second) = stage.rebalance_to_second(&mut first).await;
    let kept = 1 - moved;
    stage.step(&stage.first, moved, 0, "a").await.unwrap();
    done.send(()).unwrap();
    second.take_assignment(Positions::new()).await;
    assert_eq!(second.assigned, [at(&stage.input, moved)]);
    // The first is still a member, and the group is at offset 1. But the first does not own the partition.
    stage.assert_fenced(moved, 1, 1).await;
    stage.step(&stage.second, moved, 1, "b").await.unwrap();
    stage.assert_fenced(moved, 1, 2).await;
    stage.step(&stage.first, kept, 0, "a").await.unwrap();
    // An advance of both partitions, of which the first owns one, is rejected as a whole.
    let (from, upto) =
        (positions(&stage.input, [(kept, 1), (moved, 2)]), positions(&stage.input, [(kept, 2), (moved, 3)]));
    let output = vec![text(&stage.output, kept, "zombie")];
    let outcome = stage.first.append_and_advance(&stage.group, output, &from, &upto).await;
    assert!(matches!(outcome, Err(LogError::Fenced { .. })), "{outcome:?}");
    assert_eq!(stage.second.committed(&stage.group).await.unwrap(), from);
    let outputs = stage.outputs().await;
    assert_eq!([&outputs[moved as usize][..], &outputs[kept as usize]], [&["a0", "b1"][..], &["a0"]]);
    // A member that has left is fenced.
    drop(second);
    first.ended.clear();
    first.take_assignment(Positions::new()).await;
    first.read_to(&stage.at(moved, 3)).await;
    stage.step(&stage.first, moved, 2, "a").await.unwrap();
    let outcome = stage.step(&stage.second, moved, 2, "zombie").await;
    assert!(matches!(outcome, Err(LogError::Fenced { .. })), "{outcome:?}");
    assert_eq!(stage.outputs().await[moved as usize], ["a0", "b1", "a2"]);
}

/// A stage that processes a batch receives no deliveries. A rebalance that leaves it its partitions must not disturb
/// it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker and a registry: scripts/services.sh up, and its env"]
async fn law_05_a_busy_member_is_not_fenced_when_others_join_and_leave() {
    let stage = Stage::new(&[]).await;
    let more = |n: u32| text(&stage.input, n % 2, &"x".repeat(1000));
    let mut first = stage.join(&stage.first).await;
    let (moved, done, mut second) = stage.rebalance_to_second(&mut first).await;
    let kept = 1 - moved;
    done.send(()).unwrap();
    second.take_assignment(Positions::new()).await;
    second.read_to(&stage.at(moved, 3)).await;
    // More records than the stream buffers, and nobody receives them.
    for _ in 0..10 {
        stage.first.append((0..1_000).map(more).collect()).await.unwrap();
    }
    let (running, mut steps) = (AtomicBool::new(true), 0);
    let working = async {
        while running.load(Ordering::Relaxed) {
            stage.step(&stage.first, kept, steps, "a").await.unwrap();
            stage.step(&stage.second, moved, steps, "b").await.unwrap();
            steps += 1;
        }
    };
    let third = connect_as(&stage.kafka, "c", &[]).await;
    let joining = async {
        let idle = third.subscribe(&stage.group, std::slice::from_ref(&stage.input)).await.unwrap();
        let count = async || (members(&stage.kafka, &stage.group) == Some(3)).then_some(());
        eventually(WAIT_TIMEOUT, "a third member", count).await;
        drop(idle);
        running.store(false, Ordering::Relaxed);
    };
    futures::join!(working, joining);
    // Both still work after the third has left.
    stage.step(&stage.first, kept, steps, "a").await.unwrap();
    stage.step(&stage.second, moved, steps, "b").await.unwrap();
    // A rebalance discards records that were fetched and not delivered. No record may be skipped, and no end reported
    // too early.
    let end = stage.first.ends(&stage.input).await.unwrap();
    for (reader, partition) in [(&mut first, kept), (&mut second, moved)] {
        let at = at(&stage.input, partition);
        reader.ended.clear();
        while reader.ended.get(&at) != Some(&end.next(&at)) {
            reader.step().await;
            let own = reader.records.iter().filter(|record| record.position.partition == partition);
            let delivered = own.enumerate().all(|(n, record)| record.position.offset == n as u64);
            assert!(delivered, "{at} is not read in order");
            let count = reader.texts_of(partition).len() as u64;
            assert!(reader.ended.get(&at).is_none_or(|next| *next <= count), "{at}: {:?} after {count}", reader.ended);
        }
    }
    let expected = |name| (0..=steps).map(|step| format!("{name}{step}")).collect::<Vec<_>>();
    let outputs = stage.outputs().await;
    assert_eq!([&outputs[moved as usize], &outputs[kept as usize]], [&expected("b"), &expected("a")]);
}

/// The offsets that a process remembers are valid only while it is a member.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker and a registry: scripts/services.sh up, and its env"]
async fn law_05_a_member_that_rejoins_reads_the_committed_offsets_again() {
    let stage = Stage::new(&[]).await;
    let first = stage.join(&stage.first).await;
    stage.step(&stage.first, 0, 0, "a").await.unwrap();
    drop(first);
    let second = stage.join(&stage.second).await;
    stage.step(&stage.second, 0, 1, "b").await.unwrap();
    drop(second);
    let _first = stage.join(&stage.first).await;
    stage.assert_fenced(0, 1, 2).await;
    stage.step(&stage.first, 0, 2, "a").await.unwrap();
    assert_eq!(stage.outputs().await[0], ["a0", "b1", "a2"]);
    assert_eq!(stage.kafka.connect().await.committed(&stage.group).await.unwrap(), stage.at(0, 3));
}
