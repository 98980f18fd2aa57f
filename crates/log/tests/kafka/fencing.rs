//! A member whose partitions have moved: the brokers refuse its transactions (law 5; KIP-447).

use std::sync::atomic::{AtomicBool, Ordering};

use carbon_core::{Cleanup, Position, Positions, TopicName};
use carbon_log::{Delivery, EventLog, Group, KafkaLog, LogError};
use tokio::sync::oneshot;

use super::raw::{PATIENCE, connect_as, eventually, members};
use crate::factory::Kafka;
use crate::support::{Cluster, Reader, at, next, positions, spec, text, texts};

/// A stage in two processes, over two partitions with three records each.
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

    /// The output of one input, and the step past that.
    async fn step(&self, log: &KafkaLog, partition: u32, from: u64, name: &str) -> Result<Vec<Position>, LogError> {
        let output = text(&self.output, partition, &format!("{name}{from}"));
        let (from, upto) = (self.at(partition, from), self.at(partition, from + 1));
        log.append_and_advance(&self.group, vec![output], &from, &upto).await
    }

    async fn is_fenced(&self, partition: u32, from: u64, stands: u64) {
        match self.step(&self.first, partition, from, "zombie").await {
            Err(LogError::Fenced { group, actual }) => {
                assert_eq!((group.as_str(), actual.of_topic(&self.input)), (self.group.as_str(), actual.clone()));
                let at = at(&self.input, partition);
                assert_eq!(actual.next(&at), stands, "it is told where the group stands");
            }
            other => panic!("{partition} at {from}: {other:?}"),
        }
    }

    /// The first has all, the second comes: what the first is to give up, unacknowledged, and the second.
    async fn hand_over(&self, first: &mut Reader) -> (u32, oneshot::Sender<()>, Reader) {
        let second = self.second.subscribe(&self.group, std::slice::from_ref(&self.input)).await.unwrap();
        let (lost, done) = revoked(first).await;
        assert_eq!(lost.len(), 1, "a share is given up, not everything");
        (lost[0], done, Reader::new(second))
    }

    /// Joins, and reads both partitions to their ends: one that was dropped leaves a little later.
    async fn join(&self, log: &KafkaLog) -> Reader {
        let mut reader = Reader::new(log.subscribe(&self.group, std::slice::from_ref(&self.input)).await.unwrap());
        take_both(&mut reader).await;
        reader.until(&positions(&self.input, [(0, 3), (1, 3)])).await;
        reader
    }

    /// What was put out, by a reader that has seen the end.
    async fn outputs(&self) -> [Vec<String>; 2] {
        let ends = self.second.ends(&self.output).await.unwrap();
        let start = positions(&self.output, [(0, 0), (1, 0)]);
        let mut reader = Reader::new(self.second.follow(&start).await.unwrap());
        reader.until(&ends).await;
        [reader.texts_of(0), reader.texts_of(1)]
    }
}

/// They may come one by one.
async fn take_both(reader: &mut Reader) {
    let mut given = Vec::new();
    while given.len() < 2 {
        reader.take_assignment(Positions::new()).await;
        given.append(&mut reader.assigned);
    }
    given.sort();
    reader.assigned = given;
}

async fn revoked(reader: &mut Reader) -> (Vec<u32>, oneshot::Sender<()>) {
    match next(&mut reader.stream).await {
        Delivery::Revoked { partitions, done } => (partitions.iter().map(|at| at.partition).collect(), done),
        other => panic!("something is revoked, not {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker and a registry: scripts/services.sh up, and its env"]
async fn law_05_a_member_whose_partitions_moved_is_fenced() {
    let stage = Stage::new(&[("max.poll.interval.ms", "6000"), ("session.timeout.ms", "6000")]).await;
    let mut first = stage.join(&stage.first).await;
    let (moved, done, mut second) = stage.hand_over(&mut first).await;
    let kept = 1 - moved;
    // What it had finished still counts while it has not acknowledged.
    stage.step(&stage.first, moved, 0, "a").await.unwrap();
    // It never acknowledges, so that the brokers let it go, and the second gets all.
    take_both(&mut second).await;
    // Nobody has moved anything since: it is the brokers that refuse, not what is known of the offsets.
    stage.is_fenced(moved, 1, 1).await;
    stage.is_fenced(kept, 0, 0).await;
    second.until(&positions(&stage.input, [(0, 3), (1, 3)])).await;
    let read = |partition| second.texts_of(partition);
    assert_eq!([read(moved), read(kept)], [vec!["1", "2"], vec!["0", "1", "2"]], "it begins where the group stands");
    stage.step(&stage.second, moved, 1, "b").await.unwrap();
    stage.is_fenced(moved, 1, 2).await;
    stage.step(&stage.second, moved, 2, "b").await.unwrap();
    for from in 0..3 {
        stage.step(&stage.second, kept, from, "b").await.unwrap();
        stage.is_fenced(kept, 0, from + 1).await;
    }
    let all = positions(&stage.input, [(0, 3), (1, 3)]);
    assert_eq!(stage.second.committed(&stage.group).await.unwrap(), all);
    // One output of each input, and of the zombie's nothing.
    let expected = [["a0", "b1", "b2"], ["b0", "b1", "b2"]];
    let outputs = stage.outputs().await;
    assert_eq!([&outputs[moved as usize], &outputs[kept as usize]], [&expected[0], &expected[1]]);
    // When it wakes up, it is told that the rest is gone too, and begins anew.
    done.send(()).unwrap();
    stage.is_fenced(kept, 0, 3).await;
    let (lost, done) = revoked(&mut first).await;
    assert_eq!(lost, [kept]);
    stage.is_fenced(kept, 2, 3).await;
    stage.is_fenced(kept, 3, 3).await;
    done.send(()).unwrap();
    let (given, done) = revoked(&mut second).await;
    done.send(()).unwrap();
    first.take_assignment(Positions::new()).await;
    assert_eq!(first.assigned.iter().map(|at| at.partition).collect::<Vec<_>>(), given);
    let log = &stage.first;
    log.append(vec![text(&stage.input, given[0], "3")]).await.unwrap();
    let before = first.records.len();
    first.until(&stage.at(given[0], 4)).await;
    assert_eq!(texts(&first.records[before..]), ["3"]);
    stage.step(log, given[0], 3, "a").await.unwrap();
    assert_eq!(stage.outputs().await[given[0] as usize].last().unwrap(), "a3");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker and a registry: scripts/services.sh up, and its env"]
async fn law_05_a_member_moves_only_what_it_owns() {
    let stage = Stage::new(&[]).await;
    let mut first = stage.join(&stage.first).await;
    let (moved, done, mut second) = stage.hand_over(&mut first).await;
    let kept = 1 - moved;
    stage.step(&stage.first, moved, 0, "a").await.unwrap();
    done.send(()).unwrap();
    second.take_assignment(Positions::new()).await;
    assert_eq!(second.assigned, [at(&stage.input, moved)]);
    // It is a member in good standing, and the group is where it thinks; but it has given this up.
    stage.is_fenced(moved, 1, 1).await;
    stage.step(&stage.second, moved, 1, "b").await.unwrap();
    stage.is_fenced(moved, 1, 2).await;
    stage.step(&stage.first, kept, 0, "a").await.unwrap();
    // Both at once, one of them not its own: nothing moves.
    let (from, upto) =
        (positions(&stage.input, [(kept, 1), (moved, 2)]), positions(&stage.input, [(kept, 2), (moved, 3)]));
    let output = vec![text(&stage.output, kept, "zombie")];
    let outcome = stage.first.append_and_advance(&stage.group, output, &from, &upto).await;
    assert!(matches!(outcome, Err(LogError::Fenced { .. })), "{outcome:?}");
    assert_eq!(stage.second.committed(&stage.group).await.unwrap(), from);
    let outputs = stage.outputs().await;
    assert_eq!([&outputs[moved as usize][..], &outputs[kept as usize]], [&["a0", "b1"][..], &["a0"]]);
    // One that leaves may no longer move anything.
    drop(second);
    first.ended.clear();
    first.take_assignment(Positions::new()).await;
    first.until(&stage.at(moved, 3)).await;
    stage.step(&stage.first, moved, 2, "a").await.unwrap();
    let outcome = stage.step(&stage.second, moved, 2, "zombie").await;
    assert!(matches!(outcome, Err(LogError::Fenced { .. })), "{outcome:?}");
    assert_eq!(stage.outputs().await[moved as usize], ["a0", "b1", "a2"]);
}

/// A stage that is busy with a batch takes no deliveries: a rebalance that leaves it its partitions is none to it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker and a registry: scripts/services.sh up, and its env"]
async fn law_05_a_busy_member_is_not_fenced_by_who_comes_and_goes() {
    let stage = Stage::new(&[]).await;
    let more = |n: u32| text(&stage.input, n % 2, &"x".repeat(1000));
    let mut first = stage.join(&stage.first).await;
    let (moved, done, mut second) = stage.hand_over(&mut first).await;
    let kept = 1 - moved;
    done.send(()).unwrap();
    second.take_assignment(Positions::new()).await;
    second.until(&stage.at(moved, 3)).await;
    // More than the stream holds, and nobody takes it.
    for _ in 0..10 {
        stage.first.append((0..1_000).map(more).collect()).await.unwrap();
    }
    let (work, mut steps) = (AtomicBool::new(true), 0);
    let working = async {
        while work.load(Ordering::Relaxed) {
            stage.step(&stage.first, kept, steps, "a").await.unwrap();
            stage.step(&stage.second, moved, steps, "b").await.unwrap();
            steps += 1;
        }
    };
    let third = connect_as(&stage.kafka, "c", &[]).await;
    let coming = async {
        let idle = third.subscribe(&stage.group, std::slice::from_ref(&stage.input)).await.unwrap();
        let count = async || (members(&stage.kafka, &stage.group) == Some(3)).then_some(());
        eventually(PATIENCE, "a third member", count).await;
        drop(idle);
        work.store(false, Ordering::Relaxed);
    };
    futures::join!(working, coming);
    // After it has gone, too.
    stage.step(&stage.first, kept, steps, "a").await.unwrap();
    stage.step(&stage.second, moved, steps, "b").await.unwrap();
    // What was fetched and not taken is thrown away by a rebalance: no record is skipped, and no end told too early.
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

/// What a process remembers of a group's offsets ends with its membership.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker and a registry: scripts/services.sh up, and its env"]
async fn law_05_a_member_that_comes_back_knows_nothing() {
    let stage = Stage::new(&[]).await;
    let first = stage.join(&stage.first).await;
    stage.step(&stage.first, 0, 0, "a").await.unwrap();
    drop(first);
    let second = stage.join(&stage.second).await;
    stage.step(&stage.second, 0, 1, "b").await.unwrap();
    drop(second);
    let _first = stage.join(&stage.first).await;
    stage.is_fenced(0, 1, 2).await;
    stage.step(&stage.first, 0, 2, "a").await.unwrap();
    assert_eq!(stage.outputs().await[0], ["a0", "b1", "a2"]);
    assert_eq!(stage.kafka.connect().await.committed(&stage.group).await.unwrap(), stage.at(0, 3));
}
