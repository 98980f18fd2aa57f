//! Stages: events to events, outputs and input position in one transaction of the log (law 5).

use std::sync::Arc;

use async_trait::async_trait;
use carbon_core::{Position, Positions, TopicName, TopicPartition};
use carbon_log::{EventLog, Group, LogError, NewRecord};
use carbon_schemas::{Decoded, Event, Recorded};

use super::batch::{Worker, WorkerError};
use super::error::ProcessorError;

/// The header that says which record an output was made from.
pub const SOURCE_HEADER: &str = "source_position";

/// What a stage makes of one record.
#[derive(Clone, Debug, PartialEq)]
pub enum Output<E: Event> {
    Event(E),
    /// The answer to a null value.
    Null(E::Key),
}

/// An effect that becomes an event (law 2).
#[async_trait]
pub trait Stage: Send + Sync + 'static {
    type In: Event;
    type Out: Event;

    /// One output for each record, in order. Records without a readable key never come here.
    async fn process(&self, batch: &[Recorded<Self::In>]) -> Result<Vec<Output<Self::Out>>, ProcessorError>;

    /// Whether an output is of this stage (its topic may be shared, as by the embedders of several models).
    fn owns(&self, key: &<Self::Out as Event>::Key) -> bool;
}

pub(super) struct StageWorker<S: Stage> {
    pub stage: S,
    pub log: Arc<dyn EventLog>,
    pub group: Group,
}

impl<S: Stage> StageWorker<S> {
    /// Where to go on when the group's offsets were forgotten: after the highest source position in the
    /// partition's outputs. Only the end of each output partition is looked at first; sources rise.
    async fn resume(&self, input: &TopicPartition) -> Result<u64, ProcessorError> {
        const STEP: u64 = 500;
        let output = TopicName::parse(S::Out::NAME).map_err(|error| ProcessorError::internal(error.to_string()))?;
        let at = TopicPartition::new(output.clone(), input.partition);
        let mut end = self.log.ends(&output).await?.next(&at);
        while end > 0 {
            let from = end.saturating_sub(STEP);
            let records = self.log.read(&at, from, STEP as usize).await?;
            for record in records.iter().filter(|record| record.position.offset < end).rev() {
                let key = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok());
                let Some(Ok(key)) = key.map(S::Out::parse_key) else { continue };
                let source = record.headers.iter().find(|(name, _)| name == SOURCE_HEADER);
                let source = source.and_then(|(_, value)| std::str::from_utf8(value).ok()?.parse::<Position>().ok());
                if let Some(source) = source
                    && self.stage.owns(&key)
                    && source.topic_partition() == *input
                {
                    return Ok(source.offset + 1);
                }
            }
            end = from;
        }
        Ok(0)
    }

    async fn outputs(&self, batch: &[Recorded<S::In>]) -> Result<Vec<NewRecord>, ProcessorError> {
        let keyed: Vec<_> = batch.iter().filter(|r| !matches!(r.body, Decoded::Rejected { .. })).cloned().collect();
        let outputs = self.stage.process(&keyed).await?;
        if outputs.len() != keyed.len() {
            let message = format!("{} outputs for {} records", outputs.len(), keyed.len());
            return Err(ProcessorError::internal(message));
        }
        let mut records = Vec::with_capacity(outputs.len());
        for (input, output) in keyed.iter().zip(outputs) {
            let record = match output {
                Output::Event(event) => NewRecord::event(&event),
                Output::Null(key) => NewRecord::null::<S::Out>(&key),
            };
            let mut record =
                record?.in_partition(input.position.partition).with_header(SOURCE_HEADER, input.position.to_string());
            if let Some(trace) = &input.traceparent {
                record = record.with_header("traceparent", trace.as_str());
            }
            records.push(record);
        }
        Ok(records)
    }
}

#[async_trait]
impl<S: Stage> Worker for StageWorker<S> {
    type In = Recorded<S::In>;
    type Ready = Vec<NewRecord>;
    const PREPARES: bool = true;

    async fn start(&self, assigned: &[TopicPartition]) -> Result<(Positions, Option<String>), ProcessorError> {
        let committed = self.log.committed(&self.group).await?;
        let (mut start, mut resumed) = (Positions::new(), Positions::new());
        for at in assigned {
            let next = match committed.get(at) {
                Some(next) => next,
                None => {
                    let next = self.resume(at).await?;
                    resumed.set(at.clone(), next);
                    next
                }
            };
            start.set(at.clone(), next);
        }
        // The group's offsets are what `append_and_advance` compares with: bring them where we start.
        self.log.commit(&self.group, &resumed).await?;
        Ok((start, None))
    }

    async fn open(&self) -> Result<(), ProcessorError> {
        // With nothing in it: the log gets ready for transactions, which costs Kafka hundreds of milliseconds.
        let nothing = Positions::new();
        Ok(self.log.append_and_advance(&self.group, Vec::new(), &nothing, &nothing).await.map(drop)?)
    }

    fn reports(&self, _position: &Position) -> bool {
        true
    }

    async fn prepare(&self, batch: &Arc<Vec<Recorded<S::In>>>) -> Result<Self::Ready, ProcessorError> {
        self.outputs(batch).await
    }

    async fn commit(
        &self,
        batch: &Self::Ready,
        dead_letters: &mut Vec<NewRecord>,
        from: &Positions,
        upto: &Positions,
    ) -> Result<Vec<NewRecord>, WorkerError> {
        let mut records = batch.clone();
        records.extend_from_slice(dead_letters);
        match self.log.append_and_advance(&self.group, records, from, upto).await {
            Ok(_) => Ok(Vec::new()),
            Err(LogError::Fenced { actual, .. }) => Err(WorkerError::Lost { actual }),
            Err(error) => Err(ProcessorError::from(error).into()),
        }
    }

    async fn pass(&self, from: &Positions, upto: &Positions) -> Result<bool, WorkerError> {
        match self.log.append_and_advance(&self.group, Vec::new(), from, upto).await {
            Ok(_) => Ok(true),
            Err(LogError::Fenced { actual, .. }) => Err(WorkerError::Lost { actual }),
            Err(error) => Err(ProcessorError::from(error).into()),
        }
    }

    // A stage's position moves with its outputs; there is nothing to advise.
    async fn advise(&self, _: &Positions) -> Result<(), ProcessorError> {
        Ok(())
    }
}
