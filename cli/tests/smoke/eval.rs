//! `eval` against a stand-in that searches by counting common words.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use axum::extract::{OriginalUri, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::support::{Program, Seen, serve};

#[derive(Clone, Default)]
struct Stand {
    entities: Arc<Mutex<Vec<Value>>>,
    seen: Seen,
}

async fn entities(State(stand): State<Stand>, OriginalUri(uri): OriginalUri, body: String) -> Json<Value> {
    stand.seen.lock().unwrap().push(uri.to_string());
    let taken: Vec<Value> = body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let count = taken.len();
    stand.entities.lock().unwrap().extend(taken);
    Json(json!({"accepted": count, "rejected": [], "rejected_count": 0, "positions": ["t:0:9"]}))
}

async fn search(State(stand): State<Stand>, Json(body): Json<Value>) -> Json<Value> {
    stand.seen.lock().unwrap().push(body.to_string());
    let words = |text: &str| {
        text.to_lowercase().split(|c: char| !c.is_alphanumeric()).map(str::to_owned).collect::<HashSet<_>>()
    };
    let query = words(body["query"].as_str().unwrap());
    let mut hits: Vec<(usize, Value)> = stand
        .entities
        .lock()
        .unwrap()
        .iter()
        .filter_map(|entity| {
            let common = words(entity["text"].as_str().unwrap()).intersection(&query).count();
            let hit = json!({"entity_type": entity["entity_type"], "entity_id": entity["entity_id"], "score": common});
            (common > 0).then_some((common, hit))
        })
        .collect();
    hits.sort_by_key(|(common, _)| std::cmp::Reverse(*common));
    // The dense half of this stand-in finds nothing.
    let results: Vec<Value> =
        if body["mode"] == "dense" { Vec::new() } else { hits.into_iter().map(|(_, hit)| hit).collect() };
    Json(json!({"results": results, "total": 0, "latency_ms": 1, "generation": "g-1"}))
}

fn stand() -> (Program, Stand) {
    let stand = Stand::default();
    let router = Router::new()
        .route("/tenants/{tenant}/entities", post(entities))
        .route("/tenants/{tenant}/search", post(search))
        .route("/tenants/{tenant}/index/stats", get(|| async { Json(json!({"total_entities": 3})) }))
        .with_state(stand.clone());
    let program = Program::at(serve(router));
    program.file("corpus.jsonl", "{\"_id\":\"d/1\",\"title\":\"Gas\",\"text\":\"henry hub\"}\n\
        {\"_id\":\"d2\",\"title\":\"\",\"text\":\"brent oil\"}\n{\"_id\":\"d3\",\"title\":\"Coal\",\"text\":\"api2 hub\"}\n{\"_id\":\"d4\",\"text\":\"\"}\n");
    program.file("queries.jsonl", "{\"_id\":\"1\",\"text\":\"henry hub gas\"}\n{\"_id\":\"2\",\"text\":\"oil\"}\n{\"_id\":\"3\",\"text\":\"unjudged\"}\n");
    program.file("test.tsv", "query-id\tcorpus-id\tscore\n1\td/1\t2\n1\td3\t1\n2\td2\t1\n2\td3\t1\n");
    (program, stand)
}

const FILES: [&str; 7] = ["eval", "--corpus", "corpus.jsonl", "--queries", "queries.jsonl", "--qrels", "test.tsv"];

fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    FILES.iter().copied().chain(more.iter().copied()).collect()
}

#[test]
fn a_collection_is_loaded_and_measured() {
    let (program, stand) = stand();
    let ran = program.run(&with(&[
        "--dense-weights",
        "0.5,0.7",
        "--json",
        "--at-least",
        "hybrid.ndcg@10=0.8",
        "--at-least",
        "lexical.success@3=1",
    ]));
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    let names: Vec<&str> =
        report["settings"].as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["hybrid.weighted@0.5", "hybrid.weighted@0.7", "hybrid.rrf", "dense", "lexical"]);
    // Query 1 is answered ideally; query 2 finds one of two: 1 / (1 + 1/log2(3)).
    let ndcg = (1.0 + 1.0 / (1.0 + 1.0 / 3f64.log2())) / 2.0;
    let row = &report["settings"][0]["metrics"];
    assert!((row["ndcg@10"].as_f64().unwrap() - ndcg).abs() < 1e-9, "{row}");
    assert_eq!(
        (row["recall@100"].as_f64(), row["mrr@10"].as_f64(), row["success@3"].as_f64()),
        (Some(0.75), Some(1.0), Some(1.0))
    );
    assert_eq!(report["settings"][3]["metrics"]["mrr@10"], 0.0);
    assert_eq!(
        (&report["queries"], &report["queries_left_out"], &report["generation"]),
        (&json!(2), &json!(1), &json!("g-1"))
    );
    let seen = stand.seen.lock().unwrap();
    let tenant = report["tenant"].as_str().unwrap();
    assert!(tenant.starts_with("eval-") && seen[0] == format!("/tenants/{tenant}/entities"), "{seen:?}");
    assert!(
        seen.iter().any(|body| body.contains("\"limit\":100") && body.contains("\"dense_weight\":0.7")),
        "{seen:?}"
    );
    let entities = stand.entities.lock().unwrap();
    assert_eq!(
        entities[0],
        json!({"entity_type": "doc", "entity_id": "esc.d.2F1", "text": "Gas. henry hub", "metadata": {}})
    );
    assert_eq!(entities.len(), 3);
}

#[test]
fn a_demand_that_is_not_met_is_exit_code_5() {
    let (program, stand) = stand();
    let ran = program.run(&with(&["--at-least", "dense.ndcg@10=0.40", "--at-least", "lexical.ndcg@10=0.40"]));
    assert_eq!(ran.code, Some(5), "{}", ran.err);
    assert!(
        ran.err.contains("dense.ndcg@10 is 0.0000, 0.4 was demanded") && !ran.err.contains("lexical.ndcg"),
        "{}",
        ran.err
    );
    assert!(ran.out.contains("hybrid.rrf") && ran.out.contains("p95 ms"), "{}", ran.out);
    let loaded = stand.entities.lock().unwrap().len();
    let ran = program.run(&with(&["--no-load", "--modes", "lexical", "--tenant", "mine"]));
    assert_eq!((ran.code, stand.entities.lock().unwrap().len()), (Some(0), loaded), "{}", ran.err);
    assert!(ran.err.contains("tenant mine"), "{}", ran.err);
}

#[test]
fn malformed_files_are_named_with_their_line() {
    for (name, text, part) in [
        ("corpus.jsonl", "{\"_id\":\"1\",\"text\":\"x\"}\nnot json\n", "corpus.jsonl:2:"),
        ("queries.jsonl", "{\"_id\":\"1\",\"text\":\"\"}\n", "queries.jsonl:1:"),
        ("test.tsv", "query-id\tcorpus-id\tscore\n1\td2\tgood\n", "test.tsv:2:"),
    ] {
        let (program, stand) = stand();
        program.file(name, text);
        let ran = program.run(&FILES);
        assert!(ran.code == Some(1) && ran.err.contains(part), "{:?} {}", ran.code, ran.err);
        assert!(stand.seen.lock().unwrap().is_empty(), "nothing is loaded before all files are read");
    }
    let (program, _) = stand();
    std::fs::remove_file(program.folder.path().join("test.tsv")).unwrap();
    assert_eq!(program.run(&FILES).code, Some(4));
}
