//! The sink of a projection: it commits rows and checkpoint in one transaction.

use std::path::PathBuf;

use async_trait::async_trait;
use carbon_core::Positions;
use carbon_log::NewRecord;
use carbon_read_models::Projection;
use carbon_runtime::consume::{ProcessorError, Sink, SinkError};
use carbon_runtime::failpoint;
use carbon_store::{Checkpoint, Dialect, Namespace, Site, StoreError};

/// Folds a projection into its namespace.
pub struct ProjectionSink<P: Projection> {
    projection: P,
    namespace: Namespace,
}

impl<P: Projection> ProjectionSink<P> {
    /// Opens the generation's SQLite file in `folder`. A damaged file is deleted with its folder, and the read model is
    /// rebuilt from the log.
    pub async fn open(projection: P, folder: PathBuf) -> Result<Self, StoreError> {
        let site = Site::File(folder.join("rows.db"));
        match Self::at(projection.clone(), &site).await {
            Err(error) if error.is_damaged() => {
                tracing::warn!(read_model = P::NAME, %error, "file of the read model is damaged; rebuilding from the log");
                std::fs::remove_dir_all(&folder)
                    .map_err(|source| StoreError::Io { path: folder.display().to_string(), source })?;
                Self::at(projection, &site).await
            }
            opened => opened,
        }
    }

    /// Opens the generation's namespace.
    pub async fn at(projection: P, site: &Site) -> Result<Self, StoreError> {
        Ok(Self { projection, namespace: carbon_read_models::open::<P>(site).await? })
    }

    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }
}

#[async_trait]
impl<P: Projection> Sink for ProjectionSink<P> {
    type In = P::Record;

    async fn checkpoint(&self) -> Result<Checkpoint, ProcessorError> {
        Ok(self.namespace.checkpoint().await?)
    }

    async fn reset(&self) -> Result<(), ProcessorError> {
        Ok(self.namespace.clear().await?)
    }

    async fn pass(&self, log: &str, from: &Positions, upto: &Positions) -> Result<bool, SinkError> {
        if self.namespace.dialect() == Dialect::Sqlite {
            return Ok(false);
        }
        let tables = self.namespace.begin_at(log, from, upto, Vec::new()).await?;
        tables.commit().await.map_err(ProcessorError::from)?;
        Ok(true)
    }

    async fn apply(
        &self,
        log: &str,
        batch: &[P::Record],
        from: &Positions,
        upto: &Positions,
    ) -> Result<Vec<NewRecord>, SinkError> {
        let reads = P::first_reads(self.namespace.dialect(), batch);
        let tables = self.namespace.begin_at(log, from, upto, reads).await?;
        failpoint(&format!("{}::apply", P::NAME)).await.map_err(|error| ProcessorError::of(&error))?;
        let folded = self.projection.apply(tables, batch).await.map_err(|error| ProcessorError::of(&error))?;
        folded.commit().await.map_err(ProcessorError::from)?;
        Ok(Vec::new())
    }
}
