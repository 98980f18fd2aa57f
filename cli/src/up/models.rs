//! The encoders of a process: each model is loaded once, when a generation or an embedder first needs it.

use std::collections::BTreeMap;
use std::sync::Arc;

use carbon_core::ModelRef;
use carbon_inference::{
    Catalogue, EncodeQueue, EncoderOptions, InferenceError, ModelEntry, ModelStore, Progress, load_encoder,
};
use carbon_runtime::consume::ProcessorError;
use carbon_runtime::{Check, Health};
use tokio::sync::Mutex;

#[derive(Clone)]
pub struct Models {
    store: ModelStore,
    /// Shows the progress of a pull of weights; `None`: missing weights are an error.
    pull: Option<Arc<dyn Progress>>,
    health: Arc<Health>,
    loaded: Arc<Mutex<BTreeMap<ModelRef, Arc<EncodeQueue>>>>,
}

impl Models {
    pub fn new(store: ModelStore, pull: Option<Arc<dyn Progress>>, health: Arc<Health>) -> Self {
        Self { store, pull, health, loaded: Arc::default() }
    }

    /// The entry of a model in the catalogue.
    pub fn entry(model: &ModelRef) -> Result<&'static ModelEntry, ProcessorError> {
        Catalogue::builtin().find(&model.to_string()).map_err(|error| ProcessorError::of(&error))
    }

    /// The encoder of a model; loaded, and its weights pulled, if need be.
    pub async fn encoder(&self, model: &ModelRef) -> Result<Arc<EncodeQueue>, ProcessorError> {
        let entry = Self::entry(model)?;
        let mut loaded = self.loaded.lock().await;
        if let Some(encoder) = loaded.get(model) {
            return Ok(encoder.clone());
        }
        let part = format!("model {model}");
        match self.load(entry, &part).await {
            Ok(encoder) => {
                self.health.set(&part, Check::ready("loaded"));
                let labels = [("model", model.name().to_owned()), ("version", model.version().to_owned())];
                metrics::gauge!("model_version_loaded", &labels).set(1.0);
                loaded.insert(model.clone(), encoder.clone());
                Ok(encoder)
            }
            Err(error) => {
                // Optional: a generation that needs the model reports the error itself.
                self.health.set(&part, Check::failing(error.to_string()).optional());
                Err(ProcessorError::of(&error))
            }
        }
    }

    async fn load(&self, entry: &ModelEntry, part: &str) -> Result<Arc<EncodeQueue>, InferenceError> {
        if let (false, Some(progress)) = (self.store.missing(entry).is_empty(), &self.pull) {
            self.health.set(part, Check::failing("pulling its weights"));
            self.store.pull(entry, &**progress).await?;
        }
        self.health.set(part, Check::failing("loading"));
        load_encoder(entry, &self.store, EncoderOptions::default()).await
    }
}
