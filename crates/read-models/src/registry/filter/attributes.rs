//! The entities and keys of each target. The messages for unknown ones differ by target, as in MLflow.

use super::{Entity, GrammarError, Target};

/// The type of values that a key is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Text,
    /// A text that also accepts IN.
    Listed,
    /// A text that may be missing: accepts IS NULL, but not IN.
    Optional,
    /// The id of an experiment: the text of an integer.
    ExperimentId,
    Float,
    /// A number. An integer stays an integer.
    Time,
    /// An integer.
    Integer,
    /// An integer, which may be quoted.
    Version,
}

/// A spelling of a key, and the canonical name of the key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    written: &'static str,
    pub name: &'static str,
    class: Class,
}

const fn key(written: &'static str, name: &'static str, class: Class) -> Key {
    Key { written, name, class }
}

const RUNS: &[Key] = &[
    key("Run name", "run_name", Class::Text),
    key("created", "start_time", Class::Time),
    key("Run Name", "run_name", Class::Text),
    key("run name", "run_name", Class::Text),
    key("start_time", "start_time", Class::Time),
    key("run_id", "run_id", Class::Listed),
    key("run_name", "run_name", Class::Text),
    key("status", "status", Class::Text),
    key("artifact_uri", "artifact_uri", Class::Text),
    key("user_id", "user_id", Class::Text),
    key("end_time", "end_time", Class::Time),
    key("Created", "start_time", Class::Time),
];
const EXPERIMENTS: &[Key] = &[
    key("creation_time", "creation_time", Class::Integer),
    key("experiment_id", "experiment_id", Class::ExperimentId),
    key("name", "name", Class::Text),
    key("last_update_time", "last_update_time", Class::Integer),
];
const REGISTERED_MODELS: &[Key] = &[key("name", "name", Class::Listed)];
const MODEL_VERSIONS: &[Key] = &[
    key("version_number", "version_number", Class::Version),
    key("source_path", "source_path", Class::Text),
    key("run_id", "run_id", Class::Listed),
    key("name", "name", Class::Listed),
];
const LOGGED_MODELS: &[Key] = &[
    key("name", "name", Class::Listed),
    key("model_id", "model_id", Class::Listed),
    key("model_type", "model_type", Class::Listed),
    key("status", "status", Class::Listed),
    key("source_run_id", "source_run_id", Class::Listed),
    key("experiment_id", "experiment_id", Class::Listed),
    key("creation_timestamp", "creation_timestamp_ms", Class::Time),
    key("creation_timestamp_ms", "creation_timestamp_ms", Class::Time),
    key("creation_time", "creation_timestamp_ms", Class::Time),
    key("last_updated_timestamp", "last_updated_timestamp_ms", Class::Time),
    key("last_updated_timestamp_ms", "last_updated_timestamp_ms", Class::Time),
];
const DATASETS: &[&str] = &["context", "name", "digest"];
/// The keys of runs that an order accepts: those with spaces are for filters only.
const RUN_ORDERS: &[&str] =
    &["created", "start_time", "run_id", "run_name", "status", "artifact_uri", "user_id", "end_time", "Created"];
const VERSION_ORDERS: &[&str] = &["version_number", "last_updated_timestamp", "creation_timestamp", "name"];

fn keys(target: Target) -> &'static [Key] {
    match target {
        Target::Runs => RUNS,
        Target::Experiments => EXPERIMENTS,
        Target::RegisteredModels => REGISTERED_MODELS,
        Target::ModelVersions => MODEL_VERSIONS,
        Target::LoggedModels => LOGGED_MODELS,
    }
}

pub(super) fn key_of(target: Target, written: &str) -> Option<&'static Key> {
    keys(target).iter().find(|key| key.written == written)
}

pub(super) fn refuse<T>(message: String) -> Result<T, GrammarError> {
    Err(GrammarError::new(message))
}

fn list<'k>(keys: impl IntoIterator<Item = &'k str>) -> String {
    keys.into_iter().map(|key| format!("'{key}'")).collect::<Vec<_>>().join(", ")
}

fn unknown_key<'k>(key: &str, known: impl IntoIterator<Item = &'k str>) -> GrammarError {
    GrammarError::new(format!("Invalid attribute key '{key}' specified. Valid keys are '{{{}}}'", list(known)))
}

fn unknown_dataset_key(key: &str) -> GrammarError {
    let known = list(DATASETS.iter().copied());
    GrammarError::new(format!("Invalid dataset key '{key}' specified. Valid keys are '{{{known}}}'"))
}

/// A text without its surrounding quotes. Escapes inside are not resolved.
pub(super) fn unquoted(text: &str) -> &str {
    let stripped = |quote: char| text.strip_prefix(quote)?.strip_suffix(quote);
    ['`', '"', '\''].into_iter().find_map(stripped).unwrap_or(text)
}

/// Splits a name at the first dot into entity and key.
fn split(target: Target, name: &str) -> Result<(Entity, &str), GrammarError> {
    let Some((entity, key)) = name.split_once('.') else {
        return Ok((Entity::Attribute, unquoted(name)));
    };
    let entity = entity.strip_prefix('`').and_then(|entity| entity.strip_suffix('`')).unwrap_or(entity);
    let known = match (target, entity) {
        (Target::Runs, "metric" | "metrics") | (Target::LoggedModels, "metrics") => Entity::Metric,
        (Target::Runs, "param" | "params" | "parameter" | "parameters") | (Target::LoggedModels, "params") => {
            Entity::Param
        }
        (Target::Runs, "attribute" | "attributes" | "attr" | "run") => Entity::Attribute,
        (Target::Runs, "dataset" | "datasets") => Entity::Dataset,
        (Target::LoggedModels, "attributes") => Entity::Attribute,
        (Target::LoggedModels, "tags") => Entity::Tag,
        (Target::Experiments | Target::RegisteredModels | Target::ModelVersions, "attribute") => Entity::Attribute,
        (Target::LoggedModels, _) => {
            return refuse(format!(
                "Invalid entity type: '{entity}'. Expected one of ['attributes', 'metrics', 'params', 'tags']."
            ));
        }
        (_, "tag" | "tags") => Entity::Tag,
        (Target::Runs, _) => {
            return refuse(format!(
                "Invalid entity type '{entity}'. Valid values are ['metric', 'parameter', 'tag', 'attribute', 'dataset']"
            ));
        }
        _ => {
            return refuse(format!(
                "Invalid entity type '{entity}'. Valid entity types are ('attribute', 'tag', 'tags')"
            ));
        }
    };
    Ok((known, unquoted(key)))
}

/// The entity and key of a term of an order.
pub(super) fn order_key(target: Target, name: &str) -> Result<(Entity, String), GrammarError> {
    if target == Target::RegisteredModels {
        return match name {
            "name" => Ok((Entity::Attribute, name.to_owned())),
            "timestamp" | "last_updated_timestamp" => Ok((Entity::Attribute, "last_updated_timestamp".to_owned())),
            _ => refuse(format!("Invalid order by key '{name}' specified. Valid keys are '{{'timestamp', 'name'}}'")),
        };
    }
    let (entity, key) = split(target, name)?;
    match (target, entity) {
        (Target::Runs, Entity::Dataset) if !DATASETS.contains(&key) => Err(unknown_dataset_key(key)),
        (Target::Runs, Entity::Dataset) => refuse("Invalid identifier type 'dataset'".to_owned()),
        (Target::Experiments, Entity::Tag) => refuse("Invalid order_by entity: tag".to_owned()),
        (Target::ModelVersions, Entity::Tag) => refuse(format!(
            "Invalid order by key '{key}' specified. Valid keys are {{{}}}",
            list(VERSION_ORDERS.iter().copied())
        )),
        (Target::Runs, Entity::Attribute) if !RUN_ORDERS.contains(&key) => {
            Err(unknown_key(key, RUN_ORDERS.iter().copied()))
        }
        (Target::ModelVersions, _) if VERSION_ORDERS.contains(&key) => Ok((entity, key.to_owned())),
        (Target::ModelVersions, _) => Err(unknown_key(key, VERSION_ORDERS.iter().copied())),
        (_, Entity::Attribute) => match key_of(target, key) {
            Some(known) => Ok((entity, known.name.to_owned())),
            None => Err(unknown_key(key, keys(target).iter().map(|key| key.written))),
        },
        _ => Ok((entity, key.to_owned())),
    }
}

/// The left side of a clause.
#[derive(Clone, Copy)]
pub(super) struct Subject<'t> {
    pub target: Target,
    pub entity: Entity,
    pub written: &'t str,
    pub name: &'t str,
    pub class: Class,
}

/// Resolves the name on the left side of a clause.
pub(super) fn subject(target: Target, name: &str) -> Result<Subject<'_>, GrammarError> {
    let (entity, written) = split(target, name)?;
    let (name, class) = match (target, entity) {
        (_, Entity::Attribute) => match key_of(target, written) {
            Some(key) => (key.name, key.class),
            None => return Err(unknown_key(written, keys(target).iter().map(|key| key.written))),
        },
        (_, Entity::Dataset) if !DATASETS.contains(&written) => return Err(unknown_dataset_key(written)),
        (_, Entity::Dataset) => (written, Class::Listed),
        (_, Entity::Metric) => (written, Class::Float),
        (Target::LoggedModels, _) => (written, Class::Listed),
        _ => (written, Class::Optional),
    };
    Ok(Subject { target, entity, written, name, class })
}
