//! The checks of a topology. They report all mistakes at once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use carbon_core::{Cleanup, TopicName};

use crate::file::{File, FileProcessor, FileTopic, GroupPer, ProcessorKind, ReadModelKind};

/// A mistake: the place in the file, and the message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {what}")]
pub struct Mistake {
    pub at: String,
    pub what: String,
}

struct Mistakes(Vec<Mistake>);

impl Mistakes {
    fn add(&mut self, at: impl Into<String>, what: impl Into<String>) {
        self.0.push(Mistake { at: at.into(), what: what.into() });
    }
}

pub(crate) fn check(file: &File) -> Vec<Mistake> {
    let mut mistakes = Mistakes(Vec::new());
    for (name, topic) in &file.topics {
        check_topic(name, topic, &mut mistakes);
    }
    for (name, processor) in &file.processors {
        check_processor(name, processor, file, &mut mistakes);
    }
    check_read_models(file, &mut mistakes);
    if let Some(cycle) = find_cycle(&file.processors) {
        mistakes.add("processors", format!("the processors form a cycle: {}", cycle.join(" -> ")));
    }
    mistakes.0
}

fn check_topic(name: &str, topic: &FileTopic, mistakes: &mut Mistakes) {
    let at = format!("topics.{name}");
    if let Err(error) = TopicName::parse(name) {
        mistakes.add(&at, error.to_string());
    }
    let fields = carbon_schemas::key_fields(name);
    if fields.is_empty() {
        mistakes
            .add(&at, format!("there is no schema of that name; known: {}", carbon_schemas::event_names().join(", ")));
    } else {
        for field in topic.key.iter().filter(|field| !fields.contains(field)) {
            mistakes.add(&at, format!("the key field {field} is not in the schema, which has {}", fields.join(", ")));
        }
    }
    if topic.key.is_empty() {
        mistakes.add(&at, "the key has no field");
    }
    if let Some(partition_key) = &topic.partition_key
        && !topic.key.starts_with(partition_key)
    {
        mistakes.add(&at, "the partition key is not a prefix of the key, so one key would be in several partitions");
    }
    if !(1..=4095).contains(&topic.partitions) {
        mistakes.add(&at, format!("{} partitions; 1 to 4095 are possible", topic.partitions));
    }
    match (topic.cleanup, topic.retention) {
        (Cleanup::Delete, None) => mistakes.add(&at, "cleanup: delete needs a retention"),
        (Cleanup::Keep | Cleanup::Compact, Some(_)) => mistakes.add(&at, "retention is for cleanup: delete only"),
        _ => {}
    }
    if topic.cleanup != Cleanup::Compact && (topic.min_compaction_lag.is_some() || topic.delete_retention.is_some()) {
        mistakes.add(&at, "min_compaction_lag and delete_retention are for cleanup: compact only");
    }
    if topic.delete_retention.is_some_and(|kept| kept < Duration::from_secs(7 * 86_400)) {
        mistakes.add(&at, "delete_retention must be at least 7d: a slower rebuild would miss erasures (law 6)");
    }
}

fn check_processor(name: &str, processor: &FileProcessor, file: &File, mistakes: &mut Mistakes) {
    let at = format!("processors.{name}");
    for topic in processor.consumes.iter().chain(&processor.produces) {
        if !file.topics.contains_key(topic) {
            mistakes.add(&at, format!("unknown topic {topic}"));
        }
    }
    if processor.consumes.is_empty() {
        mistakes.add(&at, "consumes nothing");
    }
    if processor.batch.records == 0 {
        mistakes.add(&at, "batch.records must be at least 1");
    }
    if let Some(read_model) = &processor.writes
        && !file.read_models.contains_key(read_model)
    {
        mistakes.add(&at, format!("it writes the unknown read model {read_model}"));
    }
    match processor.kind {
        ProcessorKind::Sink if processor.writes.is_none() => mistakes.add(&at, "a sink must write a read model"),
        ProcessorKind::Sink if processor.group != GroupPer::Generation => {
            mistakes.add(&at, "a sink must have group: generation");
        }
        ProcessorKind::Stage if processor.group == GroupPer::Processor => {
            mistakes.add(&at, "a stage must have group: model or group: generation");
        }
        ProcessorKind::Stage if processor.writes.is_some() => mistakes.add(&at, "a stage cannot write a read model"),
        ProcessorKind::Stage if processor.produces.len() != 1 => mistakes.add(&at, "a stage must produce one topic"),
        ProcessorKind::Stage => {
            let count = |topic: &String| file.topics.get(topic).map(|topic| topic.partitions);
            for (input, output) in processor.consumes.iter().zip(processor.produces.iter().cycle()) {
                if let (Some(from), Some(to)) = (count(input), count(output))
                    && from != to
                {
                    mistakes.add(
                        &at,
                        format!("{input} has {from} partitions and {output} has {to}, but an output must be in the partition of its input (law 5)"),
                    );
                }
            }
        }
        ProcessorKind::Effect if processor.writes.is_some() => {
            mistakes.add(&at, "an effect handler cannot write a read model")
        }
        ProcessorKind::Effect if processor.group != GroupPer::Processor => {
            mistakes
                .add(&at, "an effect handler must have group: processor, since another group would repeat the effects");
        }
        ProcessorKind::Sink | ProcessorKind::Effect => {}
    }
}

fn check_read_models(file: &File, mistakes: &mut Mistakes) {
    for (name, read_model) in &file.read_models {
        let at = format!("read_models.{name}");
        let owners: Vec<_> = file.processors.iter().filter(|(_, p)| p.writes.as_deref() == Some(name)).collect();
        match owners.as_slice() {
            [] => mistakes.add(&at, "no processor writes it"),
            [_] => {}
            many => {
                let names: Vec<_> = many.iter().map(|(name, _)| name.as_str()).collect();
                mistakes.add(&at, format!("{} processors write it: {}", many.len(), names.join(", ")));
            }
        }
        for topic in owners.iter().flat_map(|(_, processor)| &processor.consumes) {
            let Some(retention) = file.topics.get(topic).and_then(|topic| topic.retention) else { continue };
            if read_model.horizon.is_none_or(|horizon| horizon > retention) {
                let kept = humantime::format_duration(retention);
                mistakes.add(
                    &at,
                    format!("{topic} is kept for {kept} only, so a rebuild loses older records; set horizon: {kept} if that is intended"),
                );
            }
        }
        match (read_model.kind, &read_model.model) {
            (ReadModelKind::Index, None) => mistakes.add(&at, "an index names its model"),
            (ReadModelKind::Relational, Some(_)) => mistakes.add(&at, "only an index can have a model"),
            _ => {}
        }
    }
}

/// Finds a cycle of processors, where each produces a topic that the next consumes.
fn find_cycle(processors: &BTreeMap<String, FileProcessor>) -> Option<Vec<String>> {
    fn visit<'a>(
        name: &'a str,
        processors: &'a BTreeMap<String, FileProcessor>,
        path: &mut Vec<&'a str>,
        done: &mut BTreeSet<&'a str>,
    ) -> Option<Vec<String>> {
        if let Some(start) = path.iter().position(|seen| *seen == name) {
            return Some(path[start..].iter().chain([&name]).map(ToString::to_string).collect());
        }
        if !done.insert(name) {
            return None;
        }
        path.push(name);
        let produced = &processors.get(name)?.produces;
        for (next, _) in processors.iter().filter(|(_, p)| p.consumes.iter().any(|topic| produced.contains(topic))) {
            if let Some(cycle) = visit(next, processors, path, done) {
                return Some(cycle);
            }
        }
        path.pop();
        None
    }
    let mut done = BTreeSet::new();
    processors.keys().find_map(|name| visit(name, processors, &mut Vec::new(), &mut done))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::{Topology, TopologyError};

    const BUILTIN: &str = include_str!("../../../topology.yaml");

    fn mistakes(text: &str) -> Vec<String> {
        match Topology::parse(text) {
            Err(TopologyError::Mistakes(list)) => list.iter().map(ToString::to_string).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_projects_own_topology_is_sound() {
        let topology = Topology::builtin().unwrap();
        assert_eq!(topology.owner("search").unwrap().name, "indexer");
    }

    #[test]
    fn all_mistakes_come_at_once() {
        let broken = BUILTIN
            .replace("key: [read_model]", "key: [read_modle]")
            .replace("consumes: [ml.deadletter.v1]", "consumes: [ml.deadletters.v1]")
            .replace("writes: catalog", "writes: catalogue");
        let found = mistakes(&broken).join("\n");
        for part in ["read_modle", "ml.deadletters.v1", "catalogue", "read_models.catalog: no processor writes it"] {
            assert!(found.contains(part), "{part} not in:\n{found}");
        }
    }

    #[test]
    fn a_stage_needs_equal_partition_counts() {
        let broken = BUILTIN.replacen("partitions: 6", "partitions: 5", 1);
        assert!(mistakes(&broken).iter().any(|text| text.contains("law 5")), "{:?}", mistakes(&broken));
    }

    #[test]
    fn a_retention_that_loses_records_of_a_read_model_is_rejected() {
        let broken = BUILTIN.replacen("cleanup: compact\n    # History window: compaction keeps all versions of an entity that are younger.\n    min_compaction_lag: 30d", "cleanup: delete\n    retention: 7d", 1);
        assert!(mistakes(&broken).iter().any(|text| text.contains("a rebuild loses older records")));
    }

    #[test]
    fn an_effect_has_one_group_and_writes_nothing() {
        for (from, to) in
            [("group: processor", "group: generation"), ("group: processor", "group: processor\n    writes: registry")]
        {
            let found = mistakes(&BUILTIN.replace(from, to)).join("\n");
            assert!(found.contains("processors.webhooks: an effect handler"), "{found}");
        }
    }

    #[test]
    fn circles_are_named() {
        let broken = BUILTIN.replace(
            "produces: [search.index.updated.v1]",
            "produces: [search.index.updated.v1, ml.entity.changed.v1]",
        );
        assert!(
            mistakes(&broken).iter().any(|text| text.contains("embedder -> indexer -> embedder")),
            "{:?}",
            mistakes(&broken)
        );
    }

    #[test]
    fn unknown_fields_and_bad_yaml_are_syntax_errors() {
        for text in ["", "topics: 3", &format!("{BUILTIN}\nextra: 1"), "a: [", &BUILTIN.replace("30d", "30x")] {
            assert!(matches!(Topology::parse(text), Err(TopologyError::Syntax(_))), "{text:.40}");
        }
    }
}
