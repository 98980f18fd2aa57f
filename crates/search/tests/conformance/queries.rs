//! Queries: filters, identifiers, similar entities, and searches during writes.

use std::time::Duration;

use carbon_core::MetadataValue;
use carbon_search::plan::Mode;
use carbon_search::{Condition, Filter, IndexOp, SearchError, similar};
use tokio::time::Instant;

use crate::Make;
use crate::support::*;

pub async fn filters_select_the_matching_documents(make: Make<'_>) {
    let engine = make();
    let index = engine.index();
    let mut feed = Feed::new(index).await;
    let make = |id: &str, kind: &str, tags: &[&str], strike: f64, live: bool| {
        let mut document = document("acme", id, "gas price", 0);
        document.key = carbon_core::EntityKey::parse("acme", kind, id).unwrap();
        document.tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
        document.metadata.insert("strike".into(), MetadataValue::Double(strike));
        document.metadata.insert("live".into(), MetadataValue::Boolean(live));
        document.metadata.insert("hub".into(), MetadataValue::String(id.to_uppercase()));
        IndexOp::upsert(document, vector(1))
    };
    feed.apply_and_see(vec![
        make("a", "curve", &["x", "y"], 1.0, true),
        make("b", "curve", &["x"], 2.0, false),
        make("c", "instrument", &[], 3.0, true),
    ])
    .await;
    let one_of = |values: &[MetadataValue]| Condition::OneOf(values.to_vec());
    let text = |text: &str| MetadataValue::String(text.into());
    let range = |gte, lte| Condition::Range { gte, lte };
    let cases: Vec<(Filter, &[&str])> = vec![
        (Filter::default(), &["a", "b", "c"]),
        (Filter { types: vec!["curve".into()], ..Default::default() }, &["a", "b"]),
        (Filter { types: vec!["curve".into(), "instrument".into()], ..Default::default() }, &["a", "b", "c"]),
        (Filter { types: vec!["none".into()], ..Default::default() }, &[]),
        (Filter { tags: vec!["x".into()], ..Default::default() }, &["a", "b"]),
        (Filter { tags: vec!["x".into(), "y".into()], ..Default::default() }, &["a"]),
        (metadata("hub", one_of(&[text("A"), text("C")])), &["a", "c"]),
        (metadata("strike", one_of(&[MetadataValue::Double(2.0)])), &["b"]),
        (metadata("strike", range(Some(2.0), None)), &["b", "c"]),
        (metadata("strike", range(Some(1.5), Some(2.5))), &["b"]),
        (metadata("live", one_of(&[MetadataValue::Boolean(true)])), &["a", "c"]),
        (metadata("absent", one_of(&[text("A")])), &[]),
        (Filter { types: vec!["curve".into()], ..metadata("live", one_of(&[MetadataValue::Boolean(true)])) }, &["a"]),
    ];
    for (filter, expected) in cases {
        for mode in [Mode::Hybrid, Mode::Dense, Mode::Lexical] {
            let request = carbon_search::SearchRequest { filter: filter.clone(), ..request("gas price", mode) };
            let mut ids = found_ids(index, "acme", &request).await;
            ids.sort();
            assert_eq!(ids, expected, "{filter:?}");
        }
    }
}

/// A filter with one metadata condition.
fn metadata(key: &str, condition: Condition) -> Filter {
    Filter { metadata: vec![(key.to_owned(), condition)], ..Default::default() }
}

pub async fn identifiers_are_found_whole_and_in_parts(make: Make<'_>) {
    let engine = make();
    let index = engine.index();
    let mut feed = Feed::new(index).await;
    feed.apply_and_see(vec![
        upsert("acme", "NG_HH_BALMO", "balance of the month", 0),
        upsert("acme", "NG_HH_CAL27", "calendar year", 1),
        upsert("acme", "POWER.PJM-W", "NG_HH_BALMO is mentioned here, with many other words around it", 2),
    ])
    .await;
    for query in ["NG_HH_BALMO", "ng_hh_balmo", "what is ng_hh_balmo?"] {
        for mode in [Mode::Hybrid, Mode::Lexical] {
            let results = find(index, "acme", &request(query, mode)).await.results;
            assert_eq!(results[0].entity_id, "NG_HH_BALMO", "{query}");
            assert!(results[0].score > 1.0 && results[1].score <= 1.0);
        }
    }
    assert_eq!(found_ids(index, "acme", &request("cal27", Mode::Lexical)).await, ["NG_HH_CAL27"]);
    assert_eq!(found_ids(index, "acme", &request("pjm", Mode::Lexical)).await, ["POWER.PJM-W"]);
    assert_eq!(found_ids(index, "acme", &request("power.pjm-w", Mode::Lexical)).await, ["POWER.PJM-W"]);
}

pub async fn searches_succeed_during_a_thousand_updates(make: Make<'_>) {
    let engine = make();
    let index = engine.index();
    let mut feed = Feed::new(index).await;
    let id = |n: u64| format!("e{}", n % 10);
    let ops: Vec<IndexOp> = (0..10).map(|n| upsert("acme", &id(n), &text(n), n)).collect();
    feed.apply_and_see(ops).await;
    let stop = std::sync::atomic::AtomicBool::new(false);
    let searching = async {
        let mut searches = 0;
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            let results = find(index, "acme", &request("natural gas price", Mode::Hybrid)).await;
            assert_eq!(results.total, 10);
            searches += 1;
            tokio::task::yield_now().await;
        }
        searches
    };
    let updating = async {
        for n in 10..1010 {
            feed.apply(vec![upsert("acme", &id(n), &text(n), n)]).await.unwrap();
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    };
    let (searches, ()) = tokio::join!(searching, updating);
    assert!(searches > 10);
    let deadline = Instant::now() + Duration::from_secs(10);
    assert!(index.reached(&spec().id, &done(1009), deadline).await.unwrap());

    let fresh = make();
    let ops = (1000..1010).map(|n| upsert("acme", &id(n), &text(n), n)).collect();
    Feed::new(fresh.index()).await.apply_and_see(ops).await;
    assert_same(&rankings(index, "acme", &QUERIES).await, &rankings(fresh.index(), "acme", &QUERIES).await);
}

pub async fn similar_returns_the_nearest_neighbours(make: Make<'_>) {
    let engine = make();
    let index = engine.index();
    let mut feed = Feed::new(index).await;
    let near = |id: &str, shift: f32| {
        let mut near = vector(5);
        near[0] += shift;
        IndexOp::upsert(document("acme", id, "gas", 0), near)
    };
    feed.apply_and_see(vec![near("a", 0.0), near("b", 0.3), near("c", 0.1)]).await;
    let of = async |id: &str| similar(index, &spec().id, &scope("acme"), &key("acme", id), Filter::default(), 2).await;
    let results = of("a").await.unwrap().results;
    let ids: Vec<&str> = results.iter().map(|result| result.entity_id.as_str()).collect();
    assert_eq!(ids, ["c", "b"]);
    assert!(results[0].score > results[1].score && results[0].score <= 1.0);
    assert!(matches!(of("unknown").await, Err(SearchError::NotFound(_))));
}
