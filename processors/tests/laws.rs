//! The laws of the design, with all processors on embedded stores. Test names carry the number of their law.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod rig;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use carbon_core::{Positions, derived_id};
use carbon_log::{EventLog as _, Group, LogError, NewRecord};
use carbon_schemas::Event as _;
use carbon_schemas::events::{DeletedReason, EmbeddingGenerated, EntityChanged};
use carbon_search::StoredRow;
use rig::{Rig, decode, entity, key, model, topic};

/// Creations, changes, deletions and re-creations of entities of 2 tenants.
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
async fn law_01_all_read_models_are_rebuilt_from_the_log() {
    let rig = Rig::new().await;
    rig.produce(&history()).await;
    rig.append(vec![rig::raw::<EntityChanged>("acme/instrument/BAD", Some(b"no avro".to_vec()))]).await;
    rig.settle().await;
    let derived = rig.derived().await;
    assert_eq!((derived.index.len(), derived.catalog.rows, derived.deadletters.rows), (30, 31, 1));
    rig.rebuild_equal_to(&derived).await.stop().await;
}

/// Rebuilds, and checks that the index is equal and that the encoder got no text.
async fn rebuild_without_encoder(rig: Rig, rows: &[StoredRow], encoded: usize) -> Rig {
    let rig = rig.rebuild().await;
    assert_eq!(rig.indexed().await, rows);
    assert_eq!(rig.encoder.texts.load(Ordering::SeqCst), encoded);
    rig
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn law_02_a_rebuild_calls_no_model_and_reads_no_other_topic() {
    let rig = Rig::new().await;
    rig.produce(&history()).await;
    rig.settle().await;
    let (rows, encoded) = (rig.indexed().await, rig.encoder.texts.load(Ordering::SeqCst));
    assert!(encoded > 0);
    // The embedding contains a snapshot of the entity.
    let snapshot = entity("acme", "E7", "natural gas contract 14 version 3");
    let row = rows.iter().find(|row| row.document.key == key("acme", "E7")).unwrap();
    assert_eq!((&row.document.text, &row.document.metadata), (&snapshot.text, &snapshot.metadata));
    assert_eq!(row.document.tags, snapshot.tags);
    let rig = rebuild_without_encoder(rig, &rows, encoded).await;
    // The topic of embeddings is enough: the records of the entities are deleted.
    let ends = rig.log.ends(&topic(EntityChanged::NAME)).await.unwrap();
    rig.log.delete_records(&ends).await.unwrap();
    rebuild_without_encoder(rig, &rows, encoded).await.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn law_05_each_input_has_one_output_in_input_order_in_the_same_partition() {
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
async fn law_05_a_stage_without_committed_offsets_resumes_after_its_outputs() {
    let rig = Rig::new().await;
    rig.produce(&history()).await;
    rig.settle().await;
    let outputs = rig.all(EmbeddingGenerated::NAME).await.len();
    // The committed offsets are deleted, as Kafka does for an idle group.
    let log = rig.folder.path().join("log.db");
    let (folder, encoder) = rig.stop().await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(log);
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    let deleted =
        sqlx::query("DELETE FROM group_offset WHERE grp LIKE 'carbon.embedder%'").execute(&pool).await.unwrap();
    assert_eq!(deleted.rows_affected(), 6);
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
    // The processors read all records before the compaction removes some. The rebuild reads only the remaining ones.
    rig.settle().await;
    rig.produce(&[entity("acme", "E5", ""), entity("zenith", "E5", "")]).await;
    rig.append(vec![
        rig::raw::<EntityChanged>("acme/instrument/E3", Some(b"no avro".to_vec())),
        rig::raw::<EntityChanged>("acme/instrument/E4", None),
    ])
    .await;
    rig.settle().await;
    let derived = rig.derived().await;
    let before = rig.all(EntityChanged::NAME).await.len();
    let report = rig.compact().await;
    assert!(report.superseded > 100, "{report:?}");
    let left = rig.all(EntityChanged::NAME).await.len();
    assert!(left < before / 2, "{left} of {before} records left");
    rig.rebuild_equal_to(&derived).await.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn law_11_event_ids_are_derived_from_the_processor_and_the_source_position() {
    let rig = Rig::new().await;
    let position = rig.produce(&[entity("acme", "E0", "text")]).await.remove(0);
    let bad = rig.append(vec![rig::raw::<EntityChanged>("acme/instrument/BAD", Some(vec![1, 2, 3]))]).await.remove(0);
    rig.settle().await;
    let group = Group::new("embedder", model());
    let output = rig.embedding_of("E0").await;
    assert_eq!(output.event_id, derived_id(&["embedder", group.as_str(), &position.to_string(), "0"]));
    // The catalog and the embedder both reported the bad record: 2 events with the same id, and 1 dead letter.
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
async fn law_13_a_newer_enum_symbol_halts_only_its_partition_and_names_the_needed_version() {
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
    // `licence_expired` follows `not_embeddable`. The byte is the symbol's index in zigzag encoding, so it grows by 2.
    let known =
        carbon_schemas::encode(&EmbeddingGenerated { reason: Some(DeletedReason::Quarantined), ..made.clone() });
    let at = body.iter().zip(&known.unwrap()).position(|(a, b)| a != b).unwrap();
    let mut newer_body = body.clone();
    newer_body[at] += 2;
    let value = carbon_schemas::frame(id, &newer_body);
    let position =
        rig.append(vec![rig::raw::<EmbeddingGenerated>(&made.key().unwrap().to_string(), Some(value))]).await.remove(0);
    let indexer = rig.view("indexer");
    let mut progress = indexer.progress.clone();
    let halted = tokio::time::timeout(rig::PATIENCE, progress.wait_for(|now| !now.halted.is_empty())).await;
    let needs = halted.unwrap().unwrap().halted[&position.topic_partition()].clone();
    assert!(needs.contains("version 2") && needs.contains("licence_expired"), "{needs}");
    // The other partitions continue, and the record did not count as a deletion.
    let other = (0..50).map(|n| entity("acme", &format!("O{n}"), "other"));
    rig.produce(&other.collect::<Vec<_>>()).await;
    let ends: Positions = rig.log.ends(&topic(EntityChanged::NAME)).await.unwrap();
    assert!(rig.view("embedder").reached(&ends, rig::PATIENCE).await);
    let ends = rig.log.ends(&topic(EmbeddingGenerated::NAME)).await.unwrap();
    let rest: Positions =
        ends.iter().filter(|(at, _)| **at != position.topic_partition()).map(|(at, e)| (at.clone(), e)).collect();
    assert!(indexer.reached(&rest, rig::PATIENCE).await);
    assert!(rig.indexed_ids().await.len() > 30);
    rig.stop().await;
}
