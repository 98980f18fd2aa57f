//! `order_by` and paging. The token of the next page is an encoded offset.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use carbon_read_models::registry::filter::{Order, Target, parse_order_by};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::args::Args;
use super::call::{Answer, Answered};
use super::error::MlflowError;
use super::shapes;

/// Maximum number of `order_by` terms. Each term is a join, and SQLite supports 64 joins.
pub(super) const MAX_ORDERS: usize = 32;

/// Parses `order_by`. Duplicate terms are rejected except for experiments, as in MLflow.
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

/// The offset and the size of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Paging {
    pub limit: usize,
    pub offset: usize,
}

impl Paging {
    /// Parses `max_results` and `page_token`. Without a `default`, `max_results` is required.
    pub fn parse(args: &Args, default: Option<i64>, limit: i64) -> Result<Self, MlflowError> {
        let max_results = args.integer("max_results")?.or(default).unwrap_or(0);
        if max_results <= 0 {
            return Err(MlflowError::invalid(format!(
                "Invalid value {max_results} for parameter 'max_results' supplied. It must be a positive integer"
            )));
        }
        if max_results > limit {
            return Err(MlflowError::invalid(format!(
                "Invalid value {max_results} for parameter 'max_results' supplied. It must be at most {limit}"
            )));
        }
        let offset = match args.text("page_token")?.filter(|token| !token.is_empty()) {
            Some(token) => offset(token)?,
            None => 0,
        };
        Ok(Self { limit: max_results as usize, offset })
    }

    /// Returns the answer of one page: the list `name` of `items`, and the token of the next page if there are `more` items.
    pub fn answer(self, name: &str, items: Vec<Value>, more: bool) -> Answered {
        let mut answer = Map::new();
        shapes::put_list(&mut answer, name, items);
        if let Some(token) = self.token(more) {
            shapes::put(&mut answer, "next_page_token", token);
        }
        Ok(Answer(answer.into()))
    }

    /// Returns the token of the next page if there are more items.
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
    // Keeps offset + limit within the 64-bit integers of the database. Such a page is empty.
    Ok(token.offset.min(i64::MAX as usize / 2))
}
