//! A generation as a whole: waiting for the view, scrolling, reset and drop.

use std::time::Duration;

use carbon_core::Positions;
use carbon_search::plan::Mode;
use carbon_search::{Document, IndexError};
use tokio::time::Instant;

use crate::Make;
use crate::support::*;

pub async fn reached_waits_for_the_view(make: Make<'_>) {
    let engine = make();
    let index = engine.index();
    let mut feed = Feed::new(index).await;
    let soon = || Instant::now() + Duration::from_millis(30);
    let id = spec().id;
    assert!(index.reached(&id, &Positions::new(), soon()).await.unwrap());
    assert!(!index.reached(&id, &done(0), soon()).await.unwrap());
    let (deadline, wanted) = (Instant::now() + Duration::from_secs(10), done(2));
    let waiting = index.reached(&id, &wanted, deadline);
    let (reached, applied) = tokio::join!(waiting, feed.apply(three_upserts()));
    assert!(reached.unwrap() && applied.is_ok());
    assert_eq!(index.view_positions(&id).await.unwrap(), done(2));
    assert_eq!(find(index, "acme", &request("gas", Mode::Hybrid)).await.total, 3);
    // The view also reaches positions of ops that change no row.
    feed.apply_and_see(vec![delete("acme", "nothing", 7)]).await;
    feed.apply_and_see(vec![upsert("acme", "nothing", "stale", 6), upsert("acme", "a", "older still", 0)]).await;
}

pub async fn rows_scroll_in_key_order(make: Make<'_>) {
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

pub async fn reset_and_drop_delete_rows_and_checkpoint(make: Make<'_>) {
    let engine = make();
    let index = engine.index();
    let mut feed = Feed::new(index).await;
    feed.apply_and_see(three_upserts()).await;
    index.reset(&spec().id).await.unwrap();
    assert_eq!(index.checkpoint(&spec().id).await.unwrap(), Default::default());
    assert!(index.view_positions(&spec().id).await.unwrap().is_empty());
    assert_eq!(find(index, "acme", &request("gas", Mode::Hybrid)).await.total, 0);
    feed.next = 0;
    feed.apply_and_see(three_upserts()).await;
    assert_eq!(find(index, "acme", &request("gas", Mode::Hybrid)).await.total, 3);
    index.drop_generation(&spec().id).await.unwrap();
    assert!(index.list().await.unwrap().is_empty());
    let dropped = index.stats(&spec().id, None).await;
    assert!(matches!(dropped, Err(IndexError::UnknownGeneration(_))));
}
