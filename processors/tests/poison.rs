//! Law 10: poison is a dead letter, quarantines its key, and does not stop its partition.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod rig;

use carbon_log::{NewRecord, Placement, Value};
use carbon_runtime::consume::Phase;
use carbon_schemas::events::{DeletedReason, EmbeddingGenerated, EntityChanged, vector_to_bytes};
use carbon_schemas::{Event as _, Fingerprint, SchemaId, encode, frame};
use rig::{Rig, decode, entity, raw};

/// The framed value of an entity's record.
fn framed(event: &EntityChanged) -> Vec<u8> {
    let NewRecord { value: Value::Body { schema, avro }, .. } = NewRecord::event(event).unwrap() else { panic!() };
    frame(SchemaId::Fingerprint(schema), &avro)
}

/// The framed value of an entity that exceeds a limit, which `encode` would reject.
fn over_limit(id: &str, text: &str) -> Vec<u8> {
    // Encoded without the checks of this crate, as a foreign producer does.
    let schema = &EntityChanged::schema().version.schema;
    let event = EntityChanged { deleted: false, ..entity("acme", id, text) };
    let writer = apache_avro::writer::datum::GenericDatumWriter::builder(schema).human_readable(false).build().unwrap();
    frame(SchemaId::Fingerprint(Fingerprint::of(schema)), &writer.write_ser_to_vec(&event).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn law_10_every_kind_of_poison_is_a_dead_letter_and_the_partition_continues() {
    let rig = Rig::new().await;
    let good = framed(&entity("acme", "GOOD", "good text"));
    let mut unknown = good.clone();
    unknown[3] ^= 0xff;
    let mut tenant = NewRecord::event(&entity("acme", "T1", "text")).unwrap();
    tenant.headers = vec![("tenant_id".into(), b"zenith".to_vec())];
    let mut misplaced = NewRecord::event(&entity("acme", "P1", "text")).unwrap();
    let home = rig::topology().topics[EntityChanged::NAME].spec.partitioner.partition(b"acme/instrument/P1", 6);
    misplaced.placement = Placement::Partition((home + 1) % 6);
    let mut keyless = NewRecord::event(&entity("acme", "K1", "text")).unwrap();
    keyless.key = None;
    let mut slash = NewRecord::event(&entity("acme", "K2", "text")).unwrap();
    slash.key = Some(b"acme/instrument/a/b".to_vec());
    let cases = vec![
        ("malformed", raw::<EntityChanged>("acme/instrument/M1", Some(b"no avro at all".to_vec()))),
        ("malformed", raw::<EntityChanged>("acme/instrument/M2", Some(good[..good.len() - 3].to_vec()))),
        ("unknown_schema", raw::<EntityChanged>("acme/instrument/GOOD", Some(unknown))),
        ("key_mismatch", raw::<EntityChanged>("acme/instrument/OTHER", Some(good.clone()))),
        ("field_limit", raw::<EntityChanged>("acme/instrument/L1", Some(over_limit("L1", " ")))),
        ("field_limit", raw::<EntityChanged>("acme/instrument/L2", Some(over_limit("L2", &"x".repeat(1_000_000))))),
        ("header_mismatch", tenant),
        ("wrong_partition", misplaced),
        ("unreadable_key", keyless),
        ("unreadable_key", slash),
    ];
    let (reasons, records): (Vec<_>, Vec<_>) = cases.into_iter().unzip();
    let positions = rig.append(records).await;
    rig.produce(&[entity("acme", "AFTER", "still flowing")]).await;
    rig.settle().await;
    let mut expected: Vec<(String, String)> =
        positions.iter().zip(&reasons).map(|(position, reason)| (position.to_string(), (*reason).to_owned())).collect();
    expected.sort();
    let letters = rig.letters().await;
    let found: Vec<_> = letters.iter().map(|(position, reason, _)| (position.clone(), reason.clone())).collect();
    assert_eq!(found, expected);
    let wrong = letters.iter().find(|(_, reason, _)| reason == "wrong_partition").unwrap();
    assert!(wrong.2.contains("partitioner=murmur2_random"), "{}", wrong.2);
    assert_eq!(rig.indexed_ids().await, ["acme/instrument/AFTER"]);
    // A readable key in its partition is quarantined. A misplaced or unreadable key has no row.
    assert_eq!(rig.state_of("acme", "M1").await.as_deref(), Some("quarantined"));
    assert_eq!(rig.state_of("acme", "P1").await, None);
    assert_eq!(rig.state_of("acme", "K1").await, None);
    // A rebuild after compaction gives the same rows and appends no dead letter.
    let derived = rig.derived().await;
    let reported = rig.all(carbon_schemas::events::DeadLetter::NAME).await.len();
    rig.compact().await;
    let rig = rig.rebuild_equal_to(&derived).await;
    assert_eq!(rig.all(carbon_schemas::events::DeadLetter::NAME).await.len(), reported);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn law_10_a_quarantined_entity_is_not_indexed_until_its_next_good_version() {
    let rig = Rig::new().await;
    rig.produce(&[entity("acme", "E1", "first version")]).await;
    rig.settle().await;
    assert_eq!(rig.indexed_ids().await, ["acme/instrument/E1"]);
    rig.append(vec![raw::<EntityChanged>("acme/instrument/E1", Some(b"poison".to_vec()))]).await;
    rig.settle().await;
    assert!(rig.indexed_ids().await.is_empty());
    let row = carbon_store::query("SELECT state, text FROM search_items WHERE entity_id = 'E1'")
        .fetch_one(rig.catalog.readers())
        .await
        .unwrap();
    assert_eq!(row.canonical().unwrap(), r#"["quarantined",""]"#);
    let last: EmbeddingGenerated = decode(rig.all(EmbeddingGenerated::NAME).await.last().unwrap());
    assert_eq!((last.deleted, last.reason), (true, Some(DeletedReason::Quarantined)));
    rig.produce(&[entity("acme", "E1", "second version")]).await;
    rig.settle().await;
    assert_eq!(rig.indexed_ids().await, ["acme/instrument/E1"]);
    assert_eq!(rig.state_of("acme", "E1").await.as_deref(), Some("live"));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn law_10_a_text_that_the_encoder_rejects_is_not_embeddable() {
    let rig = Rig::new().await;
    rig.produce(&[
        entity("acme", "E1", "good"),
        entity("acme", "E2", "this is not embeddable"),
        entity("acme", "E3", "fine"),
    ])
    .await;
    rig.settle().await;
    assert_eq!(rig.indexed_ids().await, ["acme/instrument/E1", "acme/instrument/E3"]);
    let reasons: Vec<_> = rig
        .all(EmbeddingGenerated::NAME)
        .await
        .iter()
        .map(decode::<EmbeddingGenerated>)
        .filter_map(|event| event.reason.map(|reason| (event.entity_id, reason)))
        .collect();
    assert_eq!(reasons, [("E2".to_owned(), DeletedReason::NotEmbeddable)]);
    // The encoder rejected the text, but the record is not poison: the catalog contains the entity.
    assert_eq!(rig.state_of("acme", "E2").await.as_deref(), Some("live"));
    assert!(rig.letters().await.is_empty());
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn law_10_a_vector_of_the_wrong_dimension_is_a_dead_letter() {
    let rig = Rig::new().await;
    rig.produce(&[entity("acme", "E1", "text"), entity("acme", "E2", "text")]).await;
    rig.settle().await;
    let good = rig.embedding_of("E1").await;
    let short = EmbeddingGenerated { dimension: 3, vector: Some(vector_to_bytes(&[1.0, 0.0, 0.0])), ..good };
    let at = rig.append(vec![NewRecord::event(&short).unwrap()]).await.remove(0);
    rig.settle().await;
    let letters = rig.letters().await;
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].0.as_str(), letters[0].1.as_str()), (at.to_string().as_str(), "wrong_dimension"));
    assert_eq!(rig.indexed_ids().await, ["acme/instrument/E2"]);
    // A vector whose bytes disagree with its own dimension is rejected before it is appended.
    let inconsistent = EmbeddingGenerated { dimension: 4, ..short };
    assert!(encode(&inconsistent).is_err());
    rig.produce(&[entity("acme", "E1", "a new text")]).await;
    rig.settle().await;
    assert_eq!(rig.indexed_ids().await.len(), 2);
    rig.stop().await;
}

/// A bad deployment must not append deletions for texts that the encoder cannot encode.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn law_10_an_encoder_that_fails_stops_the_embedder_and_deletes_nothing() {
    let rig = Rig::new().await;
    rig.encoder.failing.store(true, std::sync::atomic::Ordering::SeqCst);
    rig.produce(&[entity("acme", "A", "text"), entity("acme", "B", "not embeddable")]).await;
    let mut progress = rig.view("embedder").progress;
    let failing = progress.wait_for(|now| matches!(now.phase, Phase::Retrying { .. } | Phase::Halted { .. }));
    tokio::time::timeout(rig::PATIENCE, failing).await.unwrap().unwrap();
    let halted = progress.wait_for(|now| matches!(now.phase, Phase::Halted { .. }));
    tokio::time::timeout(rig::PATIENCE, halted).await.unwrap().unwrap();
    assert_eq!(
        rig.all("ml.embedding.generated.v1").await,
        [],
        "the embedder must not append an output for a text that the encoder failed to encode"
    );
    // After a restart with good weights, the good text is indexed. The text that the encoder rejects is a deletion.
    rig.encoder.failing.store(false, std::sync::atomic::Ordering::SeqCst);
    let rig = rig.restart().await;
    rig.settle().await;
    assert_eq!(rig.indexed_ids().await, ["acme/instrument/A"]);
    let outputs = rig.all("ml.embedding.generated.v1").await;
    let reasons: Vec<_> = outputs.iter().map(|record| decode::<EmbeddingGenerated>(record).reason).collect();
    assert_eq!(reasons.iter().filter(|reason| **reason == Some(DeletedReason::NotEmbeddable)).count(), 1);
    assert_eq!(outputs.len(), 2);
    rig.stop().await;
}
