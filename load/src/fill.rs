//! Entities with stored vectors, written as the embedder would have written them: no model is called.

use std::path::Path;

use carbon_core::{Clock as _, MetadataValue, ModelRef, Positions, SystemClock, TenantId, derived_id};
use carbon_log::{DataFolder, EmbeddedLog, EventLog as _, Group, NewRecord};
use carbon_schemas::events::{EmbeddingGenerated, EntityChanged, Source, vector_to_bytes};
use carbon_topology::Topology;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::Failure;
use crate::prose;
use crate::random::Random;

const KINDS: &[&str] = &["instrument", "curve", "scenario", "backtest"];

pub async fn run(root: &Path, entities: usize, model: &ModelRef, dimension: usize, seed: u64) -> Result<(), Failure> {
    let folder = DataFolder::open(root)?;
    let log = EmbeddedLog::open(&folder).await?;
    log.ensure_topics(&Topology::builtin()?.specs()).await?;
    let group = Group::new("embedder", model);
    let mut random = Random::new(seed);
    let began = std::time::Instant::now();
    let mut written = 0;
    while written < entities {
        let count = (entities - written).min(500);
        let batch: Vec<EntityChanged> =
            (written..written + count).map(|n| entity(&mut random, n)).collect::<Result<_, _>>()?;
        let records = batch.iter().map(NewRecord::event).collect::<Result<Vec<_>, _>>()?;
        let from = log.committed(&group).await?;
        let positions = log.append(records).await?;
        let mut upto = Positions::new();
        let mut outputs = Vec::with_capacity(count);
        for (event, position) in batch.iter().zip(&positions) {
            upto.advance_past(position);
            let source = position.to_string();
            let embedding = EmbeddingGenerated {
                event_id: derived_id(&["embedder", group.as_str(), &source, "0"]),
                occurred_at: event.occurred_at,
                tenant_id: event.tenant_id.clone(),
                entity_type: event.entity_type.clone(),
                entity_id: event.entity_id.clone(),
                text: event.text.clone(),
                metadata: event.metadata.clone(),
                tags: event.tags.clone(),
                deleted: false,
                reason: None,
                text_sha256: Sha256::digest(&event.text).iter().map(|byte| format!("{byte:02x}")).collect(),
                model: model.to_string(),
                dimension: dimension as i32,
                vector: Some(vector_to_bytes(&random.unit_vector(dimension))),
                source: Source::from(position),
            };
            outputs.push(
                NewRecord::event(&embedding)?.in_partition(position.partition).with_header("source_position", source),
            );
        }
        log.append_and_advance(&group, outputs, &from, &upto).await?;
        written += count;
    }
    log.close().await;
    println!("{written} entities with embeddings in {:.1} s", began.elapsed().as_secs_f64());
    Ok(())
}

pub fn entity(random: &mut Random, number: usize) -> Result<EntityChanged, Failure> {
    Ok(EntityChanged {
        event_id: Uuid::now_v7(),
        occurred_at: SystemClock.now(),
        tenant_id: TenantId::default_tenant(),
        entity_type: (*random.pick(KINDS)).to_owned(),
        entity_id: format!("L{number:06}"),
        text: prose::text(random, number),
        metadata: [("number".to_owned(), MetadataValue::Double(number as f64))].into(),
        tags: vec!["load".into()],
        deleted: false,
    })
}
