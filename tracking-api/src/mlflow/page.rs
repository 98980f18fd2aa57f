//! Paging: an opaque token that says where the next page begins.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::args::Args;
use super::error::MlflowError;

#[derive(Serialize, Deserialize)]
struct Token {
    offset: usize,
}

/// Where a page begins, and how much it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Paging {
    pub limit: usize,
    pub offset: usize,
}

impl Paging {
    pub fn read(args: &Args, default: Option<i64>, limit: i64) -> Result<Self, MlflowError> {
        let asked = args.integer("max_results")?.or(default).unwrap_or(0);
        if asked <= 0 {
            return Err(MlflowError::invalid(format!(
                "Invalid value {asked} for parameter 'max_results' supplied. It must be a positive integer"
            )));
        }
        if asked > limit {
            return Err(MlflowError::invalid(format!(
                "Invalid value {asked} for parameter 'max_results' supplied. It must be at most {limit}"
            )));
        }
        let offset = match args.text("page_token")?.filter(|token| !token.is_empty()) {
            Some(token) => offset(token)?,
            None => 0,
        };
        Ok(Self { limit: asked as usize, offset })
    }

    /// Adds the token of the next page, where there is one.
    pub fn sign(self, answer: &mut Map<String, Value>, more: bool) {
        if more {
            let token = serde_json::to_vec(&Token { offset: self.offset + self.limit }).unwrap_or_default();
            super::shapes::put(answer, "next_page_token", BASE64_STANDARD.encode(token));
        }
    }
}

fn offset(token: &str) -> Result<usize, MlflowError> {
    let bytes = BASE64_STANDARD.decode(token);
    let bytes = bytes.map_err(|_| MlflowError::invalid("Invalid page token, could not base64-decode"))?;
    let token: Token = serde_json::from_slice(&bytes)
        .map_err(|_| MlflowError::invalid("Invalid page token, it is not one of ours"))?;
    // Beyond what a database counts there is no page.
    Ok(token.offset.min(i64::MAX as usize / 2))
}
