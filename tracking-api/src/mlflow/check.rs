//! Checks of keys, names and values.

use carbon_schemas::events::MODEL_STAGES;

use super::error::MlflowError;

// Maximum lengths, in characters.
pub(super) const KEY_CHARS: usize = 250;
pub(super) const PARAM_VALUE_CHARS: usize = 6000;
pub(super) const TAG_VALUE_CHARS: usize = 8000;
pub(super) const MODEL_TAG_VALUE_CHARS: usize = 100_000;
pub(super) const EXPERIMENT_TAG_VALUE_CHARS: usize = 20_000;
const EXPERIMENT_NAME_CHARS: usize = 500;
const WEBHOOK_NAME_CHARS: usize = 63;

/// Maximum number of items of a list that becomes an expression of a query.
const MAX_LIST_ITEMS: usize = 100;

fn invalid(value: &str, parameter: &str, why: &str) -> MlflowError {
    let value = serde_json::Value::from(value);
    MlflowError::invalid(format!("Invalid value {value} for parameter '{parameter}' supplied: {why}"))
}

/// Checks a key of a metric, parameter or tag. Error messages call the key `kind`, and the parameter that holds it
/// `parameter`.
pub(super) fn key(key: &str, kind: &str, parameter: &str) -> Result<(), MlflowError> {
    let allowed = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ' ' | ':' | '/');
    if !key.chars().all(allowed) {
        let why = "Names may only contain alphanumerics, underscores (_), dashes (-), periods (.), spaces ( ), colon(:) \
                   and slashes (/).";
        return Err(invalid(key, parameter, why));
    }
    // MLflow stores keys as file names: these keys would name another folder, or the folder itself.
    let leaves_folder = key.starts_with("..") || key.starts_with('/') || key == ".";
    if leaves_folder || normalised(key) != key {
        let why = format!(
            "Names may be treated as files in certain cases, and must not resolve to other names when treated as such. \
             This name would resolve to '{}'",
            normalised(key)
        );
        return Err(invalid(key, parameter, &why));
    }
    max_chars(key, kind, KEY_CHARS)
}

/// Rejects a text of more than `limit` characters.
pub(super) fn max_chars(text: &str, kind: &str, limit: usize) -> Result<(), MlflowError> {
    match text.chars().count() > limit {
        true => Err(MlflowError::invalid(format!("'{kind}' exceeds the maximum length of {limit} characters"))),
        false => Ok(()),
    }
}

/// Rejects a list that is too long for a query.
pub(super) fn list_length(count: usize, what: &str) -> Result<(), MlflowError> {
    match count > MAX_LIST_ITEMS {
        true => Err(MlflowError::invalid(format!("{count} {what}; at most {MAX_LIST_ITEMS} are allowed"))),
        false => Ok(()),
    }
}

pub(super) fn experiment_name(name: &str) -> Result<(), MlflowError> {
    max_chars(name, "name", EXPERIMENT_NAME_CHARS)
}

/// Returns the normalised POSIX path: `a//b/../c` becomes `a/c`.
fn normalised(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let absolute = path.starts_with('/');
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            ".." if absolute => {}
            other => parts.push(other),
        }
    }
    let joined = parts.join("/");
    match (absolute, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".into(),
        (false, false) => joined,
    }
}

/// Cuts a text to `limit` characters, as MLflow does with values that are too long.
pub(super) fn cut(text: &str, limit: usize) -> String {
    text.chars().take(limit).collect()
}

/// Returns the stage with this name, in upper or lower case.
pub(super) fn stage(name: &str) -> Result<&'static str, MlflowError> {
    MODEL_STAGES.into_iter().find(|stage| stage.eq_ignore_ascii_case(name)).ok_or_else(|| {
        let stages = MODEL_STAGES.join(", ");
        MlflowError::invalid(format!("Invalid Model Version stage: {name}. Value must be one of {stages}."))
    })
}

/// Checks a webhook's name: 1 to 63 letters, digits, dots, underscores and hyphens, with a letter or digit at both ends.
pub(super) fn webhook_name(name: &str) -> Result<(), MlflowError> {
    let at_ends = |letter: Option<char>| letter.is_some_and(|letter| letter.is_ascii_alphanumeric());
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_' | '-');
    let valid = at_ends(name.chars().next()) && at_ends(name.chars().next_back()) && name.chars().all(allowed);
    // The name is ASCII, so its length in bytes is the one in characters.
    match valid && name.len() <= WEBHOOK_NAME_CHARS {
        true => Ok(()),
        false => Err(MlflowError::invalid(format!(
            "Webhook name '{name}' is invalid. It must start and end with a letter or digit, have at most 63 characters, and \
             contain only letters, digits, dots (.), underscores (_), and hyphens (-)."
        ))),
    }
}

/// Parses the id of an experiment.
pub(super) fn experiment_id(text: &str) -> Result<i64, MlflowError> {
    text.parse::<i64>().ok().filter(|id| *id >= 0).ok_or_else(|| {
        MlflowError::invalid(format!("Invalid experiment ID '{text}'. Experiment ID must be a valid integer."))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_normalised_relative_paths() {
        for valid in ["a", "train/loss", "a b", "x:y", "été", "a.b-c_d", ".a"] {
            key(valid, "Metric name", "name").unwrap();
        }
        for invalid in ["../x", "a//b", "/a", "a/", ".", "..", "a/./b", "a/../b", "a*b", "a\nb", "", &"k".repeat(251)] {
            assert!(key(invalid, "Metric name", "name").is_err(), "{invalid:?}");
        }
        assert_eq!(normalised("a//b/../c"), "a/c");
    }
}
