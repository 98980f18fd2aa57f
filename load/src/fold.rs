//! How fast the catalog folds a full topic of a Kafka cluster into a fresh read model.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use carbon_core::TopicName;
use carbon_log::{EventLog, Group, KafkaLog, KafkaOptions, NewRecord};
use carbon_processors::ProjectionSink;
use carbon_read_models::catalog::Catalog;
use carbon_runtime::Shutdown;
use carbon_runtime::consume::{Options, spawn_sink};
use carbon_schemas::Event as _;
use carbon_schemas::events::EntityChanged;
use carbon_topology::Topology;
use uuid::Uuid;

use crate::random::Random;
use crate::{Failure, fill};

pub struct Plan {
    pub brokers: String,
    pub registry: String,
    pub events: u64,
    pub seed: u64,
}

pub async fn run(plan: &Plan) -> Result<(), Failure> {
    let instance = Uuid::new_v4().to_string();
    let options = KafkaOptions {
        brokers: plan.brokers.clone(),
        properties: BTreeMap::new(),
        registry: plan.registry.clone(),
        instance: instance.clone(),
        lasting: false,
        replication: 1,
    };
    let log: Arc<dyn EventLog> = Arc::new(KafkaLog::connect(options).await?);
    let topology = Topology::builtin()?;
    let processor = topology.processors.get("catalog").ok_or("the topology has no catalog")?;
    let topic = topology.topics.get(EntityChanged::NAME).ok_or("the topology has no topic for entities")?;
    append(&*log, &topic.spec.name, plan).await?;
    let ends = log.ends(&topic.spec.name).await?;
    let events: u64 = ends.iter().map(|(_, end)| end).sum();

    let folder = std::env::temp_dir().join(format!("carbon-load-{instance}"));
    let sink = ProjectionSink::open(Catalog, folder.clone()).await?;
    let shutdown = Shutdown::new();
    let began = Instant::now();
    let group = Group::new("catalog", format!("load-{instance}"));
    let options = Options::new("catalog", group, vec![topic.clone()], processor.batch, log.clone(), shutdown.clone());
    let handle = spawn_sink(sink, options);
    let view = handle.view();
    let mut first = None;
    loop {
        let reached = view.reached(&ends, Duration::from_millis(5)).await;
        if first.is_none() && view.progress.borrow().records > 0 {
            first = Some(began.elapsed());
        }
        if reached {
            break;
        }
        if began.elapsed() > Duration::from_secs(600) {
            return Err("the catalog did not reach the end within ten minutes".into());
        }
    }
    let (seconds, first) = (began.elapsed().as_secs_f64(), first.unwrap_or_default().as_secs_f64());
    let batches = view.progress.borrow().batches;
    println!("{events} events folded in {seconds:.2} s, of which {first:.2} s until the first batch landed");
    println!(
        "{:.0} events/s in all, {:.0} events/s from then on, {batches} batches",
        events as f64 / seconds,
        events as f64 / (seconds - first)
    );
    shutdown.cancel();
    handle.join().await?;
    log.close().await;
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

/// Appends what the topic lacks of so many events.
async fn append(log: &dyn EventLog, topic: &TopicName, plan: &Plan) -> Result<(), Failure> {
    let there: u64 = log.ends(topic).await?.iter().map(|(_, end)| end).sum();
    let (mut random, mut written, began) = (Random::new(plan.seed), there, Instant::now());
    while written < plan.events {
        let count = (plan.events - written).min(5_000);
        let records =
            (written..written + count).map(|n| Ok(NewRecord::event(&fill::entity(&mut random, n as usize)?)?));
        log.append(records.collect::<Result<_, Failure>>()?).await?;
        written += count;
    }
    if written > there {
        let rate = (written - there) as f64 / began.elapsed().as_secs_f64();
        println!("{} events appended, {rate:.0} events/s", written - there);
    }
    Ok(())
}
