//! Registration of the schemas of a topology: compatibility check, registration, and the list of missing schemas.

use apache_avro::schema_compatibility::SchemaCompatibility;
use carbon_core::TopicName;
use carbon_schemas::versions;

use super::KafkaLog;
use super::registry::subject;
use crate::error::LogError;

/// A schema that the registry has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    pub subject: String,
    /// The number of the file `NNN.avsc`. The registry numbers its versions independently.
    pub version: u32,
    /// The registry's id.
    pub id: u32,
}

impl KafkaLog {
    /// Fails with [`LogError::SchemaRefused`] if a compiled-in version cannot read a registered version of its subject,
    /// or cannot be read by it. The message names the field.
    pub async fn check_schemas(&self, topics: &[TopicName]) -> Result<(), LogError> {
        let registry = &self.registry;
        for topic in topics {
            let registered = registry.versions(topic.as_str()).await?;
            for version in versions().iter().filter(|version| version.event == topic.as_str()) {
                for (number, json) in &registered {
                    let rejected = |message| LogError::SchemaRefused { subject: subject(topic.as_str()), message };
                    let theirs = carbon_schemas::parse(json).map_err(rejected)?;
                    let directions = [(&theirs, &version.schema, "read"), (&version.schema, &theirs, "be read by")];
                    for (writer, reader, verb) in directions {
                        SchemaCompatibility::can_read(writer, reader).map_err(|error| {
                            let ours = version.number;
                            rejected(format!(
                                "version {ours:03} cannot {verb} the registry's version {number}: {error}"
                            ))
                        })?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Registers every version of these topics' events, oldest first, and sets the compatibility of their subjects to
    /// `FULL_TRANSITIVE` (law 13). Checks all of them before the first registration.
    pub async fn register_schemas(&self, topics: &[TopicName]) -> Result<Vec<Registration>, LogError> {
        self.check_schemas(topics).await?;
        let registry = &self.registry;
        let mut registrations = Vec::new();
        for topic in topics {
            let own: Vec<_> = versions().iter().filter(|version| version.event == topic.as_str()).collect();
            for (index, version) in own.iter().enumerate() {
                let id = registry.put(version.event, version.json).await?;
                registrations.push(Registration { subject: subject(version.event), version: version.number, id });
                if index == 0 {
                    // A subject can be configured once it exists.
                    registry.require_compatibility(version.event).await?;
                }
            }
        }
        Ok(registrations)
    }

    /// The schemas of these topics' events that are not registered, as subject and version.
    pub async fn missing_schemas(&self, topics: &[TopicName]) -> Result<Vec<(String, u32)>, LogError> {
        let mut missing = Vec::new();
        for version in versions().iter().filter(|version| topics.iter().any(|topic| topic.as_str() == version.event)) {
            if self.registry.look_up(version).await?.is_none() {
                missing.push((subject(version.event), version.number));
            }
        }
        Ok(missing)
    }
}
