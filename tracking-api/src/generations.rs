//! `/generations` and `/read-models`: the state of all generations, and the commands that change it.

use axum::Json;
use axum::extract::State;
use carbon_core::GenerationId;
use carbon_http::{Code, JsonBody, Path, Problem, responses};
use carbon_runtime::generations::{Keepers, change_of, claim};
use carbon_runtime::{Generation, GenerationLog};
use carbon_schemas::events::{GenerationChanged, GenerationState};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct GenerationStatus {
    id: String,
    read_model: String,
    /// `building`, `ready`, `active`, `standby` or `retired`.
    state: &'static str,
    /// True if this process answers reads from the generation.
    served: bool,
    /// The version of the fold.
    version: u32,
    model: Option<String>,
    /// The time of the change to this state, RFC 3339.
    since: String,
    /// The number of rows when the generation became ready.
    rows: Option<i64>,
    /// SHA-256 over the canonical rows when the generation became ready.
    digest: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct GenerationList {
    generations: Vec<GenerationStatus>,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RetireBody {
    /// True retires the active generation too.
    #[serde(default)]
    force: bool,
}

fn state_name(state: GenerationState) -> &'static str {
    match state {
        GenerationState::Unknown => "unknown",
        GenerationState::Building => "building",
        GenerationState::Ready => "ready",
        GenerationState::Active => "active",
        GenerationState::Standby => "standby",
        GenerationState::Retired => "retired",
    }
}

type StatusResult = Result<Json<GenerationStatus>, Problem>;

/// The generations of all read models, and which of them this process serves.
#[derive(Clone)]
pub(crate) struct Generations {
    pub log: GenerationLog,
    pub keepers: Keepers,
}

impl Generations {
    /// Returns the status of all generations in the log.
    pub fn list(&self) -> Vec<GenerationStatus> {
        self.log.now().iter().map(|generation| self.status(generation)).collect()
    }

    fn status(&self, generation: &Generation) -> GenerationStatus {
        let served = self.keepers.get(&generation.read_model).and_then(|keeper| keeper.now().served);
        GenerationStatus {
            id: generation.id.to_string(),
            read_model: generation.read_model.clone(),
            state: state_name(generation.state),
            served: served.as_ref() == Some(&generation.id),
            version: generation.version,
            model: generation.model.as_ref().map(ToString::to_string),
            since: generation.since.to_rfc3339(),
            rows: generation.rows,
            digest: generation.digest.clone(),
        }
    }

    fn find(&self, id: &str) -> Result<Generation, Problem> {
        let absent = || Problem::not_found(format!("there is no generation {id:?}; GET /generations lists them"));
        let id = GenerationId::parse(id).map_err(|_| absent())?;
        self.log.now().get(&id).cloned().ok_or_else(absent)
    }

    /// Appends the event and returns the status of its generation.
    async fn append(&self, event: &GenerationChanged) -> StatusResult {
        self.log.append(event).await?;
        Ok(Json(self.status(&self.find(event.generation.as_str())?)))
    }
}

/// All generations of all read models
#[utoipa::path(get, path = "/generations", tag = "operations", responses((status = 200, body = GenerationList)))]
pub(crate) async fn get_generations(State(generations): State<Generations>) -> Json<GenerationList> {
    Json(GenerationList { generations: generations.list() })
}

/// One generation
#[utoipa::path(get, path = "/generations/{id}", tag = "operations",
    params(("id" = String, Path, description = "Id of the generation")),
    responses((status = 200, body = GenerationStatus), responses::NotFound))]
pub(crate) async fn get_generation(State(generations): State<Generations>, Path(id): Path<String>) -> StatusResult {
    Ok(Json(generations.status(&generations.find(&id)?)))
}

/// Activate a generation
///
/// Each process of its fold version serves the generation as soon as the process's copy is filled and has folded everything
/// that the previous generation has. The previous generation goes on standby and follows the log. Answers 409 if the
/// generation is not ready, or retired.
#[utoipa::path(post, path = "/generations/{id}/promote", tag = "operations",
    params(("id" = String, Path, description = "Id of a generation that is ready or on standby")),
    responses(
        (status = 200, body = GenerationStatus), responses::NotFound, responses::Conflict, responses::Unavailable,
    ))]
pub(crate) async fn post_promote(State(generations): State<Generations>, Path(id): Path<String>) -> StatusResult {
    let generation = generations.find(&id)?;
    match generation.state {
        GenerationState::Active => Ok(Json(generations.status(&generation))),
        GenerationState::Ready | GenerationState::Standby => {
            generations.append(&change_of(&generation, GenerationState::Active)).await
        }
        state => Err(Problem::new(Code::Conflict, format!("generation {id} is {}, not ready", state_name(state)))),
    }
}

/// Retire a generation
///
/// Each process that holds the generation drops its namespace. Answers 409 for the active generation, unless `force` is set.
#[utoipa::path(post, path = "/generations/{id}/retire", tag = "operations",
    params(("id" = String, Path, description = "Id of the generation")),
    request_body = RetireBody,
    responses(
        (status = 200, body = GenerationStatus), responses::NotFound, responses::Conflict, responses::Unavailable,
    ))]
pub(crate) async fn post_retire(
    State(generations): State<Generations>,
    Path(id): Path<String>,
    JsonBody(body): JsonBody<RetireBody>,
) -> StatusResult {
    let generation = generations.find(&id)?;
    match generation.state {
        GenerationState::Retired => Ok(Json(generations.status(&generation))),
        GenerationState::Active if !body.force => Err(Problem::new(
            Code::Conflict,
            format!(
                "generation {id} is the active one of {} version {}; promote another generation first, or set force",
                generation.read_model, generation.version
            ),
        )),
        _ => generations.append(&change_of(&generation, GenerationState::Retired)).await,
    }
}

/// Fill a new generation of a read model from the log
///
/// The active generation stays in service meanwhile.
#[utoipa::path(post, path = "/read-models/{name}/replay", tag = "operations",
    params(("name" = String, Path, description = "Name of the read model")),
    responses((status = 200, body = GenerationStatus), responses::NotFound, responses::Unavailable))]
pub(crate) async fn post_replay(
    State(generations): State<Generations>,
    Path(read_model): Path<String>,
) -> StatusResult {
    let names = || generations.keepers.keys().cloned().collect::<Vec<_>>().join(", ");
    let keeper = generations.keepers.get(&read_model).ok_or_else(|| {
        Problem::not_found(format!("this process holds no read model {read_model:?}; it holds {}", names()))
    })?;
    let held = keeper.now();
    let now = generations.log.now();
    // The new generation gets the model of the active one, if there is an active one.
    let active = now.active(&read_model, held.version);
    let model = active.map_or(held.model.as_ref(), |active| active.model.as_ref());
    let event = claim(&now, &read_model, held.version, model)?;
    generations.append(&event).await
}
