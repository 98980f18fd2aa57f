//! Law 3: the rows are the same for every interleaving of partitions and topics, and for every division into batches.

use std::collections::{BTreeMap, VecDeque};

use carbon_read_models::registry::RegistryRecord;
use carbon_schemas::events::{
    DatasetInput, ExperimentKind, LoggedModelChanged, LoggedModelKind, ModelKind, ModelOutput, ModelPromoted,
    ModelRegistered, RunKind, RunLogged, WebhookChanged, WebhookKind,
};
use proptest::prelude::*;

use crate::world::{
    Fact, LogWriter, Rows, aliased, created, hooked, logged, metric, model_created, model_of, of, pairs, position,
    registered as changed, registration, renamed, run_of, staged, started, version, webhook_of,
};

/// Events with few names and values, so that claims collide.
fn fact() -> impl Strategy<Value = Fact> {
    let name = || prop::sample::select(vec!["a", "b", "c"]);
    let experiment = (0i64..3, name(), name(), 0u8..6).prop_map(|(id, name, tag, what)| -> Fact {
        let event = match what {
            0 | 1 => created(id, name),
            2 => renamed(id, name),
            3 => {
                let mut event = of(id, ExperimentKind::Tagged);
                event.tags = pairs(&[(tag, name)]);
                if name == tag {
                    event.tags.clear();
                    event.removed_tags = vec![tag.into()];
                }
                event
            }
            4 => of(id, ExperimentKind::Deleted),
            _ => of(id, ExperimentKind::Restored),
        };
        event.into()
    });
    let value = || prop::sample::select(vec![-1.0, 0.0, 1.0, f64::NAN]);
    let metrics = prop::collection::vec((name(), value(), 0i64..3, 0i64..2), 0..4);
    let some = || prop::collection::vec((name(), name()), 0..3);
    let tags = prop::collection::vec((prop::sample::select(vec!["a", "b", "mlflow.runName"]), name()), 0..3);
    let run =
        (0u8..8, 0u8..12, some(), tags, metrics, name()).prop_map(|(run, what, params, tags, metrics, key)| -> Fact {
            let id = format!("run{run}");
            let event = match what {
                0..3 => RunLogged { tags: pairs(&tags), ..started(&id, i64::from(run % 3)) },
                3..8 => RunLogged {
                    params: pairs(&params),
                    tags: pairs(&tags),
                    metrics: metrics.into_iter().map(|(key, value, at, step)| metric(key, value, at, step)).collect(),
                    removed_tags: match (what, key) {
                        (3, "c") => vec!["mlflow.runName".into()],
                        (3, key) => vec![key.into()],
                        _ => Vec::new(),
                    },
                    ..logged(&id)
                },
                8 => RunLogged {
                    run_name: Some(key.into()),
                    end_time: Some(i64::from(run)),
                    ..run_of(&id, RunKind::Updated)
                },
                9 => RunLogged {
                    datasets: tags.iter().map(|(name, digest)| dataset(name, digest, key)).collect(),
                    input_models: vec![key.into()],
                    ..run_of(&id, RunKind::Inputs)
                },
                10 => RunLogged {
                    output_models: params
                        .iter()
                        .map(|(id, step)| ModelOutput {
                            model_id: (*id).into(),
                            step: step.len() as i64 + key.len() as i64,
                        })
                        .collect(),
                    ..run_of(&id, RunKind::Outputs)
                },
                _ => run_of(&id, if key == "a" { RunKind::Restored } else { RunKind::Deleted }),
            };
            event.into()
        });
    let some = || prop::collection::vec((name(), name()), 0..3);
    let model = (0u8..3, 0u8..7, some(), some(), name()).prop_map(|(model, what, params, tags, key)| -> Fact {
        let id = format!("m-{model}");
        let (params, tags) = (pairs(&params), pairs(&tags));
        let event = match what {
            0 | 1 => LoggedModelChanged { params, tags, ..model_created(&id, key) },
            2 => LoggedModelChanged { status: Some("READY".into()), ..model_of(&id, LoggedModelKind::Finalised) },
            3 => LoggedModelChanged { params, ..model_of(&id, LoggedModelKind::Params) },
            4 => LoggedModelChanged { tags, ..model_of(&id, LoggedModelKind::Tagged) },
            5 => LoggedModelChanged { removed_tags: vec![key.into()], ..model_of(&id, LoggedModelKind::Tagged) },
            _ => model_of(&id, LoggedModelKind::Deleted),
        };
        event.into()
    });
    prop_oneof![1 => experiment, 4 => run, 2 => model, 4 => registered(), 3 => promoted(), 1 => webhook()]
}

/// Events with few names and numbers, whose times do not follow log order.
fn registered() -> impl Strategy<Value = Fact> {
    let name = || prop::sample::select(vec!["a", "b"]);
    (name(), name(), 0u8..16, 1i64..4, 0u128..3, 0i64..9).prop_map(|(name, other, what, number, id, at)| -> Fact {
        let named = (id > 0).then(|| uuid::Uuid::from_u128(id));
        let of = |kind| ModelRegistered { registration_id: named, ..changed(at, name, kind) };
        let of_version = |kind| ModelRegistered { version: Some(number), version_id: named, ..of(kind) };
        match what {
            0..3 => registration(at, name, id),
            3 => ModelRegistered { new_name: Some(other.into()), ..of(ModelKind::Renamed) },
            4 => ModelRegistered { description: Some(other.into()), ..of(ModelKind::Described) },
            5 => ModelRegistered { tags: pairs(&[("k", other)]), ..of(ModelKind::Tagged) },
            6 => of(ModelKind::Deleted),
            7..13 => version(at, name, number, id),
            13 => ModelRegistered { tags: pairs(&[(other, name)]), ..of_version(ModelKind::VersionTagged) },
            14 => ModelRegistered { description: Some(other.into()), ..of_version(ModelKind::VersionDescribed) },
            _ => of_version(ModelKind::VersionDeleted),
        }
        .into()
    })
}

fn webhook() -> impl Strategy<Value = Fact> {
    (0u8..4, 0u128..3, 0i64..9).prop_map(|(what, id, at)| -> Fact {
        match what {
            0 | 1 => hooked(at, id, &["registered_model.created"]),
            2 => WebhookChanged { status: Some("DISABLED".into()), ..webhook_of(at, id, WebhookKind::Updated) },
            _ => webhook_of(at, id, WebhookKind::Deleted),
        }
        .into()
    })
}

fn promoted() -> impl Strategy<Value = Fact> {
    let name = prop::sample::select(vec!["a", "b"]);
    let stage = prop::sample::select(vec!["Production", "Staging", "None"]);
    (name, stage, 0u8..4, 1i64..4, 0u128..3, 0i64..9).prop_map(|(name, stage, what, number, id, at)| -> Fact {
        let named = (id > 0).then(|| uuid::Uuid::from_u128(id));
        let event = match what {
            0 => aliased(at, name, (number > 1).then_some(number), "champion"),
            1 => ModelPromoted { version_id: named, ..staged(at, name, number, stage) },
            _ => ModelPromoted { archive_existing: stage != "None", ..staged(at, name, number, stage) },
        };
        let registration_id = named.filter(|_| what == 3);
        ModelPromoted { registration_id, ..event }.into()
    })
}

fn dataset(name: &str, digest: &str, source: &str) -> DatasetInput {
    DatasetInput {
        name: name.into(),
        digest: digest.into(),
        source_type: "local".into(),
        source: source.into(),
        schema: None,
        profile: None,
        tags: Vec::new(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]
    /// Keeps the order within each partition and changes the order across partitions and topics.
    #[test]
    fn law_03_any_interleaving_and_any_batches_fold_alike(
        history in prop::collection::vec(fact(), 1..80),
        picks in prop::collection::vec((0usize..9, 1usize..12), 1..200),
    ) {
        let mut writer = LogWriter::default();
        let log: Vec<RegistryRecord> = history.into_iter().map(|fact| writer.write(fact)).collect();
        let mut partitions: BTreeMap<(String, u32), VecDeque<RegistryRecord>> = BTreeMap::new();
        for record in &log {
            let at = position(record);
            partitions.entry((at.topic.to_string(), at.partition)).or_default().push_back(record.clone());
        }
        let mut queues: Vec<_> = partitions.into_values().collect();
        let mut mixed = vec![Vec::new()];
        for (pick, size) in picks.iter().cycle() {
            if queues.iter().all(VecDeque::is_empty) {
                break;
            }
            let own = queues.len();
            let record = queues[pick % own].pop_front().or_else(|| queues.iter_mut().find_map(VecDeque::pop_front));
            let batch = mixed.last_mut().unwrap();
            batch.extend(record);
            if batch.len() >= *size {
                mixed.push(Vec::new());
            }
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (singly, at_once, otherwise) = runtime.block_on(async {
            let (singly, at_once, otherwise) = (Rows::new().await, Rows::new().await, Rows::new().await);
            for record in &log {
                singly.fold(std::slice::from_ref(record)).await;
            }
            at_once.fold(&log).await;
            for batch in &mixed {
                otherwise.fold(batch).await;
            }
            (singly.digest().await, at_once.digest().await, otherwise.digest().await)
        });
        prop_assert_eq!(&singly, &at_once);
        prop_assert_eq!(&singly, &otherwise);
    }
}
