//! `POST /entities` with NDJSON bodies.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures::channel::mpsc;
use serde_json::json;
use support::{Service, assert_problem};

const NDJSON: &str = "application/x-ndjson";

fn line(id: &str) -> String {
    format!("{{\"entity_type\":\"curve\",\"entity_id\":\"{id}\",\"text\":\"Henry Hub\"}}\n")
}

/// Returns a body, and a sender of its chunks.
fn channel_body() -> (mpsc::UnboundedSender<Result<Bytes, std::io::Error>>, Body) {
    let (sender, parts) = mpsc::unbounded();
    (sender, Body::from_stream(parts))
}

/// Waits up to 5 s until the log has `count` records.
async fn wait_for_count(service: &Service, count: usize) {
    for _ in 0..500 {
        if service.entity_count().await == count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{} records, expected {count}", service.entity_count().await);
}

#[tokio::test]
async fn valid_lines_are_accepted_and_invalid_ones_are_named() {
    let service = Service::new().await;
    let mut body = vec![line("a"), "\n".into(), "{\"entity_type\":\"curve\"\n".into(), line("b").replace('\n', "\r\n")];
    body.push(line("x/y"));
    body.push(line("c").replace("}\n", ",\"tenant_id\":\"other\"}\n"));
    body.push(format!("{}\n", "x".repeat((2 << 20) + 1)));
    body.push(line("d"));
    // The last line is cut off.
    body.push(line("e")[..30].to_owned());
    let answer = service.post("/tenants/acme/entities", NDJSON, body.concat()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let json = answer.json();
    assert_eq!((json["accepted"].as_u64(), json["rejected_count"].as_u64()), (Some(3), Some(5)));
    let lines: Vec<_> = json["rejected"].as_array().unwrap().iter().map(|r| r["line"].as_u64().unwrap()).collect();
    assert_eq!(lines, [3, 5, 6, 7, 9]);
    assert!(json["rejected"][1]["reason"].as_str().unwrap().contains("entity_id"), "{json}");
    assert!(json.get("stopped").is_none());
    let listed: Vec<_> = json["positions"].as_array().unwrap().iter().map(|p| p.as_str().unwrap()).collect();
    assert_eq!(answer.headers["x-log-position"], listed.join(",").as_str());
    let mut ids: Vec<_> = service.entities().await.into_iter().map(|(_, event)| event.entity_id).collect();
    ids.sort();
    assert_eq!(ids, ["a", "b", "d"]);
}

#[tokio::test]
async fn streams_without_valid_lines_are_answered() {
    let service = Service::new().await;
    for (name, body, rejected) in [
        ("empty", Bytes::new(), 0),
        ("blank", Bytes::from_static(b"\n \n\r\n"), 0),
        ("not utf-8", Bytes::from_static(b"\xff\xfe\n{\"entity_type\":\"\xc3\x28\"}\n"), 2),
        ("one endless line", Bytes::from(vec![b'['; 5 << 20]), 1),
        ("an array", Bytes::from_static(b"[1,2]\n"), 1),
    ] {
        let answer = service.post("/entities", NDJSON, body).await;
        assert_eq!(answer.status, 200, "{name}: {}", answer.body);
        assert_eq!(
            (answer.json()["accepted"].as_u64(), answer.json()["rejected_count"].as_u64()),
            (Some(0), Some(rejected)),
            "{name}"
        );
        assert!(!answer.headers.contains_key("x-log-position"), "{name}");
    }
    let answer = service.post("/entities", NDJSON, "x\n".repeat(1500)).await.json();
    assert_eq!((answer["rejected"].as_array().unwrap().len(), answer["rejected_count"].as_u64()), (1000, Some(1500)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_200_000_lines_is_appended() {
    let service = Service::new().await;
    let parts = (0..200u32).map(|part| {
        let lines: String = (0..1000).map(|n| line(&format!("E{}", part * 1000 + n))).collect();
        Ok::<_, std::io::Error>(lines)
    });
    let body = Body::from_stream(futures::stream::iter(parts));
    let answer = service.post("/entities", NDJSON, body).await.json();
    assert_eq!((answer["accepted"].as_u64(), answer["rejected_count"].as_u64()), (Some(200_000), Some(0)));
    assert_eq!(service.entity_count().await, 200_000);
}

#[tokio::test]
async fn lines_of_a_slow_stream_are_appended_before_the_chunk_is_full() {
    let service = Service::new().await;
    let (sender, body) = channel_body();
    let sending = service.post("/entities", NDJSON, body);
    let feeding = async {
        sender.unbounded_send(Ok(line("a").into())).unwrap();
        wait_for_count(&service, 1).await;
        sender.unbounded_send(Ok(line("b").into())).unwrap();
        drop(sender);
    };
    let (answer, ()) = tokio::join!(sending, feeding);
    assert_eq!(answer.json()["accepted"], 2);
}

#[tokio::test]
async fn law_14_lines_before_a_failed_connection_stay_appended() {
    let service = Service::new().await;
    let (sender, body) = channel_body();
    sender.unbounded_send(Ok(format!("{}{}", line("a"), line("b").trim_end()).into())).unwrap();
    sender.unbounded_send(Err(std::io::Error::other("connection reset"))).unwrap();
    let answer = service.post("/entities", NDJSON, body).await.json();
    assert_eq!((answer["accepted"].as_u64(), answer["rejected"][0]["line"].as_u64()), (Some(1), Some(2)));
    assert_eq!(service.entity_count().await, 1);
    // The same if the caller disconnects without an error.
    let (sender, body) = channel_body();
    sender.unbounded_send(Ok(line("c").into())).unwrap();
    let disconnected = tokio::time::timeout(Duration::from_millis(20), service.post("/entities", NDJSON, body)).await;
    assert!(disconnected.is_err());
    drop(sender);
    wait_for_count(&service, 2).await;
}

#[tokio::test]
async fn a_shutdown_ends_a_stream_with_its_answer() {
    let service = Service::new().await;
    let (sender, body) = channel_body();
    sender.unbounded_send(Ok(format!("{}{}", line("a"), &line("b")[..20]).into())).unwrap();
    let stop = async {
        wait_for_count(&service, 1).await;
        service.dependencies.shutdown.cancel();
    };
    let (answer, ()) = tokio::join!(service.post("/entities", NDJSON, body), stop);
    assert_eq!(answer.status, 200);
    let json = answer.json();
    assert_eq!((json["accepted"].as_u64(), json["rejected"][0]["line"].as_u64()), (Some(1), Some(2)));
    assert!(json["stopped"].as_str().unwrap().contains("shutting down"));
    drop(sender);
}

#[tokio::test]
async fn a_stream_without_data_for_30_s_ends_with_its_answer() {
    let service = Service::new().await;
    // The log's threads do not use the paused clock, so this test appends nothing.
    tokio::time::pause();
    let (sender, body) = channel_body();
    sender.unbounded_send(Ok(Bytes::from_static(b"{\"entity_type\":"))).unwrap();
    let began = tokio::time::Instant::now();
    let answer = service.post("/entities", NDJSON, body).await;
    assert!(began.elapsed() >= Duration::from_secs(30));
    assert_eq!((answer.status, answer.json()["stopped"].as_str()), (200, Some("no data for 30 s")));
    assert_eq!(answer.json()["rejected_count"], 1);
    drop(sender);
}

#[tokio::test]
async fn law_14_a_partial_append_names_the_accepted_lines() {
    let service = Service::new().await;
    service.log.appends_left.store(1, Ordering::SeqCst);
    let body: String = (0..1000).map(|n| line(&format!("E{n}"))).collect();
    let answer = service.post("/entities", NDJSON, body).await;
    assert_problem("partial append", &answer, 503);
    let problem = answer.json();
    assert_eq!(problem["accepted"], 750);
    assert_eq!(problem["accepted_before_line"], 501);
    assert_eq!(problem["accepted_lines"], json!(["501-750"]));
    assert_eq!(problem["first_line_not_accepted"], 751);
    assert!(answer.headers.contains_key("x-log-position"));
    assert_eq!(service.entity_count().await, 750);
}

#[tokio::test]
async fn the_next_chunk_is_read_when_the_previous_one_is_durable() {
    let service = Service::new().await;
    let (sender, body) = channel_body();
    let chunk: Bytes = (0..500).map(|n| line(&format!("E{n}"))).collect::<String>().into();
    let sending = service.post("/entities", NDJSON, body);
    let feeding = async {
        sender.unbounded_send(Ok(chunk.clone())).unwrap();
        wait_for_count(&service, 500).await;
        sender.unbounded_send(Ok(chunk)).unwrap();
        drop(sender);
    };
    let (answer, ()) = tokio::join!(sending, feeding);
    assert_eq!((answer.json()["accepted"].as_u64(), service.entity_count().await), (Some(1000), 1000));
}
