//! A sink whose read model is not served while its rows are thrown away.

use std::sync::Arc;

use async_trait::async_trait;
use carbon_core::Positions;
use carbon_log::NewRecord;
use carbon_runtime::consume::{ProcessorError, Sink, SinkError};
use carbon_store::Checkpoint;

/// Withdraws a generation from its handle before its rows are thrown away.
pub type Withdraw = Arc<dyn Fn() + Send + Sync>;

pub struct Guarded<S> {
    pub sink: S,
    pub withdraw: Withdraw,
}

#[async_trait]
impl<S: Sink> Sink for Guarded<S> {
    type In = S::In;

    async fn checkpoint(&self) -> Result<Checkpoint, ProcessorError> {
        self.sink.checkpoint().await
    }

    async fn reset(&self) -> Result<(), ProcessorError> {
        (self.withdraw)();
        self.sink.reset().await
    }

    fn check(&self, record: S::In) -> S::In {
        self.sink.check(record)
    }

    async fn pass(&self, log: &str, from: &Positions, upto: &Positions) -> Result<bool, SinkError> {
        self.sink.pass(log, from, upto).await
    }

    async fn apply(
        &self,
        log: &str,
        batch: &[S::In],
        from: &Positions,
        upto: &Positions,
    ) -> Result<Vec<NewRecord>, SinkError> {
        self.sink.apply(log, batch, from, upto).await
    }
}
