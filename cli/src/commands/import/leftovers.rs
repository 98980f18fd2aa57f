//! What the store holds and no event can say: counted and named, so that nothing is left out silently.

use super::store::{Bind, DEFAULT_WORKSPACE};
use super::{Import, links};
use crate::error::CliError;

/// Tables that are imported, are derived from others, or are the schema's and the scheduler's own.
#[rustfmt::skip]
const READ: [&str; 23] = [
    "alembic_version", "datasets", "experiment_tags", "experiments", "input_tags", "inputs", "job_locks",
    "latest_metrics", "logged_model_metrics", "logged_model_params", "logged_model_tags", "logged_models", "metrics",
    "model_version_tags", "model_versions", "params", "registered_model_aliases", "registered_model_tags",
    "registered_models", "runs", "scheduler_leases", "tags", "workspaces",
];

/// What tables are called here; others go by their own name.
const NAMED: [(&str, &str); 22] = [
    ("assessments", "assessments of traces"),
    ("budget_policies", "budget policies"),
    ("endpoints", "gateway endpoints"),
    ("entity_associations", "links between traces, runs and evaluation datasets"),
    ("evaluation_dataset_records", "records of evaluation datasets"),
    ("evaluation_dataset_tags", "tags of evaluation datasets"),
    ("evaluation_datasets", "evaluation datasets"),
    ("issues", "issues of traces"),
    ("jobs", "jobs"),
    ("online_scoring_configs", "online scoring settings"),
    ("scorer_versions", "versions of scorers"),
    ("scorers", "scorers"),
    ("secrets", "secrets"),
    ("span_metrics", "metrics of spans"),
    ("spans", "spans of traces"),
    ("trace_info", "traces"),
    ("trace_metrics", "metrics of traces"),
    ("trace_request_metadata", "metadata of traces"),
    ("trace_tags", "tags of traces"),
    ("users", "users"),
    ("webhook_events", "events of webhooks"),
    ("webhooks", "webhooks"),
];

pub async fn count(import: &mut Import) -> Result<(), CliError> {
    for table in import.store.tables().await? {
        if READ.contains(&table.as_str()) {
            continue;
        }
        let count = import.store.count(&format!("\"{}\"", table.replace('"', "\"\"")), &[]).await?;
        let name = NAMED.iter().find(|(known, _)| *known == table).map_or(table.as_str(), |(_, name)| name);
        import.sink.report.leave_out(name, count);
    }
    for (what, name) in [
        (format!("inputs WHERE NOT ({})", links::READ), "links of other kinds"),
        ("model_versions WHERE user_id <> ''".into(), "users of model versions"),
        (
            "model_versions WHERE status <> 'READY' AND current_stage <> 'Deleted_Internal'".into(),
            "states of model versions that are not ready",
        ),
        ("logged_models WHERE status_message <> ''".into(), "messages of logged models' states"),
        ("model_versions WHERE status_message <> ''".into(), "messages of model versions' states"),
    ] {
        let count = import.store.count(&what, &[]).await?;
        import.sink.report.leave_out(name, count);
    }
    let of_models = import.store.count("logged_model_metrics", &[]).await?;
    // Of those that are not imported: values of a second model, and of what is not imported itself.
    let left = of_models.saturating_sub(import.of_model_values);
    import.sink.report.leave_out("metric values of logged models beside those of their runs", left);
    if import.store.has_workspaces() {
        let workspace = import.store.workspace.clone();
        for (table, name) in [
            ("experiments", "experiments of other workspaces"),
            ("registered_models", "registered models of other workspaces"),
        ] {
            let what = format!("{table} WHERE workspace <> $1");
            let count = import.store.count(&what, &[Bind::Text(&workspace)]).await?;
            import.sink.report.leave_out(&format!("{name} (--workspace)"), count);
        }
        let what = "workspaces WHERE name <> $1";
        let count = import.store.count(what, &[Bind::Text(DEFAULT_WORKSPACE)]).await?;
        import.sink.report.leave_out("workspaces", count);
    }
    Ok(())
}
