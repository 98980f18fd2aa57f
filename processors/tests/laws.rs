//! The laws of the design on the embedded parts, with all processors running.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod rig;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use carbon_core::{Positions, derived_id};
use carbon_log::{EventLog as _, Group, LogError, NewRecord};
use carbon_schemas::Event as _;
use carbon_schemas::events::{DeletedReason, EmbeddingGenerated, EntityChanged};
use rig::{Rig, decode, entity, key, model, topic};

/// Creates, changes, deletes and re-creates, for two tenants.
fn history() -> Vec<EntityChanged> {
    let mut events = Vec::new();
    for round in 0..4 {
        for n in 0..30 {
            let (tenant, id) = (if n % 2 == 0 { "acme" } else { "zenith" }, format!("E{}", n / 2));
            let text = match (round, n % 5) {
                (2, 0) => String::new(),
                _ => format!("natural gas contract {n} version {round}"),
            };
            events.push(entity(tenant, &id, &text));
        }
    }
    events
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn law_01_everything_derived_comes_back_from_the_log() {
    let rig = Rig::new().await;
    rig.produce(&history()).await;
    rig.append(vec![rig::raw::<EntityChanged>("acme/instrument/BAD", Some(b"no avro".to_vec()))]).await;
    rig.settle().await;
    let (rows, digests) = (rig.indexed().await, rig.digests().await);
    assert_eq!((rows.len(), digests.0.rows, digests.1.rows), (30, 31, 1));
    let rig = rig.rebuild().await;
    rig.settle().await;
    assert_eq!(rig.indexed().await, rows);
    assert_eq!(rig.digests().await, digests);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn law_02_a_rebuild_calls_no_model_and_reads_no_other_topic() {
    let rig = Rig::new().await;
    rig.produce(&history()).await;
    rig.settle().await;
    let (rows, encoded) = (rig.indexed().await, rig.encoder.texts.load(Ordering::SeqCst));
    assert!(encoded > 0);
    // The vector travels with the entity's snapshot.
    let snapshot = entity("acme", "E7", "natural gas contract 14 version 3");
    let row = rows.iter().find(|row| row.document.key == key("acme", "E7")).unwrap();
    assert_eq!((&row.document.text, &row.document.metadata), (&snapshot.text, &snapshot.metadata));
    assert_eq!(row.document.tags, snapshot.tags);
    let rig = rig.rebuild().await;
    rig.settle().await;
    assert_eq!(rig.indexed().await, rows);
    assert_eq!(rig.encoder.texts.load(Ordering::SeqCst), encoded);
    // The entities themselves are gone: the embeddings' topic alone must be enough.
    let ends = rig.log.ends(&topic(EntityChanged::NAME)).await.unwrap();
    rig.log.delete_records(&ends).await.unwrap();
    let rig = rig.rebuild().await;
    rig.settle().await;
    assert_eq!(rig.indexed().await, rows);
    assert_eq!(rig.encoder.texts.load(Ordering::SeqCst), encoded);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn law_05_each_input_has_one_output_in_order_in_its_partition() {
    let rig = Rig::new().await;
    let inputs = rig.produce(&history()).await;
    rig.append(vec![
        rig::raw::<EntityChanged>("acme/instrument/BAD", Some(b"no avro".to_vec())),
        rig::raw::<EntityChanged>("acme/instrument/E0", None),
    ])
    .await;
    rig.settle().await;
    let rig = rig.restart().await;
    rig.settle().await;
    let outputs = rig.all(EmbeddingGenerated::NAME).await;
    assert_eq!(outputs.len(), inputs.len() + 2);
    let mut last = BTreeMap::new();
    for output in &outputs {
        let header = output.headers.iter().find(|(name, _)| name == "source_position").unwrap();
        let source: carbon_core::Position = std::str::from_utf8(&header.1).unwrap().parse().unwrap();
        assert_eq!(source.partition, output.position.partition);
        let before = last.insert(source.partition, source.offset);
        assert!(before.is_none_or(|before| before + 1 == source.offset), "{before:?} then {source}");
        if output.value.is_some() {
            let event: EmbeddingGenerated = decode(output);
            assert_eq!(event.source.position().unwrap(), source);
        }
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn law_05_a_stage_without_offsets_resumes_after_its_outputs() {
    let rig = Rig::new().await;
    rig.produce(&history()).await;
    rig.settle().await;
    let outputs = rig.all(EmbeddingGenerated::NAME).await.len();
    // The group's offsets are forgotten, as Kafka does with an idle group's.
    let log = rig.folder.path().join("log.db");
    let (folder, encoder) = rig.stop().await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(log);
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    let forgotten =
        sqlx::query("DELETE FROM group_offset WHERE grp LIKE 'carbon.embedder%'").execute(&pool).await.unwrap();
    assert_eq!(forgotten.rows_affected(), 6);
    pool.close().await;
    let rig = Rig::open(folder, encoder).await;
    rig.settle().await;
    assert_eq!(rig.all(EmbeddingGenerated::NAME).await.len(), outputs);
    rig.produce(&[entity("acme", "E0", "one more")]).await;
    rig.settle().await;
    assert_eq!(rig.all(EmbeddingGenerated::NAME).await.len(), outputs + 1);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn law_05_a_zombie_stage_is_fenced() {
    let rig = Rig::new().await;
    let position = rig.produce(&[entity("acme", "E0", "text")]).await.remove(0);
    rig.settle().await;
    let group = Group::new("embedder", model());
    let mut upto = Positions::new();
    upto.advance_past(&position);
    let from: Positions = [(position.topic_partition(), position.offset)].into_iter().collect();
    let before = rig.all(EmbeddingGenerated::NAME).await.len();
    let record = NewRecord::null::<EmbeddingGenerated>(&carbon_schemas::events::EmbeddingKey {
        entity: key("acme", "E0"),
        model: model(),
    });
    let zombie = rig.log.append_and_advance(&group, vec![record.unwrap()], &from, &upto).await;
    assert!(matches!(zombie, Err(LogError::Fenced { .. })), "{zombie:?}");
    assert_eq!(rig.all(EmbeddingGenerated::NAME).await.len(), before);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn law_06_compaction_never_changes_a_rebuild() {
    let rig = Rig::new().await;
    rig.produce(&history()).await;
    // Seen before they go: what is left of them must not depend on it.
    rig.settle().await;
    rig.produce(&[entity("acme", "E5", ""), entity("zenith", "E5", "")]).await;
    rig.append(vec![
        rig::raw::<EntityChanged>("acme/instrument/E3", Some(b"no avro".to_vec())),
        rig::raw::<EntityChanged>("acme/instrument/E4", None),
    ])
    .await;
    rig.settle().await;
    let (rows, digests) = (rig.indexed().await, rig.digests().await);
    let before = rig.all(EntityChanged::NAME).await.len();
    // Without a lag everything superseded goes at once.
    let mut specs = rig::topology().specs();
    specs.iter_mut().for_each(|spec| spec.retention.min_compaction_lag_ms = -1000);
    rig.log.ensure_topics(&specs).await.unwrap();
    let report = rig.log.compact().await.unwrap();
    assert!(report.superseded > 100, "{report:?}");
    let left = rig.all(EntityChanged::NAME).await.len();
    assert!(left < before / 2, "{left} of {before} records left");
    let rig = rig.rebuild().await;
    rig.settle().await;
    assert_eq!(rig.indexed().await, rows);
    assert_eq!(rig.digests().await, digests);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn law_11_event_ids_are_derived_from_what_made_them() {
    let rig = Rig::new().await;
    let position = rig.produce(&[entity("acme", "E0", "text")]).await.remove(0);
    let bad = rig.append(vec![rig::raw::<EntityChanged>("acme/instrument/BAD", Some(vec![1, 2, 3]))]).await.remove(0);
    rig.settle().await;
    let group = Group::new("embedder", model());
    let outputs = rig.all(EmbeddingGenerated::NAME).await;
    let output: EmbeddingGenerated =
        outputs.iter().map(decode::<EmbeddingGenerated>).find(|event| event.entity_id == "E0").unwrap();
    assert_eq!(output.event_id, derived_id(&["embedder", group.as_str(), &position.to_string(), "0"]));
    // The catalog and the embedder both met the bad record: one letter, one id.
    let letters = rig.all(carbon_schemas::events::DeadLetter::NAME).await;
    assert_eq!(letters.len(), 2);
    for letter in &letters {
        let letter: carbon_schemas::events::DeadLetter = decode(letter);
        assert_eq!(letter.event_id, derived_id(&[&bad.to_string(), "malformed"]));
    }
    assert_eq!(rig.letters().await.len(), 1);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn law_13_a_newer_kind_halts_its_partition_alone_and_says_what_it_needs() {
    let rig = Rig::new().await;
    let newer =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../schemas/ml.embedding.generated.v1/001.avsc"));
    let newer = newer.unwrap().replace("\"not_embeddable\"]", "\"not_embeddable\", \"licence_expired\"]");
    let newer = newer.replace("\"version\": 1", "\"version\": 2");
    let id = rig.log.put_schema(EmbeddingGenerated::NAME, &newer).await.unwrap();
    rig.produce(&[entity("acme", "E0", "text"), entity("acme", "E1", "text")]).await;
    rig.settle().await;
    let mut made: EmbeddingGenerated = decode(&rig.all(EmbeddingGenerated::NAME).await[0]);
    made.deleted = true;
    made.reason = Some(DeletedReason::NotEmbeddable);
    (made.text, made.vector, made.dimension) = (String::new(), None, 0);
    (made.metadata, made.tags) = (BTreeMap::new(), Vec::new());
    let body = carbon_schemas::encode(&made).unwrap();
    // `licence_expired` is the symbol after `not_embeddable`; the byte is its index, zigzag.
    let known =
        carbon_schemas::encode(&EmbeddingGenerated { reason: Some(DeletedReason::Quarantined), ..made.clone() });
    let at = body.iter().zip(&known.unwrap()).position(|(a, b)| a != b).unwrap();
    let mut newer_body = body.clone();
    newer_body[at] += 2;
    let value = carbon_schemas::frame(id, &newer_body);
    let position =
        rig.append(vec![rig::raw::<EmbeddingGenerated>(&made.key().unwrap().to_string(), Some(value))]).await.remove(0);
    let indexer = rig.handles.iter().map(|handle| handle.view()).find(|view| view.name == "indexer").unwrap();
    let mut progress = indexer.progress.clone();
    let halted = tokio::time::timeout(rig::PATIENCE, progress.wait_for(|now| !now.halted.is_empty())).await;
    let needs = halted.unwrap().unwrap().halted[&position.topic_partition()].clone();
    assert!(needs.contains("version 2") && needs.contains("licence_expired"), "{needs}");
    // The other partitions go on, and nothing was taken for a deletion.
    let other = (0..50).map(|n| entity("acme", &format!("O{n}"), "other"));
    rig.produce(&other.collect::<Vec<_>>()).await;
    let ends: Positions = rig.log.ends(&topic(EntityChanged::NAME)).await.unwrap();
    let embedder = rig.handles.iter().map(|handle| handle.view()).find(|view| view.name == "embedder").unwrap();
    assert!(embedder.reached(&ends, rig::PATIENCE).await);
    let ends = rig.log.ends(&topic(EmbeddingGenerated::NAME)).await.unwrap();
    let rest: Positions =
        ends.iter().filter(|(at, _)| **at != position.topic_partition()).map(|(at, e)| (at.clone(), e)).collect();
    assert!(indexer.reached(&rest, rig::PATIENCE).await);
    assert!(rig.indexed_ids().await.len() > 30);
    rig.stop().await;
}
