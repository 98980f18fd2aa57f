//! What the events of the tracking API share.

use std::fmt;

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
    pub const NAME: usize = 64 * 1024;
    pub const URI: usize = 64 * 1024;
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
