//! The factory of the Kafka log, on the cluster of `ML_KAFKA_BROKERS`. Each test has its own topics and groups.

use std::collections::BTreeMap;

use async_trait::async_trait;
use carbon_core::TopicName;
use carbon_log::{EventLog, Group, KafkaLog, KafkaOptions};
use uuid::Uuid;

use super::support::Cluster;

/// A prefix of topic and group names on a shared cluster.
pub struct Kafka {
    prefix: String,
}

/// The value of an environment variable. Panics if it is not set.
fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set; `scripts/services.sh env` prints its value"))
}

impl Kafka {
    pub fn new() -> Self {
        Self { prefix: Uuid::new_v4().simple().to_string()[..12].to_owned() }
    }

    pub fn options(&self) -> KafkaOptions {
        KafkaOptions {
            brokers: variable("ML_KAFKA_BROKERS"),
            properties: BTreeMap::new(),
            registry: variable("ML_SCHEMA_REGISTRY_URL"),
            instance: self.prefix.clone(),
            lasting: false,
            replication: 1,
        }
    }

    pub async fn connect(&self) -> KafkaLog {
        KafkaLog::connect(self.options()).await.unwrap()
    }
}

#[async_trait]
impl Cluster for Kafka {
    async fn open(&self) -> Box<dyn EventLog> {
        let log = self.connect().await;
        let topics: Vec<_> =
            carbon_schemas::event_names().into_iter().map(|name| TopicName::parse(name).unwrap()).collect();
        log.register_schemas(&topics).await.unwrap();
        Box::new(log)
    }

    fn topic(&self, name: &str) -> TopicName {
        TopicName::parse(&format!("{}.{name}", self.prefix)).unwrap()
    }

    fn group(&self, name: &str) -> Group {
        Group::new("test", format!("{}.{name}", self.prefix))
    }
}
