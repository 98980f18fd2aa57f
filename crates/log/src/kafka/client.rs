//! Shared code of the Kafka clients: logging, errors, conversions, and blocking calls off the async threads.

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

/// Timeout of one request to the cluster.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause between two attempts of a retried request.
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// A librdkafka client context that writes the client's log lines to `tracing`.
#[derive(Clone, Copy, Debug)]
pub(super) struct TracingContext;

impl ClientContext for TracingContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        trace_log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        trace_error(&error, reason);
    }
}

impl ConsumerContext for TracingContext {}

/// Logs a client's error at debug level. The caller whose request failed reports the failure itself.
pub(super) fn trace_error(error: &KafkaError, reason: &str) {
    if error.rdkafka_error_code() != Some(Code::PartitionEOF) {
        tracing::debug!(%error, reason, "kafka client error");
    }
}

/// Writes one log line of librdkafka to `tracing`.
pub(super) fn trace_log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        // FAIL and ERROR: the caller whose request failed reports an unreachable broker. CONFWARN: every client gets
        // all properties of the operator, also those that only another kind of client knows.
        _ if matches!(facility, "FAIL" | "ERROR" | "CONFWARN") => {
            tracing::debug!(facility, message, "kafka client log");
        }
        RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug | RDKafkaLogLevel::Notice => {
            tracing::debug!(facility, message, "kafka client log");
        }
        _ => tracing::warn!(facility, message, "kafka client log"),
    }
}

/// Locks a mutex, also after a panic: every change under these locks is one step, so the value is consistent.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a blocking call of librdkafka on a thread for blocking work.
pub(super) async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, LogError> {
    match tokio::task::spawn_blocking(call).await {
        Ok(outcome) => outcome,
        Err(error) => Err(LogError::Unavailable(format!("kafka: a client call did not finish: {error}"))),
    }
}

/// Sleeps for [`RETRY_PAUSE`]. Only for threads that may block.
#[allow(clippy::disallowed_methods, reason = "no async task runs on this thread")]
pub(super) fn back_off() {
    std::thread::sleep(RETRY_PAUSE);
}

/// The error for a failed request that concerns no single topic.
pub(super) fn unavailable(what: &str, error: &KafkaError) -> LogError {
    LogError::Unavailable(format!("kafka: {what}: {}", reason(error)))
}

/// The cause of a Kafka error as text.
pub(super) fn reason(error: &KafkaError) -> String {
    match error {
        KafkaError::Transaction(error) => error.string(),
        _ => match error.rdkafka_error_code() {
            Some(Code::AllBrokersDown | Code::BrokerTransportFailure) => "no broker can be reached".into(),
            Some(Code::MessageTimedOut) => "no broker accepted the record in time".into(),
            Some(Code::OperationTimedOut | Code::RequestTimedOut) => "no answer in time".into(),
            Some(code) => code.to_string(),
            None => error.to_string(),
        },
    }
}

/// The error for a failed request to one topic.
pub(super) fn topic_error(topic: &TopicName, what: &str, error: &KafkaError) -> LogError {
    match error.rdkafka_error_code() {
        Some(Code::UnknownTopic | Code::UnknownTopicOrPartition) => LogError::UnknownTopic(topic.clone()),
        Some(Code::MessageSizeTooLarge) => {
            let max = carbon_schemas::MAX_RECORD_BYTES;
            LogError::TooLarge { topic: topic.clone(), bytes: super::options::MAX_MESSAGE_BYTES, max }
        }
        _ => unavailable(what, error),
    }
}

/// A partition number in Kafka's type. The cluster assigned the number, so it fits.
pub(super) fn partition_number(partition: u32) -> i32 {
    i32::try_from(partition).unwrap_or(i32::MAX)
}

/// An offset in Kafka's type.
pub(super) fn kafka_offset(offset: u64) -> Offset {
    Offset::Offset(i64::try_from(offset).unwrap_or(i64::MAX))
}

/// Positions as a partition list of librdkafka.
pub(super) fn partition_list(positions: &Positions) -> Result<TopicPartitionList, LogError> {
    let mut list = TopicPartitionList::new();
    for (at, next) in positions.iter() {
        list.add_partition_offset(at.topic.as_str(), partition_number(at.partition), kafka_offset(next))
            .map_err(|error| unavailable("offset rejected by the client", &error))?;
    }
    Ok(list)
}

/// The partitions of a list, sorted. Omits topics whose names are not valid here.
pub(super) fn partitions(list: &TopicPartitionList) -> Vec<TopicPartition> {
    let mut found: Vec<_> =
        list.elements().iter().filter_map(|element| topic_partition(element.topic(), element.partition())).collect();
    found.sort();
    found
}

/// The offsets of a list. `fallback` supplies the offset of an element that has none (for example `Offset::End`);
/// `None` omits the element.
pub(super) fn positions(list: &TopicPartitionList, fallback: impl Fn(&TopicPartition) -> Option<u64>) -> Positions {
    list.elements()
        .iter()
        .filter_map(|element| {
            let at = topic_partition(element.topic(), element.partition())?;
            let next = match element.offset() {
                Offset::Offset(next) => u64::try_from(next).ok(),
                _ => fallback(&at),
            };
            Some((at, next?))
        })
        .collect()
}

/// A topic and partition in this crate's types; `None` if the name or number is not valid here.
pub(super) fn topic_partition(topic: &str, partition: i32) -> Option<TopicPartition> {
    Some(TopicPartition::new(TopicName::parse(topic).ok()?, u32::try_from(partition).ok()?))
}
