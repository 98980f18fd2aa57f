//! The platform as several processes on Kafka: kills, zombies, lost offsets, a broker or a registry that is away.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::HashMap;
use std::process::Command;
use std::time::{Duration, Instant};

use apache_avro::Schema;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use carbon_core::TopicName;
use carbon_log::{EventLog as _, NewRecord, Placement};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use serde_json::json;
use support::deployment::{EMBEDDER, SET, TRACKING, connect, free_port, no_lag, one_output_each, start};
use support::world::{World, fence};
use support::{Place, Random, Server, instrument, results};

fn rounds(default: usize) -> usize {
    std::env::var("CARBON_CRASH_ROUNDS").map_or(default, |rounds| rounds.parse().unwrap())
}

/// The three kinds of process, each of which can be killed and started again.
struct Processes {
    place: Place,
    elsewhere: Place,
    port: String,
    set: Option<Server>,
    embedder: Option<Server>,
    tracking: Option<Server>,
    /// A second embedder, where there is one.
    second: Option<Server>,
}

impl Processes {
    async fn start() -> Self {
        let place = Place::kafka().await;
        let elsewhere = place.beside();
        let port = free_port();
        let mut processes = Self { place, elsewhere, port, set: None, embedder: None, tracking: None, second: None };
        for role in 0..3 {
            processes.start_role(role).await;
        }
        processes
    }

    async fn start_role(&mut self, role: usize) {
        match role {
            0 => self.set = Some(start(&self.place, self.place.path(), &SET, &[]).await),
            1 => self.embedder = Some(start(&self.place, self.elsewhere.path(), &EMBEDDER, &[]).await),
            _ => {
                let port = [("ML_TRACKING_PORT", self.port.as_str())];
                self.tracking = Some(start(&self.place, self.elsewhere.path(), &TRACKING, &port).await);
            }
        }
    }

    fn kill_role(&mut self, role: usize) {
        [&mut self.set, &mut self.embedder, &mut self.tracking][role].take().unwrap().kill();
    }

    /// What they said, for whoever has to find out what went wrong.
    fn say(&mut self) {
        let all = [&mut self.set, &mut self.embedder, &mut self.second, &mut self.tracking];
        for server in all.into_iter().flatten() {
            println!("--- {}\n{}", server.pid(), server.said());
        }
        if let Some(tracking) = &self.tracking {
            let status = support::binary().args(["status", "--tracking-url", &tracking.tracking]).output().unwrap();
            println!("--- {}", String::from_utf8_lossy(&status.stdout));
        }
    }

    fn set(&self) -> &Server {
        self.set.as_ref().unwrap()
    }

    fn tracking(&self) -> &Server {
        self.tracking.as_ref().unwrap()
    }

    /// All that was acknowledged is there, once, and nothing stale; each input has one output.
    async fn verify(&self, world: &World, round: usize) {
        let position = fence(self.tracking()).await;
        world.verify(self.set(), Some(&position), round).await;
    }

    async fn finish(&self, world: &World, what: &str) {
        no_lag(self.tracking()).await;
        let log = connect(&self.place).await;
        let events = one_output_each(&log).await;
        let (entities, deletions) = world.count();
        println!("{what}, {entities} entities, {deletions} deletions, {events} events, one output each");
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.say();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts brokers: scripts/services.sh fetches them; run with --ignored"]
async fn law_14_kill_9_of_each_process_loses_and_doubles_nothing() {
    let (rounds, world, mut random) = (rounds(50), World::default(), Random::new());
    let mut processes = Processes::start().await;
    for round in 0..3 * rounds {
        let role = round % 3;
        let tracking = processes.tracking();
        let writers = world.write(&tracking.tracking, &tracking.http, &mut random, round as u64 * 1_000_000);
        // The moment of the kill is the point of the test, not a synchronisation.
        tokio::time::sleep(Duration::from_millis(5 + random.below(400))).await;
        processes.kill_role(role);
        // The stream goes on a little without it.
        tokio::time::sleep(Duration::from_millis(random.below(200))).await;
        world.settle(writers).await;
        processes.start_role(role).await;
        processes.verify(&world, round).await;
    }
    processes.finish(&world, &format!("{rounds} kills of each of three processes")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts brokers: scripts/services.sh fetches them; run with --ignored"]
async fn law_14_kill_9_of_the_broker_loses_and_doubles_nothing() {
    let (rounds, world, mut random) = (rounds(50).div_ceil(5), World::default(), Random::new());
    let processes = Processes::start().await;
    let cluster = processes.place.cluster.clone().unwrap();
    for round in 0..rounds {
        let tracking = processes.tracking();
        let writers = world.write(&tracking.tracking, &tracking.http, &mut random, round as u64 * 1_000_000);
        tokio::time::sleep(Duration::from_millis(5 + random.below(400))).await;
        cluster.kill("kafka");
        tokio::time::sleep(Duration::from_millis(random.below(300))).await;
        cluster.restart("kafka");
        world.settle(writers).await;
        processes.verify(&world, round).await;
    }
    processes.finish(&world, &format!("{rounds} kills of the broker")).await;
}

fn signal(server: &Server, name: &str) {
    assert!(Command::new("kill").args([name, &server.pid().to_string()]).status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts brokers: scripts/services.sh fetches them; run with --ignored"]
async fn law_05_an_embedder_that_wakes_up_as_a_zombie_changes_nothing() {
    let (world, mut random) = (World::default(), Random::new());
    let mut processes = Processes::start().await;
    let second = processes.place.beside();
    processes.second = Some(start(&processes.place, second.path(), &EMBEDDER, &[]).await);
    for round in 0..rounds(50).div_ceil(6) {
        let stopped = if round % 2 == 0 { &processes.embedder } else { &processes.second };
        let stopped = stopped.as_ref().unwrap();
        let tracking = processes.tracking();
        let writers = world.write(&tracking.tracking, &tracking.http, &mut random, round as u64 * 1_000_000);
        tokio::time::sleep(Duration::from_millis(5 + random.below(300))).await;
        signal(stopped, "-STOP");
        // Its partitions have moved when what lies in all of them is searchable.
        let position = fence(tracking).await;
        processes.set().search("default", json!({"query": "fence"}), Some(&position)).await;
        signal(stopped, "-CONT");
        tokio::time::sleep(Duration::from_millis(random.below(300))).await;
        world.settle(writers).await;
        processes.verify(&world, round).await;
    }
    // The group's offsets are forgotten while nobody reads: the outputs say where to go on.
    no_lag(processes.tracking()).await;
    processes.kill_role(1);
    processes.second.take().unwrap().kill();
    let writers = world.write(&processes.tracking().tracking, &processes.tracking().http, &mut random, 900_000_000);
    forget_offsets(&processes.place, "carbon.embedder.feature-hashing@1@f32").await;
    world.settle(writers).await;
    processes.start_role(1).await;
    processes.verify(&world, 1000).await;
    processes.finish(&world, "zombies and forgotten offsets").await;
}

/// Deletes a group once its last member's session is over.
async fn forget_offsets(place: &Place, group: &str) {
    let brokers = place.cluster.as_ref().unwrap().brokers();
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    let deadline = Instant::now() + support::PATIENCE;
    loop {
        match admin.delete_groups(&[group], &AdminOptions::new()).await.unwrap().remove(0) {
            Ok(_) => return,
            Err(error) => assert!(Instant::now() < deadline, "{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts brokers: scripts/services.sh fetches them; run with --ignored"]
async fn a_registry_that_is_away_for_half_a_minute_loses_nothing() {
    let (world, mut random) = (World::default(), Random::new());
    let mut processes = Processes::start().await;
    let cluster = processes.place.cluster.clone().unwrap();
    let tracking = processes.tracking();
    let writers = world.write(&tracking.tracking, &tracking.http, &mut random, 0);
    let position = fence(tracking).await;
    processes.set().search("default", json!({"query": "fence"}), Some(&position)).await;
    cluster.pause("registry");
    let away = Instant::now();
    // What runs knows its schemas; what starts has to wait for them.
    let position = fence(processes.tracking()).await;
    processes.set().search("default", json!({"query": "fence"}), Some(&position)).await;
    processes.kill_role(1);
    processes.kill_role(0);
    world.settle(writers).await;
    let mut settings = processes.place.settings();
    settings.push(("ML_TRACKING_PORT", "0"));
    let waiting = support::spawn_roles(processes.elsewhere.path(), &EMBEDDER, &settings);
    tokio::time::sleep(Duration::from_secs(30).saturating_sub(away.elapsed())).await;
    drop(waiting);
    cluster.resume("registry");
    processes.start_role(0).await;
    processes.start_role(1).await;
    processes.verify(&world, 0).await;
    processes.finish(&world, "a registry that was away").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts brokers: scripts/services.sh fetches them; run with --ignored"]
async fn every_set_is_a_full_copy_and_a_copied_folder_is_noticed() {
    let processes = Processes::start().await;
    let entities: Vec<_> = (0..100).map(|n| instrument(&format!("E{n}"), &format!("power hub {}", n % 7))).collect();
    let position = processes.tracking().produce("default", &json!(entities)).await;
    let query = json!({"query": "power hub 3", "limit": 100});
    let first = processes.set().search("default", query.clone(), Some(&position)).await;
    let other = processes.place.beside();
    let mut second = start(&processes.place, other.path(), &SET, &[]).await;
    let answer = second.search("default", query, Some(&position)).await;
    assert_eq!(results(&answer), results(&first));
    assert_eq!(answer["generation"], first["generation"]);
    no_lag(processes.tracking()).await;
    let url = format!("{}/status", processes.tracking().tracking);
    let status: serde_json::Value = processes.tracking().http.get(url).send().await.unwrap().json().await.unwrap();
    let running = |name: &str| {
        let all = status["processors"].as_array().unwrap().iter();
        all.filter(|processor| processor["name"] == name && processor["phase"] == "running").count()
    };
    assert_eq!([running("indexer"), running("catalog"), running("embedder")], [2, 2, 1], "{status}");
    // The folder's name is in the copy as well.
    let copied = processes.place.beside();
    std::fs::copy(other.path().join("instance"), copied.path().join("instance")).unwrap();
    let mut settings = processes.place.settings();
    settings.push(("ML_LOG_LEVEL", "warn"));
    let _third = support::spawn_roles(copied.path(), &SET, &settings);
    second.says(&["was the folder copied"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts brokers: scripts/services.sh fetches them; run with --ignored"]
async fn law_13_what_a_newer_program_wrote_is_read() {
    let place = Place::kafka().await;
    let server = place.start().await;
    let log = connect(&place).await;
    // The next version of the schema, as a program to come would have it: a field more, with a default.
    let event = "ml.entity.changed.v1";
    let mut grown: serde_json::Value = serde_json::from_str(carbon_schemas::current(event).unwrap().json).unwrap();
    let field = json!({"name": "exchange", "type": ["null", "string"], "default": null});
    grown["fields"].as_array_mut().unwrap().push(field);
    let id = log.put_schema(event, &grown.to_string()).await.unwrap();
    let schema = Schema::parse_str(&grown.to_string()).unwrap();
    let text = |text: &str| Value::String(text.to_owned());
    let record = Value::Record(vec![
        ("event_id".into(), text("0192f0c1-0000-7000-8000-000000000001")),
        ("occurred_at".into(), Value::TimestampMillis(1_700_000_000_000)),
        ("tenant_id".into(), text("default")),
        ("entity_type".into(), text("instrument")),
        ("entity_id".into(), text("NEWER")),
        ("text".into(), text("Zeebrugge beach gas of a newer writer")),
        ("metadata".into(), Value::Map(HashMap::new())),
        ("tags".into(), Value::Array(vec![])),
        ("deleted".into(), Value::Boolean(false)),
        ("exchange".into(), Value::Union(1, Box::new(text("ICE")))),
    ]);
    let writer = GenericDatumWriter::builder(&schema).build().unwrap();
    let body = writer.write_value_to_vec(record).unwrap();
    let key = b"default/instrument/NEWER".to_vec();
    let record = NewRecord {
        topic: TopicName::parse(event).unwrap(),
        key: Some(key.clone()),
        placement: Placement::ByKey(key),
        value: carbon_log::Value::Raw(carbon_schemas::frame(id, &body)),
        headers: vec![],
    };
    let position = log.append(vec![record]).await.unwrap().remove(0);
    let answer = server.search("default", json!({"query": "zeebrugge"}), Some(&position.to_string())).await;
    assert_eq!(results(&answer)[0].0, "instrument/NEWER");
    // And a program that knows only this version is not refused by the registry afterwards.
    place.cluster.as_ref().unwrap().apply_topology();
}
