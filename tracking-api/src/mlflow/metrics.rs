//! `metrics/*`: histories, whole and thinned for charts.

use carbon_read_models::registry::queries::{metric_history, metric_intervals};
use serde_json::{Map, Value, json};

use super::call::{Answer, Answered, Call};
use super::error::MlflowError;
use super::page::Paging;
use super::shapes;

fn of(error: carbon_store::StoreError) -> MlflowError {
    MlflowError::of(&error)
}

pub(super) async fn get_history(call: Call) -> Answered {
    let key = call.args.required("metric_key")?;
    let run = call.run().await?;
    let paging = Paging::read(&call.args, Some(25_000), 1_000_000)?;
    let page = metric_history(call.rows()?, &run, key, paging.limit, paging.offset).await.map_err(of)?;
    let mut answer = Map::new();
    if !page.items.is_empty() {
        shapes::put(&mut answer, "metrics", page.items.iter().map(shapes::metric).collect::<Vec<_>>());
    }
    paging.sign(&mut answer, page.more);
    Ok(Answer(answer.into()))
}

const BULK_RUNS: usize = 100;
const BULK_POINTS: i64 = 2500;

fn answer(points: Vec<Value>) -> Answered {
    let mut answer = Map::new();
    if !points.is_empty() {
        shapes::put(&mut answer, "metrics", points);
    }
    Ok(Answer(answer.into()))
}

async fn bulk(call: &Call, runs: &[String], steps: (Option<i64>, Option<i64>), points: usize) -> Answered {
    let key = call.args.required("metric_key")?;
    let found = metric_intervals(call.rows()?, &call.scope, runs, key, steps, points).await.map_err(of)?;
    let point = |point: &carbon_read_models::registry::queries::BulkPoint| {
        json!({
            "key": key, "value": shapes::number(point.value), "timestamp": point.timestamp, "step": point.step,
            "run_id": point.run_id,
        })
    };
    answer(found.iter().map(point).collect())
}

pub(super) async fn bulk_interval(call: Call) -> Answered {
    let runs = call.args.texts("run_ids")?;
    if runs.is_empty() {
        return Err(MlflowError::invalid("GetMetricHistoryBulkInterval request must specify at least one run_id."));
    }
    if runs.len() > BULK_RUNS {
        return Err(MlflowError::invalid(format!(
            "GetMetricHistoryBulkInterval request must specify at most {BULK_RUNS} run_ids. Received {} run_ids.",
            runs.len()
        )));
    }
    let steps = (call.args.integer("start_step")?, call.args.integer("end_step")?);
    if steps.0.is_some() != steps.1.is_some() {
        return Err(MlflowError::invalid("If either start step or end step are specified, both must be specified."));
    }
    if let (Some(start), Some(end)) = steps
        && start > end
    {
        return Err(MlflowError::invalid("end_step must be greater than start_step."));
    }
    let points = call.args.integer("max_results")?.unwrap_or(320);
    if !(1..=BULK_POINTS).contains(&points) {
        return Err(MlflowError::invalid(format!("max_results must be between 1 and {BULK_POINTS}.")));
    }
    bulk(&call, &runs, steps, points as usize).await
}

pub(super) async fn bulk_history(call: Call) -> Answered {
    let runs = call.args.texts("run_id")?;
    if runs.is_empty() {
        return Err(MlflowError::invalid("GetMetricHistoryBulk request must specify at least one run_id."));
    }
    if runs.len() > BULK_RUNS {
        return Err(MlflowError::invalid(format!(
            "GetMetricHistoryBulk request cannot specify more than {BULK_RUNS} run_ids. Received {} run_ids.",
            runs.len()
        )));
    }
    let points = call.args.integer("max_results")?.unwrap_or(25_000).clamp(1, 25_000);
    bulk(&call, &runs, (None, None), points as usize).await
}
