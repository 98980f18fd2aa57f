//! Where files lie: what the store calls a place, and its path in the artifact folder.

use std::path::{Path, PathBuf};

use crate::error::CliError;

/// The server's artifact folder, if its files are imported.
#[derive(Debug, Default)]
pub struct Places {
    root: Option<PathBuf>,
}

impl Places {
    pub fn new(root: Option<&Path>) -> Result<Self, CliError> {
        let Some(root) = root else { return Ok(Self::default()) };
        let real = root.canonicalize().map_err(CliError::file(root))?;
        match real.is_dir() {
            true => Ok(Self { root: Some(real) }),
            false => Err(CliError::Usage(format!("--artifacts {}: it is no folder", root.display()))),
        }
    }

    pub fn root(&self) -> Option<&Path> {
        self.root.as_deref()
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
                below.map(|below| below.trim_matches('/').to_owned()).or_else(|| by_layout(root, &path))
            }
            _ => by_layout(root, path),
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
        assert_eq!(Places::default().rewritten("file:///a/3"), "file:///a/3");
    }
}
