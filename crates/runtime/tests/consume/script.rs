//! A log in memory whose subscriptions the test scripts, delivery by delivery.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use carbon_core::{Position, Positions, Timestamp, TopicName, TopicPartition, TopicSpec};
use carbon_log::{
    Delivery, EventLog, Foreign, Group, GroupDescription, LogError, NewRecord, Placement, Record, RecordStream,
    TopicDescription, Value,
};
use carbon_schemas::{SchemaId, frame};
use carbon_topology::Topology;
use tokio::sync::{Mutex, Semaphore, mpsc, watch};

use super::PATIENCE;
use super::session::Session;

/// The name of this log in checkpoints.
pub const IDENTITY: &str = "scripted";

/// What the log answers to an append, before it does anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Accept,
    Unavailable,
    /// Waits for a permit of [`ScriptedLog::gate`], and accepts then.
    Wait,
    /// Accepts after this time.
    After(Duration),
    /// Accepts, and says that it failed.
    LoseIt,
}

type Script = Box<dyn FnMut(&[NewRecord]) -> Answer + Send>;

/// What the log holds.
#[derive(Default)]
pub struct Held {
    /// `None` is a transaction marker.
    partitions: BTreeMap<TopicPartition, Vec<Option<Record>>>,
    committed: BTreeMap<Group, Positions>,
    /// The commits of offsets, in order.
    pub commits: Vec<Positions>,
    /// Appends with records, and appends that advance, also those that failed.
    pub appends: usize,
}

impl Held {
    pub fn records(&self, topic: &str) -> Vec<&Record> {
        let of_topic = self.partitions.iter().filter(|(at, _)| at.topic.as_str() == topic);
        of_topic.flat_map(|(_, records)| records.iter().flatten()).collect()
    }

    pub fn committed(&self, group: &Group) -> Positions {
        self.committed.get(group).cloned().unwrap_or_default()
    }

    fn end(&self, at: &TopicPartition) -> u64 {
        self.partitions.get(at).map_or(0, |records| records.len() as u64)
    }

    fn push(&mut self, at: TopicPartition, record: &NewRecord) -> Position {
        let position = Position::new(at.topic.clone(), at.partition, self.end(&at));
        let value = match &record.value {
            Value::Null => None,
            Value::Body { schema, avro } => Some(Bytes::from(frame(SchemaId::Fingerprint(*schema), avro))),
            Value::Raw(bytes) => Some(Bytes::from(bytes.clone())),
        };
        let record = Record {
            position: position.clone(),
            timestamp: Timestamp(1_700_000_000_000 + position.offset as i64),
            key: record.key.clone().map(Bytes::from),
            value,
            headers: record.headers.clone(),
        };
        self.partitions.entry(at).or_default().push(Some(record));
        position
    }
}

pub struct ScriptedLog {
    specs: BTreeMap<TopicName, TopicSpec>,
    pub(super) held: watch::Sender<Held>,
    script: std::sync::Mutex<Script>,
    advances: std::sync::Mutex<Script>,
    /// Lets waiting appends go on, one for each permit.
    pub gate: Semaphore,
    joins: mpsc::UnboundedSender<mpsc::Sender<Result<Delivery, LogError>>>,
    joined: Mutex<mpsc::UnboundedReceiver<mpsc::Sender<Result<Delivery, LogError>>>>,
}

impl ScriptedLog {
    pub fn new() -> Arc<Self> {
        let specs = Topology::builtin().unwrap().specs().into_iter().map(|spec| (spec.name.clone(), spec)).collect();
        let (joins, joined) = mpsc::unbounded_channel();
        Arc::new(Self {
            specs,
            held: watch::Sender::new(Held::default()),
            script: std::sync::Mutex::new(Box::new(|_| Answer::Accept)),
            advances: std::sync::Mutex::new(Box::new(|_| Answer::Accept)),
            gate: Semaphore::new(0),
            joins,
            joined: Mutex::new(joined),
        })
    }

    /// Says what the next appends are answered.
    pub fn script(&self, script: impl FnMut(&[NewRecord]) -> Answer + Send + 'static) {
        *self.script.lock().unwrap() = Box::new(script);
    }

    /// Says what the next appends that advance a group are answered.
    pub fn script_advances(&self, script: impl FnMut(&[NewRecord]) -> Answer + Send + 'static) {
        *self.advances.lock().unwrap() = Box::new(script);
    }

    pub fn held(&self) -> watch::Ref<'_, Held> {
        self.held.borrow()
    }

    /// Waits until the log is as it should be.
    pub async fn until(&self, what: &str, is: impl FnMut(&Held) -> bool) {
        let mut held = self.held.subscribe();
        let waited = tokio::time::timeout(PATIENCE, held.wait_for(is)).await;
        assert!(matches!(waited, Ok(Ok(_))), "the log never came to: {what}");
    }

    /// Stores a record, whatever appends are answered.
    pub fn put(&self, record: NewRecord) {
        self.store(&[record], None).unwrap();
    }

    /// A marker, which has an offset and is never delivered.
    pub fn marker(&self, at: &TopicPartition) {
        self.held.send_modify(|held| held.partitions.entry(at.clone()).or_default().push(None));
    }

    /// The records of a partition in a range of offsets.
    pub fn stored(&self, at: &TopicPartition, from: u64, to: u64) -> Vec<Record> {
        let held = self.held.borrow();
        let all = held.partitions.get(at).map(Vec::as_slice).unwrap_or_default();
        let (from, to) = ((from as usize).min(all.len()), (to as usize).min(all.len()));
        all[from..to.max(from)].iter().flatten().cloned().collect()
    }

    pub fn end(&self, at: &TopicPartition) -> u64 {
        self.held.borrow().end(at)
    }

    /// The next member that joins.
    pub async fn joined(self: &Arc<Self>) -> Session {
        tokio::time::timeout(PATIENCE, self.joined_at_any_time()).await.expect("nobody joined")
    }

    pub(super) async fn joined_at_any_time(self: &Arc<Self>) -> Session {
        let deliveries = self.joined.lock().await.recv().await.unwrap();
        Session::new(self.clone(), deliveries)
    }

    /// Moves a group's offsets, as another member does.
    pub fn set_committed(&self, group: &Group, positions: &Positions) {
        self.held.send_modify(|held| {
            let own = held.committed.entry(group.clone()).or_default();
            positions.iter().for_each(|(at, next)| own.set(at.clone(), next));
        });
    }

    /// Forgets a group's offsets, as a log does after their retention.
    pub fn forget(&self, group: &Group) {
        self.held.send_modify(|held| drop(held.committed.remove(group)));
    }

    fn place(&self, record: &NewRecord) -> Result<TopicPartition, LogError> {
        let spec = self.specs.get(&record.topic).ok_or_else(|| LogError::UnknownTopic(record.topic.clone()))?;
        let partition = match &record.placement {
            Placement::ByKey(key) => spec.partitioner.partition(key, spec.partitions),
            Placement::Partition(partition) => *partition,
        };
        Ok(TopicPartition::new(record.topic.clone(), partition))
    }

    /// Appends, and moves a group, all or nothing.
    fn store(
        &self,
        records: &[NewRecord],
        advance: Option<(&Group, &Positions, &Positions)>,
    ) -> Result<Vec<Position>, LogError> {
        let places = records.iter().map(|record| self.place(record)).collect::<Result<Vec<_>, _>>()?;
        let mut outcome = Ok(Vec::new());
        self.held.send_modify(|held| {
            if let Some((group, from, upto)) = advance {
                let own = held.committed.entry(group.clone()).or_default();
                if upto.iter().any(|(at, _)| own.next(at) != from.next(at)) {
                    outcome = Err(LogError::Fenced { group: group.to_string(), actual: own.clone() });
                    return;
                }
                upto.iter().for_each(|(at, next)| own.set(at.clone(), next));
            }
            outcome = Ok(places.into_iter().zip(records).map(|(at, record)| held.push(at, record)).collect());
        });
        outcome
    }

    async fn answer(
        &self,
        answer: Answer,
        records: &[NewRecord],
        advance: Option<(&Group, &Positions, &Positions)>,
    ) -> Result<Vec<Position>, LogError> {
        self.held.send_modify(|held| held.appends += 1);
        match answer {
            Answer::Accept => self.store(records, advance),
            Answer::Unavailable => Err(LogError::Unavailable("scripted".into())),
            Answer::Wait => {
                self.gate.acquire().await.unwrap().forget();
                self.store(records, advance)
            }
            Answer::After(wait) => {
                tokio::time::sleep(wait).await;
                self.store(records, advance)
            }
            Answer::LoseIt => {
                self.store(records, advance)?;
                Err(LogError::Unavailable("the answer is lost".into()))
            }
        }
    }
}

#[async_trait]
impl EventLog for ScriptedLog {
    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Position>, LogError> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let answer = (*self.script.lock().unwrap())(&records);
        self.answer(answer, &records, None).await
    }

    async fn append_and_advance(
        &self,
        group: &Group,
        records: Vec<NewRecord>,
        from: &Positions,
        upto: &Positions,
    ) -> Result<Vec<Position>, LogError> {
        if records.is_empty() && upto.is_empty() {
            return Ok(Vec::new());
        }
        let answer = (*self.advances.lock().unwrap())(&records);
        self.answer(answer, &records, Some((group, from, upto))).await
    }

    async fn subscribe(&self, _: &Group, _: &[TopicName]) -> Result<RecordStream, LogError> {
        // Wide, so that a test can put several messages there before the member looks.
        let (sender, deliveries) = mpsc::channel(256);
        self.joins.send(sender).map_err(|_| LogError::Closed)?;
        Ok(RecordStream::new(deliveries))
    }

    async fn follow(&self, from: &Positions) -> Result<RecordStream, LogError> {
        let (sender, deliveries) = mpsc::channel(256);
        let (mut held, mut next) = (self.held.subscribe(), from.clone());
        tokio::spawn(async move {
            let mut ended = false;
            loop {
                let mut found = Vec::new();
                for (at, from) in next.clone().iter() {
                    let held = held.borrow_and_update();
                    let all = held.partitions.get(at).map(Vec::as_slice).unwrap_or_default();
                    found.extend(all[(from as usize).min(all.len())..].iter().flatten().cloned());
                }
                found.iter().for_each(|record| next.advance_past(&record.position));
                if !found.is_empty() && sender.send(Ok(Delivery::Records(found))).await.is_err() {
                    return;
                }
                if !std::mem::replace(&mut ended, true) {
                    for (at, next) in next.iter() {
                        let _ = sender.send(Ok(Delivery::Ended { at: at.clone(), next })).await;
                    }
                }
                tokio::select! {
                    changed = held.changed() => if changed.is_err() { return },
                    () = sender.closed() => return,
                }
            }
        });
        Ok(RecordStream::new(deliveries))
    }

    async fn read(&self, at: &TopicPartition, from: u64, max: usize) -> Result<Vec<Record>, LogError> {
        Ok(self.stored(at, from, from + max as u64))
    }

    async fn commit(&self, group: &Group, positions: &Positions) -> Result<(), LogError> {
        self.set_committed(group, positions);
        self.held.send_modify(|held| held.commits.push(positions.clone()));
        Ok(())
    }

    async fn committed(&self, group: &Group) -> Result<Positions, LogError> {
        Ok(self.held.borrow().committed(group))
    }

    async fn groups(&self) -> Result<Vec<GroupDescription>, LogError> {
        Ok(Vec::new())
    }

    async fn ends(&self, topic: &TopicName) -> Result<Positions, LogError> {
        let spec = self.specs.get(topic).ok_or_else(|| LogError::UnknownTopic(topic.clone()))?;
        let partitions = (0..spec.partitions).map(|partition| TopicPartition::new(topic.clone(), partition));
        Ok(partitions.map(|at| (at.clone(), self.end(&at))).collect())
    }

    async fn positions_for_time(&self, topic: &TopicName, _: Timestamp) -> Result<Positions, LogError> {
        self.ends(topic).await
    }

    async fn ensure_topics(&self, _: &[TopicSpec]) -> Result<(), LogError> {
        Ok(())
    }

    async fn describe(&self) -> Result<Vec<TopicDescription>, LogError> {
        Ok(Vec::new())
    }

    async fn delete_records(&self, _: &Positions) -> Result<(), LogError> {
        Ok(())
    }

    async fn put_schema(&self, _: &str, _: &str) -> Result<SchemaId, LogError> {
        Err(LogError::Unavailable("not scripted".into()))
    }

    async fn schema(&self, _: SchemaId) -> Result<Option<String>, LogError> {
        Ok(None)
    }

    fn identity(&self) -> &str {
        IDENTITY
    }

    async fn recognise(&self, log: &str, _: &Positions) -> Result<Option<Foreign>, LogError> {
        Ok((log != IDENTITY).then(|| Foreign::UnknownOpening { checkpoint: log.to_owned() }))
    }

    async fn size(&self) -> Result<Option<u64>, LogError> {
        Ok(None)
    }

    async fn close(&self) {}
}
