//! Corpus ids as entity ids, and back.
//!
//! An id that is an entity id stays as it is. Any other becomes `esc.` and its bytes, of which all but letters,
//! digits, `_` and `-` are written `.HH`; so does an id that begins with `esc.` itself, so that it comes back.

use std::fmt::Write as _;

use carbon_core::EntityId;

const MARK: &str = "esc.";

/// The entity id for a corpus id; `None` where it would be longer than an entity id can be.
pub fn escape(id: &str) -> Option<String> {
    if EntityId::parse(id).is_ok() && !id.starts_with(MARK) {
        return Some(id.to_owned());
    }
    let mut escaped = MARK.to_owned();
    for byte in id.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-') {
            escaped.push(char::from(byte));
        } else {
            let _ = write!(escaped, ".{byte:02X}");
        }
    }
    EntityId::parse(&escaped).is_ok().then_some(escaped)
}

/// The corpus id of an entity id.
pub fn unescape(id: &str) -> String {
    let decoded = id.strip_prefix(MARK).and_then(|escaped| {
        let mut bytes = Vec::with_capacity(escaped.len());
        let mut rest = escaped.bytes();
        while let Some(byte) = rest.next() {
            if byte != b'.' {
                bytes.push(byte);
                continue;
            }
            let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
            let (high, low) = (digit(rest.next())?, digit(rest.next())?);
            bytes.push(u8::try_from(high * 16 + low).ok()?);
        }
        String::from_utf8(bytes).ok()
    });
    decoded.unwrap_or_else(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entity_ids_stay_and_others_come_back() {
        assert_eq!(escape("MED-10").as_deref(), Some("MED-10"));
        assert_eq!(escape("a b/é").as_deref(), Some("esc.a.20b.2F.C3.A9"));
        assert_eq!(escape("esc.a").as_deref(), Some("esc.esc.2Ea"));
        assert_eq!(unescape("esc.zz.G"), "esc.zz.G");
        assert!(escape(&"é".repeat(60)).is_none());
    }

    proptest::proptest! {
        #[test]
        fn every_id_round_trips(id in ".{1,30}") {
            let escaped = escape(&id);
            proptest::prop_assert_eq!(escaped.as_deref().map(unescape), Some(id.clone()));
            proptest::prop_assert!(EntityId::parse(&escaped.unwrap_or_default()).is_ok());
        }

        #[test]
        fn different_ids_stay_different(a in "(esc)?[a.E2]{1,6}", b in "(esc)?[a.E2]{1,6}") {
            proptest::prop_assert_eq!(a == b, escape(&a) == escape(&b));
        }
    }
}
