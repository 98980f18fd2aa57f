//! Splits and joins the chunks of a caller's stream into blocks of a given size.

use bytes::{Bytes, BytesMut};
use futures::stream::{Fuse, StreamExt as _};
use futures::{Stream, TryStream};

use crate::{ArtifactError, BoxError};

/// A reader of blocks from a stream of chunks.
pub struct Blocks<S> {
    source: Fuse<S>,
    /// Maximum bytes of the stream.
    limit: u64,
    /// Bytes received so far.
    taken: u64,
    /// The rest of the last chunk, for the next block.
    rest: Bytes,
}

impl<S, E> Blocks<S>
where
    S: Stream<Item = Result<Bytes, E>> + TryStream<Ok = Bytes, Error = E> + Unpin,
    E: Into<BoxError>,
{
    /// Reads `source`, which must not have more than `limit` bytes.
    pub fn new(source: S, limit: u64) -> Self {
        Self { source: source.fuse(), limit, taken: 0, rest: Bytes::new() }
    }

    /// The next block of `size` bytes. The last block may be shorter; `None` follows it. Chunks smaller than a block
    /// are copied: a reference to a chunk would keep its whole network buffer in memory. Fails with
    /// [`ArtifactError::TooLarge`] or [`ArtifactError::Interrupted`].
    pub async fn next(&mut self, size: usize) -> Result<Option<Bytes>, ArtifactError> {
        let mut block = BytesMut::new();
        loop {
            if block.is_empty() && self.rest.len() >= size {
                return Ok(Some(self.rest.split_to(size)));
            }
            let fits = self.rest.len().min(size - block.len());
            block.extend_from_slice(&self.rest.split_to(fits));
            if block.len() == size {
                return Ok(Some(block.freeze()));
            }
            match self.source.next().await {
                None => return Ok((!block.is_empty()).then(|| block.freeze())),
                Some(Err(error)) => return Err(ArtifactError::Interrupted(error.into())),
                Some(Ok(bytes)) => {
                    self.taken = self.taken.saturating_add(bytes.len() as u64);
                    if self.taken > self.limit {
                        return Err(ArtifactError::TooLarge { limit: self.limit });
                    }
                    self.rest = bytes;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(chunks: &[Vec<u8>], size: usize, limit: u64) -> Result<Vec<Bytes>, ArtifactError> {
        let source = futures::stream::iter(chunks.iter().cloned().map(|chunk| Ok::<_, BoxError>(Bytes::from(chunk))));
        let mut blocks = Blocks::new(source, limit);
        let mut all = Vec::new();
        futures::executor::block_on(async {
            while let Some(block) = blocks.next(size).await? {
                all.push(block);
            }
            assert_eq!(blocks.next(size).await?, None);
            Ok(all)
        })
    }

    proptest! {
        #[test]
        fn blocks_have_the_bytes_of_the_stream(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..30), 0..12), size in 1usize..40) {
            let whole = chunks.concat();
            let length = whole.len() as u64;
            let blocks = run(&chunks, size, length).unwrap();
            prop_assert_eq!(blocks.concat(), whole);
            if let Some((last, full)) = blocks.split_last() {
                prop_assert!(full.iter().all(|block| block.len() == size) && !last.is_empty() && last.len() <= size);
            }
            if length > 0 {
                let rejected = matches!(run(&chunks, size, length - 1), Err(ArtifactError::TooLarge { .. }));
                prop_assert!(rejected);
            }
        }
    }
}
