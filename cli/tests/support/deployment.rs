//! The platform as several processes on one cluster.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;

use carbon_core::{Position, TopicName, TopicPartition};
use carbon_log::{EventLog as _, KafkaLog, KafkaOptions};
use serde_json::Value;

use super::{PATIENCE, Place, Server};

pub const SET: [&str; 4] = ["serve", "query-api", "indexer", "projections"];
pub const EMBEDDER: [&str; 2] = ["serve", "embedder"];
pub const TRACKING: [&str; 2] = ["serve", "tracking-api"];

/// A port that was free a moment ago, so that a restart has the same address.
pub fn free_port() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string()
}

/// Starts roles in a data folder.
pub async fn start(place: &Place, data: &Path, roles: &[&str], more: &[(&str, &str)]) -> Server {
    let mut settings = place.settings();
    settings.extend(more);
    Server::start_roles(data, roles, &settings).await
}

pub async fn connect(place: &Place) -> KafkaLog {
    let cluster = place.cluster.as_ref().unwrap();
    let options = KafkaOptions {
        brokers: cluster.brokers().to_owned(),
        properties: BTreeMap::new(),
        registry: cluster.registry().to_owned(),
        instance: "test".to_owned(),
        lasting: false,
        replication: 1,
    };
    KafkaLog::connect(options).await.unwrap()
}

/// Waits until every processor that the brokers know has no lag.
pub async fn no_lag(tracking: &Server) {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let answer = tracking.http.get(format!("{}/status", tracking.tracking)).send().await.unwrap();
        let status: Value = answer.json().await.unwrap();
        let processors = status["processors"].as_array().cloned().unwrap_or_default();
        if processors.len() >= 4 && processors.iter().all(|processor| processor["lag"] == 0) {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "lag stays: {processors:?}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// Law 5: in each partition every input has exactly one output, in input order, also where a zombie tried.
pub async fn one_output_each(log: &KafkaLog) -> usize {
    let topic = |name| TopicName::parse(name).unwrap();
    let (input, output) = (topic("ml.entity.changed.v1"), topic("ml.embedding.generated.v1"));
    let mut count = 0;
    for partition in 0..6 {
        let at = TopicPartition::new(input.clone(), partition);
        let inputs: Vec<u64> =
            log.read(&at, 0, usize::MAX).await.unwrap().iter().map(|record| record.position.offset).collect();
        let outputs = log.read(&TopicPartition::new(output.clone(), partition), 0, usize::MAX).await.unwrap();
        let sources: Vec<u64> = outputs
            .iter()
            .map(|record| {
                let header = record.headers.iter().find(|(name, _)| name == "source_position").unwrap();
                let source: Position = std::str::from_utf8(&header.1).unwrap().parse().unwrap();
                assert_eq!(source.topic_partition(), at);
                source.offset
            })
            .collect();
        if sources != inputs {
            let first = sources.iter().zip(&inputs).find(|(source, input)| source != input);
            panic!(
                "partition {partition}: {} inputs, {} outputs, the first that differ {first:?}",
                inputs.len(),
                sources.len()
            );
        }
        count += inputs.len();
    }
    count
}
