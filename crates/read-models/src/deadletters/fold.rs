//! The fold of `ml.deadletter.v1`.

use async_trait::async_trait;
use carbon_schemas::events::{DeadLetter, DeadLetterKind};
use carbon_schemas::{Decoded, Recorded};
use carbon_store::{Dialect, Folded, QueryBuilder, Table, Tables};

use super::tables;
use crate::projection::{FoldError, Projection};

/// The fold of `ml.deadletter.v1`.
#[derive(Clone, Copy, Debug, Default)]
pub struct DeadLetters;

#[async_trait]
impl Projection for DeadLetters {
    const NAME: &'static str = "deadletters";
    const VERSION: u32 = 1;
    const TABLES: &'static [Table] = tables::TABLES;
    type Record = Recorded<DeadLetter>;
    type Commits = ();

    fn canonical(_: Dialect) -> Vec<String> {
        tables::CANONICAL.iter().map(|sql| (*sql).to_owned()).collect()
    }

    async fn apply<'t>(&self, mut tables: Tables<'t>, batch: &[Recorded<DeadLetter>]) -> Result<Folded<'t>, FoldError> {
        // Poison folds to nothing, since the topic is not compacted (law 10).
        let events = batch.iter().filter_map(|record| match &record.body {
            Decoded::Event { event, .. } => Some((record, event)),
            _ => None,
        });
        // Consecutive events of one kind are written together. Kinds are not reordered: log order decides between them.
        let events: Vec<_> = events.collect();
        for run in events.chunk_by(|(_, a), (_, b)| a.kind == b.kind) {
            match run[0].1.kind {
                DeadLetterKind::Reported => report(&mut tables, run).await?,
                DeadLetterKind::Redriven => close(&mut tables, run, "redriven").await?,
                DeadLetterKind::Dropped => close(&mut tables, run, "dropped").await?,
                // The decoder rejects `unknown`.
                DeadLetterKind::Unknown => {}
            }
        }
        Ok(tables.folded())
    }
}

/// The first report of a position writes its row. Reports of other processors are the same dead letter again.
async fn report(tables: &mut Tables<'_>, run: &[(&Recorded<DeadLetter>, &DeadLetter)]) -> Result<(), FoldError> {
    for chunk in run.chunks(200) {
        let mut insert = QueryBuilder::new(
            tables.dialect(),
            "INSERT INTO dead_letters (topic, partition, \"offset\", tenant_id, processor, reason, message, key, payload, \
             payload_truncated, occurred_at, reported_at, state) ",
        );
        insert.push_values(chunk, |mut bind, (record, letter)| {
            bind.push_bind(letter.source.topic.as_str())
                .push_bind(letter.source.partition)
                .push_bind(letter.source.offset)
                .push_bind(letter.tenant_id.as_ref().map(|tenant| tenant.as_str()))
                .push_bind(letter.processor.as_str())
                .push_bind(letter.reason.as_str())
                .push_bind(letter.message.as_str())
                .push_bind(letter.key.as_deref())
                .push_bind(letter.payload.as_deref())
                .push_bind(letter.payload_truncated)
                .push_bind(letter.occurred_at.0)
                .push_bind(record.timestamp.0)
                .push("'open'");
        });
        insert.push(" ON CONFLICT (topic, partition, \"offset\") DO NOTHING");
        insert.build().execute(tables.connection()).await?;
    }
    Ok(())
}

/// A redrive or a drop is final for its position.
async fn close(
    tables: &mut Tables<'_>,
    run: &[(&Recorded<DeadLetter>, &DeadLetter)],
    state: &str,
) -> Result<(), FoldError> {
    for chunk in run.chunks(500) {
        let mut update = QueryBuilder::new(tables.dialect(), "UPDATE dead_letters SET state = ");
        update.push_bind(state).push(" WHERE state = 'open' AND (topic, partition, \"offset\") IN (");
        update.push_values(chunk, |mut bind, (_, letter)| {
            bind.push_bind(letter.source.topic.as_str())
                .push_bind(letter.source.partition)
                .push_bind(letter.source.offset);
        });
        update.push(")").build().execute(tables.connection()).await?;
    }
    Ok(())
}
