//! What the events of the tracking API share.

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

/// Limits of the tracking events' fields, in bytes where nothing else is said.
#[derive(Clone, Copy, Debug)]
pub struct TrackingLimits;

impl TrackingLimits {
    pub const ID: usize = 255;
    pub const EXPERIMENT_NAME: usize = 4 * 500;
    pub const KEY: usize = 4 * 250;
    pub const PARAM_VALUE: usize = 4 * 6000;
    pub const TAG_VALUE: usize = 4 * 8000;
    pub const EXPERIMENT_TAG_VALUE: usize = 4 * 20_000;
    pub const MODEL_TAG_VALUE: usize = 4 * 100_000;
    /// Version numbers of a registered model.
    pub const VERSIONS: RangeInclusive<i64> = 1..=i32::MAX as i64;
    pub const NAME: usize = 64 * 1024;
    pub const URI: usize = 64 * 1024;
    pub const PATH: usize = 1000;
    pub const METRICS: usize = 1000;
    pub const PARAMS: usize = 1000;
    pub const TAGS: usize = 1000;
    pub const DATASETS: usize = 1000;
    pub const DATASET_TEXT: usize = 4 * 1024 * 1024;
}

/// `tenant/id`: the key of what a tenant has by an id of its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantKey {
    pub tenant: TenantId,
    pub id: String,
}

impl TenantKey {
    pub(super) fn new(tenant: &TenantId, id: &str) -> Result<Self, String> {
        if id.is_empty() || id.len() > TrackingLimits::ID || id.contains('/') || id.chars().any(char::is_control) {
            return Err(format!("an id has 1 to {} bytes and no `/`", TrackingLimits::ID));
        }
        Ok(Self { tenant: tenant.clone(), id: id.to_owned() })
    }

    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (tenant, id) = text.split_once('/').ok_or("the key is not tenant/id")?;
        Self::new(&TenantId::parse(tenant).map_err(|error| error.to_string())?, id)
    }
}

impl fmt::Display for TenantKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.tenant, self.id)
    }
}

pub(super) fn at_most(what: &str, text: &str, limit: usize) -> Result<(), String> {
    match text.len() > limit {
        true => Err(format!("{what} has {} bytes, at most {limit} are taken", text.len())),
        false => Ok(()),
    }
}

pub(super) fn at_most_of(what: &str, count: usize, limit: usize) -> Result<(), String> {
    match count > limit {
        true => Err(format!("{count} {what}, at most {limit} are taken")),
        false => Ok(()),
    }
}

pub(super) fn check_pairs(what: &str, pairs: &[KeyValue], count: usize, value: usize) -> Result<(), String> {
    at_most_of(what, pairs.len(), count)?;
    for pair in pairs {
        check_key(what, &pair.key)?;
        at_most(what, &pair.value, value)?;
    }
    Ok(())
}

pub(super) fn check_key(what: &str, key: &str) -> Result<(), String> {
    if key.is_empty() {
        return Err(format!("a key of {what} is empty"));
    }
    at_most(what, key, TrackingLimits::KEY)
}

/// Some kinds of an event need a field.
pub(super) fn needed<T>(kind: &str, name: &str, field: Option<&T>) -> Result<(), String> {
    field.map(drop).ok_or_else(|| format!("{kind} needs {name}"))
}

/// The messages of these are MLflow's: its clients match on them.
pub(super) fn check_model_name(name: &str) -> Result<(), String> {
    match name.contains(['/', ':']) {
        true => Err(format!("Invalid model name '{name}'. Names cannot contain '/' or ':'.")),
        false => Ok(()),
    }
}

pub(super) fn check_alias(alias: &str) -> Result<(), String> {
    if alias.is_empty() || alias.len() > TrackingLimits::ID {
        return Err(format!("an alias has 1 to {} bytes", TrackingLimits::ID));
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

/// A relative path that stays below its root.
pub(super) fn check_path(path: &str) -> Result<(), String> {
    let bad = |part: &str| part.is_empty() || part == "." || part == "..";
    if path.split('/').any(bad) || path.chars().any(char::is_control) {
        return Err(format!("path {path:?} is no path"));
    }
    at_most("path", path, TrackingLimits::PATH)
}

pub(super) fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}
