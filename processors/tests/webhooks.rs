//! Webhooks from the log to a real receiver: what is told, to whom, how often, and what never is.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "webhooks/receiver.rs"]
mod receiver;
#[path = "webhooks/world.rs"]
mod world;

use carbon_core::{Clock as _, SystemClock, TenantId};
use carbon_processors::MOST_PENDING;
use carbon_schemas::events::{KeyValue, ModelKind, ModelPromoted, ModelRegistered, WebhookChanged, WebhookKind};
use carbon_webhooks::signature;
use receiver::{Answer, Call, Receiver};
use serde_json::{Value, json};
use uuid::Uuid;
use world::{World, alias, append_to, hook_event, hooked, of, pairs, registration, remove, version};

const SECRET: &str = "a-secret-of-some-length";

/// `entity.action` and what was told of it.
fn told(call: &Call) -> (String, Value) {
    let body = call.json();
    (format!("{}.{}", body["entity"].as_str().unwrap(), body["action"].as_str().unwrap()), body["data"].clone())
}

const EVERYTHING: [&str; 10] = [
    "registered_model.created",
    "model_version.created",
    "model_version_tag.set",
    "model_version_tag.deleted",
    "model_version_alias.created",
    "model_version_alias.deleted",
    "prompt.created",
    "prompt_version.created",
    "prompt_tag.set",
    "prompt_alias.created",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn law_09_what_took_effect_is_told_signed_and_in_order_and_nothing_else_is() {
    let world = World::new().await;
    let mut receiver = Receiver::start().await;
    world.hook(&receiver.url, &EVERYTHING, Some(SECRET)).await;
    let mut other = registration("m");
    other.tenant_id = TenantId::parse("other").unwrap();
    world.append(&other).await;
    let first = ModelRegistered { description: Some("of gas".into()), tags: pairs(&[("a", "b")]), ..registration("m") };
    world.append(&first).await;
    // The name is taken: the fold refuses the second claim, and nobody hears of it.
    world.register("m").await;
    world.append(&ModelRegistered { run_id: Some("r".into()), ..version("m", 1) }).await;
    world.append(&version("m", 1)).await;
    let tagged = ModelRegistered {
        version: Some(1),
        tags: pairs(&[("k", "v"), ("l", "w")]),
        removed_tags: vec!["gone".into()],
        ..of("m", ModelKind::VersionTagged)
    };
    world.append(&tagged).await;
    world.append(&ModelRegistered { tags: pairs(&[("k", "v")]), ..of("m", ModelKind::Tagged) }).await;
    // The topics have no order among each other but by time.
    world.settle().await;
    world.append(&alias("m", Some(1))).await;
    world.append(&alias("m", Some(7))).await;
    let staged = ModelPromoted { alias: None, stage: Some("Production".into()), ..alias("m", Some(1)) };
    world.append(&staged).await;
    world.append(&alias("m", None)).await;

    let calls = receiver.take(7).await;
    let tag = |key: &str, value: &str| json!({"name": "m", "version": "1", "key": key, "value": value});
    let expected = [
        ("registered_model.created", json!({"name": "m", "tags": {"a": "b"}, "description": "of gas"})),
        (
            "model_version.created",
            json!({"name": "m", "version": "1", "source": "s3://bucket/model", "run_id": "r", "tags": {},
                "description": null}),
        ),
        ("model_version_tag.set", tag("k", "v")),
        ("model_version_tag.set", tag("l", "w")),
        ("model_version_tag.deleted", json!({"name": "m", "version": "1", "key": "gone"})),
        ("model_version_alias.created", json!({"name": "m", "alias": "champion", "version": "1"})),
        ("model_version_alias.deleted", json!({"name": "m", "alias": "champion"})),
    ];
    for (call, (event, data)) in calls.iter().zip(&expected) {
        assert_eq!(told(call), ((*event).to_owned(), data.clone()));
        let (id, at) = (call.header("x-mlflow-delivery-id"), call.header("x-mlflow-timestamp"));
        assert_eq!(call.header("x-mlflow-signature"), signature(SECRET, id, at, &call.body));
        assert_eq!(call.header("content-type"), "application/json");
        assert!(SystemClock.now().0 / 1000 - at.parse::<i64>().unwrap() < 60);
        assert!(carbon_core::parse_rfc3339(call.json()["timestamp"].as_str().unwrap()).is_some());
    }
    let mut ids: Vec<_> = calls.iter().map(|call| call.header("x-mlflow-delivery-id").to_owned()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), calls.len());
    world.settle().await;
    world.waits_for(0).await;
    assert!(receiver.rest().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prompts_are_told_by_their_own_names() {
    let world = World::new().await;
    let mut receiver = Receiver::start().await;
    world.hook(&receiver.url, &EVERYTHING, None).await;
    let prompt = pairs(&[("mlflow.prompt.is_prompt", "true"), ("mlflow.prompt.text", "Hi {{x}}"), ("a", "b")]);
    world.append(&ModelRegistered { tags: prompt.clone(), ..registration("p") }).await;
    world.append(&ModelRegistered { tags: prompt, ..version("p", 1) }).await;
    world.append(&ModelRegistered { tags: pairs(&[("k", "v")]), ..of("p", ModelKind::Tagged) }).await;
    world.settle().await;
    world.append(&alias("p", Some(1))).await;
    let calls: Vec<_> = receiver.take(4).await.iter().map(told).collect();
    let with_text = json!({"mlflow.prompt.text": "Hi {{x}}", "a": "b"});
    let expected = [
        ("prompt.created", json!({"name": "p", "tags": with_text, "description": null})),
        (
            "prompt_version.created",
            json!({"name": "p", "version": "1", "template": "Hi {{x}}", "tags": {"a": "b"}, "description": null}),
        ),
        ("prompt_tag.set", json!({"name": "p", "key": "k", "value": "v"})),
        ("prompt_alias.created", json!({"name": "p", "alias": "champion", "version": "1"})),
    ];
    assert_eq!(calls, expected.map(|(event, data)| (event.to_owned(), data)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_is_tried_again_with_the_same_id_and_what_never_will_is_not() {
    let world = World::new().await;
    let mut receiver = Receiver::start().await;
    world.hook(&receiver.url, &["registered_model.created"], Some(SECRET)).await;
    receiver.answers(&[Answer::Status(503), Answer::Status(429), Answer::Never, Answer::Status(204)]);
    world.register("again").await;
    let tries = receiver.take(4).await;
    for call in &tries {
        assert_eq!(call.header("x-mlflow-delivery-id"), tries[0].header("x-mlflow-delivery-id"));
        let (id, at) = (call.header("x-mlflow-delivery-id"), call.header("x-mlflow-timestamp"));
        assert_eq!(call.header("x-mlflow-signature"), signature(SECRET, id, at, &call.body));
        assert_eq!((call.name(), &call.body), ("again".to_owned(), &tries[0].body));
    }
    world.waits_for(0).await;
    // A refusal and a redirect are final, and so is the last attempt.
    receiver.answers(&[Answer::Status(404), Answer::Status(302)]);
    world.register("refused").await;
    world.register("redirected").await;
    receiver.answers(&[Answer::Status(500); 5]);
    world.register("given-up").await;
    world.register("after").await;
    let names: Vec<_> = receiver.take(8).await.iter().map(Call::name).collect();
    let expected = ["refused", "redirected", "given-up", "given-up", "given-up", "given-up", "given-up", "after"];
    assert_eq!(names, expected);
    world.waits_for(0).await;
    assert!(receiver.rest().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_does_not_answer_holds_up_nobody_and_keeps_so_much_only() {
    let mut world = World::new().await;
    let (mut silent, mut quick) = (Receiver::start().await, Receiver::start().await);
    silent.answers_always(Answer::Never);
    let events = ["model_version_tag.set", "registered_model.created"];
    world.hook(&silent.url, &events, None).await;
    let closed = world.hook("http://127.0.0.1:1/nobody", &["registered_model.created"], None).await;
    world.hook(&quick.url, &["registered_model.created"], None).await;
    world.register("m").await;
    world.append(&version("m", 1)).await;
    assert_eq!(quick.next().await.name(), "m");
    silent.next().await;
    let tags: Vec<KeyValue> = (0..600).map(|n| KeyValue::new(format!("k{n}"), "v")).collect();
    let tagged = ModelRegistered { version: Some(1), tags, ..of("m", ModelKind::VersionTagged) };
    world.append(&tagged).await;
    world.append(&ModelRegistered { event_id: Uuid::now_v7(), ..tagged }).await;
    world.register("n").await;
    assert_eq!(quick.next().await.name(), "n");
    world.settle().await;
    // Whoever is gone, or is not to be told any more, keeps nothing waiting.
    world.append(&hook_event(closed, WebhookKind::Deleted)).await;
    world.waits_for(MOST_PENDING).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn law_11_nothing_is_replayed_whatever_is_rebuilt_and_a_restart_goes_on() {
    let mut world = World::new().await;
    let mut receiver = Receiver::start().await;
    world.hook(&receiver.url, &["registered_model.created"], Some(SECRET)).await;
    world.register("first").await;
    assert_eq!(receiver.next().await.name(), "first");
    world.waits_for(0).await;
    // What happens while nobody looks is told afterwards, once.
    for (round, lost) in
        [&[][..], &["read-models"], &["webhooks.db"], &["read-models", "webhooks.db"]].iter().enumerate()
    {
        let missed = format!("missed-{round}");
        world.stop().await;
        append_to(world.path(), &registration(&missed)).await;
        for name in *lost {
            remove(&world.path().join(name));
        }
        world.start("the key").await;
        assert_eq!(receiver.next().await.name(), missed, "{lost:?}");
        let marker = format!("marker-{round}");
        world.register(&marker).await;
        assert_eq!(receiver.next().await.name(), marker, "{lost:?}");
        world.settle().await;
        world.waits_for(0).await;
        assert!(receiver.rest().is_empty(), "{lost:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happened_before_anybody_was_there_to_tell_is_not_told() {
    let (dir, mut receiver) = (tempfile::tempdir().unwrap(), Receiver::start().await);
    append_to(dir.path(), &hooked(Uuid::new_v4(), &receiver.url, &["registered_model.created"])).await;
    append_to(dir.path(), &registration("past")).await;
    let world = World::over(dir).await;
    world.register("now").await;
    assert_eq!(receiver.next().await.name(), "now");
    world.settle().await;
    world.waits_for(0).await;
    assert!(receiver.rest().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn law_04_what_waited_under_another_log_is_not_told_and_its_history_neither() {
    let mut one = World::new().await;
    let mut receiver = Receiver::start().await;
    receiver.answers_always(Answer::Status(503));
    one.hook(&receiver.url, &["registered_model.created"], None).await;
    one.register("of-one").await;
    receiver.next().await;
    one.stop().await;
    // Another log, with a past of its own, comes under the file.
    let mut other = World::new().await;
    receiver.answers_always(Answer::Status(200));
    other.hook(&receiver.url, &["model_version.created", "registered_model.created"], None).await;
    other.register("past").await;
    other.settle().await;
    other.waits_for(0).await;
    receiver.rest();
    other.stop().await;
    remove(&other.path().join("webhooks.db"));
    std::fs::copy(one.path().join("webhooks.db"), other.path().join("webhooks.db")).unwrap();
    other.start("the key").await;
    other.register("now").await;
    assert_eq!(receiver.next().await.name(), "now");
    other.waits_for(0).await;
    assert!(receiver.rest().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_outlives_a_restart_and_is_held_without_its_key() {
    let mut world = World::new().await;
    let mut receiver = Receiver::start().await;
    let hook = world.hook(&receiver.url, &["registered_model.created"], Some(SECRET)).await;
    receiver.answers_always(Answer::Never);
    world.register("m").await;
    let first = receiver.next().await;
    world.stop().await;
    receiver.answers_always(Answer::Status(200));
    // Unsigned it would be worth nothing, so it waits; others are told meanwhile.
    world.start("another key").await;
    world.hook(&receiver.url, &["registered_model.created"], None).await;
    world.register("n").await;
    let other = receiver.next().await;
    assert_eq!((other.name(), other.header("x-mlflow-signature")), ("n".to_owned(), ""));
    world.waits_for(2).await;
    world.stop().await;
    world.start("the key").await;
    let again = receiver.next().await;
    assert_eq!((again.name(), again.body.as_str()), ("m".to_owned(), first.body.as_str()));
    assert_eq!(again.header("x-mlflow-delivery-id"), first.header("x-mlflow-delivery-id"));
    assert_eq!(receiver.next().await.name(), "n");
    // What a webhook that is disabled would have been told is forgotten.
    world.waits_for(0).await;
    let disabled = WebhookChanged { status: Some("DISABLED".into()), ..hook_event(hook, WebhookKind::Updated) };
    world.append(&disabled).await;
    world.settle().await;
    world.register("o").await;
    assert_eq!((receiver.next().await.name(), receiver.rest().len()), ("o".to_owned(), 0));
    world.waits_for(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_waits_while_the_registry_is_rebuilt() {
    let mut world = World::new().await;
    let mut receiver = Receiver::start().await;
    // The first attempt gets no answer; before the second one the registry is emptied.
    receiver.answers(&[Answer::Never]);
    let id = world.hook(&receiver.url, &["registered_model.created"], None).await;
    world.register("m").await;
    assert_eq!(receiver.next().await.name(), "m");
    world.empty_registry().await;
    // It is looked up again and not found, once a second.
    tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
    assert_eq!((world.waiting().await, receiver.rest().len()), (1, 0));
    world.fill_registry(&hooked(id, &receiver.url, &["registered_model.created"])).await;
    assert_eq!(receiver.next().await.name(), "m");
    world.waits_for(0).await;
    world.stop().await;
}
