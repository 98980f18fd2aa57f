//! The W3C trace context: parses and generates `traceparent` headers.

use uuid::Uuid;

/// Returns `text` as a `traceparent` of version 00, or `None` if it is not valid.
pub(crate) fn parse(text: &str) -> Option<String> {
    let mut parts = text.split('-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let not_zero = |part: &str| part.bytes().any(|b| b != b'0');
    let well_formed = hex(version, 2) && hex(trace, 32) && hex(parent, 16) && hex(flags, 2);
    // Version 00 has exactly 4 parts. Later versions can have more, which are ignored.
    let length = version != "ff" && (version != "00" || parts.next().is_none());
    (well_formed && length && not_zero(trace) && not_zero(parent)).then(|| format!("00-{trace}-{parent}-{flags}"))
}

/// Returns a `traceparent` with a random trace id, not sampled.
pub(crate) fn generate() -> String {
    let (trace, parent) = (Uuid::new_v4().simple().to_string(), Uuid::new_v4().simple().to_string());
    format!("00-{trace}-{}-00", &parent[..16])
}

/// Returns the trace id of a valid `traceparent`.
pub(crate) fn trace_id(traceparent: &str) -> &str {
    traceparent.split('-').nth(1).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_valid_traceparents_are_parse() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(parse(good).as_deref(), Some(good));
        assert_eq!(parse(&format!("01{}-more", &good[2..])).as_deref(), Some(good));
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
            assert_eq!(parse(bad), None, "{bad}");
        }
        let generated = generate();
        assert_eq!(parse(&generated), Some(generated.clone()));
        assert_eq!(trace_id(good), "4bf92f3577b34da6a3ce929d0e0e4736");
    }
}
