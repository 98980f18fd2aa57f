//! JSON bodies: one entity, or an array that is validated completely before anything is appended.

use carbon_http::{Code, Problem};
use carbon_log::NewRecord;
use serde_json::value::RawValue;

use super::encode::EntityEncoder;

/// Maximum number of entities in an array.
const MAX_ITEMS: usize = 10_000;

/// Returns the records of a JSON body.
pub(super) fn records(encoder: &EntityEncoder, body: &[u8]) -> Result<Vec<NewRecord>, Problem> {
    match body.trim_ascii_start().first() {
        Some(b'[') => array(encoder, body),
        Some(b'{') => Ok(vec![encoder.record(body).map_err(Problem::invalid)?]),
        Some(_) => Err(Problem::invalid("the body must be an object or an array of objects")),
        None => Err(Problem::invalid("the body is empty")),
    }
}

fn array(encoder: &EntityEncoder, body: &[u8]) -> Result<Vec<NewRecord>, Problem> {
    let items: Vec<&RawValue> = serde_json::from_slice(body).map_err(|error| Problem::invalid(error.to_string()))?;
    if items.len() > MAX_ITEMS {
        let detail =
            format!("{} items; an array holds at most {MAX_ITEMS}; send more as application/x-ndjson", items.len());
        return Err(Problem::new(Code::TooLarge, detail));
    }
    let record = |(index, item): (usize, &&RawValue)| {
        let record = encoder.record(item.get().as_bytes());
        record.map_err(|reason| Problem::invalid(format!("item {index}: {reason}; nothing was appended")))
    };
    items.iter().enumerate().map(record).collect()
}
