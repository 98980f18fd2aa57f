//! The encoding of headers in one column: for each header a name and a value, both with a length prefix (u32,
//! little-endian).

use crate::error::LogError;

/// Encodes headers.
pub(super) fn pack(headers: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(headers.iter().map(|(name, value)| name.len() + value.len() + 8).sum());
    for (name, value) in headers {
        for part in [name.as_bytes(), value] {
            packed.extend((part.len() as u32).to_le_bytes());
            packed.extend(part);
        }
    }
    packed
}

/// Decodes headers. Fails on truncated bytes, or a name that is not UTF-8.
pub(super) fn unpack(mut packed: &[u8]) -> Result<Vec<(String, Vec<u8>)>, LogError> {
    let mut headers = Vec::new();
    while !packed.is_empty() {
        let name = String::from_utf8(take(&mut packed)?.to_vec());
        let name = name.map_err(|_| LogError::Corrupt("the name of a header is not UTF-8".into()))?;
        headers.push((name, take(&mut packed)?.to_vec()));
    }
    Ok(headers)
}

/// Splits off one length-prefixed part.
fn take<'a>(packed: &mut &'a [u8]) -> Result<&'a [u8], LogError> {
    let truncated = || LogError::Corrupt("the headers of a record are truncated".into());
    let (length, rest) = packed.split_first_chunk::<4>().ok_or_else(truncated)?;
    let length = u32::from_le_bytes(*length) as usize;
    let part = rest.get(..length).ok_or_else(truncated)?;
    *packed = &rest[length..];
    Ok(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn any_headers_round_trip(headers: Vec<(String, Vec<u8>)>) {
            proptest::prop_assert_eq!(unpack(&pack(&headers)).unwrap_or_default(), headers);
        }

        #[test]
        fn any_bytes_are_decoded_or_rejected(bytes: Vec<u8>) {
            let _ = unpack(&bytes);
        }
    }
}
