//! Foreign Kafka clients, and helpers that all Kafka tests share.

use std::collections::BTreeMap;
use std::time::Duration;

use carbon_core::{Cleanup, Positions, TopicName};
use carbon_log::{EventLog, Group, KafkaLog, KafkaOptions};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ConfigSource, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};

use crate::factory::Kafka;
use crate::support::{Cluster, spec, within};

/// Maximum time that a test waits for the cluster.
pub const WAIT_TIMEOUT: Duration = Duration::from_secs(20);

/// Calls `ask` every 20 ms until it returns a value. Panics after `deadline`.
pub async fn eventually<T>(deadline: Duration, what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let answered = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within(deadline, what, answered).await
}

/// A log with a new topic that is neither compacted nor deleted.
pub async fn with_topic(kafka: &Kafka, partitions: u32) -> (KafkaLog, TopicName) {
    let (log, topic) = (kafka.connect().await, kafka.topic("t"));
    log.ensure_topics(&[spec(&topic, partitions, Cleanup::Keep)]).await.unwrap();
    (log, topic)
}

/// The log of another process, with its own instance name and properties.
pub async fn connect_as(kafka: &Kafka, name: &str, settings: &[(&str, &str)]) -> KafkaLog {
    let options = kafka.options();
    let properties = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    KafkaLog::connect(KafkaOptions { instance: format!("{}-{name}", options.instance), properties, ..options })
        .await
        .unwrap()
}

/// Waits until the topic has these ends. The brokers write a transaction marker after they answer the commit or abort.
pub async fn wait_for_ends(log: &dyn EventLog, topic: &TopicName, ends: &Positions) {
    let same = async || (log.ends(topic).await.unwrap() == *ends).then_some(());
    eventually(WAIT_TIMEOUT, "the marker", same).await;
}

fn config(kafka: &Kafka, settings: &[(&str, &str)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka.options().brokers).set("client.id", "foreign");
    for (name, value) in settings {
        config.set(*name, *value);
    }
    config
}

/// A producer of another program.
pub fn producer(kafka: &Kafka, settings: &[(&str, &str)]) -> FutureProducer {
    config(kafka, settings).create().unwrap()
}

/// Sends a record of another program. Returns its partition and offset.
pub async fn send(producer: &FutureProducer, record: FutureRecord<'_, [u8], [u8]>) -> (u32, u64) {
    let sent = producer.send_result(record).map_err(|(error, _)| error).unwrap();
    let delivery = within(WAIT_TIMEOUT, "the acknowledgement of a foreign record", sent).await.unwrap().unwrap();
    (delivery.partition.try_into().unwrap(), delivery.offset.try_into().unwrap())
}

/// A record for partition 0 of a topic.
pub fn to<'a>(topic: &'a TopicName, value: &'a str) -> FutureRecord<'a, [u8], [u8]> {
    FutureRecord::to(topic.as_str()).partition(0).payload(value.as_bytes())
}

/// An open transaction of another program.
pub struct Transaction(FutureProducer);

impl Transaction {
    pub fn begin(kafka: &Kafka, id: &str) -> Self {
        let producer = producer(kafka, &[("transactional.id", id)]);
        tokio::task::block_in_place(|| producer.init_transactions(WAIT_TIMEOUT).unwrap());
        producer.begin_transaction().unwrap();
        Self(producer)
    }

    pub async fn send(&self, topic: &TopicName, value: &str) -> u64 {
        send(&self.0, to(topic, value)).await.1
    }

    pub fn commit(self) -> KafkaResult<()> {
        tokio::task::block_in_place(|| self.0.commit_transaction(WAIT_TIMEOUT))
    }

    pub fn abort(self) {
        tokio::task::block_in_place(|| self.0.abort_transaction(WAIT_TIMEOUT)).unwrap();
    }
}

/// The number of members of a group; `None` during a rebalance.
pub fn members(kafka: &Kafka, group: &Group) -> Option<usize> {
    let client: BaseConsumer = config(kafka, &[]).create().unwrap();
    let listed = tokio::task::block_in_place(|| client.fetch_group_list(Some(group.as_str()), WAIT_TIMEOUT)).ok()?;
    let found = listed.groups().iter().find(|found| found.name() == group.as_str())?;
    (found.state() == "Stable").then(|| found.members().len())
}

/// The settings that were made for a topic, without the cluster's defaults.
pub async fn own_settings(kafka: &Kafka, topic: &TopicName) -> BTreeMap<String, String> {
    let admin: AdminClient<DefaultClientContext> = config(kafka, &[]).create().unwrap();
    let topic = ResourceSpecifier::Topic(topic.as_str());
    let described = admin.describe_configs(&[topic], &AdminOptions::new()).await.unwrap().remove(0).unwrap();
    let own = described.entries.into_iter().filter(|entry| entry.source == ConfigSource::DynamicTopic);
    own.filter_map(|entry| Some((entry.name, entry.value?))).collect()
}

/// Changes settings of a topic as an operator does. The other settings stay.
pub async fn set(kafka: &Kafka, topic: &TopicName, settings: &[(&str, &str)]) {
    let mut all = own_settings(kafka, topic).await;
    all.extend(settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    let named = AlterConfig::new(ResourceSpecifier::Topic(topic.as_str()));
    let change = all.iter().fold(named, |change, (name, value)| change.set(name, value));
    let admin: AdminClient<DefaultClientContext> = config(kafka, &[]).create().unwrap();
    admin.alter_configs(&[change], &AdminOptions::new()).await.unwrap().remove(0).unwrap();
}
