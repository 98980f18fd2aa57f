//! `POST /v1/embeddings`: texts to vectors, with the request and response format of OpenAI's API.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use carbon_http::{JsonBody, Problem, ReadAfter, responses};
use carbon_runtime::Config;
use carbon_schemas::events::vector_to_bytes;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::embed::{BODY_LIMIT, TIMEOUT, check_count, check_model_loaded, check_model_name, check_text};
use crate::state::SearchHandle;
use crate::vectors::{MAX_TEXTS_PER_CALL, encode_all};

/// The request. Unknown fields, such as `user`, are ignored, as OpenAI's clients expect.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct EmbeddingsBody {
    input: Input,
    model: String,
    /// `float` or `base64` (little-endian 32-bit floats).
    #[serde(default)]
    encoding_format: Option<Encoding>,
    /// If given, must be the model's dimension.
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

/// Embed texts, in OpenAI's format
///
/// Answers 404 if the model does not exist or is not loaded, and 422 if the model cannot embed a text.
#[utoipa::path(post, path = "/v1/embeddings", tag = "embeddings",
    request_body = EmbeddingsBody,
    responses(
        (status = 200, body = EmbeddingsAnswer), responses::InvalidInput, responses::NotFound, responses::TooLarge,
        responses::Unprocessable, responses::Overloaded, responses::Unavailable,
    ))]
pub(crate) async fn post_embeddings(
    State(config): State<Arc<Config>>,
    State(search): State<SearchHandle>,
    read: ReadAfter,
    JsonBody(body): JsonBody<EmbeddingsBody, BODY_LIMIT>,
) -> Result<Json<EmbeddingsAnswer>, Problem> {
    let texts = match body.input {
        Input::One(text) => vec![text],
        Input::Many(texts) => texts,
    };
    check_count(texts.len(), config.max_batch_size.get())?;
    for (index, text) in texts.iter().enumerate() {
        check_text(text).map_err(|reason| Problem::invalid(format!("input {index}: {reason}")))?;
    }
    check_model_name(&body.model)?;
    let search = search.get()?;
    check_model_loaded(&body.model, &search.model)?;
    let dimension = search.encoder.dimension();
    if body.dimensions.is_some_and(|wanted| wanted != dimension) {
        return Err(Problem::invalid(format!(
            "{} has {dimension} dimensions; other values are not supported",
            search.model
        )));
    }
    let embeddings = encode_all(&search, &texts, MAX_TEXTS_PER_CALL, read.deadline_or(TIMEOUT)).await?;
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
