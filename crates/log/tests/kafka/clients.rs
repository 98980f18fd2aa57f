//! Clients that are not ours, and what all tests here share.

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

pub const PATIENCE: Duration = Duration::from_secs(20);

/// Asks again and again until there is an answer.
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

/// A log with a kept topic of its own.
pub async fn with_topic(kafka: &Kafka, partitions: u32) -> (KafkaLog, TopicName) {
    let (log, topic) = (kafka.connect().await, kafka.topic("t"));
    log.ensure_topics(&[spec(&topic, partitions, Cleanup::Keep)]).await.unwrap();
    (log, topic)
}

/// Another process: its name, and what its operator set.
pub async fn connect_as(kafka: &Kafka, name: &str, settings: &[(&str, &str)]) -> KafkaLog {
    let options = kafka.options();
    let properties = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    KafkaLog::connect(KafkaOptions { instance: format!("{}-{name}", options.instance), properties, ..options })
        .await
        .unwrap()
}

/// A marker is written after the answer to the commit or the abort.
pub async fn soon_ends(log: &dyn EventLog, topic: &TopicName, ends: &Positions) {
    let same = async || (log.ends(topic).await.unwrap() == *ends).then_some(());
    eventually(PATIENCE, "the marker", same).await;
}

fn config(kafka: &Kafka, settings: &[(&str, &str)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka.options().brokers).set("client.id", "a-stranger");
    for (name, value) in settings {
        config.set(*name, *value);
    }
    config
}

pub fn producer(kafka: &Kafka, settings: &[(&str, &str)]) -> FutureProducer {
    config(kafka, settings).create().unwrap()
}

/// A record of somebody else, waited for; answers its partition and offset.
pub async fn send(producer: &FutureProducer, record: FutureRecord<'_, [u8], [u8]>) -> (u32, u64) {
    let sent = producer.send_result(record).map_err(|(error, _)| error).unwrap();
    let delivery = within(PATIENCE, "a stranger's record", sent).await.unwrap().unwrap();
    (delivery.partition.try_into().unwrap(), delivery.offset.try_into().unwrap())
}

pub fn to<'a>(topic: &'a TopicName, value: &'a str) -> FutureRecord<'a, [u8], [u8]> {
    FutureRecord::to(topic.as_str()).partition(0).payload(value.as_bytes())
}

/// A transactional producer of somebody else.
pub struct Transaction(FutureProducer);

impl Transaction {
    pub fn begin(kafka: &Kafka, id: &str) -> Self {
        let producer = producer(kafka, &[("transactional.id", id)]);
        tokio::task::block_in_place(|| producer.init_transactions(PATIENCE).unwrap());
        producer.begin_transaction().unwrap();
        Self(producer)
    }

    pub async fn send(&self, topic: &TopicName, value: &str) -> u64 {
        send(&self.0, to(topic, value)).await.1
    }

    pub fn commit(self) -> KafkaResult<()> {
        tokio::task::block_in_place(|| self.0.commit_transaction(PATIENCE))
    }

    pub fn abort(self) {
        tokio::task::block_in_place(|| self.0.abort_transaction(PATIENCE)).unwrap();
    }
}

/// How many members a group has, where it is not just finding out.
pub fn members(kafka: &Kafka, group: &Group) -> Option<usize> {
    let client: BaseConsumer = config(kafka, &[]).create().unwrap();
    let listed = tokio::task::block_in_place(|| client.fetch_group_list(Some(group.as_str()), PATIENCE)).ok()?;
    let found = listed.groups().iter().find(|found| found.name() == group.as_str())?;
    (found.state() == "Stable").then(|| found.members().len())
}

/// What was set for a topic alone.
pub async fn own_settings(kafka: &Kafka, topic: &TopicName) -> BTreeMap<String, String> {
    let admin: AdminClient<DefaultClientContext> = config(kafka, &[]).create().unwrap();
    let topic = ResourceSpecifier::Topic(topic.as_str());
    let described = admin.describe_configs(&[topic], &AdminOptions::new()).await.unwrap().remove(0).unwrap();
    let own = described.entries.into_iter().filter(|entry| entry.source == ConfigSource::DynamicTopic);
    own.filter_map(|entry| Some((entry.name, entry.value?))).collect()
}

/// Sets something for a topic as an operator does, and leaves the rest as it is.
pub async fn set(kafka: &Kafka, topic: &TopicName, settings: &[(&str, &str)]) {
    let mut all = own_settings(kafka, topic).await;
    all.extend(settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    let named = AlterConfig::new(ResourceSpecifier::Topic(topic.as_str()));
    let change = all.iter().fold(named, |change, (name, value)| change.set(name, value));
    let admin: AdminClient<DefaultClientContext> = config(kafka, &[]).create().unwrap();
    admin.alter_configs(&[change], &AdminOptions::new()).await.unwrap().remove(0).unwrap();
}
