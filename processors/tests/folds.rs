//! Laws 3 and 4: folds are deterministic, and a sink owns its position. Law 1 for a damaged file.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod rig;

use carbon_core::{Position, Positions, TenantScope, TopicPartition};
use carbon_log::{DataFolder, EmbeddedLog, EventLog as _};
use carbon_processors::ProjectionSink;
use carbon_read_models::catalog::{Catalog, ItemState};
use carbon_read_models::{Digest, Projection, catalog, digest};
use carbon_runtime::consume::{Sink as _, SinkError};
use carbon_schemas::events::EntityChanged;
use carbon_schemas::{Decoded, Event as _, Poison, PoisonReason, Recorded};
use proptest::prelude::*;
use rig::{Rig, entity, key, topic};

/// A record of entity `id`, in partition `id % 3`. `kind` 0 is a deletion, 1 a null value, 2 poison, and others a text.
fn recorded(id: u8, offset: u64, kind: u8) -> Recorded<EntityChanged> {
    let key = key("acme", &format!("E{id}"));
    let text = if kind == 0 { String::new() } else { format!("text {kind}") };
    let body = match kind {
        1 => Decoded::Null { key: key.clone() },
        2 => {
            let poison = Poison { reason: PoisonReason::Malformed, message: "bad".into() };
            Decoded::Quarantined { key: key.clone(), poison }
        }
        _ => Decoded::Event {
            key: key.clone(),
            event: EntityChanged { event_id: uuid::Uuid::nil(), ..entity("acme", &format!("E{id}"), &text) },
        },
    };
    let position = Position::new(topic(EntityChanged::NAME), u32::from(id % 3), offset);
    Recorded { position, timestamp: carbon_core::Timestamp(offset as i64), traceparent: None, body }
}

/// Folds batches into an empty catalog and returns its digest.
async fn fold(batches: &[Vec<Recorded<EntityChanged>>]) -> Digest {
    let folder = tempfile::tempdir().unwrap();
    let sink = rig::open(Catalog, folder.path().to_owned()).await;
    let mut from = Positions::new();
    for batch in batches {
        let mut upto = Positions::new();
        batch.iter().for_each(|record| upto.advance_past(&record.position));
        let here: Positions = upto.iter().map(|(at, _)| (at.clone(), from.next(at))).collect();
        sink.apply("log", batch, &here, &upto).await.unwrap();
        from.merge(&upto);
    }
    digest::<Catalog>(sink.namespace()).await.unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]
    /// Every interleaving of the partitions, in batches of every size, folds to the same rows.
    #[test]
    fn law_03_every_interleaving_and_batching_folds_to_the_same_rows(
        history in prop::collection::vec((0u8..9, 0u8..6), 1..60),
        picks in prop::collection::vec((0usize..3, 1usize..9), 1..200),
    ) {
        let mut partitions: Vec<Vec<Recorded<EntityChanged>>> = vec![Vec::new(); 3];
        for (id, what) in &history {
            let partition = &mut partitions[usize::from(*id % 3)];
            let offset = partition.len() as u64;
            partition.push(recorded(*id, offset, *what));
        }
        let one_by_one: Vec<_> = partitions.iter().map(|records| records.to_vec()).filter(|b| !b.is_empty()).collect();
        let mut queues: Vec<std::collections::VecDeque<_>> =
            partitions.iter().map(|records| records.iter().cloned().collect()).collect();
        let mut mixed = vec![Vec::new()];
        for (partition, size) in picks.iter().cycle() {
            if queues.iter().all(std::collections::VecDeque::is_empty) {
                break;
            }
            if let Some(record) = queues[*partition].pop_front() {
                mixed.last_mut().unwrap().push(record);
            } else if let Some(record) = queues.iter_mut().find_map(std::collections::VecDeque::pop_front) {
                mixed.last_mut().unwrap().push(record);
            }
            if mixed.last().unwrap().len() >= *size {
                mixed.push(Vec::new());
            }
        }
        mixed.retain(|batch| !batch.is_empty());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (a, b) = runtime.block_on(async { (fold(&one_by_one).await, fold(&mixed).await) });
        prop_assert_eq!(a, b);
    }
}

#[tokio::test]
async fn law_04_a_row_is_fenced_by_its_source_position() {
    let folder = tempfile::tempdir().unwrap();
    let sink = rig::open(Catalog, folder.path().to_owned()).await;
    let scope = TenantScope::authorised(key("acme", "E1").tenant);
    let key = key("acme", "E1");
    // A record at a lower offset changes nothing, one at the same offset re-applies, one at a higher offset replaces.
    for (offset, kind, text) in [(5, 5, "text 5"), (3, 3, "text 5"), (5, 4, "text 4"), (6, 3, "text 3")] {
        let tables = sink.namespace().begin().await.unwrap();
        let folded = Catalog.apply(tables, &[recorded(1, offset, kind)]).await.unwrap();
        folded.commit().await.unwrap();
        let item = catalog::get(sink.namespace(), &scope, &key.entity_type, &key.entity_id).await.unwrap().unwrap();
        assert_eq!((item.text.as_str(), item.state), (text, ItemState::Live), "offset {offset}");
    }
}

#[tokio::test]
async fn law_04_a_zombies_batch_aborts_whole() {
    let folder = tempfile::tempdir().unwrap();
    let first = rig::open(Catalog, folder.path().to_owned()).await;
    let zombie = rig::open(Catalog, folder.path().to_owned()).await;
    let at = TopicPartition::new(topic(EntityChanged::NAME), 1);
    let to = |next| -> Positions { [(at.clone(), next)].into_iter().collect() };
    first.apply("log", &[recorded(1, 0, 3)], &to(0), &to(1)).await.unwrap();
    let late = zombie.apply("log", &[recorded(1, 0, 4), recorded(4, 1, 4)], &to(0), &to(2)).await;
    assert!(matches!(late, Err(SinkError::Moved { ref actual }) if *actual == to(1)), "{late:?}");
    let rows: i64 =
        carbon_store::query("SELECT count(*) FROM search_items").scalar_one(first.namespace().readers()).await.unwrap();
    assert_eq!(rows, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn law_04_two_processors_on_one_read_model_fold_each_record_once() {
    let mut rig = Rig::new().await;
    // As a second process would, the second processor has a group and a position of its own.
    let twin = rig::open(Catalog, rig.read_models().join("catalog-v1-1")).await;
    let options = rig::options("catalog", "twin", rig.log.clone(), &rig.shutdown);
    rig.handles.push(carbon_runtime::consume::spawn_sink(twin, options));
    for round in 0..20 {
        let batch: Vec<_> = (0..50).map(|n| entity("acme", &format!("E{n}"), &format!("text {round}"))).collect();
        rig.produce(&batch).await;
    }
    rig.settle().await;
    let digest_of_both = rig.catalog_digest().await;
    let rig = rig.rebuild().await;
    assert_eq!(rig.catalog_digest().await, digest_of_both);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn law_04_read_models_are_rebuilt_after_the_log_is_restored_from_a_backup() {
    let rig = Rig::new().await;
    rig.produce(&[entity("acme", "KEPT", "text"), entity("acme", "CHANGED", "before")]).await;
    rig.settle().await;
    let log = rig.folder.path().join("log.db");
    let (folder, encoder) = rig.stop().await;
    let backup = std::fs::read(&log).unwrap();
    let rig = Rig::open(folder, encoder).await;
    let later: Vec<_> = (0..20).map(|n| entity("acme", &format!("LOST{n}"), "text")).collect();
    rig.produce(&later).await;
    rig.produce(&[entity("acme", "CHANGED", "after")]).await;
    rig.settle().await;
    assert_eq!(rig.indexed_ids().await.len(), 22);
    let (folder, encoder) = rig.stop().await;
    assert!(!log.with_extension("db-wal").exists());
    std::fs::write(&log, backup).unwrap();
    let rig = Rig::open(folder, encoder).await;
    rig.settle().await;
    assert_eq!(rig.indexed_ids().await, ["acme/instrument/CHANGED", "acme/instrument/KEPT"]);
    assert_eq!(rig.catalog_digest().await.rows, 2);
    for name in ["catalog", "indexer"] {
        let rebuilt = rig.view(name).progress.borrow().rebuilt.clone();
        assert!(
            rebuilt.is_some_and(|why| why.contains("is not an identity of this log")),
            "{name} does not report its rebuild"
        );
    }
    // New records at offsets that the backup lacked are folded.
    rig.produce(&[entity("acme", "NEW", "text")]).await;
    rig.settle().await;
    assert!(rig.indexed_ids().await.contains(&"acme/instrument/NEW".to_owned()));
    rig.stop().await;
}

#[tokio::test]
async fn law_04_a_checkpoint_of_another_log_is_recognised() {
    let folder = tempfile::tempdir().unwrap();
    let data = DataFolder::open(folder.path()).unwrap();
    let log = EmbeddedLog::open(&data).await.unwrap();
    assert!(log.recognise("00000000-0000-0000-0000-000000000000", &Positions::new()).await.unwrap().is_some());
    assert!(log.recognise(log.identity(), &Positions::new()).await.unwrap().is_none());
    log.close().await;
}

#[tokio::test]
async fn law_01_a_damaged_read_model_file_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog-v1-1");
    std::fs::create_dir_all(&path).unwrap();
    std::fs::write(path.join("rows.db"), "this is no database".repeat(500)).unwrap();
    let sink = ProjectionSink::open(Catalog, path).await.unwrap();
    assert!(sink.checkpoint().await.unwrap().positions.is_empty());
}
