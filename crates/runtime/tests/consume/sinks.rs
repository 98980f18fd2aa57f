//! A sink with a transactional checkpoint in memory, which does with each batch what the test says.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use carbon_core::{Partitioner, Position, Positions, TopicPartition};
use carbon_log::NewRecord;
use carbon_runtime::consume::{ProcessorError, Sink, SinkError};
use carbon_schemas::events::EntityChanged;
use carbon_schemas::{DecodeError, Decoder, Event as _, Feed, Poison, RawRecord, Recorded, SchemaId};
use carbon_store::Checkpoint;
use tokio::sync::{Semaphore, watch};

use super::PATIENCE;
use super::script::IDENTITY;

/// The header of a record that only a newer program can read.
pub const NEWER: &str = "newer";

/// An entity, or a record that a newer program wrote.
#[derive(Clone, Debug)]
pub struct Item(pub Recorded<EntityChanged>);

impl Feed for Item {
    const TOPICS: &'static [&'static str] = &[EntityChanged::NAME];
    type Decoders = Decoder<EntityChanged>;

    fn decoders(of: &dyn Fn(&'static str) -> (u32, Partitioner)) -> Self::Decoders {
        <Recorded<EntityChanged> as Feed>::decoders(of)
    }

    fn decode(decoders: &mut Self::Decoders, record: &RawRecord<'_>) -> Result<Self, DecodeError> {
        match record.header(NEWER) {
            Some(_) => Err(DecodeError::Newer { position: record.position.clone(), needs: "version 9".into() }),
            None => <Recorded<EntityChanged> as Feed>::decode(decoders, record).map(Self),
        }
    }

    fn learn(decoders: &mut Self::Decoders, _: &str, id: SchemaId, json: Option<&str>) {
        decoders.learn(id, json);
    }

    fn position(&self) -> &Position {
        &self.0.position
    }

    fn poison(&self) -> Option<&Poison> {
        self.0.body.poison()
    }
}

/// What the sink does with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Commit,
    /// Commits when the test gives a permit of [`Rows::gate`].
    Wait,
    CommitAfter(Duration),
    Hang,
    External,
    Internal,
    Panic,
    /// Commits, and says that it failed.
    LoseAnswer,
}

/// A call of `apply`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub from: Positions,
    pub upto: Positions,
    /// Partition and offset of each record.
    pub records: Vec<(u32, u64)>,
    pub committed: bool,
}

impl Call {
    fn is_same(&self, other: &Call) -> bool {
        self.from == other.from && self.upto == other.upto && self.records == other.records
    }

    pub fn offsets(&self) -> Vec<u64> {
        self.records.iter().map(|(_, offset)| *offset).collect()
    }
}

type Script = Box<dyn FnMut(&Call) -> Act + Send>;
type Notices = Box<dyn FnMut(&Call) -> Vec<NewRecord> + Send>;

/// Rows, checkpoint, and what happened.
#[derive(Default)]
pub struct State {
    pub checkpoint: Checkpoint,
    /// The offsets that were applied, partition by partition, in order.
    pub rows: BTreeMap<u32, Vec<u64>>,
    pub calls: Vec<Call>,
    /// Records that were decoded.
    pub checked: usize,
    pub resets: usize,
}

impl State {
    /// Applies records and moves the checkpoint, unless it stands elsewhere.
    pub fn commit(&mut self, log: &str, call: &Call) -> Result<(), Positions> {
        let own = &mut self.checkpoint.positions;
        if call.upto.iter().any(|(at, _)| own.next(at) != call.from.next(at)) {
            return Err(own.clone());
        }
        own.merge(&call.upto);
        self.checkpoint.log = Some(log.to_owned());
        for (partition, offset) in &call.records {
            self.rows.entry(*partition).or_default().push(*offset);
        }
        Ok(())
    }
}

/// What the test and the sink share.
pub struct Rows {
    pub state: watch::Sender<State>,
    pub gate: Semaphore,
    script: Mutex<Script>,
    notices: Mutex<Notices>,
    /// Whether the checkpoint passes the end of a partition.
    pub passes: bool,
    /// A record whose check panics.
    pub unreadable: Mutex<Option<(u32, u64)>>,
}

impl Rows {
    pub fn new() -> Arc<Self> {
        Self::with(false)
    }

    pub fn with(passes: bool) -> Arc<Self> {
        Arc::new(Self {
            state: watch::Sender::new(State::default()),
            gate: Semaphore::new(0),
            script: Mutex::new(Box::new(|_| Act::Commit)),
            notices: Mutex::new(Box::new(|_| Vec::new())),
            passes,
            unreadable: Mutex::default(),
        })
    }

    pub fn script(&self, script: impl FnMut(&Call) -> Act + Send + 'static) {
        *self.script.lock().unwrap() = Box::new(script);
    }

    pub fn notices(&self, notices: impl FnMut(&Call) -> Vec<NewRecord> + Send + 'static) {
        *self.notices.lock().unwrap() = Box::new(notices);
    }

    pub fn now(&self) -> watch::Ref<'_, State> {
        self.state.borrow()
    }

    pub fn rows(&self, partition: u32) -> Vec<u64> {
        self.now().rows.get(&partition).cloned().unwrap_or_default()
    }

    /// Waits until the state is as it should be.
    pub async fn until(&self, what: &str, is: impl FnMut(&State) -> bool) {
        let mut state = self.state.subscribe();
        let waited = tokio::time::timeout(PATIENCE, state.wait_for(is)).await;
        assert!(matches!(waited, Ok(Ok(_))), "the sink never came to: {what}");
    }

    /// Waits until a partition holds these rows.
    pub async fn has(&self, partition: u32, rows: u64) {
        let is = |state: &State| state.rows.get(&partition).map_or(0, Vec::len) as u64 >= rows;
        self.until(&format!("{rows} rows of partition {partition}"), is).await;
        assert_eq!(self.rows(partition), (0..rows).collect::<Vec<_>>());
    }

    /// Waits until `apply` was called so often.
    pub async fn called(&self, times: usize) {
        self.until(&format!("{times} calls"), |state| state.calls.len() >= times).await;
    }

    /// The next records of a partition are applied by another member.
    pub fn apply_elsewhere(&self, at: &TopicPartition, upto: u64) {
        self.state.send_modify(|state| {
            let from = state.checkpoint.positions.next(at);
            let call = Call {
                from: [(at.clone(), from)].into_iter().collect(),
                upto: [(at.clone(), upto.max(from))].into_iter().collect(),
                records: (from..upto).map(|offset| (at.partition, offset)).collect(),
                committed: true,
            };
            state.commit(IDENTITY, &call).unwrap();
        });
    }
}

pub struct ScriptedSink(pub Arc<Rows>);

impl ScriptedSink {
    fn commit(&self, log: &str, call: &mut Call) -> Result<(), SinkError> {
        let mut outcome = Ok(());
        self.0.state.send_modify(|state| {
            outcome = state.commit(log, call);
            call.committed = outcome.is_ok();
            if let Some(own) = state.calls.iter_mut().rev().find(|own| own.is_same(call) && !own.committed) {
                own.committed = call.committed;
            }
        });
        outcome.map_err(|actual| SinkError::Moved { actual })
    }
}

#[async_trait]
impl Sink for ScriptedSink {
    type In = Item;

    async fn checkpoint(&self) -> Result<Checkpoint, ProcessorError> {
        Ok(self.0.now().checkpoint.clone())
    }

    async fn reset(&self) -> Result<(), ProcessorError> {
        self.0.state.send_modify(|state| {
            state.checkpoint = Checkpoint::default();
            state.rows.clear();
            state.resets += 1;
        });
        Ok(())
    }

    fn check(&self, record: Item) -> Item {
        let unreadable = *self.0.unreadable.lock().unwrap();
        assert_ne!(unreadable, Some((record.0.position.partition, record.0.position.offset)), "unreadable");
        self.0.state.send_modify(|state| state.checked += 1);
        record
    }

    async fn pass(&self, log: &str, from: &Positions, upto: &Positions) -> Result<bool, SinkError> {
        if self.0.passes {
            let mut call = Call { from: from.clone(), upto: upto.clone(), records: Vec::new(), committed: false };
            self.commit(log, &mut call)?;
        }
        Ok(self.0.passes)
    }

    async fn apply(
        &self,
        log: &str,
        batch: &[Item],
        from: &Positions,
        upto: &Positions,
    ) -> Result<Vec<NewRecord>, SinkError> {
        let records = batch.iter().map(|item| (item.0.position.partition, item.0.position.offset)).collect();
        let mut call = Call { from: from.clone(), upto: upto.clone(), records, committed: false };
        self.0.state.send_modify(|state| state.calls.push(call.clone()));
        let act = (*self.0.script.lock().unwrap())(&call);
        match act {
            Act::Commit => {}
            Act::Wait => self.0.gate.acquire().await.unwrap().forget(),
            Act::CommitAfter(wait) => tokio::time::sleep(wait).await,
            Act::Hang => std::future::pending().await,
            Act::External => return Err(ProcessorError::unavailable("scripted").into()),
            Act::Internal => return Err(ProcessorError::internal("scripted").into()),
            Act::Panic => panic!("scripted"),
            Act::LoseAnswer => {
                self.commit(log, &mut call)?;
                return Err(ProcessorError::unavailable("the answer is lost").into());
            }
        }
        self.commit(log, &mut call)?;
        Ok((*self.0.notices.lock().unwrap())(&call))
    }
}
