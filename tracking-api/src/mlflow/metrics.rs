//! `metrics/*`: metric histories, complete or sampled for charts.

use std::collections::HashMap;

use carbon_read_models::registry::queries::{metric_history, metric_intervals, run_info};
use serde_json::{Value, json};

use super::call::{Answered, Call, list_answer};
use super::error::MlflowError;
use super::page::Paging;
use super::shapes;

pub(super) async fn get_history(call: Call) -> Answered {
    let key = call.args.required("metric_key")?;
    let run = call.run().await?;
    let paging = Paging::parse(&call.args, Some(25_000), 1_000_000)?;
    let page = metric_history(call.rows()?, &run, key, paging.limit, paging.offset).await?;
    paging.answer("metrics", page.items.iter().map(shapes::metric).collect(), page.more)
}

/// Maximum number of runs of a bulk request.
const MAX_RUNS: usize = 100;

/// Maximum number of sampled points per run.
const MAX_POINTS: i64 = 2500;

/// Maximum number of points of complete histories, over all runs.
const MAX_RESULTS: i64 = 25_000;

fn point(key: &str, run_id: &str, (value, timestamp, step): (f64, i64, i64)) -> Value {
    json!({"key": key, "value": shapes::number(value), "timestamp": timestamp, "step": step, "run_id": run_id})
}

pub(super) async fn bulk_interval(call: Call) -> Answered {
    let runs = call.args.texts("run_ids")?;
    if runs.is_empty() {
        return Err(MlflowError::missing("run_ids"));
    }
    if runs.len() > MAX_RUNS {
        return Err(MlflowError::invalid(format!(
            "GetMetricHistoryBulkInterval request must specify at most {MAX_RUNS} run_ids. Received {} run_ids.",
            runs.len()
        )));
    }
    let key = call.args.required("metric_key")?;
    let steps = (call.args.integer("start_step")?, call.args.integer("end_step")?);
    if steps.0.is_some() != steps.1.is_some() {
        return Err(MlflowError::invalid("If either start step or end step are specified, both must be specified."));
    }
    if let (Some(start), Some(end)) = steps
        && start > end
    {
        return Err(MlflowError::invalid(format!(
            "end_step must be greater than start_step. Found start_step={start} and end_step={end}."
        )));
    }
    let points = call.args.integer("max_results")?.unwrap_or(320);
    if !(1..=MAX_POINTS).contains(&points) {
        return Err(MlflowError::invalid(format!("max_results must be between 1 and {MAX_POINTS}.")));
    }
    let mut found = metric_intervals(call.rows()?, &call.scope, &runs, key, steps, points as usize).await?;
    // Sorts by run, in the order of the request.
    let order: HashMap<&str, usize> = runs.iter().enumerate().map(|(at, run)| (run.as_str(), at)).collect();
    found.sort_by_key(|point| order.get(point.run_id.as_str()).copied());
    let points = found.iter().map(|p| point(key, &p.run_id, (p.value, p.timestamp, p.step))).collect();
    list_answer("metrics", points)
}

/// Complete histories, ordered by run, timestamp and step. The limit counts the points of all runs.
pub(super) async fn bulk_history(call: Call) -> Answered {
    let mut runs = call.args.texts("run_id")?;
    if runs.is_empty() {
        return Err(MlflowError::invalid("GetMetricHistoryBulk request must specify at least one run_id."));
    }
    if runs.len() > MAX_RUNS {
        return Err(MlflowError::invalid(format!(
            "GetMetricHistoryBulk request cannot specify more than {MAX_RUNS} run_ids. Received {} run_ids.",
            runs.len()
        )));
    }
    let key = call.args.text("metric_key")?;
    let key = key.ok_or_else(|| MlflowError::invalid("GetMetricHistoryBulk request must specify a metric_key."))?;
    let limit = call.args.integer("max_results")?.unwrap_or(MAX_RESULTS).clamp(1, MAX_RESULTS) as usize;
    runs.sort();
    runs.dedup();
    let mut points = Vec::new();
    for id in &runs {
        if points.len() == limit {
            break;
        }
        let Some(run) = run_info(call.rows()?, &call.scope, id).await? else { continue };
        let page = metric_history(call.rows()?, &run, key, limit - points.len(), 0).await?;
        points.extend(page.items.iter().map(|m| point(key, id, (m.value, m.timestamp, m.step))));
    }
    list_answer("metrics", points)
}
