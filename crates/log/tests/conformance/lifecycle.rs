//! Closing the log.

use carbon_core::{Positions, Timestamp};
use carbon_log::LogError;

use super::support::{Cluster, Reader, all, at, in_time, next, offsets, positions, spec, text, texts, with_topic};

pub async fn law_14_records_accepted_before_the_close_are_durable(cluster: &impl Cluster) {
    let (log, topic) = with_topic(cluster, 1).await;
    let log = &log;
    let appends = (0..64).map(|n: u32| {
        let record = text(&topic, 0, &n.to_string());
        async move { log.append(vec![record]).await.ok().map(|appended| (appended[0].offset, n.to_string())) }
    });
    let (mut accepted, ()) = futures::join!(futures::future::join_all(appends), log.close());
    accepted.retain(Option::is_some);
    accepted.sort();
    let log = cluster.open().await;
    let found = all(&*log, &topic, 0).await;
    assert_eq!(offsets(&found), (0..found.len() as u64).collect::<Vec<_>>());
    let found: Vec<_> = offsets(&found).into_iter().zip(texts(&found)).map(Some).collect();
    assert!(!accepted.is_empty(), "appends before the close are accepted");
    for one in accepted {
        assert!(found.contains(&one), "{one:?} was acknowledged, but is lost");
    }
}

pub async fn a_closed_log_rejects_all_requests(cluster: &impl Cluster) {
    let (log, topic) = with_topic(cluster, 1).await;
    log.append(vec![text(&topic, 0, "a")]).await.unwrap();
    let (group, one) = (cluster.group("g"), positions(&topic, [(0, 1)]));
    in_time("the close", log.close()).await;
    in_time("a second close", log.close()).await;
    let closed = |error: LogError| matches!(error, LogError::Closed);
    let append = log.append(vec![text(&topic, 0, "late")]);
    assert!(in_time("append", append).await.is_err_and(closed));
    let zero = positions(&topic, [(0, 0)]);
    let advance = log.append_and_advance(&group, vec![text(&topic, 0, "late")], &zero, &one);
    assert!(in_time("advance", advance).await.is_err_and(closed));
    assert!(in_time("commit", log.commit(&group, &one)).await.is_err_and(closed));
    assert!(in_time("delete", log.delete_records(&one)).await.is_err_and(closed));
    let specs = [spec(&cluster.topic("new"), 1, carbon_core::Cleanup::Keep)];
    assert!(in_time("ensure", log.ensure_topics(&specs)).await.is_err_and(closed));
    assert!(in_time("schema", log.put_schema("x", "\"long\"")).await.is_err_and(closed));
    assert!(in_time("read", log.read(&at(&topic, 0), 0, 1)).await.is_err_and(closed));
    assert!(in_time("committed", log.committed(&group)).await.is_err_and(closed));
    let times = log.positions_for_time(&topic, Timestamp(0));
    assert!(in_time("times", times).await.is_err_and(closed));
    let log = cluster.open().await;
    assert_eq!(texts(&all(&*log, &topic, 0).await), ["a"]);
    assert_eq!(log.committed(&group).await.unwrap(), Positions::new());
}

pub async fn a_close_ends_every_stream(cluster: &impl Cluster) {
    let (log, topic) = with_topic(cluster, 1).await;
    log.append(vec![text(&topic, 0, "a")]).await.unwrap();
    let topics = std::slice::from_ref(&topic);
    // A member that waits for records, one that has not answered its assignment, and one that waits for that member.
    let mut idle = Reader::join(&*log, &cluster.group("idle"), &topic, Positions::new()).await;
    idle.read_to(&positions(&topic, [(0, 1)])).await;
    let mut unanswered = log.subscribe(&cluster.group("unanswered"), topics).await.unwrap();
    let kept = next(&mut unanswered).await;
    let mut waiting = log.subscribe(&cluster.group("unanswered"), topics).await.unwrap();
    let mut empty = log.follow(&Positions::new()).await.unwrap();
    // A follower whose deliveries were not received.
    let busy = log.follow(&positions(&topic, [(0, 0)])).await.unwrap();
    in_time("the close", log.close()).await;
    let streams = [&mut idle.stream, &mut unanswered, &mut waiting, &mut empty];
    for (n, stream) in streams.into_iter().enumerate() {
        let last = in_time("the end of a stream", stream.next()).await;
        assert!(last.is_none(), "stream {n} delivers {last:?} after the close");
    }
    let mut busy = busy;
    while let Some(delivery) = in_time("the end of a stream", busy.next()).await {
        delivery.unwrap();
    }
    drop(kept);
}
