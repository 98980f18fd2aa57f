//! What the log holds already: the derived ids in it, and who has which experiment and which registered model. Those are
//! few, in topics of one partition, and claimed in log order (law 9): this is that rule, and no more of the registry's fold.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use carbon_core::{Positions, TenantId, TopicPartition};
use carbon_log::{Delivery, EventLog, LogError, Record};
use carbon_schemas::events::{
    ArtifactChanged, ExperimentChanged, ExperimentKind, LoggedModelChanged, ModelKind, ModelPromoted, ModelRegistered,
    RunLogged,
};
use carbon_schemas::{DecodeError, Decoded, Decoder, Event};
use carbon_topology::Topology;
use uuid::Uuid;

use crate::error::CliError;

/// An experiment of the tenant, by the record that claimed its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Experiment {
    pub created_by: Uuid,
    pub name: String,
}

/// Experiments by id; deleted ones keep their names.
#[derive(Debug, Default)]
pub struct Experiments(pub BTreeMap<i64, Experiment>);

impl Experiments {
    pub fn named(&self, name: &str) -> Option<i64> {
        self.0.iter().find(|(_, known)| known.name == name).map(|(id, _)| *id)
    }

    pub fn fold(&mut self, event: &ExperimentChanged) {
        let (Ok(id), Some(name)) = (event.number(), &event.name) else { return };
        let free = self.named(name).is_none_or(|other| other == id && event.kind == ExperimentKind::Renamed);
        match event.kind {
            ExperimentKind::Created if free && !self.0.contains_key(&id) => {
                self.0.insert(id, Experiment { created_by: event.event_id, name: name.clone() });
            }
            ExperimentKind::Renamed if free => {
                if let Some(known) = self.0.get_mut(&id) {
                    known.name.clone_from(name);
                }
            }
            _ => {}
        }
    }
}

/// Registered models.
#[derive(Debug, Default)]
pub struct Models {
    /// Every registration that there was, with its name while it is there.
    pub registrations: HashMap<Uuid, Option<String>>,
    /// Who claimed a version's number.
    pub versions: HashMap<(Uuid, i64), Uuid>,
}

impl Models {
    pub fn named(&self, name: &str) -> Option<Uuid> {
        self.registrations.iter().find(|(_, own)| own.as_deref() == Some(name)).map(|(id, _)| *id)
    }

    pub fn fold(&mut self, event: &ModelRegistered) {
        if event.kind == ModelKind::Created {
            let id = event.registration_id.unwrap_or_default();
            if self.named(&event.model_name).is_none() && !self.registrations.contains_key(&id) {
                self.registrations.insert(id, Some(event.model_name.clone()));
            }
            return;
        }
        let id = match event.registration_id {
            Some(id) => Some(id).filter(|id| self.registrations.get(id).is_some_and(Option::is_some)),
            None => self.named(&event.model_name),
        };
        let Some(id) = id else { return };
        match (event.kind, &event.new_name, event.version) {
            (ModelKind::Renamed, Some(name), _) if self.named(name).is_none_or(|other| other == id) => {
                self.registrations.insert(id, Some(name.clone()));
            }
            (ModelKind::Deleted, ..) => {
                self.registrations.insert(id, None);
            }
            (ModelKind::VersionCreated, _, Some(version)) => {
                self.versions.entry((id, version)).or_insert(event.version_id.unwrap_or_default());
            }
            _ => {}
        }
    }
}

#[derive(Debug, Default)]
pub struct Claims {
    pub experiments: Experiments,
    pub models: Models,
}

/// Reads the topics of the registry to their ends.
pub struct Reader {
    log: Arc<dyn EventLog>,
    topology: Arc<Topology>,
    tenant: TenantId,
}

impl Reader {
    pub fn new(log: Arc<dyn EventLog>, topology: Arc<Topology>, tenant: TenantId) -> Self {
        Self { log, topology, tenant }
    }

    /// The derived ids of all events, and whether some are of files.
    pub async fn ids(&self) -> Result<(HashSet<Uuid>, bool), CliError> {
        let (mut ids, mut files) = (HashSet::new(), false);
        for topic in [
            ExperimentChanged::NAME,
            RunLogged::NAME,
            LoggedModelChanged::NAME,
            ArtifactChanged::NAME,
            ModelRegistered::NAME,
            ModelPromoted::NAME,
        ] {
            let before = ids.len();
            self.each(topic, |record| ids.extend(derived(&record))).await?;
            files |= topic == ArtifactChanged::NAME && ids.len() > before;
        }
        Ok((ids, files))
    }

    pub async fn claims(&self) -> Result<Claims, CliError> {
        let mut claims = Claims::default();
        for event in self.events::<ExperimentChanged>().await? {
            claims.experiments.fold(&event);
        }
        for event in self.events::<ModelRegistered>().await? {
            claims.models.fold(&event);
        }
        Ok(claims)
    }

    /// The tenant's events of a topic, in log order; poison folds to nothing.
    async fn events<E: Event>(&self) -> Result<Vec<E>, CliError> {
        let topic = self.topology.topics.get(E::NAME);
        let topic = topic.ok_or_else(|| CliError::Failed(format!("the topology has no topic {}", E::NAME)))?;
        let mut decoder = Decoder::<E>::new(topic.spec.partitions, topic.spec.partitioner);
        let mut records = Vec::new();
        self.each(E::NAME, |record| records.push(record)).await?;
        let mut events = Vec::new();
        for record in records {
            match self.decoded(&mut decoder, &record).await? {
                Decoded::Event { event, .. } if event.tenant() == Some(&self.tenant) => events.push(event),
                _ => {}
            }
        }
        Ok(events)
    }

    async fn decoded<E: Event>(&self, decoder: &mut Decoder<E>, record: &Record) -> Result<Decoded<E>, CliError> {
        loop {
            match decoder.decode(&record.raw()) {
                Ok(decoded) => return Ok(decoded),
                Err(DecodeError::NeedSchema(id)) => {
                    let json = self.log.schema(id).await.map_err(failed)?;
                    decoder.learn(id, json.as_deref());
                }
                Err(error) => return Err(CliError::Failed(error.to_string())),
            }
        }
    }

    async fn each(&self, topic: &str, mut each: impl FnMut(Record)) -> Result<(), CliError> {
        let known = self.topology.topics.get(topic);
        let spec = &known.ok_or_else(|| CliError::Failed(format!("the topology has no topic {topic}")))?.spec;
        let partitions = (0..spec.partitions).map(|partition| TopicPartition::new(spec.name.clone(), partition));
        let mut open: HashSet<TopicPartition> = partitions.collect();
        let from: Positions = open.iter().map(|at| (at.clone(), 0)).collect();
        let mut stream = self.log.follow(&from).await.map_err(failed)?;
        while !open.is_empty() {
            match stream.next().await {
                Some(Ok(Delivery::Records(records))) => records.into_iter().for_each(&mut each),
                Some(Ok(Delivery::Ended { at, .. })) => drop(open.remove(&at)),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(failed(error)),
                None => return Err(CliError::Failed(format!("the log ended while {topic} was read"))),
            }
        }
        Ok(())
    }
}

fn failed(error: LogError) -> CliError {
    CliError::Failed(error.to_string())
}

/// Who draws an id draws another version of it: only derived ones can be met again.
fn derived(record: &Record) -> Option<Uuid> {
    let (_, value) = record.headers.iter().find(|(name, _)| name == "event_id")?;
    let id = Uuid::try_parse_ascii(value).ok()?;
    (id.get_version_num() == 5).then_some(id)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use carbon_core::Timestamp;

    use super::*;

    fn experiment(kind: ExperimentKind, id: i64, name: &str) -> ExperimentChanged {
        let tenant = TenantId::default_tenant();
        ExperimentChanged {
            name: Some(name.into()),
            ..ExperimentChanged::of(Uuid::new_v4(), Timestamp(0), &tenant, id, kind)
        }
    }

    #[test]
    fn law_09_the_first_claim_of_an_experiment_wins() {
        let mut known = Experiments::default();
        let first = experiment(ExperimentKind::Created, 1, "a");
        known.fold(&first);
        known.fold(&experiment(ExperimentKind::Created, 1, "b"));
        known.fold(&experiment(ExperimentKind::Created, 2, "a"));
        assert_eq!((known.0.len(), known.0[&1].created_by), (1, first.event_id));
        known.fold(&experiment(ExperimentKind::Created, 2, "b"));
        known.fold(&experiment(ExperimentKind::Renamed, 2, "a"));
        assert_eq!(known.0[&2].name, "b");
        known.fold(&experiment(ExperimentKind::Renamed, 1, "c"));
        known.fold(&experiment(ExperimentKind::Created, 3, "a"));
        assert_eq!((known.named("a"), known.named("c")), (Some(3), Some(1)));
    }

    #[test]
    fn law_09_a_name_is_free_once_its_model_is_deleted_and_a_number_never() {
        let tenant = TenantId::default_tenant();
        let (one, two) = (Uuid::new_v4(), Uuid::new_v4());
        let of = |kind, id: Uuid| ModelRegistered {
            registration_id: Some(id),
            ..ModelRegistered::of(Uuid::new_v4(), Timestamp(0), &tenant, "m", kind)
        };
        let version = |id: Uuid, by: Uuid| ModelRegistered {
            version: Some(1),
            version_id: Some(by),
            ..of(ModelKind::VersionCreated, id)
        };
        let mut known = Models::default();
        known.fold(&of(ModelKind::Created, one));
        known.fold(&of(ModelKind::Created, two));
        assert_eq!(known.named("m"), Some(one));
        known.fold(&version(one, one));
        known.fold(&version(one, two));
        known.fold(&version(two, two));
        assert_eq!(known.versions, HashMap::from([((one, 1), one)]));
        known.fold(&of(ModelKind::Deleted, one));
        known.fold(&of(ModelKind::Created, one));
        assert_eq!(known.named("m"), None);
        known.fold(&of(ModelKind::Created, two));
        assert_eq!(known.named("m"), Some(two));
    }
}
