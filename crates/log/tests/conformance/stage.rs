//! Stages: outputs and input offsets in one transaction (law 5).

use carbon_core::{Position, Positions, TopicName};
use carbon_log::{EventLog, LogError, NewRecord, Value};
use carbon_schemas::MAX_RECORD_BYTES;

use super::support::{Cluster, Reader, positions, text, wait_for_texts, with_topic};

/// A log with an input topic (3 records in each of 3 partitions) and an output topic.
async fn stage(cluster: &impl Cluster) -> (Box<dyn EventLog>, TopicName, TopicName) {
    let (log, input) = with_topic(cluster, 3).await;
    let output = cluster.topic("out");
    log.ensure_topics(&[super::support::spec(&output, 3, carbon_core::Cleanup::Keep)]).await.unwrap();
    log.append((0..9).map(|n: u32| text(&input, n % 3, &n.to_string())).collect()).await.unwrap();
    (log, input, output)
}

pub async fn law_05_outputs_and_offsets_are_committed_atomically(cluster: &impl Cluster) {
    let (log, input, output) = stage(cluster).await;
    let group = cluster.group("stage");
    let (zero, one) = (positions(&input, [(0, 0)]), positions(&input, [(0, 1)]));
    let good = text(&output, 0, "a");
    let bad = [
        text(&cluster.topic("missing"), 0, "x"),
        text(&output, 7, "x"),
        NewRecord { value: Value::Raw(vec![0; MAX_RECORD_BYTES + 1]), ..good.clone() },
    ];
    for bad in bad {
        let error = log.append_and_advance(&group, vec![good.clone(), bad], &zero, &one).await;
        assert!(error.is_err(), "{error:?}");
    }
    // An input partition that does not exist cannot advance, so no output is appended.
    let nowhere = positions(&input, [(0, 1), (9, 1)]);
    assert!(log.append_and_advance(&group, vec![good.clone()], &zero, &nowhere).await.is_err());
    assert_eq!(log.committed(&group).await.unwrap(), Positions::new());
    assert_eq!(log.ends(&output).await.unwrap(), positions(&output, [(0, 0), (1, 0), (2, 0)]));

    let appended = log.append_and_advance(&group, vec![good, text(&output, 1, "b")], &zero, &one).await.unwrap();
    assert_eq!(appended, [Position::new(output.clone(), 0, 0), Position::new(output.clone(), 1, 0)]);
    // A batch without outputs advances the group as well.
    let three = positions(&input, [(0, 3)]);
    assert_eq!(log.append_and_advance(&group, vec![], &one, &three).await.unwrap(), []);
    log.close().await;
    let log = cluster.open().await;
    assert_eq!(log.committed(&group).await.unwrap(), three);
    assert_eq!(wait_for_texts(&*log, &output, 0, 1).await, ["a"]);
    assert_eq!(wait_for_texts(&*log, &output, 1, 1).await, ["b"]);
}

pub async fn law_05_a_stale_member_is_fenced_and_writes_nothing(cluster: &impl Cluster) {
    let (log, input, output) = stage(cluster).await;
    let group = cluster.group("stage");
    let at = |next| positions(&input, [(1, next)]);
    log.append_and_advance(&group, vec![text(&output, 1, "first")], &at(0), &at(2)).await.unwrap();
    // `from` is behind, ahead, or right in only one of 2 partitions.
    let half = (positions(&input, [(1, 2), (2, 1)]), positions(&input, [(1, 3), (2, 2)]));
    for (from, upto) in [(at(0), at(1)), (at(0), at(2)), (at(1), at(3)), (at(3), at(3)), half] {
        let error = log.append_and_advance(&group, vec![text(&output, 1, "zombie")], &from, &upto).await.unwrap_err();
        match error {
            LogError::Fenced { actual, .. } => assert_eq!(actual.next(&super::support::at(&input, 1)), 2),
            other => panic!("{other}"),
        }
    }
    assert_eq!(log.committed(&group).await.unwrap(), at(2));
    assert_eq!(wait_for_texts(&*log, &output, 1, 1).await, ["first"]);
    // The right offset and another group are accepted.
    log.append_and_advance(&group, vec![text(&output, 1, "second")], &at(2), &at(3)).await.unwrap();
    log.append_and_advance(&cluster.group("b"), vec![text(&output, 1, "b")], &at(0), &at(1)).await.unwrap();
    assert_eq!(wait_for_texts(&*log, &output, 1, 3).await, ["first", "second", "b"]);
}

pub async fn law_05_exactly_one_of_racing_members_wins(cluster: &impl Cluster) {
    let (log, input, output) = stage(cluster).await;
    let group = cluster.group("stage");
    for round in 0..3 {
        let at = |next| positions(&input, [(0, next)]);
        let (from, upto) = (at(round), at(round + 1));
        let member = |name: &str| {
            let records =
                vec![text(&output, 0, &format!("{round}{name}")), text(&output, 1, &format!("{round}{name}"))];
            let (log, group, from, upto) = (&log, &group, &from, &upto);
            async move { log.append_and_advance(group, records, from, upto).await }
        };
        let (a, b, c) = futures::join!(member("a"), member("b"), member("c"));
        let outcomes = [a, b, c];
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
        for error in outcomes.into_iter().filter_map(Result::err) {
            let LogError::Fenced { actual, .. } = error else { panic!("{error}") };
            assert_eq!(actual, upto, "the error reports the committed offsets");
        }
        assert_eq!(log.committed(&group).await.unwrap(), upto);
    }
    let (zero, one) = (wait_for_texts(&*log, &output, 0, 3).await, wait_for_texts(&*log, &output, 1, 3).await);
    assert_eq!(zero.len(), 3);
    assert_eq!(zero, one);
}

pub async fn law_05_only_the_partitions_of_upto_advance(cluster: &impl Cluster) {
    let (log, input, output) = stage(cluster).await;
    let group = cluster.group("stage");
    let from = positions(&input, [(0, 0), (1, 0), (2, 0)]);
    log.append_and_advance(&group, vec![], &from, &positions(&input, [(1, 2)])).await.unwrap();
    // Only the partitions of `upto` are compared with `from`.
    let upto = positions(&input, [(0, 1), (2, 3)]);
    log.append_and_advance(&group, vec![text(&output, 0, "a")], &from, &upto).await.unwrap();
    assert_eq!(log.committed(&group).await.unwrap(), positions(&input, [(0, 1), (1, 2), (2, 3)]));
    // The next member starts at the committed offsets.
    let mut reader = Reader::join(&*log, &group, &input, Positions::new()).await;
    reader.read_to(&positions(&input, [(0, 3), (1, 3), (2, 3)])).await;
    assert_eq!([reader.texts_of(0), reader.texts_of(1), reader.texts_of(2)], [vec!["3", "6"], vec!["7"], vec![]]);
}

pub async fn law_05_an_output_goes_to_the_partition_it_names(cluster: &impl Cluster) {
    let (log, input, output) = stage(cluster).await;
    for partition in [2, 0, 1] {
        // The placement decides, not the key: an output goes to the partition number of its input.
        let record = super::support::keyed(&output, "one key", Some("v")).in_partition(partition);
        let (from, upto) = (positions(&input, [(partition, 0)]), positions(&input, [(partition, 1)]));
        let appended = log.append_and_advance(&cluster.group("s"), vec![record], &from, &upto).await.unwrap();
        assert_eq!(appended, [Position::new(output.clone(), partition, 0)]);
        assert_eq!(wait_for_texts(&*log, &output, partition, 1).await, ["v"]);
    }
}
