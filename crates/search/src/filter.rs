//! Filters: which documents may be found at all.

use carbon_core::{Classify, Fault, MetadataValue, Retry, TenantId};
use serde_json::{Map, Value};

use crate::types::Document;

const MAX_KEYS: usize = 64;
const MAX_VALUES: usize = 256;
const MAX_TEXT_BYTES: usize = 4096;

/// All of its parts must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// One of these types; empty means any.
    pub types: Vec<String>,
    /// All of these tags.
    pub tags: Vec<String>,
    pub metadata: Vec<(String, Condition)>,
}

/// What must hold of one metadata value.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    OneOf(Vec<MetadataValue>),
    /// A number within the bounds, both included.
    Range {
        gte: Option<f64>,
        lte: Option<f64>,
    },
}

/// Why a filter cannot be used.
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

/// A filter as it came over HTTP. The tenant is the caller's claim, to be checked by whoever
/// authorises it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ParsedFilter {
    pub filter: Filter,
    pub tenant: Option<TenantId>,
}

fn refuse<T>(why: impl Into<String>) -> Result<T, FilterError> {
    Err(FilterError(why.into()))
}

impl Filter {
    pub fn is_empty(&self) -> bool {
        self.types.is_empty() && self.tags.is_empty() && self.metadata.is_empty()
    }

    /// Reads the HTTP form: `{type, tags, tenant_id, <metadata key>: value | [value] | {gte, lte}}`.
    pub fn from_json(object: &Map<String, Value>) -> Result<ParsedFilter, FilterError> {
        if object.len() > MAX_KEYS {
            return refuse(format!("{} keys are more than the {MAX_KEYS} allowed", object.len()));
        }
        let mut parsed = ParsedFilter::default();
        for (key, value) in object {
            match key.as_str() {
                "type" => parsed.filter.types = strings(key, value)?,
                "tags" => parsed.filter.tags = strings(key, value)?,
                "tenant_id" => {
                    let Value::String(tenant) = value else {
                        return refuse("tenant_id must be a string");
                    };
                    parsed.tenant = Some(TenantId::parse(tenant).map_err(|error| FilterError(error.to_string()))?);
                }
                _ => parsed.filter.metadata.push((key.clone(), condition(key, value)?)),
            }
        }
        Ok(parsed)
    }

    /// What engines must agree with.
    pub fn matches(&self, document: &Document) -> bool {
        let is_type = || self.types.iter().any(|wanted| wanted == document.key.entity_type.as_str());
        (self.types.is_empty() || is_type())
            && self.tags.iter().all(|tag| document.tags.contains(tag))
            && self
                .metadata
                .iter()
                .all(|(key, condition)| document.metadata.get(key).is_some_and(|value| condition.holds(value)))
    }
}

impl Condition {
    pub fn holds(&self, value: &MetadataValue) -> bool {
        match self {
            Condition::OneOf(values) => values.contains(value),
            Condition::Range { gte, lte } => {
                let MetadataValue::Double(number) = value else { return false };
                gte.is_none_or(|low| *number >= low) && lte.is_none_or(|high| *number <= high)
            }
        }
    }
}

/// A string, or several.
fn strings(key: &str, value: &Value) -> Result<Vec<String>, FilterError> {
    let one = |value: &Value| match value {
        Value::String(text) if text.len() <= MAX_TEXT_BYTES => Ok(text.clone()),
        Value::String(_) => refuse(format!("{key} holds a string of more than {MAX_TEXT_BYTES} bytes")),
        _ => refuse(format!("{key} must be a string or an array of strings")),
    };
    match value {
        Value::Array(values) => bounded(key, values)?.iter().map(one).collect(),
        single => Ok(vec![one(single)?]),
    }
}

fn bounded<'v>(key: &str, values: &'v [Value]) -> Result<&'v [Value], FilterError> {
    match values.len() {
        0 => refuse(format!("{key} must not be an empty array")),
        n if n > MAX_VALUES => refuse(format!("{key} has {n} values, more than the {MAX_VALUES} allowed")),
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
        Value::String(_) => refuse(format!("{key} holds a string of more than {MAX_TEXT_BYTES} bytes")),
        Value::Bool(value) => Ok(MetadataValue::Boolean(*value)),
        Value::Number(number) => number
            .as_f64()
            .map(MetadataValue::Double)
            .ok_or_else(|| FilterError(format!("{key} holds a number that a double cannot hold"))),
        _ => refuse(format!("{key} must be a string, a number, a boolean, an array of these, or {{gte, lte}}")),
    }
}

fn range(key: &str, bounds: &Map<String, Value>) -> Result<Condition, FilterError> {
    let (mut gte, mut lte) = (None, None);
    for (name, value) in bounds {
        let bound = match name.as_str() {
            "gte" => &mut gte,
            "lte" => &mut lte,
            other => return refuse(format!("{key} has the bound {other:?}; there are only gte and lte")),
        };
        match value.as_f64() {
            Some(number) => *bound = Some(number),
            None => return refuse(format!("{key}.{name} must be a number")),
        }
    }
    match (gte, lte) {
        (None, None) => refuse(format!("{key} must have gte or lte")),
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
    fn the_http_form_is_read() {
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
    fn what_is_not_a_filter_is_refused_by_name() {
        for (json, says) in [
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
            assert!(error.contains(says), "{json}: {error}");
        }
        let many: Map<String, Value> = (0..65).map(|n| (n.to_string(), Value::from(1))).collect();
        assert!(Filter::from_json(&many).is_err());
        let long: Map<String, Value> = [("x".to_owned(), Value::from(vec![1; 257]))].into_iter().collect();
        assert!(Filter::from_json(&long).is_err());
    }

    #[test]
    fn ranges_hold_of_numbers_alone() {
        let range = Condition::Range { gte: Some(1.0), lte: None };
        assert!(range.holds(&MetadataValue::Double(1.0)) && !range.holds(&MetadataValue::Double(0.5)));
        assert!(!range.holds(&MetadataValue::String("2".into())) && !range.holds(&MetadataValue::Double(f64::NAN)));
    }
}
