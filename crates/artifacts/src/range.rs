//! HTTP byte ranges (RFC 9110, section 14).

use std::ops::Range;

/// The parser of the header `Range`.
pub struct ByteRange;

/// The range contains no byte of the artifact. The response is 416 with
/// [`content_range`](Unsatisfiable::content_range).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the range contains no byte of the artifact, which has {size} bytes")]
pub struct Unsatisfiable {
    /// Size of the artifact in bytes.
    pub size: u64,
}

impl Unsatisfiable {
    /// The value of `Content-Range` in a 416 response.
    pub fn content_range(self) -> String {
        format!("bytes */{}", self.size)
    }
}

impl ByteRange {
    /// Parses the header for an artifact of `size` bytes and returns the byte range, limited to the size. `None` means
    /// that the header is ignored and the whole artifact is sent: it has several ranges, another unit, or invalid
    /// syntax.
    pub fn parse(header: &str, size: u64) -> Result<Option<Range<u64>>, Unsatisfiable> {
        let Some(range) = one_range(header) else { return Ok(None) };
        match range {
            (None, Some(0)) => Err(Unsatisfiable { size }),
            // RFC 9110 calls it satisfiable, but a 206 response cannot describe an empty range.
            (None, Some(_)) if size == 0 => Ok(None),
            (None, Some(last)) => Ok(Some(size.saturating_sub(last)..size)),
            (Some(first), last) if last.is_none_or(|last| last >= first) => match first < size {
                true => Ok(Some(first..last.map_or(size, |last| last.saturating_add(1).min(size)))),
                false => Err(Unsatisfiable { size }),
            },
            _ => Ok(None),
        }
    }

    /// The value of `Content-Range` in a 206 response.
    pub fn content_range(range: &Range<u64>, size: u64) -> String {
        format!("bytes {}-{}/{size}", range.start, range.end.saturating_sub(1))
    }
}

/// The first and last position of the only range in the header. A suffix range (`-n`) has no first position.
fn one_range(header: &str) -> Option<(Option<u64>, Option<u64>)> {
    let (unit, set) = header.trim().split_once('=')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    let blank = |c| matches!(c, ' ' | '\t');
    // RFC 9110 allows empty list elements.
    let mut ranges = set.split(',').map(|range| range.trim_matches(blank)).filter(|range| !range.is_empty());
    let (range, None) = (ranges.next()?, ranges.next()) else { return None };
    let (first, last) = range.split_once('-')?;
    let range = (position(first)?, position(last)?);
    (range != (None, None)).then_some(range)
}

/// Parses a position. The outer `None` is a syntax error; the inner one is an empty position. A number above `u64::MAX`
/// becomes `u64::MAX`, which is past every end.
fn position(digits: &str) -> Option<Option<u64>> {
    match digits.bytes().all(|digit| digit.is_ascii_digit()) {
        false => None,
        true if digits.is_empty() => Some(None),
        true => Some(Some(digits.parse().unwrap_or(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_are_parsed_as_in_rfc_9110() {
        let unsatisfiable = Err(Unsatisfiable { size: 10 });
        let cases = [
            ("bytes=0-0", Ok(Some(0..1))),
            ("bytes=2-5", Ok(Some(2..6))),
            ("bytes=2-", Ok(Some(2..10))),
            ("bytes=2-99", Ok(Some(2..10))),
            ("bytes=9-9", Ok(Some(9..10))),
            ("bytes=-3", Ok(Some(7..10))),
            ("bytes=-99", Ok(Some(0..10))),
            ("Bytes=0-1", Ok(Some(0..2))),
            ("bytes= 0-1 , ,", Ok(Some(0..2))),
            ("bytes=0-18446744073709551615", Ok(Some(0..10))),
            ("bytes=0-99999999999999999999999", Ok(Some(0..10))),
            ("bytes=99999999999999999999999-", unsatisfiable.clone()),
            ("bytes=10-", unsatisfiable.clone()),
            ("bytes=10-20", unsatisfiable.clone()),
            ("bytes=-0", unsatisfiable.clone()),
            ("bytes=0-1,4-5", Ok(None)),
            ("lines=0-1", Ok(None)),
            ("bytes=5-2", Ok(None)),
            ("bytes=-", Ok(None)),
            ("bytes=", Ok(None)),
            ("bytes", Ok(None)),
            ("", Ok(None)),
            ("bytes=a-b", Ok(None)),
            ("bytes=+1-2", Ok(None)),
            ("bytes=1-2-3", Ok(None)),
            ("bytes=--1", Ok(None)),
            ("bytes=0 - 1", Ok(None)),
            ("bytes=٣-٤", Ok(None)),
        ];
        for (header, expected) in cases {
            assert_eq!(ByteRange::parse(header, 10), expected, "{header}");
        }
    }

    #[test]
    fn an_empty_artifact_has_no_range() {
        assert_eq!(ByteRange::parse("bytes=0-", 0), Err(Unsatisfiable { size: 0 }));
        assert_eq!(ByteRange::parse("bytes=-1", 0), Ok(None));
        assert_eq!(Unsatisfiable { size: 0 }.content_range(), "bytes */0");
        assert_eq!(ByteRange::content_range(&(7..10), 10), "bytes 7-9/10");
    }

    proptest! {
        #[test]
        fn a_range_is_inside_the_artifact(header in "bytes=[0-9]{0,21}-[0-9]{0,21}", size in any::<u64>()) {
            if let Ok(Some(range)) = ByteRange::parse(&header, size) {
                prop_assert!(range.start < range.end && range.end <= size);
            }
        }
    }
}
