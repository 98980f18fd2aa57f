//! The main job over HTTP, against the real binary.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use serde_json::{Value, json};
use support::{Place, instrument, results};

on_both_logs! {
    from_an_entity_event_to_a_search_hit_and_back,
    law_01_everything_but_the_log_can_be_deleted,
    law_04_what_is_damaged_is_mended_at_start_and_said,
    law_08_answers_name_the_generation_and_its_model,
    law_12_no_route_shows_counts_or_scores_by_another_tenant,
    a_second_process_on_the_same_folder_is_refused,
}

async fn from_an_entity_event_to_a_search_hit_and_back(place: Place) {
    let server = place.start().await;
    let entities = json!([
        instrument("NG_HH_BALMO", "Henry Hub natural gas balance of month swap"),
        instrument("CL_WTI_FUT", "West Texas Intermediate crude oil futures at Cushing"),
    ]);
    let position = server.produce("default", &entities).await;
    for (query, first) in [
        ("henry hub natural gas", "instrument/NG_HH_BALMO"),
        ("NG_HH_BALMO", "instrument/NG_HH_BALMO"),
        ("balmo", "instrument/NG_HH_BALMO"),
        ("crude at cushing", "instrument/CL_WTI_FUT"),
    ] {
        let answer = server.search("default", json!({"query": query, "debug": true}), Some(&position)).await;
        assert_eq!(results(&answer)[0].0, first, "{query}: {answer}");
        let explain = &answer["results"][0]["explain"];
        for field in [
            "semantic_rank",
            "lexical_rank",
            "semantic_score",
            "lexical_score",
            "fused_score",
            "fusion",
            "k",
            "boosts",
            "positions",
        ] {
            assert!(!explain[field].is_null() || field == "k", "{field} is missing in {explain}");
        }
    }
    // A change is seen by a search that asks for it, and so is a deletion.
    let changed = json!(instrument("CL_WTI_FUT", "Brent crude of the North Sea"));
    let position = server.produce("default", &changed).await;
    let answer = server.search("default", json!({"query": "cushing", "mode": "lexical"}), Some(&position)).await;
    assert!(results(&answer).is_empty(), "{answer}");
    let position = server.delete("default", "instrument", "CL_WTI_FUT").await;
    let answer = server.search("default", json!({"query": "brent", "mode": "lexical"}), Some(&position)).await;
    assert!(results(&answer).is_empty(), "{answer}");
    assert_eq!(server.get("/entities/instrument/CL_WTI_FUT").await.0, 404);
    let (status, entity) = server.get("/api/v1/entities/instrument/NG_HH_BALMO").await;
    assert_eq!((status, entity["metadata"]["lot"].as_f64()), (200, Some(10.0)));
    let (_, stats) = server.get("/index/stats").await;
    assert_eq!(stats["total_entities"], 1, "{stats}");
    // A position that is not there yet is waited for, and then said to be missing.
    let far = server
        .http
        .post(format!("{}/search", server.query))
        .header("X-Min-Position", "ml.entity.changed.v1:0:999999")
        .header("X-Timeout-Ms", "50")
        .json(&json!({"query": "x"}))
        .send()
        .await
        .unwrap();
    assert_eq!(far.status(), 503);
    assert_eq!(far.json::<Value>().await.unwrap()["code"], "unavailable");
    assert!(server.interrupt().await.success());
}

async fn law_01_everything_but_the_log_can_be_deleted(place: Place) {
    let server = place.start().await;
    let entities: Vec<Value> =
        (0..200).map(|n| instrument(&format!("E{n}"), &format!("power contract number{n} of hub {}", n % 7))).collect();
    let position = server.produce("default", &json!(entities)).await;
    let query = json!({"query": "power contract hub 3", "limit": 100});
    let before = server.search("default", query.clone(), Some(&position)).await;
    assert!(server.interrupt().await.success());
    std::fs::remove_dir_all(place.path().join("read-models")).unwrap();
    let server = place.start().await;
    let after = server.search("default", query, None).await;
    assert_eq!(results(&after), results(&before));
    assert_eq!(server.get("/index/stats").await.1["total_entities"], 200);
}

async fn law_12_no_route_shows_counts_or_scores_by_another_tenant(place: Place) {
    let (alone, beside) = (place.another().await, place);
    let text = |n: usize| format!("gas storage contract {} at hub {} with tenor {}", n, n % 5, n % 11);
    let own: Vec<Value> = (0..40).map(|n| instrument(&format!("E{n}"), &text(n))).collect();
    let other: Vec<Value> =
        (0..400).map(|n| instrument(&format!("E{n}"), &format!("{} secretword gas gas", text(n * 3)))).collect();
    let queries = ["gas storage hub 3", "contract tenor", "E7", "storage"];
    let mut answers = Vec::new();
    for (place, crowded) in [(&alone, false), (&beside, true)] {
        let server = place.start().await;
        if crowded {
            server.produce("crowd", &json!(other)).await;
        }
        let position = server.produce("acme", &json!(own)).await;
        let mut found = Vec::new();
        for query in queries {
            for mode in ["hybrid", "lexical", "dense"] {
                let answer =
                    server.search("acme", json!({"query": query, "mode": mode, "limit": 40}), Some(&position)).await;
                found.push((results(&answer), answer["total"].clone()));
            }
        }
        answers.push(found);
        if crowded {
            let secret = server.search("acme", json!({"query": "secretword", "mode": "lexical"}), None).await;
            assert_eq!((results(&secret).len(), &secret["total"]), (0, &json!(0)));
            let named = json!({"query": "secretword", "filters": {"tenant_id": "crowd"}});
            let url = format!("{}/tenants/acme/search", server.query);
            let refused = server.http.post(url).json(&named).send().await.unwrap().status();
            assert!(refused == 400 || refused == 403, "{refused}");
            let (_, stats) = server.get("/tenants/acme/index/stats").await;
            assert_eq!(stats["total_entities"], 40);
            assert!(!stats.to_string().contains("crowd"), "{stats}");
            let (status, entity) = server.get("/tenants/acme/entities/instrument/E7").await;
            assert_eq!((status, entity["text"].as_str()), (200, Some(text(7).as_str())));
            assert_eq!(server.get("/tenants/acme/entities/instrument/E200").await.0, 404);
            let (_, similar) = server.get("/tenants/acme/entities/instrument/E7/similar").await;
            assert!(!similar.to_string().contains("secretword"));
            for topic in ["ml.entity.changed.v1", "ml.embedding.generated.v1", "ml.deadletter.v1"] {
                let url = format!("{}/tenants/acme/events/{topic}?from=earliest&follow=false", server.query);
                let events = server.http.get(url).send().await.unwrap().text().await.unwrap();
                assert!(!events.contains("secretword") && !events.contains("crowd"), "{topic}");
                assert!(topic == "ml.deadletter.v1" || events.contains("gas storage"), "{topic}: {events:.300}");
            }
        }
    }
    for (index, (a, b)) in answers[0].iter().zip(&answers[1]).enumerate() {
        assert_eq!(a.1, b.1, "total of case {index}");
        assert_eq!(a.0.len(), b.0.len(), "case {index}");
        for ((id, score), (other_id, other_score)) in a.0.iter().zip(&b.0) {
            assert_eq!(id, other_id, "case {index}");
            assert!((score - other_score).abs() <= 1e-5, "case {index}: {id} {score} {other_score}");
        }
    }
}

async fn law_04_what_is_damaged_is_mended_at_start_and_said(place: Place) {
    let server = place.start().await;
    let entities: Vec<Value> = (0..50).map(|n| instrument(&format!("E{n}"), &format!("contract number{n}"))).collect();
    let position = server.produce("default", &json!(entities)).await;
    let query = json!({"query": "contract number7", "mode": "lexical", "limit": 60});
    let before = server.search("default", query.clone(), Some(&position)).await;
    let generation = before["generation"].as_str().unwrap().to_owned();
    assert!(server.interrupt().await.success());
    let tantivy = place.path().join("read-models").join(&generation).join("tantivy");
    let log = place.path().join("log.db");
    let log_copy = std::fs::read(&log).ok();
    let older = tempfile::tempdir().unwrap();
    copy(&tantivy, older.path());

    // Deleted.
    std::fs::remove_dir_all(&tantivy).unwrap();
    let mut server = place.start().await;
    server.says(&["it was made anew"]).await;
    assert_eq!(results(&server.search("default", query.clone(), None).await), results(&before));
    let position = server.produce("default", &instrument("LATER", "contract number7 later")).await;
    let after = server.search("default", query.clone(), Some(&position)).await;
    assert_eq!(results(&after).len(), 51);
    assert!(server.interrupt().await.success());

    // Older than the rows.
    std::fs::remove_dir_all(&tantivy).unwrap();
    copy(older.path(), &tantivy);
    let mut server = place.start().await;
    server.says(&["changes were caught up"]).await;
    assert_eq!(results(&server.search("default", query.clone(), None).await), results(&after));
    assert!(server.interrupt().await.success());

    let Some(log_copy) = log_copy else {
        // Another cluster holds nothing of it: what is derived follows.
        let other = Place { cluster: place.another().await.cluster, data: place.data, database: None };
        let mut server = other.start().await;
        server.says(&["checkpoint is of another log"]).await;
        assert_eq!(results(&server.search("default", query, None).await), []);
        return;
    };
    // A log put back from an older copy: what is derived follows it back.
    std::fs::write(&log, log_copy).unwrap();
    let mut server = place.start().await;
    server.says(&["checkpoint is of another log"]).await;
    assert_eq!(results(&server.search("default", query, None).await), results(&before));
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

async fn a_second_process_on_the_same_folder_is_refused(place: Place) {
    let server = place.start().await;
    let mut second = support::spawn(place.path(), &place.settings());
    let status = second.0.wait().unwrap();
    let mut message = String::new();
    std::io::Read::read_to_string(&mut second.0.stderr.take().unwrap(), &mut message).unwrap();
    assert_eq!(status.code(), Some(1), "{message}");
    assert!(message.contains(&server.pid().to_string()), "{message}");
}

async fn law_08_answers_name_the_generation_and_its_model(place: Place) {
    let server = place.start().await;
    let position = server.produce("default", &instrument("E1", "some text")).await;
    let answer = server.search("default", json!({"query": "some text"}), Some(&position)).await;
    assert!(answer["generation"].as_str().unwrap().contains("feature-hashing@1@f32"), "{answer}");
    let (_, stats) = server.get("/index/stats").await;
    assert_eq!(stats["model"], "feature-hashing@1@f32");
}
