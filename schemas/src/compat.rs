//! The compatibility check: every version of an event can read every other (law 13).

use apache_avro::schema_compatibility::SchemaCompatibility;

use crate::versions::{SchemaVersion, versions};

/// Two versions of one event that cannot read each other.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{event}: version {reader:03} cannot read version {writer:03}: {message}")]
pub struct Incompatible {
    pub event: String,
    pub reader: u32,
    pub writer: u32,
    pub message: String,
}

/// Checks every pair of versions of every event, and returns all incompatible pairs.
pub fn check_all() -> Vec<Incompatible> {
    check(versions())
}

fn check(versions: &[SchemaVersion]) -> Vec<Incompatible> {
    let mut incompatible = Vec::new();
    for reader in versions {
        for writer in versions.iter().filter(|writer| writer.event == reader.event) {
            if let Err(error) = SchemaCompatibility::can_read(&writer.schema, &reader.schema) {
                incompatible.push(Incompatible {
                    event: reader.event.to_owned(),
                    reader: reader.number,
                    writer: writer.number,
                    message: error.to_string(),
                });
            }
        }
    }
    incompatible
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use apache_avro::Schema;

    use super::*;
    use crate::Fingerprint;

    fn version(number: u32, fields: &str) -> SchemaVersion {
        let json = format!(r#"{{"type":"record","name":"E","fields":[{fields}]}}"#);
        let schema = Schema::parse_str(&json).unwrap();
        let fingerprint = Fingerprint::of(&schema);
        SchemaVersion { event: "e.v1", number, json: Box::leak(json.into_boxed_str()), schema, fingerprint }
    }

    #[test]
    fn law_13_all_released_versions_read_each_other() {
        assert_eq!(check_all(), []);
    }

    #[test]
    fn law_13_a_field_without_default_cannot_read_older_versions() {
        let a = r#"{"name":"a","type":"string"}"#;
        let grown = format!(r#"{a},{{"name":"b","type":"string"}}"#);
        let incompatible = check(&[version(1, a), version(2, &grown)]);
        assert_eq!(incompatible.len(), 1, "{incompatible:?}");
        assert_eq!((incompatible[0].reader, incompatible[0].writer), (2, 1));
        let good = format!(r#"{a},{{"name":"b","type":"string","default":""}}"#);
        assert_eq!(check(&[version(1, a), version(2, &good)]), []);
        let changed = r#"{"name":"a","type":"long"}"#;
        assert_eq!(check(&[version(1, a), version(2, changed)]).len(), 2);
    }
}
