//! SHA-256 digests: the names of blobs.

use std::fmt;

use sha2::{Digest as _, Sha256};

use crate::ArtifactError;

/// A SHA-256, written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sha256Hex([u8; 32]);

impl Sha256Hex {
    /// Parses 64 lower-case hexadecimal digits.
    pub fn parse(text: &str) -> Result<Self, ArtifactError> {
        let fault = || ArtifactError::Digest(text.chars().take(80).collect());
        let digits = text.as_bytes();
        let mut bytes = [0; 32];
        if digits.len() != 64 {
            return Err(fault());
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            for digit in pair {
                let value = match digit {
                    b'0'..=b'9' => digit - b'0',
                    b'a'..=b'f' => digit - b'a' + 10,
                    _ => return Err(fault()),
                };
                *byte = *byte << 4 | value;
            }
        }
        Ok(Self(bytes))
    }

    /// The SHA-256 of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::default();
        hasher.update(bytes);
        hasher.finish()
    }
}

impl fmt::Display for Sha256Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for Sha256Hex {
    type Err = ArtifactError;
    fn from_str(text: &str) -> Result<Self, ArtifactError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for Sha256Hex {
    type Error = ArtifactError;
    fn try_from(text: String) -> Result<Self, ArtifactError> {
        Self::parse(&text)
    }
}

impl From<Sha256Hex> for String {
    fn from(digest: Sha256Hex) -> String {
        digest.to_string()
    }
}

/// Hashes and counts bytes incrementally.
#[derive(Clone, Default)]
pub(crate) struct Hasher {
    hash: Sha256,
    /// Number of bytes so far.
    pub bytes: u64,
}

impl Hasher {
    pub fn update(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    pub fn finish(self) -> Sha256Hex {
        Sha256Hex(self.hash.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_digest_has_one_written_form() {
        assert_eq!(Sha256Hex::of(b"").to_string(), EMPTY);
        assert_eq!(Sha256Hex::parse(EMPTY).unwrap(), Sha256Hex::of(b""));
        assert_eq!(serde_json::to_string(&Sha256Hex::of(b"")).unwrap(), format!("\"{EMPTY}\""));
        for wrong in ["", "e3", &EMPTY.to_uppercase(), &format!("{EMPTY}0"), &EMPTY.replace('e', "g"), &EMPTY[1..]] {
            assert!(Sha256Hex::parse(wrong).is_err(), "{wrong}");
        }
        assert!(Sha256Hex::parse(&"é".repeat(32)).is_err());
        assert!(serde_json::from_str::<Sha256Hex>("\"../../etc/passwd\"").is_err());
    }
}
