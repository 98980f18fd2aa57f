//! Serialises events as JSON, with bytes as base64.

use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::ser::Formatter;

/// Writes byte arrays as base64 strings. The default, an array of numbers, is about 3 times as long.
struct Base64;

impl Formatter for Base64 {
    fn write_byte_array<W: ?Sized + io::Write>(&mut self, writer: &mut W, bytes: &[u8]) -> io::Result<()> {
        writer.write_all(b"\"")?;
        writer.write_all(STANDARD.encode(bytes).as_bytes())?;
        writer.write_all(b"\"")
    }
}

pub(super) fn to_json(value: &impl Serialize) -> Result<String, serde_json::Error> {
    let mut bytes = Vec::with_capacity(512);
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, Base64))?;
    // The serializer writes only UTF-8, so nothing is replaced.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
