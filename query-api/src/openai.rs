//! `POST /v1/embeddings`: the same, in OpenAI's shape.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use carbon_http::{JsonBody, Problem, ReadAfter};
use carbon_schemas::events::vector_to_bytes;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::App;
use crate::embed::{PATIENCE, check_count, check_text, known_model, loaded_model};
use crate::vectors::{ENCODE_AT_ONCE, encode_all};

/// Fields that only other services know, such as `user`, are passed over, as OpenAI's clients expect.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct EmbeddingsBody {
    input: Input,
    model: String,
    /// `float` or `base64` (little-endian 32-bit floats).
    #[serde(default)]
    encoding_format: Option<Encoding>,
    /// The model's own dimension, if given.
    #[serde(default)]
    dimensions: Option<usize>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
enum Input {
    One(String),
    Many(Vec<String>),
}

#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Encoding {
    #[default]
    Float,
    Base64,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EmbeddingsAnswer {
    /// Always `list`.
    object: &'static str,
    data: Vec<EmbeddingItem>,
    model: String,
    usage: Usage,
}

#[derive(Debug, Serialize, ToSchema)]
struct EmbeddingItem {
    /// Always `embedding`.
    object: &'static str,
    index: usize,
    embedding: Vector,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
enum Vector {
    Float(Vec<f32>),
    Base64(String),
}

#[derive(Debug, Serialize, ToSchema)]
struct Usage {
    prompt_tokens: u64,
    total_tokens: u64,
}

/// Turn texts into vectors, in OpenAI's shape
#[utoipa::path(post, path = "/v1/embeddings", tag = "embeddings",
    request_body = EmbeddingsBody,
    responses(
        (status = 200, body = EmbeddingsAnswer),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such model", body = Problem, content_type = "application/problem+json"),
        (status = 413, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
        (status = 429, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn post_embeddings(
    State(app): State<Arc<App>>,
    read: ReadAfter,
    JsonBody(body): JsonBody<EmbeddingsBody, { 32 * 1024 * 1024 }>,
) -> Result<Json<EmbeddingsAnswer>, Problem> {
    let texts = match body.input {
        Input::One(text) => vec![text],
        Input::Many(texts) => texts,
    };
    check_count(texts.len(), app.parts.config.max_batch_size.get())?;
    for (index, text) in texts.iter().enumerate() {
        check_text(text).map_err(|reason| Problem::invalid(format!("input {index}: {reason}")))?;
    }
    known_model(&body.model)?;
    let search = app.search()?;
    loaded_model(&body.model, &search.model)?;
    let dimension = search.encoder.dimension();
    if body.dimensions.is_some_and(|wanted| wanted != dimension) {
        return Err(Problem::invalid(format!("{} has {dimension} dimensions and cannot be cut", search.model)));
    }
    let embeddings = encode_all(&search, &texts, ENCODE_AT_ONCE, read.deadline_or(PATIENCE)).await?;
    let tokens = embeddings.iter().map(|embedding| u64::from(embedding.tokens)).sum();
    let item = |(index, vector): (usize, Vec<f32>)| {
        let embedding = match body.encoding_format.unwrap_or_default() {
            Encoding::Float => Vector::Float(vector),
            Encoding::Base64 => Vector::Base64(STANDARD.encode(vector_to_bytes(&vector))),
        };
        EmbeddingItem { object: "embedding", index, embedding }
    };
    Ok(Json(EmbeddingsAnswer {
        object: "list",
        data: embeddings.into_iter().map(|embedding| embedding.vector).enumerate().map(item).collect(),
        model: search.model.to_string(),
        usage: Usage { prompt_tokens: tokens, total_tokens: tokens },
    }))
}
