//! Webhooks from the log to an HTTP receiver: which changes are delivered, to which webhooks, how often, and which
//! never.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "webhooks/harness.rs"]
mod harness;
#[path = "webhooks/receiver.rs"]
mod receiver;

use carbon_core::{Clock as _, SystemClock, TenantId};
use carbon_processors::MAX_PENDING_DELIVERIES;
use carbon_schemas::events::{KeyValue, ModelKind, ModelPromoted, ModelRegistered, WebhookChanged, WebhookKind};
use carbon_webhooks::signature;
use harness::{
    Harness, KEY, alias, append_to, model_event, pairs, registration, remove, version, webhook_created, webhook_event,
};
use receiver::{Answer, Call, Receiver};
use serde_json::{Value, json};
use uuid::Uuid;

const SECRET: &str = "a-secret-of-some-length";

/// The event of a request, as `entity.action`, and its data.
fn event_and_data(call: &Call) -> (String, Value) {
    let body = call.json();
    (format!("{}.{}", body["entity"].as_str().unwrap(), body["action"].as_str().unwrap()), body["data"].clone())
}

/// Waits until all records are processed and no delivery is pending, and checks that the receiver got no further
/// request.
async fn assert_no_further_call(harness: &Harness, receiver: &mut Receiver) {
    harness.settle().await;
    harness.wait_for_pending(0).await;
    assert!(receiver.rest().is_empty());
}

const ALL_EVENTS: [&str; 10] = [
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
async fn law_09_only_accepted_changes_are_delivered_signed_and_in_order() {
    let harness = Harness::new().await;
    let mut receiver = Receiver::start().await;
    harness.create_webhook(&receiver.url, &ALL_EVENTS, Some(SECRET)).await;
    let mut other = registration("m");
    other.tenant_id = TenantId::parse("other").unwrap();
    harness.append(&other).await;
    let first = ModelRegistered { description: Some("of gas".into()), tags: pairs(&[("a", "b")]), ..registration("m") };
    harness.append(&first).await;
    // The name is taken: the fold rejects the second claim, and no webhook is notified.
    harness.register("m").await;
    harness.append(&ModelRegistered { run_id: Some("r".into()), ..version("m", 1) }).await;
    harness.append(&version("m", 1)).await;
    let tagged = ModelRegistered {
        version: Some(1),
        tags: pairs(&[("k", "v"), ("l", "w")]),
        removed_tags: vec!["gone".into()],
        ..model_event("m", ModelKind::VersionTagged)
    };
    harness.append(&tagged).await;
    harness.append(&ModelRegistered { tags: pairs(&[("k", "v")]), ..model_event("m", ModelKind::Tagged) }).await;
    // Records of different topics are ordered by their time only.
    harness.settle().await;
    harness.append(&alias("m", Some(1))).await;
    harness.append(&alias("m", Some(7))).await;
    let staged = ModelPromoted { alias: None, stage: Some("Production".into()), ..alias("m", Some(1)) };
    harness.append(&staged).await;
    harness.append(&alias("m", None)).await;

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
        assert_eq!(event_and_data(call), ((*event).to_owned(), data.clone()));
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
    assert_no_further_call(&harness, &mut receiver).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prompts_are_delivered_as_prompt_events() {
    let harness = Harness::new().await;
    let mut receiver = Receiver::start().await;
    harness.create_webhook(&receiver.url, &ALL_EVENTS, None).await;
    let prompt = pairs(&[("mlflow.prompt.is_prompt", "true"), ("mlflow.prompt.text", "Hi {{x}}"), ("a", "b")]);
    harness.append(&ModelRegistered { tags: prompt.clone(), ..registration("p") }).await;
    harness.append(&ModelRegistered { tags: prompt, ..version("p", 1) }).await;
    harness.append(&ModelRegistered { tags: pairs(&[("k", "v")]), ..model_event("p", ModelKind::Tagged) }).await;
    harness.settle().await;
    harness.append(&alias("p", Some(1))).await;
    let calls: Vec<_> = receiver.take(4).await.iter().map(event_and_data).collect();
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
async fn a_retryable_failure_is_retried_with_the_same_id_and_a_final_one_is_not() {
    let harness = Harness::new().await;
    let mut receiver = Receiver::start().await;
    harness.create_webhook(&receiver.url, &["registered_model.created"], Some(SECRET)).await;
    receiver.answers(&[Answer::Status(503), Answer::Status(429), Answer::Never, Answer::Status(204)]);
    harness.register("again").await;
    let tries = receiver.take(4).await;
    for call in &tries {
        assert_eq!(call.header("x-mlflow-delivery-id"), tries[0].header("x-mlflow-delivery-id"));
        let (id, at) = (call.header("x-mlflow-delivery-id"), call.header("x-mlflow-timestamp"));
        assert_eq!(call.header("x-mlflow-signature"), signature(SECRET, id, at, &call.body));
        assert_eq!((call.name(), &call.body), ("again".to_owned(), &tries[0].body));
    }
    harness.wait_for_pending(0).await;
    // A rejection and a redirect are final, and so is the last attempt.
    receiver.answers(&[Answer::Status(404), Answer::Status(302)]);
    harness.register("refused").await;
    harness.register("redirected").await;
    receiver.answers(&[Answer::Status(500); 5]);
    harness.register("given-up").await;
    harness.register("after").await;
    let names: Vec<_> = receiver.take(8).await.iter().map(Call::name).collect();
    let expected = ["refused", "redirected", "given-up", "given-up", "given-up", "given-up", "given-up", "after"];
    assert_eq!(names, expected);
    assert_no_further_call(&harness, &mut receiver).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_receiver_delays_no_other_webhook_and_its_queue_is_bounded() {
    let mut harness = Harness::new().await;
    let (mut silent, mut quick) = (Receiver::start().await, Receiver::start().await);
    silent.answers_always(Answer::Never);
    let events = ["model_version_tag.set", "registered_model.created"];
    harness.create_webhook(&silent.url, &events, None).await;
    let closed = harness.create_webhook("http://127.0.0.1:1/nobody", &["registered_model.created"], None).await;
    harness.create_webhook(&quick.url, &["registered_model.created"], None).await;
    harness.register("m").await;
    harness.append(&version("m", 1)).await;
    assert_eq!(quick.next().await.name(), "m");
    silent.next().await;
    let tags: Vec<KeyValue> = (0..600).map(|n| KeyValue::new(format!("k{n}"), "v")).collect();
    let tagged = ModelRegistered { version: Some(1), tags, ..model_event("m", ModelKind::VersionTagged) };
    harness.append(&tagged).await;
    harness.append(&ModelRegistered { event_id: Uuid::now_v7(), ..tagged }).await;
    harness.register("n").await;
    assert_eq!(quick.next().await.name(), "n");
    harness.settle().await;
    // The deliveries of a deleted webhook are deleted.
    harness.append(&webhook_event(closed, WebhookKind::Deleted)).await;
    harness.wait_for_pending(MAX_PENDING_DELIVERIES).await;
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn law_11_a_restart_continues_and_no_rebuild_replays_a_delivery() {
    let mut harness = Harness::new().await;
    let mut receiver = Receiver::start().await;
    harness.create_webhook(&receiver.url, &["registered_model.created"], Some(SECRET)).await;
    harness.register("first").await;
    assert_eq!(receiver.next().await.name(), "first");
    harness.wait_for_pending(0).await;
    // A change while the process is stopped is delivered once after the start.
    for (round, lost) in
        [&[][..], &["read-models"], &["webhooks.db"], &["read-models", "webhooks.db"]].iter().enumerate()
    {
        let missed = format!("missed-{round}");
        harness.stop().await;
        append_to(harness.path(), &registration(&missed)).await;
        for name in *lost {
            remove(&harness.path().join(name));
        }
        harness.start(KEY).await;
        assert_eq!(receiver.next().await.name(), missed, "{lost:?}");
        let marker = format!("marker-{round}");
        harness.register(&marker).await;
        assert_eq!(receiver.next().await.name(), marker, "{lost:?}");
        harness.settle().await;
        harness.wait_for_pending(0).await;
        assert!(receiver.rest().is_empty(), "{lost:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_before_the_first_start_are_not_delivered() {
    let (dir, mut receiver) = (tempfile::tempdir().unwrap(), Receiver::start().await);
    append_to(dir.path(), &webhook_created(Uuid::new_v4(), &receiver.url, &["registered_model.created"])).await;
    append_to(dir.path(), &registration("past")).await;
    let harness = Harness::open(dir).await;
    harness.register("now").await;
    assert_eq!(receiver.next().await.name(), "now");
    assert_no_further_call(&harness, &mut receiver).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn law_04_an_outbox_of_another_log_is_emptied_and_history_is_not_delivered() {
    let mut one = Harness::new().await;
    let mut receiver = Receiver::start().await;
    receiver.answers_always(Answer::Status(503));
    one.create_webhook(&receiver.url, &["registered_model.created"], None).await;
    one.register("of-one").await;
    receiver.next().await;
    one.stop().await;
    // The outbox is copied to a data folder with another log, which has records of its own.
    let mut other = Harness::new().await;
    receiver.answers_always(Answer::Status(200));
    other.create_webhook(&receiver.url, &["model_version.created", "registered_model.created"], None).await;
    other.register("past").await;
    other.settle().await;
    other.wait_for_pending(0).await;
    receiver.rest();
    other.stop().await;
    remove(&other.path().join("webhooks.db"));
    std::fs::copy(one.path().join("webhooks.db"), other.path().join("webhooks.db")).unwrap();
    other.start(KEY).await;
    other.register("now").await;
    assert_eq!(receiver.next().await.name(), "now");
    assert_no_further_call(&other, &mut receiver).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pending_deliveries_survive_a_restart_and_are_held_with_a_wrong_key() {
    let mut harness = Harness::new().await;
    let mut receiver = Receiver::start().await;
    let hook = harness.create_webhook(&receiver.url, &["registered_model.created"], Some(SECRET)).await;
    receiver.answers_always(Answer::Never);
    harness.register("m").await;
    let first = receiver.next().await;
    harness.stop().await;
    receiver.answers_always(Answer::Status(200));
    // Without its key, a delivery cannot be signed and waits. Other webhooks are notified meanwhile.
    harness.start("another key").await;
    harness.create_webhook(&receiver.url, &["registered_model.created"], None).await;
    harness.register("n").await;
    let other = receiver.next().await;
    assert_eq!((other.name(), other.header("x-mlflow-signature")), ("n".to_owned(), ""));
    harness.wait_for_pending(2).await;
    harness.stop().await;
    harness.start(KEY).await;
    let again = receiver.next().await;
    assert_eq!((again.name(), again.body.as_str()), ("m".to_owned(), first.body.as_str()));
    assert_eq!(again.header("x-mlflow-delivery-id"), first.header("x-mlflow-delivery-id"));
    assert_eq!(receiver.next().await.name(), "n");
    // A disabled webhook gets no deliveries.
    harness.wait_for_pending(0).await;
    let disabled = WebhookChanged { status: Some("DISABLED".into()), ..webhook_event(hook, WebhookKind::Updated) };
    harness.append(&disabled).await;
    harness.settle().await;
    harness.register("o").await;
    assert_eq!((receiver.next().await.name(), receiver.rest().len()), ("o".to_owned(), 0));
    harness.wait_for_pending(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_is_kept_while_the_registry_is_rebuilt() {
    let mut harness = Harness::new().await;
    let mut receiver = Receiver::start().await;
    // The first attempt gets no answer; before the second one the registry is emptied.
    receiver.answers(&[Answer::Never]);
    let id = harness.create_webhook(&receiver.url, &["registered_model.created"], None).await;
    harness.register("m").await;
    assert_eq!(receiver.next().await.name(), "m");
    harness.empty_registry().await;
    // The webhook is looked up once a second, and not found.
    tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
    assert_eq!((harness.pending().await, receiver.rest().len()), (1, 0));
    harness.fill_registry(&webhook_created(id, &receiver.url, &["registered_model.created"])).await;
    assert_eq!(receiver.next().await.name(), "m");
    harness.wait_for_pending(0).await;
    harness.stop().await;
}
