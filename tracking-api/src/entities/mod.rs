//! `/entities`: each entity becomes an `ml.entity.changed.v1`.

mod answer;
mod batch;
mod input;
mod stream;

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use carbon_core::{EntityId, EntityType};
use carbon_http::{Context, Path, Problem, Tenant, content_type, read_body};
use futures::StreamExt as _;

use crate::Parts;
use answer::{Appended, append};
use input::{EntityInput, Writer};

/// The largest body that is not a stream.
const BODY_LIMIT: usize = 32 * 1024 * 1024;

/// Append entities
///
/// One object, an array of at most 10,000 (validated whole before anything is appended), or NDJSON as
/// `application/x-ndjson`, streamed to any length and taken line by line. The answer's `X-Log-Position` can be
/// sent back as `X-Min-Position` with a read. Answers 200 rather than 201: nothing is made that has an address
/// of its own before the read models have folded it. A stream is answered 200 even where lines were rejected.
#[utoipa::path(post, path = "/entities", tag = "entities",
    params(("tenant_id" = Option<String>, Query, description = "The tenant; `default` where nothing names one")),
    request_body(content(
        (EntityInput = "application/json"),
        (Vec<EntityInput> = "application/json"),
        (String = "application/x-ndjson")
    )),
    responses(
        (status = 200, description = "Durable", body = Appended,
            headers(("x-log-position" = String, description = "The last position of each partition"))),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 413, body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The log took nothing, or only what the answer names", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(crate) async fn post_entities(
    State(parts): State<Arc<Parts>>,
    tenant: Tenant,
    Extension(context): Extension<Context>,
    request: Request,
) -> Result<Appended, Problem> {
    let (head, body) = request.into_parts();
    let kind = content_type(&head.headers)?;
    let writer = Writer { tenant, clock: parts.clock.clone(), traceparent: context.traceparent };
    match kind.as_str() {
        "application/json" => {
            let bytes = read_body(&head.headers, body, BODY_LIMIT).await?;
            // Up to 32 MiB to parse: not on a thread that others wait for.
            let records = tokio::task::spawn_blocking(move || batch::records(&writer, &bytes)).await;
            let records = records.map_err(|error| Problem::internal(error.to_string()))??;
            append(&*parts.log, records).await
        }
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" => {
            let ingest = stream::Ingest::new(parts.log.clone(), writer, parts.shutdown.clone());
            let data = body.into_data_stream().map(|part| part.map_err(|error| error.to_string())).boxed();
            // On a task of its own: a caller that goes away must not take back what it has sent.
            let answer = tokio::spawn(ingest.run(data)).await;
            answer.map_err(|error| Problem::internal(error.to_string()))?
        }
        other => Err(Problem::invalid(format!(
            "content-type is {other:?}; this route takes application/json and application/x-ndjson"
        ))),
    }
}

/// Delete an entity
///
/// Appends a deletion event; deleting what is not there is no error, since only the read models know what is.
#[utoipa::path(delete, path = "/entities/{entity_type}/{entity_id}", tag = "entities",
    params(
        ("entity_type" = String, Path, description = "^[a-zA-Z0-9_.-]{1,255}$"),
        ("entity_id" = String, Path, description = "^[a-zA-Z0-9_.-]{1,255}$"),
        ("tenant_id" = Option<String>, Query, description = "The tenant; `default` where nothing names one"),
    ),
    responses(
        (status = 200, description = "Durable", body = Appended,
            headers(("x-log-position" = String, description = "The position of the deletion"))),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn delete_entity(
    State(parts): State<Arc<Parts>>,
    Path((entity_type, entity_id)): Path<(String, String)>,
    tenant: Tenant,
    Extension(context): Extension<Context>,
) -> Result<Appended, Problem> {
    let entity_type = EntityType::parse(&entity_type).map_err(|error| Problem::invalid(error.to_string()))?;
    let entity_id = EntityId::parse(&entity_id).map_err(|error| Problem::invalid(error.to_string()))?;
    let writer = Writer { tenant, clock: parts.clock.clone(), traceparent: context.traceparent };
    let record = writer.deletion(&entity_type, &entity_id).map_err(Problem::invalid)?;
    append(&*parts.log, vec![record]).await
}
