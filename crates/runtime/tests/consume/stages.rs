//! Stages: outputs and the input position move as one, batches are prepared while others land.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use carbon_core::{ModelRef, Precision};
use carbon_runtime::consume::{Output, Phase, ProcessorError, ProcessorHandle, SOURCE_HEADER, Stage, spawn_stage};
use carbon_schemas::events::{EmbeddingGenerated, EmbeddingKey, EntityChanged};
use carbon_schemas::{Decoded, Event as _, Recorded};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use super::PATIENCE;
use super::running::{all, at, group, join, options, produce, shows, upto};
use super::script::{Answer, ScriptedLog};
use super::session::Served;
use super::sinks::Act;

type Script = Box<dyn FnMut(&[u64]) -> Act + Send>;

/// What a test and its stage share.
pub struct Work {
    /// The offsets of each call of `process`.
    pub calls: watch::Sender<Vec<Vec<u64>>>,
    pub gate: Semaphore,
    script: Mutex<Script>,
}

impl Work {
    pub fn script(&self, script: impl FnMut(&[u64]) -> Act + Send + 'static) {
        *self.script.lock().unwrap() = Box::new(script);
    }

    pub async fn called(&self, times: usize) {
        let mut calls = self.calls.subscribe();
        let waited = tokio::time::timeout(PATIENCE, calls.wait_for(|calls| calls.len() >= times)).await;
        assert!(waited.is_ok_and(|called| called.is_ok()), "`process` is not called {times} times");
    }
}

pub struct ScriptedStage(Arc<Work>);

fn output_key(entity: carbon_core::EntityKey) -> EmbeddingKey {
    EmbeddingKey { entity, model: ModelRef::new("scripted", "1", Precision::F32).unwrap() }
}

#[async_trait]
impl Stage for ScriptedStage {
    type In = EntityChanged;
    type Out = EmbeddingGenerated;

    async fn process(
        &self,
        batch: &[Recorded<EntityChanged>],
    ) -> Result<Vec<Output<EmbeddingGenerated>>, ProcessorError> {
        let offsets: Vec<u64> = batch.iter().map(|record| record.position.offset).collect();
        self.0.calls.send_modify(|calls| calls.push(offsets.clone()));
        let act = (*self.0.script.lock().unwrap())(&offsets);
        match act {
            Act::Wait => self.0.gate.acquire().await.unwrap().forget(),
            Act::Hang => std::future::pending().await,
            Act::External => return Err(ProcessorError::unavailable("scripted")),
            Act::Internal => return Err(ProcessorError::internal("scripted")),
            Act::Panic => panic!("scripted"),
            _ => {}
        }
        let key = |record: &Recorded<EntityChanged>| match &record.body {
            Decoded::Event { key, .. } => Output::Null(output_key(key.clone())),
            other => panic!("{other:?}"),
        };
        Ok(batch.iter().map(key).collect())
    }

    fn owns(&self, key: &EmbeddingKey) -> bool {
        key.model.to_string().starts_with("scripted")
    }
}

/// A running stage.
pub struct RunningStage {
    pub log: Arc<ScriptedLog>,
    pub work: Arc<Work>,
    pub handle: ProcessorHandle,
}

impl RunningStage {
    pub fn start(records: usize, script: impl FnMut(&[u64]) -> Act + Send + 'static) -> Self {
        Self::start_on(ScriptedLog::new(), records, script)
    }

    pub fn start_on(log: Arc<ScriptedLog>, records: usize, script: impl FnMut(&[u64]) -> Act + Send + 'static) -> Self {
        let work = Arc::new(Work {
            calls: watch::Sender::new(Vec::new()),
            gate: Semaphore::new(0),
            script: Mutex::new(Box::new(script)),
        });
        let handle = spawn_stage(ScriptedStage(work.clone()), options(&log, records));
        Self { log, work, handle }
    }

    /// The source positions of all outputs, in order.
    pub fn sources(&self) -> Vec<String> {
        let source = |record: &&carbon_log::Record| {
            let header = record.headers.iter().find(|(name, _)| name == SOURCE_HEADER).unwrap();
            String::from_utf8(header.1.clone()).unwrap()
        };
        self.log.held().records(EmbeddingGenerated::NAME).iter().map(source).collect()
    }

    pub fn expected(partition: u32, count: u64) -> Vec<String> {
        (0..count).map(|offset| format!("{}:{partition}:{offset}", EntityChanged::NAME)).collect()
    }

    pub async fn done(&self, partition: u32, next: u64) {
        let what = format!("offset {next} of partition {partition}");
        self.log.until(&what, |held| held.committed(&group()).next(&at(partition)) >= next).await;
    }

    pub async fn stop(self) {
        self.handle.stop();
        join(self.handle).await;
    }
}

#[tokio::test(start_paused = true)]
async fn law_5_each_input_has_one_output_in_order_and_ends_pass_markers() {
    let stage = RunningStage::start(3, |_| Act::Commit);
    produce(&stage.log, 0, 8);
    stage.log.marker(&at(0));
    let mut session = stage.log.joined().await;
    assert_eq!(session.assign(&all(&[0])).await, upto(0, 0));
    session.deliver_all(&at(0)).await;
    stage.done(0, 9).await;
    assert_eq!(stage.sources(), RunningStage::expected(0, 8));
    shows(&stage.handle.view(), "the end", |now| now.has_reached(&upto(0, 9))).await;
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_prepared_while_the_one_before_lands() {
    let stage = RunningStage::start(2, |_| Act::Commit);
    stage.log.script_advances(|_| Answer::Wait);
    produce(&stage.log, 0, 6);
    let mut session = stage.log.joined().await;
    session.assign(&all(&[0])).await;
    session.deliver_all(&at(0)).await;
    stage.work.called(2).await;
    assert!(stage.sources().is_empty());
    // Not further ahead than one batch.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(*stage.work.calls.borrow(), [[0, 1], [2, 3]]);
    stage.log.gate.add_permits(10);
    stage.done(0, 6).await;
    assert_eq!(stage.sources(), RunningStage::expected(0, 6));
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_fenced_stage_joins_again_from_the_committed_offsets() {
    let stage = RunningStage::start(10, |_| Act::Commit);
    stage.log.script_advances(|_| Answer::Wait);
    produce(&stage.log, 0, 4);
    let mut session = stage.log.joined().await;
    session.assign(&all(&[0])).await;
    session.deliver(&at(0), 4).await;
    stage.log.until("an append", |held| held.appends == 1).await;
    // Another member was faster with the first three.
    stage.log.set_committed(&group(), &upto(0, 3));
    stage.log.gate.add_permits(10);
    session.left().await;
    let mut session = stage.log.joined().await;
    assert_eq!(session.assign(&all(&[0])).await, upto(0, 3));
    session.deliver_all(&at(0)).await;
    stage.done(0, 4).await;
    assert_eq!(stage.sources(), RunningStage::expected(0, 4)[3..]);
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_advance_whose_answer_is_lost_happened_once() {
    let stage = RunningStage::start(10, |_| Act::Commit);
    let mut lost = false;
    stage.log.script_advances(move |_| match std::mem::replace(&mut lost, true) {
        false => Answer::LoseIt,
        true => Answer::Accept,
    });
    produce(&stage.log, 0, 4);
    let _served = Served::start(&stage.log, &all(&[0]));
    stage.done(0, 4).await;
    produce(&stage.log, 0, 2);
    stage.done(0, 6).await;
    assert_eq!(stage.sources(), RunningStage::expected(0, 6));
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_stage_without_committed_offsets_resumes_after_its_outputs() {
    let log = ScriptedLog::new();
    produce(&log, 0, 5);
    let first = RunningStage::start_on(log.clone(), 10, |_| Act::Commit);
    {
        let _served = Served::start(&log, &all(&[0]));
        first.done(0, 5).await;
        first.stop().await;
    }
    log.forget(&group());
    let second = RunningStage::start_on(log.clone(), 10, |_| Act::Commit);
    let mut session = log.joined().await;
    assert_eq!(session.assign(&all(&[0, 1])).await, [(at(0), 5), (at(1), 0)].into_iter().collect());
    assert_eq!(log.held().committed(&group()).next(&at(0)), 5);
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn preparing_is_tried_again_in_place_and_then_the_group_is_left() {
    let stage = RunningStage::start(10, |_| Act::External);
    produce(&stage.log, 0, 3);
    let mut session = stage.log.joined().await;
    session.assign(&all(&[0])).await;
    session.deliver(&at(0), 3).await;
    let began = Instant::now();
    stage.work.called(3).await;
    shows(&stage.handle.view(), "retrying", |now| matches!(now.phase, Phase::Retrying { .. })).await;
    assert!(!session.has_left());
    session.left().await;
    assert!((2..10).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    assert!(stage.work.calls.borrow().iter().all(|call| *call == [0, 1, 2]));
    // Nothing was lost when it works again.
    stage.work.script(|_| Act::Commit);
    let _served = Served::start(&stage.log, &all(&[0]));
    stage.done(0, 3).await;
    assert_eq!(stage.sources(), RunningStage::expected(0, 3));
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_revocation_is_acknowledged_within_seconds_while_preparing_fails_or_hangs() {
    for (act, within) in [(Act::External, Duration::from_secs(4)), (Act::Hang, Duration::from_secs(11))] {
        let stage = RunningStage::start(10, move |_| act);
        produce(&stage.log, 0, 3);
        let mut session = stage.log.joined().await;
        session.assign(&all(&[0])).await;
        session.deliver(&at(0), 3).await;
        stage.work.called(1).await;
        let began = Instant::now();
        let done = session.revoke(&all(&[0])).await;
        tokio::time::timeout(within, done).await.expect("acknowledged").unwrap();
        assert!(began.elapsed() <= within, "{act:?}");
        // What was not prepared is read again by whoever has the partition.
        stage.work.script(|_| Act::Commit);
        let _served = Served::start(&stage.log, &all(&[0]));
        stage.done(0, 3).await;
        assert_eq!(stage.sources(), RunningStage::expected(0, 3));
        stage.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_lands_while_preparing_fails_lands_before_the_revocation_is_acknowledged() {
    let stage = RunningStage::start(3, |offsets| if offsets[0] == 0 { Act::Commit } else { Act::External });
    stage.log.script_advances(|_| Answer::Wait);
    produce(&stage.log, 0, 5);
    let mut session = stage.log.joined().await;
    session.assign(&all(&[0])).await;
    session.deliver(&at(0), 5).await;
    stage.work.called(2).await;
    let mut done = session.revoke(&all(&[0])).await;
    tokio::select! {
        _ = &mut done => panic!("acknowledged before the batch landed"),
        () = tokio::time::sleep(Duration::from_secs(2)) => {}
    }
    stage.log.gate.add_permits(1);
    tokio::time::timeout(Duration::from_secs(1), done).await.expect("acknowledged").unwrap();
    assert_eq!(stage.sources(), RunningStage::expected(0, 3));
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_within_seconds_while_preparing_hangs() {
    let stage = RunningStage::start(10, |_| Act::Hang);
    produce(&stage.log, 0, 3);
    let mut session = stage.log.joined().await;
    session.assign(&all(&[0])).await;
    session.deliver(&at(0), 3).await;
    stage.work.called(1).await;
    let began = Instant::now();
    stage.stop().await;
    assert!(began.elapsed() <= Duration::from_secs(11), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_process_halts_at_the_culprit_after_what_is_before_it_landed() {
    // Commits take longer than the panic: the batch that lands is not thrown away by the one that fails behind it.
    for slow in [Duration::ZERO, Duration::from_secs(1)] {
        let stage = RunningStage::start(10, |offsets| if offsets.contains(&5) { Act::Panic } else { Act::Commit });
        stage.log.script_advances(move |_| Answer::After(slow));
        produce(&stage.log, 0, 8);
        let _served = Served::start(&stage.log, &all(&[0]));
        let view = stage.handle.view();
        shows(&view, "halted", |now| matches!(now.phase, Phase::Halted { .. })).await;
        let Phase::Halted { at: halted, error } = view.progress.borrow().phase.clone() else { unreachable!() };
        assert_eq!(halted, format!("{}:0:5", EntityChanged::NAME));
        assert!(error.contains("scripted") && error.contains("stages.rs"), "{error}");
        assert_eq!(stage.sources(), RunningStage::expected(0, 5));
        let culprits = stage.work.calls.borrow().iter().filter(|call| call.contains(&5)).count();
        assert!((5..=6).contains(&culprits), "{culprits}");
        stage.work.script(|_| Act::Commit);
        stage.done(0, 8).await;
        assert_eq!(stage.sources(), RunningStage::expected(0, 8));
        stage.stop().await;
    }
}
