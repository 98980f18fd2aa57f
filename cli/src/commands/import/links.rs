//! What a run read and made: datasets and logged models.

use carbon_schemas::events::{DatasetInput, KeyValue, ModelOutput, RunKind, RunLogged};

use super::report::Kind;
use super::sink::{List, at};
use super::store::{Bind, maybe, number, text};
use super::{Import, pairs};
use crate::error::CliError;

pub async fn import(import: &mut Import, run: &str, time: i64) -> Result<(), CliError> {
    let tenant = import.sink.tenant.clone();
    let of = |event_id, kind| RunLogged::of(event_id, at(time), &tenant, run, kind);
    let list = List {
        kind: Kind::Datasets,
        table: "runs/datasets",
        owner: run,
        items: datasets(import, run).await?,
        size: dataset_size,
        name: |dataset: &DatasetInput| &dataset.name,
    };
    let event = |event_id, datasets| RunLogged { datasets, ..of(event_id, RunKind::Inputs) };
    import.sink.put_list(list, event).await?;

    let list = List {
        kind: Kind::ModelLinks,
        table: "runs/input_models",
        owner: run,
        items: models(import, run, "RUN_INPUT", "MODEL_INPUT").await?,
        size: |model: &ModelOutput| model.model_id.len(),
        name: |model| &model.model_id,
    };
    let event = |event_id, models: Vec<ModelOutput>| RunLogged {
        input_models: models.into_iter().map(|model| model.model_id).collect(),
        ..of(event_id, RunKind::Inputs)
    };
    import.sink.put_list(list, event).await?;

    let list = List {
        kind: Kind::ModelLinks,
        table: "runs/output_models",
        owner: run,
        items: models(import, run, "RUN_OUTPUT", "MODEL_OUTPUT").await?,
        size: |model: &ModelOutput| model.model_id.len(),
        name: |model| &model.model_id,
    };
    let event = |event_id, output_models| RunLogged { output_models, ..of(event_id, RunKind::Outputs) };
    import.sink.put_list(list, event).await
}

/// The rows of `inputs` that are read here.
pub const READ: &str = "(source_type = 'DATASET' AND destination_type = 'RUN') \
    OR (source_type = 'RUN_INPUT' AND destination_type = 'MODEL_INPUT') \
    OR (source_type = 'RUN_OUTPUT' AND destination_type = 'MODEL_OUTPUT')";

async fn datasets(import: &mut Import, run: &str) -> Result<Vec<DatasetInput>, CliError> {
    let sql = "SELECT i.input_uuid, d.name, d.digest, d.dataset_source_type, d.dataset_source, d.dataset_schema, \
         d.dataset_profile FROM inputs i JOIN datasets d ON d.dataset_uuid = i.source_id \
         WHERE i.source_type = 'DATASET' AND i.destination_type = 'RUN' AND i.destination_id = $1 \
         ORDER BY d.name, d.digest";
    let mut datasets = Vec::new();
    for row in import.store.rows(sql, &[Bind::Text(run)]).await? {
        let input = text(&row, 0)?;
        let tags = "SELECT name, value FROM input_tags WHERE input_uuid = $1 ORDER BY name";
        datasets.push(DatasetInput {
            name: text(&row, 1)?,
            digest: text(&row, 2)?,
            source_type: text(&row, 3)?,
            source: text(&row, 4)?,
            schema: maybe(&row, 5)?,
            profile: maybe(&row, 6)?,
            tags: pairs(&import.store.rows(tags, &[Bind::Text(&input)]).await?)?,
        });
    }
    Ok(datasets)
}

fn dataset_size(dataset: &DatasetInput) -> usize {
    let texts = [Some(&dataset.source), dataset.schema.as_ref(), dataset.profile.as_ref()];
    let tags = dataset.tags.iter().map(|KeyValue { key, value }| key.len() + value.len());
    texts.into_iter().flatten().map(String::len).chain(tags).sum::<usize>() + dataset.name.len()
}

async fn models(import: &mut Import, run: &str, from: &str, to: &str) -> Result<Vec<ModelOutput>, CliError> {
    let sql = "SELECT destination_id, CAST(step AS BIGINT) FROM inputs \
         WHERE source_type = $1 AND source_id = $2 AND destination_type = $3 ORDER BY destination_id";
    let rows = import.store.rows(sql, &[Bind::Text(from), Bind::Text(run), Bind::Text(to)]).await?;
    rows.iter().map(|row| Ok(ModelOutput { model_id: text(row, 0)?, step: number(row, 1)? })).collect()
}
