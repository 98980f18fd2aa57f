//! `tail` against a stream that breaks.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::OriginalUri;
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use futures::StreamExt as _;
use serde_json::{Value, json};

use crate::support::{Program, Seen, serve};

fn frame(offset: u64) -> String {
    let event = json!({"position": format!("t:0:{offset}"), "timestamp": "1970-01-01T00:00:00.000Z", "key": format!("acme/curve/C{offset}"),
        "headers": {}, "event": {"text": format!("text {offset}"), "deleted": false}});
    format!("id: t:0:{offset}\ndata: {event}\n\n")
}

/// Answers two events and ends; after them, by the last id, two more, and stays open but for heartbeats.
fn stream(seen: &Seen) -> Router {
    let seen = seen.clone();
    let events = move |OriginalUri(uri): OriginalUri, headers: HeaderMap| async move {
        let last = headers.get("last-event-id").and_then(|value| value.to_str().ok()).unwrap_or("-").to_owned();
        seen.lock().unwrap().push(format!("{uri} {last}"));
        let body = match last.as_str() {
            "-" => Body::from(format!(": hello\nretry: 10\n\n{}{}", frame(0), frame(1))),
            _ => {
                let first = futures::stream::iter([Ok::<_, std::io::Error>(frame(2) + &frame(3))]);
                let beats = futures::stream::unfold((), |()| async {
                    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                    Some((Ok(": beat\n\n".to_owned()), ()))
                });
                Body::from_stream(first.chain(beats))
            }
        };
        let response: Response = ([("content-type", "text/event-stream")], body).into_response();
        response
    };
    Router::new().route("/events/{topic}", get(events))
}

#[test]
fn a_broken_stream_goes_on_after_the_last_event() {
    let seen: Seen = Arc::default();
    let program = Program::at(serve(stream(&seen)));
    let ran = program.run(&["tail", "t", "--from", "earliest", "-n", "4"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let lines: Vec<&str> = ran.out.lines().collect();
    assert_eq!(lines.len(), 4, "{}", ran.out);
    assert_eq!(lines[2], "1970-01-01T00:00:00.000Z  t:0:2  acme/curve/C2  text 2");
    assert!(ran.err.contains("connecting again"), "{}", ran.err);
    assert_eq!(
        *seen.lock().unwrap(),
        ["/events/t?from=earliest&follow=true -", "/events/t?from=earliest&follow=true t:0:1"]
    );
}

#[test]
fn no_follow_ends_where_the_service_ends() {
    let seen: Seen = Arc::default();
    let program = Program::at(serve(stream(&seen)));
    let ran = program.run(&["tail", "t", "--no-follow", "--json"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let key = |line| serde_json::from_str::<Value>(line).unwrap()["key"].clone();
    assert_eq!(ran.out.lines().map(key).collect::<Vec<_>>(), ["acme/curve/C0", "acme/curve/C1"]);
    assert_eq!(*seen.lock().unwrap(), ["/events/t?from=earliest&follow=false -"]);
}

#[test]
fn a_stream_that_the_log_ends_is_a_failure() {
    let events =
        || async { ([("content-type", "text/event-stream")], "event: error\ndata: {\"detail\": \"log is gone\"}\n\n") };
    let ran = Program::at(serve(Router::new().route("/events/{topic}", get(events)))).run(&["tail", "t"]);
    assert!(ran.code == Some(1) && ran.err.contains("log is gone"), "{:?} {}", ran.code, ran.err);
}
