//! `POST` and `DELETE /entities`: each entity becomes an `ml.entity.changed.v1` event.

mod answer;
mod batch;
mod encode;
mod stream;

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use carbon_core::{Clock, EntityId, EntityType};
use carbon_http::{Context, Path, Problem, Tenant, content_type, read_body, responses};
use carbon_log::EventLog;
use carbon_runtime::Shutdown;
use futures::StreamExt as _;

use answer::{Appended, append};
use encode::{EntityEncoder, EntityInput};

/// Maximum size of a JSON body, in bytes. NDJSON bodies have no limit.
const BODY_LIMIT: usize = 32 * 1024 * 1024;

/// Append entities
///
/// The body is one object, an array of at most 10,000 objects (all are validated before any is appended), or NDJSON of any
/// length as `application/x-ndjson`, which is validated line by line. Send the answer's `X-Log-Position` as `X-Min-Position`
/// with a read to see the write. Answers 200 and not 201, because the entity can be read only after the read models have
/// folded it. A stream is answered with 200 even if lines were rejected. The body of a 503 names what was accepted.
#[utoipa::path(post, path = "/entities", tag = "entities", params(Tenant),
    request_body(content(
        (EntityInput = "application/json"),
        (Vec<EntityInput> = "application/json"),
        (String = "application/x-ndjson")
    )),
    responses(
        (status = 200, description = "The events are durable", body = Appended,
            headers(("x-log-position" = String, description = "The last position of each partition"))),
        responses::InvalidInput, responses::TooLarge, responses::Unavailable,
    ))]
pub(crate) async fn post_entities(
    State(log): State<Arc<dyn EventLog>>,
    State(clock): State<Arc<dyn Clock>>,
    State(shutdown): State<Shutdown>,
    tenant: Tenant,
    Extension(context): Extension<Context>,
    request: Request,
) -> Result<Appended, Problem> {
    let (head, body) = request.into_parts();
    let kind = content_type(&head.headers)?;
    let encoder = EntityEncoder { tenant, clock, traceparent: context.traceparent };
    match kind.as_str() {
        "application/json" => {
            let bytes = read_body(&head.headers, body, BODY_LIMIT).await?;
            // Parsing up to 32 MiB would block a thread of the async runtime.
            let records = tokio::task::spawn_blocking(move || batch::records(&encoder, &bytes)).await;
            let records = records.map_err(|error| Problem::internal(error.to_string()))??;
            append(&*log, records).await
        }
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" => {
            let ingest = stream::Ingest::new(log, encoder, shutdown);
            let data = body.into_data_stream().map(|part| part.map_err(|error| error.to_string())).boxed();
            // A task of its own appends the received lines even if the caller disconnects.
            let answer = tokio::spawn(ingest.run(data)).await;
            answer.map_err(|error| Problem::internal(error.to_string()))?
        }
        other => Err(Problem::invalid(format!(
            "content-type is {other:?}; this route accepts application/json and application/x-ndjson"
        ))),
    }
}

/// Delete an entity
///
/// Appends a deletion event. Deleting an entity that does not exist is no error: the log does not know which exist.
#[utoipa::path(delete, path = "/entities/{entity_type}/{entity_id}", tag = "entities",
    params(
        ("entity_type" = String, Path, description = "^[a-zA-Z0-9_.-]{1,255}$"),
        ("entity_id" = String, Path, description = "^[a-zA-Z0-9_.-]{1,255}$"),
        Tenant,
    ),
    responses(
        (status = 200, description = "The event is durable", body = Appended,
            headers(("x-log-position" = String, description = "The position of the deletion"))),
        responses::InvalidInput, responses::Unavailable,
    ))]
pub(crate) async fn delete_entity(
    State(log): State<Arc<dyn EventLog>>,
    State(clock): State<Arc<dyn Clock>>,
    Path((entity_type, entity_id)): Path<(String, String)>,
    tenant: Tenant,
    Extension(context): Extension<Context>,
) -> Result<Appended, Problem> {
    let entity_type = EntityType::parse(&entity_type).map_err(|error| Problem::invalid(error.to_string()))?;
    let entity_id = EntityId::parse(&entity_id).map_err(|error| Problem::invalid(error.to_string()))?;
    let encoder = EntityEncoder { tenant, clock, traceparent: context.traceparent };
    let record = encoder.deletion(&entity_type, &entity_id).map_err(Problem::invalid)?;
    append(&*log, vec![record]).await
}
