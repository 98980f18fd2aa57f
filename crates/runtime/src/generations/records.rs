//! The records of generations.

use carbon_core::{Clock, GenerationId, ModelRef, SystemClock, derived_id};
use carbon_schemas::events::{GenerationChanged, GenerationState};

use super::fold::{Generation, Generations};
use crate::consume::ProcessorError;

/// The record that claims the next number of a fold version and a model. Two processes that claim it at once agree: the
/// first record counts.
pub fn claim(
    generations: &Generations,
    read_model: &str,
    version: u32,
    model: Option<&ModelRef>,
) -> Result<GenerationChanged, ProcessorError> {
    let mut n = 1;
    let id = loop {
        let id = GenerationId::derive(read_model, version, model, n);
        let id = id.map_err(|error| ProcessorError::internal(error.to_string()))?;
        if generations.get(&id).is_none() {
            break id;
        }
        n += 1;
    };
    let mut event = changed(read_model, &id, version, GenerationState::Building);
    event.model = model.map(ToString::to_string);
    event.event_id = derived_id(&["generation", id.as_str(), "building"]);
    Ok(event)
}

/// A record that changes the state of a known generation.
pub fn change_of(generation: &Generation, state: GenerationState) -> GenerationChanged {
    let mut event = changed(&generation.read_model, &generation.id, generation.version, state);
    event.model = generation.model.as_ref().map(ToString::to_string);
    event
}

/// A record of a generation, with an id of its own.
pub fn changed(read_model: &str, id: &GenerationId, version: u32, state: GenerationState) -> GenerationChanged {
    GenerationChanged {
        event_id: uuid::Uuid::now_v7(),
        occurred_at: SystemClock.now(),
        tenant_id: None,
        read_model: read_model.to_owned(),
        generation: id.clone(),
        version: i32::try_from(version).unwrap_or(i32::MAX),
        model: None,
        state,
        rows: None,
        digest: None,
        positions: Vec::new(),
    }
}
