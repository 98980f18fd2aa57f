//! Event to searchable.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::random::Random;
use crate::{Failure, prose, report};

pub struct Plan {
    pub url: String,
    pub tracking_url: String,
    pub rate: f64,
    pub seconds: u64,
    pub tenant: String,
    pub seed: u64,
}

pub async fn run(plan: &Plan) -> Result<(), Failure> {
    let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build()?;
    let mut random = Random::new(plan.seed ^ std::process::id() as u64);
    let total = (plan.rate * plan.seconds as f64) as usize;
    let began = tokio::time::Instant::now();
    let mut running = Vec::with_capacity(total);
    for number in 0..total {
        // A constant arrival rate, whatever the answers take.
        tokio::time::sleep_until(began + Duration::from_secs_f64(number as f64 / plan.rate)).await;
        let text = prose::text(&mut random, number);
        let body = json!({"entity_type": "instrument", "entity_id": format!("LAT{number:06}"), "text": text});
        let post = http.post(format!("{}/tenants/{}/entities", plan.tracking_url, plan.tenant)).json(&body);
        let query = json!({"query": format!("LAT{number:06}"), "mode": "lexical", "limit": 1});
        let search = http.post(format!("{}/tenants/{}/search", plan.url, plan.tenant)).json(&query);
        running.push(tokio::spawn(one(post, search)));
    }
    let (mut acknowledged, mut searchable) = (Vec::new(), Vec::new());
    for task in running {
        let (ack, seen) = task.await??;
        acknowledged.push(ack);
        searchable.push(seen);
    }
    println!("{total} events at {}/s", plan.rate);
    report::print("event acknowledged", acknowledged);
    report::print("event searchable", searchable);
    Ok(())
}

async fn one(post: reqwest::RequestBuilder, search: reqwest::RequestBuilder) -> Result<(Duration, Duration), Failure> {
    let began = Instant::now();
    let answer = post.send().await?.error_for_status()?;
    let acknowledged = began.elapsed();
    let position = answer.headers().get("X-Log-Position").ok_or("the answer has no X-Log-Position")?.clone();
    let answer = search.header("X-Min-Position", position).header("X-Timeout-Ms", "20000").send().await?;
    let found: serde_json::Value = answer.error_for_status()?.json().await?;
    let searchable = began.elapsed();
    match found["results"].as_array() {
        Some(results) if results.len() == 1 => Ok((acknowledged, searchable)),
        _ => Err(format!("the entity is not found: {found}").into()),
    }
}
