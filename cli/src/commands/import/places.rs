//! Where files lie: what the store calls a place, and its path in the artifact folder.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::error::CliError;

/// The server's artifact folder, if its files are imported.
#[derive(Debug, Default)]
pub struct Places {
    root: Option<PathBuf>,
    /// What the store calls the folder, where the folder was moved or is a copy.
    names: BTreeSet<String>,
}

impl Places {
    pub fn new(root: Option<&Path>) -> Result<Self, CliError> {
        let Some(root) = root else { return Ok(Self::default()) };
        let real = root.canonicalize().map_err(CliError::file(root))?;
        match real.is_dir() {
            true => Ok(Self { root: Some(real), names: BTreeSet::new() }),
            false => Err(CliError::Usage(format!("--artifacts {}: it is no folder", root.display()))),
        }
    }

    pub fn root(&self) -> Option<&Path> {
        self.root.as_deref()
    }

    /// Learns from the place of an experiment that the folder has what the store calls the folder: then all that the
    /// store has there is known, files or none.
    pub fn learn(&mut self, uri: &str) {
        let uri = uri.trim_end_matches('/');
        let is_elsewhere = !matches!(split(uri).0, "mlflow-artifacts" | "runs" | "models" | "http" | "https");
        if let (Some(root), Some((name, experiment))) = (&self.root, uri.rsplit_once('/'))
            && is_elsewhere
            && experiment.bytes().all(|digit| digit.is_ascii_digit())
            && root.join(experiment).is_dir()
        {
            self.names.insert(name.to_owned());
        }
    }

    fn below_name(&self, uri: &str) -> Option<String> {
        let below = |name: &String| uri.strip_prefix(name.as_str()).filter(|rest| rest.starts_with('/'));
        let below = self.names.iter().find_map(below)?.trim_matches('/');
        let below = if split(uri).0 == "file" { decoded(below) } else { below.to_owned() };
        (!below.split('/').any(|part| part == "..")).then_some(below)
    }

    /// A place of the folder becomes `mlflow-artifacts:/…`, which is where its files are after the import. What lies
    /// elsewhere, and everything where no files are imported, stays as it is.
    pub fn rewritten(&self, uri: &str) -> String {
        match self.path_of(uri) {
            Some(path) => format!("mlflow-artifacts:/{path}"),
            None => uri.to_owned(),
        }
    }

    /// The path in the folder, without `/` at its ends.
    pub fn path_of(&self, uri: &str) -> Option<String> {
        let root = self.root.as_deref()?;
        let (scheme, rest) = split(uri);
        // What begins with two slashes has a host before its path.
        let path = match rest.strip_prefix("//") {
            Some(rest) => rest.split_once('/').map_or("", |(_, path)| path),
            None => rest,
        };
        match scheme {
            "mlflow-artifacts" => Some(path.trim_matches('/').to_owned()),
            "runs" | "models" | "http" | "https" => None,
            "file" | "" => {
                let path = if scheme.is_empty() { path.to_owned() } else { decoded(path) };
                let path = absolute(&path, scheme);
                let below = Path::new(&path).strip_prefix(root).ok().and_then(Path::to_str);
                let below = below.map(|below| below.trim_matches('/').to_owned());
                below.or_else(|| self.below_name(uri)).or_else(|| by_layout(root, &path))
            }
            _ => self.below_name(uri).or_else(|| by_layout(root, path)),
        }
    }
}

fn split(uri: &str) -> (&str, &str) {
    match uri.split_once(':') {
        Some((scheme, rest)) if !scheme.is_empty() && !scheme.contains(['/', '\\']) => (scheme, rest),
        _ => ("", uri),
    }
}

fn absolute(path: &str, scheme: &str) -> String {
    match scheme {
        "file" if !path.starts_with('/') => format!("/{path}"),
        _ => path.to_owned(),
    }
}

/// The folder may have been moved, or be a copy of a bucket: the part of the path that begins with an experiment's
/// number, where the folder has that experiment and the rest is as MLflow lays files out.
fn by_layout(root: &Path, path: &str) -> Option<String> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    (0..parts.len()).find_map(|from| {
        let own = &parts[from..];
        let fits = matches!(own, [_] | [_, "models", _, "artifacts", ..] | [_, _, "artifacts", ..]);
        let numbered = own[0].bytes().all(|digit| digit.is_ascii_digit());
        (fits && numbered && !own.contains(&"..") && root.join(own[0]).is_dir()).then(|| own.join("/"))
    })
}

fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let pair = text.get(at + 1..at + 3).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (byte, pair) {
            (b'%', Some(value)) => {
                out.push(value);
                at += 3;
            }
            _ => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    String::from_utf8(out).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn places_of_the_folder_are_rewritten_and_others_are_not() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("3")).unwrap();
        let root = folder.path().canonicalize().unwrap();
        let places = Places::new(Some(folder.path())).unwrap();
        let root = root.display();
        for (uri, expected) in [
            ("mlflow-artifacts:/3/r/artifacts".to_owned(), "mlflow-artifacts:/3/r/artifacts"),
            ("mlflow-artifacts://host:5000/3/r/artifacts/x".into(), "mlflow-artifacts:/3/r/artifacts/x"),
            (format!("file://{root}/3/r/artifacts"), "mlflow-artifacts:/3/r/artifacts"),
            (format!("{root}/9/a%20b/artifacts"), "mlflow-artifacts:/9/a%20b/artifacts"),
            (format!("file://{root}/9/a%20b/artifacts/"), "mlflow-artifacts:/9/a b/artifacts"),
            ("file:///old/mlruns/3/r/artifacts/model".into(), "mlflow-artifacts:/3/r/artifacts/model"),
            ("./mlruns/3".into(), "mlflow-artifacts:/3"),
            ("s3://bucket/7/3/models/m-1/artifacts".into(), "mlflow-artifacts:/3/models/m-1/artifacts"),
            ("s3://bucket/4/r/artifacts".into(), "s3://bucket/4/r/artifacts"),
            ("s3://bucket/3/other/place".into(), "s3://bucket/3/other/place"),
            ("runs:/r/model".into(), "runs:/r/model"),
            ("models:/m-1".into(), "models:/m-1"),
            ("file:///x/3/../artifacts/..".into(), "file:///x/3/../artifacts/.."),
        ] {
            assert_eq!(places.rewritten(&uri), expected, "{uri}");
        }
        let mut places = places;
        for uri in
            ["s3://bucket/mlflow/3", "file:///old/ml%20runs/3", "s3://other/4", "mlflow-artifacts:/3", "/a/three"]
        {
            places.learn(uri);
        }
        for (uri, expected) in [
            ("s3://bucket/mlflow/4/r/artifacts", "mlflow-artifacts:/4/r/artifacts"),
            ("s3://bucket/mlflow/anywhere", "mlflow-artifacts:/anywhere"),
            ("file:///old/ml%20runs/5/a%20b", "mlflow-artifacts:/5/a b"),
            ("s3://other/4/r/artifacts", "s3://other/4/r/artifacts"),
            ("s3://bucket/mlflow2/4", "s3://bucket/mlflow2/4"),
            ("s3://bucket/mlflow/../4", "s3://bucket/mlflow/../4"),
        ] {
            assert_eq!(places.rewritten(uri), expected, "{uri}");
        }
        assert_eq!(Places::default().rewritten("file:///a/3"), "file:///a/3");
    }
}
