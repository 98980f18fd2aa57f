//! The sources of model versions. A source in the artifact store must lie in the run or logged model that the call names.
//! Local paths are rejected, so that no caller can read the server's files by registering them.

use carbon_artifacts::climbs;
use carbon_read_models::registry::queries::run_info;

use super::call::Call;
use super::error::MlflowError;

/// A resolved source.
pub(super) struct ResolvedSource {
    /// The URI of the files.
    pub storage: String,
    pub run_id: Option<String>,
    pub model_id: Option<String>,
}

fn invalid(source: &str, why: &str) -> MlflowError {
    let source: String = source.chars().take(500).collect();
    MlflowError::invalid(format!("Invalid model version source: '{source}'. {why}"))
}

const NOT_OF_MODEL: &str = "The model_id request parameter must identify the resource that contains the source.";
const NOT_OF_RUN: &str = "The run_id request parameter must identify the resource that contains the source.";
const NOT_OF_EITHER: &str =
    "The run_id or model_id request parameter must identify the resource that contains the source.";
const LOCAL: &str = "To use a local path as a model version source, the run_id request parameter has to be specified and \
    the local path has to be contained within the artifact directory of the run specified by the run_id.";

/// Resolves a source and checks that the caller may use it.
pub(super) async fn resolve(call: &Call, source: &str) -> Result<ResolvedSource, MlflowError> {
    if climbs(source) {
        return Err(invalid(source, "It must not contain '..'."));
    }
    let args = &call.args;
    let (mut run_id, model_id) = (args.non_empty("run_id")?, args.non_empty("model_id")?);
    let model = match &model_id {
        Some(id) => Some(call.logged_model(id).await?),
        None => None,
    };
    let model_root = model.as_ref().map(|model| model.artifact_uri.trim_end_matches('/').to_owned());
    if run_id.is_none() {
        run_id = model.map(|model| model.source_run_id).filter(|id| !id.is_empty());
    }
    let resolved = |storage: String, run_id| Ok(ResolvedSource { storage, run_id, model_id: model_id.clone() });
    if let Some(rest) = source.strip_prefix("models:/") {
        let rest = rest.trim_start_matches('/');
        if rest.starts_with("m-") && !rest.contains('@') && !is_version(rest) {
            let (id, below) = rest.split_once('/').unwrap_or((rest, ""));
            let (Some(root), true) = (&model_root, model_id.as_deref() == Some(id)) else {
                return Err(invalid(source, NOT_OF_MODEL));
            };
            return resolved(joined(root, below), run_id);
        }
        let storage = registered_version(call, source, rest).await?;
        return resolved(storage, run_id);
    }
    if let Some(rest) = source.strip_prefix("runs:/") {
        let (id, below) = rest.trim_start_matches('/').split_once('/').unwrap_or((rest, ""));
        if run_id.as_deref() != Some(id) {
            return Err(invalid(source, NOT_OF_RUN));
        }
        let run = run_info(call.rows()?, &call.scope, id).await?.ok_or_else(|| invalid(source, NOT_OF_RUN))?;
        return resolved(joined(&run.artifact_uri, below), Some(id.to_owned()));
    }
    if source.starts_with("mlflow-artifacts:") {
        let mut roots: Vec<String> = model_root.into_iter().collect();
        if let Some(id) = &run_id
            && let Some(run) = run_info(call.rows()?, &call.scope, id).await?
        {
            roots.push(run.artifact_uri.trim_end_matches('/').to_owned());
        }
        let inside =
            |root: &String| source == root || source.strip_prefix(root).is_some_and(|rest| rest.starts_with('/'));
        return match roots.iter().any(inside) {
            true => resolved(source.to_owned(), run_id),
            false => Err(invalid(source, NOT_OF_EITHER)),
        };
    }
    match is_local(source) {
        true => Err(invalid(source, LOCAL)),
        false => resolved(source.to_owned(), run_id),
    }
}

/// True for `name/3`. The name may begin with `m-`, like the id of a logged model.
fn is_version(rest: &str) -> bool {
    let is_id = |id: &str| id.strip_prefix("m-").is_some_and(|hex| hex.len() == 32);
    rest.split_once('/').is_some_and(|(name, below)| {
        !is_id(name) && !below.is_empty() && below.chars().all(|digit| digit.is_ascii_digit())
    })
}

/// Returns the files of the registered version that `models:/name/3` or `models:/name@alias` names.
async fn registered_version(call: &Call, source: &str, rest: &str) -> Result<String, MlflowError> {
    let unknown = || invalid(source, "It names no version: models:/<name>/<version> or models:/<name>@<alias>.");
    if let Some((name, alias)) = rest.split_once('@') {
        let model = call.model_named(name).await?;
        let version = model.aliased(alias).ok_or_else(unknown)?;
        return Ok(call.version_of(name, version).await?.storage);
    }
    let (name, version) = rest.split_once('/').ok_or_else(unknown)?;
    let version = version.trim_end_matches('/').parse().map_err(|_| unknown())?;
    Ok(call.version_of(name, version).await?.storage)
}

fn joined(root: &str, below: &str) -> String {
    let (root, below) = (root.trim_end_matches('/'), below.trim_matches('/'));
    if below.is_empty() { root.to_owned() } else { format!("{root}/{below}") }
}

fn is_local(source: &str) -> bool {
    let Some((scheme, rest)) = source.split_once(':') else { return true };
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    // A single letter before the colon is a drive of Windows.
    !is_scheme || scheme.len() == 1 || scheme.eq_ignore_ascii_case("file") || rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_server_are_local() {
        for local in ["/etc/passwd", "file:///etc/passwd", "FILE:/etc", "C:\\x", "relative/path", "./x", ""] {
            assert!(is_local(local), "{local}");
        }
        for elsewhere in ["s3://b/x", "dbfs:/x", "https://host/x", "hdfs://x/y"] {
            assert!(!is_local(elsewhere), "{elsewhere}");
        }
        assert!(is_version("m-x/3") && is_version("m/3") && !is_version("m-x") && !is_version("m/three"));
        assert!(!is_version(&format!("m-{}/3", "0".repeat(32))));
    }
}
