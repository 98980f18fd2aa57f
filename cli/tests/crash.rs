//! Law 14: `kill -9` at random moments while entities stream in.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use support::{Random, Server, instrument};

/// The last version of an entity; `None` where it is deleted or was never there.
type Version = Option<u64>;

/// What the client knows of an entity.
#[derive(Clone, Debug, Default)]
struct Known {
    acknowledged: Version,
    /// Sent, but not answered when the process died: it may have landed or not.
    unanswered: Option<Version>,
}

type World = Arc<Mutex<HashMap<String, Known>>>;

fn text(id: &str, version: u64) -> String {
    format!("crash token{id} marker contract version{version}x of the series")
}

/// One write at a time over entities of its own, until the process is gone.
async fn stream(tracking: String, http: reqwest::Client, world: World, writer: usize, mut random: Random, base: u64) {
    let mut version = base;
    loop {
        version += 1;
        let ids: Vec<String> = (0..=random.below(3)).map(|_| format!("W{writer}N{}", random.below(12))).collect();
        let delete = random.below(4) == 0;
        let ids: Vec<String> = if delete { vec![ids[0].clone()] } else { ids };
        let sent: Version = if delete { None } else { Some(version) };
        for id in &ids {
            world.lock().unwrap().entry(id.clone()).or_default().unanswered = Some(sent);
        }
        let request = if delete {
            http.delete(format!("{tracking}/entities/instrument/{}", ids[0]))
        } else {
            let entities: Vec<Value> = ids.iter().map(|id| instrument(id, &text(id, version))).collect();
            http.post(format!("{tracking}/entities")).json(&entities)
        };
        match request.send().await {
            Ok(answer) if answer.status() == 200 => {
                for id in &ids {
                    world.lock().unwrap().insert(id.clone(), Known { acknowledged: sent, unanswered: None });
                }
            }
            Ok(answer) => panic!("{}: {:?}", answer.status(), answer.text().await),
            Err(_) => return,
        }
    }
}

/// Every acknowledged entity is found once, in its last version; no deleted one is. Settles what was unanswered.
async fn verify(server: &Server, world: &World, round: usize) {
    let ids: Vec<(String, Known)> =
        world.lock().unwrap().iter().map(|(id, known)| (id.clone(), known.clone())).collect();
    for (id, known) in ids {
        let query = json!({"query": format!("token{id}"), "mode": "lexical", "limit": 50});
        let answer = server.search("default", query, None).await;
        let found: Vec<&str> = answer["results"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|result| result["entity_id"] == id.as_str())
            .map(|result| result["text"].as_str().unwrap())
            .collect();
        assert!(found.len() <= 1, "round {round}: {id} is found {} times", found.len());
        let matches = |version: Version| match version {
            Some(version) => found == [text(&id, version)],
            None => found.is_empty(),
        };
        let settled = if matches(known.acknowledged) {
            known.acknowledged
        } else if known.unanswered.is_some_and(matches) {
            known.unanswered.flatten()
        } else {
            panic!("round {round}: {id}: found {found:?}, known {known:?}");
        };
        let (status, entity) = server.get(&format!("/entities/instrument/{id}")).await;
        match settled {
            Some(version) => assert_eq!((status, entity["text"].as_str()), (200, Some(text(&id, version).as_str()))),
            None => assert_eq!(status, 404, "round {round}: {id}"),
        }
        world.lock().unwrap().insert(id, Known { acknowledged: settled, unanswered: None });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn law_14_kill_9_at_random_moments_loses_and_doubles_nothing() {
    let rounds: usize = std::env::var("CARBON_CRASH_ROUNDS").map_or(50, |rounds| rounds.parse().unwrap());
    let data = tempfile::tempdir().unwrap();
    let world = World::default();
    let mut random = Random::new();
    let mut killed_while_starting = 0;
    for round in 0..rounds {
        if random.below(8) == 0 {
            // A kill during the start, too.
            let mut child = support::spawn(data.path(), &[]);
            tokio::time::sleep(Duration::from_millis(random.below(150))).await;
            child.0.kill().unwrap();
            child.0.wait().unwrap();
            killed_while_starting += 1;
        }
        let server = Server::start(data.path()).await;
        verify(&server, &world, round).await;
        let writers: Vec<_> = (0..3)
            .map(|writer| {
                let (tracking, http) = (server.tracking.clone(), server.http.clone());
                let own = Random::new_from(random.next());
                tokio::spawn(stream(tracking, http, world.clone(), writer, own, round as u64 * 1_000_000))
            })
            .collect();
        // The moment of the kill is the point of the test, not a synchronisation.
        tokio::time::sleep(Duration::from_millis(5 + random.below(400))).await;
        server.kill();
        for writer in writers {
            writer.await.unwrap();
        }
    }
    let server = Server::start(data.path()).await;
    verify(&server, &world, rounds).await;
    let world = world.lock().unwrap();
    assert!(world.len() > 20 && world.values().any(|known| known.acknowledged.is_none()));
    println!("{rounds} kills while streaming, {killed_while_starting} while starting, {} entities", world.len());
}
