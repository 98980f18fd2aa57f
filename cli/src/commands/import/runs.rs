//! Runs, each with all that was logged to it.

use std::collections::{HashMap, HashSet};

use carbon_schemas::events::{KeyValue, Metric, RunKind, RunLogged};
use futures::StreamExt as _;
use sqlx::any::AnyRow;

use super::experiments::Target;
use super::report::Kind;
use super::sink::{List, at};
use super::store::{Bind, maybe, maybe_number, number, real, text};
use super::{Import, links, pair_size, pairs};
use crate::error::CliError;
use crate::term;

const NAME_TAG: &str = "mlflow.runName";

/// Runs in one statement, and metric values in one event.
const PAGE: i64 = 1000;
const VALUES: usize = 1000;

struct Run {
    id: String,
    name: String,
    user: String,
    status: String,
    start: i64,
    end: Option<i64>,
    deleted_at: Option<i64>,
    deleted: bool,
    uri: String,
}

impl Run {
    fn read(row: &AnyRow) -> Result<Self, CliError> {
        Ok(Self {
            id: text(row, 0)?,
            name: text(row, 1)?,
            user: text(row, 2)?,
            status: text(row, 3)?,
            start: number(row, 4)?,
            end: maybe_number(row, 5)?,
            deleted_at: maybe_number(row, 6)?,
            deleted: text(row, 7)? == "deleted",
            uri: text(row, 8)?,
        })
    }

    /// When what has no time of its own was logged, as far as the store can tell.
    fn logged(&self) -> i64 {
        self.end.unwrap_or(self.start)
    }
}

/// The logged model that a metric value was logged for too, and on which data.
struct OfModel {
    key: String,
    timestamp: i64,
    step: i64,
    value: f64,
    model: String,
    dataset: Option<String>,
    digest: Option<String>,
}

/// All runs of an experiment of the store, which is `to` here.
pub async fn import(import: &mut Import, experiment: i64, to: Target) -> Result<(), CliError> {
    let of_models = match import.of_model_experiments.contains(&experiment) {
        true => of_models(import, experiment).await?,
        false => HashMap::new(),
    };
    let sql = "SELECT run_uuid, name, user_id, status, CAST(start_time AS BIGINT), CAST(end_time AS BIGINT), \
         CAST(deleted_time AS BIGINT), lifecycle_stage, artifact_uri FROM runs \
         WHERE experiment_id = $1 AND run_uuid > $2 ORDER BY run_uuid LIMIT $3";
    let mut last = String::new();
    loop {
        let binds = [Bind::Number(experiment), Bind::Text(&last), Bind::Number(PAGE)];
        let rows = import.store.rows(sql, &binds).await?;
        for row in &rows {
            let run = Run::read(row)?;
            one(import, &run, to, of_models.get(&run.id).map_or(&[], Vec::as_slice)).await?;
            import.bar.inc(1);
            import.bar.set_message(format!("{} metric values", term::thousands(import.values)));
            last = run.id;
        }
        if rows.len() < PAGE as usize {
            return Ok(());
        }
    }
}

/// The experiments whose runs have metric values of logged models: they have no index by run.
pub async fn with_models(import: &mut Import) -> Result<HashSet<i64>, CliError> {
    let sql = "SELECT DISTINCT CAST(r.experiment_id AS BIGINT) FROM logged_model_metrics m \
         JOIN runs r ON r.run_uuid = m.run_id";
    import.store.rows(sql, &[]).await?.iter().map(|row| number(row, 0)).collect()
}

/// Metric values of logged models, by run. The store keeps them apart from the run's own.
async fn of_models(import: &mut Import, experiment: i64) -> Result<HashMap<String, Vec<OfModel>>, CliError> {
    let sql = "SELECT m.run_id, m.metric_name, CAST(m.metric_timestamp_ms AS BIGINT), CAST(m.metric_step AS BIGINT), \
         m.metric_value, m.model_id, m.dataset_name, m.dataset_digest FROM logged_model_metrics m \
         JOIN runs r ON r.run_uuid = m.run_id WHERE r.experiment_id = $1 ORDER BY m.model_id";
    let mut found: HashMap<String, Vec<OfModel>> = HashMap::new();
    for row in import.store.rows(sql, &[Bind::Number(experiment)]).await? {
        found.entry(text(&row, 0)?).or_default().push(OfModel {
            key: text(&row, 1)?,
            timestamp: number(&row, 2)?,
            step: number(&row, 3)?,
            value: real(&row, 4)?,
            model: text(&row, 5)?,
            dataset: maybe(&row, 6)?,
            digest: maybe(&row, 7)?,
        });
    }
    Ok(found)
}

async fn one(import: &mut Import, run: &Run, to: Target, of_models: &[OfModel]) -> Result<(), CliError> {
    let tenant = import.sink.tenant.clone();
    let of = |event_id, time, kind| RunLogged::of(event_id, at(time), &tenant, &run.id, kind);
    let tags = "SELECT key, value FROM tags WHERE run_uuid = $1 ORDER BY key";
    let tags = pairs(&import.store.rows(tags, &[Bind::Text(&run.id)]).await?)?;
    let tagged = tags.iter().find(|tag| tag.key == NAME_TAG).map(|tag| tag.value.clone());
    let name = Some(run.name.clone()).filter(|name| !name.is_empty()).or(tagged).unwrap_or_default();
    let uri = import.places.rewritten(&run.uri);
    let started = RunLogged {
        experiment_id: Some(to.id.to_string()),
        run_name: Some(name.clone()),
        user_id: Some(run.user.clone()),
        // It ends below, after all that it logged is there.
        status: Some("RUNNING".into()),
        start_time: Some(run.start),
        artifact_uri: Some(uri.clone()),
        ..of(import.sink.id("runs", &[&run.id]), run.start, RunKind::Started)
    };
    if !import.sink.put(&started, &[(Kind::Runs, 1)], &run.id).await? {
        return Ok(());
    }
    import.keep_root(&uri);
    let params = "SELECT key, value FROM params WHERE run_uuid = $1 ORDER BY key";
    let params = pairs(&import.store.rows(params, &[Bind::Text(&run.id)]).await?)?;
    let logged = |event_id| of(event_id, run.logged(), RunKind::Logged);
    let list = |kind, table, items| List {
        kind,
        table,
        owner: &run.id,
        items,
        size: pair_size,
        name: |pair: &KeyValue| &pair.key,
    };
    let event = |event_id, params| RunLogged { params, ..logged(event_id) };
    import.sink.put_list(list(Kind::Params, "params", params), event).await?;
    let event = |event_id, tags| RunLogged { tags, ..logged(event_id) };
    import.sink.put_list(list(Kind::RunTags, "tags", tags), event).await?;
    metrics(import, run, of_models).await?;
    links::import(import, &run.id, run.logged()).await?;
    end(import, run, name, to).await
}

/// The status and the end, and whether it is deleted: last, since nothing is logged to a deleted run.
async fn end(import: &mut Import, run: &Run, name: String, to: Target) -> Result<(), CliError> {
    let tenant = import.sink.tenant.clone();
    let of = |event_id, time, kind| RunLogged::of(event_id, at(time), &tenant, &run.id, kind);
    let shown = run.end.map(|end| end.to_string()).unwrap_or_default();
    let status = Some(run.status.clone()).filter(|status| !status.is_empty()).unwrap_or_else(|| "SCHEDULED".into());
    let event_id = import.sink.id("runs/updated", &[&run.id, &status, &shown, &name]);
    let updated = RunLogged {
        status: Some(status),
        end_time: run.end,
        run_name: Some(name),
        ..of(event_id, run.logged(), RunKind::Updated)
    };
    import.sink.put_state(&updated, Kind::Runs, &run.id).await?;
    // With an experiment its runs go and come back.
    if run.deleted && !to.deleted {
        let time = run.deleted_at.unwrap_or_else(|| run.logged());
        let event_id = import.sink.id("runs/deleted", &[&run.id, &time.to_string()]);
        import.sink.put_state(&of(event_id, time, RunKind::Deleted), Kind::Runs, &run.id).await?;
    }
    Ok(())
}

/// In the order of their times, so that a run that has gone on since an import differs in its last batch alone.
async fn metrics(import: &mut Import, run: &Run, of_models: &[OfModel]) -> Result<(), CliError> {
    let sql = "SELECT key, value, CAST(timestamp AS BIGINT), CAST(step AS BIGINT), \
         CAST(CASE WHEN is_nan THEN 1 ELSE 0 END AS BIGINT) FROM metrics WHERE run_uuid = $1 \
         ORDER BY timestamp, step, key, value, 5";
    let Import { store, sink, values, of_model_values, .. } = import;
    let binds = [Bind::Text(&run.id)];
    let mut rows = std::pin::pin!(store.stream(sql, &binds));
    let mut models: HashMap<(&str, i64, i64), Vec<&OfModel>> = HashMap::new();
    for value in of_models {
        models.entry((&value.key, value.timestamp, value.step)).or_default().push(value);
    }
    let mut batch: Vec<Metric> = Vec::new();
    while let Some(row) = rows.next().await {
        let row = row?;
        let (key, value) = (text(&row, 0)?, real(&row, 1)?);
        let (timestamp, step) = (number(&row, 2)?, number(&row, 3)?);
        // The first logged model's: a value of a run is one model's here.
        let model = models.get(&(key.as_str(), timestamp, step));
        let model = model.and_then(|all| all.iter().find(|model| model.value == value)).copied();
        *of_model_values += u64::from(model.is_some());
        batch.push(Metric {
            key: key.clone(),
            // Not a number is kept as nought with a mark.
            value: if number(&row, 4)? == 1 { f64::NAN } else { value },
            timestamp,
            step,
            model_id: model.map(|model| model.model.clone()),
            dataset_name: model.and_then(|model| model.dataset.clone()),
            dataset_digest: model.and_then(|model| model.digest.clone()),
        });
        *values += 1;
        if batch.len() == VALUES {
            put_metrics(sink, run, std::mem::take(&mut batch)).await?;
        }
    }
    put_metrics(sink, run, batch).await
}

async fn put_metrics(sink: &mut super::sink::Sink, run: &Run, items: Vec<Metric>) -> Result<(), CliError> {
    let time = items.last().map_or(run.start, |metric| metric.timestamp);
    let tenant = sink.tenant.clone();
    let list = List {
        kind: Kind::Metrics,
        table: "metrics",
        owner: &run.id,
        items,
        size: |metric: &Metric| metric.key.len() + 64,
        name: |metric| &metric.key,
    };
    let event = |event_id, metrics| RunLogged {
        metrics,
        ..RunLogged::of(event_id, at(time), &tenant, &run.id, RunKind::Logged)
    };
    sink.put_list(list, event).await
}
