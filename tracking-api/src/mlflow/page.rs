//! Orders and pages: an opaque token says where the next page begins.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use carbon_read_models::registry::filter::{Order, Target, parse_order_by};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::args::Args;
use super::error::MlflowError;

/// Each is a join, of which SQLite takes 64.
pub(super) const MAX_ORDERS: usize = 32;

/// The terms of an order. One that comes twice is refused, as with MLflow, but for experiments.
pub(super) fn order_by(args: &Args, target: Target) -> Result<Vec<Order>, MlflowError> {
    let terms = args.texts("order_by")?;
    if terms.len() > MAX_ORDERS {
        return Err(MlflowError::invalid(format!("`order_by` has more than {MAX_ORDERS} terms")));
    }
    let mut orders: Vec<Order> = Vec::with_capacity(terms.len());
    for term in &terms {
        let order = parse_order_by(target, term)?;
        let twice = orders.iter().any(|other| (other.entity, &other.key) == (order.entity, &order.key));
        if twice && target != Target::Experiments {
            return Err(MlflowError::invalid(format!("`order_by` contains duplicate fields: {terms:?}")));
        }
        orders.push(order);
    }
    Ok(orders)
}

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
        if let Some(token) = self.token(more) {
            super::shapes::put(answer, "next_page_token", token);
        }
    }

    /// The token of the next page, where there is one.
    pub fn token(self, more: bool) -> Option<String> {
        let next = Token { offset: self.offset + self.limit };
        more.then(|| BASE64_STANDARD.encode(serde_json::to_vec(&next).unwrap_or_default()))
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
