//! The fold of `ml.generation.changed.v1`: every generation and its state, and which one is active.

use std::collections::{BTreeMap, BTreeSet};

use carbon_core::{GenerationId, ModelRef, Position, Timestamp};
use carbon_schemas::events::{GenerationChanged, GenerationState};
use uuid::Uuid;

/// One generation, as its records say.
#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    pub id: GenerationId,
    pub read_model: String,
    /// The version of the fold.
    pub version: u32,
    pub model: Option<ModelRef>,
    pub state: GenerationState,
    /// When it came into its state.
    pub since: Timestamp,
    /// The position of the record that claimed it.
    pub claimed: Position,
    /// The position of its last activation.
    pub activated: Option<Position>,
    /// Rows and their digest, as counted when it was ready.
    pub rows: Option<i64>,
    pub digest: Option<String>,
    /// Its activations by event id: a repeat of one is none.
    activations: BTreeSet<Uuid>,
}

/// All generations. The first record of an id claims it; later records of the id change its state alone. Per read model
/// and fold version the last activation in the log decides which one is active.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Generations(BTreeMap<GenerationId, Generation>);

impl Generations {
    pub fn iter(&self) -> impl Iterator<Item = &Generation> {
        self.0.values()
    }

    pub fn get(&self, id: &GenerationId) -> Option<&Generation> {
        self.0.get(id)
    }

    /// The generations of a read model and a fold version that are not retired, by their last activation, the latest
    /// first; those that were never active come last, the first claimed first.
    pub fn live(&self, read_model: &str, version: u32) -> Vec<&Generation> {
        let own = |g: &&Generation| g.read_model == read_model && g.version == version;
        let mut live: Vec<_> = self.0.values().filter(own).filter(|g| g.state != GenerationState::Retired).collect();
        live.sort_by_key(|g| (std::cmp::Reverse(g.activated.as_ref().map(|at| at.offset)), g.claimed.offset));
        live
    }

    /// The generation of a fold version that answers reads.
    pub fn active(&self, read_model: &str, version: u32) -> Option<&Generation> {
        self.live(read_model, version).into_iter().next().filter(|g| g.activated.is_some())
    }

    /// The generation that was active before the active one: it follows the log, for a rollback.
    pub fn standby(&self, read_model: &str, version: u32) -> Option<&Generation> {
        self.live(read_model, version).into_iter().nth(1).filter(|g| g.activated.is_some())
    }

    /// Folds one record.
    pub(super) fn fold(&mut self, event: GenerationChanged, position: &Position, time: Timestamp) {
        let claim = Generation {
            id: event.generation.clone(),
            read_model: event.read_model,
            version: u32::try_from(event.version).unwrap_or_default(),
            model: event.model.and_then(|model| model.parse().ok()),
            state: GenerationState::Building,
            since: time,
            claimed: position.clone(),
            activated: None,
            rows: None,
            digest: None,
            activations: BTreeSet::new(),
        };
        let own = self.0.entry(event.generation).or_insert(claim);
        match (own.state, event.state) {
            (GenerationState::Retired, _) => return,
            (GenerationState::Building, GenerationState::Ready) => {
                (own.state, own.since) = (GenerationState::Ready, time);
                (own.rows, own.digest) = (event.rows, event.digest);
            }
            (_, GenerationState::Active) if own.activations.insert(event.event_id) => {
                (own.state, own.since) = (GenerationState::Active, time);
                own.activated = Some(position.clone());
            }
            (_, GenerationState::Retired) => (own.state, own.since) = (GenerationState::Retired, time),
            // Standby is implied, and a repeat says nothing new.
            _ => return,
        }
        let (read_model, version) = (own.read_model.clone(), own.version);
        self.imply_standby(&read_model, version, time);
    }

    /// Every generation that was active, but the last activated one, is on standby.
    fn imply_standby(&mut self, read_model: &str, version: u32, time: Timestamp) {
        let Some(active) = self.active(read_model, version).map(|g| g.id.clone()) else { return };
        for own in self.0.values_mut().filter(|g| g.read_model == read_model && g.version == version) {
            let state = match own.state {
                GenerationState::Active if own.id != active => GenerationState::Standby,
                GenerationState::Standby if own.id == active => GenerationState::Active,
                _ => continue,
            };
            (own.state, own.since) = (state, time);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use carbon_core::TopicName;

    use super::*;

    /// Folds `(id, version, state)` records; the event id is that of the request number, so that repeats can be made.
    fn fold(records: &[(&str, u32, GenerationState, u128)]) -> Generations {
        let topic = TopicName::parse("ml.generation.changed.v1").unwrap();
        let mut generations = Generations::default();
        for (offset, (id, version, state, request)) in records.iter().enumerate() {
            let event = GenerationChanged {
                event_id: Uuid::from_u128(*request),
                occurred_at: Timestamp(0),
                tenant_id: None,
                read_model: "registry".into(),
                generation: GenerationId::parse(id).unwrap(),
                version: *version as i32,
                model: None,
                state: *state,
                rows: Some(7),
                digest: None,
                positions: Vec::new(),
            };
            let position = Position::new(topic.clone(), 0, offset as u64);
            generations.fold(event, &position, Timestamp(offset as i64));
        }
        generations
    }

    fn states(generations: &Generations) -> Vec<(&str, GenerationState)> {
        generations.iter().map(|g| (g.id.as_str(), g.state)).collect()
    }

    use GenerationState::{Active, Building, Ready, Retired, Standby};

    #[test]
    fn given_records_then_states() {
        type Case<'c> =
            (&'c str, &'c [(&'c str, u32, GenerationState, u128)], &'c [(&'c str, GenerationState)], Option<&'c str>);
        let cases: &[Case] = &[
            ("nothing", &[], &[], None),
            // All that today's binary writes: active at once, without positions.
            ("legacy", &[("a", 1, Active, 1)], &[("a", Active)], Some("a")),
            ("claimed", &[("a", 1, Building, 1)], &[("a", Building)], None),
            ("two claims", &[("a", 1, Building, 1), ("a", 1, Building, 2)], &[("a", Building)], None),
            ("a life", &[("a", 1, Building, 1), ("a", 1, Ready, 2), ("a", 1, Active, 3)], &[("a", Active)], Some("a")),
            ("ready twice", &[("a", 1, Building, 1), ("a", 1, Ready, 2), ("a", 1, Ready, 3)], &[("a", Ready)], None),
            ("late ready", &[("a", 1, Active, 1), ("a", 1, Ready, 2)], &[("a", Active)], Some("a")),
            (
                "the last activation decides",
                &[("a", 1, Active, 1), ("b", 1, Active, 2)],
                &[("a", Standby), ("b", Active)],
                Some("b"),
            ),
            (
                "back to the first",
                &[("a", 1, Active, 1), ("b", 1, Active, 2), ("a", 1, Active, 3)],
                &[("a", Active), ("b", Standby)],
                Some("a"),
            ),
            (
                "a repeated activation is none",
                &[("a", 1, Active, 1), ("b", 1, Active, 2), ("a", 1, Active, 1)],
                &[("a", Standby), ("b", Active)],
                Some("b"),
            ),
            (
                "another version is another matter",
                &[("a", 1, Active, 1), ("b", 2, Active, 2)],
                &[("a", Active), ("b", Active)],
                Some("a"),
            ),
            (
                "the active one is retired",
                &[("a", 1, Active, 1), ("b", 1, Active, 2), ("b", 1, Retired, 3)],
                &[("a", Active), ("b", Retired)],
                Some("a"),
            ),
            (
                "retired is the end",
                &[("a", 1, Active, 1), ("a", 1, Retired, 2), ("a", 1, Active, 3), ("a", 1, Building, 4)],
                &[("a", Retired)],
                None,
            ),
        ];
        for (name, records, expected, active) in cases {
            let generations = fold(records);
            assert_eq!(states(&generations), *expected, "{name}");
            assert_eq!(generations.active("registry", 1).map(|g| g.id.as_str()), *active, "{name}");
            assert!(generations.active("catalog", 1).is_none(), "{name}");
        }
    }

    #[test]
    fn only_the_one_before_is_on_standby() {
        let generations = fold(&[("a", 1, Active, 1), ("b", 1, Active, 2), ("c", 1, Active, 3), ("d", 1, Building, 4)]);
        assert_eq!(generations.standby("registry", 1).unwrap().id.as_str(), "b");
        let live: Vec<_> = generations.live("registry", 1).iter().map(|g| g.id.as_str()).collect();
        assert_eq!(live, ["c", "b", "a", "d"]);
    }
}
