//! Headers as one column: for each, a length-prefixed name and a length-prefixed value.

use crate::error::LogError;

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

pub(super) fn unpack(mut packed: &[u8]) -> Result<Vec<(String, Vec<u8>)>, LogError> {
    let mut headers = Vec::new();
    while !packed.is_empty() {
        let name = String::from_utf8(take(&mut packed)?.to_vec());
        let name = name.map_err(|_| LogError::Corrupt("a header's name is not UTF-8".into()))?;
        headers.push((name, take(&mut packed)?.to_vec()));
    }
    Ok(headers)
}

fn take<'a>(packed: &mut &'a [u8]) -> Result<&'a [u8], LogError> {
    let cut = || LogError::Corrupt("a record's headers are cut off".into());
    let (length, rest) = packed.split_first_chunk::<4>().ok_or_else(cut)?;
    let length = u32::from_le_bytes(*length) as usize;
    let part = rest.get(..length).ok_or_else(cut)?;
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
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = unpack(&bytes);
        }
    }
}
