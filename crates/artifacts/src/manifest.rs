//! Manifests: the list of files of a model version, and its digest.

use crate::digest::Hasher;
use crate::{ArtifactError, ArtifactPath, Sha256Hex};

/// A file of a manifest.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ManifestEntry {
    pub path: ArtifactPath,
    /// In bytes.
    pub size: u64,
    pub sha256: Sha256Hex,
}

/// The files of a model version, sorted by the bytes of their paths. Each path occurs once.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "Vec<ManifestEntry>", into = "Vec<ManifestEntry>")]
pub struct Manifest(Vec<ManifestEntry>);

impl Manifest {
    /// Sorts the entries. Fails with [`ArtifactError::Duplicate`] if a path occurs twice.
    pub fn new(mut entries: Vec<ManifestEntry>) -> Result<Self, ArtifactError> {
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        match entries.windows(2).find(|pair| pair[0].path == pair[1].path) {
            Some(pair) => Err(ArtifactError::Duplicate(pair[0].path.to_string())),
            None => Ok(Self(entries)),
        }
    }

    pub fn entries(&self) -> &[ManifestEntry] {
        &self.0
    }

    /// The entry with a path.
    pub fn get(&self, path: &str) -> Option<&ManifestEntry> {
        let at = self.0.binary_search_by(|entry| entry.path.as_str().cmp(path)).ok()?;
        self.0.get(at)
    }

    /// Total size of the files, in bytes.
    pub fn size(&self) -> u64 {
        self.0.iter().map(|entry| entry.size).fold(0, u64::saturating_add)
    }

    /// SHA-256 over 3 netstrings (`<length in bytes>:<bytes>,`) per entry, in the order of the manifest: the path in
    /// UTF-8, the size in decimal, and the file's SHA-256 in lower-case hexadecimal digits. The log contains digests,
    /// so this format must not change.
    pub fn digest(&self) -> Sha256Hex {
        let mut hasher = Hasher::default();
        for ManifestEntry { path, size, sha256 } in &self.0 {
            for field in [path.as_str(), &size.to_string(), &sha256.to_string()] {
                hasher.update(format!("{}:{field},", field.len()).as_bytes());
            }
        }
        hasher.finish()
    }
}

impl TryFrom<Vec<ManifestEntry>> for Manifest {
    type Error = ArtifactError;
    fn try_from(entries: Vec<ManifestEntry>) -> Result<Self, ArtifactError> {
        Self::new(entries)
    }
}

impl From<Manifest> for Vec<ManifestEntry> {
    fn from(manifest: Manifest) -> Self {
        manifest.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, size: u64, content: &str) -> ManifestEntry {
        ManifestEntry { path: ArtifactPath::parse(path).unwrap(), size, sha256: Sha256Hex::of(content.as_bytes()) }
    }

    fn sample() -> Vec<ManifestEntry> {
        vec![entry("été, 1.csv", 0, ""), entry("model/data/model.pkl", 10, "b"), entry("MLmodel", 512, "a")]
    }

    #[test]
    fn the_digest_equals_that_of_another_implementation() {
        // Computed in Python: hashlib.sha256(b"".join(ns(path) + ns(size) + ns(sha256) ...)).
        const GOLDEN: &str = "dfa2cd2ac59bd5d57c9dc7df9e2e6ee3b66b97819325905f09bf92847d94eabb";
        let manifest = Manifest::new(sample()).unwrap();
        assert_eq!(manifest.digest().to_string(), GOLDEN);
        assert_eq!(Manifest::default().digest(), Sha256Hex::of(b""));
    }

    #[test]
    fn the_digest_depends_on_the_content_and_not_on_the_order() {
        let manifest = Manifest::new(sample()).unwrap();
        let mut reversed = sample();
        reversed.reverse();
        assert_eq!(Manifest::new(reversed).unwrap(), manifest);
        let paths: Vec<_> = manifest.entries().iter().map(|entry| entry.path.as_str()).collect();
        assert_eq!(paths, ["MLmodel", "model/data/model.pkl", "été, 1.csv"]);
        assert_eq!(manifest.size(), 522);
        assert_eq!(manifest.get("MLmodel").unwrap().size, 512);
        assert_eq!(manifest.get("mlmodel"), None);
        let mut changed = vec![sample()[1..].to_vec()];
        for change in [
            |entry: &mut ManifestEntry| entry.size += 1,
            |entry: &mut ManifestEntry| entry.path = ArtifactPath::parse("other").unwrap(),
            |entry: &mut ManifestEntry| entry.sha256 = Sha256Hex::of(b"other"),
        ] {
            let mut entries = sample();
            change(&mut entries[1]);
            changed.push(entries);
        }
        for entries in changed {
            assert_ne!(Manifest::new(entries).unwrap().digest(), manifest.digest());
        }
    }

    #[test]
    fn a_duplicate_path_is_rejected() {
        let twice = vec![entry("a", 1, "x"), entry("b", 1, "x"), entry("a", 2, "y")];
        assert_eq!(Manifest::new(twice.clone()).unwrap_err().to_string(), "the manifest has the path \"a\" twice");
        let json = serde_json::to_string(&twice).unwrap();
        assert!(serde_json::from_str::<Manifest>(&json).is_err());
        let manifest = Manifest::new(sample()).unwrap();
        let json = serde_json::to_string(&manifest).unwrap();
        assert_eq!(serde_json::from_str::<Manifest>(&json).unwrap(), manifest);
    }
}
