//! What `/ready` and `/health` say: the read models, the processors and the tasks of a process, each by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use carbon_runtime::consume::{ProcessorView, State};
use carbon_runtime::generations::{KeeperStatus, Keepers};
use carbon_runtime::{Check, Health, TaskState};

use super::assembly::Assembly;
use super::roles::{Role, Roles};

/// Adds the probes of a process.
pub fn add(health: &Arc<Health>, assembly: &Assembly, keepers: &Keepers, roles: &Roles) {
    let (keepers, processors, supervisor) = (keepers.clone(), assembly.processors.clone(), assembly.supervisor.clone());
    let roles = roles.clone();
    health.probe(move || {
        let mut checks = BTreeMap::new();
        for (name, keeper) in keepers.iter() {
            checks.insert(name.clone(), read_model(name, &keeper.now(), &roles));
        }
        for view in processors.all() {
            let (name, check) = processor(&view, &roles);
            checks.insert(name, check);
        }
        for (name, task) in supervisor.tasks() {
            let error = match task.state {
                TaskState::Retrying { error } => format!("retrying ({error})"),
                TaskState::Halted { why } => format!("halted ({why})"),
                TaskState::Running | TaskState::Ended => continue,
            };
            checks.insert(name, Check::failing(error).optional());
        }
        checks
    });
}

/// A read model that nothing is served from makes its routes unavailable. One whose fold stands is still read; the
/// registry's writes are not answered then.
fn read_model(name: &str, status: &KeeperStatus, roles: &Roles) -> Check {
    let Some(served) = &status.served else {
        let waits = status.filling.as_ref().map(|filling| format!("filling: {filling}"));
        return Check::failing(status.error.clone().or(waits).unwrap_or_else(|| "starting".into()));
    };
    if let Some(Err(error)) = status.check.as_ref().map(|check| check()) {
        return Check::failing(error);
    }
    if !status.caught_up {
        let filling = status.filling.as_ref().map(ToString::to_string).unwrap_or_default();
        return Check::failing(format!("{served} catches up: {filling}"));
    }
    let fold = status.view.as_ref().map_or(State::Starting, ProcessorView::state);
    if fold.moves() {
        return Check::ready(format!("serving {served}"));
    }
    let check = Check::failing(format!("serving {served}, whose fold is {fold}"));
    let writes = name == "registry" && roles.has(Role::TrackingApi);
    if writes || !has_api(roles) { check } else { check.optional() }
}

fn has_api(roles: &Roles) -> bool {
    roles.has(Role::QueryApi) || roles.has(Role::TrackingApi)
}

/// APIs can answer without a processor; a process that is nothing but processors cannot do its work.
fn processor(view: &ProcessorView, roles: &Roles) -> (String, Check) {
    let name = match &view.generation {
        Some(generation) => format!("{} of {generation}", view.name),
        None => view.name.clone(),
    };
    let state = view.state();
    let check = match state.moves() {
        true => Check::ready(state.to_string()),
        false => Check::failing(state.to_string()),
    };
    (name, if has_api(roles) { check.optional() } else { check })
}
