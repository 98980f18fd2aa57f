//! The fold of `ml.generation.changed.v1`, in memory, from offset 0: no group, file or generation of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use carbon_core::{
    Clock, GenerationId, ModelRef, Position, Positions, SystemClock, Timestamp, TopicPartition, derived_id,
};
use carbon_log::{Delivery, EventLog, LogError, NewRecord, Record};
use carbon_schemas::events::{GenerationChanged, GenerationState};
use carbon_schemas::{Decoded, Decoder, Event};
use carbon_topology::Topology;
use tokio::sync::watch;

use crate::Shutdown;
use crate::consume::ProcessorError;

/// One generation, as its records say.
#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    pub id: GenerationId,
    pub read_model: String,
    pub version: u32,
    pub model: Option<ModelRef>,
    pub state: GenerationState,
    pub since: Timestamp,
    pub position: Position,
}

/// All generations, in log order. The first record of an id makes it; later ones change its state alone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Generations(BTreeMap<GenerationId, Generation>);

impl Generations {
    pub fn iter(&self) -> impl Iterator<Item = &Generation> {
        self.0.values()
    }

    pub fn get(&self, id: &GenerationId) -> Option<&Generation> {
        self.0.get(id)
    }

    /// The generation that answers reads: the last that became active.
    pub fn active(&self, read_model: &str) -> Option<&Generation> {
        let own = self.0.values().filter(|g| g.read_model == read_model && g.state == GenerationState::Active);
        own.max_by_key(|generation| generation.position.offset)
    }

    fn fold(&mut self, event: GenerationChanged, position: Position, time: Timestamp) {
        match self.0.get_mut(&event.generation) {
            // Two starters made the same generation: the first record won, this one says nothing new.
            Some(known) if known.state == event.state => {}
            Some(known) => {
                known.state = event.state;
                known.since = time;
                known.position = position;
            }
            None => {
                let generation = Generation {
                    id: event.generation.clone(),
                    read_model: event.read_model,
                    version: u32::try_from(event.version).unwrap_or_default(),
                    model: event.model.and_then(|model| model.parse().ok()),
                    state: event.state,
                    since: time,
                    position,
                };
                self.0.insert(event.generation, generation);
            }
        }
    }
}

/// How long after a broken stream the next one is asked for.
const AGAIN: Duration = Duration::from_secs(1);

/// The fold with its feed.
#[derive(Clone)]
pub struct GenerationLog {
    log: Arc<dyn EventLog>,
    folded: watch::Receiver<(u64, Generations)>,
}

impl GenerationLog {
    /// Reads the topic to its end, and follows it.
    pub async fn open(log: Arc<dyn EventLog>, topology: &Topology, shutdown: Shutdown) -> Result<Self, ProcessorError> {
        let topic = topology.topics.get(GenerationChanged::NAME);
        let topic = topic.ok_or_else(|| ProcessorError::internal("the topology has no topic for generations"))?;
        let mut decoder = Decoder::<GenerationChanged>::new(topic.spec.partitions, topic.spec.partitioner);
        let mut from: Positions =
            (0..topic.spec.partitions).map(|p| (TopicPartition::new(topic.spec.name.clone(), p), 0)).collect();
        let mut stream = log.follow(&from).await?;
        let (sender, mut folded) = watch::channel((0, Generations::default()));
        let feed = log.clone();
        let (ready, caught_up) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            let mut ready = Some(ready);
            loop {
                let delivery = tokio::select! {
                    () = shutdown.cancelled() => return,
                    delivery = stream.next() => delivery,
                };
                match delivery {
                    Some(Ok(Delivery::Records(records))) => {
                        for record in records {
                            from.advance_past(&record.position);
                            fold_record(&feed, &mut decoder, &sender, &record).await;
                        }
                    }
                    Some(Ok(Delivery::Ended { .. })) => {
                        ready.take().map(|ready| ready.send(()));
                    }
                    Some(Ok(_)) => {}
                    Some(Err(error)) => tracing::warn!(%error, "generations cannot be read; trying again"),
                    None => {
                        let again = async {
                            tokio::time::sleep(AGAIN).await;
                            feed.follow(&from).await
                        };
                        let again = tokio::select! {
                            () = shutdown.cancelled() => return,
                            again = again => again,
                        };
                        match again {
                            Ok(followed) => stream = followed,
                            Err(LogError::Closed) => return,
                            Err(error) => tracing::warn!(%error, "generations cannot be followed; trying again"),
                        }
                    }
                }
            }
        });
        let broken = || LogError::Unavailable("generations cannot be read".into());
        caught_up.await.map_err(|_| broken())?;
        folded.mark_unchanged();
        Ok(Self { log, folded })
    }

    pub fn now(&self) -> Generations {
        self.folded.borrow().1.clone()
    }

    /// The active generation of a read model for this fold version and model; made, as the next number, where
    /// there is none. Two starters agree, since the first record of an id wins.
    pub async fn ensure_active(
        &mut self,
        read_model: &str,
        version: u32,
        model: Option<&ModelRef>,
    ) -> Result<Generation, ProcessorError> {
        let fits = |g: &Generation| g.version == version && g.model.as_ref() == model;
        if let Some(active) = self.now().active(read_model).filter(|g| fits(g)) {
            return Ok(active.clone());
        }
        let number = |n| {
            GenerationId::derive(read_model, version, model, n)
                .map_err(|error| ProcessorError::internal(error.to_string()))
        };
        let mut n = 1;
        while self.now().get(&number(n)?).is_some() {
            n += 1;
        }
        let id = number(n)?;
        let event = GenerationChanged {
            event_id: derived_id(&["generation", id.as_str(), "active"]),
            occurred_at: SystemClock.now(),
            tenant_id: None,
            read_model: read_model.to_owned(),
            generation: id.clone(),
            version: version as i32,
            model: model.map(ToString::to_string),
            state: GenerationState::Active,
            rows: None,
            digest: None,
            positions: Vec::new(),
        };
        let positions = self.log.append(vec![NewRecord::event(&event)?]).await?;
        let end = positions.last().map_or(0, |position| position.offset + 1);
        let waited =
            tokio::time::timeout(Duration::from_secs(10), self.folded.wait_for(|(next, _)| *next >= end)).await;
        drop(waited.map_err(|_| LogError::Unavailable("the generation was not folded within 10 s".into()))?);
        tracing::info!(read_model, generation = %id, "generation made");
        let made = self.now().get(&id).cloned();
        made.ok_or_else(|| ProcessorError::internal(format!("generation {id} did not come out of its fold")))
    }
}

async fn fold_record(
    log: &Arc<dyn EventLog>,
    decoder: &mut Decoder<GenerationChanged>,
    folded: &watch::Sender<(u64, Generations)>,
    record: &Record,
) {
    let next = record.position.offset + 1;
    for _ in 0..2 {
        match decoder.decode(&record.raw()) {
            Ok(Decoded::Event { event, .. }) => {
                folded.send_modify(|(end, generations)| {
                    generations.fold(event, record.position.clone(), record.timestamp);
                    *end = next;
                });
                return;
            }
            Err(carbon_schemas::DecodeError::NeedSchema(id)) => match log.schema(id).await {
                Ok(json) => decoder.learn(id, json.as_deref()),
                Err(error) => tracing::error!(%error, "schema cannot be read"),
            },
            Ok(other) => {
                tracing::warn!(position = %record.position, poison = ?other.poison(), "generation record is poison");
                break;
            }
            Err(error) => {
                tracing::error!(position = %record.position, %error, "generation record cannot be read");
                break;
            }
        }
    }
    folded.send_modify(|(end, _)| *end = next);
}
