//! Paths of artifacts, relative to the root of their run or logged model.

use std::fmt;
use std::sync::Arc;

use crate::ArtifactError;

/// A relative path of normal segments, separated by `/`. Joined to a root, it cannot leave the root, neither as given
/// nor after any number of percent-decodings.
///
/// [`parse`](ArtifactPath::parse) expects a path that an HTTP extractor has percent-decoded once, and stores it
/// unchanged: a remaining `%` is part of a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ArtifactPath(Arc<str>);

impl ArtifactPath {
    /// Maximum length of a path, in bytes.
    pub const MAX_BYTES: usize = 1000;

    /// Validates a path. Fails with [`ArtifactError::Path`].
    pub fn parse(path: &str) -> Result<Self, ArtifactError> {
        let fault = |reason| Err(ArtifactError::Path { path: path.chars().take(80).collect(), reason });
        if path.len() > Self::MAX_BYTES {
            return fault("is longer than 1000 bytes");
        }
        if let Err(reason) = check(path) {
            return fault(reason);
        }
        let mut form = path.to_owned();
        loop {
            let decoded = decode(&form);
            if decoded == form {
                return Ok(Self(path.into()));
            }
            // The reason describes the decoded form; the message shows the path as given.
            if let Err(reason) = check(&decoded) {
                return fault(reason);
            }
            form = decoded;
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path of the parent directory; `None` if that is the root.
    pub fn parent(&self) -> Option<Self> {
        self.0.rsplit_once('/').map(|(parent, _)| Self(parent.into()))
    }

    /// The last segment.
    pub fn basename(&self) -> &str {
        basename(&self.0)
    }

    /// Joins a relative path to this one.
    pub fn join(&self, below: &str) -> Result<Self, ArtifactError> {
        Self::parse(&format!("{}/{below}", self.0))
    }

    /// True if the path is in `directory` or one of its subdirectories.
    pub fn is_below(&self, directory: &ArtifactPath) -> bool {
        self.0.strip_prefix(&*directory.0).is_some_and(|rest| rest.starts_with('/'))
    }
}

/// True if a text has a segment `..`, as given or after any number of percent-decodings. Segments are separated by `/`
/// or `\`.
pub fn climbs(text: &str) -> bool {
    let mut form = text.to_owned();
    loop {
        if form.split(['/', '\\']).any(|segment| segment == "..") {
            return true;
        }
        let decoded = decode(&form);
        if decoded == form {
            return false;
        }
        form = decoded;
    }
}

/// The last segment of a path.
pub(crate) fn basename(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

/// Validates one form of a path. The error is the reason for a message.
fn check(path: &str) -> Result<(), &'static str> {
    if path.is_empty() {
        return Err("is empty");
    }
    if path.starts_with('/') {
        return Err("is absolute: it must be relative to the run's or the model's root");
    }
    if path.contains('\\') {
        return Err("has a backslash: segments are separated by /");
    }
    if path.contains(|c: char| c.is_control()) {
        return Err("has a NUL or another control character");
    }
    path.split('/').try_for_each(|segment| match segment.as_bytes() {
        [] => Err("has an empty segment: no //, and no / at its end"),
        [b'.'] | [b'.', b'.'] => Err("has a segment . or .."),
        // Windows removes trailing dots and spaces from a name, so such a segment could become `..`.
        bytes if bytes.iter().all(|b| matches!(b, b'.' | b' ')) => Err("has a segment of only dots and spaces"),
        [letter, b':', ..] if letter.is_ascii_alphabetic() => Err("has a drive letter"),
        _ => Ok(()),
    })
}

/// Percent-decodes once. Invalid UTF-8 becomes U+FFFD. That is safe here: the checks concern ASCII characters only.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let hex = |at: usize| bytes.get(at).and_then(|digit| (*digit as char).to_digit(16));
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match (byte, hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high * 16 + low) as u8);
                at += 3;
            }
            _ => {
                decoded.push(*byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

impl fmt::Display for ArtifactPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for ArtifactPath {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for ArtifactPath {
    type Err = ArtifactError;
    fn from_str(path: &str) -> Result<Self, ArtifactError> {
        Self::parse(path)
    }
}

impl TryFrom<String> for ArtifactPath {
    type Error = ArtifactError;
    fn try_from(path: String) -> Result<Self, ArtifactError> {
        Self::parse(&path)
    }
}

impl From<ArtifactPath> for String {
    fn from(path: ArtifactPath) -> String {
        path.0.as_ref().to_owned()
    }
}
