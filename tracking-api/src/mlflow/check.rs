//! What keys and values may be.

use carbon_schemas::events::MODEL_STAGES;

use super::error::MlflowError;

const KEY: usize = 250;
pub(super) const PARAM_VALUE: usize = 6000;
pub(super) const TAG_VALUE: usize = 8000;
pub(super) const MODEL_TAG_VALUE: usize = 100_000;
pub(super) const EXPERIMENT_TAG_VALUE: usize = 20_000;
const EXPERIMENT_NAME: usize = 500;
const LIST: usize = 100;

fn invalid(shown: &str, called: &str, why: &str) -> MlflowError {
    let shown = serde_json::Value::from(shown);
    MlflowError::invalid(format!("Invalid value {shown} for parameter '{called}' supplied: {why}"))
}

/// A key of a metric, parameter or tag. `kind` is what messages call it, `called` the parameter that holds it.
pub(super) fn key(key: &str, kind: &str, called: &str) -> Result<(), MlflowError> {
    let allowed = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ' ' | ':' | '/');
    if !key.chars().all(allowed) {
        let why = "Names may only contain alphanumerics, underscores (_), dashes (-), periods (.), spaces ( ), colon(:) \
                   and slashes (/).";
        return Err(invalid(key, called, why));
    }
    // Any of these would leave its folder, or name it.
    let leaves = key.starts_with("..") || key.starts_with('/') || key == ".";
    if leaves || normalised(key) != key {
        let why = format!(
            "Names may be treated as files in certain cases, and must not resolve to other names when treated as such. \
             This name would resolve to '{}'",
            normalised(key)
        );
        return Err(invalid(key, called, &why));
    }
    too_long(key, kind, KEY)
}

pub(super) fn too_long(text: &str, kind: &str, limit: usize) -> Result<(), MlflowError> {
    match text.chars().count() > limit {
        true => Err(MlflowError::invalid(format!("'{kind}' exceeds the maximum length of {limit} characters"))),
        false => Ok(()),
    }
}

/// Of lists that become expressions of a query.
pub(super) fn at_most(count: usize, what: &str) -> Result<(), MlflowError> {
    match count > LIST {
        true => Err(MlflowError::invalid(format!("{count} {what}, at most {LIST} are taken"))),
        false => Ok(()),
    }
}

pub(super) fn experiment_name(name: &str) -> Result<(), MlflowError> {
    too_long(name, "name", EXPERIMENT_NAME)
}

/// As a POSIX path: `a//b/../c` is `a/c`.
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

/// What is too long is cut, as MLflow does.
pub(super) fn cut(text: &str, limit: usize) -> String {
    text.chars().take(limit).collect()
}

/// A stage, in any case.
pub(super) fn stage(given: &str) -> Result<&'static str, MlflowError> {
    MODEL_STAGES.into_iter().find(|stage| stage.eq_ignore_ascii_case(given)).ok_or_else(|| {
        let stages = MODEL_STAGES.join(", ");
        MlflowError::invalid(format!("Invalid Model Version stage: {given}. Value must be one of {stages}."))
    })
}

/// A webhook's name: 1 to 63 letters, digits, dots, underscores and hyphens, a letter or digit at both ends.
pub(super) fn webhook_name(name: &str) -> Result<(), MlflowError> {
    let at_ends = |letter: Option<char>| letter.is_some_and(|letter| letter.is_ascii_alphanumeric());
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_' | '-');
    let good = at_ends(name.chars().next()) && at_ends(name.chars().next_back()) && name.chars().all(allowed);
    match good && name.len() <= 63 {
        true => Ok(()),
        false => Err(MlflowError::invalid(format!(
            "Webhook name '{name}' is invalid. It must start and end with a letter or digit, have at most 63 characters, and \
             contain only letters, digits, dots (.), underscores (_), and hyphens (-)."
        ))),
    }
}

/// An experiment's id.
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
        for good in ["a", "train/loss", "a b", "x:y", "été", "a.b-c_d", ".a"] {
            key(good, "Metric name", "name").unwrap();
        }
        for bad in ["../x", "a//b", "/a", "a/", ".", "..", "a/./b", "a/../b", "a*b", "a\nb", "", &"k".repeat(251)] {
            assert!(key(bad, "Metric name", "name").is_err(), "{bad:?}");
        }
        assert_eq!(normalised("a//b/../c"), "a/c");
    }
}
