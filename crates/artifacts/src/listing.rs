//! Listings of directories. Directories are not stored; they are derived from the paths of the files.

use crate::ArtifactPath;
use crate::path::basename;

/// A file or a directory in a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed<'a> {
    /// Path relative to the root of the run or logged model.
    pub path: &'a str,
    /// Size in bytes; `None` for a directory.
    pub size: Option<u64>,
}

impl<'a> Listed<'a> {
    /// The last segment of the path.
    pub fn basename(&self) -> &'a str {
        basename(self.path)
    }

    pub fn is_dir(&self) -> bool {
        self.size.is_none()
    }
}

/// Lists the direct children of a directory, sorted by path; `None` is the root. `files` are the paths and sizes of all
/// files of the run or logged model, sorted by path. The list is empty if `directory` is a file or does not exist.
pub fn list<'a, P: AsRef<str>>(files: &'a [(P, u64)], directory: Option<&ArtifactPath>) -> Vec<Listed<'a>> {
    debug_assert!(files.is_sorted_by(|a, b| a.0.as_ref() <= b.0.as_ref()), "files must be sorted by path");
    let prefix = directory.map(|directory| format!("{directory}/")).unwrap_or_default();
    let start = files.partition_point(|(path, _)| path.as_ref() < prefix.as_str());
    let mut rest = files.get(start..).unwrap_or_default();
    let mut children = Vec::new();
    while let Some((path, size)) = rest.first() {
        let path = path.as_ref();
        let Some(inside) = path.strip_prefix(&prefix) else { break };
        let (found, skip) = match inside.find('/') {
            None => (Listed { path, size: Some(*size) }, 1),
            Some(slash) => {
                let end = prefix.len() + slash;
                let (directory, all) = (&path[..end], &path[..=end]);
                let below = rest.partition_point(|(path, _)| path.as_ref().starts_with(all));
                (Listed { path: directory, size: None }, below.max(1))
            }
        };
        children.push(found);
        rest = rest.get(skip..).unwrap_or_default();
    }
    // The file `a-b` sorts before `a/x`, but the directory `a` sorts before `a-b`.
    children.sort_by_key(|found| found.path);
    children
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn at(path: &str) -> Option<ArtifactPath> {
        (!path.is_empty()).then(|| ArtifactPath::parse(path).unwrap())
    }

    #[test]
    fn a_listing_has_the_files_and_directories_of_a_directory() {
        let files =
            [("a", 1), ("a-b/x", 2), ("m/MLmodel", 3), ("m/data/1", 4), ("m/data/deep/2", 5), ("m0", 6), ("z/z/z", 7)];
        let shown = |directory: &str| -> Vec<(String, Option<u64>)> {
            list(&files, at(directory).as_ref()).iter().map(|found| (found.path.to_owned(), found.size)).collect()
        };
        let row = |path: &str, size| (path.to_owned(), size);
        let root = vec![row("a", Some(1)), row("a-b", None), row("m", None), row("m0", Some(6)), row("z", None)];
        assert_eq!(shown(""), root);
        assert_eq!(shown("m"), [row("m/MLmodel", Some(3)), row("m/data", None)]);
        assert_eq!(shown("m/data"), [row("m/data/1", Some(4)), row("m/data/deep", None)]);
        for nothing in ["a", "m/MLmodel", "missing", "m/dat", "zz"] {
            assert_eq!(shown(nothing), [], "{nothing}");
        }
        let found = list(&files, at("z/z").as_ref());
        assert_eq!((found[0].basename(), found[0].is_dir()), ("z", false));
        assert!(list::<&str>(&[], None).is_empty());
    }

    proptest! {
        #[test]
        fn a_listing_equals_that_of_a_full_scan(
            paths in prop::collection::btree_set("[a-c0-](/[a-c.-]{1,2}){0,3}", 0..40), directory in "([a-c](/[a-c]{1,2}){0,2})?",
        ) {
            let directory = ArtifactPath::parse(&directory).ok();
            let files: Vec<(String, u64)> = paths.into_iter().zip(1..).collect();
            let prefix = directory.as_ref().map(|directory| format!("{directory}/")).unwrap_or_default();
            let mut plain: BTreeMap<(String, bool), Option<u64>> = BTreeMap::new();
            for (path, size) in &files {
                let Some(inside) = path.strip_prefix(&prefix) else { continue };
                match inside.split_once('/') {
                    None => plain.insert((path.clone(), false), Some(*size)),
                    Some((name, _)) => plain.insert((format!("{prefix}{name}"), true), None),
                };
            }
            let mut shown: Vec<_> = list(&files, directory.as_ref()).iter().map(|f| ((f.path.to_owned(), f.is_dir()), f.size)).collect();
            prop_assert!(shown.is_sorted_by_key(|found| found.0.0.clone()));
            shown.sort();
            prop_assert_eq!(shown, plain.into_iter().collect::<Vec<_>>());
        }
    }
}
