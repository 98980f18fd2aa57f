//! `webhooks/*`, compared with recorded answers of MLflow's server. The service sends only test deliveries.

use std::time::Duration;

use axum::body::Body;
use carbon_core::{TopicName, TopicPartition};
use carbon_schemas::events::WebhookChanged;
use carbon_schemas::{Decoded, Decoder, Event as _};
use carbon_webhooks::{Webhooks, signature};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::client::Expect::{Empty, Missing, Success};
use crate::client::{Client, INVALID, MISSING, assert_error, delete, get, patch, post};
use crate::support::Service;

fn webhooks(key: &str, allow_private: bool) -> Webhooks {
    Webhooks::new(key, allow_private, Duration::from_secs(5)).unwrap()
}

fn hook() -> Value {
    json!({"name": "w-1795476916", "description": "d", "url": "https://93.184.216.34/h",
        "events": [{"entity": "REGISTERED_MODEL", "action": "CREATED"},
            {"entity": "MODEL_VERSION_ALIAS", "action": "CREATED"}],
        "secret": "s3cr3t"})
}

async fn created(client: &Client, body: Value) -> Value {
    client.ok("webhooks", body).await["webhook"].clone()
}

/// Returns the webhook events of the log, with their encoded bytes.
async fn logged_events(client: &Client) -> Vec<(WebhookChanged, Vec<u8>)> {
    let topic = TopicName::parse(WebhookChanged::NAME).unwrap();
    let spec = &client.service.dependencies.topology.topics[WebhookChanged::NAME].spec;
    let mut decoder = Decoder::<WebhookChanged>::new(spec.partitions, spec.partitioner);
    let records = client.service.dependencies.log.read(&TopicPartition::new(topic, 0), 0, 1000).await.unwrap();
    let event = |record: &carbon_log::Record| {
        let Decoded::Event { event, .. } = decoder.decode(&record.raw()).unwrap() else { panic!("poison") };
        (event, record.value.clone().unwrap().to_vec())
    };
    records.iter().map(event).collect()
}

/// Starts a server that answers one request. Returns its URL and a task that returns the request: the headers in lower
/// case, and the body.
async fn serve_once(status: &str, body: &str) -> (String, tokio::task::JoinHandle<(String, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let answer = format!(
        "HTTP/1.1 {status}\r\nlocation: /x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut read = Vec::new();
        loop {
            assert_ne!(stream.read_buf(&mut read).await.unwrap(), 0, "the request is incomplete");
            let text = String::from_utf8_lossy(&read).into_owned();
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let head = head.to_lowercase();
            if body.len() == header(&head, "content-length").parse::<usize>().unwrap() {
                stream.write_all(answer.as_bytes()).await.unwrap();
                return (head, body.to_owned());
            }
        }
    });
    (url, served)
}

fn header<'a>(head: &'a str, name: &str) -> &'a str {
    let line = head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("{name} is not in {head}")).trim()
}

#[tokio::test]
async fn the_calls_of_a_webhook_are_answered_as_recorded() {
    let client = Client::new().await;
    assert_eq!(client.get("webhooks").await, json!({}));
    let made = created(&client, hook()).await;
    let (id, at) = (made["webhook_id"].as_str().unwrap(), &made["creation_timestamp"]);
    let expected = json!({
        "webhook_id": id, "name": "w-1795476916", "description": "d", "url": "https://93.184.216.34/h",
        "events": [{"entity": "MODEL_VERSION_ALIAS", "action": "CREATED"},
            {"entity": "REGISTERED_MODEL", "action": "CREATED"}],
        "status": "ACTIVE", "creation_timestamp": at, "last_updated_timestamp": at,
    });
    assert_eq!(made, expected);
    assert_eq!(client.get(&format!("webhooks/{id}")).await, json!({"webhook": expected}));
    assert_eq!(client.get("webhooks").await, json!({"webhooks": [expected]}));

    let changed = client.send("PATCH", &format!("webhooks/{id}"), r#"{"name": "w2", "status": "DISABLED"}"#).await;
    let changed = changed.json()["webhook"].clone();
    assert_eq!(
        (&changed["name"], &changed["status"], &changed["url"]),
        (&json!("w2"), &json!("DISABLED"), &made["url"])
    );
    assert!(changed["last_updated_timestamp"].as_i64() >= at.as_i64() && changed["creation_timestamp"] == *at);

    let not_found = "Webhook with ID $0 not found.";
    client
        .run_steps(
            &[id],
            &[
                // Empty and missing arguments change nothing, except an empty description.
                patch("webhooks/$0", r#"{"name": "", "url": "", "events": [], "description": ""}"#, Success),
                get("webhooks/nonsense", Missing("Webhook with ID nonsense not found.")),
                delete("webhooks/$0", "", Empty),
                delete("webhooks/$0", "", Missing(not_found)),
                get("webhooks/$0", Missing(not_found)),
                patch("webhooks/$0", "{}", Missing(not_found)),
                post("webhooks/$0/test", "{}", Missing(not_found)),
            ],
        )
        .await;
    assert_eq!(client.get("webhooks").await, json!({}));
}

#[tokio::test]
async fn webhooks_are_paginated_and_belong_to_one_tenant() {
    let client = Client::new().await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(created(&client, hook()).await["webhook_id"].as_str().unwrap().to_owned());
    }
    let (mut found, mut path) = (Vec::new(), "webhooks?max_results=2".to_owned());
    loop {
        let page = client.get(&path).await;
        let items = page["webhooks"].as_array().unwrap();
        assert!(items.len() <= 2);
        found.extend(items.iter().map(|hook| hook["webhook_id"].as_str().unwrap().to_owned()));
        let Some(token) = page["next_page_token"].as_str() else { break };
        path = format!("webhooks?max_results=2&page_token={}", token.replace('=', "%3D"));
    }
    found.sort();
    ids.sort();
    assert_eq!(found, ids);
    let other = client.with_prefix("/tenants/other/api/2.0/mlflow");
    assert_eq!(other.get("webhooks").await, json!({}));
    let answer = other.send("GET", &format!("webhooks/{}", ids[0]), Body::empty()).await;
    assert_error("another's", &answer, 404, MISSING, &format!("Webhook with ID {} not found.", ids[0]));
}

#[tokio::test]
async fn a_secret_is_encrypted_in_the_log_and_never_answered() {
    let client = Client::new().await;
    let made = created(&client, hook()).await;
    let id = made["webhook_id"].as_str().unwrap();
    for body in [r#"{"secret": "another-s3cr3t"}"#, r#"{"description": "x"}"#, r#"{"secret": ""}"#] {
        let answer = client.send("PATCH", &format!("webhooks/{id}"), body).await;
        assert!(
            answer.status == 200 && !answer.body.contains("s3cr3t") && !answer.body.contains("v1:"),
            "{}",
            answer.body
        );
    }
    let events = logged_events(&client).await;
    let scope = carbon_core::TenantScope::authorised(events[0].0.tenant_id.clone());
    let opened: Vec<_> = events
        .iter()
        .map(|(event, bytes)| {
            assert!(!String::from_utf8_lossy(bytes).contains("s3cr3t"));
            let sealed = event.sealed_secret.as_deref()?;
            Some(client.service.dependencies.webhooks.open(&scope, id, sealed).unwrap())
        })
        .collect();
    let secret = |text: &str| Some(Some(text.to_owned()));
    assert_eq!(opened, [secret("s3cr3t"), secret("another-s3cr3t"), None, Some(None)]);
}

#[tokio::test]
async fn a_secret_requires_an_encryption_key() {
    let mut client = Client::new().await;
    client.service = Service::with_webhooks(webhooks("", true)).await;
    let message = "a webhook's secret is kept sealed, for which ML_SECRET_KEY must be set*";
    client.rejects("webhooks", hook(), 400, INVALID, message).await;
    let mut body = hook();
    body["secret"] = json!("");
    let id = created(&client, body).await["webhook_id"].as_str().unwrap().to_owned();
    let answer = client.send("PATCH", &format!("webhooks/{id}"), r#"{"secret": "s"}"#).await;
    assert_error("update", &answer, 400, INVALID, message);
    assert_eq!(logged_events(&client).await.len(), 1);
}

#[tokio::test]
async fn invalid_webhooks_append_no_event() {
    let client = Client::new().await;
    let id = created(&client, hook()).await["webhook_id"].as_str().unwrap().to_owned();
    let with = |field: &str, value: Value| {
        let mut body = hook();
        body[field] = value;
        body
    };
    let event = |entity: &str, action: &str| with("events", json!([{"entity": entity, "action": action}]));
    let long = "x".repeat(3000);
    for (body, message) in [
        (with("name", Value::Null), "Missing value for required parameter 'name'*"),
        (with("name", json!(7)), "Invalid value 7 for parameter 'name' supplied*"),
        (with("name", json!("a b")), "Webhook name 'a b' is invalid.*"),
        (with("name", json!("-a")), "Webhook name '-a' is invalid.*"),
        (with("name", json!("a".repeat(64))), "Webhook name*"),
        (with("url", json!("")), "Missing value for required parameter 'url'*"),
        (with("url", json!("nonsense")), "Invalid webhook URL*"),
        (with("url", json!("ftp://127.0.0.1/x")), "Invalid webhook URL: scheme \"ftp\"*"),
        (with("url", json!("https://u:p@example.com/")), "Invalid webhook URL: it holds a user*"),
        (with("url", json!(format!("https://example.com/{long}"))), "Invalid webhook URL*"),
        (with("url", json!(" https://example.com/")), "*"),
        (with("events", json!([])), "Missing value for required parameter 'events'*"),
        (with("events", json!("registered_model.created")), "Invalid value*"),
        (
            with("events", json!([{"entity": "REGISTERED_MODEL"}])),
            "Missing value for required parameter 'events[0].action'*",
        ),
        (event("RUN", "CREATED"), "Invalid value \"RUN\" for parameter 'events[0].entity' supplied*"),
        (
            event("REGISTERED_MODEL", "DELETED"),
            "Invalid action 'deleted' for entity 'registered_model'. Valid actions are: ['created']",
        ),
        (with("status", json!("PAUSED")), "Invalid value \"PAUSED\" for parameter 'status' supplied*"),
        (with("secret", json!("x".repeat(1001))), "'secret' exceeds the maximum length of 1000 characters"),
        (with("description", json!("x".repeat(70_000))), "*"),
    ] {
        client.rejects("webhooks", body.clone(), 400, INVALID, message).await;
        // An update has the same checks, except that arguments may be missing.
        if !message.starts_with("Missing value") || message.contains('[') {
            let answer = client.send("PATCH", &format!("webhooks/{id}"), body.to_string()).await;
            assert_error(&body.to_string(), &answer, 400, INVALID, message);
        }
    }
    for query in ["max_results=0", "max_results=1001", "max_results=x", "page_token=%25"] {
        let answer = client.send("GET", &format!("webhooks?{query}"), Body::empty()).await;
        assert_error(query, &answer, 400, INVALID, "*");
    }
    assert_eq!(logged_events(&client).await.len(), 1);
}

#[tokio::test]
async fn private_addresses_are_rejected_unless_they_are_allowed() {
    let mut client = Client::new().await;
    client.service = Service::with_webhooks(webhooks("k", false)).await;
    for url in [
        "http://127.0.0.1:8080/",
        "http://localhost/x",
        "http://169.254.169.254/latest",
        "http://[::1]/",
        "http://10.1/",
    ] {
        let mut body = hook();
        body["url"] = json!(url);
        client.rejects("webhooks", body, 400, INVALID, "Invalid webhook URL: *").await;
    }
    created(&client, hook()).await;
}

#[tokio::test]
async fn a_test_delivery_is_signed_and_its_result_is_answered() {
    let client = Client::new().await;
    let (url, served) = serve_once("200 OK", "thanks").await;
    let mut body = hook();
    body["url"] = json!(url);
    let id = created(&client, body.clone()).await["webhook_id"].as_str().unwrap().to_owned();
    let test = format!("webhooks/{id}/test");
    let result = client.ok(&test, json!({})).await;
    assert_eq!(result, json!({"result": {"success": true, "response_status": 200, "response_body": "thanks"}}));
    let (head, delivered) = served.await.unwrap();
    let sent =
        signature("s3cr3t", header(&head, "x-mlflow-delivery-id"), header(&head, "x-mlflow-timestamp"), &delivered);
    assert_eq!(header(&head, "x-mlflow-signature"), sent.to_lowercase());
    let delivered: Value = serde_json::from_str(&delivered).unwrap();
    // The default is the first of the webhook's events.
    assert_eq!((&delivered["entity"], &delivered["action"]), (&json!("model_version_alias"), &json!("created")));
    assert_eq!(delivered["data"], json!({"name": "example_model", "alias": "example_alias", "version": "1"}));

    for (status, success, error) in
        [("404 Not Found", false, false), ("302 Found", false, true), ("500 Oh", false, false)]
    {
        let (url, served) = serve_once(status, "").await;
        client.send("PATCH", &format!("webhooks/{id}"), json!({"url": url}).to_string()).await;
        let asked = json!({"event": {"entity": "MODEL_VERSION_TAG", "action": "SET"}});
        let result = client.ok(&test, asked).await["result"].clone();
        assert_eq!((&result["success"], result["error_message"].is_string()), (&json!(success), error), "{result}");
        assert_eq!(result["response_status"].to_string(), status[..3]);
        let delivered: Value = serde_json::from_str(&served.await.unwrap().1).unwrap();
        assert_eq!(
            delivered["data"],
            json!({"name": "example_model", "version": "1", "key": "example_key", "value": "example_value"})
        );
    }
    // The server does not listen any more.
    let result = client.ok(&test, json!({})).await["result"].clone();
    assert_eq!((&result["success"], &result["response_status"]), (&json!(false), &Value::Null));
    assert!(result["error_message"].as_str().unwrap().starts_with("Failed to test webhook: "), "{result}");
    client
        .rejects(&test, json!({"event": {"entity": "RUN", "action": "SET"}}), 400, INVALID, "Invalid value \"RUN\"*")
        .await;
}
