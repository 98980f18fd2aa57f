//! A caller's stream, gathered into blocks of the writer's size.

use bytes::{Bytes, BytesMut};
use futures::stream::{Fuse, StreamExt as _};
use futures::{Stream, TryStream};

use crate::{ArtifactError, BoxError};

pub struct Blocks<S> {
    source: Fuse<S>,
    limit: u64,
    taken: u64,
    /// What the last chunk had beyond its block.
    rest: Bytes,
}

impl<S, E> Blocks<S>
where
    S: Stream<Item = Result<Bytes, E>> + TryStream<Ok = Bytes, Error = E> + Unpin,
    E: Into<BoxError>,
{
    pub fn new(source: S, limit: u64) -> Self {
        Self { source: source.fuse(), limit, taken: 0, rest: Bytes::new() }
    }

    /// The next `size` bytes; less at the end alone, and nothing after it. Small chunks are copied together: holding many of
    /// them would hold the buffers that they were cut from.
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
        fn blocks_hold_the_stream(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..30), 0..12), size in 1usize..40) {
            let whole = chunks.concat();
            let length = whole.len() as u64;
            let blocks = run(&chunks, size, length).unwrap();
            prop_assert_eq!(blocks.concat(), whole);
            if let Some((last, full)) = blocks.split_last() {
                prop_assert!(full.iter().all(|block| block.len() == size) && !last.is_empty() && last.len() <= size);
            }
            if length > 0 {
                let refused = matches!(run(&chunks, size, length - 1), Err(ArtifactError::TooLarge { .. }));
                prop_assert!(refused);
            }
        }
    }
}
