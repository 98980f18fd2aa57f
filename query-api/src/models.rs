//! `GET /models/{name}` and `GET /models/{name}/history`: what a name means, and who made it so.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use carbon_core::{Timestamp, parse_rfc3339};
use carbon_http::{Path, Problem, Query, ReadAfter, Tenant};
use carbon_read_models::registry::queries::{
    ModelVersion, PromotionRecord, PromotionsPage, RegisteredModel, promotions, registered_model,
    registered_model_as_of, versions_of,
};
use carbon_runtime::Rows;
use carbon_schemas::Event as _;
use carbon_schemas::events::ModelPromoted;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::App;

/// The stage, else the alias, whose version a name alone means.
const ACTIVE_STAGE: &str = "Production";
const ACTIVE_ALIAS: &str = "champion";

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Model {
    name: String,
    /// What the name alone means: the newest version in stage Production, else the one with alias `champion`.
    active_version: Option<i64>,
    /// Of the active version.
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
    /// SHA-256 over the files as they were registered; null where they lie elsewhere.
    manifest_digest: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ModelQuery {
    /// What was so then, as RFC 3339: 2026-01-31T12:00:00Z. Descriptions are today's.
    as_of: Option<String>,
    /// The tenant; `default` where nothing names one.
    #[allow(dead_code)]
    tenant_id: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct HistoryQuery {
    /// Only promotions until then, as RFC 3339.
    as_of: Option<String>,
    /// Only promotions before this one: what the page before answered as `next`.
    before: Option<u64>,
    /// 1 to 1000.
    #[param(default = 100)]
    limit: Option<usize>,
    /// The tenant; `default` where nothing names one.
    #[allow(dead_code)]
    tenant_id: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct History {
    name: String,
    /// The newest first; those of every life of the name, and those that named it in vain.
    promotions: Vec<Promotion>,
    /// Where the next page begins, where there is one.
    next: Option<u64>,
}

#[derive(Debug, Serialize, ToSchema)]
struct Promotion {
    /// Of its record, as `topic:partition:offset`.
    position: String,
    event_id: String,
    /// RFC 3339.
    at: String,
    /// The name that it said.
    model_name: String,
    /// One life of a name.
    registration_id: Option<String>,
    /// Null where an alias was removed.
    version: Option<i64>,
    stage: Option<String>,
    alias: Option<String>,
    archive_existing: bool,
    /// The version that had the stage or alias before, as far as its writer knew.
    previous: Option<i64>,
    run_id: Option<String>,
    promoted_by: Option<String>,
    /// applied, no_such_model, no_such_version or another_version: why nothing came of it.
    effect: String,
}

fn time(text: Option<&str>) -> Result<Option<Timestamp>, Problem> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    let refused = || Problem::invalid(format!("as_of is {text:?}, not a time such as 2026-01-31T12:00:00Z"));
    parse_rfc3339(text).map(Some).ok_or_else(refused)
}

impl App {
    /// The registry, once it has applied what the caller has written.
    async fn registry(&self, read: &ReadAfter) -> Result<Arc<Rows>, Problem> {
        let topic = self.parts.topology.topics.get(ModelPromoted::NAME);
        let topic = topic.ok_or_else(|| Problem::internal("the topology has no topic for promotions"))?;
        let positions = read.positions_of(&topic.spec)?;
        let registry = self.rows("registry")?;
        self.reached("the registry", &registry.view, positions, read).await?;
        Ok(registry)
    }
}

fn absent(name: &str) -> Problem {
    Problem::not_found(format!("no registered model is called {name:?}"))
}

impl From<&ModelVersion> for Version {
    fn from(own: &ModelVersion) -> Self {
        Self {
            version: own.version,
            stage: own.stage.clone(),
            aliases: own.aliases.clone(),
            created_at: own.created_at.to_rfc3339(),
            run_id: Some(own.run_id.clone()).filter(|id| !id.is_empty()),
            source: own.source.clone(),
            manifest_digest: own.manifest_digest.clone(),
        }
    }
}

fn shown(model: RegisteredModel, versions: &[ModelVersion]) -> Model {
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

/// A registered model, now or as it was
#[utoipa::path(get, path = "/models/{name}", tag = "models",
    params(
        ("name" = String, Path, description = "The registered model"),
        ModelQuery,
        ("x-min-position" = Option<String>, Header, description = "Wait until the registry has applied these positions"),
        ("x-timeout-ms" = Option<u64>, Header, description = "How long it may take; 2000 unless said, at most 60000"),
    ),
    responses(
        (status = 200, body = Model),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "Nobody has the name, or nobody had it then", body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn get_model(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    tenant: Tenant,
    Query(query): Query<ModelQuery>,
    read: ReadAfter,
) -> Result<Json<Model>, Problem> {
    let at = time(query.as_of.as_deref())?;
    let scope = tenant.scope();
    let registry = app.registry(&read).await?;
    let rows = &registry.namespace;
    if let Some(at) = at {
        let mut model = registered_model_as_of(rows, &scope, &name, at).await?.ok_or_else(|| absent(&name))?;
        let versions = std::mem::take(&mut model.latest);
        return Ok(Json(shown(model, &versions)));
    }
    let model = registered_model(rows, &scope, &name).await?.ok_or_else(|| absent(&name))?;
    let versions = versions_of(rows, &scope, &model.registration_id).await?;
    Ok(Json(shown(model, &versions)))
}

/// Who promoted what, and when
#[utoipa::path(get, path = "/models/{name}/history", tag = "models",
    params(
        ("name" = String, Path, description = "The registered model, by any name that it has or had"),
        HistoryQuery,
        ("x-min-position" = Option<String>, Header, description = "Wait until the registry has applied these positions"),
        ("x-timeout-ms" = Option<u64>, Header, description = "How long it may take; 2000 unless said, at most 60000"),
    ),
    responses(
        (status = 200, body = History),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "Nobody has or had the name, and nobody promoted it", body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn get_history(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    tenant: Tenant,
    Query(query): Query<HistoryQuery>,
    read: ReadAfter,
) -> Result<Json<History>, Problem> {
    let limit = query.limit.unwrap_or(100);
    if !(1..=1000).contains(&limit) {
        return Err(Problem::invalid(format!("limit is {limit}, not 1 to 1000")));
    }
    let page = PromotionsPage { before: query.before, as_of: time(query.as_of.as_deref())?, limit };
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
    fn from(own: PromotionRecord) -> Self {
        Self {
            position: format!("{}:0:{}", ModelPromoted::NAME, own.offset),
            event_id: own.event_id,
            at: own.occurred_at.to_rfc3339(),
            model_name: own.model_name,
            registration_id: own.registration_id,
            version: own.version,
            stage: own.stage,
            alias: own.alias,
            archive_existing: own.archive_existing,
            previous: own.previous,
            run_id: own.run_id,
            promoted_by: own.promoted_by,
            effect: own.effect,
        }
    }
}
