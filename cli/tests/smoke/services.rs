//! Commands against services that are away, refuse, or answer.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use axum::extract::OriginalUri;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::support::{Program, Seen, serve};

#[test]
fn a_service_that_is_away_is_exit_code_3() {
    let program = Program::alone();
    let entities = program.file("e.jsonl", "{}\n");
    for (args, service, setting) in [
        (&["search", "x"][..], "query-api", "ML_URL"),
        (&["tail", "ml.entity.changed.v1"], "query-api", "ML_URL"),
        (&["status"], "tracking-api", "ML_TRACKING_URL"),
        (&["status", "--watch"], "tracking-api", "ML_TRACKING_URL"),
        (&["produce", "entities", entities.to_str().unwrap()], "tracking-api", "ML_TRACKING_URL"),
    ] {
        let ran = program.run(args);
        assert_eq!(ran.code, Some(3), "{args:?}: {}", ran.err);
        for part in [service, "does not answer at http://127.0.0.1:", "carbon-ml up", setting] {
            assert!(ran.err.contains(part), "{args:?}: {}", ran.err);
        }
        assert_eq!(ran.err.lines().count(), 1, "{}", ran.err);
    }
}

fn problem(status: StatusCode, code: &str, detail: &str) -> Response {
    let body = json!({"title": "t", "status": status.as_u16(), "detail": detail, "code": code, "request_id": "r-1"});
    (status, [("content-type", "application/problem+json")], body.to_string()).into_response()
}

#[test]
fn refusals_have_the_exit_code_of_their_kind() {
    for (status, code, exit) in [
        (StatusCode::BAD_REQUEST, "invalid_input", 1),
        (StatusCode::FORBIDDEN, "forbidden", 1),
        (StatusCode::NOT_FOUND, "not_found", 4),
        (StatusCode::INTERNAL_SERVER_ERROR, "internal", 1),
        (StatusCode::SERVICE_UNAVAILABLE, "unavailable", 3),
        (StatusCode::GATEWAY_TIMEOUT, "deadline_exceeded", 3),
    ] {
        let router = Router::new().fallback(any(move || async move { problem(status, code, "said \u{1b}[31mso") }));
        let ran = Program::at(serve(router)).run(&["search", "x"]);
        assert_eq!(ran.code, Some(exit), "{code}: {}", ran.err);
        assert!(ran.err.contains("said  [31mso"), "{}", ran.err);
    }
}

#[test]
fn an_overloaded_service_is_asked_again() {
    let asked = Arc::new(AtomicU32::new(0));
    let search = move || {
        let asked = asked.clone();
        async move {
            match asked.fetch_add(1, Ordering::SeqCst) {
                0 | 1 => {
                    let mut response = problem(StatusCode::TOO_MANY_REQUESTS, "overloaded", "later");
                    response.headers_mut().insert("retry-after", "0".parse().unwrap());
                    response
                }
                _ => Json(found(&[])).into_response(),
            }
        }
    };
    let ran = Program::at(serve(Router::new().route("/search", post(search)))).run(&["search", "x"]);
    assert_eq!((ran.code, ran.out.trim()), (Some(0), "nothing was found"), "{}", ran.err);
}

fn found(hits: &[Value]) -> Value {
    json!({"results": hits, "total": hits.len(), "query": "q", "semantic": true, "latency_ms": 1.5, "generation": "search-v1-m@1@f32-1"})
}

#[test]
fn a_search_is_a_table_that_fits() {
    let seen: Seen = Arc::default();
    let search = {
        let seen = seen.clone();
        move |OriginalUri(uri): OriginalUri, headers: HeaderMap, Json(body): Json<Value>| async move {
            let min = headers.get("x-min-position").and_then(|value| value.to_str().ok()).unwrap_or("-").to_owned();
            seen.lock().unwrap().push(format!("{uri} {min} {body}"));
            let hit = |id: &str, name: Value| {
                json!({"entity_type": "curve", "entity_id": id, "score": 0.91234, "text": "words of a long text ".repeat(30),
                    "metadata": {"name": name}, "tags": [], "explain": {"semantic_rank": 1, "semantic_score": 0.5,
                    "lexical_rank": null, "lexical_score": null, "fused_score": 0.7, "fusion": "weighted", "k": 60, "boosts": {}}})
            };
            Json(found(&[hit("NG_HH", json!("Henry Hub")), hit("TTF", json!(null))]))
        }
    };
    let program = Program::at(serve(Router::new().fallback(post(search))));
    let ran = program.run_with(
        &[
            "search",
            "gas",
            "--type",
            "curve",
            "--filter",
            "year>=2020",
            "--tenant",
            "acme",
            "--min-position",
            "t:0:4",
            "--explain",
        ],
        "",
        &[("COLUMNS", "90")],
    );
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let lines: Vec<&str> = ran.out.lines().collect();
    assert!(lines[0].trim_start().starts_with("rank") && lines[0].contains("text"), "{}", ran.out);
    assert!(lines[1].contains("0.912") && lines[1].contains("Henry Hub") && lines[1].contains('…'), "{}", ran.out);
    assert!(lines[1..3].iter().all(|line| line.chars().count() <= 90), "{}", ran.out);
    assert!(ran.out.contains("semantic #1 0.5000, lexical -, fused 0.7000 (weighted)"), "{}", ran.out);
    assert!(!ran.out.contains('\u{1b}'), "colours are for terminals alone");
    let asked = seen.lock().unwrap()[0].clone();
    assert!(asked.starts_with("/tenants/acme/search t:0:4 "), "{asked}");
    let body: Value = serde_json::from_str(asked.splitn(3, ' ').last().unwrap()).unwrap();
    assert_eq!(body["filters"], json!({"type": "curve", "year": {"gte": 2020}}));
    let ran = program.run(&["search", "gas", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&ran.out).unwrap()["results"][1]["entity_id"], "TTF");
}

/// Takes entities: a line with `bad` in it is rejected.
async fn entities(body: Body) -> Response {
    let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_else(|_| Bytes::new());
    let (mut accepted, mut rejected) = (0, Vec::new());
    for (number, line) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        match serde_json::from_slice::<Value>(line) {
            Ok(entity) if entity["entity_id"] != "bad" => accepted += 1,
            Ok(_) => rejected.push(json!({"line": number, "reason": "text is empty"})),
            Err(error) => rejected.push(json!({"line": number, "reason": error.to_string()})),
        }
    }
    let answer = json!({"accepted": accepted, "rejected_count": rejected.len(), "rejected": rejected, "positions": ["t:0:1", "t:3:7"]});
    Json(answer).into_response()
}

#[test]
fn entities_are_produced_from_lines_arrays_and_standard_input() {
    let program = Program::at(serve(Router::new().route("/entities", post(entities))));
    let good = "{\"entity_id\": \"a\"}\n\n{\"entity_id\": \"b\"}";
    let path = program.file("e.jsonl", good);
    let ran = program.run(&["produce", "entities", path.to_str().unwrap()]);
    assert_eq!(
        (ran.code, ran.out.as_str()),
        (Some(0), "accepted 2, rejected 0\npositions t:0:1,t:3:7\n"),
        "{}",
        ran.err
    );
    let path = program.file("e.json", "[{\"entity_id\":\n \"a\"}, {\"entity_id\": \"bad\"}]");
    let ran = program.run(&["produce", "entities", path.to_str().unwrap()]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.out.contains("accepted 1, rejected 1\n  element 2: text is empty"), "{}", ran.out);
    let many: String =
        (0..20_000).map(|n| format!("{{\"entity_id\": \"e{n}\", \"text\": \"{}\"}}\n", "x".repeat(50))).collect();
    let ran = program.run_with(&["produce", "entities", "-", "--json"], &many, &[]);
    assert_eq!(serde_json::from_str::<Value>(&ran.out).unwrap()["accepted"], 20_000, "{}", ran.err);
    let path = program.file("broken.json", "[{\"entity_id\": \"a\"},\n 3]");
    let ran = program.run(&["produce", "entities", path.to_str().unwrap()]);
    assert!(
        ran.code == Some(1) && ran.out.contains("accepted 1") && ran.err.contains("line 2"),
        "{}{}",
        ran.out,
        ran.err
    );
    let ran = program.run(&["produce", "entities", "nowhere.jsonl"]);
    assert_eq!((ran.code, ran.err.contains("nowhere.jsonl")), (Some(4), true), "{}", ran.err);
}

#[test]
fn produce_waits_until_a_search_sees_it() {
    let seen: Seen = Arc::new(Mutex::new(Vec::new()));
    let search = {
        let seen = seen.clone();
        move |headers: HeaderMap| async move {
            let mut seen = seen.lock().unwrap();
            seen.push(headers["x-min-position"].to_str().unwrap().to_owned());
            match seen.len() {
                1 => problem(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "not there yet"),
                _ => Json(found(&[])).into_response(),
            }
        }
    };
    let router = Router::new()
        .route("/entities", post(entities))
        .route("/search", post(search))
        .route("/index/stats", get(|| async { Json(json!({"total_entities": 0})) }));
    let ran =
        Program::at(serve(router)).run_with(&["produce", "entities", "-", "--wait"], "{\"entity_id\":\"a\"}", &[]);
    assert!(ran.code == Some(0) && ran.out.contains("can be searched"), "{}{}", ran.out, ran.err);
    assert_eq!(*seen.lock().unwrap(), ["t:0:1,t:3:7", "t:0:1,t:3:7"]);
}

#[test]
fn status_is_shown() {
    let status = json!({"processors": [{"name": "embedder", "phase": "running", "lag": 3, "oldest_event_age_s": 1.5}],
        "generations": [], "dead_letters": {}, "log": {"topics": [{"name": "ml.entity.changed.v1", "records": 5}]}});
    let router = Router::new().route("/status", get(move || async move { Json(status) }));
    let program = Program::at(serve(router));
    let ran = program.run(&["status"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    for part in ["embedder", "running", "generations: none", "dead letters: none", "ml.entity.changed.v1"] {
        assert!(ran.out.contains(part), "{}", ran.out);
    }
    assert!(serde_json::from_str::<Value>(&program.run(&["status", "--json"]).out).unwrap()["processors"].is_array());
}
