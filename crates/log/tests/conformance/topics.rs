//! Topics, schemas, and checkpoints of other logs.

use carbon_core::{Cleanup, Partitioner, Positions, Retention, Timestamp, TopicSpec};
use carbon_log::{Foreign, LogError};
use carbon_schemas::{Fingerprint, SchemaId, parse, versions};

use super::support::{Cluster, Reader, all, at, keyed, offsets, positions, spec, text, texts, with_topic};

pub async fn topics_are_created_once_and_a_changed_partition_count_is_rejected(cluster: &impl Cluster) {
    let (log, topic) = with_topic(cluster, 3).await;
    log.append(vec![text(&topic, 2, "a")]).await.unwrap();
    let kept = spec(&topic, 3, Cleanup::Keep);
    let retention = Retention { retention_ms: Some(60_000), min_compaction_lag_ms: 5, delete_retention_ms: 6 };
    let brief = TopicSpec { retention, ..spec(&cluster.topic("brief"), 1, Cleanup::Delete) };
    log.ensure_topics(&[kept.clone(), brief.clone()]).await.unwrap();
    log.ensure_topics(&[kept.clone(), brief.clone()]).await.unwrap();
    assert_eq!(log.ends(&topic).await.unwrap(), positions(&topic, [(0, 0), (1, 0), (2, 1)]));
    for (wrong, what) in [
        (TopicSpec { partitions: 4, ..kept.clone() }, "partitions"),
        (TopicSpec { partitions: 2, ..kept.clone() }, "partitions"),
        (TopicSpec { partitioner: Partitioner::Crc32, ..kept.clone() }, "partitioner"),
        (TopicSpec { cleanup: Cleanup::Delete, ..kept.clone() }, "cleanup"),
        (TopicSpec { cleanup: Cleanup::Compact, ..kept.clone() }, "cleanup"),
    ] {
        // A rejected topic prevents the creation of the others.
        let fresh = spec(&cluster.topic("fresh"), 1, Cleanup::Keep);
        match log.ensure_topics(&[fresh.clone(), wrong]).await.unwrap_err() {
            error @ LogError::TopicDiffers { .. } => assert!(error.to_string().contains(what), "{error}"),
            other => panic!("{other}"),
        }
        assert!(matches!(log.ends(&fresh.name).await, Err(LogError::UnknownTopic(_))));
    }
    log.close().await;
    let log = cluster.open().await;
    let described = log.describe().await.unwrap();
    let find = |name| described.iter().find(|found| found.spec.name == name).unwrap();
    assert_eq!((&find(topic.clone()).spec, &find(brief.name.clone()).spec), (&kept, &brief));
    assert_eq!(find(topic.clone()).ends, positions(&topic, [(0, 0), (1, 0), (2, 1)]));
    assert_eq!(find(topic.clone()).starts, positions(&topic, [(0, 0), (1, 0), (2, 0)]));
    // A changed retention is applied.
    let longer = TopicSpec { retention: Retention { retention_ms: Some(90_000), ..retention }, ..brief };
    log.ensure_topics(std::slice::from_ref(&longer)).await.unwrap();
    let described = log.describe().await.unwrap();
    assert!(described.iter().any(|found| found.spec == longer), "{described:?}");
}

pub async fn an_error_names_the_missing_topic(cluster: &impl Cluster) {
    let (log, topic) = with_topic(cluster, 1).await;
    let missing = cluster.topic("missing");
    let group = cluster.group("g");
    let unknown = |error: LogError| matches!(error, LogError::UnknownTopic(name) if name == missing);
    assert!(log.subscribe(&group, &[topic.clone(), missing.clone()]).await.is_err_and(unknown));
    assert!(log.follow(&positions(&missing, [(0, 0)])).await.is_err_and(unknown));
    assert!(log.read(&at(&missing, 0), 0, 1).await.is_err_and(unknown));
    assert!(log.ends(&missing).await.is_err_and(unknown));
    assert!(log.positions_for_time(&missing, Timestamp(0)).await.is_err_and(unknown));
    let nowhere = |error| matches!(error, LogError::NoPartition { partition: 1, partitions: 1, .. });
    assert!(log.follow(&positions(&topic, [(1, 0)])).await.is_err_and(nowhere));
    assert!(log.read(&at(&topic, 1), 0, 1).await.is_err_and(nowhere));
}

pub async fn readers_skip_deleted_records(cluster: &impl Cluster) {
    let (log, topic) = with_topic(cluster, 2).await;
    let record = |n: u32| text(&topic, n % 2, &n.to_string());
    log.append((0..10).map(record).collect()).await.unwrap();
    log.delete_records(&positions(&topic, [(0, 3)])).await.unwrap();
    // A lower offset changes nothing.
    log.delete_records(&positions(&topic, [(0, 1)])).await.unwrap();
    log.append(vec![record(10)]).await.unwrap();
    log.close().await;
    let log = cluster.open().await;
    let described = log.describe().await.unwrap();
    let found = described.iter().find(|found| found.spec.name == topic).unwrap();
    assert_eq!(found.starts, positions(&topic, [(0, 3), (1, 0)]));
    assert_eq!(found.ends, positions(&topic, [(0, 6), (1, 5)]));
    assert_eq!(offsets(&all(&*log, &topic, 0).await), [3, 4, 5]);
    let mut reader = Reader::join(&*log, &cluster.group("g"), &topic, positions(&topic, [(0, 0), (1, 0)])).await;
    reader.read_to(&positions(&topic, [(0, 6), (1, 5)])).await;
    assert_eq!(reader.texts_of(0), ["6", "8", "10"]);
    assert_eq!(reader.texts_of(1), ["1", "3", "5", "7", "9"]);
    // All records of a partition can be deleted. Its offsets continue.
    log.delete_records(&positions(&topic, [(1, 5)])).await.unwrap();
    assert!(all(&*log, &topic, 1).await.is_empty());
    assert_eq!(log.append(vec![record(11)]).await.unwrap()[0].offset, 5);
    reader.read_to(&positions(&topic, [(1, 6)])).await;
    assert_eq!(reader.texts_of(1).last().unwrap(), "11");
}

pub async fn a_deletion_that_names_an_unknown_partition_deletes_nothing(cluster: &impl Cluster) {
    let (log, topic) = with_topic(cluster, 2).await;
    log.append(vec![text(&topic, 0, "a"), text(&topic, 1, "b")]).await.unwrap();
    assert!(log.delete_records(&positions(&topic, [(0, 1), (1, 1), (2, 1)])).await.is_err());
    assert_eq!(texts(&all(&*log, &topic, 0).await), ["a"]);
    let described = log.describe().await.unwrap();
    let found = described.iter().find(|found| found.spec.name == topic).unwrap();
    assert_eq!(found.starts, positions(&topic, [(0, 0), (1, 0)]));
}

pub async fn a_rejected_commit_does_not_affect_concurrent_requests(cluster: &impl Cluster) {
    let (log, topic) = with_topic(cluster, 1).await;
    let group = cluster.group("g");
    let wrong = positions(&cluster.topic("missing"), [(0, 1)]);
    for round in 0..20_u64 {
        let (good, right) = (text(&topic, 0, "a"), positions(&topic, [(0, round)]));
        let (rejected, appended, committed) =
            futures::join!(log.commit(&group, &wrong), log.append(vec![good]), log.commit(&group, &right),);
        assert!(rejected.is_err());
        assert_eq!(appended.unwrap()[0].offset, round);
        committed.unwrap();
    }
    assert_eq!(log.committed(&group).await.unwrap(), positions(&topic, [(0, 19)]));
}

pub async fn law_13_schemas_are_stored_by_id(cluster: &impl Cluster) {
    let log = cluster.open().await;
    let json = r#"{"type":"record","name":"New","namespace":"x.v1","version":7,"fields":[{"name":"a","type":"long"}]}"#;
    let id = log.put_schema("x.v1", json).await.unwrap();
    assert_eq!(log.put_schema("x.v1", json).await.unwrap(), id);
    assert!(log.put_schema("x.v1", "{not a schema").await.is_err());
    log.close().await;
    let log = cluster.open().await;
    let kept = log.schema(id).await.unwrap().unwrap();
    assert_eq!(Fingerprint::of(&parse(&kept).unwrap()), Fingerprint::of(&parse(json).unwrap()));
    assert!(kept.contains(r#""version":7"#), "fields outside the canonical form are stored: {kept}");
    for unknown in [SchemaId::Fingerprint(Fingerprint([1; 8])), SchemaId::Registry(u32::MAX)] {
        assert_eq!(log.schema(unknown).await.unwrap(), None);
    }
    // The log has the compiled-in schemas.
    for version in versions() {
        let id = log.put_schema(version.event, version.json).await.unwrap();
        let kept = log.schema(id).await.unwrap().unwrap();
        assert_eq!(parse(&kept).unwrap(), version.schema, "{}", version.event);
    }
}

pub async fn law_04_the_log_recognises_its_own_checkpoints(cluster: &impl Cluster) {
    let (log, topic) = with_topic(cluster, 2).await;
    log.append(vec![text(&topic, 0, "a"), keyed(&topic, "k", Some("b"))]).await.unwrap();
    let (before, ends) = (log.identity().to_owned(), log.ends(&topic).await.unwrap());
    assert!(!before.is_empty());
    assert_eq!(log.recognise(&before, &ends).await.unwrap(), None);
    assert_eq!(log.recognise(&before, &Positions::new()).await.unwrap(), None);
    log.close().await;
    let log = cluster.open().await;
    log.append(vec![text(&topic, 0, "c")]).await.unwrap();
    assert_eq!(log.recognise(&before, &ends).await.unwrap(), None);
    let now = log.ends(&topic).await.unwrap();
    assert_eq!(log.recognise(log.identity(), &now).await.unwrap(), None);
    let foreign = "6f1f6c9a-0000-7000-8000-000000000000";
    let expected = Foreign::UnknownOpening { checkpoint: foreign.into() };
    assert_eq!(log.recognise(foreign, &ends).await.unwrap(), Some(expected));
}
