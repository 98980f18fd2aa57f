//! The tables of experiments, runs and logged models. A run has a number (`run_no`), which its parameters, metrics and
//! tags refer to. The number belongs to the generation: no digest contains it.

use carbon_store::IndexColumn::{Asc, Desc, Long};
use carbon_store::{Column, Index, Table};

pub(super) const EXPERIMENTS: Table = Table::new(
    "experiments",
    &[
        Column::text("tenant_id"),
        Column::int("experiment_id"),
        Column::text("name"),
        Column::text("artifact_location"),
        Column::int("deleted"),
        Column::int("created_at"),
        Column::int("updated_at"),
    ],
    &["tenant_id", "experiment_id"],
)
.clustered()
.indexes(&[Index::new("experiments_name", &[Asc("tenant_id"), Asc("name")]).unique()]);
pub(super) const EXPERIMENT_TAGS: Table = Table::new(
    "experiment_tags",
    &[Column::text("tenant_id"), Column::int("experiment_id"), Column::text("key"), Column::text("value")],
    &["tenant_id", "experiment_id", "key"],
)
.clustered();
pub(super) const RUNS: Table = Table::new(
    "runs",
    &[
        Column::int("run_no"),
        Column::text("tenant_id"),
        Column::text("run_id"),
        Column::int("experiment_id"),
        Column::text("name"),
        Column::text("user_id"),
        Column::text("status"),
        Column::int("start_time"),
        Column::int("end_time").nullable(),
        Column::text("artifact_uri"),
        Column::int("deleted"),
    ],
    &["run_no"],
)
.indexes(&[
    Index::new("runs_id", &[Asc("tenant_id"), Asc("run_id")]).unique(),
    Index::new(
        "runs_page",
        &[Asc("tenant_id"), Asc("experiment_id"), Asc("deleted"), Desc("start_time"), Asc("run_id")],
    ),
]);
pub(super) const PARAMS: Table =
    Table::new("params", &[Column::int("run_no"), Column::text("key"), Column::text("value")], &["run_no", "key"])
        .clustered()
        .indexes(&[Index::new("params_value", &[Asc("key"), Long("value"), Asc("run_no")])]);
pub(super) const RUN_TAGS: Table =
    Table::new("run_tags", &[Column::int("run_no"), Column::text("key"), Column::text("value")], &["run_no", "key"])
        .clustered()
        .indexes(&[Index::new("run_tags_value", &[Asc("key"), Long("value"), Asc("run_no")])]);
pub(super) const RUN_DATASETS: Table = Table::new(
    "run_datasets",
    &[
        Column::int("run_no"),
        Column::text("name"),
        Column::text("digest"),
        Column::text("source_type"),
        Column::text("source"),
        Column::text("schema").nullable(),
        Column::text("profile").nullable(),
        Column::text("tags"),
    ],
    &["run_no", "name", "digest"],
)
.clustered();
pub(super) const RUN_MODELS: Table = Table::new(
    "run_models",
    &[
        Column::int("run_no"),
        Column::text("direction").check("direction IN ('input', 'output')"),
        Column::text("model_id"),
        Column::int("step"),
    ],
    &["run_no", "direction", "model_id"],
)
.clustered();
pub(super) const LOGGED_MODELS: Table = Table::new(
    "logged_models",
    &[
        Column::text("tenant_id"),
        Column::text("model_id"),
        Column::int("experiment_id"),
        Column::text("name"),
        Column::text("model_type"),
        Column::text("source_run_id"),
        Column::text("artifact_uri"),
        Column::text("status"),
        Column::int("deleted"),
        Column::int("created_at"),
        Column::int("updated_at"),
    ],
    &["tenant_id", "model_id"],
)
.clustered()
.indexes(&[
    Index::new(
        "logged_models_page",
        &[Asc("tenant_id"), Asc("experiment_id"), Asc("deleted"), Desc("created_at"), Asc("model_id")],
    ),
    Index::new("logged_models_name", &[Asc("tenant_id"), Asc("name"), Asc("experiment_id")]),
]);
pub(super) const LOGGED_MODEL_PARAMS: Table = Table::new(
    "logged_model_params",
    &[Column::text("tenant_id"), Column::text("model_id"), Column::text("key"), Column::text("value")],
    &["tenant_id", "model_id", "key"],
)
.clustered();
pub(super) const LOGGED_MODEL_TAGS: Table = Table::new(
    "logged_model_tags",
    &[Column::text("tenant_id"), Column::text("model_id"), Column::text("key"), Column::text("value")],
    &["tenant_id", "model_id", "key"],
)
.clustered();
