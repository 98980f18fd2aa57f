//! The files that events name: blobs under their SHA-256 on a local folder or an S3 store, the paths
//! that MLflow gives them, and manifests with their digests. A blob is durable when [`ArtifactStore::put`]
//! returns, so that its event may follow (laws 1 and 14).

mod digest;
mod error;
mod listing;
mod manifest;
mod path;
mod range;
mod store;

pub use digest::Sha256Hex;
pub use error::{ArtifactError, BoxError};
pub use listing::{Listed, list};
pub use manifest::{Manifest, ManifestEntry};
pub use path::{ArtifactPath, climbs};
pub use range::{ByteRange, Unsatisfiable};
pub use store::{ArtifactStore, Blob, ByteStream, StoreOptions};
