//! Maps errors of inference and search to problems with a specific status, such as 404 or 429.

use carbon_http::{Code, Problem};
use carbon_inference::InferenceError;
use carbon_search::SearchError;

pub(crate) fn inference(error: &InferenceError) -> Problem {
    match error {
        InferenceError::UnknownModel { .. } => Problem::of(error, Some(Code::NotFound)),
        InferenceError::NotEmbeddable { .. } => Problem::of(error, Some(Code::Unprocessable)),
        InferenceError::Overloaded { retry_after } => {
            Problem::of(error, Some(Code::Overloaded)).retry_after(*retry_after)
        }
        _ => Problem::of(error, None),
    }
}

pub(crate) fn search(error: &SearchError) -> Problem {
    match error {
        SearchError::NotFound(key) => {
            Problem::not_found(format!("{}/{} is not in the index", key.entity_type, key.entity_id))
        }
        _ => Problem::of(error, None),
    }
}

pub(crate) fn timed_out(what: &'static str) -> Problem {
    Problem::new(Code::DeadlineExceeded, format!("{what} took longer than x-timeout-ms allows"))
}
