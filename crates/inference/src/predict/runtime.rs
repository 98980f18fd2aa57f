//! The ONNX Runtime library, loaded once per process.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ort::environment::Environment;
use ort::logging::LogLevel;

use super::PredictError;
use crate::store::blocking;
use crate::{Catalogue, ModelStore};

/// Handle to ONNX Runtime. Clones share the one environment that a process may have.
#[derive(Clone)]
pub struct OnnxRuntime {
    environment: Environment,
    library: Arc<Path>,
}

/// The library's name in the catalogue.
const LIBRARY: &str = "onnxruntime";
/// Names a library that is loaded instead of the catalogue's.
const LIBRARY_VARIABLE: &str = "ORT_DYLIB_PATH";

/// The runtime of this process, once a call has loaded it. The library allows one environment per process.
static LOADED: Mutex<Option<OnnxRuntime>> = Mutex::new(None);

impl OnnxRuntime {
    /// Loads the library that `ORT_DYLIB_PATH` names, else the one of the catalogue, whose hash is verified first.
    pub async fn open(store: &ModelStore) -> Result<Self, PredictError> {
        let library = match std::env::var_os(LIBRARY_VARIABLE) {
            Some(path) if !path.is_empty() => PathBuf::from(path),
            _ => {
                let unsupported = || PredictError::Runtime("the catalogue has no library for this platform".into());
                let entry = Catalogue::builtin().library(LIBRARY).ok_or_else(unsupported)?;
                store.verify(entry).await.map_err(|error| PredictError::Runtime(error.to_string()))?;
                store.path(&entry.file)
            }
        };
        blocking(move || Ok(Self::load(&library))).await.map_err(|error| PredictError::Runtime(error.to_string()))?
    }

    /// Loads the shared library, or returns the one that an earlier call has loaded, whatever its path.
    ///
    /// Code of the library runs in this process: the caller has checked its hash, or the operator has named it.
    pub fn load(library: &Path) -> Result<Self, PredictError> {
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = &*loaded {
            if *runtime.library != *library {
                tracing::warn!(loaded = %runtime.library.display(), asked = %library.display(), "onnxruntime is loaded already; the second path is ignored");
            }
            return Ok(runtime.clone());
        }
        // A relative path would be looked for beside the program first.
        let library: PathBuf =
            std::path::absolute(library).map_err(|error| PredictError::Runtime(error.to_string()))?;
        let builder = ort::init_from(&library).map_err(|error| PredictError::Runtime(error.to_string()))?;
        let environment = builder
            .with_name("carbon-ml")
            .with_telemetry(false)
            .with_logger(Arc::new(log))
            .build()
            .map_err(|error| PredictError::Runtime(error.to_string()))?;
        environment.set_log_level(LogLevel::Warning);
        let runtime = Self { environment, library: library.into() };
        *loaded = Some(runtime.clone());
        Ok(runtime)
    }

    pub(super) fn environment(&self) -> &Environment {
        &self.environment
    }
}

impl std::fmt::Debug for OnnxRuntime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OnnxRuntime").field("library", &self.library).finish_non_exhaustive()
    }
}

fn log(level: LogLevel, category: &str, id: &str, place: &str, message: &str) {
    match level {
        LogLevel::Error | LogLevel::Fatal => tracing::error!(category, id, place, message, "onnxruntime"),
        LogLevel::Warning => tracing::warn!(category, id, place, message, "onnxruntime"),
        LogLevel::Info | LogLevel::Verbose => tracing::debug!(category, id, place, message, "onnxruntime"),
    }
}
