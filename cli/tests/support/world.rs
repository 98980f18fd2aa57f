//! What a client knows of the entities that it wrote, and whether the platform agrees.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::{Random, Server, instrument};

/// The last version of an entity; `None` where it is deleted or was never there.
type Version = Option<u64>;

/// What the client knows of an entity.
#[derive(Clone, Debug, Default)]
struct Known {
    acknowledged: Version,
    /// Sent, but not answered with success: it may have landed or not.
    unanswered: Option<Version>,
}

/// The entities of three writers.
#[derive(Clone, Default)]
pub struct World {
    known: Arc<Mutex<HashMap<String, Known>>>,
    /// How many deletions were acknowledged.
    deletions: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

fn text(id: &str, version: u64) -> String {
    format!("crash token{id} marker contract version{version}x of the series")
}

impl World {
    /// Starts three writers, each over entities of its own.
    pub fn write(&self, tracking: &str, http: &reqwest::Client, random: &mut Random, base: u64) -> Vec<JoinHandle<()>> {
        self.stop.store(false, Ordering::SeqCst);
        (0..3)
            .map(|writer| {
                let own = Random::new_from(random.next());
                tokio::spawn(self.clone().stream(tracking.to_owned(), http.clone(), writer, own, base))
            })
            .collect()
    }

    /// Asks the writers to stop, and waits for them.
    pub async fn settle(&self, writers: Vec<JoinHandle<()>>) {
        self.stop.store(true, Ordering::SeqCst);
        for writer in writers {
            writer.await.unwrap();
        }
    }

    /// One write at a time, until the service is gone, says that it cannot, or the test has enough.
    async fn stream(self, tracking: String, http: reqwest::Client, writer: usize, mut random: Random, base: u64) {
        let mut version = base;
        while !self.stop.load(Ordering::SeqCst) {
            version += 1;
            let ids: Vec<String> = (0..=random.below(3)).map(|_| format!("W{writer}N{}", random.below(12))).collect();
            let delete = random.below(4) == 0;
            let ids: Vec<String> = if delete { vec![ids[0].clone()] } else { ids };
            let sent: Version = if delete { None } else { Some(version) };
            for id in &ids {
                self.known.lock().unwrap().entry(id.clone()).or_default().unanswered = Some(sent);
            }
            let request = if delete {
                http.delete(format!("{tracking}/entities/instrument/{}", ids[0]))
            } else {
                let entities: Vec<Value> = ids.iter().map(|id| instrument(id, &text(id, version))).collect();
                http.post(format!("{tracking}/entities")).json(&entities)
            };
            match request.send().await {
                Ok(answer) if answer.status() == 200 => {
                    self.deletions.fetch_add(usize::from(delete), Ordering::SeqCst);
                    for id in &ids {
                        let known = Known { acknowledged: sent, unanswered: None };
                        self.known.lock().unwrap().insert(id.clone(), known);
                    }
                }
                // The log is away: one answer is enough to know it.
                Ok(answer) if answer.status() == 503 => return,
                Ok(answer) => panic!("{}: {:?}", answer.status(), answer.text().await),
                Err(_) => return,
            }
        }
    }

    /// Every acknowledged entity is found once, in its last version; no deleted one is. Settles what was unanswered.
    pub async fn verify(&self, server: &Server, position: Option<&str>, round: usize) {
        let ids: BTreeMap<String, Known> =
            self.known.lock().unwrap().iter().map(|(id, known)| (id.clone(), known.clone())).collect();
        for (id, known) in ids {
            let query = json!({"query": format!("token{id}"), "mode": "lexical", "limit": 50});
            let answer = server.search("default", query, position).await;
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
            let (status, entity) = server.get_after(&format!("/entities/instrument/{id}"), position).await;
            match settled {
                Some(version) => {
                    assert_eq!((status, entity["text"].as_str()), (200, Some(text(&id, version).as_str())))
                }
                None => assert_eq!(status, 404, "round {round}: {id}"),
            }
            self.known.lock().unwrap().insert(id, Known { acknowledged: settled, unanswered: None });
        }
    }

    /// How many entities were written, and how often one of them was deleted.
    pub fn count(&self) -> (usize, usize) {
        (self.known.lock().unwrap().len(), self.deletions.load(Ordering::SeqCst))
    }
}

/// Entities that lie in every partition, so that their positions are behind all that came before.
pub async fn fence(server: &Server) -> String {
    let entities: Vec<Value> =
        (0..60).map(|n| instrument(&format!("FENCE{n}"), "the fence behind the stream")).collect();
    server.produce("default", &json!(entities)).await
}
