//! What the module shares: quiet clients, errors, conversions, and blocking calls off the async threads.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use carbon_core::{Positions, TopicName, TopicPartition};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaErrorCode as Code;

use crate::error::LogError;

/// How long a question to the cluster may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// A client whose log lines go where all others go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        log_line(level, fac, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        error_line(&error, reason);
    }
}

impl ConsumerContext for Quiet {}

/// Who wanted something of the cluster says what failed; this is for a closer look.
pub(super) fn error_line(error: &KafkaError, reason: &str) {
    if error.rdkafka_error_code() != Some(Code::PartitionEOF) {
        tracing::debug!(%error, reason, "kafka client");
    }
}

pub(super) fn log_line(level: RDKafkaLogLevel, fac: &str, message: &str) {
    match level {
        // A broker that cannot be reached is said by whoever wanted something of it; and a property of one kind of client
        // is handed to all.
        _ if matches!(fac, "FAIL" | "ERROR" | "CONFWARN") => tracing::debug!(fac, message, "kafka client"),
        RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug | RDKafkaLogLevel::Notice => {
            tracing::debug!(fac, message, "kafka client");
        }
        _ => tracing::warn!(fac, message, "kafka client"),
    }
}

/// What panicked while it held a lock left its value whole: each change is one step.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a call of librdkafka that blocks.
pub(super) async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, LogError> {
    match tokio::task::spawn_blocking(call).await {
        Ok(answer) => answer,
        Err(error) => Err(LogError::Unavailable(format!("a call of the kafka client ended badly: {error}"))),
    }
}

/// Waits between two attempts, on a thread where blocking is meant.
#[allow(clippy::disallowed_methods, reason = "no async task runs on this thread")]
pub(super) fn breathe() {
    std::thread::sleep(Duration::from_millis(20));
}

/// A failure that names no topic.
pub(super) fn unavailable(what: &str, error: &KafkaError) -> LogError {
    LogError::Unavailable(format!("kafka: {what}: {}", reason(error)))
}

/// What went wrong, in words.
pub(super) fn reason(error: &KafkaError) -> String {
    match error {
        KafkaError::Transaction(error) => error.string(),
        _ => match error.rdkafka_error_code() {
            Some(Code::AllBrokersDown | Code::BrokerTransportFailure) => "no broker can be reached".into(),
            Some(Code::MessageTimedOut) => "no broker took it in time".into(),
            Some(Code::OperationTimedOut | Code::RequestTimedOut) => "no answer in time".into(),
            Some(code) => code.to_string(),
            None => error.to_string(),
        },
    }
}

/// A failure of one topic.
pub(super) fn of_topic(topic: &TopicName, what: &str, error: &KafkaError) -> LogError {
    match error.rdkafka_error_code() {
        Some(Code::UnknownTopic | Code::UnknownTopicOrPartition) => LogError::UnknownTopic(topic.clone()),
        Some(Code::MessageSizeTooLarge) => {
            let max = carbon_schemas::MAX_RECORD_BYTES;
            LogError::TooLarge { topic: topic.clone(), bytes: super::options::MAX_MESSAGE_BYTES, max }
        }
        _ => unavailable(what, error),
    }
}

/// Kafka's partition number; ours come from the cluster, so it fits.
pub(super) fn number(partition: u32) -> i32 {
    i32::try_from(partition).unwrap_or(i32::MAX)
}

pub(super) fn list(positions: &Positions) -> Result<TopicPartitionList, LogError> {
    let mut list = TopicPartitionList::new();
    for (at, next) in positions.iter() {
        let next = Offset::Offset(i64::try_from(next).unwrap_or(i64::MAX));
        list.add_partition_offset(at.topic.as_str(), number(at.partition), next)
            .map_err(|error| unavailable("an offset cannot be told", &error))?;
    }
    Ok(list)
}

/// The partitions of a list; those of topics that cannot be ours are left out.
pub(super) fn partitions(list: &TopicPartitionList) -> Vec<TopicPartition> {
    let mut found: Vec<_> =
        list.elements().iter().filter_map(|element| at(element.topic(), element.partition())).collect();
    found.sort();
    found
}

/// The concrete offsets of a list; `fallback` answers for the others.
pub(super) fn positions(list: &TopicPartitionList, fallback: impl Fn(&TopicPartition) -> Option<u64>) -> Positions {
    list.elements()
        .iter()
        .filter_map(|element| {
            let at = at(element.topic(), element.partition())?;
            let next = match element.offset() {
                Offset::Offset(next) => u64::try_from(next).ok(),
                _ => fallback(&at),
            };
            Some((at, next?))
        })
        .collect()
}

pub(super) fn at(topic: &str, partition: i32) -> Option<TopicPartition> {
    Some(TopicPartition::new(TopicName::parse(topic).ok()?, u32::try_from(partition).ok()?))
}
