//! All released versions of all schemas, with their fingerprints.

use std::fmt;
use std::sync::LazyLock;

use apache_avro::Schema;

include!(concat!(env!("OUT_DIR"), "/files.rs"));

/// The CRC-64-AVRO of a schema's canonical form, little-endian.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub [u8; 8]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Fingerprint {
    pub fn of(schema: &Schema) -> Self {
        // `apache-avro` writes a primitive that has a logical type as `{"type":"long"}`. The canonical form of the
        // specification, which other languages hash, has the bare name.
        let mut form = schema.canonical_form();
        for name in ["null", "boolean", "int", "long", "float", "double", "bytes", "string"] {
            form = form.replace(&format!(r#"{{"type":"{name}"}}"#), &format!("\"{name}\""));
        }
        Self(crc_64_avro(form.as_bytes()).to_le_bytes())
    }
}

/// The CRC-64 of the Avro specification.
fn crc_64_avro(bytes: &[u8]) -> u64 {
    const EMPTY: u64 = 0xc15d_213a_a4d7_a795;
    let step = |crc: u64, _| (crc >> 1) ^ (EMPTY & (crc & 1).wrapping_neg());
    bytes.iter().fold(EMPTY, |crc, byte| (crc >> 8) ^ (0..8).fold((crc ^ u64::from(*byte)) & 0xff, step))
}

/// One released version of a schema: a file `<event>/NNN.avsc`.
#[derive(Debug)]
pub struct SchemaVersion {
    pub event: &'static str,
    pub number: u32,
    pub json: &'static str,
    pub schema: Schema,
    pub fingerprint: Fingerprint,
}

static VERSIONS: LazyLock<Vec<SchemaVersion>> = LazyLock::new(|| {
    let parse = |(event, number, json): &(&'static str, u32, &'static str)| {
        // The files are compiled in, and every test that uses a schema parses all of them.
        #[allow(clippy::panic)]
        let schema = Schema::parse_str(json).unwrap_or_else(|error| panic!("{event}/{number:03}.avsc: {error}"));
        let fingerprint = Fingerprint::of(&schema);
        SchemaVersion { event, number: *number, json, schema, fingerprint }
    };
    FILES.iter().map(parse).collect()
});

/// Parses a schema's JSON.
pub fn parse(json: &str) -> Result<Schema, String> {
    Schema::parse_str(json).map_err(|error| error.to_string())
}

/// All versions, sorted by event and number.
pub fn versions() -> &'static [SchemaVersion] {
    &VERSIONS
}

/// The current version of an event: the one with the highest number.
pub fn current(event: &str) -> Option<&'static SchemaVersion> {
    versions().iter().rfind(|version| version.event == event)
}

/// The names of the events that have a schema, sorted.
pub fn event_names() -> Vec<&'static str> {
    let mut names: Vec<_> = versions().iter().map(|version| version.event).collect();
    names.dedup();
    names
}

/// The fields of an event's current schema that the topology may name in a topic's key. A nested field has the form
/// `source.topic`.
pub fn key_fields(event: &str) -> Vec<String> {
    let mut fields = Vec::new();
    let Some(Schema::Record(record)) = current(event).map(|version| &version.schema) else { return fields };
    for field in &record.fields {
        fields.push(field.name.clone());
        if let Schema::Record(inner) = &field.schema {
            fields.extend(inner.fields.iter().map(|part| format!("{}.{}", field.name, part.name)));
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use sha2::{Digest, Sha256};

    use super::*;

    /// Released files never change: `schemas.lock.json` pins their hashes. This test with `CARBON_WRITE_LOCK=1` adds
    /// the line of a new file, and never changes an existing line.
    #[test]
    #[allow(clippy::unwrap_used)]
    fn law_13_released_schemas_are_pinned_in_the_lock() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/schemas.lock.json");
        let text = std::fs::read_to_string(path).unwrap_or_else(|_| "{}".into());
        let mut locked: BTreeMap<String, BTreeMap<String, String>> = serde_json::from_str(&text).unwrap();
        for version in versions() {
            let name = format!("{}/{:03}", version.event, version.number);
            let sha256: String = Sha256::digest(version.json).iter().map(|byte| format!("{byte:02x}")).collect();
            let found =
                BTreeMap::from([("fingerprint".into(), version.fingerprint.to_string()), ("sha256".into(), sha256)]);
            if std::env::var_os("CARBON_WRITE_LOCK").is_some() {
                locked.entry(name.clone()).or_insert_with(|| found.clone());
            }
            assert_eq!(locked.get(&name), Some(&found), "{name} differs from schemas.lock.json");
        }
        assert_eq!(locked.len(), versions().len(), "schemas.lock.json names a version that has no file");
        if std::env::var_os("CARBON_WRITE_LOCK").is_some() {
            std::fs::write(path, serde_json::to_string_pretty(&locked).unwrap() + "\n").unwrap();
        }
    }

    #[test]
    #[allow(clippy::unwrap_used)]
    fn law_13_fingerprints_equal_those_of_fastavro() {
        // Computed by `fastavro.schema.fingerprint` of fastavro 1.13; the bytes in the order of the frame.
        let record = |time| format!(r#"{{"type":"record","name":"a.B","fields":[{{"name":"t","type":{time}}}]}}"#);
        let with_logical_type = record(r#"{"type":"long","logicalType":"timestamp-millis"}"#);
        for (json, expected) in [
            (r#""int""#, "8f5c393f1ad57572"),
            (&record(r#""long""#), "5ad75e5d6686aa9f"),
            (&with_logical_type, "5ad75e5d6686aa9f"),
        ] {
            assert_eq!(Fingerprint::of(&parse(json).unwrap()).to_string(), expected, "{json}");
        }
    }

    #[test]
    fn version_numbers_have_no_gaps() {
        for event in event_names() {
            let numbers: Vec<u32> = versions().iter().filter(|v| v.event == event).map(|v| v.number).collect();
            assert_eq!(numbers, (1..=numbers.len() as u32).collect::<Vec<_>>(), "{event}");
        }
    }
}
