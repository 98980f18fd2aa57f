//! Artifacts: the files that events name. Blobs are stored under their SHA-256 in a local folder or an S3 store. The
//! crate also has the paths of artifacts in MLflow, and manifests with their digests. A blob is durable when
//! [`ArtifactStore::put`] returns, so its event can be appended (laws 1 and 14).

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
