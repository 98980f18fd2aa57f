//! Any script of records, faults and rebalances ends with every record applied exactly once and in order.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use carbon_log::LogError;
use proptest::prelude::*;

use super::PATIENCE;
use super::running::{Running, all, at, poison, produce_with};
use super::session::Session;
use super::sinks::{Act, Rows};

const PARTITIONS: [u32; 2] = [0, 1];

/// A step of a script.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// So many records are appended and delivered; every seventh is poison.
    Records(u32, u64),
    /// The end of a partition is seen.
    Ended(u32),
    /// What the next call of `apply` does.
    Next(Act),
    /// Another member applies so many records.
    Elsewhere(u32, u64),
    /// The partition goes and comes back.
    Revoke(u32),
    /// The log ends the stream.
    Close,
    /// The stream fails.
    Fail,
    /// Time passes.
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let partition = 0..PARTITIONS.len() as u32;
    let act = prop_oneof![
        Just(Act::CommitAfter(Duration::from_secs(2))),
        Just(Act::CommitAfter(Duration::from_secs(15))),
        Just(Act::External),
        Just(Act::Internal),
        Just(Act::Panic),
        Just(Act::LoseAnswer),
    ];
    prop_oneof![
        6 => (partition.clone(), 1..9_u64).prop_map(|(at, count)| Step::Records(at, count)),
        2 => partition.clone().prop_map(Step::Ended),
        5 => act.prop_map(Step::Next),
        1 => (partition.clone(), 1..4_u64).prop_map(|(at, count)| Step::Elsewhere(at, count)),
        2 => partition.prop_map(Step::Revoke),
        1 => Just(Step::Close),
        1 => Just(Step::Fail),
        3 => (1..3000_u64).prop_map(Step::Pass),
    ]
}

struct Driver {
    run: Running,
    acts: Arc<Mutex<VecDeque<Act>>>,
    session: Option<Session>,
}

impl Driver {
    fn start(batch: usize, passes: bool) -> Self {
        let run = Running::shared(Rows::with(passes), batch);
        let acts = Arc::new(Mutex::new(VecDeque::new()));
        let next = acts.clone();
        run.rows.script(move |_| next.lock().unwrap().pop_front().unwrap_or(Act::Commit));
        Self { run, acts, session: None }
    }

    /// The member that is there, with all partitions.
    async fn session(&mut self) -> &mut Session {
        loop {
            if self.session.as_ref().is_some_and(|session| !session.has_left()) {
                return self.session.as_mut().unwrap();
            }
            let mut session = self.run.log.joined().await;
            if session.try_assign(&all(&PARTITIONS)).await.is_some() {
                self.session = Some(session);
                self.deliver().await;
            }
        }
    }

    /// Delivers what is stored.
    async fn deliver(&mut self) {
        let Some(session) = &mut self.session else { return };
        for partition in PARTITIONS {
            if session.next.get(&at(partition)).is_some() {
                session.deliver(&at(partition), u64::MAX / 2).await;
            }
        }
    }

    async fn step(&mut self, step: Step) {
        self.session().await;
        match step {
            Step::Records(partition, count) => {
                let seventh = |offset, record| if offset % 7 == 6 { poison(record) } else { record };
                produce_with(&self.run.log, partition, count, seventh);
                self.deliver().await;
            }
            Step::Ended(partition) => {
                self.session().await.end(&at(partition)).await;
            }
            Step::Next(act) => self.acts.lock().unwrap().push_back(act),
            Step::Elsewhere(partition, count) => {
                let end = self.run.log.end(&at(partition));
                let from = self.run.rows.rows(partition).len() as u64;
                self.run.rows.apply_elsewhere(&at(partition), (from + count).min(end));
            }
            Step::Revoke(partition) => {
                let session = self.session().await;
                let done = session.revoke(&all(&[partition])).await;
                // Acknowledged, or the member left.
                let acknowledged = tokio::time::timeout(PATIENCE, done).await.expect("acknowledged");
                if acknowledged.is_ok() && session.try_assign(&all(&[partition])).await.is_some() {
                    self.deliver().await;
                }
            }
            Step::Close => self.session = None,
            Step::Fail => {
                if let Some(session) = self.session.take() {
                    session.fail(LogError::Unavailable("scripted".into())).await;
                }
            }
            Step::Pass(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
        }
    }

    /// Waits until every record is applied, whatever rejoins it takes.
    async fn settle(&mut self) {
        let ends: Vec<_> = PARTITIONS.iter().map(|partition| (*partition, self.run.log.end(&at(*partition)))).collect();
        let rows = self.run.rows.clone();
        loop {
            let session = self.session().await;
            for partition in PARTITIONS {
                session.end(&at(partition)).await;
            }
            let applied = async {
                for (partition, end) in &ends {
                    rows.until("all rows", |state| state.rows.get(partition).map_or(0, Vec::len) as u64 >= *end).await;
                }
            };
            tokio::select! {
                () = applied => return,
                () = session.left() => {}
            }
        }
    }
}

async fn check(steps: Vec<Step>, batch: usize, passes: bool) {
    let mut driver = Driver::start(batch, passes);
    for step in steps {
        driver.step(step).await;
    }
    driver.settle().await;
    for partition in PARTITIONS {
        let end = driver.run.log.end(&at(partition));
        assert_eq!(driver.run.rows.rows(partition), (0..end).collect::<Vec<_>>());
        assert_eq!(driver.run.rows.now().checkpoint.positions.next(&at(partition)), end);
    }
    // What committed began where the commit before it ended.
    let mut next = carbon_core::Positions::new();
    for call in driver.run.rows.now().calls.iter().filter(|call| call.committed) {
        assert!(call.upto.iter().all(|(at, upto)| call.from.next(at) < upto && next.next(at) <= call.from.next(at)));
        next.merge(&call.upto);
    }
    drop(driver.session.take());
    driver.run.stop().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn every_record_is_applied_once_and_in_order(
        steps in proptest::collection::vec(step(), 1..40),
        batch in 1..6_usize,
        passes in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(check(steps, batch, passes));
    }
}
