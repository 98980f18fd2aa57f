//! Types, limits and checks that the tracking events share.

use std::fmt;
use std::ops::RangeInclusive;

use carbon_core::TenantId;
use serde::{Deserialize, Serialize};

/// A parameter or a tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyValue {
    pub key: String,
    pub value: String,
}

impl KeyValue {
    pub fn new(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self { key: key.into(), value: value.into() }
    }
}

/// Limits of the tracking events' fields. MLflow limits characters, of which UTF-8 writes each in up to 4 bytes.
#[derive(Clone, Copy, Debug)]
pub struct TrackingLimits;

impl TrackingLimits {
    /// Bytes of an id.
    pub const ID: usize = 255;
    /// Bytes of an experiment's name.
    pub const EXPERIMENT_NAME: usize = 4 * 500;
    /// Bytes of the key of a parameter, tag or metric.
    pub const KEY: usize = 4 * 250;
    /// Bytes of a parameter's value.
    pub const PARAM_VALUE: usize = 4 * 6000;
    /// Bytes of the value of a run's, dataset's or logged model's tag.
    pub const TAG_VALUE: usize = 4 * 8000;
    /// Bytes of the value of an experiment's tag.
    pub const EXPERIMENT_TAG_VALUE: usize = 4 * 20_000;
    /// Bytes of the value of a registered model's or version's tag.
    pub const MODEL_TAG_VALUE: usize = 4 * 100_000;
    /// Version numbers of a registered model.
    pub const VERSIONS: RangeInclusive<i64> = 1..=i32::MAX as i64;
    /// Bytes of a name, description, URL or similar text.
    pub const NAME: usize = 64 * 1024;
    /// Bytes of a URI.
    pub const URI: usize = 64 * 1024;
    /// Bytes of a path.
    pub const PATH: usize = 1000;
    /// Number of metrics in one event.
    pub const METRICS: usize = 1000;
    /// Number of parameters in one event.
    pub const PARAMS: usize = 1000;
    /// Number of tags in one event, and number of removed tags.
    pub const TAGS: usize = 1000;
    /// Number of datasets in one event, and number of models.
    pub const DATASETS: usize = 1000;
    /// Bytes of a dataset's source, schema or profile.
    pub const DATASET_TEXT: usize = 4 * 1024 * 1024;
}

/// A record key `tenant/id`. The id is unique within the tenant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantKey {
    pub tenant: TenantId,
    pub id: String,
}

impl TenantKey {
    pub(super) fn new(tenant: &TenantId, id: &impl ToString) -> Result<Self, String> {
        let id = id.to_string();
        if id.is_empty() || id.len() > TrackingLimits::ID || id.contains('/') || id.chars().any(char::is_control) {
            return Err(format!("an id must have 1 to {} bytes and no `/`", TrackingLimits::ID));
        }
        Ok(Self { tenant: tenant.clone(), id })
    }

    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (tenant, id) = text.split_once('/').ok_or("the key is not tenant/id")?;
        Self::new(&TenantId::parse(tenant).map_err(|error| error.to_string())?, &id)
    }
}

impl fmt::Display for TenantKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.tenant, self.id)
    }
}

/// Parses a non-negative decimal integer in its shortest form: `07` is rejected, so that one number has one id.
pub(super) fn parse_decimal(text: &str) -> Option<i64> {
    text.parse::<i64>().ok().filter(|number| *number >= 0 && number.to_string() == text)
}

/// Rejects a text of more than `limit` bytes.
pub(super) fn check_bytes(what: &str, text: &str, limit: usize) -> Result<(), String> {
    match text.len() > limit {
        true => Err(format!("{what} has {} bytes, at most {limit} are allowed", text.len())),
        false => Ok(()),
    }
}

/// Rejects optional texts of more than `limit` bytes.
pub(super) fn check_optional(what: &str, texts: &[&Option<String>], limit: usize) -> Result<(), String> {
    texts.iter().copied().flatten().try_for_each(|text| check_bytes(what, text, limit))
}

/// Rejects a list of more than `limit` items.
pub(super) fn check_count(what: &str, count: usize, limit: usize) -> Result<(), String> {
    match count > limit {
        true => Err(format!("{count} {what}, at most {limit} are allowed")),
        false => Ok(()),
    }
}

/// Checks a list of parameters or tags: its length, each key, and the bytes of each value.
pub(super) fn check_pairs(what: &str, pairs: &[KeyValue], count: usize, value_bytes: usize) -> Result<(), String> {
    check_count(what, pairs.len(), count)?;
    for pair in pairs {
        check_key(what, &pair.key)?;
        check_bytes(what, &pair.value, value_bytes)?;
    }
    Ok(())
}

/// Checks the tags that an event sets, and the keys of those that it removes.
pub(super) fn check_tags(tags: &[KeyValue], removed: &[String], value_bytes: usize) -> Result<(), String> {
    check_pairs("tags", tags, TrackingLimits::TAGS, value_bytes)?;
    check_count("removed tags", removed.len(), TrackingLimits::TAGS)?;
    removed.iter().try_for_each(|key| check_key("removed tags", key))
}

pub(super) fn check_key(what: &str, key: &str) -> Result<(), String> {
    if key.is_empty() {
        return Err(format!("a key of {what} is empty"));
    }
    check_bytes(what, key, TrackingLimits::KEY)
}

/// Rejects an event that lacks a field which its kind requires.
pub(super) fn require<T>(kind: &str, name: &str, field: Option<&T>) -> Result<(), String> {
    field.map(drop).ok_or_else(|| format!("{kind} needs {name}"))
}

/// Rejects a status that is not in the list.
pub(super) fn check_status(of: &str, status: Option<&String>, allowed: &[&str]) -> Result<(), String> {
    match status {
        Some(status) if !allowed.contains(&status.as_str()) => Err(format!("{status:?} is not a status of {of}")),
        _ => Ok(()),
    }
}

/// Rejects a version number of a registered model that is out of range.
pub(super) fn check_version(version: Option<i64>) -> Result<(), String> {
    match version {
        Some(version) if !TrackingLimits::VERSIONS.contains(&version) => {
            Err(format!("version {version} is not from 1 to {}", TrackingLimits::VERSIONS.end()))
        }
        _ => Ok(()),
    }
}

/// Checks the name of a registered model. The message is MLflow's, because MLflow's clients match on the text.
pub(super) fn check_model_name(name: &str) -> Result<(), String> {
    match name.contains(['/', ':']) {
        true => Err(format!("Invalid model name '{name}'. Names cannot contain '/' or ':'.")),
        false => Ok(()),
    }
}

/// Checks the alias of a model version. All messages but that about the length are MLflow's, because MLflow's clients
/// match on the text.
pub(super) fn check_alias(alias: &str) -> Result<(), String> {
    if alias.is_empty() || alias.len() > TrackingLimits::ID {
        return Err(format!("an alias must have 1 to {} bytes", TrackingLimits::ID));
    }
    if !alias.chars().all(|letter| letter.is_alphanumeric() || matches!(letter, '_' | '-')) {
        return Err(format!(
            "Invalid alias name: '{alias}'. Names may only contain alphanumerics, underscores (_), and dashes (-)."
        ));
    }
    if alias.eq_ignore_ascii_case("latest") {
        return Err("'latest' alias name (case insensitive) is reserved.".into());
    }
    match alias.strip_prefix(['v', 'V']) {
        Some(rest) if !rest.is_empty() && rest.chars().all(|digit| digit.is_ascii_digit()) => {
            Err(format!("Version alias name '{alias}' is reserved."))
        }
        _ => Ok(()),
    }
}

/// Checks that a path is relative and stays below its root.
pub(super) fn check_path(path: &str) -> Result<(), String> {
    let bad = |part: &str| part.is_empty() || part == "." || part == "..";
    if path.split('/').any(bad) || path.chars().any(char::is_control) {
        return Err(format!("path {path:?} must be relative, without empty, `.` or `..` parts or control characters"));
    }
    check_bytes("path", path, TrackingLimits::PATH)
}

/// True for a SHA-256 hash in lower-case hexadecimal.
pub(super) fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}
