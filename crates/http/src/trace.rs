//! W3C trace context.

use uuid::Uuid;

/// A valid `traceparent`, or nothing.
pub(crate) fn accepted(text: &str) -> Option<String> {
    let mut parts = text.split('-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let some = |part: &str| part.bytes().any(|b| b != b'0');
    let well_formed = hex(version, 2) && hex(trace, 32) && hex(parent, 16) && hex(flags, 2);
    // Version 00 has four parts; a later one may have more, of which only these are known.
    let length = version != "ff" && (version != "00" || parts.next().is_none());
    (well_formed && length && some(trace) && some(parent)).then(|| format!("00-{trace}-{parent}-{flags}"))
}

/// A new trace, not sampled.
pub(crate) fn drawn() -> String {
    let (trace, parent) = (Uuid::new_v4().simple().to_string(), Uuid::new_v4().simple().to_string());
    format!("00-{trace}-{}-00", &parent[..16])
}

/// The trace id of a valid `traceparent`.
pub(crate) fn trace_id(traceparent: &str) -> &str {
    traceparent.split('-').nth(1).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_standard_allows_is_accepted() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(accepted(good).as_deref(), Some(good));
        assert_eq!(accepted(&format!("01{}-more", &good[2..])).as_deref(), Some(good));
        for bad in [
            "",
            "00",
            &good.to_uppercase(),
            &good[..54],
            &format!("{good}-more"),
            &format!("ff{}", &good[2..]),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-é0f067aa0ba902b7-01",
        ] {
            assert_eq!(accepted(bad), None, "{bad}");
        }
        let made = drawn();
        assert_eq!(accepted(&made), Some(made.clone()));
        assert_eq!(trace_id(good), "4bf92f3577b34da6a3ce929d0e0e4736");
    }
}
