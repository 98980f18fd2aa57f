//! A loaded ONNX model.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};

use super::{Declared, Field, OnnxRuntime, Output, PredictError, Signature, Tensor, onnx};

/// How a model is loaded.
#[derive(Clone, Copy, Debug)]
pub struct ModelOptions {
    /// Number of sessions, each with its own copy of the weights: so many predictions run at once. At least 1.
    pub sessions: usize,
    /// Threads that one prediction uses.
    pub threads: usize,
}

impl Default for ModelOptions {
    fn default() -> Self {
        Self { sessions: 1, threads: 1 }
    }
}

/// A model that predicts. Shared by reference: a prediction takes one of its sessions and blocks while all are taken.
#[derive(Debug)]
pub struct Model {
    signature: Signature,
    sessions: Vec<Mutex<Session>>,
    next: AtomicUsize,
    bytes: usize,
}

impl Model {
    /// Loads an ONNX file. Blocks for as long as ONNX Runtime optimises the graph: run it off the async threads.
    pub fn load(
        runtime: &OnnxRuntime,
        file: &[u8],
        declared: &Declared,
        options: ModelOptions,
    ) -> Result<Self, PredictError> {
        let mut sessions = Vec::with_capacity(options.sessions.max(1));
        for _ in 0..options.sessions.max(1) {
            sessions.push(Mutex::new(open(runtime, file, options.threads.max(1))?));
        }
        let signature = {
            let first = lock(&sessions[0]);
            let inputs = first.inputs().iter().map(onnx::input_field).collect::<Result<Vec<Field>, _>>()?;
            let outputs = first.outputs().iter().map(onnx::output_field).collect::<Result<Vec<Field>, _>>()?;
            Signature::new(inputs, outputs, declared)?
        };
        let bytes = file.len() * sessions.len();
        Ok(Self { signature, sessions, next: AtomicUsize::new(0), bytes })
    }

    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// Estimated memory in bytes: the size of the file for each session.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Runs the model on a batch and returns every output.
    ///
    /// Tensors are checked against the signature first: names, element types, fixed dimensions, equal numbers of rows.
    pub fn predict(&self, inputs: Vec<Tensor>) -> Result<Vec<Output>, PredictError> {
        self.check(&inputs)?;
        let values = inputs.into_iter().map(onnx::to_value).collect::<Result<Vec<_>, _>>()?;
        let mut session = self.session();
        let outputs = session.run(values).map_err(onnx::failed)?;
        self.signature
            .outputs
            .iter()
            .map(|field| match outputs.get(&field.name) {
                Some(value) => onnx::from_value(&field.name, value),
                None => Err(PredictError::Run(format!("output {:?} is missing", field.name))),
            })
            .collect()
    }

    /// A free session, else the next one in turn.
    fn session(&self) -> MutexGuard<'_, Session> {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let count = self.sessions.len();
        for at in 0..count {
            if let Ok(session) = self.sessions[first.wrapping_add(at) % count].try_lock() {
                return session;
            }
        }
        lock(&self.sessions[first % count])
    }

    fn check(&self, inputs: &[Tensor]) -> Result<(), PredictError> {
        let fields = &self.signature.inputs;
        if let Some(extra) = inputs.iter().find(|tensor| fields.iter().all(|field| field.name != tensor.name())) {
            return Err(PredictError::input(None, Some(extra.name()), "the model has no such input"));
        }
        let mut rows = None;
        for field in fields {
            let mut named = inputs.iter().filter(|tensor| tensor.name() == field.name);
            let fault = |reason: String| PredictError::input(None, Some(&field.name), reason);
            let Some(tensor) = named.next() else { return Err(fault("the input is missing".into())) };
            if named.next().is_some() {
                return Err(fault("the input is given twice".into()));
            }
            if tensor.data_type() != field.data_type {
                return Err(fault(format!("expected {}, found {}", field.data_type, tensor.data_type())));
            }
            if !field.takes(tensor.shape()) {
                return Err(fault(format!("expected {field}, found the shape {:?}", tensor.shape())));
            }
            if tensor.data().is_empty() {
                return Err(fault("the tensor is empty".into()));
            }
            let first = *rows.get_or_insert(tensor.rows());
            if tensor.rows() != first {
                return Err(fault(format!("{} rows, but another input has {first}", tensor.rows())));
            }
        }
        Ok(())
    }
}

fn open(runtime: &OnnxRuntime, file: &[u8], threads: usize) -> Result<Session, PredictError> {
    // The builder's own error type holds the whole builder: only its text is kept.
    let rejected = |error: ort::Error<SessionBuilder>| PredictError::Load(error.to_string());
    let failed = |error: ort::Error| PredictError::Load(error.to_string());
    let builder = Session::builder(runtime.environment()).map_err(failed)?;
    let builder = builder.with_optimization_level(GraphOptimizationLevel::All).map_err(rejected)?;
    let builder = builder.with_intra_threads(threads).map_err(rejected)?;
    let mut builder = builder.with_inter_threads(1).map_err(rejected)?;
    builder.commit_from_memory(file).map_err(failed)
}

/// A session stays usable after a panic of another caller: ONNX Runtime keeps no state between runs.
fn lock(session: &Mutex<Session>) -> MutexGuard<'_, Session> {
    session.lock().unwrap_or_else(PoisonError::into_inner)
}
