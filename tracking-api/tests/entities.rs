//! `POST /entities` with JSON bodies, and `DELETE /entities`.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::atomic::Ordering;

use axum::body::Body;
use axum::http::Request;
use carbon_core::{MetadataValue, Positions};
use serde_json::json;
use support::{Service, assert_problem};

const JSON: &str = "application/json";

fn entity(id: &str) -> serde_json::Value {
    json!({"entity_type": "curve", "entity_id": id, "text": "Henry Hub"})
}

#[tokio::test]
async fn law_1_a_post_appends_one_event_per_entity() {
    let service = Service::new().await;
    let mut body = entity("NG_HH");
    body["metadata"] = json!({"hub": "HH", "strike": 3, "live": true});
    body["tags"] = json!(["gas"]);
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let request =
        Request::post("/tenants/acme/api/v1/entities").header("content-type", "application/json; charset=utf-8");
    let answer = service.send(request.header("traceparent", trace).body(Body::from(body.to_string())).unwrap()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let position = answer.headers["x-log-position"].to_str().unwrap();
    assert_eq!(answer.json(), json!({"accepted": 1, "rejected": [], "rejected_count": 0, "positions": [position]}));
    let entities = service.entities().await;
    let [(record, event)] = entities.as_slice() else { panic!("{} records", entities.len()) };
    assert_eq!(record.position.to_string(), position);
    assert_eq!(record.key.as_deref(), Some(b"acme/curve/NG_HH".as_slice()));
    let header = |name: &str| record.raw().header(name).map(|value| String::from_utf8_lossy(value).into_owned());
    assert_eq!((header("traceparent").as_deref(), header("tenant_id").as_deref()), (Some(trace), Some("acme")));
    assert_eq!((event.text.as_str(), event.deleted, event.event_id.get_version_num()), ("Henry Hub", false, 7));
    assert_eq!((event.metadata["strike"].clone(), event.tags.len()), (MetadataValue::Double(3.0), 1));
}

#[tokio::test]
async fn an_array_is_appended_in_order_and_the_answer_has_one_position_per_partition() {
    let service = Service::new().await;
    let items: Vec<_> = (0..200).map(|n| entity(&format!("E{}", n % 50))).collect();
    let answer = service.post("/entities", JSON, json!(items).to_string()).await;
    assert_eq!((answer.status, answer.json()["accepted"].as_u64()), (200, Some(200)));
    let listed = answer.json()["positions"].as_array().unwrap().len();
    let done = Positions::parse_done(answer.headers["x-log-position"].to_str().unwrap()).unwrap();
    assert_eq!((listed, done.len()), (6, 6));
    assert_eq!(done.iter().map(|(_, next)| next).sum::<u64>(), 200);
    let of_e7: Vec<_> = service.entities().await.into_iter().filter(|(_, e)| e.entity_id == "E7").collect();
    assert_eq!(of_e7.len(), 4);
    assert!(
        of_e7.windows(2).all(|pair| pair[0].1.event_id < pair[1].1.event_id),
        "the records are not in the order of the request"
    );
    assert_eq!(service.post("/entities", JSON, "[]").await.json()["accepted"], 0);
}

#[tokio::test]
async fn an_array_with_one_invalid_item_appends_nothing_and_names_the_item() {
    let service = Service::new().await;
    let mut items = vec![entity("a"), entity("b"), entity("c")];
    items[1]["text"] = json!(" ");
    let answer = service.post("/entities", JSON, json!(items).to_string()).await;
    assert_problem("blank text", &answer, 400);
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("item 1") && detail.contains("text is empty"), "{detail}");
    assert_eq!(service.entity_count().await, 0);
}

#[tokio::test]
async fn an_invalid_request_never_gets_a_5xx() {
    let service = Service::new().await;
    let with = |field: &str, value: serde_json::Value| {
        let mut body = entity("x");
        body[field] = value;
        body.to_string()
    };
    let without = |field: &str| {
        let mut body = entity("x");
        body.as_object_mut().unwrap().remove(field);
        body.to_string()
    };
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    let many_keys: serde_json::Map<_, _> = (0..65).map(|n| (n.to_string(), json!(1))).collect();
    let ten_thousand_and_one = format!("[{}]", vec![entity("x").to_string(); 10_001].join(","));
    for (name, uri, kind, body, status) in [
        ("empty body", "/entities", JSON, String::new(), 400),
        ("blank body", "/entities", JSON, " \n ".into(), 400),
        ("malformed", "/entities", JSON, "{".into(), 400),
        ("malformed array", "/entities", JSON, "[{},".into(), 400),
        ("number", "/entities", JSON, "3".into(), 400),
        ("null", "/entities", JSON, "null".into(), 400),
        ("string", "/entities", JSON, "\"x\"".into(), 400),
        ("array of numbers", "/entities", JSON, "[1,2]".into(), 400),
        ("array of arrays", "/entities", JSON, deep, 400),
        ("trailing text", "/entities", JSON, format!("{} x", entity("x")), 400),
        ("not utf-8 escapes", "/entities", JSON, r#"{"entity_type":"\ud800"}"#.into(), 400),
        ("no type", "/entities", JSON, without("entity_type"), 400),
        ("no id", "/entities", JSON, without("entity_id"), 400),
        ("no text", "/entities", JSON, without("text"), 400),
        ("wrong type", "/entities", JSON, with("text", json!(3)), 400),
        ("unknown field", "/entities", JSON, with("colour", json!("red")), 400),
        ("deleted", "/entities", JSON, with("deleted", json!(true)), 400),
        ("empty text", "/entities", JSON, with("text", json!("")), 400),
        ("1 MB text", "/entities", JSON, with("text", json!("x".repeat(1 << 20))), 400),
        ("id with a slash", "/entities", JSON, with("entity_id", json!("a/b")), 400),
        ("long id", "/entities", JSON, with("entity_id", json!("x".repeat(256))), 400),
        ("empty type", "/entities", JSON, with("entity_type", json!("")), 400),
        ("nested metadata", "/entities", JSON, with("metadata", json!({"a": {"b": 1}})), 400),
        ("null in metadata", "/entities", JSON, with("metadata", json!({"a": null})), 400),
        ("many metadata keys", "/entities", JSON, with("metadata", many_keys.into()), 400),
        ("long metadata", "/entities", JSON, with("metadata", json!({"a": "x".repeat(5000)})), 400),
        ("infinite", "/entities", JSON, entity("x").to_string().replace('}', r#","metadata":{"a":1e999}}"#), 400),
        ("tags of numbers", "/entities", JSON, with("tags", json!([1])), 400),
        ("empty tag", "/entities", JSON, with("tags", json!([""])), 400),
        ("many tags", "/entities", JSON, with("tags", json!(vec!["t"; 65])), 400),
        ("bad tenant", "/entities", JSON, with("tenant_id", json!("a.b")), 400),
        ("tenant mismatch", "/tenants/a/entities", JSON, with("tenant_id", json!("b")), 400),
        ("tenant mismatch", "/entities?tenant_id=a", JSON, with("tenant_id", json!("b")), 400),
        ("tenants disagree", "/tenants/a/entities?tenant_id=b", JSON, entity("x").to_string(), 400),
        ("bad tenant in the query", "/entities?tenant_id=%00", JSON, entity("x").to_string(), 400),
        ("content type", "/entities", "text/csv", entity("x").to_string(), 400),
        ("content type", "/entities", "", entity("x").to_string(), 400),
        ("array too long", "/entities", JSON, ten_thousand_and_one, 413),
        ("body too large", "/entities", JSON, " ".repeat((32 << 20) + 1), 413),
        ("no route", "/entity", JSON, entity("x").to_string(), 404),
        ("no such method", "/status", JSON, entity("x").to_string(), 405),
    ] {
        assert_problem(name, &service.post(uri, kind, body).await, status);
    }
    let bare = Request::post("/entities").body(Body::from(entity("x").to_string())).unwrap();
    assert_problem("no content type", &service.send(bare).await, 400);
    let request = Request::post("/entities").header("content-type", JSON).header("content-length", "99999999999");
    assert_problem("declared too large", &service.send(request.body(Body::from("{}")).unwrap()).await, 413);
    for (uri, status) in [
        ("/entities/curve/a%2Fb", 400),
        ("/entities/curve/%ff", 400),
        ("/entities/cur%20ve/a", 400),
        ("/entities/curve/a?tenant_id=a.b", 400),
        ("/tenants/x/entities/curve/a?tenant_id=y", 400),
        ("/entities/curve", 404),
        ("/entities/curve/a/b", 404),
    ] {
        let answer = service.send(Request::delete(uri).body(Body::empty()).unwrap()).await;
        assert_problem(uri, &answer, status);
    }
    assert_eq!(service.entity_count().await, 0, "an invalid request appended something");
}

#[tokio::test]
async fn a_deletion_appends_an_event() {
    let service = Service::new().await;
    let request = Request::delete("/entities/curve/NG_HH?tenant_id=acme").body(Body::empty()).unwrap();
    let answer = service.send(request).await;
    assert_eq!((answer.status, answer.json()["accepted"].as_u64()), (200, Some(1)));
    let (record, event) = service.entities().await.remove(0);
    assert_eq!(answer.headers["x-log-position"], record.position.to_string().as_str());
    assert!(event.deleted && event.text.is_empty());
    assert_eq!(event.tenant_id.as_str(), "acme");
}

#[tokio::test]
async fn law_14_a_partial_append_names_the_accepted_items() {
    let service = Service::new().await;
    service.log.appends_left.store(0, Ordering::SeqCst);
    let items: Vec<_> = (0..10).map(|n| entity(&format!("E{n}"))).collect();
    let answer = service.post("/entities", JSON, json!(items).to_string()).await;
    assert_problem("partial append", &answer, 503);
    let problem = answer.json();
    assert_eq!((problem["accepted"].as_u64(), &problem["accepted_items"]), (Some(5), &json!(["0-4"])));
    assert_eq!(problem["code"], "unavailable");
    let done = Positions::parse_done(answer.headers["x-log-position"].to_str().unwrap()).unwrap();
    assert_eq!(done.iter().map(|(_, next)| next).sum::<u64>(), 5);
    assert_eq!(service.entity_count().await, 5);
}
