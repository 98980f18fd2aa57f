//! Schemas only grow (law 13): records of other versions decode, a new enum symbol halts the partition, and a schema
//! that the log does not know is poison.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use carbon_schemas::PoisonReason::{Malformed, UnknownKind, UnknownSchema};
use carbon_schemas::events::{DeadLetter, EmbeddingGenerated, EntityChanged, GenerationChanged, GenerationState};
use carbon_schemas::{DecodeError, Decoded, Event, Fingerprint, PoisonReason, SchemaId, frame, parse};
use serde_json::{Value as Json, json};
use support::{Sent, UNKNOWN_SCHEMA_ID, body, dead_letter, decoder, embedding, entity, own_id};

/// Another version of an event's schema.
struct Version {
    json: String,
    id: SchemaId,
}

impl Version {
    /// The current schema with a change.
    fn of<E: Event>(change: impl FnOnce(&mut Json)) -> Self {
        let mut schema: Json = serde_json::from_str(E::schema().version.json).unwrap();
        change(&mut schema);
        let json = schema.to_string();
        let id = SchemaId::Fingerprint(Fingerprint::of(&parse(&json).unwrap()));
        assert_ne!(id, own_id::<E>(), "the change must change the fingerprint");
        Self { json, id }
    }

    /// The record that a program of this version writes: the event with changed fields.
    fn write<E: Event>(&self, event: &E, change: impl FnOnce(&mut Vec<(String, Value)>)) -> Sent {
        let reader = GenericDatumReader::builder(&E::schema().version.schema).human_readable(false).build().unwrap();
        let Value::Record(mut fields) = reader.read_value(&mut body(event).as_slice()).unwrap() else { panic!() };
        change(&mut fields);
        let schema = parse(&self.json).unwrap();
        let writer = GenericDatumWriter::builder(&schema).human_readable(false).build().unwrap();
        let body = writer.write_value_to_vec(Value::Record(fields)).unwrap();
        Sent { value: Some(frame(self.id, &body)), ..Sent::of(event) }
    }

    /// Decodes as the consume loop does, which fetches the schema from the log once.
    fn read<E: Event>(&self, sent: &Sent) -> Result<Decoded<E>, DecodeError> {
        let mut decoder = decoder::<E>();
        assert_eq!(sent.decode_by(&mut decoder), Err(DecodeError::NeedSchema(self.id)));
        decoder.learn(self.id, Some(&self.json));
        let decoded = sent.decode_by(&mut decoder);
        assert_eq!(sent.decode_by(&mut decoder), decoded, "the schema must stay cached");
        decoded
    }
}

fn fields(schema: &mut Json) -> &mut Vec<Json> {
    schema["fields"].as_array_mut().unwrap()
}

fn field<'a>(schema: &'a mut Json, name: &str) -> &'a mut Json {
    fields(schema).iter_mut().find(|field| field["name"] == name).unwrap()
}

fn good<E: Event>(event: &E) -> Result<Decoded<E>, DecodeError> {
    Ok(Decoded::Event { key: event.key().unwrap(), event: event.clone() })
}

fn quarantined<E: Event>(decoded: Result<Decoded<E>, DecodeError>) -> PoisonReason {
    match decoded.unwrap() {
        Decoded::Quarantined { poison, .. } => poison.reason,
        other => panic!("the record must be quarantined: {other:?}"),
    }
}

#[test]
fn law_13_a_newer_version_with_more_fields_decodes_with_the_schema_from_the_log() {
    let kind = json!({"type": "enum", "name": "Grade", "symbols": ["unknown", "fine"], "default": "unknown"});
    let newer = Version::of::<EntityChanged>(|schema| {
        schema["version"] = 2.into();
        fields(schema).insert(3, json!({"name": "source", "type": "string", "default": ""}));
        fields(schema).push(json!({"name": "grade", "type": ["null", kind], "default": null}));
    });
    let sent = newer.write(&entity(), |fields| {
        fields.insert(3, ("source".into(), Value::String("feed".into())));
        let fine = Value::Enum(1, "fine".into());
        fields.push(("grade".into(), Value::Union(1, Box::new(fine))));
    });
    assert_eq!(newer.read(&sent), good(&entity()));
}

#[test]
fn law_13_an_older_version_decodes_with_defaults() {
    let older = Version::of::<EntityChanged>(|schema| {
        fields(schema).retain(|field| field["name"] != "tags" && field["name"] != "deleted");
    });
    let sent = older.write(&entity(), |fields| fields.retain(|(name, _)| name != "tags" && name != "deleted"));
    assert_eq!(older.read(&sent), good(&EntityChanged { tags: vec![], ..entity() }));
    let older = Version::of::<EmbeddingGenerated>(|schema| fields(schema).retain(|field| field["name"] != "reason"));
    let sent = older.write(&embedding(), |fields| fields.retain(|(name, _)| name != "reason"));
    assert_eq!(older.read(&sent), good(&embedding()));
}

#[test]
fn law_13_a_new_enum_symbol_halts_the_partition_and_names_the_version() {
    let newer = Version::of::<DeadLetter>(|schema| {
        schema["version"] = 7.into();
        field(schema, "kind")["type"]["symbols"].as_array_mut().unwrap().push("forwarded".into());
    });
    let with_kind = |index, symbol: &str| {
        newer.write(&dead_letter(), |fields| {
            fields.iter_mut().find(|(name, _)| name == "kind").unwrap().1 = Value::Enum(index, symbol.into());
        })
    };
    let sent = with_kind(4, "forwarded");
    match newer.read::<DeadLetter>(&sent) {
        Err(DecodeError::Newer { position, needs }) => {
            assert_eq!((position.partition, position.offset), (sent.partition, 42));
            for part in ["ml.deadletter.v1 version 7", "kind", "forwarded"] {
                assert!(needs.contains(part), "{needs}");
            }
        }
        other => panic!("the partition must halt: {other:?}"),
    }
    // Other records of the same writer decode. Its `unknown` is poison and does not halt the partition.
    assert_eq!(newer.read(&with_kind(1, "reported")), good(&dead_letter()));
    assert_eq!(quarantined(newer.read::<DeadLetter>(&with_kind(0, "unknown"))), UnknownKind);
}

#[test]
fn law_13_a_new_enum_symbol_in_a_union_halts_the_partition() {
    let newer = Version::of::<EmbeddingGenerated>(|schema| {
        schema["version"] = 2.into();
        field(schema, "reason")["type"][1]["symbols"].as_array_mut().unwrap().push("too_long".into());
    });
    let with_reason = |reason: Value| {
        newer.write(&embedding(), |fields| {
            fields.iter_mut().find(|(name, _)| name == "reason").unwrap().1 = reason;
        })
    };
    let symbol = |index, symbol: &str| Value::Union(1, Box::new(Value::Enum(index, symbol.into())));
    match newer.read::<EmbeddingGenerated>(&with_reason(symbol(4, "too_long"))) {
        Err(DecodeError::Newer { needs, .. }) => assert!(needs.contains("version 2"), "{needs}"),
        other => panic!("the partition must halt: {other:?}"),
    }
    let decoded = newer.read::<EmbeddingGenerated>(&with_reason(symbol(0, "unknown")));
    assert_eq!(quarantined(decoded), UnknownKind);
    assert_eq!(newer.read(&with_reason(Value::Union(0, Box::new(Value::Null)))), good(&embedding()));
}

#[test]
fn law_13_an_enum_symbol_with_another_index_decodes_by_its_name() {
    let event = GenerationChanged {
        event_id: uuid::Uuid::nil(),
        occurred_at: carbon_core::Timestamp(0),
        tenant_id: None,
        read_model: "search".into(),
        generation: carbon_core::GenerationId::parse("search-v1-1").unwrap(),
        version: 1,
        model: None,
        state: GenerationState::Active,
        rows: None,
        digest: None,
        positions: vec![],
    };
    let other = Version::of::<GenerationChanged>(|schema| {
        let symbols = ["unknown", "paused", "active", "building", "ready", "standby", "retired"];
        field(schema, "state")["type"]["symbols"] = symbols.map(Json::from).to_vec().into();
    });
    let with_state = |index, symbol: &str| {
        other.write(&event, |fields| {
            fields.iter_mut().find(|(name, _)| name == "state").unwrap().1 = Value::Enum(index, symbol.into());
        })
    };
    assert_eq!(other.read(&with_state(2, "active")), good(&event));
    assert!(matches!(other.read::<GenerationChanged>(&with_state(1, "paused")), Err(DecodeError::Newer { .. })));
}

#[test]
fn law_13_a_schema_that_the_log_does_not_know_is_poison_and_is_fetched_again() {
    let sent = Sent { value: Some(frame(UNKNOWN_SCHEMA_ID, &body(&entity()))), ..Sent::of(&entity()) };
    let mut decoder = decoder::<EntityChanged>();
    for answer in [None, Some("{not a schema"), None] {
        assert_eq!(sent.decode_by(&mut decoder), Err(DecodeError::NeedSchema(UNKNOWN_SCHEMA_ID)));
        decoder.learn(UNKNOWN_SCHEMA_ID, answer);
        assert_eq!(quarantined(sent.decode_by(&mut decoder)), UnknownSchema);
    }
    // Records of the current schema still decode.
    assert_eq!(Sent::of(&entity()).decode_by(&mut decoder), good(&entity()));
    // A record that is rejected needs no schema.
    assert!(matches!(Sent { key: None, ..sent }.decode_by(&mut decoder), Ok(Decoded::Rejected { .. })));
}

#[test]
fn both_frames_decode_whatever_id_the_registry_assigned() {
    let id = SchemaId::Registry(0x0102_0304);
    let value = frame(id, &body(&entity()));
    assert_eq!(value[..5], [0, 1, 2, 3, 4]);
    assert_eq!(Sent::of(&entity()).value.unwrap()[..2], [0xC3, 0x01]);
    let sent = Sent { value: Some(value), ..Sent::of(&entity()) };
    let mut decoder = decoder::<EntityChanged>();
    assert_eq!(sent.decode_by(&mut decoder), Err(DecodeError::NeedSchema(id)));
    decoder.learn(id, Some(EntityChanged::schema().version.json));
    assert_eq!(sent.decode_by(&mut decoder), good(&entity()));
    let cut = Sent { value: Some(frame(id, &body(&entity())[..20])), ..sent };
    assert_eq!(quarantined(cut.decode_by(&mut decoder)), Malformed);
}

#[test]
fn law_13_a_record_of_an_incompatible_schema_is_malformed() {
    let renamed = Version::of::<EntityChanged>(|schema| field(schema, "text")["name"] = "body".into());
    let sent = renamed.write(&entity(), |fields| {
        fields.iter_mut().find(|(name, _)| name == "text").unwrap().0 = "body".into();
    });
    assert_eq!(quarantined(renamed.read::<EntityChanged>(&sent)), Malformed);
    let retyped = Version::of::<EntityChanged>(|schema| field(schema, "text")["type"] = "long".into());
    let sent = retyped.write(&entity(), |fields| {
        fields.iter_mut().find(|(name, _)| name == "text").unwrap().1 = Value::Long(7);
    });
    assert_eq!(quarantined(retyped.read::<EntityChanged>(&sent)), Malformed);
}

#[test]
fn law_10_missing_and_extra_bytes_of_another_version_are_malformed() {
    let newer = Version::of::<EntityChanged>(|schema| {
        fields(schema).push(json!({"name": "more", "type": "long", "default": 0}));
    });
    let sent = newer.write(&entity(), |fields| fields.push(("more".into(), Value::Long(1))));
    let value = sent.value.clone().unwrap();
    for value in [value[..value.len() - 1].to_vec(), [value.as_slice(), &[0]].concat()] {
        assert_eq!(quarantined(newer.read::<EntityChanged>(&Sent { value: Some(value), ..sent.clone() })), Malformed);
    }
    // The limits apply to other versions as well.
    let long = EntityChanged { tags: vec!["x".repeat(101)], ..entity() };
    let sent = newer.write(&long, |fields| fields.push(("more".into(), Value::Long(1))));
    assert_eq!(quarantined(newer.read::<EntityChanged>(&sent)), PoisonReason::FieldLimit);
}
