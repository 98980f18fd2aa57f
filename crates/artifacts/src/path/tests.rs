//! Tests of artifact paths.

use std::path::{Component, Path};

use proptest::prelude::*;

use super::*;

/// The message of the rejection of a path.
fn reason(path: &str) -> String {
    ArtifactPath::parse(path).unwrap_err().to_string()
}

#[test]
fn valid_paths_are_stored_unchanged() {
    for path in [
        "model.pkl",
        "model/MLmodel",
        "plots/ROC curve (v1).png",
        ".hidden/..b/c..",
        "été/曲線.csv",
        "100%",
        "50%25.csv",
        "a%2Fb",
        "xy:z",
        "curve:2026-01/a",
        "~/x",
        "-rf",
        "%zz",
        "%FF",
    ] {
        assert_eq!(ArtifactPath::parse(path).unwrap().as_str(), path);
    }
    assert!(ArtifactPath::parse(&"a".repeat(1000)).is_ok());
}

#[test]
fn hostile_paths_are_rejected_with_the_reason() {
    let cases: &[(&str, &[&str])] = &[
        ("is empty", &[""]),
        ("absolute", &["/", "/etc/passwd", "//x", "%2fetc", "%252Fetc"]),
        ("empty segment", &["a//b", "a/", "a%2f%2Fb", "a/%2f"]),
        (
            ". or ..",
            &[
                "..",
                ".",
                "../x",
                "a/../b",
                "a/..",
                "./a",
                "a/./b",
                "%2e%2e/x",
                "%2E./x",
                ".%2e/x",
                "%252e%252e%252fx",
                "a%2f..%2fb",
                "..%2f..%2fx",
                "a/%25252e%25252e/b",
                "%25%32%65%25%32%65/x",
            ],
        ),
        ("dots and spaces", &["...", "a/.. /b", "a/ /b", "..%20/x"]),
        ("backslash", &["..\\x", "a\\b", "\\\\host\\share", "a%5c..%5cb", "a%255Cb"]),
        ("drive letter", &["C:", "C:/x", "c:x", "a/D:/x", "C%3a/x", "a%2FD%253A"]),
        ("control character", &["a\0b", "a\nb", "a%00b", "a%2500b", "a\u{7f}", "a\u{85}b", "a%0Ab"]),
        ("longer than 1000", &[&"é".repeat(501)]),
    ];
    for (expected, paths) in cases {
        for path in *paths {
            assert!(reason(path).contains(expected), "{path:?}: {}", reason(path));
        }
    }
    assert!(reason(&"é".repeat(501)).len() < 300, "a long path is truncated in the message");
    assert!(serde_json::from_str::<ArtifactPath>("\"a/../../b\"").is_err());
}

#[test]
fn repeated_percent_encoding_is_decoded_to_the_end() {
    let deep = format!("a{}2e2e", "%25".repeat(300));
    assert!(ArtifactPath::parse(&deep).is_ok());
    let mut hidden = "..".to_owned();
    for _ in 0..60 {
        hidden = hidden.replace('%', "%25").replace('.', "%2e");
    }
    assert!(reason(&hidden).contains(". or .."));
}

#[test]
fn parent_basename_join_and_is_below() {
    let path = ArtifactPath::parse("model/data/model.pkl").unwrap();
    let data = path.parent().unwrap();
    assert_eq!((data.as_str(), path.basename()), ("model/data", "model.pkl"));
    let model = data.parent().unwrap();
    assert_eq!((model.parent(), model.basename()), (None, "model"));
    assert_eq!(data.join("model.pkl").unwrap(), path);
    assert!(path.is_below(&model) && path.is_below(&data) && !path.is_below(&path));
    assert!(!ArtifactPath::parse("model2/x").unwrap().is_below(&model));
    for below in ["", "..", "/x", "%2e%2e", "x/../.."] {
        assert!(model.join(below).is_err(), "{below}");
    }
}

/// Asserts that a path joined to a root is inside the root, on Unix and on Windows.
fn assert_inside_root(form: &str) {
    let root = Path::new("/root/of/run");
    let joined = root.join(form);
    assert!(joined.starts_with(root), "{form:?}");
    let inside = joined.strip_prefix(root).unwrap();
    assert!(inside.components().all(|part| matches!(part, Component::Normal(_))), "{form:?}");
    // On Windows, `\` separates segments and a drive letter makes a path absolute.
    assert!(
        !form.contains('\\')
            && !form
                .split('/')
                .any(|part| part.as_bytes().get(1) == Some(&b':') && part.as_bytes()[0].is_ascii_alphabetic())
    );
}

/// Fragments of hostile paths.
fn fragment() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "..", ".", "/", "\\", "%2e", "%2E", "%2f", "%2F", "%5c", "%00", "%", "%25", "25", "2e", "2f", "C:", "%3a", ":",
        "a", "b.txt", " ", "\0", "é", "%c0%ae", "%ff", "\u{2024}", "\n",
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn no_accepted_path_leaves_its_root(pieces in prop::collection::vec(fragment(), 0..10)) {
        if let Ok(path) = ArtifactPath::parse(&pieces.concat()) {
            let mut form = path.as_str().to_owned();
            loop {
                assert_inside_root(&form);
                let decoded = decode(&form);
                if decoded == form { break; }
                form = decoded;
            }
            if let Some(parent) = path.parent() {
                prop_assert_eq!(&ArtifactPath::parse(parent.as_str()).unwrap(), &parent);
                prop_assert_eq!(&parent.join(path.basename()).unwrap(), &path);
                prop_assert!(path.is_below(&parent));
            }
        }
    }

    #[test]
    fn an_accepted_text_is_stored_unchanged_and_stays_inside_its_root(text in "\\PC{0,40}") {
        if let Ok(path) = ArtifactPath::parse(&text) {
            assert_inside_root(path.as_str());
            prop_assert_eq!(path.as_str(), text);
        }
    }

    #[test]
    fn paths_of_plain_names_are_accepted(segments in prop::collection::vec("[a-zA-Z0-9_-]{1,12}(\\.[a-z]{1,4})?", 1..6)) {
        let text = segments.join("/");
        let path = ArtifactPath::parse(&text).unwrap();
        prop_assert_eq!(path.basename(), segments.last().unwrap());
    }
}

#[test]
fn a_parent_segment_is_found_in_every_encoding() {
    for bad in ["runs:/a/../b", "s3://b/%2e%2e/x", "s3://b/%252e%252e/x", "a\\..\\b", "..", "x/%2e./y"] {
        assert!(climbs(bad), "{bad}");
    }
    for good in ["runs:/a/b", "s3://b/a..b/c", "models:/m-1", "s3://b/100%/x", "s3://b/%41"] {
        assert!(!climbs(good), "{good}");
    }
}
