//! The tables of registered models, their versions and promotions.

use carbon_store::IndexColumn::Asc;
use carbon_store::{Column, Index, Table};

pub(super) const REGISTERED_MODELS: Table = Table::new(
    "registered_models",
    &[
        Column::text("tenant_id"),
        Column::text("registration_id"),
        Column::text("name"),
        Column::text("description").nullable(),
        Column::int("created_at"),
        Column::int("updated_at"),
        Column::int("last_updated"),
        Column::int("deleted_at").nullable(),
    ],
    &["tenant_id", "registration_id"],
)
.clustered()
.indexes(&[Index::new("registered_models_name", &[Asc("tenant_id"), Asc("name")])
    .unique()
    .only_where("deleted_at IS NULL")]);
pub(super) const MODEL_NAMES: Table = Table::new(
    "model_names",
    &[
        Column::text("tenant_id"),
        Column::text("name"),
        Column::int("opened_offset"),
        Column::text("registration_id"),
        Column::int("opened_at"),
        Column::int("closed_at").nullable(),
    ],
    &["tenant_id", "name", "opened_offset"],
)
.clustered()
.indexes(&[Index::new("model_names_of", &[Asc("tenant_id"), Asc("registration_id")])]);
pub(super) const REGISTERED_MODEL_TAGS: Table = Table::new(
    "registered_model_tags",
    &[Column::text("tenant_id"), Column::text("registration_id"), Column::text("key"), Column::text("value")],
    &["tenant_id", "registration_id", "key"],
)
.clustered();
pub(super) const MODEL_VERSIONS: Table = Table::new(
    "model_versions",
    &[
        Column::text("tenant_id"),
        Column::text("registration_id"),
        Column::int("version"),
        Column::text("version_id"),
        Column::text("description"),
        Column::text("run_id"),
        Column::text("model_id"),
        Column::text("source"),
        Column::text("storage"),
        Column::text("run_link"),
        Column::text("manifest"),
        Column::text("manifest_digest").nullable(),
        Column::text("stage"),
        Column::int("created_at"),
        Column::int("updated_at"),
        Column::int("last_updated"),
        Column::int("deleted_at").nullable(),
    ],
    &["tenant_id", "registration_id", "version"],
)
.clustered()
.indexes(&[
    Index::new("model_versions_id", &[Asc("tenant_id"), Asc("version_id")]).unique(),
    Index::new("model_versions_stage", &[Asc("tenant_id"), Asc("registration_id"), Asc("stage"), Asc("version")])
        .only_where("deleted_at IS NULL"),
    Index::new("model_versions_run", &[Asc("tenant_id"), Asc("run_id")]),
]);
pub(super) const MODEL_VERSION_TAGS: Table = Table::new(
    "model_version_tags",
    &[
        Column::text("tenant_id"),
        Column::text("registration_id"),
        Column::int("version"),
        Column::text("key"),
        Column::text("value"),
    ],
    &["tenant_id", "registration_id", "version", "key"],
)
.clustered();
pub(super) const MODEL_ALIASES: Table = Table::new(
    "model_aliases",
    &[Column::text("tenant_id"), Column::text("registration_id"), Column::text("alias"), Column::int("version")],
    &["tenant_id", "registration_id", "alias"],
)
.clustered();
pub(super) const PROMOTIONS: Table = Table::new(
    "promotions",
    &[
        Column::int("offset"),
        Column::text("tenant_id"),
        Column::text("event_id"),
        Column::text("model_name"),
        Column::text("registration_id").nullable(),
        Column::int("version").nullable(),
        Column::text("version_id").nullable(),
        Column::text("run_id").nullable(),
        Column::text("stage").nullable(),
        Column::text("alias").nullable(),
        Column::int("archive_existing"),
        Column::int("previous").nullable(),
        Column::text("promoted_by").nullable(),
        Column::int("occurred_at"),
        Column::text("meant_id").nullable(),
        Column::text("effect"),
    ],
    &["offset"],
)
.indexes(&[
    Index::new("promotions_name", &[Asc("tenant_id"), Asc("model_name")]).only_where("registration_id IS NULL"),
    Index::new("promotions_registration", &[Asc("tenant_id"), Asc("registration_id")]),
    Index::new("promotions_meant", &[Asc("tenant_id"), Asc("meant_id")]),
]);
