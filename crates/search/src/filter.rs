//! Filters: conditions that a document must meet to be a result.

use carbon_core::{Classify, Fault, MetadataValue, Retry, TenantId};
use serde_json::{Map, Value};

use crate::types::Document;

/// Maximum number of keys in a filter.
const MAX_KEYS: usize = 64;
/// Maximum number of values of one key.
const MAX_VALUES: usize = 256;
const MAX_TEXT_BYTES: usize = 4096;

/// A conjunction: a document must meet every condition.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// The document's type must be one of these; empty means any type.
    pub types: Vec<String>,
    /// The document must have all of these tags.
    pub tags: Vec<String>,
    /// Metadata key and the condition on its value. A document without the key does not match.
    pub metadata: Vec<(String, Condition)>,
}

/// A condition on one metadata value.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// The value equals one of these.
    OneOf(Vec<MetadataValue>),
    /// The value is a number within the bounds, both inclusive. NaN never matches.
    Range { gte: Option<f64>, lte: Option<f64> },
}

/// A filter was rejected; the text says which key and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("filters: {0}")]
pub struct FilterError(String);

impl Classify for FilterError {
    fn fault(&self) -> Fault {
        Fault::User
    }
    fn retry(&self) -> Retry {
        Retry::Never
    }
}

/// A filter parsed from its HTTP form. `tenant` is not authorised yet: the caller must compare it with the tenant of
/// the request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ParsedFilter {
    pub filter: Filter,
    pub tenant: Option<TenantId>,
}

fn reject<T>(reason: impl Into<String>) -> Result<T, FilterError> {
    Err(FilterError(reason.into()))
}

impl Filter {
    pub fn is_empty(&self) -> bool {
        self.types.is_empty() && self.tags.is_empty() && self.metadata.is_empty()
    }

    /// Parses the HTTP form: `{type, tags, tenant_id, <metadata key>: value | [value] | {gte, lte}}`.
    pub fn from_json(object: &Map<String, Value>) -> Result<ParsedFilter, FilterError> {
        if object.len() > MAX_KEYS {
            return reject(format!("it has {} keys; at most {MAX_KEYS} are allowed", object.len()));
        }
        let mut parsed = ParsedFilter::default();
        for (key, value) in object {
            match key.as_str() {
                "type" => parsed.filter.types = strings(key, value)?,
                "tags" => parsed.filter.tags = strings(key, value)?,
                "tenant_id" => {
                    let Value::String(tenant) = value else {
                        return reject("tenant_id must be a string");
                    };
                    parsed.tenant = Some(TenantId::parse(tenant).map_err(|error| FilterError(error.to_string()))?);
                }
                _ => parsed.filter.metadata.push((key.clone(), condition(key, value)?)),
            }
        }
        Ok(parsed)
    }

    /// True if the document meets every condition. The reference for the engines' own filters.
    pub fn matches(&self, document: &Document) -> bool {
        let is_type = || self.types.iter().any(|wanted| wanted == document.key.entity_type.as_str());
        (self.types.is_empty() || is_type())
            && self.tags.iter().all(|tag| document.tags.contains(tag))
            && self
                .metadata
                .iter()
                .all(|(key, condition)| document.metadata.get(key).is_some_and(|value| condition.matches(value)))
    }
}

impl Condition {
    /// True if the value meets the condition.
    pub fn matches(&self, value: &MetadataValue) -> bool {
        match self {
            Condition::OneOf(values) => values.contains(value),
            Condition::Range { gte, lte } => {
                let MetadataValue::Double(number) = value else { return false };
                gte.is_none_or(|low| *number >= low) && lte.is_none_or(|high| *number <= high)
            }
        }
    }
}

/// Parses one string or an array of strings.
fn strings(key: &str, value: &Value) -> Result<Vec<String>, FilterError> {
    let one = |value: &Value| match value {
        Value::String(text) if text.len() <= MAX_TEXT_BYTES => Ok(text.clone()),
        Value::String(_) => reject(format!("{key} has a string of more than {MAX_TEXT_BYTES} bytes")),
        _ => reject(format!("{key} must be a string or an array of strings")),
    };
    match value {
        Value::Array(values) => bounded(key, values)?.iter().map(one).collect(),
        single => Ok(vec![one(single)?]),
    }
}

/// Returns `values` if their number is from 1 to [`MAX_VALUES`].
fn bounded<'v>(key: &str, values: &'v [Value]) -> Result<&'v [Value], FilterError> {
    match values.len() {
        0 => reject(format!("{key} must not be an empty array")),
        n if n > MAX_VALUES => reject(format!("{key} has {n} values; at most {MAX_VALUES} are allowed")),
        _ => Ok(values),
    }
}

fn condition(key: &str, value: &Value) -> Result<Condition, FilterError> {
    match value {
        Value::Array(values) => Ok(Condition::OneOf(
            bounded(key, values)?.iter().map(|value| scalar(key, value)).collect::<Result<_, _>>()?,
        )),
        Value::Object(bounds) => range(key, bounds),
        single => Ok(Condition::OneOf(vec![scalar(key, single)?])),
    }
}

fn scalar(key: &str, value: &Value) -> Result<MetadataValue, FilterError> {
    match value {
        Value::String(text) if text.len() <= MAX_TEXT_BYTES => Ok(MetadataValue::String(text.clone())),
        Value::String(_) => reject(format!("{key} has a string of more than {MAX_TEXT_BYTES} bytes")),
        Value::Bool(value) => Ok(MetadataValue::Boolean(*value)),
        Value::Number(number) => number
            .as_f64()
            .map(MetadataValue::Double)
            .ok_or_else(|| FilterError(format!("{key} has a number outside the range of a 64-bit float"))),
        _ => reject(format!("{key} must be a string, a number, a boolean, an array of these, or {{gte, lte}}")),
    }
}

fn range(key: &str, bounds: &Map<String, Value>) -> Result<Condition, FilterError> {
    let (mut gte, mut lte) = (None, None);
    for (name, value) in bounds {
        let bound = match name.as_str() {
            "gte" => &mut gte,
            "lte" => &mut lte,
            other => return reject(format!("{key} has the unknown bound {other:?}; the bounds are gte and lte")),
        };
        match value.as_f64() {
            Some(number) => *bound = Some(number),
            None => return reject(format!("{key}.{name} must be a number")),
        }
    }
    match (gte, lte) {
        (None, None) => reject(format!("{key} must have gte or lte")),
        _ => Ok(Condition::Range { gte, lte }),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<ParsedFilter, FilterError> {
        Filter::from_json(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn the_http_form_is_parsed() {
        let parsed = parse(
            r#"{"type":"curve","tags":["a","b"],"tenant_id":"t","hub":["HH",1],"live":true,"strike":{"gte":1,"lte":2.5}}"#,
        )
        .unwrap();
        assert_eq!(parsed.tenant.unwrap().as_str(), "t");
        assert_eq!((parsed.filter.types, parsed.filter.tags), (vec!["curve".into()], vec!["a".into(), "b".into()]));
        let metadata: std::collections::BTreeMap<_, _> = parsed.filter.metadata.into_iter().collect();
        assert_eq!(
            metadata["hub"],
            Condition::OneOf(vec![MetadataValue::String("HH".into()), MetadataValue::Double(1.0)])
        );
        assert_eq!(metadata["live"], Condition::OneOf(vec![MetadataValue::Boolean(true)]));
        assert_eq!(metadata["strike"], Condition::Range { gte: Some(1.0), lte: Some(2.5) });
    }

    #[test]
    fn an_invalid_filter_is_rejected_with_the_name_of_its_key() {
        for (json, expected) in [
            (r#"{"type":3}"#, "type"),
            (r#"{"type":[]}"#, "empty"),
            (r#"{"tags":[1]}"#, "tags"),
            (r#"{"tenant_id":"a/b"}"#, "tenant_id"),
            (r#"{"x":null}"#, "x must be"),
            (r#"{"x":[[1]]}"#, "x must be"),
            (r#"{"x":{}}"#, "gte or lte"),
            (r#"{"x":{"gt":1}}"#, "\"gt\""),
            (r#"{"x":{"gte":"a"}}"#, "x.gte"),
        ] {
            let error = parse(json).unwrap_err().to_string();
            assert!(error.contains(expected), "{json}: {error}");
        }
        let many: Map<String, Value> = (0..65).map(|n| (n.to_string(), Value::from(1))).collect();
        assert!(Filter::from_json(&many).is_err());
        let long: Map<String, Value> = [("x".to_owned(), Value::from(vec![1; 257]))].into_iter().collect();
        assert!(Filter::from_json(&long).is_err());
    }

    #[test]
    fn ranges_match_numbers_only() {
        let range = Condition::Range { gte: Some(1.0), lte: None };
        assert!(range.matches(&MetadataValue::Double(1.0)) && !range.matches(&MetadataValue::Double(0.5)));
        assert!(!range.matches(&MetadataValue::String("2".into())) && !range.matches(&MetadataValue::Double(f64::NAN)));
    }
}
