//! Writes: applying, fencing, de-duplication, the checkpoint, and rejected batches.

use carbon_search::plan::Mode;
use carbon_search::{Applied, IndexError, IndexOp};

use crate::Make;
use crate::support::*;

pub async fn applied_documents_are_found_and_deleted_ones_are_not(make: Make<'_>) {
    let engine = make();
    let index = engine.index();
    let mut feed = Feed::new(index).await;
    feed.index.create(&spec()).await.unwrap();
    let applied = feed.apply_and_see(three_upserts()).await;
    assert_eq!(applied, Applied { upserts: 3, deletes: 0, fenced: 0 });
    assert_eq!(found_ids(index, "acme", &request("gas price", Mode::Lexical)).await, ["a", "c"]);
    assert_eq!(find(index, "acme", &request("gas price", Mode::Dense)).await.total, 3);
    assert_eq!(find(index, "acme", &request("gas price", Mode::Hybrid)).await.total, 3);
    assert!(find(index, "acme", &request("the of unknownword", Mode::Lexical)).await.results.is_empty());
    let document = index.get(&spec().id, &scope("acme"), &key("acme", "b")).await.unwrap().unwrap();
    assert_eq!(*document, crate::support::document("acme", "b", "crude oil forward curve", 1));
    let checkpoint = index.checkpoint(&spec().id).await.unwrap();
    assert_eq!((checkpoint.log.as_deref(), checkpoint.positions), (Some("log"), input(3)));
    let stats = index.stats(&spec().id, None).await.unwrap();
    assert_eq!((stats.total, stats.by_tenant.len(), stats.by_entity_type.len()), (3, 1, 1));

    feed.apply_and_see(vec![delete("acme", "c", 3)]).await;
    assert_eq!(found_ids(index, "acme", &request("gas price", Mode::Lexical)).await, ["a"]);
    assert_eq!(index.stats(&spec().id, Some(&scope("acme"))).await.unwrap().total, 2);
    assert_eq!(index.list().await.unwrap(), [spec().id]);
}

pub async fn law_04_an_older_op_never_overwrites_a_newer_one(make: Make<'_>) {
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
    // An op at the same position is applied again. The view has reached that position already, so `apply_and_see` waits
    // for the delete.
    feed.apply_and_see(vec![upsert("acme", "a", "newer again", 10), delete("acme", "y", 11)]).await;
    assert_eq!(text_of("a").await.as_deref(), Some("newer again"));
    // A delete fences older ops, of an entity that exists and of one that never existed.
    feed.apply_and_see(vec![delete("acme", "a", 20), delete("acme", "x", 20)]).await;
    let applied = feed.apply_and_see(vec![upsert("acme", "a", "stale", 19), upsert("acme", "x", "stale", 19)]).await;
    assert_eq!(applied.fenced, 2);
    assert_eq!((text_of("a").await, text_of("x").await), (None, None));
    assert!(find(index, "acme", &request("stale newer", Mode::Hybrid)).await.results.is_empty());
    feed.apply_and_see(vec![upsert("acme", "a", "back", 21), IndexOp::erase(key("acme", "x"), source(21))]).await;
    assert_eq!((text_of("a").await.as_deref(), text_of("x").await), (Some("back"), None));
    assert_eq!(feed.apply_and_see(vec![upsert("acme", "a", "stale", 20)]).await.fenced, 1);
    // The view reaches the positions of fenced ops too.
    let seen = feed.apply_and_see(vec![upsert("acme", "a", "newest", 30), upsert("acme", "b", "b", 40)]).await;
    assert_eq!(seen.upserts, 2);
    assert_eq!(index.view_positions(&spec().id).await.unwrap(), done(40));
}

pub async fn law_04_a_batch_from_a_stale_checkpoint_changes_nothing(make: Make<'_>) {
    let engine = make();
    let index = engine.index();
    let mut feed = Feed::new(index).await;
    feed.apply_and_see(three_upserts()).await;
    let stale = index.apply(&spec().id, "log", vec![upsert("acme", "z", "gas", 9)], &input(1), &input(4)).await;
    assert!(matches!(stale, Err(IndexError::Moved { actual }) if actual == input(3)));
    assert!(index.get(&spec().id, &scope("acme"), &key("acme", "z")).await.unwrap().is_none());
    assert_eq!(index.view_positions(&spec().id).await.unwrap(), done(2));
    // A batch without ops moves the checkpoint.
    index.apply(&spec().id, "log", Vec::new(), &input(3), &input(9)).await.unwrap();
    assert_eq!(index.checkpoint(&spec().id).await.unwrap().positions, input(9));
}

pub async fn ops_of_a_batch_are_deduplicated(make: Make<'_>) {
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

pub async fn a_batch_with_an_invalid_vector_is_rejected_whole(make: Make<'_>) {
    let engine = make();
    let index = engine.index();
    let mut feed = Feed::new(index).await;
    let with = |vector: Vec<f32>| IndexOp::upsert(document("acme", "bad", "gas", 1), vector);
    for bad in [vec![1.0], vec![f32::NAN; DIMENSION]] {
        let rejected = feed.apply(vec![upsert("acme", "good", "gas", 0), with(bad)]).await;
        assert!(matches!(rejected, Err(IndexError::Vector { key: at, .. }) if at == key("acme", "bad")));
    }
    assert_eq!(index.stats(&spec().id, None).await.unwrap().total, 0);
    assert!(index.checkpoint(&spec().id).await.unwrap().positions.is_empty());
    // The zero vector is valid; its score is 0.
    feed.apply_and_see(vec![with(vec![0.0; DIMENSION])]).await;
    assert_eq!(find(index, "acme", &request("gas", Mode::Dense)).await.results[0].score, 0.0);
}
