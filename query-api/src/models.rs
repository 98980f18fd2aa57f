//! `GET /models/{name}` and `GET /models/{name}/history`: a registered model with its active version, and its promotions.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use carbon_core::{Timestamp, parse_rfc3339};
use carbon_http::{Path, Problem, Query, ReadAfter, Tenant, responses};
use carbon_read_models::registry::queries::{
    ModelVersion, PromotionRecord, PromotionsPage, RegisteredModel, promotions, registered_model,
    registered_model_as_of, versions_of,
};
use carbon_runtime::Rows;
use carbon_schemas::Event as _;
use carbon_schemas::events::ModelPromoted;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::state::AppState;
use crate::wait::wait_for_fold;

/// The newest version in this stage is the active version of a model.
const ACTIVE_STAGE: &str = "Production";

/// The alias of the active version, if no version is in [`ACTIVE_STAGE`].
const ACTIVE_ALIAS: &str = "champion";

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Model {
    name: String,
    /// The newest version in stage Production, or else the version with alias `champion`.
    active_version: Option<i64>,
    /// The stage of the active version.
    stage: Option<String>,
    /// RFC 3339.
    created_at: String,
    description: Option<String>,
    versions: Vec<Version>,
}

#[derive(Debug, Serialize, ToSchema)]
struct Version {
    version: i64,
    stage: String,
    aliases: Vec<String>,
    /// RFC 3339.
    created_at: String,
    run_id: Option<String>,
    source: String,
    /// SHA-256 over the files at the time of the registration; null if they are not in the artifact store.
    manifest_digest: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ModelQuery {
    /// Return the state at this time, RFC 3339, such as 2026-01-31T12:00:00Z. Descriptions are the current ones.
    as_of: Option<String>,
    /// The tenant; `default` if the request names none.
    #[allow(dead_code)]
    tenant_id: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct HistoryQuery {
    /// Return promotions until this time only, RFC 3339.
    as_of: Option<String>,
    /// Return promotions before this one only: `next` of the previous page.
    before: Option<u64>,
    /// 1 to 1000.
    #[param(default = 100)]
    limit: Option<usize>,
    /// The tenant; `default` if the request names none.
    #[allow(dead_code)]
    tenant_id: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct History {
    name: String,
    /// Newest first. Includes promotions of earlier models with this name, and promotions that had no effect.
    promotions: Vec<Promotion>,
    /// The value of `before` for the next page; null on the last page.
    next: Option<u64>,
}

#[derive(Debug, Serialize, ToSchema)]
struct Promotion {
    /// The position of the promotion's record, as `topic:partition:offset`.
    position: String,
    event_id: String,
    /// RFC 3339.
    at: String,
    /// The model's name at the time of the promotion.
    model_name: String,
    /// Id of the registration. A name that is deleted and created again has another one.
    registration_id: Option<String>,
    /// Null if the promotion removed an alias.
    version: Option<i64>,
    stage: Option<String>,
    alias: Option<String>,
    archive_existing: bool,
    /// The version that had the stage or alias when the promotion was written.
    previous: Option<i64>,
    run_id: Option<String>,
    promoted_by: Option<String>,
    /// `applied`, or why the promotion had no effect: `no_such_model`, `no_such_version` or `another_version`.
    effect: String,
}

fn parse_as_of(text: Option<&str>) -> Result<Option<Timestamp>, Problem> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    let invalid = || Problem::invalid(format!("as_of is {text:?}, not a time such as 2026-01-31T12:00:00Z"));
    parse_rfc3339(text).map(Some).ok_or_else(invalid)
}

impl AppState {
    /// Returns the registry once it has applied the caller's positions in the topic of promotions.
    async fn registry(&self, read: &ReadAfter) -> Result<Arc<Rows>, Problem> {
        let topic = self.dependencies.topology.topics.get(ModelPromoted::NAME);
        let topic = topic.ok_or_else(|| Problem::internal("the topology has no topic for promotions"))?;
        let positions = read.positions_of(&topic.spec)?;
        let registry = self.rows("registry")?;
        wait_for_fold("the registry", &registry.view, positions, read).await?;
        Ok(registry)
    }
}

fn absent(name: &str) -> Problem {
    Problem::not_found(format!("no registered model has the name {name:?}"))
}

impl From<&ModelVersion> for Version {
    fn from(row: &ModelVersion) -> Self {
        Self {
            version: row.version,
            stage: row.stage.clone(),
            aliases: row.aliases.clone(),
            created_at: row.created_at.to_rfc3339(),
            run_id: Some(row.run_id.clone()).filter(|id| !id.is_empty()),
            source: row.source.clone(),
            manifest_digest: row.manifest_digest.clone(),
        }
    }
}

fn model_answer(model: RegisteredModel, versions: &[ModelVersion]) -> Model {
    let in_stage = versions.iter().rfind(|version| version.stage == ACTIVE_STAGE);
    let with_alias = || versions.iter().find(|version| version.aliases.iter().any(|alias| alias == ACTIVE_ALIAS));
    let active = in_stage.or_else(with_alias);
    Model {
        active_version: active.map(|version| version.version),
        stage: active.map(|version| version.stage.clone()),
        created_at: model.created_at.to_rfc3339(),
        description: model.description,
        versions: versions.iter().map(Version::from).collect(),
        name: model.name,
    }
}

/// A registered model, now or at an earlier time
///
/// Answers 404 if no model has the name, or had it at `as_of`.
#[utoipa::path(get, path = "/models/{name}", tag = "models",
    params(("name" = String, Path, description = "Name of the registered model"), ModelQuery, ReadAfter),
    responses((status = 200, body = Model), responses::InvalidInput, responses::NotFound, responses::Unavailable))]
pub(crate) async fn get_model(
    State(app): State<AppState>,
    Path(name): Path<String>,
    tenant: Tenant,
    Query(query): Query<ModelQuery>,
    read: ReadAfter,
) -> Result<Json<Model>, Problem> {
    let at = parse_as_of(query.as_of.as_deref())?;
    let scope = tenant.scope();
    let registry = app.registry(&read).await?;
    let rows = &registry.namespace;
    if let Some(at) = at {
        let mut model = registered_model_as_of(rows, &scope, &name, at).await?.ok_or_else(|| absent(&name))?;
        let versions = std::mem::take(&mut model.latest);
        return Ok(Json(model_answer(model, &versions)));
    }
    let model = registered_model(rows, &scope, &name).await?.ok_or_else(|| absent(&name))?;
    let versions = versions_of(rows, &scope, &model.registration_id).await?;
    Ok(Json(model_answer(model, &versions)))
}

/// The promotions of a registered model
///
/// Answers 404 if no model has the name and no promotion names it.
#[utoipa::path(get, path = "/models/{name}/history", tag = "models",
    params(("name" = String, Path, description = "Current or former name of the model"), HistoryQuery, ReadAfter),
    responses((status = 200, body = History), responses::InvalidInput, responses::NotFound, responses::Unavailable))]
pub(crate) async fn get_history(
    State(app): State<AppState>,
    Path(name): Path<String>,
    tenant: Tenant,
    Query(query): Query<HistoryQuery>,
    read: ReadAfter,
) -> Result<Json<History>, Problem> {
    let limit = query.limit.unwrap_or(100);
    if !(1..=1000).contains(&limit) {
        return Err(Problem::invalid(format!("limit is {limit}, not 1 to 1000")));
    }
    let page = PromotionsPage { before: query.before, as_of: parse_as_of(query.as_of.as_deref())?, limit };
    let scope = tenant.scope();
    let registry = app.registry(&read).await?;
    let rows = &registry.namespace;
    let found = promotions(rows, &scope, &name, page).await?;
    if found.items.is_empty() && registered_model(rows, &scope, &name).await?.is_none() {
        return Err(absent(&name));
    }
    let next = found.items.last().map(|last| last.offset).filter(|_| found.more);
    Ok(Json(History { name, promotions: found.items.into_iter().map(Promotion::from).collect(), next }))
}

impl From<PromotionRecord> for Promotion {
    fn from(row: PromotionRecord) -> Self {
        Self {
            position: format!("{}:0:{}", ModelPromoted::NAME, row.offset),
            event_id: row.event_id,
            at: row.occurred_at.to_rfc3339(),
            model_name: row.model_name,
            registration_id: row.registration_id,
            version: row.version,
            stage: row.stage,
            alias: row.alias,
            archive_existing: row.archive_existing,
            previous: row.previous,
            run_id: row.run_id,
            promoted_by: row.promoted_by,
            effect: row.effect,
        }
    }
}
