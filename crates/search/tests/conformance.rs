//! What every engine behind [`HybridIndex`] must do, run against each of them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::time::Duration;

use carbon_core::{MetadataValue, Positions};
use carbon_search::plan::Mode;
use carbon_search::{
    Applied, Condition, Document, EmbeddedIndex, Filter, HybridIndex, IndexError, IndexOp, SearchError, similar,
};
use support::*;
use tokio::time::Instant;

/// An index in a place of its own.
trait Engine {
    fn index(&self) -> &dyn HybridIndex;
}

struct Embedded {
    index: EmbeddedIndex,
    _folder: tempfile::TempDir,
}

impl Engine for Embedded {
    fn index(&self) -> &dyn HybridIndex {
        &self.index
    }
}

fn embedded() -> Embedded {
    let folder = tempfile::tempdir().unwrap();
    Embedded { index: EmbeddedIndex::new(folder.path()), _folder: folder }
}

/// Each test of the suite, for one engine.
macro_rules! conformance {
    ($engine:ident: $($(#[$doc:meta])* $name:ident)*) => {
        mod $engine {
            $(
                $(#[$doc])*
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let make = || Box::new(super::$engine()) as Box<dyn super::Engine>;
                    super::$name(&make).await;
                }
            )*
        }
    };
}

conformance! { embedded:
    what_is_applied_is_found
    law_04_an_older_op_never_overwrites_a_newer
    law_04_a_zombies_batch_aborts_whole
    ops_of_a_batch_are_deduplicated
    filters_hold
    law_12_tenants_do_not_see_each_other
    law_12_scores_do_not_depend_on_other_tenants
    identifiers_are_found_whole_and_in_parts
    a_thousand_updates_fail_no_search
    reached_waits_for_the_view
    similar_entities_are_neighbours
    unusable_vectors_are_refused_whole
    rows_scroll_in_key_order
    reset_and_drop_forget
}

type Make<'m> = &'m (dyn Fn() -> Box<dyn Engine> + Sync);

fn three() -> Vec<IndexOp> {
    vec![
        upsert("acme", "a", "natural gas price at the hub", 0),
        upsert("acme", "b", "crude oil forward curve", 1),
        upsert("acme", "c", "gas storage in winter, gas price spread", 2),
    ]
}

async fn what_is_applied_is_found(make: Make<'_>) {
    let engine = make();
    let index = engine.index();
    let mut feed = Feed::new(index).await;
    feed.index.create(&spec()).await.unwrap();
    let applied = feed.apply_and_see(three()).await;
    assert_eq!(applied, Applied { upserts: 3, deletes: 0, fenced: 0 });
    assert_eq!(found_ids(index, "acme", &request("gas price", Mode::Lexical)).await, ["a", "c"]);
    assert_eq!(find(index, "acme", &request("gas price", Mode::Dense)).await.total, 3);
    assert_eq!(find(index, "acme", &request("gas price", Mode::Hybrid)).await.total, 3);
    assert!(find(index, "acme", &request("the of unknownword", Mode::Lexical)).await.results.is_empty());
    let document = index.get(&spec().id, &scope("acme"), &key("acme", "b")).await.unwrap().unwrap();
    assert_eq!(*document, self::document("acme", "b", "crude oil forward curve", 1));
    let checkpoint = index.checkpoint(&spec().id).await.unwrap();
    assert_eq!((checkpoint.log.as_deref(), checkpoint.positions), (Some("log"), input(3)));
    let stats = index.stats(&spec().id, None).await.unwrap();
    assert_eq!((stats.total, stats.by_tenant.len(), stats.by_entity_type.len()), (3, 1, 1));

    feed.apply_and_see(vec![delete("acme", "c", 3)]).await;
    assert_eq!(found_ids(index, "acme", &request("gas price", Mode::Lexical)).await, ["a"]);
    assert_eq!(index.stats(&spec().id, Some(&scope("acme"))).await.unwrap().total, 2);
    assert_eq!(index.list().await.unwrap(), [spec().id]);
}

async fn law_04_an_older_op_never_overwrites_a_newer(make: Make<'_>) {
    let engine = make();
    let index = engine.index();
    let mut feed = Feed::new(index).await;
    let text_of = async |id: &str| {
        let found = index.get(&spec().id, &scope("acme"), &key("acme", id)).await.unwrap();
        found.map(|document| document.text.clone())
    };
    feed.apply_and_see(vec![upsert("acme", "a", "newer", 10)]).await;
    let applied = feed.apply_and_see(vec![upsert("acme", "a", "older", 9), delete("acme", "a", 8)]).await;
    assert_eq!(applied, Applied { fenced: 1, ..Default::default() });
    assert_eq!(text_of("a").await.as_deref(), Some("newer"));
    // An equal one re-applies. (Its position was reached before: the other op is what is waited for.)
    feed.apply_and_see(vec![upsert("acme", "a", "newer again", 10), delete("acme", "y", 11)]).await;
    assert_eq!(text_of("a").await.as_deref(), Some("newer again"));
    // A delete fences as well, of what was there and of what never was.
    feed.apply_and_see(vec![delete("acme", "a", 20), delete("acme", "x", 20)]).await;
    let applied = feed.apply_and_see(vec![upsert("acme", "a", "stale", 19), upsert("acme", "x", "stale", 19)]).await;
    assert_eq!(applied.fenced, 2);
    assert_eq!((text_of("a").await, text_of("x").await), (None, None));
    assert!(find(index, "acme", &request("stale newer", Mode::Hybrid)).await.results.is_empty());
    feed.apply_and_see(vec![upsert("acme", "a", "back", 21), IndexOp::erase(key("acme", "x"), source(21))]).await;
    assert_eq!((text_of("a").await.as_deref(), text_of("x").await), (Some("back"), None));
    assert_eq!(feed.apply_and_see(vec![upsert("acme", "a", "stale", 20)]).await.fenced, 1);
    // Fenced or not, the position counts as seen.
    let seen = feed.apply_and_see(vec![upsert("acme", "a", "newest", 30), upsert("acme", "b", "b", 40)]).await;
    assert_eq!(seen.upserts, 2);
    assert_eq!(index.view_positions(&spec().id).await.unwrap(), done(40));
}

async fn law_04_a_zombies_batch_aborts_whole(make: Make<'_>) {
    let engine = make();
    let index = engine.index();
    let mut feed = Feed::new(index).await;
    feed.apply_and_see(three()).await;
    let zombie = index.apply(&spec().id, "log", vec![upsert("acme", "z", "gas", 9)], &input(1), &input(4)).await;
    assert!(matches!(zombie, Err(IndexError::Moved { actual }) if actual == input(3)));
    assert!(index.get(&spec().id, &scope("acme"), &key("acme", "z")).await.unwrap().is_none());
    assert_eq!(index.view_positions(&spec().id).await.unwrap(), done(2));
    // A batch without ops moves the checkpoint.
    index.apply(&spec().id, "log", Vec::new(), &input(3), &input(9)).await.unwrap();
    assert_eq!(index.checkpoint(&spec().id).await.unwrap().positions, input(9));
}

async fn ops_of_a_batch_are_deduplicated(make: Make<'_>) {
    let engine = make();
    let index = engine.index();
    let mut feed = Feed::new(index).await;
    let ops = vec![
        upsert("acme", "a", "first", 0),
        upsert("acme", "b", "first", 1),
        delete("acme", "a", 2),
        upsert("acme", "a", "last", 3),
        upsert("acme", "b", "too old", 0),
    ];
    assert_eq!(feed.apply_and_see(ops).await, Applied { upserts: 2, deletes: 0, fenced: 0 });
    for (id, text) in [("a", "last"), ("b", "first")] {
        let document = index.get(&spec().id, &scope("acme"), &key("acme", id)).await.unwrap().unwrap();
        assert_eq!(document.text, text);
    }
}

async fn filters_hold(make: Make<'_>) {
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

fn metadata(key: &str, condition: Condition) -> Filter {
    Filter { metadata: vec![(key.to_owned(), condition)], ..Default::default() }
}

async fn law_12_tenants_do_not_see_each_other(make: Make<'_>) {
    let engine = make();
    let index = engine.index();
    let mut feed = Feed::new(index).await;
    feed.apply_and_see(vec![upsert("acme", "a", "gas of acme", 0), upsert("other", "a", "gas of other", 1)]).await;
    for tenant in ["acme", "other"] {
        for mode in [Mode::Hybrid, Mode::Dense, Mode::Lexical] {
            let results = find(index, tenant, &request("gas acme other", mode)).await.results;
            assert_eq!(results.len(), 1);
            assert_eq!(results[0].text, format!("gas of {tenant}"));
        }
    }
    assert!(find(index, "nobody", &request("gas", Mode::Hybrid)).await.results.is_empty());
    let foreign = index.get(&spec().id, &scope("acme"), &key("other", "a")).await.unwrap();
    assert!(foreign.is_none());
    assert!(index.vector(&spec().id, &scope("acme"), &key("other", "a")).await.unwrap().is_none());
    assert_eq!(index.stats(&spec().id, Some(&scope("acme"))).await.unwrap().by_tenant.len(), 0);
    feed.apply_and_see(vec![delete("other", "a", 2)]).await;
    assert_eq!(find(index, "acme", &request("gas", Mode::Hybrid)).await.total, 1);
}

async fn law_12_scores_do_not_depend_on_other_tenants(make: Make<'_>) {
    let (alone, beside) = (make(), make());
    let own: Vec<IndexOp> = (0..60).map(|n| upsert("acme", &format!("e{n}"), &text(n), n)).collect();
    let mut feed = Feed::new(alone.index()).await;
    feed.apply_and_see(own.clone()).await;
    let mut feed = Feed::new(beside.index()).await;
    feed.apply_and_see(own).await;
    // The same ids, so that only the tenant tells them apart.
    let other = (0..600).map(|n| upsert("big", &format!("e{n}"), &text(n + 1000), n + 60)).collect();
    feed.apply_and_see(other).await;
    let (a, b) = (rankings(alone.index(), "acme", &QUERIES).await, rankings(beside.index(), "acme", &QUERIES).await);
    assert!(a.iter().any(|list| list.len() > 10));
    assert_same(&a, &b);
}

async fn identifiers_are_found_whole_and_in_parts(make: Make<'_>) {
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

async fn a_thousand_updates_fail_no_search(make: Make<'_>) {
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

async fn reached_waits_for_the_view(make: Make<'_>) {
    let engine = make();
    let index = engine.index();
    let mut feed = Feed::new(index).await;
    let soon = || Instant::now() + Duration::from_millis(30);
    let id = spec().id;
    assert!(index.reached(&id, &Positions::new(), soon()).await.unwrap());
    assert!(!index.reached(&id, &done(0), soon()).await.unwrap());
    let (deadline, wanted) = (Instant::now() + Duration::from_secs(10), done(2));
    let waiting = index.reached(&id, &wanted, deadline);
    let (reached, applied) = tokio::join!(waiting, feed.apply(three()));
    assert!(reached.unwrap() && applied.is_ok());
    assert_eq!(index.view_positions(&id).await.unwrap(), done(2));
    assert_eq!(find(index, "acme", &request("gas", Mode::Hybrid)).await.total, 3);
    // What changes no row is reached as well.
    feed.apply_and_see(vec![delete("acme", "nothing", 7)]).await;
    feed.apply_and_see(vec![upsert("acme", "nothing", "stale", 6), upsert("acme", "a", "older still", 0)]).await;
}

async fn similar_entities_are_neighbours(make: Make<'_>) {
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

async fn unusable_vectors_are_refused_whole(make: Make<'_>) {
    let engine = make();
    let index = engine.index();
    let mut feed = Feed::new(index).await;
    let with = |vector: Vec<f32>| IndexOp::upsert(document("acme", "bad", "gas", 1), vector);
    for bad in [vec![1.0], vec![f32::NAN; DIMENSION]] {
        let refused = feed.apply(vec![upsert("acme", "good", "gas", 0), with(bad)]).await;
        assert!(matches!(refused, Err(IndexError::Vector { key: at, .. }) if at == key("acme", "bad")));
    }
    assert_eq!(index.stats(&spec().id, None).await.unwrap().total, 0);
    assert!(index.checkpoint(&spec().id).await.unwrap().positions.is_empty());
    // Nothing to look for is no reason to fail.
    feed.apply_and_see(vec![with(vec![0.0; DIMENSION])]).await;
    assert_eq!(find(index, "acme", &request("gas", Mode::Dense)).await.results[0].score, 0.0);
}

async fn rows_scroll_in_key_order(make: Make<'_>) {
    let engine = make();
    let index = engine.index();
    let mut feed = Feed::new(index).await;
    let ids = ["b", "A", "a-1", "a", "Z_9", "a.1"];
    let ops = ids.iter().zip(0..).map(|(id, n)| upsert(if n % 2 == 0 { "acme" } else { "zeta" }, id, "gas", n));
    feed.apply_and_see(ops.collect()).await;
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = index.scroll(&spec().id, after.as_ref(), 2).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.document.key.clone());
        all.extend(page);
    }
    let keys: Vec<_> = all.iter().map(|row| row.document.key.clone()).collect();
    let mut sorted = keys.clone();
    sorted.sort();
    assert_eq!((keys.len(), &keys), (6, &sorted));
    let expected: Document = document("acme", "b", "gas", 0);
    assert!(all.iter().any(|row| row.document == expected));
}

async fn reset_and_drop_forget(make: Make<'_>) {
    let engine = make();
    let index = engine.index();
    let mut feed = Feed::new(index).await;
    feed.apply_and_see(three()).await;
    index.reset(&spec().id).await.unwrap();
    assert_eq!(index.checkpoint(&spec().id).await.unwrap(), Default::default());
    assert!(index.view_positions(&spec().id).await.unwrap().is_empty());
    assert_eq!(find(index, "acme", &request("gas", Mode::Hybrid)).await.total, 0);
    feed.next = 0;
    feed.apply_and_see(three()).await;
    assert_eq!(find(index, "acme", &request("gas", Mode::Hybrid)).await.total, 3);
    index.drop_generation(&spec().id).await.unwrap();
    assert!(index.list().await.unwrap().is_empty());
    let gone = index.stats(&spec().id, None).await;
    assert!(matches!(gone, Err(IndexError::UnknownGeneration(_))));
}
