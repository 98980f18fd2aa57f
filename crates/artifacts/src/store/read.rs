//! Reads blobs, with and without verification.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::{GetResult, GetResultPayload};

use super::{ByteStream, blocking};
use crate::digest::Hasher;
use crate::{ArtifactError, Sha256Hex};

/// Bytes read from a file at a time: 256 KiB. `object_store` would read 8 KiB.
const BLOCK: u64 = 256 * 1024;

/// The bytes of a result. Files are read on blocking threads.
pub fn stream(result: GetResult) -> ByteStream {
    let range = result.range;
    match result.payload {
        GetResultPayload::Stream(bytes) => bytes.map_err(ArtifactError::from).boxed(),
        GetResultPayload::File(file, path) => {
            let begin = (file, path, range.start, range.end);
            futures::stream::try_unfold(begin, |(mut file, path, at, end)| async move {
                match at < end {
                    false => Ok(None),
                    true => {
                        blocking(move || {
                            let bytes = read(&mut file, at, end).map_err(ArtifactError::io(&path))?;
                            let at = at + bytes.len() as u64;
                            Ok(Some((bytes, (file, path, at, end))))
                        })
                        .await
                    }
                }
            })
            .boxed()
        }
    }
}

/// Reads at most [`BLOCK`] bytes from `at`, and not beyond `end`. Fails if the file ends before.
fn read(file: &mut File, at: u64, end: u64) -> std::io::Result<Bytes> {
    let wanted = (end - at).min(BLOCK);
    let mut bytes = Vec::with_capacity(wanted as usize);
    file.seek(SeekFrom::Start(at))?;
    match file.take(wanted).read_to_end(&mut bytes)? {
        0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(bytes.into()),
    }
}

/// The state of a verified stream.
struct Verification {
    bytes: ByteStream,
    hasher: Hasher,
    /// The last chunk that was read. It is passed on when another chunk follows or the hash is right.
    held: Option<Bytes>,
    ended: bool,
}

/// Passes the stream on, and fails with [`ArtifactError::Corrupt`] before the last chunk if the SHA-256 is not
/// `expected`.
pub fn verified(expected: Sha256Hex, bytes: ByteStream) -> ByteStream {
    let begin = Verification { bytes, hasher: Hasher::default(), held: None, ended: false };
    futures::stream::try_unfold(begin, move |mut state| async move {
        while !state.ended {
            match state.bytes.try_next().await? {
                Some(bytes) => {
                    state.hasher.update(&bytes);
                    if let Some(before) = state.held.replace(bytes) {
                        return Ok(Some((before, state)));
                    }
                }
                None => {
                    state.ended = true;
                    let found = std::mem::take(&mut state.hasher).finish();
                    if found != expected {
                        return Err(ArtifactError::Corrupt { expected, found });
                    }
                }
            }
        }
        Ok(state.held.take().map(|last| (last, state)))
    })
    .boxed()
}
