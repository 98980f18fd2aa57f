//! Waiting until what was written can be searched.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::Service;
use crate::error::CliError;

/// How long nothing may move before the wait is given up.
const STANDSTILL: Duration = Duration::from_secs(120);
/// How long one request waits at the service.
const STEP_MS: u64 = 2000;

/// Waits until a search sees everything up to `positions`. `seen` is told how many entities of the tenant
/// the index holds meanwhile.
pub async fn wait(query: &Service, positions: &str, mut seen: impl FnMut(u64)) -> Result<(), CliError> {
    if positions.is_empty() {
        return Ok(());
    }
    let mut moved = Instant::now();
    let mut before = Value::Null;
    loop {
        let started = Instant::now();
        let probe = query
            .post("/search")
            .header("x-min-position", positions)
            .header("x-timeout-ms", STEP_MS)
            // No model is asked for it.
            .json(&json!({"query": "carbon", "mode": "lexical", "limit": 1}));
        let detail = match query.json::<Value>(probe).await {
            Ok(_) => return Ok(()),
            Err(CliError::NotReady { detail, .. }) => detail,
            Err(error) => return Err(error),
        };
        // The lag counts as well: other tenants' entities may come first.
        if let Ok(stats) = query.json::<Value>(query.get("/index/stats")).await
            && stats != before
        {
            moved = Instant::now();
            seen(stats["total_entities"].as_u64().unwrap_or(0));
            before = stats;
        }
        if moved.elapsed() > STANDSTILL {
            let detail = format!("nothing became searchable for {} s: {detail}", STANDSTILL.as_secs());
            return Err(CliError::NotReady { service: "query-api", detail });
        }
        // A service that cannot wait answers at once.
        tokio::time::sleep(Duration::from_millis(200).saturating_sub(started.elapsed())).await;
    }
}
