//! Search latency: each query once (its embedding is computed), and all of them again (it is cached).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::random::Random;
use crate::{Failure, prose, report};

pub struct Plan {
    pub url: String,
    pub queries: usize,
    pub concurrency: usize,
    pub mode: String,
    pub tenant: String,
    pub seed: u64,
}

pub async fn run(plan: &Plan) -> Result<(), Failure> {
    let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build()?;
    let mut random = Random::new(plan.seed ^ std::process::id() as u64);
    let queries: Arc<Vec<String>> = Arc::new((0..plan.queries).map(|_| prose::query(&mut random)).collect());
    // Connections and the first pages of the index are warm before anything is counted.
    round(&http, plan, &Arc::new((0..20).map(|_| prose::query(&mut random)).collect())).await?;
    report::print(&format!("{} search, each query's own embedding", plan.mode), round(&http, plan, &queries).await?);
    report::print(&format!("{} search, embedding cached", plan.mode), round(&http, plan, &queries).await?);
    Ok(())
}

async fn round(http: &reqwest::Client, plan: &Plan, queries: &Arc<Vec<String>>) -> Result<Vec<Duration>, Failure> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut workers = Vec::new();
    for _ in 0..plan.concurrency {
        let (http, queries, next) = (http.clone(), queries.clone(), next.clone());
        let (url, mode) = (format!("{}/tenants/{}/search", plan.url, plan.tenant), plan.mode.clone());
        workers.push(tokio::spawn(async move {
            let mut times = Vec::new();
            while let Some(query) = queries.get(next.fetch_add(1, Ordering::Relaxed)) {
                let body = json!({"query": query, "mode": mode, "limit": 10});
                let began = Instant::now();
                let answer = http.post(&url).json(&body).send().await?.error_for_status()?;
                let _: serde_json::Value = answer.json().await?;
                times.push(began.elapsed());
            }
            Ok::<_, Failure>(times)
        }));
    }
    let mut times = Vec::new();
    for worker in workers {
        times.extend(worker.await??);
    }
    Ok(times)
}
