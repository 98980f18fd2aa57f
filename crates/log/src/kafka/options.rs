//! The options of a Kafka cluster, and the librdkafka configuration of each kind of client.

use std::collections::BTreeMap;
use std::fmt;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use crate::error::LogError;
use crate::event_log::Group;

/// Maximum size of a message without its value: key, headers and batch header. 1 MiB.
const OVERHEAD_BYTES: usize = 1024 * 1024;
/// Maximum size of a message, for topics and clients.
pub(super) const MAX_MESSAGE_BYTES: usize = carbon_schemas::MAX_RECORD_BYTES + OVERHEAD_BYTES;

/// Placeholder `group.id` of clients that belong to no group. librdkafka requires one.
pub(super) const PLACEHOLDER_GROUP: &str = "carbon.reader";

/// The address of a Kafka cluster, and the options of its clients.
#[derive(Clone)]
pub struct KafkaOptions {
    /// `host:port,host:port`.
    pub brokers: String,
    /// Further librdkafka properties, set by the operator.
    pub properties: BTreeMap<String, String>,
    /// The URL of the schema registry. It may contain a user and password.
    pub registry: String,
    /// The name of this process. Unique among all running processes.
    pub instance: String,
    /// True if the process has the same `instance` after a restart. It is then a static member of its groups: after a
    /// crash the new process takes the member's place at once, and aborts its open transaction.
    pub lasting: bool,
    /// Number of replicas of each partition of a new topic.
    pub replication: i32,
}

impl fmt::Debug for KafkaOptions {
    // Omits the registry's URL and the values of the properties: they may contain passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaOptions")
            .field("brokers", &self.brokers)
            .field("properties", &self.properties.keys())
            .field("instance", &self.instance)
            .finish_non_exhaustive()
    }
}

/// Properties that an operator cannot set, with the reason. Most of them would lose or duplicate records.
const FIXED_PROPERTIES: &[(&str, &str)] = &[
    ("acks", "an append is acknowledged when it is in all in-sync replicas (law 14)"),
    ("auto.offset.reset", "sinks start from their own checkpoint (law 4)"),
    ("bootstrap.servers", "set ML_KAFKA_BROKERS instead"),
    ("enable.auto.commit", "offsets are committed after their records are processed (law 4)"),
    ("enable.auto.offset.store", "offsets are committed after their records are processed (law 4)"),
    ("enable.idempotence", "a retried send must not duplicate a record (law 14)"),
    ("enable.partition.eof", "a partition is caught up when its end was seen (law 4)"),
    ("group.id", "groups are named by processor and generation"),
    ("group.instance.id", "the program sets it for processes that keep their name"),
    ("isolation.level", "readers see only committed records (law 5)"),
    ("metadata.broker.list", "set ML_KAFKA_BROKERS instead"),
    ("partition.assignment.strategy", "rebalances are cooperative"),
    ("partitioner", "the program computes the partition of each record"),
    ("request.required.acks", "an append is acknowledged when it is in all in-sync replicas (law 14)"),
    ("statistics.interval.ms", "the statistics report ends after transaction markers (law 4)"),
    ("transactional.id", "it is derived from the group and the name of this process (law 5)"),
];

impl KafkaOptions {
    /// Fails if a property cannot be set by an operator, or the registry is missing.
    pub fn check(&self) -> Result<(), LogError> {
        for name in self.properties.keys() {
            if let Some((_, reason)) = FIXED_PROPERTIES.iter().find(|(fixed, _)| fixed == name) {
                return Err(LogError::Options(format!("the property {name} cannot be set: {reason}")));
            }
        }
        if self.registry.is_empty() {
            return Err(LogError::Options(
                "a schema registry is required with Kafka; set ML_SCHEMA_REGISTRY_URL".into(),
            ));
        }
        Ok(())
    }

    /// The configuration that all clients share.
    pub(super) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", "carbon-ml")
            .set("socket.keepalive.enable", "true")
            // Reconnect soon after a broker's restart.
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "1000")
            .set("topic.metadata.refresh.interval.ms", "60000")
            .set("receive.message.max.bytes", "104857600")
            .set_log_level(RDKafkaLogLevel::Info);
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        config
    }

    /// The idempotent producer.
    pub(super) fn producer(&self) -> ClientConfig {
        let mut config = self.client();
        let defaults = [
            ("compression.type", "lz4"),
            // Shorter than a client waits for its answer, longer than a broker's restart.
            ("delivery.timeout.ms", "20000"),
            ("linger.ms", "1"),
            ("queue.buffering.max.kbytes", "262144"),
        ];
        self.defaults(&mut config, &defaults);
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("message.max.bytes", MAX_MESSAGE_BYTES.to_string());
        config
    }

    /// The transactional producer of a group.
    pub(super) fn transactional(&self, group: &Group) -> ClientConfig {
        let mut config = self.producer();
        // A record that is not delivered aborts its transaction, so both have the same timeout.
        config
            .set("transactional.id", format!("{group}.{}", self.instance))
            .set("transaction.timeout.ms", "10000")
            .set("delivery.timeout.ms", "10000");
        config
    }

    /// A member of a group.
    pub(super) fn member(&self, group: &Group) -> ClientConfig {
        let mut config = self.consumer(group.as_str());
        self.defaults(&mut config, &[("session.timeout.ms", "10000"), ("heartbeat.interval.ms", "2000")]);
        config.set("partition.assignment.strategy", "cooperative-sticky");
        enable_end_hints(&mut config);
        if self.lasting {
            // Static membership: after a crash the new process takes the member's place at once. It also detects a
            // copied data folder, because two processes with one name fence each other.
            config.set("group.instance.id", &self.instance);
        }
        config
    }

    /// A client of the reader pool: it belongs to no group, and reads ranges of assigned partitions.
    pub(super) fn reader(&self) -> ClientConfig {
        let mut config = self.consumer(PLACEHOLDER_GROUP);
        // An empty fetch response marks the end of a partition, so the broker must not wait long for new records.
        config.set("fetch.wait.max.ms", "10");
        config
    }

    /// A follower: it belongs to no group, and reads assigned partitions continuously.
    pub(super) fn follower(&self) -> ClientConfig {
        let mut config = self.consumer(PLACEHOLDER_GROUP);
        enable_end_hints(&mut config);
        config
    }

    /// A consumer that commits only explicitly, and reads only committed records.
    pub(super) fn consumer(&self, group: &str) -> ClientConfig {
        let mut config = self.client();
        let defaults = [
            // An empty fetch response marks the end of a partition.
            ("fetch.wait.max.ms", "100"),
            ("queued.max.messages.kbytes", "16384"),
            // How soon a fetch is retried after the queue was full. The default of 1 s would delay a fast reader.
            ("fetch.queue.backoff.ms", "5"),
            ("fetch.error.backoff.ms", "50"),
        ];
        self.defaults(&mut config, &defaults);
        config
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "earliest")
            .set("isolation.level", "read_committed");
        config
    }

    /// Sets properties that an operator may override.
    fn defaults(&self, config: &mut ClientConfig, defaults: &[(&str, &str)]) {
        for (name, value) in defaults {
            if !self.properties.contains_key(*name) {
                config.set(*name, *value);
            }
        }
    }
}

/// Enables the statistics, which hint at ends after transaction markers. Only readers that report ends need them.
fn enable_end_hints(config: &mut ClientConfig) {
    config.set("statistics.interval.ms", "200");
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn options(properties: &[(&str, &str)]) -> KafkaOptions {
        KafkaOptions {
            brokers: "localhost:9092".into(),
            properties: properties.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            registry: "http://localhost:8081".into(),
            instance: "a".into(),
            lasting: false,
            replication: 1,
        }
    }

    #[test]
    fn properties_override_defaults_but_not_fixed_properties() {
        let allowed = options(&[("linger.ms", "50"), ("security.protocol", "ssl")]);
        allowed.check().unwrap();
        assert_eq!(allowed.producer().get("linger.ms"), Some("50"));
        let group = Group::new("p", "g");
        assert_eq!(allowed.member(&group).get("security.protocol"), Some("ssl"));
        assert_eq!(allowed.member(&group).get("group.instance.id"), None);
        let static_member = KafkaOptions { lasting: true, ..allowed.clone() };
        assert_eq!(static_member.member(&group).get("group.instance.id"), Some("a"));
        for (name, _) in FIXED_PROPERTIES {
            let error = options(&[(name, "x")]).check().unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
        assert!(KafkaOptions { registry: String::new(), ..allowed }.check().is_err());
    }
}
