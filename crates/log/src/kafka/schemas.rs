//! The registry as the topology wants it: subjects, their compatibility, and what is missing.

use apache_avro::schema_compatibility::SchemaCompatibility;
use carbon_core::TopicName;
use carbon_schemas::versions;

use super::KafkaLog;
use super::registry::subject;
use crate::error::LogError;

/// A schema as the registry has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    pub subject: String,
    /// Ours, of `NNN.avsc`.
    pub version: u32,
    pub id: u32,
}

impl KafkaLog {
    /// Refuses where a version of ours cannot read, or be read by, what the registry has; the field is named.
    pub async fn check_schemas(&self, topics: &[TopicName]) -> Result<(), LogError> {
        let registry = &self.inner.registry;
        for topic in topics {
            let known = registry.versions(topic.as_str()).await?;
            for version in versions().iter().filter(|version| version.event == topic.as_str()) {
                for (number, json) in &known {
                    let refused = |message| LogError::SchemaRefused { subject: subject(topic.as_str()), message };
                    let theirs = carbon_schemas::parse(json).map_err(refused)?;
                    let directions = [(&theirs, &version.schema, "read"), (&version.schema, &theirs, "be read by")];
                    for (writer, reader, what) in directions {
                        SchemaCompatibility::can_read(writer, reader).map_err(|error| {
                            let ours = version.number;
                            refused(format!("version {ours:03} cannot {what} the registry's version {number}: {error}"))
                        })?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Registers every version of these topics' events, oldest first, and demands that they stay fully transitive
    /// (law 13). What is refused is refused before anything changes.
    pub async fn register_schemas(&self, topics: &[TopicName]) -> Result<Vec<Registration>, LogError> {
        self.check_schemas(topics).await?;
        let registry = &self.inner.registry;
        let mut made = Vec::new();
        for topic in topics {
            let own: Vec<_> = versions().iter().filter(|version| version.event == topic.as_str()).collect();
            for (index, version) in own.iter().enumerate() {
                let id = registry.put(version.event, version.json).await?;
                made.push(Registration { subject: subject(version.event), version: version.number, id });
                if index == 0 {
                    // A subject's own setting can be made once the subject is there.
                    registry.demand_compatibility(version.event).await?;
                }
            }
        }
        Ok(made)
    }

    /// The schemas of these topics' events that the registry lacks, as subject and version.
    pub async fn missing_schemas(&self, topics: &[TopicName]) -> Result<Vec<(String, u32)>, LogError> {
        let mut missing = Vec::new();
        for version in versions().iter().filter(|version| topics.iter().any(|topic| topic.as_str() == version.event)) {
            if self.inner.registry.look_up(version).await?.is_none() {
                missing.push((subject(version.event), version.number));
            }
        }
        Ok(missing)
    }
}
