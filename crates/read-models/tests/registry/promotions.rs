//! `ml.model.promoted.v1`: stages and aliases, now and in the past, in any order of topics.

use carbon_core::Timestamp;
use carbon_read_models::registry::queries::{PromotionsPage, RegisteredModel, promotions, registered_model_as_of};
use carbon_schemas::events::{ModelKind, ModelPromoted, ModelRegistered};
use uuid::Uuid;

use crate::models::{model, of};
use crate::world::{World, aliased, promotion, registered, registration, scope, staged, version};

/// A name with three versions.
async fn with_versions() -> World {
    let mut world = World::new().await;
    world.takes(registration(1, "m", 1)).await;
    for number in 1..4 {
        world.takes(version(1, "m", number, 10 + number as u128)).await;
    }
    world
}

async fn stages(world: &World, name: &str) -> Vec<String> {
    let mut stages = Vec::new();
    for number in 1..4 {
        stages.extend(of(world, name, number).await.map(|version| version.stage));
    }
    stages
}

fn then(model: &RegisteredModel) -> Vec<(i64, &str)> {
    model.latest.iter().map(|version| (version.version, version.stage.as_str())).collect()
}

async fn as_of(world: &World, name: &str, at: i64) -> Option<RegisteredModel> {
    registered_model_as_of(world.namespace(), &scope("acme"), name, Timestamp(at)).await.unwrap()
}

/// The promotions of a name, newest first: version and outcome.
async fn history(world: &World, name: &str) -> Vec<(Option<i64>, String)> {
    let page = PromotionsPage { before: None, as_of: None, limit: 100 };
    let page = promotions(world.namespace(), &scope("acme"), name, page).await.unwrap();
    page.items.into_iter().map(|record| (record.version, record.effect)).collect()
}

#[tokio::test]
async fn given_versions_when_they_are_promoted_then_stages_aliases_and_times_follow() {
    let mut world = with_versions().await;
    world.takes(staged(10, "m", 1, "Production")).await;
    world.takes(staged(20, "m", 2, "Staging")).await;
    world.takes(aliased(25, "m", Some(2), "champion")).await;
    world.takes(ModelPromoted { archive_existing: true, ..staged(30, "m", 2, "Production") }).await;
    assert_eq!(stages(&world, "m").await, ["Archived", "Production", "None"]);
    let found = model(&world, "m").await.unwrap();
    assert_eq!((found.last_updated, found.aliases.as_slice()), (Timestamp(30), &[("champion".into(), 2)][..]));
    assert_eq!(then(&found), [(1, "Archived"), (2, "Production"), (3, "None")]);
    assert_eq!(of(&world, "m", 1).await.unwrap().last_updated, Timestamp(30));
    assert_eq!(of(&world, "m", 2).await.unwrap().aliases, ["champion"]);

    let earlier = as_of(&world, "m", 22).await.unwrap();
    assert_eq!(then(&earlier), [(1, "Production"), (2, "Staging"), (3, "None")]);
    assert!(earlier.aliases.is_empty());
    assert_eq!(as_of(&world, "m", 25).await.unwrap().aliases, [("champion".into(), 2)]);
    assert_eq!(as_of(&world, "m", 0).await, None);

    world.takes(aliased(40, "m", None, "champion")).await;
    assert!(model(&world, "m").await.unwrap().aliases.is_empty());
    assert_eq!(history(&world, "m").await.len(), 5);
    let page = PromotionsPage { before: Some(4), as_of: Some(Timestamp(29)), limit: 2 };
    let page = promotions(world.namespace(), &scope("acme"), "m", page).await.unwrap();
    let offsets: Vec<_> = page.items.iter().map(|record| record.offset).collect();
    assert_eq!((offsets, page.more), (vec![2, 1], true));
    assert!(
        promotions(world.namespace(), &scope("other"), "m", PromotionsPage { before: None, as_of: None, limit: 9 })
            .await
            .unwrap()
            .items
            .is_empty()
    );
    world.refolds().await;
}

#[tokio::test]
async fn law_09_given_the_loser_of_a_race_when_it_is_promoted_then_the_promotion_has_no_effect() {
    let mut world = with_versions().await;
    // Version 3 belongs to id 13; the writer of id 99 lost the race for it.
    let lost = ModelPromoted { version_id: Some(Uuid::from_u128(99)), ..staged(10, "m", 3, "Production") };
    world.takes(lost).await;
    world.takes(ModelPromoted { run_id: Some("other".into()), ..staged(11, "m", 3, "Production") }).await;
    let elsewhere = ModelPromoted { registration_id: Some(Uuid::from_u128(2)), ..staged(12, "m", 3, "Production") };
    world.takes(elsewhere).await;
    world.takes(staged(13, "m", 9, "Production")).await;
    assert_eq!(stages(&world, "m").await, ["None", "None", "None"]);
    let said: Vec<_> = history(&world, "m").await.into_iter().map(|(_, effect)| effect).collect();
    assert_eq!(said, ["no_such_version", "no_such_model", "another_version", "another_version"]);
    world.refolds().await;
}

#[tokio::test]
async fn given_a_promotion_of_a_version_that_comes_later_then_it_applies() {
    let mut world = World::new().await;
    world.takes(staged(5, "m", 1, "Production")).await;
    assert_eq!(history(&world, "m").await, [(Some(1), "no_such_model".into())]);
    world.takes(registration(6, "m", 1)).await;
    assert_eq!(history(&world, "m").await, [(Some(1), "no_such_version".into())]);
    world.takes(version(7, "m", 1, 11)).await;
    assert_eq!(history(&world, "m").await, [(Some(1), "applied".into())]);
    assert_eq!(stages(&world, "m").await, ["Production"]);
    world.refolds().await;
}

#[tokio::test]
async fn given_a_name_with_two_registrations_when_it_is_promoted_by_name_then_the_time_decides() {
    let mut world = World::new().await;
    world.takes(registration(10, "m", 1)).await;
    world.takes(version(11, "m", 1, 11)).await;
    world.takes(staged(15, "m", 1, "Production")).await;
    world.takes(registered(20, "m", ModelKind::Deleted)).await;
    world.takes(registration(30, "m", 2)).await;
    world.takes(version(31, "m", 1, 12)).await;
    // The second registration has nothing of the first.
    assert_eq!(stages(&world, "m").await, ["None"]);
    assert_eq!(then(&as_of(&world, "m", 16).await.unwrap()), [(1, "Production")]);
    assert_eq!(as_of(&world, "m", 25).await, None);
    // A promotion at a time when the name was free means the next registration that gets the name.
    world.takes(staged(25, "m", 1, "Staging")).await;
    assert_eq!(stages(&world, "m").await, ["Staging"]);
    // A late promotion with a time of the first registration changes nothing of the second.
    world.takes(aliased(12, "m", Some(1), "champion")).await;
    assert!(model(&world, "m").await.unwrap().aliases.is_empty());
    assert_eq!(as_of(&world, "m", 13).await.unwrap().aliases, [("champion".into(), 1)]);
    assert_eq!(history(&world, "m").await.len(), 3);
    world.refolds().await;
}

#[tokio::test]
async fn given_stages_when_a_model_is_renamed_or_a_version_deleted_then_the_other_stages_stay() {
    let mut world = with_versions().await;
    world.takes(staged(10, "m", 1, "Production")).await;
    world.takes(aliased(11, "m", Some(1), "old")).await;
    world.takes(aliased(12, "m", Some(2), "new")).await;
    world.takes(ModelRegistered { new_name: Some("n".into()), ..registered(20, "m", ModelKind::Renamed) }).await;
    assert_eq!(stages(&world, "n").await, ["Production", "None", "None"]);
    // The promotion names the new name, or the id with any name.
    world.takes(staged(30, "n", 2, "Staging")).await;
    world
        .takes(ModelPromoted {
            registration_id: Some(Uuid::from_u128(1)),
            version: Some(3),
            stage: Some("Archived".into()),
            ..promotion(31, "m")
        })
        .await;
    assert_eq!(stages(&world, "n").await, ["Production", "Staging", "Archived"]);
    world.takes(ModelRegistered { version: Some(2), ..registered(40, "n", ModelKind::VersionDeleted) }).await;
    let found = model(&world, "n").await.unwrap();
    assert_eq!((found.aliases.as_slice(), found.last_updated), (&[("old".into(), 1)][..], Timestamp(40)));
    assert_eq!(as_of(&world, "n", 39).await.unwrap().aliases.len(), 2);
    // The old name is found as of the time at which it was used.
    assert_eq!(as_of(&world, "m", 15).await.unwrap().aliases.len(), 2);
    assert_eq!(history(&world, "m").await.len(), 5);
    world.refolds().await;
}
