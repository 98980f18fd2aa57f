//! Pinned bytes of every schema version. `<event>/NNN.golden.json` lists examples with their Avro bytes, which fastavro
//! wrote. Together the examples of a version cover every union branch and every enum symbol. A new event needs a line
//! in [`check_all_of`], and a new version needs its file.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;
use std::path::Path;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use carbon_core::{Partitioner, Position, Timestamp, TopicName};
use carbon_schemas::events::{
    ArtifactChanged, DeadLetter, EmbeddingGenerated, EntityChanged, ExperimentChanged, GenerationChanged, IndexUpdated,
    LoggedModelChanged, ModelPromoted, ModelRegistered, RunLogged, WebhookChanged,
};
use carbon_schemas::{
    Decoded, Decoder, Event, RawRecord, SchemaId, SchemaVersion, encode, event_names, frame, versions,
};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Golden {
    name: String,
    /// The record's key.
    key: String,
    /// The payload as the current version decodes it, field by field. Bytes are lists of numbers.
    event: serde_json::Value,
    /// The Avro body, without a frame.
    hex: String,
}

impl Golden {
    fn body(&self) -> Vec<u8> {
        let digits: Vec<_> = self.hex.chars().map(|digit| digit.to_digit(16).unwrap() as u8).collect();
        assert!(digits.len().is_multiple_of(2), "{}", self.name);
        digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
    }
}

fn goldens(version: &SchemaVersion) -> Vec<Golden> {
    let path = format!("{}/{}/{:03}.golden.json", env!("CARGO_MANIFEST_DIR"), version.event, version.number);
    let text = std::fs::read_to_string(Path::new(&path)).unwrap_or_else(|error| {
        panic!("{}/{:03}.golden.json: {error}", version.event, version.number);
    });
    let goldens: Vec<Golden> = serde_json::from_str(&text).unwrap();
    assert!(!goldens.is_empty(), "{path} has no example");
    goldens
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Decodes the record of an example, in the partition of its key.
fn decode<E: Event>(version: &SchemaVersion, event: &E, body: &[u8]) -> Decoded<E> {
    const PARTITIONS: u32 = 6;
    let key = event.key().unwrap();
    let partition = Partitioner::Murmur2.partition(E::partition_key(&key).as_bytes(), PARTITIONS);
    let position = Position::new(TopicName::parse(E::NAME).unwrap(), partition, 0);
    let (key, id) = (key.to_string(), SchemaId::Fingerprint(version.fingerprint));
    let value = frame(id, body);
    let (timestamp, value) = (Timestamp(0), Some(value.as_slice()));
    let raw = RawRecord { position: &position, timestamp, key: Some(key.as_bytes()), value, headers: &[] };
    let mut decoder = Decoder::<E>::new(PARTITIONS, Partitioner::Murmur2);
    decoder.learn(id, Some(version.json));
    decoder.decode(&raw).unwrap()
}

/// Checks all versions of one event.
fn check<E: Event>() {
    for version in versions().iter().filter(|version| version.event == E::NAME) {
        for golden in goldens(version) {
            let at = format!("{}/{:03} {:?}", version.event, version.number, golden.name);
            let event: E = serde_json::from_value(golden.event.clone()).unwrap_or_else(|error| panic!("{at}: {error}"));
            assert_eq!(event.key().unwrap().to_string(), golden.key, "{at}");
            if version.number == E::schema().version.number {
                assert_eq!(
                    serde_json::to_value(&event).unwrap(),
                    golden.event,
                    "{at}: the example must name every field"
                );
                assert_eq!(hex(&encode(&event).unwrap()), golden.hex, "{at}");
            }
            let decoded = decode(version, &event, &golden.body());
            assert_eq!(decoded, Decoded::Event { key: event.key().unwrap(), event }, "{at}");
        }
    }
}

/// Checks all versions of the event with this name.
fn check_all_of(event: &str) {
    match event {
        ArtifactChanged::NAME => check::<ArtifactChanged>(),
        DeadLetter::NAME => check::<DeadLetter>(),
        EmbeddingGenerated::NAME => check::<EmbeddingGenerated>(),
        EntityChanged::NAME => check::<EntityChanged>(),
        ExperimentChanged::NAME => check::<ExperimentChanged>(),
        GenerationChanged::NAME => check::<GenerationChanged>(),
        IndexUpdated::NAME => check::<IndexUpdated>(),
        LoggedModelChanged::NAME => check::<LoggedModelChanged>(),
        ModelPromoted::NAME => check::<ModelPromoted>(),
        ModelRegistered::NAME => check::<ModelRegistered>(),
        RunLogged::NAME => check::<RunLogged>(),
        WebhookChanged::NAME => check::<WebhookChanged>(),
        other => panic!("{other} is not checked: add its golden file, and its line here"),
    }
}

#[test]
fn law_13_events_encode_to_the_pinned_bytes_and_all_versions_decode() {
    assert!(event_names().len() >= 8);
    event_names().into_iter().for_each(check_all_of);
}

/// A generic Avro reader, without the typed payloads, decodes the same fields.
#[test]
fn law_13_a_generic_avro_reader_decodes_the_pinned_bytes() {
    for version in versions() {
        let reader = GenericDatumReader::builder(&version.schema).human_readable(false).build().unwrap();
        for golden in goldens(version) {
            let body = golden.body();
            let mut rest = body.as_slice();
            let value = reader.read_value(&mut rest).unwrap();
            assert!(rest.is_empty(), "{}: {} bytes are left", golden.name, rest.len());
            let Value::Record(fields) = value else { panic!("{} is not a record", version.event) };
            // An older version lacks fields that the current version fills with defaults.
            for (name, value) in fields {
                let value = serde_json::Value::try_from(value).unwrap();
                assert_eq!(Some(&value), golden.event.get(&name), "{} {:?}: {name}", version.event, golden.name);
            }
        }
    }
}

/// Adds what a value covers to `seen`: per path the union branch, the enum symbol, the boolean, or empty or not.
fn collect_covered(path: &str, schema: &Schema, value: &Value, seen: &mut BTreeSet<String>) {
    match (schema, value) {
        (Schema::Record(record), Value::Record(fields)) => {
            for (field, (name, value)) in record.fields.iter().zip(fields) {
                collect_covered(&format!("{path}.{name}"), &field.schema, value, seen);
            }
        }
        (Schema::Union(union), Value::Union(branch, value)) => {
            seen.insert(format!("{path} branch {branch}"));
            collect_covered(path, &union.variants()[*branch as usize], value, seen);
        }
        (Schema::Enum(_), Value::Enum(_, symbol)) => drop(seen.insert(format!("{path} is {symbol}"))),
        (Schema::Boolean, Value::Boolean(value)) => drop(seen.insert(format!("{path} is {value}"))),
        (Schema::Array(array), Value::Array(items)) => {
            seen.insert(format!("{path} empty: {}", items.is_empty()));
            items.iter().for_each(|item| collect_covered(&format!("{path}[]"), &array.items, item, seen));
        }
        (Schema::Map(map), Value::Map(items)) => {
            seen.insert(format!("{path} empty: {}", items.is_empty()));
            items.values().for_each(|item| collect_covered(&format!("{path}[]"), &map.types, item, seen));
        }
        _ => {}
    }
}

/// Adds what the examples must cover to `all`: everything but the enum symbol `unknown`, which no program writes.
fn collect_required(path: &str, schema: &Schema, all: &mut BTreeSet<String>) {
    match schema {
        Schema::Record(record) => {
            record
                .fields
                .iter()
                .for_each(|field| collect_required(&format!("{path}.{}", field.name), &field.schema, all));
        }
        Schema::Union(union) => {
            for (branch, schema) in union.variants().iter().enumerate() {
                all.insert(format!("{path} branch {branch}"));
                collect_required(path, schema, all);
            }
        }
        Schema::Enum(kind) => {
            all.extend(kind.symbols.iter().filter(|symbol| *symbol != "unknown").map(|s| format!("{path} is {s}")));
        }
        Schema::Boolean => all.extend([format!("{path} is true"), format!("{path} is false")]),
        Schema::Array(array) => {
            all.extend([format!("{path} empty: true"), format!("{path} empty: false")]);
            collect_required(&format!("{path}[]"), &array.items, all);
        }
        Schema::Map(map) => {
            all.extend([format!("{path} empty: true"), format!("{path} empty: false")]);
            collect_required(&format!("{path}[]"), &map.types, all);
        }
        _ => {}
    }
}

#[test]
fn law_13_the_examples_cover_every_branch_of_their_schema() {
    for version in versions() {
        let reader = GenericDatumReader::builder(&version.schema).human_readable(false).build().unwrap();
        let (mut seen, mut all) = (BTreeSet::new(), BTreeSet::new());
        collect_required(version.event, &version.schema, &mut all);
        for golden in goldens(version) {
            let value = reader.read_value(&mut golden.body().as_slice()).unwrap();
            collect_covered(version.event, &version.schema, &value, &mut seen);
        }
        let missing: Vec<_> = all.difference(&seen).collect();
        assert!(missing.is_empty(), "no example of {}/{:03} covers {missing:?}", version.event, version.number);
    }
}
