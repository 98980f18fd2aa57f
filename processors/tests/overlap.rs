//! The consume loop decodes the next batch while a sink applies the current one.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod rig;

use async_trait::async_trait;
use carbon_core::Positions;
use carbon_log::NewRecord;
use carbon_runtime::consume::{ProcessorError, Sink, SinkError, spawn_sink};
use carbon_schemas::events::EntityChanged;
use carbon_schemas::{Feed as _, Recorded};
use carbon_store::Checkpoint;
use tokio::sync::watch;

use rig::{PATIENCE, Rig, entity, options};

/// A sink whose first batch waits until a record of the next batch is decoded.
struct SlowSink {
    entered: watch::Sender<bool>,
    decoded: watch::Sender<usize>,
    applied: watch::Sender<Vec<Positions>>,
}

#[async_trait]
impl Sink for SlowSink {
    type In = Recorded<EntityChanged>;

    async fn checkpoint(&self) -> Result<Checkpoint, ProcessorError> {
        Ok(Checkpoint::default())
    }

    async fn reset(&self) -> Result<(), ProcessorError> {
        Ok(())
    }

    fn check(&self, record: Recorded<EntityChanged>) -> Recorded<EntityChanged> {
        self.decoded.send_modify(|decoded| *decoded += 1);
        record
    }

    async fn apply(
        &self,
        _: &str,
        batch: &[Recorded<EntityChanged>],
        from: &Positions,
        upto: &Positions,
    ) -> Result<Vec<NewRecord>, SinkError> {
        self.entered.send_replace(true);
        let mut decoded = self.decoded.subscribe();
        let next = decoded.wait_for(|decoded| *decoded >= 2);
        tokio::time::timeout(PATIENCE, next).await.expect("the next batch must be decoded meanwhile").unwrap();
        // Batches are still applied one after the other: each starts where the one before ended.
        let at = batch[0].position().topic_partition();
        self.applied.send_modify(|applied| {
            let before = applied.iter().rev().find_map(|upto| upto.get(&at)).unwrap_or(0);
            assert_eq!(from.next(&at), before);
            applied.push(upto.clone());
        });
        Ok(Vec::new())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_batch_is_decoded_while_the_current_one_is_applied() {
    let rig = Rig::new().await;
    let version = |n: usize| entity("acme", "E1", &format!("text {n}"));
    rig.produce(&[version(0)]).await;
    let (decoded, (applied, mut seen)) = (watch::Sender::new(0), watch::channel(Vec::new()));
    let (entered, mut begun) = watch::channel(false);
    let mut options = options("catalog", "slow", rig.log.clone(), &rig.shutdown);
    options.batch.records = 1;
    let handle = spawn_sink(SlowSink { entered, decoded, applied }, options);
    tokio::time::timeout(PATIENCE, begun.wait_for(|begun| *begun)).await.unwrap().unwrap();
    // The first batch is in `apply` and waits for these records.
    rig.produce(&(1..5).map(version).collect::<Vec<_>>()).await;
    let done = seen.wait_for(|applied: &Vec<Positions>| applied.len() == 5);
    tokio::time::timeout(PATIENCE, done).await.unwrap().unwrap();
    rig.shutdown.cancel();
    handle.join().await.unwrap();
}
