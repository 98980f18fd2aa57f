//! How this program speaks to a cluster: what librdkafka is told for each of its clients.

use std::collections::BTreeMap;
use std::fmt;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use super::group_of_readers;
use crate::error::LogError;
use crate::event_log::Group;

/// What a record may have around its value: key, headers, and the batch that holds it.
const OVERHEAD: usize = 1024 * 1024;
/// The largest message that topics and clients let pass.
pub(super) const MAX_MESSAGE_BYTES: usize = carbon_schemas::MAX_RECORD_BYTES + OVERHEAD;

/// Where the cluster is, and how to speak to it.
#[derive(Clone)]
pub struct KafkaOptions {
    /// `host:port,host:port`.
    pub brokers: String,
    /// Further properties of librdkafka, by its own names.
    pub properties: BTreeMap<String, String>,
    /// The schema registry's address; user and password may stand in it.
    pub registry: String,
    /// Unique among the processes that live at one time.
    pub instance: String,
    /// Whether the instance has this name again after a restart. It is then a static member of its groups, and a
    /// transaction that a killed process left open is ended by the next start at once.
    pub lasting: bool,
    /// How many copies of each partition new topics get.
    pub replication: i32,
}

impl fmt::Debug for KafkaOptions {
    // Properties and the registry's address may hold passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaOptions")
            .field("brokers", &self.brokers)
            .field("properties", &self.properties.keys())
            .field("instance", &self.instance)
            .finish_non_exhaustive()
    }
}

/// Properties that the laws rest on; setting them otherwise would lose or double records.
const OURS: &[(&str, &str)] = &[
    ("acks", "an append is acknowledged when it is in all in-sync replicas (law 14)"),
    ("auto.offset.reset", "sinks start from their own checkpoint (law 4)"),
    ("bootstrap.servers", "it is ML_KAFKA_BROKERS"),
    ("enable.auto.commit", "positions are committed by what was processed (law 4)"),
    ("enable.auto.offset.store", "positions are committed by what was processed (law 4)"),
    ("enable.idempotence", "a repeated send must not double a record (law 14)"),
    ("enable.partition.eof", "caught up means that the end was seen (law 4)"),
    ("group.id", "groups are named by processor and generation"),
    ("group.instance.id", "members come and go by themselves"),
    ("isolation.level", "readers see committed records alone (law 5)"),
    ("metadata.broker.list", "it is ML_KAFKA_BROKERS"),
    ("partition.assignment.strategy", "rebalances are cooperative"),
    ("partitioner", "the program computes partitions itself"),
    ("request.required.acks", "an append is acknowledged when it is in all in-sync replicas (law 14)"),
    ("statistics.interval.ms", "ends behind transaction markers are told by it (law 4)"),
    ("transactional.id", "it names the stage's group and this process (law 5)"),
];

impl KafkaOptions {
    /// Refuses properties that are not free to choose.
    pub fn check(&self) -> Result<(), LogError> {
        for name in self.properties.keys() {
            if let Some((_, why)) = OURS.iter().find(|(ours, _)| ours == name) {
                return Err(LogError::Options(format!("the property {name} cannot be set: {why}")));
            }
        }
        if self.registry.is_empty() {
            return Err(LogError::Options(
                "a schema registry is required with Kafka; set ML_SCHEMA_REGISTRY_URL".into(),
            ));
        }
        Ok(())
    }

    /// What all clients have in common.
    pub(super) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", "carbon-ml")
            .set("socket.keepalive.enable", "true")
            // A broker that restarts is found again soon.
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

    pub(super) fn producer(&self) -> ClientConfig {
        let mut config = self.client();
        let defaults = [
            ("compression.type", "lz4"),
            // Short enough that a waiting writer gets its answer, long enough for a broker's restart.
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

    pub(super) fn transactional(&self, group: &Group) -> ClientConfig {
        let mut config = self.producer();
        // Within a transaction an undelivered record aborts it, so it need not outlive it.
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
        hint_at_ends(&mut config);
        if self.lasting {
            // After a kill the next start takes its place at once, and a copied data folder is noticed, since the two
            // put each other out.
            config.set("group.instance.id", &self.instance);
        }
        config
    }

    /// A client that is no member: it asks for offsets, or reads what it assigns to itself.
    pub(super) fn reader(&self) -> ClientConfig {
        let mut config = self.consumer(group_of_readers());
        // An end is told by an empty answer: do not let the broker wait for more.
        config.set("fetch.wait.max.ms", "10");
        config
    }

    /// Reads on without a group.
    pub(super) fn follower(&self) -> ClientConfig {
        let mut config = self.consumer(group_of_readers());
        hint_at_ends(&mut config);
        config
    }

    pub(super) fn consumer(&self, group: &str) -> ClientConfig {
        let mut config = self.client();
        let defaults = [
            // An end is seen when a fetch comes back empty.
            ("fetch.wait.max.ms", "100"),
            ("queued.max.messages.kbytes", "16384"),
            // A full queue is looked at again soon; by default a reader that has emptied it waits for up to a second.
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

    fn defaults(&self, config: &mut ClientConfig, defaults: &[(&str, &str)]) {
        for (name, value) in defaults {
            if !self.properties.contains_key(*name) {
                config.set(*name, *value);
            }
        }
    }
}

/// The statistics hint at ends behind markers: only whoever tells ends pays for them.
fn hint_at_ends(config: &mut ClientConfig) {
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
    fn properties_go_over_defaults_but_not_over_laws() {
        let free = options(&[("linger.ms", "50"), ("security.protocol", "ssl")]);
        free.check().unwrap();
        assert_eq!(free.producer().get("linger.ms"), Some("50"));
        let group = Group::new("p", "g");
        assert_eq!(free.member(&group).get("security.protocol"), Some("ssl"));
        assert_eq!(free.member(&group).get("group.instance.id"), None);
        let lasting = KafkaOptions { lasting: true, ..free.clone() };
        assert_eq!(lasting.member(&group).get("group.instance.id"), Some("a"));
        for (name, _) in OURS {
            let error = options(&[(name, "x")]).check().unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
        assert!(KafkaOptions { registry: String::new(), ..free }.check().is_err());
    }
}
