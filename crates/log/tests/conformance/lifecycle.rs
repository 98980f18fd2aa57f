//! Closing.

use carbon_core::{Positions, Timestamp};
use carbon_log::LogError;

use super::support::{Cluster, Reader, all, at, next, offsets, positions, soon, spec, text, texts, with_topic};

pub async fn law_14_what_was_accepted_before_the_close_is_durable(cluster: &impl Cluster) {
    let (log, topic) = with_topic(cluster, 1).await;
    let log = &log;
    let appends = (0..64).map(|n: u32| {
        let record = text(&topic, 0, &n.to_string());
        async move { log.append(vec![record]).await.ok().map(|answered| (answered[0].offset, n.to_string())) }
    });
    let (mut accepted, ()) = futures::join!(futures::future::join_all(appends), log.close());
    accepted.retain(Option::is_some);
    accepted.sort();
    let log = cluster.open().await;
    let found = all(&*log, &topic, 0).await;
    assert_eq!(offsets(&found), (0..found.len() as u64).collect::<Vec<_>>());
    let found: Vec<_> = offsets(&found).into_iter().zip(texts(&found)).map(Some).collect();
    assert!(!accepted.is_empty(), "the appends that were asked before the close are taken");
    for one in accepted {
        assert!(found.contains(&one), "{one:?} was acknowledged and is lost");
    }
}

pub async fn a_closed_log_takes_nothing_more(cluster: &impl Cluster) {
    let (log, topic) = with_topic(cluster, 1).await;
    log.append(vec![text(&topic, 0, "a")]).await.unwrap();
    let (group, one) = (cluster.group("g"), positions(&topic, [(0, 1)]));
    soon("the close", log.close()).await;
    soon("a second close", log.close()).await;
    let closed = |error: LogError| matches!(error, LogError::Closed);
    let append = log.append(vec![text(&topic, 0, "late")]);
    assert!(soon("append", append).await.is_err_and(closed));
    let zero = positions(&topic, [(0, 0)]);
    let advance = log.append_and_advance(&group, vec![text(&topic, 0, "late")], &zero, &one);
    assert!(soon("advance", advance).await.is_err_and(closed));
    assert!(soon("commit", log.commit(&group, &one)).await.is_err_and(closed));
    assert!(soon("delete", log.delete_records(&one)).await.is_err_and(closed));
    let specs = [spec(&cluster.topic("new"), 1, carbon_core::Cleanup::Keep)];
    assert!(soon("ensure", log.ensure_topics(&specs)).await.is_err_and(closed));
    assert!(soon("schema", log.put_schema("x", "\"long\"")).await.is_err_and(closed));
    assert!(soon("read", log.read(&at(&topic, 0), 0, 1)).await.is_err_and(closed));
    assert!(soon("committed", log.committed(&group)).await.is_err_and(closed));
    let times = log.positions_for_time(&topic, Timestamp(0));
    assert!(soon("times", times).await.is_err_and(closed));
    let log = cluster.open().await;
    assert_eq!(texts(&all(&*log, &topic, 0).await), ["a"]);
    assert_eq!(log.committed(&group).await.unwrap(), Positions::new());
}

pub async fn a_close_ends_every_stream(cluster: &impl Cluster) {
    let (log, topic) = with_topic(cluster, 1).await;
    log.append(vec![text(&topic, 0, "a")]).await.unwrap();
    let topics = std::slice::from_ref(&topic);
    // One that waits for records, one that never answered its assignment, and one that waits for the other.
    let mut idle = Reader::join(&*log, &cluster.group("idle"), &topic, Positions::new()).await;
    idle.until(&positions(&topic, [(0, 1)])).await;
    let mut unanswered = log.subscribe(&cluster.group("unanswered"), topics).await.unwrap();
    let kept = next(&mut unanswered).await;
    let mut waiting = log.subscribe(&cluster.group("unanswered"), topics).await.unwrap();
    let mut of_nothing = log.follow(&Positions::new()).await.unwrap();
    // One that has not taken what was read for it.
    let busy = log.follow(&positions(&topic, [(0, 0)])).await.unwrap();
    soon("the close", log.close()).await;
    let streams = [&mut idle.stream, &mut unanswered, &mut waiting, &mut of_nothing];
    for (n, stream) in streams.into_iter().enumerate() {
        let last = soon("the end of a stream", stream.next()).await;
        assert!(last.is_none(), "stream {n} gives {last:?} after the close");
    }
    let mut busy = busy;
    while let Some(delivery) = soon("the end of a stream", busy.next()).await {
        delivery.unwrap();
    }
    drop(kept);
}
