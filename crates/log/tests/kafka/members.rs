//! Groups as the brokers list them, and the open transaction of a dead process.

use carbon_core::{Cleanup, Positions};
use carbon_log::{EventLog, GroupDescription};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode as Code;

use super::clients::{Transaction, WAIT_TIMEOUT, eventually, wait_for_ends, with_topic};
use crate::factory::Kafka;
use crate::support::{Cluster, Reader, positions, spec, text, texts};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker and a registry: scripts/services.sh up, and its env"]
async fn law_05_the_next_start_aborts_the_open_transaction_of_a_dead_process() {
    let kafka = Kafka::new();
    let (log, input) = with_topic(&kafka, 1).await;
    let (group, output) = (kafka.group("stage"), kafka.topic("out"));
    log.ensure_topics(&[spec(&output, 1, Cleanup::Keep)]).await.unwrap();
    log.append(vec![text(&input, 0, "1")]).await.unwrap();
    let mut reader = Reader::new(log.follow(&positions(&output, [(0, 0)])).await.unwrap());
    // The dead process had the same group and the same instance name.
    let dead = Transaction::begin(&kafka, &format!("{group}.{}", kafka.options().instance));
    assert_eq!(dead.send(&output, "aborted").await, 0);
    let (zero, one) = (positions(&input, [(0, 0)]), positions(&input, [(0, 1)]));
    let appended = log.append_and_advance(&group, vec![text(&output, 0, "ours")], &zero, &one).await.unwrap();
    assert_eq!(appended[0].offset, 2, "offset 1 is the marker of the aborted transaction");
    let ends = positions(&output, [(0, 4)]);
    wait_for_ends(&log, &output, &ends).await;
    reader.read_to(&ends).await;
    assert_eq!(texts(&reader.records), ["ours"]);
    // If the process is still alive, it is fenced.
    let fenced = dead.commit().unwrap_err();
    assert!(matches!(fenced.rdkafka_error_code(), Some(Code::Fenced | Code::ProducerFenced)), "{fenced}");
    assert!(matches!(fenced, KafkaError::Transaction(error) if error.is_fatal()));
    assert_eq!(log.ends(&output).await.unwrap(), ends);
    assert_eq!(log.committed(&group).await.unwrap(), one);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker and a registry: scripts/services.sh up, and its env"]
async fn a_group_is_listed_with_and_without_members() {
    let kafka = Kafka::new();
    let (log, topic) = with_topic(&kafka, 2).await;
    let (group, memberless) = (kafka.group("g"), kafka.group("memberless"));
    log.append(vec![text(&topic, 0, "1"), text(&topic, 0, "2")]).await.unwrap();
    let reader = Reader::join(&log, &group, &topic, Positions::new()).await;
    let committed = positions(&topic, [(0, 1), (1, 0)]);
    log.commit(&group, &committed).await.unwrap();
    // A group that never had a member, but has committed offsets, is listed as well.
    log.commit(&memberless, &positions(&topic, [(0, 2)])).await.unwrap();
    let listed = async |of: &_| log.groups().await.unwrap().into_iter().find(|found| found.group == *of);
    let expected = |members| GroupDescription { group: group.clone(), members, positions: committed.clone() };
    assert_eq!(listed(&group).await, Some(expected(1)));
    let expected_memberless =
        GroupDescription { group: memberless.clone(), members: 0, positions: positions(&topic, [(0, 2)]) };
    assert_eq!(listed(&memberless).await, Some(expected_memberless));
    drop(reader);
    let left = async || listed(&group).await.filter(|found| found.members == 0);
    assert_eq!(eventually(WAIT_TIMEOUT, "the group's last member leaves", left).await, expected(0));
}
