//! Tenants are isolated (law 12): rows and scores.

use carbon_search::IndexOp;
use carbon_search::plan::Mode;

use crate::Make;
use crate::support::*;

pub async fn law_12_tenants_do_not_see_each_other(make: Make<'_>) {
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

pub async fn law_12_scores_do_not_depend_on_other_tenants(make: Make<'_>) {
    let (alone, beside) = (make(), make());
    let own: Vec<IndexOp> = (0..60).map(|n| upsert("acme", &format!("e{n}"), &text(n), n)).collect();
    let mut feed = Feed::new(alone.index()).await;
    feed.apply_and_see(own.clone()).await;
    let mut feed = Feed::new(beside.index()).await;
    feed.apply_and_see(own).await;
    // The other tenant has the same ids.
    let other = (0..600).map(|n| upsert("big", &format!("e{n}"), &text(n + 1000), n + 60)).collect();
    feed.apply_and_see(other).await;
    let (a, b) = (rankings(alone.index(), "acme", &QUERIES).await, rankings(beside.index(), "acme", &QUERIES).await);
    assert!(a.iter().any(|list| list.len() > 10));
    assert_same(&a, &b);
}
