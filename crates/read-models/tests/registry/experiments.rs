//! Experiments: claims of names and ids, and changes.

use carbon_core::Timestamp;
use carbon_read_models::registry::ConflictCode::{AlreadyExists, DoesNotExist, IdTaken, Refused};
use carbon_read_models::registry::filter::{Target, parse_filter, parse_order_by};
use carbon_read_models::registry::queries::{
    SearchExperiments, View, experiment, experiment_by_name, next_experiment_id, search_experiments,
};
use carbon_read_models::registry::{Conflict, verdict};
use carbon_schemas::events::{ExperimentChanged, ExperimentKind};

use crate::world::{World, created, of, pairs, position, renamed, scope};

const ONE_TAKEN: &str = "Experiment(name=one) already exists.";
const INACTIVE: &str = "The experiment 1 must be in the 'active' state. Current state is deleted.";

#[tokio::test]
async fn a_created_experiment_has_the_fields_of_its_event() {
    let mut world = World::new().await;
    let event = ExperimentChanged {
        tags: pairs(&[("b", "2"), ("a", "1"), ("b", "3")]),
        occurred_at: Timestamp(77),
        ..created(7, "seven ünï")
    };
    world.takes(event).await;
    let found = world.experiment(7).await;
    assert_eq!((found.id, found.name.as_str(), found.deleted), (7, "seven ünï", false));
    assert_eq!(found.artifact_location, "mlflow-artifacts:/7");
    assert_eq!((found.created_at, found.updated_at), (Timestamp(77), Timestamp(77)));
    // The last tag of a key wins.
    assert_eq!(found.tags, pairs(&[("a", "1"), ("b", "3")]));
    let by_name = experiment_by_name(world.namespace(), &scope("acme"), "seven ünï").await.unwrap();
    assert_eq!(by_name, Some(found));
    assert_eq!(next_experiment_id(world.namespace(), &scope("acme")).await.unwrap(), 8);
    assert_eq!(next_experiment_id(world.namespace(), &scope("other")).await.unwrap(), 1);
    world.refolds().await;
}

#[tokio::test]
async fn an_experiment_is_renamed_tagged_deleted_and_restored() {
    let mut world = World::with_experiment().await;
    let at = |at, event: ExperimentChanged| ExperimentChanged { occurred_at: Timestamp(at), ..event };
    world.takes(at(2_000, renamed(1, "uno"))).await;
    assert_eq!(world.experiment(1).await.name, "uno");
    assert_eq!(world.experiment(1).await.updated_at, Timestamp(2_000));
    assert_eq!(world.experiment(1).await.created_at, Timestamp(1_000));
    // The old name is free again, the new one is not.
    world.refuses(created(2, "uno"), AlreadyExists, "Experiment(name=uno) already exists.").await;
    world.takes(created(2, "one")).await;
    // A rename to its own name is accepted.
    world.takes(renamed(1, "uno")).await;

    let tagged = |tags, removed: &[&str]| ExperimentChanged {
        tags,
        removed_tags: removed.iter().map(|key| (*key).to_owned()).collect(),
        ..of(1, ExperimentKind::Tagged)
    };
    world.takes(at(3_000, tagged(pairs(&[("a", "1"), ("b", "2")]), &[]))).await;
    world.takes(tagged(pairs(&[("a", "changed")]), &[])).await;
    assert_eq!(world.experiment(1).await.tags, pairs(&[("a", "changed"), ("b", "2")]));
    world.takes(at(4_000, tagged(Vec::new(), &["b"]))).await;
    assert_eq!(world.experiment(1).await.tags, pairs(&[("a", "changed")]));
    assert_eq!(world.experiment(1).await.updated_at, Timestamp(4_000));
    let message = "No tag with name: b in experiment with id 1";
    world.refuses(tagged(Vec::new(), &["b"]), DoesNotExist, message).await;

    world.takes(at(5_000, of(1, ExperimentKind::Deleted))).await;
    assert!(world.experiment(1).await.deleted);
    assert_eq!(world.experiment(1).await.updated_at, Timestamp(5_000));
    world.refuses(of(1, ExperimentKind::Deleted), DoesNotExist, "No Experiment with id=1 exists").await;
    world.refuses(renamed(1, "x"), Refused, "Cannot rename a non-active experiment.").await;
    world.refuses(tagged(pairs(&[("a", "late")]), &[]), Refused, INACTIVE).await;
    world.takes(of(1, ExperimentKind::Restored)).await;
    assert!(!world.experiment(1).await.deleted);
    world.refuses(of(1, ExperimentKind::Restored), DoesNotExist, "No Experiment with id=1 exists").await;
    assert_eq!(world.experiment(1).await.tags, pairs(&[("a", "changed")]));
    world.refolds().await;
}

#[tokio::test]
async fn a_change_of_several_tags_is_accepted_whole_or_rejected_whole() {
    let mut world = World::new().await;
    world.takes(ExperimentChanged { tags: pairs(&[("a", "1")]), ..created(1, "one") }).await;
    let event = ExperimentChanged {
        tags: pairs(&[("new", "1")]),
        removed_tags: vec!["a".into(), "absent".into()],
        ..of(1, ExperimentKind::Tagged)
    };
    world.refuses(event, DoesNotExist, "No tag with name: absent in experiment with id 1").await;
    assert_eq!(world.experiment(1).await.tags, pairs(&[("a", "1")]));
    world.refolds().await;
}

#[tokio::test]
async fn an_event_of_a_missing_experiment_is_rejected() {
    let mut world = World::with_experiment().await;
    for event in [
        renamed(9, "nine"),
        ExperimentChanged { tags: pairs(&[("a", "1")]), ..of(9, ExperimentKind::Tagged) },
        of(9, ExperimentKind::Deleted),
        of(9, ExperimentKind::Restored),
    ] {
        world.refuses(event, DoesNotExist, "No Experiment with id=9 exists").await;
    }
    assert_eq!(experiment(world.namespace(), &scope("acme"), 9).await.unwrap(), None);
    // The name of a rejected creation is free.
    world.takes(created(9, "nine")).await;
    world.refolds().await;
}

#[tokio::test]
async fn law_09_of_two_claims_the_first_wins_and_the_second_leaves_its_conflict() {
    let mut world = World::with_experiment().await;
    // The name is taken, the id is taken, or both: then the conflict names the name.
    world.refuses(created(2, "one"), AlreadyExists, ONE_TAKEN).await;
    world.refuses(created(1, "other"), IdTaken, "experiment id 1 is taken").await;
    world.refuses(created(1, "one"), AlreadyExists, ONE_TAKEN).await;
    // A losing claim takes nothing: its name and its id are free.
    world.takes(created(2, "other")).await;
    world.refuses(renamed(2, "one"), AlreadyExists, ONE_TAKEN).await;
    assert_eq!(world.experiment(2).await.name, "other");
    // Deleted experiments keep their names and ids.
    world.takes(of(1, ExperimentKind::Deleted)).await;
    world.refuses(created(3, "one"), AlreadyExists, ONE_TAKEN).await;
    world.refuses(created(1, "new"), IdTaken, "experiment id 1 is taken").await;
    world.refuses(renamed(2, "one"), AlreadyExists, ONE_TAKEN).await;
    world.refolds().await;
}

#[tokio::test]
async fn law_09_claims_of_one_batch_are_decided_in_log_order_each_at_its_own_position() {
    let mut world = World::new().await;
    let writer = world.writer();
    let batch: Vec<_> = [created(1, "one"), created(2, "one"), created(1, "two"), created(2, "two"), renamed(2, "one")]
        .map(|event| writer.write(event))
        .into();
    world.fold(&batch).await;
    let expected = [
        None,
        Some(Conflict::new(AlreadyExists, ONE_TAKEN)),
        Some(Conflict::new(IdTaken, "experiment id 1 is taken")),
        None,
        Some(Conflict::new(AlreadyExists, ONE_TAKEN)),
    ];
    for (record, expected) in batch.iter().zip(expected) {
        assert_eq!(position(record).partition, 0);
        assert_eq!(verdict(world.namespace(), position(record)).await.unwrap(), expected, "{}", position(record));
    }
    assert_eq!((world.experiment(1).await.name, world.experiment(2).await.name), ("one".into(), "two".into()));
    world.refolds().await;
}

#[tokio::test]
async fn experiments_are_searched_by_view_filter_and_order_page_by_page() {
    let mut world = World::new().await;
    for (id, name, at, tag) in
        [(1, "Alpha", 10, "x"), (2, "alpha two", 30, "y"), (3, "Beta", 20, "x"), (10, "C", 5, "")]
    {
        let tags = if tag.is_empty() { Vec::new() } else { pairs(&[("t", tag)]) };
        world.takes(ExperimentChanged { tags, occurred_at: Timestamp(at), ..created(id, name) }).await;
    }
    world.takes(ExperimentChanged { occurred_at: Timestamp(40), ..of(3, ExperimentKind::Deleted) }).await;
    let search = |view, filter: &str, order: &[&str]| SearchExperiments {
        view,
        filter: parse_filter(Target::Experiments, filter).unwrap(),
        order_by: order.iter().map(|term| parse_order_by(Target::Experiments, term).unwrap()).collect(),
        limit: 100,
        offset: 0,
    };
    let cases: [(View, &str, &[&str], &[i64]); 25] = [
        // The newest first, and the default experiment last: it is computed until its first write.
        (View::Active, "", &[], &[2, 1, 10, 0]),
        (View::Deleted, "", &[], &[3]),
        (View::All, "", &[], &[2, 3, 1, 10, 0]),
        (View::All, "", &["name"], &[1, 3, 10, 0, 2]),
        (View::All, "", &["name DESC"], &[2, 0, 10, 3, 1]),
        (View::All, "", &["experiment_id ASC"], &[0, 1, 2, 3, 10]),
        (View::All, "", &["last_update_time DESC"], &[3, 2, 1, 10, 0]),
        (View::All, "", &["creation_time"], &[0, 10, 1, 3, 2]),
        (View::All, "name = 'Alpha'", &[], &[1]),
        (View::All, "name != 'Alpha'", &["experiment_id"], &[0, 2, 3, 10]),
        (View::All, "name LIKE 'Alpha%'", &[], &[1]),
        (View::All, "name ILIKE 'alpha%'", &["experiment_id"], &[1, 2]),
        (View::All, "name LIKE '_eta'", &[], &[3]),
        (View::All, "creation_time >= 20", &["experiment_id"], &[2, 3]),
        (View::All, "last_update_time > 20", &["experiment_id"], &[2, 3]),
        (View::All, "experiment_id = '10'", &[], &[10]),
        (View::All, "experiment_id IN ('1', '10')", &["experiment_id"], &[1, 10]),
        (View::All, "experiment_id NOT IN ('1', '10')", &["experiment_id"], &[0, 2, 3]),
        (View::All, "name = 'Default'", &[], &[0]),
        (View::All, "tags.t = 'x'", &["experiment_id"], &[1, 3]),
        // An experiment without the tag is not found.
        (View::All, "tags.t != 'x'", &[], &[2]),
        (View::All, "tags.t IS NULL", &[], &[10, 0]),
        (View::All, "tags.t IS NOT NULL", &["experiment_id"], &[1, 2, 3]),
        (View::Active, "tags.t LIKE '%' AND name ILIKE 'a%'", &["experiment_id"], &[1, 2]),
        (View::All, "tags.absent = 'x'", &[], &[]),
    ];
    for (view, filter, order, expected) in cases {
        let page = search_experiments(world.namespace(), &scope("acme"), &search(view, filter, order)).await.unwrap();
        let ids: Vec<i64> = page.items.iter().map(|experiment| experiment.id).collect();
        assert_eq!((ids.as_slice(), page.more), (expected, false), "{view:?} {filter:?} {order:?}");
    }
    let mut found = Vec::new();
    for offset in 0..6 {
        let paged = SearchExperiments { limit: 1, offset, ..search(View::All, "", &["name"]) };
        let page = search_experiments(world.namespace(), &scope("acme"), &paged).await.unwrap();
        assert_eq!(page.more, offset < 4, "at {offset}");
        found.extend(page.items.iter().map(|experiment| experiment.id));
    }
    assert_eq!(found, [1, 3, 10, 0, 2]);
}
