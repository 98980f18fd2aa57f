//! `/generations`: what the log says of them, and the operator's changes.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use carbon_core::GenerationId;
use carbon_http::{Code, JsonBody, Path, Problem};
use carbon_runtime::Generation;
use carbon_runtime::generations::{change_of, claim};
use carbon_schemas::events::{GenerationChanged, GenerationState};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Parts;

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct GenerationStatus {
    id: String,
    read_model: String,
    /// `building`, `ready`, `active`, `standby` or `retired`.
    state: &'static str,
    /// Whether this process answers from it.
    served: bool,
    /// The version of the fold.
    version: u32,
    model: Option<String>,
    /// When it came into this state, RFC 3339.
    since: String,
    /// As counted when it was ready.
    rows: Option<i64>,
    /// SHA-256 over the canonical rows, when it was ready.
    digest: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct GenerationList {
    generations: Vec<GenerationStatus>,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RetireBody {
    /// Also the one that its fold version's processes answer from.
    #[serde(default)]
    force: bool,
}

fn name(state: GenerationState) -> &'static str {
    match state {
        GenerationState::Unknown => "unknown",
        GenerationState::Building => "building",
        GenerationState::Ready => "ready",
        GenerationState::Active => "active",
        GenerationState::Standby => "standby",
        GenerationState::Retired => "retired",
    }
}

/// All generations that the log knows.
pub(crate) fn list(parts: &Parts) -> Vec<GenerationStatus> {
    parts.generations.now().iter().map(|generation| status(parts, generation)).collect()
}

fn status(parts: &Parts, generation: &Generation) -> GenerationStatus {
    let served = parts.keepers.get(&generation.read_model).and_then(|keeper| keeper.now().served);
    GenerationStatus {
        id: generation.id.to_string(),
        read_model: generation.read_model.clone(),
        state: name(generation.state),
        served: served.as_ref() == Some(&generation.id),
        version: generation.version,
        model: generation.model.as_ref().map(ToString::to_string),
        since: generation.since.to_rfc3339(),
        rows: generation.rows,
        digest: generation.digest.clone(),
    }
}

fn find(parts: &Parts, id: &str) -> Result<Generation, Problem> {
    let absent = || Problem::not_found(format!("there is no generation {id:?}; GET /generations lists them"));
    let id = GenerationId::parse(id).map_err(|_| absent())?;
    parts.generations.now().get(&id).cloned().ok_or_else(absent)
}

/// All generations of all read models
#[utoipa::path(get, path = "/generations", tag = "operations", responses((status = 200, body = GenerationList)))]
pub(crate) async fn get_generations(State(parts): State<Arc<Parts>>) -> Json<GenerationList> {
    Json(GenerationList { generations: list(&parts) })
}

/// One generation
#[utoipa::path(get, path = "/generations/{id}", tag = "operations",
    params(("id" = String, Path, description = "The generation")),
    responses(
        (status = 200, body = GenerationStatus),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn get_generation(
    State(parts): State<Arc<Parts>>,
    Path(id): Path<String>,
) -> Result<Json<GenerationStatus>, Problem> {
    Ok(Json(status(&parts, &find(&parts, &id)?)))
}

async fn append(parts: &Parts, event: &GenerationChanged) -> Result<Json<GenerationStatus>, Problem> {
    parts.generations.append(event).await?;
    Ok(Json(status(parts, &find(parts, event.generation.as_str())?)))
}

/// Activate a generation
///
/// Every process of its fold version answers from it as soon as its own copy is filled and has folded everything that the
/// one before has. The one before follows the log on standby.
#[utoipa::path(post, path = "/generations/{id}/promote", tag = "operations",
    params(("id" = String, Path, description = "A generation that is ready, or on standby")),
    responses(
        (status = 200, body = GenerationStatus),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It is not ready, or retired", body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn post_promote(
    State(parts): State<Arc<Parts>>,
    Path(id): Path<String>,
) -> Result<Json<GenerationStatus>, Problem> {
    let generation = find(&parts, &id)?;
    match generation.state {
        GenerationState::Active => Ok(Json(status(&parts, &generation))),
        GenerationState::Ready | GenerationState::Standby => {
            append(&parts, &change_of(&generation, GenerationState::Active)).await
        }
        state => Err(Problem::new(Code::Conflict, format!("generation {id} is {}, not ready", name(state)))),
    }
}

/// Retire a generation: every process that holds it drops its namespace
#[utoipa::path(post, path = "/generations/{id}/retire", tag = "operations",
    params(("id" = String, Path, description = "The generation")),
    request_body = RetireBody,
    responses(
        (status = 200, body = GenerationStatus),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It is the active one", body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn post_retire(
    State(parts): State<Arc<Parts>>,
    Path(id): Path<String>,
    JsonBody(body): JsonBody<RetireBody>,
) -> Result<Json<GenerationStatus>, Problem> {
    let generation = find(&parts, &id)?;
    match generation.state {
        GenerationState::Retired => Ok(Json(status(&parts, &generation))),
        GenerationState::Active if !body.force => Err(Problem::new(
            Code::Conflict,
            format!(
                "generation {id} is the active one of {} version {}; promote another first, or retire it by force",
                generation.read_model, generation.version
            ),
        )),
        _ => append(&parts, &change_of(&generation, GenerationState::Retired)).await,
    }
}

/// Fill another generation of a read model from the log, beside the one that is served
#[utoipa::path(post, path = "/read-models/{name}/replay", tag = "operations",
    params(("name" = String, Path, description = "The read model")),
    responses(
        (status = 200, body = GenerationStatus),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn post_replay(
    State(parts): State<Arc<Parts>>,
    Path(read_model): Path<String>,
) -> Result<Json<GenerationStatus>, Problem> {
    let known = || parts.keepers.keys().cloned().collect::<Vec<_>>().join(", ");
    let keeper = parts.keepers.get(&read_model);
    let keeper = keeper.ok_or_else(|| {
        Problem::not_found(format!("this process keeps no read model {read_model:?}; it keeps {}", known()))
    })?;
    let kept = keeper.now();
    let now = parts.generations.now();
    // The model of the active generation decides, as long as there is one.
    let active = now.active(&read_model, kept.version);
    let model = active.map_or(kept.model.as_ref(), |active| active.model.as_ref());
    let event = claim(&now, &read_model, kept.version, model)?;
    append(&parts, &event).await
}
