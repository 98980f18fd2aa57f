//! `ml.model.registered.v1`: claims and changes of names and versions.

use carbon_core::Timestamp;
use carbon_read_models::registry::ConflictCode::{AlreadyExists, DoesNotExist, IdTaken};
use carbon_read_models::registry::filter::{Target, parse_filter, parse_order_by};
use carbon_read_models::registry::queries::{
    ModelVersion, RegisteredModel, SearchModels, manifest, model_version, newest_version, next_version,
    registered_model, search_model_versions, search_registered_models,
};
use carbon_schemas::events::{ManifestFile, ModelKind, ModelRegistered};
use uuid::Uuid;

use crate::world::{World, aliased, pairs, registered, registration, scope, staged, version};

pub async fn model(world: &World, name: &str) -> Option<RegisteredModel> {
    registered_model(world.namespace(), &scope("acme"), name).await.unwrap()
}

pub async fn of(world: &World, name: &str, number: i64) -> Option<ModelVersion> {
    model_version(world.namespace(), &scope("acme"), name, number).await.unwrap()
}

async fn next(world: &World, id: u128) -> i64 {
    next_version(world.namespace(), &scope("acme"), &Uuid::from_u128(id).to_string()).await.unwrap()
}

fn search(target: Target, filter: &str, order_by: &[&str]) -> SearchModels {
    SearchModels {
        filter: parse_filter(target, filter).unwrap(),
        order_by: order_by.iter().map(|term| parse_order_by(target, term).unwrap()).collect(),
        limit: 100,
        offset: 0,
    }
}

async fn names(world: &World, filter: &str, order_by: &[&str]) -> Vec<String> {
    let search = search(Target::RegisteredModels, filter, order_by);
    let page = search_registered_models(world.namespace(), &scope("acme"), &search).await.unwrap();
    page.items.into_iter().map(|model| model.name).collect()
}

async fn versions(world: &World, filter: &str, order_by: &[&str]) -> Vec<String> {
    let search = search(Target::ModelVersions, filter, order_by);
    let page = search_model_versions(world.namespace(), &scope("acme"), &search).await.unwrap();
    page.items.into_iter().map(|own| format!("{}/{}", own.name, own.version)).collect()
}

const GONE: &str = "Registered Model with name=m not found";

#[tokio::test]
async fn given_a_model_when_it_changes_then_it_has_the_fields_of_its_events() {
    let mut world = World::new().await;
    let made = ModelRegistered {
        description: Some("d".into()),
        tags: pairs(&[("a", "1"), ("b", "2")]),
        ..registration(10, "m", 1)
    };
    world.takes(made).await;
    let found = model(&world, "m").await.unwrap();
    assert_eq!(
        (found.description.as_deref(), found.created_at, found.last_updated),
        (Some("d"), Timestamp(10), Timestamp(10))
    );
    assert_eq!(found.tags, pairs(&[("a", "1"), ("b", "2")]));

    let described = ModelRegistered { description: Some(String::new()), ..registered(20, "m", ModelKind::Described) };
    world.takes(described).await;
    let mut tagged = registered(25, "m", ModelKind::Tagged);
    (tagged.tags, tagged.removed_tags) = (pairs(&[("a", "x")]), vec!["b".into(), "none".into()]);
    world.takes(tagged).await;
    world.takes(version(30, "m", 1, 11)).await;
    let found = model(&world, "m").await.unwrap();
    assert_eq!((found.description.as_deref(), found.last_updated), (Some(""), Timestamp(30)));
    assert_eq!((found.tags, found.latest.len()), (pairs(&[("a", "x")]), 1));

    let renamed = ModelRegistered { new_name: Some("n".into()), ..registered(40, "m", ModelKind::Renamed) };
    world.takes(renamed).await;
    assert_eq!(model(&world, "m").await, None);
    let found = model(&world, "n").await.unwrap();
    assert_eq!(
        (found.created_at, found.last_updated, found.latest[0].last_updated),
        (Timestamp(10), Timestamp(40), Timestamp(40))
    );
    // An event with the registration id means the model, whatever name it has.
    let mut late = registered(45, "m", ModelKind::Tagged);
    (late.registration_id, late.tags) = (Some(Uuid::from_u128(1)), pairs(&[("late", "1")]));
    world.takes(late).await;
    assert_eq!(model(&world, "n").await.unwrap().tags.len(), 2);
    world.refuses(registered(46, "m", ModelKind::Deleted), DoesNotExist, GONE).await;
    world.takes(registered(50, "n", ModelKind::Deleted)).await;
    assert_eq!(model(&world, "n").await, None);
    world.refolds().await;
}

#[tokio::test]
async fn law_09_given_a_name_when_it_is_claimed_again_then_the_first_has_it() {
    let mut world = World::new().await;
    world.takes(registration(1, "m", 1)).await;
    world.refuses(registration(2, "m", 2), AlreadyExists, "Registered Model (name=m) already exists.").await;
    // An event that refers to the losing claim changes nothing.
    let mut loser = version(3, "m", 1, 11);
    loser.registration_id = Some(Uuid::from_u128(2));
    world.refuses(loser, DoesNotExist, GONE).await;
    world.takes(registration(4, "n", 3)).await;
    let renamed = ModelRegistered { new_name: Some("m".into()), ..registered(5, "n", ModelKind::Renamed) };
    world.refuses(renamed, AlreadyExists, "Registered Model (name=m) already exists.").await;
    // A rename to its own name is accepted, as in MLflow.
    let same = ModelRegistered { new_name: Some("m".into()), ..registered(6, "m", ModelKind::Renamed) };
    world.takes(same).await;
    // A name that was given up is free; an id is not.
    world.takes(registered(7, "m", ModelKind::Deleted)).await;
    let message = format!("registration id {} is taken", Uuid::from_u128(1));
    world.refuses(registration(8, "m", 1), IdTaken, &message).await;
    world.takes(registration(9, "m", 4)).await;
    world.refolds().await;
}

#[tokio::test]
async fn law_09_given_a_version_number_when_it_is_deleted_then_it_is_not_used_again() {
    let mut world = World::new().await;
    world.takes(registration(1, "m", 1)).await;
    world.takes(version(2, "m", 1, 11)).await;
    world.takes(version(3, "m", 2, 12)).await;
    let taken = "Model Version (name=m, version=2) already exists.";
    world.refuses(version(4, "m", 2, 13), IdTaken, taken).await;
    let mut of_loser = registered(5, "m", ModelKind::VersionTagged);
    (of_loser.version, of_loser.version_id, of_loser.tags) = (Some(2), Some(Uuid::from_u128(13)), pairs(&[("k", "v")]));
    world.refuses(of_loser, DoesNotExist, "Model Version (name=m, version=2) not found").await;

    let deleted = ModelRegistered { version: Some(2), ..registered(6, "m", ModelKind::VersionDeleted) };
    world.takes(deleted.clone()).await;
    assert_eq!((next(&world, 1).await, of(&world, "m", 2).await), (3, None));
    world.refuses(deleted, DoesNotExist, "Model Version (name=m, version=2) not found").await;
    world.refuses(version(7, "m", 2, 14), IdTaken, taken).await;
    world.refolds().await;

    // A new registration of the name starts at version 1.
    world.takes(registered(8, "m", ModelKind::Deleted)).await;
    world.takes(registration(9, "m", 2)).await;
    assert_eq!(next(&world, 2).await, 1);
    world.takes(version(10, "m", 1, 15)).await;
    assert_eq!(of(&world, "m", 1).await.unwrap().version_id, Uuid::from_u128(15).to_string());
    world.refolds().await;
}

#[tokio::test]
async fn given_a_version_when_it_changes_then_it_has_the_fields_of_its_events() {
    let mut world = World::new().await;
    world.takes(registration(1, "m", 1)).await;
    let sha256 = "0".repeat(64);
    let files = vec![ManifestFile { path: "MLmodel".into(), size: 3, sha256: sha256.clone() }];
    let made = ModelRegistered {
        run_id: Some("r".into()),
        model_id: Some("m-1".into()),
        storage: Some("mlflow-artifacts:/1/models/m-1/artifacts".into()),
        manifest: files.clone(),
        manifest_digest: Some(sha256.clone()),
        tags: pairs(&[("a", "1")]),
        ..version(2, "m", 1, 11)
    };
    world.takes(made).await;
    world.takes(version(3, "m", 2, 12)).await;
    let found = of(&world, "m", 1).await.unwrap();
    assert_eq!((found.run_id.as_str(), found.model_id.as_str(), found.stage.as_str()), ("r", "m-1", "None"));
    assert_eq!(
        (found.source.as_str(), found.storage.as_str()),
        ("s3://models/11", "mlflow-artifacts:/1/models/m-1/artifacts")
    );
    assert_eq!((found.manifest_digest, found.tags), (Some(sha256), pairs(&[("a", "1")])));
    assert_eq!(manifest(world.namespace(), &scope("acme"), &found.version_id).await.unwrap(), files);
    assert_eq!(of(&world, "m", 2).await.unwrap().storage, "s3://models/12");

    let mut tagged = registered(4, "m", ModelKind::VersionTagged);
    (tagged.version, tagged.tags, tagged.removed_tags) = (Some(1), pairs(&[("b", "2")]), vec!["a".into()]);
    world.takes(tagged).await;
    let mut described = registered(5, "m", ModelKind::VersionDescribed);
    (described.version, described.description) = (Some(1), Some("d".into()));
    world.takes(described).await;
    let found = of(&world, "m", 1).await.unwrap();
    assert_eq!((found.description.as_str(), found.tags, found.last_updated), ("d", pairs(&[("b", "2")]), Timestamp(5)));
    let id = Uuid::from_u128(1).to_string();
    assert_eq!(newest_version(world.namespace(), &scope("acme"), &id).await.unwrap().unwrap().version, 2);
    // Another tenant does not find it.
    assert_eq!(model_version(world.namespace(), &scope("other"), "m", 1).await.unwrap(), None);
    assert_eq!(newest_version(world.namespace(), &scope("other"), &id).await.unwrap(), None);
    assert_eq!(registered_model(world.namespace(), &scope("other"), "m").await.unwrap(), None);
    world.refolds().await;
}

#[tokio::test]
async fn given_models_when_they_are_searched_then_filters_and_orders_apply_and_prompts_are_hidden() {
    let mut world = World::new().await;
    for (at, name) in [(1, "gas"), (2, "power"), (3, "Gas2")] {
        world.takes(registration(at, name, at as u128)).await;
        let tags = pairs(&[("desk", name)]);
        world
            .takes(ModelRegistered {
                run_id: Some(format!("run-{name}")),
                tags,
                ..version(at, name, 1, 10 + at as u128)
            })
            .await;
    }
    let prompt = pairs(&[("mlflow.prompt.is_prompt", "true")]);
    world.takes(ModelRegistered { tags: prompt.clone(), ..registration(4, "prompt", 4) }).await;
    world.takes(ModelRegistered { tags: prompt, ..version(4, "prompt", 1, 14) }).await;
    world.takes(ModelRegistered { tags: pairs(&[("k", "v")]), ..registered(5, "power", ModelKind::Tagged) }).await;
    world.takes(staged(9, "gas", 1, "Production")).await;

    assert_eq!(names(&world, "", &[]).await, ["Gas2", "gas", "power"]);
    assert_eq!(names(&world, "", &["last_updated_timestamp DESC"]).await, ["gas", "Gas2", "power"]);
    assert_eq!(names(&world, "name LIKE 'gas%'", &[]).await, ["gas"]);
    assert_eq!(names(&world, "name ILIKE 'gas%'", &[]).await, ["Gas2", "gas"]);
    assert_eq!(names(&world, "tags.k = 'v'", &[]).await, ["power"]);
    assert_eq!(names(&world, "tags.k IS NULL", &[]).await, ["Gas2", "gas"]);
    let hidden = "tag.`mlflow.prompt.is_prompt` != 'true'";
    assert_eq!(names(&world, hidden, &[]).await, ["Gas2", "gas", "power"]);
    assert_eq!(names(&world, "tag.`mlflow.prompt.is_prompt` = 'true'", &[]).await, ["prompt"]);

    assert_eq!(versions(&world, "", &[]).await, ["gas/1", "Gas2/1", "power/1"]);
    assert_eq!(versions(&world, "", &["name DESC"]).await, ["power/1", "gas/1", "Gas2/1"]);
    assert_eq!(versions(&world, "run_id = 'run-gas'", &[]).await, ["gas/1"]);
    assert_eq!(
        versions(&world, "source_path LIKE 's3://models/1%' AND name != 'gas'", &["name"]).await,
        ["Gas2/1", "power/1"]
    );
    assert_eq!(versions(&world, "version_number > 1", &[]).await, Vec::<String>::new());
    assert_eq!(versions(&world, "tags.desk = 'power'", &[]).await, ["power/1"]);
    assert_eq!(versions(&world, "tag.`mlflow.prompt.is_prompt` = 'true'", &[]).await, ["prompt/1"]);
    world.takes(aliased(10, "gas", Some(1), "champion")).await;
    world.refolds().await;
}
