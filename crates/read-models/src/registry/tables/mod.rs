//! The tables of the registry. The tables of metric points are in [`points`].

mod canonical;
mod models;
mod runs;

use carbon_store::{Column, Table};

pub(super) use self::canonical::canonical;
use super::points;

pub(super) const TABLES: &[Table] = &[
    runs::EXPERIMENTS,
    runs::EXPERIMENT_TAGS,
    runs::RUNS,
    runs::PARAMS,
    runs::RUN_TAGS,
    points::METRICS,
    points::WIDE_METRICS,
    points::METRIC_SEGMENTS,
    points::LATEST_METRICS,
    runs::RUN_DATASETS,
    runs::RUN_MODELS,
    runs::LOGGED_MODELS,
    runs::LOGGED_MODEL_PARAMS,
    runs::LOGGED_MODEL_TAGS,
    models::REGISTERED_MODELS,
    models::MODEL_NAMES,
    models::REGISTERED_MODEL_TAGS,
    models::MODEL_VERSIONS,
    models::MODEL_VERSION_TAGS,
    models::MODEL_ALIASES,
    models::PROMOTIONS,
    WEBHOOKS,
    ARTIFACTS,
    CONFLICTS,
];

const WEBHOOKS: Table = Table::new(
    "webhooks",
    &[
        Column::text("tenant_id"),
        Column::text("webhook_id"),
        Column::text("name"),
        Column::text("description"),
        Column::text("url"),
        Column::text("events"),
        Column::text("status"),
        Column::text("sealed_secret"),
        Column::int("deleted"),
        Column::int("created_at"),
        Column::int("updated_at"),
    ],
    &["tenant_id", "webhook_id"],
)
.clustered();
const ARTIFACTS: Table = Table::new(
    "artifacts",
    &[
        Column::text("tenant_id"),
        Column::text("path"),
        Column::text("owner"),
        Column::int("size"),
        Column::text("sha256"),
        Column::int("stored_at"),
    ],
    &["tenant_id", "path"],
)
.clustered();
const CONFLICTS: Table = Table::new(
    "conflicts",
    &[
        Column::text("topic"),
        Column::int("partition"),
        Column::int("offset"),
        Column::text("code"),
        Column::text("message"),
    ],
    &["topic", "partition", "offset"],
)
.clustered();
