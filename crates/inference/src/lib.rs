//! Text encoders: the catalogue of models, the store of their files by SHA-256, downloads, and the queue that batches
//! texts for a model. Predictors ([`predict`]): ONNX models that map tensors to tensors.

mod bert;
mod catalogue;
mod encoder;
mod error;
mod hashing;
mod load;
pub mod predict;
mod pull;
mod queue;
mod store;
mod tokenizer;

pub use catalogue::{Catalogue, Engine, Hub, LibraryEntry, ModelEntry, ModelFile, Package, Pooling, Pullable};
pub use encoder::{Embedding, Encoder};
pub use error::InferenceError;
pub use load::{EncoderOptions, load_encoder};
pub use pull::{NoProgress, Progress, Pulled, Source, Sources};
pub use queue::{EncodeQueue, Lane};
pub use store::ModelStore;
