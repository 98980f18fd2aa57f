//! The engines that implement [`HybridIndex`](crate::HybridIndex).

pub mod embedded;
