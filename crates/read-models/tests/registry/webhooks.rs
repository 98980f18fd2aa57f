//! `ml.webhook.changed.v1`: changes of webhooks, and the webhooks that subscribe to an event.

use carbon_core::Timestamp;
use carbon_read_models::registry::ConflictCode::{DoesNotExist, IdTaken};
use carbon_read_models::registry::queries::{Webhook, registration_has_tag, webhook, webhooks, webhooks_told_of};
use carbon_schemas::events::{ModelKind, ModelRegistered, WebhookChanged, WebhookKind};
use uuid::Uuid;

use crate::world::{World, hooked, pairs, registered, registration, scope, tenant, webhook_of};

fn id(number: u128) -> String {
    Uuid::from_u128(number).to_string()
}

async fn found(world: &World, number: u128) -> Option<Webhook> {
    webhook(world.namespace(), &scope("acme"), &id(number)).await.unwrap()
}

async fn told_of(world: &World, of: &str, event: &str) -> Vec<String> {
    told_at(world, of, event, 100).await
}

async fn told_at(world: &World, of: &str, event: &str, at: i64) -> Vec<String> {
    webhooks_told_of(world.namespace(), &scope(of), event, Timestamp(at)).await.unwrap()
}

#[tokio::test]
async fn given_a_webhook_when_it_changes_then_fields_that_are_not_set_stay() {
    let mut world = World::new().await;
    let made = WebhookChanged {
        sealed_secret: Some("v1:sealed".into()),
        ..hooked(10, 1, &["registered_model.created", "model_version.created", "registered_model.created"])
    };
    world.takes(made).await;
    let first = found(&world, 1).await.unwrap();
    assert_eq!(first.events, ["model_version.created", "registered_model.created"]);
    assert_eq!((first.status.as_str(), first.sealed_secret.as_str()), ("ACTIVE", "v1:sealed"));
    assert_eq!((first.created_at, first.updated_at), (Timestamp(10), Timestamp(10)));

    let described = WebhookChanged { description: Some("d".into()), ..webhook_of(20, 1, WebhookKind::Updated) };
    world.takes(described).await;
    let expected = Webhook { description: "d".into(), updated_at: Timestamp(20), ..first };
    assert_eq!(found(&world, 1).await.unwrap(), expected);

    let everything = WebhookChanged {
        name: Some("n".into()),
        description: Some(String::new()),
        status: Some("DISABLED".into()),
        sealed_secret: Some(String::new()),
        kind: WebhookKind::Updated,
        ..hooked(30, 1, &["model_version_tag.set"])
    };
    world.takes(everything).await;
    let third = found(&world, 1).await.unwrap();
    assert_eq!((third.name.as_str(), third.description.as_str(), third.is_active()), ("n", "", false));
    assert_eq!((third.sealed_secret.as_str(), third.events), ("", vec!["model_version_tag.set".to_owned()]));

    world.takes(webhook_of(40, 1, WebhookKind::Deleted)).await;
    assert_eq!(found(&world, 1).await, None);
    let gone = format!("Webhook with ID {} not found.", id(1));
    world.refuses(webhook_of(41, 1, WebhookKind::Updated), DoesNotExist, &gone).await;
    world.refuses(webhook_of(41, 1, WebhookKind::Deleted), DoesNotExist, &gone).await;
    // An id stays taken.
    world.refuses(hooked(42, 1, &["a.b"]), IdTaken, &format!("webhook id {} is taken", id(1))).await;
    world.refolds().await;
}

#[tokio::test]
async fn given_webhooks_when_an_event_happens_then_the_active_subscribers_of_the_tenant_are_found() {
    let mut world = World::new().await;
    world.takes(hooked(1, 1, &["registered_model.created"])).await;
    world.takes(hooked(2, 2, &["registered_model.created", "model_version.created"])).await;
    world.takes(hooked(3, 3, &["registered_model.created"])).await;
    world.takes(hooked(3, 4, &["registered_model.created"])).await;
    world.takes(WebhookChanged { tenant_id: tenant("other"), ..hooked(4, 5, &["registered_model.created"]) }).await;
    let disabled = WebhookChanged { status: Some("DISABLED".into()), ..webhook_of(5, 3, WebhookKind::Updated) };
    world.takes(disabled).await;
    world.takes(webhook_of(6, 4, WebhookKind::Deleted)).await;
    assert_eq!(told_of(&world, "acme", "registered_model.created").await, [id(1), id(2)]);
    assert_eq!(told_of(&world, "acme", "model_version.created").await, [id(2)]);
    assert_eq!(told_of(&world, "other", "registered_model.created").await, [id(5)]);
    assert!(told_of(&world, "acme", "model_version_tag.set").await.is_empty());
    // A webhook that was created later is not found.
    assert_eq!(told_at(&world, "acme", "registered_model.created", 1).await, [id(1)]);

    // Pages list the newest first.
    let page = webhooks(world.namespace(), &scope("acme"), 2, 0).await.unwrap();
    let ids: Vec<_> = page.items.iter().map(|hook| hook.webhook_id.clone()).collect();
    assert_eq!((ids, page.more), (vec![id(3), id(2)], true));
    let page = webhooks(world.namespace(), &scope("acme"), 2, 2).await.unwrap();
    assert_eq!((page.items.len(), page.more), (1, false));
    world.refolds().await;
}

#[tokio::test]
async fn given_a_tagged_registration_when_asked_by_id_or_name_then_its_tag_is_known() {
    let mut world = World::new().await;
    world.takes(ModelRegistered { tags: pairs(&[("p", "True")]), ..registration(1, "m", 1) }).await;
    let asks = async |world: &World, registration: Option<u128>, name: &str, of: &str| {
        let id = registration.map(id);
        let named = (id.as_deref(), name);
        registration_has_tag(world.namespace(), &scope(of), named, ("p", "true")).await.unwrap()
    };
    assert!(asks(&world, Some(1), "whatever", "acme").await && asks(&world, None, "m", "acme").await);
    assert!(!asks(&world, Some(2), "m", "acme").await && !asks(&world, None, "m", "other").await);
    world.takes(registered(2, "m", ModelKind::Deleted)).await;
    assert!(asks(&world, Some(1), "m", "acme").await && !asks(&world, None, "m", "acme").await);
}
