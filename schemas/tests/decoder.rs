//! The decoder's results: good records, poison with its reason (law 10), and whether poison is quarantined or rejected.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use carbon_core::{MetadataValue, Partitioner};
use carbon_schemas::PoisonReason::{
    FieldLimit, HeaderMismatch, KeyMismatch, Malformed, UnknownKind, UnreadableKey, WrongPartition,
};
use carbon_schemas::events::{
    DeadLetter, DeadLetterKind, DeletedReason, EmbeddingGenerated, EntityChanged, IndexUpdated, vector_to_bytes,
};
use carbon_schemas::{Decoded, Decoder, Event, Limits, SchemaId, encode, frame};
use proptest::prelude::*;
use support::{PARTITIONS, Sent, UNKNOWN_SCHEMA_ID, body, dead_letter, decoder, embedding, entity, metadata, own_id};

#[test]
fn good_records_decode_with_and_without_headers() {
    assert_eq!(Sent::of(&entity()).accepted::<EntityChanged>(), entity());
    assert_eq!(Sent::of(&embedding()).without_headers().accepted::<EmbeddingGenerated>(), embedding());
    assert_eq!(Sent::of(&dead_letter()).accepted::<DeadLetter>(), dead_letter());
    // The decoder ignores other headers.
    assert_eq!(Sent::of(&entity()).header("x", b"\xff").accepted::<EntityChanged>(), entity());
    let decoded = Sent::of(&entity()).decode::<EntityChanged>().unwrap();
    assert_eq!(decoded.scope().unwrap().tenant().as_str(), "acme");
    assert_eq!(Sent::of(&dead_letter()).decode::<DeadLetter>().unwrap().scope(), None);
}

#[test]
fn law_10_a_null_value_is_not_poison_but_its_key_is_checked() {
    let null = Sent { value: None, ..Sent::of(&entity()) };
    assert_eq!(null.decode::<EntityChanged>().unwrap(), Decoded::Null { key: entity().key().unwrap() });
    assert_eq!(Sent { key: None, ..null.clone() }.rejected::<EntityChanged>().reason, UnreadableKey);
    let misplaced = Sent { partition: (null.partition + 1) % PARTITIONS, ..null };
    assert_eq!(misplaced.rejected::<EntityChanged>().reason, WrongPartition);
}

#[test]
fn law_10_malformed_values_are_quarantined() {
    let good = Sent::of(&entity());
    let framed = good.value.clone().unwrap();
    let mut values: Vec<(&str, Vec<u8>)> = vec![
        ("empty", vec![]),
        ("another frame", b"{\"text\": 1}".to_vec()),
        ("half a frame", framed[..9].to_vec()),
        ("half a registry frame", vec![0, 0, 0, 1]),
        ("a wrong second byte", [&[0xC3, 0x02], &framed[2..]].concat()),
        ("no body", framed[..10].to_vec()),
        ("a trailing byte", [framed.as_slice(), &[0]].concat()),
        ("noise", [&framed[..10], &[0x9d; 64]].concat()),
    ];
    for cut in 11..framed.len() {
        values.push(("truncated", framed[..cut].to_vec()));
    }
    let bad_utf8 = body(&entity()).iter().map(|byte| if *byte == b'H' { 0xff } else { *byte }).collect::<Vec<_>>();
    values.push(("text that is not UTF-8", frame(own_id::<EntityChanged>(), &bad_utf8)));
    for (what, value) in values {
        let poison = Sent { value: Some(value), ..good.clone() }.quarantined::<EntityChanged>();
        assert_eq!(poison.reason, Malformed, "{what}: {}", poison.message);
    }
    let poison = Sent { value: Some(b"{}".to_vec()), ..good }.quarantined::<EntityChanged>();
    assert!(poison.message.contains("0x7b"), "{}", poison.message);
}

/// Encodes a number as Avro's `long`.
fn long(number: i64) -> Vec<u8> {
    let (mut rest, mut bytes) = (((number << 1) ^ (number >> 63)) as u64, Vec::new());
    while rest >= 0x80 {
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
    bytes
}

#[test]
fn law_10_hostile_lengths_are_malformed_and_are_not_allocated() {
    let key = entity().key().unwrap();
    let event = EntityChanged { metadata: Default::default(), tags: vec![], ..entity() };
    let whole = body(&event);
    // The body ends with an empty map, an empty array and `deleted`: 1 byte each.
    let before_map = &whole[..whole.len() - 3];
    for size in [1 << 60, 1 << 40, 1 << 30, 32 << 20, i64::MAX, i64::MIN, -1] {
        let text = long(size);
        let map = [before_map, &long(size)].concat();
        let array = [before_map, &[0], &long(size)].concat();
        let nested = [before_map, &long(1), &long(size)].concat();
        for (what, body) in [("text", text), ("map", map), ("array", array), ("key of a map", nested)] {
            let poison = Sent::with_body::<EntityChanged>(&key, &body).quarantined::<EntityChanged>();
            assert_eq!(poison.reason, Malformed, "{what} {size}: {}", poison.message);
            // A length above twice the record limit fails before the allocation.
            if what == "text" && size >= 32 << 20 {
                assert!(poison.message.contains("16777216"), "{what} {size}: {}", poison.message);
            }
        }
    }
    // A varint that never ends.
    let poison = Sent::with_body::<EntityChanged>(&key, &[0xff; 32]).quarantined::<EntityChanged>();
    assert_eq!(poison.reason, Malformed, "{}", poison.message);
}

#[test]
fn law_13_unknown_as_written_is_poison_and_is_never_encoded() {
    let letter = DeadLetter { kind: DeadLetterKind::Unknown, ..dead_letter() };
    assert_eq!(Sent::of(&letter).quarantined::<DeadLetter>().reason, UnknownKind);
    assert!(encode(&letter).is_err());
    let gone = EmbeddingGenerated {
        reason: Some(DeletedReason::Unknown),
        deleted: true,
        text: String::new(),
        dimension: 0,
        vector: None,
        ..embedding()
    };
    assert_eq!(Sent::of(&gone).quarantined::<EmbeddingGenerated>().reason, UnknownKind);
    assert!(encode(&gone).is_err());
    let known = EmbeddingGenerated { reason: Some(DeletedReason::Requested), ..gone };
    assert_eq!(Sent::of(&known).accepted::<EmbeddingGenerated>(), known);
}

#[test]
fn law_10_a_wrong_partition_is_rejected_and_names_the_setting() {
    let good = Sent::of(&entity());
    for partition in (0..PARTITIONS).filter(|partition| *partition != good.partition) {
        let poison = Sent { partition, ..good.clone() }.rejected::<EntityChanged>();
        assert_eq!(poison.reason, WrongPartition);
        assert!(poison.message.contains("partitioner=murmur2_random"), "{}", poison.message);
        assert!(poison.message.contains(&format!("partition {} of 6, not {partition}", good.partition)));
    }
    // For a topic with `crc32`, the message names librdkafka's default partitioner.
    let mut crc = Decoder::<EntityChanged>::new(PARTITIONS, Partitioner::Crc32);
    let key = entity().key().unwrap().to_string();
    let well_placed = Sent { partition: Partitioner::Crc32.partition(key.as_bytes(), PARTITIONS), ..good.clone() };
    assert!(matches!(well_placed.decode_by(&mut crc).unwrap(), Decoded::Event { .. }));
    let misplaced = Sent { partition: (well_placed.partition + 1) % PARTITIONS, ..good };
    let decoded = misplaced.decode_by(&mut crc).unwrap();
    assert!(decoded.poison().unwrap().message.contains("partitioner=consistent_random"), "{decoded:?}");
    // An embedding of any model is in the partition number of its entity.
    assert_eq!(Sent::of(&embedding()).partition, Sent::of(&entity()).partition);
}

#[test]
fn law_10_an_unreadable_key_is_rejected() {
    let long = format!("acme/instrument/{}", "x".repeat(256));
    let keys: [Option<&[u8]>; 10] = [
        None,
        Some(b""),
        Some(b"acme/instrument/\xff"),
        Some(b"acme/instrument"),
        Some(b"acme/instrument/a/b"),
        Some(b"acme/instrument/"),
        Some(b"/instrument/a"),
        Some(b"acme/instrument/a b"),
        Some(b"ac.me/instrument/a"),
        Some(long.as_bytes()),
    ];
    // The decoder reads the key before it checks the partition.
    for key in keys {
        let poison = Sent { key: key.map(<[u8]>::to_vec), ..Sent::of(&entity()) }.rejected::<EntityChanged>();
        assert_eq!(poison.reason, UnreadableKey, "{key:?}");
    }
    for key in
        ["acme/instrument/a", "acme/instrument/a/m@1", "acme/instrument/a/m@1@f64", "acme/instrument/a/b/m@1@f32"]
    {
        let sent = Sent { key: Some(key.into()), ..Sent::of(&embedding()) };
        assert_eq!(sent.rejected::<EmbeddingGenerated>().reason, UnreadableKey, "{key}");
    }
    for key in ["t/1", "t/1/x", "t/-1/2", "t:1:2", "t/01/2", "t/1/+2", " t/1/2", "t/1/2/3"] {
        let sent = Sent { key: Some(key.into()), ..Sent::of(&dead_letter()) };
        assert_eq!(sent.rejected::<DeadLetter>().reason, UnreadableKey, "{key}");
    }
}

#[test]
fn law_10_a_key_that_disagrees_with_the_payload_is_quarantined() {
    let other = |event: EntityChanged| Sent::with_body::<EntityChanged>(&entity().key().unwrap(), &body(&event));
    for event in [
        EntityChanged { tenant_id: carbon_core::TenantId::parse("other").unwrap(), ..entity() },
        EntityChanged { entity_type: "curve".into(), ..entity() },
        EntityChanged { entity_id: "NG".into(), ..entity() },
        EntityChanged { entity_id: "a/b".into(), ..entity() },
        EntityChanged { entity_type: String::new(), ..entity() },
    ] {
        let poison = other(event).quarantined::<EntityChanged>();
        assert_eq!(poison.reason, KeyMismatch, "{}", poison.message);
    }
    let event = EmbeddingGenerated { model: "m@2@f32".into(), ..embedding() };
    let sent = Sent::with_body::<EmbeddingGenerated>(&embedding().key().unwrap(), &body(&event));
    let poison = sent.quarantined::<EmbeddingGenerated>();
    assert_eq!(poison.reason, KeyMismatch);
    assert!(poison.message.contains("m@1@f32") && poison.message.contains("m@2@f32"), "{}", poison.message);
}

#[test]
fn law_10_a_header_that_disagrees_with_the_payload_is_quarantined() {
    let bare = || Sent::of(&entity()).without_headers();
    for (name, value) in [
        ("tenant_id", b"other".as_slice()),
        ("tenant_id", b""),
        ("tenant_id", b"acme\xff"),
        ("event_id", b"0190b2a4-7c1e-7a00-8000-000000000002"),
        ("event_id", b"not a uuid"),
        ("event_id", b"\xff"),
    ] {
        let poison = bare().header(name, value).quarantined::<EntityChanged>();
        assert_eq!(poison.reason, HeaderMismatch);
        assert!(poison.message.contains(name), "{}", poison.message);
        // A correct header before the wrong one changes nothing.
        let poison = Sent::of(&entity()).header(name, value).quarantined::<EntityChanged>();
        assert_eq!(poison.reason, HeaderMismatch);
    }
    // The header names a tenant, but the payload has none.
    let poison = Sent::of(&dead_letter()).header("tenant_id", b"acme").quarantined::<DeadLetter>();
    assert_eq!(poison.reason, HeaderMismatch);
    // UUIDs are compared by value, not by spelling.
    let upper = entity().event_id.to_string().to_uppercase();
    assert_eq!(bare().header("event_id", upper.as_bytes()).accepted::<EntityChanged>(), entity());
}

#[test]
fn law_10_a_field_beyond_its_limits_is_quarantined() {
    let long = |bytes: usize| "x".repeat(bytes);
    let value = MetadataValue::String;
    let keys = |count: usize| (0..count).map(|n| (n.to_string(), value(String::new()))).collect();
    let tags = |count: usize| vec!["t".to_owned(); count];
    let good = [
        EntityChanged { text: long(Limits::TEXT_BYTES), ..entity() },
        EntityChanged { tags: tags(64), ..entity() },
        EntityChanged { tags: vec![long(100)], ..entity() },
        EntityChanged { metadata: keys(64), ..entity() },
        EntityChanged { metadata: metadata(value(long(4096))), ..entity() },
        EntityChanged { metadata: [(long(100), value(String::new()))].into(), ..entity() },
        EntityChanged { deleted: true, text: String::new(), ..entity() },
    ];
    for event in good {
        assert_eq!(Sent::of(&event).accepted::<EntityChanged>(), event);
        assert_eq!(encode(&event).unwrap(), body(&event));
    }
    let bad = [
        EntityChanged { text: String::new(), ..entity() },
        EntityChanged { text: " \n\t".into(), ..entity() },
        EntityChanged { text: long(300 * 1024), ..entity() },
        EntityChanged { text: long(Limits::TEXT_BYTES + 1), ..entity() },
        EntityChanged { deleted: true, ..entity() },
        EntityChanged { tags: tags(65), ..entity() },
        EntityChanged { tags: vec![long(101)], ..entity() },
        EntityChanged { tags: vec![String::new()], ..entity() },
        EntityChanged { metadata: metadata(MetadataValue::Double(f64::NAN)), ..entity() },
        EntityChanged { metadata: metadata(MetadataValue::Double(f64::NEG_INFINITY)), ..entity() },
        EntityChanged { metadata: metadata(value(long(4097))), ..entity() },
        EntityChanged { metadata: keys(65), ..entity() },
        EntityChanged { metadata: [(long(101), value(String::new()))].into(), ..entity() },
        EntityChanged { metadata: [(String::new(), value(String::new()))].into(), ..entity() },
    ];
    for (n, event) in bad.into_iter().enumerate() {
        let poison = Sent::of(&event).quarantined::<EntityChanged>();
        assert_eq!(poison.reason, FieldLimit, "{n}: {}", poison.message);
        // The encoder rejects what the decoder would reject.
        assert!(encode(&event).is_err(), "{n}");
    }
}

#[test]
fn law_10_a_vector_that_is_not_its_dimension_is_quarantined() {
    let vector = |dimension, vector: Option<&[f32]>| EmbeddingGenerated {
        dimension,
        vector: vector.map(vector_to_bytes),
        ..embedding()
    };
    let gone = |dimension, vector: Option<&[f32]>| EmbeddingGenerated {
        deleted: true,
        text: String::new(),
        dimension,
        vector: vector.map(vector_to_bytes),
        ..embedding()
    };
    let source = |topic: &str, partition, offset| EmbeddingGenerated {
        source: carbon_schemas::events::Source { topic: topic.into(), partition, offset },
        ..embedding()
    };
    let cut = EmbeddingGenerated { vector: Some(vec![0; 7]), ..embedding() };
    let bad = [
        vector(3, Some(&[1.0, 0.0])),
        vector(1, Some(&[1.0, 0.0])),
        vector(0, Some(&[])),
        vector(-1, Some(&[])),
        vector(i32::MAX, Some(&[1.0])),
        vector(8193, Some(&[0.0; 8193])),
        vector(2, Some(&[f32::NAN, 0.0])),
        vector(2, Some(&[f32::INFINITY, 0.0])),
        vector(2, None),
        cut,
        gone(0, Some(&[])),
        gone(2, None),
        source("a b", 0, 0),
        source("t", -1, 0),
        source("t", 0, -1),
    ];
    for (n, event) in bad.into_iter().enumerate() {
        let poison = Sent::of(&event).quarantined::<EmbeddingGenerated>();
        assert_eq!(poison.reason, FieldLimit, "{n}: {}", poison.message);
        assert!(encode(&event).is_err(), "{n}");
    }
    assert_eq!(Sent::of(&gone(0, None)).accepted::<EmbeddingGenerated>(), gone(0, None));
    let largest = vector(8192, Some(&[0.5; 8192]));
    assert_eq!(Sent::of(&largest).accepted::<EmbeddingGenerated>(), largest);
}

/// Arbitrary values: noise, noise in a valid frame, and good values with changed bytes.
fn values(good: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let body = good[10..].to_vec();
    let frames = [good[..10].to_vec(), frame(UNKNOWN_SCHEMA_ID, &[]), frame(SchemaId::Registry(1), &[])];
    let noise = prop::collection::vec(any::<u8>(), 0..200);
    let framed =
        (prop::sample::select(frames.to_vec()), noise.clone()).prop_map(|(frame, noise)| [frame, noise].concat());
    let spoilt = prop::collection::vec((0..body.len(), any::<u8>()), 1..6).prop_map(move |changes| {
        let mut value = good.clone();
        changes.into_iter().for_each(|(at, byte)| value[10 + at] = byte);
        value
    });
    prop_oneof![1 => noise, 3 => framed, 4 => spoilt]
}

/// Decodes a record with a log that knows no schema but the current one.
fn decode_with_empty_log<E: Event>(sent: &Sent) -> Decoded<E> {
    let mut decoder = decoder::<E>();
    match sent.decode_by(&mut decoder) {
        Ok(decoded) => decoded,
        Err(carbon_schemas::DecodeError::NeedSchema(id)) => {
            decoder.learn(id, None);
            sent.decode_by(&mut decoder).unwrap()
        }
        Err(error) => panic!("{error}"),
    }
}

fn check_any<E: Event>(event: &E, value: Vec<u8>) -> Result<(), TestCaseError> {
    let sent = Sent { value: Some(value), ..Sent::of(event) };
    match decode_with_empty_log::<E>(&sent) {
        Decoded::Event { event, key } => {
            prop_assert_eq!(event.key().unwrap(), key);
            prop_assert!(event.check().is_ok() && !event.is_unknown());
        }
        Decoded::Quarantined { poison, .. } => prop_assert!(!poison.message.is_empty()),
        other => prop_assert!(false, "{other:?}"),
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn law_10_any_bytes_decode_to_an_event_or_to_poison(
        entities in values(Sent::of(&entity()).value.unwrap()),
        embeddings in values(Sent::of(&embedding()).value.unwrap()),
        letters in values(Sent::of(&dead_letter()).value.unwrap()),
    ) {
        check_any(&entity(), entities)?;
        check_any(&embedding(), embeddings)?;
        check_any(&dead_letter(), letters)?;
    }

    /// A parsed key prints as the same text, so that a key has exactly one row.
    #[test]
    fn law_10_any_key_parses_to_itself_or_is_rejected(bytes: Vec<u8>, near in "[ta.@+: /0-9-]{1,9}", parts in "[ t+]{0,2}[/:][+0-2]{1,2}[/:][ +0-2]{1,2}") {
        fn check<E: Event>(bytes: &[u8]) -> Result<(), TestCaseError> {
            if let Some(key) = std::str::from_utf8(bytes).ok().and_then(|text| E::parse_key(text).ok()) {
                prop_assert_eq!(key.to_string().into_bytes(), bytes);
            }
            let sent = Sent { key: Some(bytes.to_vec()), value: None, partition: 0, headers: vec![] };
            prop_assert!(sent.decode::<E>().is_ok());
            Ok(())
        }
        for key in [bytes.as_slice(), near.as_bytes(), parts.as_bytes()] {
            check::<EntityChanged>(key)?;
            check::<EmbeddingGenerated>(key)?;
            check::<DeadLetter>(key)?;
            check::<IndexUpdated>(key)?;
        }
    }
}
