//! One session of the loop: from the join of the group to its loss.

use std::time::Duration;

use carbon_core::{Positions, TopicPartition};
use carbon_log::{Delivery, Record, RecordStream};
use carbon_schemas::{DecodeError, Event as _, Feed};
use tokio::time::Instant;

use super::batch::{Worker, WorkerError};
use super::error::ProcessorError;
use super::flight::Arrival;
use super::landing::Landed;
use super::progress::Phase;
use super::run::{Left, Loop};
use crate::dead_letters::dead_letter;
use crate::panics::caught;

/// How often a sink commits its group's offsets.
const ADVICE: Duration = Duration::from_secs(1);

/// How long a processor keeps its partitions while nothing lands and it can take no more records.
const LONGEST_FULL: Duration = Duration::from_secs(30);

/// How long what is under way may take to land before a revocation is acknowledged, or a shutdown goes on. What does not
/// land in this time is read again from the checkpoint.
const DRAIN: Duration = Duration::from_secs(10);

impl<W: Worker> Loop<W> {
    pub(super) async fn consume(&mut self, mut stream: RecordStream) -> Result<Left, ProcessorError> {
        let shutdown = self.options.shutdown.clone();
        let mut full_since = None;
        loop {
            if !self.pump().await? {
                return Ok(Left::Rejoin);
            }
            let room = self.flight.pending() < self.options.batch.records;
            // While there is no room a revocation is not seen, since it comes after records.
            let full_until = (!room).then(|| *full_since.get_or_insert_with(Instant::now) + LONGEST_FULL);
            if room {
                full_since = None;
            } else if full_until.is_some_and(|until| until <= Instant::now()) {
                return Err(ProcessorError::unavailable(
                    "no batch has landed for 30 s; leaving the group to join again",
                ));
            }
            let due = [self.advice_due, self.flight.due(), full_until].into_iter().flatten().min();
            let delivery = tokio::select! {
                biased;
                () = shutdown.cancelled() => {
                    if self.drain().await? {
                        self.advise().await?;
                    }
                    return Ok(Left::Shutdown);
                }
                arrival = self.flight.next() => {
                    if !self.arrived(arrival)? {
                        return Ok(Left::Rejoin);
                    }
                    continue;
                }
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => continue,
                delivery = stream.next(), if room => delivery,
            };
            match delivery {
                Some(delivery) => {
                    if !self.take_all(delivery?, &mut stream).await? {
                        return Ok(Left::Rejoin);
                    }
                }
                None => return Ok(if shutdown.is_cancelled() { Left::Shutdown } else { Left::Rejoin }),
            }
        }
    }

    /// Does what is due: ends are passed, batches start, notifications and offsets go to the log. False when the position
    /// is lost.
    async fn pump(&mut self) -> Result<bool, ProcessorError> {
        self.flight.pay().await;
        if self.advice_due.is_some_and(|due| due <= Instant::now()) {
            self.advise().await?;
        }
        // A batch that lands holds the checkpoint.
        if !self.flight.is_landing() && !self.pass_ends().await? {
            return Ok(false);
        }
        self.start();
        let idle = self.flight.is_empty();
        self.progress.send_if_modified(|now| {
            match (idle, now.busy_since) {
                (true, _) => now.busy_since = None,
                (false, None) => now.busy_since = Some(Instant::now()),
                (false, Some(_)) => {}
            }
            false
        });
        Ok(true)
    }

    /// Starts the batches that can start: whole ones, or single records after a fault.
    fn start(&mut self) {
        let careful = self.faults.is_careful();
        let most = if careful { 1 } else { self.options.batch.records };
        self.flight.start(most, careful, &self.committed);
    }

    /// Takes a message, and those that are there already: a batch fills up to its number of records, or for its linger.
    /// An empty queue starts it at once.
    async fn take_all(&mut self, mut delivery: Delivery, stream: &mut RecordStream) -> Result<bool, ProcessorError> {
        let began = Instant::now();
        loop {
            if !self.take(delivery).await? {
                return Ok(false);
            }
            let lingered = began.elapsed() >= self.options.batch.linger && self.flight.is_free();
            if lingered || self.flight.pending() >= self.options.batch.records {
                return Ok(true);
            }
            match stream.try_next() {
                Some(next) => delivery = next?,
                None => return Ok(true),
            }
        }
    }

    /// Takes one message; false when the partitions are gone.
    async fn take(&mut self, delivery: Delivery) -> Result<bool, ProcessorError> {
        match delivery {
            Delivery::Assigned { partitions, start } => self.assigned(&partitions, start).await,
            Delivery::Records(records) => self.decode_all(records).await,
            Delivery::Ended { at, next } => {
                self.ended.set(at, next);
                Ok(true)
            }
            Delivery::Revoked { partitions, done } => {
                let drained = self.drain().await;
                if matches!(drained, Ok(true)) {
                    self.advise().await?;
                }
                for at in &partitions {
                    self.committed.remove(at);
                    self.ended.remove(at);
                    self.at_end.remove(at);
                }
                self.faults.keep_only(&self.committed);
                self.forget_halted(&partitions);
                self.progress.send_modify(|now| partitions.iter().for_each(|at| now.positions.remove(at)));
                let _ = done.send(());
                drained
            }
        }
    }

    async fn assigned(
        &mut self,
        partitions: &[TopicPartition],
        start: tokio::sync::oneshot::Sender<Positions>,
    ) -> Result<bool, ProcessorError> {
        if !self.drain().await? {
            return Ok(false);
        }
        // The checkpoint may be thrown away: nobody may take the old positions for what the rows hold.
        self.progress.send_modify(|now| partitions.iter().for_each(|at| now.positions.remove(at)));
        let (positions, rebuilt) = self.worker.start(partitions).await?;
        // A cooperative rebalance adds to what is here already.
        positions.iter().for_each(|(at, next)| self.committed.set(at.clone(), next));
        self.faults.keep_only(&self.committed);
        let clean = self.faults.is_clean();
        self.forget_halted(partitions);
        self.progress.send_modify(|now| {
            positions.iter().for_each(|(at, next)| now.positions.set(at.clone(), next));
            if clean {
                now.phase = Phase::Running;
            }
            now.rebuilt = rebuilt.or(now.rebuilt.take());
        });
        if self.worker.owes_advice(&positions) {
            self.advice_due.get_or_insert_with(Instant::now);
        }
        tracing::debug!(processor = %self.options.name, group = %self.options.group, %positions, "assigned");
        let _ = start.send(positions);
        if let Err(error) = self.worker.open().await {
            tracing::debug!(processor = %self.options.name, %error, "not opened beforehand");
        }
        Ok(true)
    }

    /// False when the position is lost. Where a record makes the decoder panic, those before it land first: the processor
    /// halts at the culprit.
    async fn decode_all(&mut self, records: Vec<Record>) -> Result<bool, ProcessorError> {
        let mut culprit = Positions::new();
        let decoded = caught(async {
            for record in records {
                culprit = Positions::from_iter([(record.position.topic_partition(), record.position.offset)]);
                self.decode(record).await?;
            }
            Ok::<_, ProcessorError>(())
        });
        match decoded.await {
            Ok(decoded) => decoded.map(|()| true),
            Err(panic) => match self.drain().await? {
                true => Err(ProcessorError::from(panic).at(&culprit)),
                false => Ok(false),
            },
        }
    }

    async fn decode(&mut self, record: Record) -> Result<(), ProcessorError> {
        if self.waits_for_newer(&record.position.topic_partition()) {
            return Ok(());
        }
        let decoded = loop {
            match W::In::decode(&mut self.decoders, &record.raw()) {
                Ok(decoded) => break self.worker.check(decoded),
                Err(DecodeError::NeedSchema(id)) => {
                    // A registry that does not answer is waited for, by the retry of the whole stream.
                    let schema = self.options.log.schema(id).await?;
                    W::In::learn(&mut self.decoders, record.position.topic.as_str(), id, schema.as_deref());
                }
                Err(DecodeError::Newer { position, needs }) => {
                    tracing::error!(processor = %self.options.name, %position, needs, "halted: a newer program wrote this record");
                    self.set_halted(position.topic_partition(), needs);
                    return Ok(());
                }
            }
        };
        if let Some(poison) = decoded.poison()
            && self.worker.reports(&record.position)
        {
            let (reason, position) = (poison.reason.as_str(), &record.position);
            tracing::warn!(processor = %self.options.name, %position, reason, message = %poison.message, "dead letter");
            metrics::counter!("dead_letters_total", "processor" => self.options.name.clone(), "reason" => reason)
                .increment(1);
            // A poisonous dead letter ends here: reporting it would go in a circle.
            if record.position.topic.as_str() != carbon_schemas::events::DeadLetter::NAME {
                self.flight.push_letter(dead_letter(&self.options.name, &record, poison)?);
            }
            self.progress.send_modify(|now| *now.dead_letters.entry(reason).or_default() += 1);
        }
        self.at_end.remove(&record.position.topic_partition());
        self.flight.push(decoded);
        Ok(())
    }

    /// Passes the ends that were seen, but those of partitions that have records under way.
    async fn pass_ends(&mut self) -> Result<bool, ProcessorError> {
        if self.ended.is_empty() {
            return Ok(true);
        }
        let busy = self.flight.partitions();
        for (at, next) in std::mem::take(&mut self.ended).iter() {
            if busy.contains(at) {
                self.ended.set(at.clone(), next);
            } else if !self.waits_for_newer(at) && !self.pass(at.clone(), next).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The end of a partition was seen: what lies before it was compacted away, or is a transaction's marker.
    async fn pass(&mut self, at: TopicPartition, next: u64) -> Result<bool, ProcessorError> {
        let known = self.progress.borrow().positions.next(&at);
        if known < next {
            let from = Positions::from_iter([(at.clone(), self.committed.next(&at))]);
            let upto = Positions::from_iter([(at.clone(), next)]);
            let commits = self.options.gate.enter().await;
            match self.worker.pass(&from, &upto).await {
                Ok(true) => self.committed.set(at.clone(), next),
                Ok(false) => {}
                Err(WorkerError::Lost { actual }) => return Ok(self.lost(&actual, &from)),
                Err(WorkerError::Failed(error)) => return Err(error),
            }
            self.progress.send_modify(|now| now.positions.set(at.clone(), next));
            drop(commits);
            self.advice_due.get_or_insert_with(|| Instant::now() + ADVICE);
        }
        self.at_end.insert(at);
        if self.flight.is_empty() && self.committed.iter().all(|(at, _)| self.at_end.contains(at)) {
            self.caught_up();
        }
        Ok(true)
    }

    /// Nothing is left to fail.
    fn caught_up(&mut self) {
        self.faults.landed(&self.committed);
        self.backoff.succeeded();
        self.progress.send_if_modified(|now| {
            let changed = now.phase != Phase::Running;
            now.phase = Phase::Running;
            changed
        });
    }

    fn lost(&self, actual: &Positions, from: &Positions) -> bool {
        tracing::warn!(processor = %self.options.name, %actual, %from, "position moved by another member; joining again");
        false
    }

    /// False when the position is lost.
    fn arrived(&mut self, arrival: Arrival<W>) -> Result<bool, ProcessorError> {
        match arrival {
            Arrival::Landed(landed) => Ok(self.landed(landed?)),
            Arrival::Prepared(ready) => self.flight.was_prepared(ready).map(|()| true),
        }
    }

    /// False when the position is lost.
    fn landed(&mut self, landed: Landed) -> bool {
        match landed {
            Landed::At { upto, owed } => {
                self.committed.merge(&upto);
                self.flight.landed(&upto, owed);
                self.faults.landed(&self.committed);
                self.backoff.succeeded();
                self.advice_due.get_or_insert_with(|| Instant::now() + ADVICE);
                true
            }
            Landed::Lost { actual, from } => self.lost(&actual, &from),
            Landed::GivenUp => false,
        }
    }

    /// Lets everything under way land, for at most 10 s. False when it did not, or when the position is lost: the session
    /// ends then, and what is missing is read again.
    async fn drain(&mut self) -> Result<bool, ProcessorError> {
        match tokio::time::timeout(DRAIN, self.drain_all()).await {
            Ok(drained) => drained,
            Err(_) => {
                tracing::warn!(processor = %self.options.name, "a batch did not land within 10 s; it is read again");
                Ok(false)
            }
        }
    }

    async fn drain_all(&mut self) -> Result<bool, ProcessorError> {
        let mut whole = true;
        loop {
            self.start();
            // What cannot be prepared at present is not waited for.
            if self.flight.is_retrying() {
                self.flight.drop_unprepared();
                whole = false;
            }
            if self.flight.is_empty() {
                return Ok(whole);
            }
            let arrival = self.flight.next().await;
            if !self.arrived(arrival)? {
                return Ok(false);
            }
        }
    }

    /// Commits the group's offsets, with the ends that were seen, so that the log shows no lag where there is none.
    async fn advise(&mut self) -> Result<(), ProcessorError> {
        if self.advice_due.take().is_some() {
            let mut positions = self.committed.clone();
            let seen = self.progress.borrow().positions.clone();
            // Positions of an earlier session may be of partitions that another member has now.
            let own = seen.iter().filter(|(at, _)| self.committed.get(at).is_some());
            positions.merge(&own.map(|(at, next)| (at.clone(), next)).collect());
            self.worker.advise(&positions).await?;
        }
        Ok(())
    }
}
