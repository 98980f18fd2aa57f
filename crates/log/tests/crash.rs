//! A `kill -9` loses no acknowledged record (law 14). A child process appends, and prints each acknowledgement. The
//! test kills it at a random moment, and checks that every printed record is in the log. This repeats on the same
//! folder.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use carbon_core::{Cleanup, Partitioner, Positions, Retention, TopicName, TopicPartition, TopicSpec};
use carbon_log::{DataFolder, EmbeddedLog, EventLog, Group, NewRecord, Placement, Value};

const FOLDER: &str = "CARBON_CRASH_FOLDER";
const ROUND: &str = "CARBON_CRASH_ROUND";
const SEED: &str = "CARBON_CRASH_SEED";
const ROUNDS: u64 = 20;
const PARTITIONS: u32 = 3;

fn topic(name: &str) -> TopicName {
    TopicName::parse(name).unwrap()
}

fn at(name: &str, partition: u32) -> TopicPartition {
    TopicPartition::new(topic(name), partition)
}

/// The next random number (SplitMix64).
fn mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The value of a record. It is derived from the record's name, so that a truncated value is detected.
fn payload(name: &str) -> Vec<u8> {
    let mut state = name.bytes().fold(14, |hash: u64, byte| hash.wrapping_mul(31).wrapping_add(u64::from(byte)));
    let length = match mix(&mut state) % 40 {
        0 => 300_000,
        n => n * 37,
    };
    let mut bytes = format!("{name} ").into_bytes();
    bytes.extend((0..length).map(|_| mix(&mut state) as u8));
    bytes
}

/// One record of a batch. Its name contains the number of records in the batch.
fn record(topic_name: &str, partition: u32, name: &str) -> NewRecord {
    NewRecord {
        topic: topic(topic_name),
        key: Some(name.as_bytes().to_vec()),
        placement: Placement::Partition(partition),
        value: Value::Raw(payload(name)),
        headers: vec![("name".to_owned(), name.as_bytes().to_vec())],
    }
}

async fn open(folder: &DataFolder) -> EmbeddedLog {
    let log = EmbeddedLog::open(folder).await.unwrap();
    let spec = |name: &str| TopicSpec {
        name: topic(name),
        partitions: PARTITIONS,
        cleanup: Cleanup::Keep,
        partitioner: Partitioner::Murmur2,
        retention: Retention::default(),
    };
    log.ensure_topics(&[spec("plain"), spec("output")]).await.unwrap();
    log
}

/// Prints a line for the parent process.
fn print_line(line: &str) {
    // One write per line, directly to stdout: the test harness would buffer it.
    std::io::stdout().lock().write_all(format!("\n{line}\n").as_bytes()).unwrap();
}

/// The process that is killed. Returns at once if the variable is not set.
#[test]
fn child() {
    let Ok(root) = std::env::var(FOLDER) else { return };
    let round = std::env::var(ROUND).unwrap();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let folder = DataFolder::open(Path::new(&root)).unwrap();
        let log = Arc::new(open(&folder).await);
        let counter = Arc::new(AtomicU64::new(0));
        let writers = (0..4).map(|_| {
            let (log, counter, round) = (log.clone(), counter.clone(), round.clone());
            tokio::spawn(async move {
                loop {
                    let batch = counter.fetch_add(1, Ordering::SeqCst);
                    let size = 1 + batch % 5;
                    let names: Vec<_> = (0..size).map(|n| format!("{round}.{batch}.{n}.{size}")).collect();
                    let place = |(n, name): (usize, &String)| record("plain", n as u32 % PARTITIONS, name);
                    let answered = log.append(names.iter().enumerate().map(place).collect()).await.unwrap();
                    for (position, name) in answered.iter().zip(&names) {
                        print_line(&format!("ack {} {} {name}", position.partition, position.offset));
                    }
                }
            })
        });
        let writers: Vec<_> = writers.collect();
        // A stage with 2 outputs per input.
        let group = Group::new("crash", "stage");
        let mut next = log.committed(&group).await.unwrap().next(&at("plain", 0));
        loop {
            let outputs = [0, 1].map(|n| record("output", n, &format!("{round}.in{next}.{n}.2")));
            let position = |next| -> Positions { [(at("plain", 0), next)].into_iter().collect() };
            log.append_and_advance(&group, outputs.to_vec(), &position(next), &position(next + 1)).await.unwrap();
            next += 1;
            print_line(&format!("stage {next}"));
            if writers.iter().any(tokio::task::JoinHandle::is_finished) {
                panic!("a writer ended");
            }
        }
    });
}

/// What the child has printed.
#[derive(Default)]
struct ChildReport {
    /// Names of the acknowledged records, by partition and offset.
    acknowledged: HashMap<(u32, u64), String>,
    /// The last committed input offset of the stage.
    stage: u64,
}

impl ChildReport {
    /// Parses a printed line. False if it is not a report.
    fn parse_line(&mut self, line: &str) -> bool {
        let words: Vec<_> = line.split(' ').collect();
        match words[..] {
            ["ack", partition, offset, name] => {
                let at = (partition.parse().unwrap(), offset.parse().unwrap());
                let before = self.acknowledged.insert(at, name.to_owned());
                assert!(before.is_none(), "{at:?} was acknowledged for {before:?} and {name}");
                true
            }
            ["stage", next] => {
                self.stage = next.parse().unwrap();
                true
            }
            _ => false,
        }
    }
}

/// Runs a child, and kills it `delay` after its report number `after`. Reads its output to the end, and returns the
/// number of reports.
fn run_and_kill(root: &Path, round: u64, after: u64, delay: Duration, report: &mut ChildReport) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(FOLDER, root)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let child = Arc::new(Mutex::new(child));
    let (mut count, mut killer, mut line) = (0, None, String::new());
    loop {
        if killer.is_none() && count >= after {
            let child = child.clone();
            killer = Some(std::thread::spawn(move || {
                // The kill may happen at any moment, also during a commit.
                #[allow(clippy::disallowed_methods)]
                std::thread::sleep(delay);
                child.lock().unwrap().kill().unwrap();
            }));
        }
        line.clear();
        // After the child's death this reads the rest of the pipe. An incomplete line does not count.
        if lines.read_line(&mut line).unwrap() == 0 {
            break;
        }
        if line.ends_with('\n') {
            count += u64::from(report.parse_line(line.trim_end()));
        }
    }
    killer.unwrap_or_else(|| panic!("the child ended by itself")).join().unwrap();
    let status = child.lock().unwrap().wait().unwrap();
    assert!(!status.success() && status.code() != Some(101), "the child ended by itself: {status}");
    count
}

/// Asserts that every acknowledged record is in the log, that offsets are dense, and that no record or batch is
/// partial.
async fn check(log: &EmbeddedLog, report: &ChildReport) {
    let mut batches: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    let mut outputs = [0, 0];
    let mut missing = report.acknowledged.len();
    for name in ["plain", "output"] {
        for partition in 0..PARTITIONS {
            let records = log.read(&at(name, partition), 0, 1_000_000).await.unwrap();
            let mut next = 0;
            let end = log.ends(&topic(name)).await.unwrap().next(&at(name, partition));
            let mut found = records;
            while !found.is_empty() {
                for record in found {
                    assert_eq!(record.position.offset, next, "{name}:{partition} has a gap");
                    next += 1;
                    let id = std::str::from_utf8(record.key.as_ref().unwrap()).unwrap();
                    assert!(record.value.as_deref() == Some(payload(id).as_slice()), "the value of {id} is damaged");
                    assert_eq!(record.headers, [("name".to_owned(), id.as_bytes().to_vec())]);
                    let parts: Vec<_> = id.split('.').collect();
                    let batch = batches.entry(format!("{name} {}.{}", parts[0], parts[1])).or_default();
                    *batch = (batch.0 + 1, parts[3].parse().unwrap());
                    if name == "output" {
                        outputs[partition as usize] += 1;
                    } else if let Some(acknowledged) = report.acknowledged.get(&(partition, record.position.offset)) {
                        assert_eq!(acknowledged, id);
                        missing -= 1;
                    }
                }
                found = log.read(&at(name, partition), next, 1_000_000).await.unwrap();
            }
            assert_eq!(next, end, "{name}:{partition}");
        }
    }
    assert_eq!(missing, 0, "acknowledged records are lost");
    for (batch, (found, size)) in batches {
        assert_eq!(found, size, "batch {batch} is partial");
    }
    let stage = log.committed(&Group::new("crash", "stage")).await.unwrap().next(&at("plain", 0));
    assert!(stage >= report.stage, "the stage has reported offset {}, but the log has {stage}", report.stage);
    assert_eq!(outputs, [stage, stage], "law 5: outputs and offset are committed together");
}

#[test]
fn law_14_a_kill_loses_no_acknowledged_record_and_leaves_no_partial_append() {
    let seed = match std::env::var(SEED) {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64,
    };
    println!("{SEED}={seed} repeats this run");
    let root = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (mut report, mut state, mut total) = (ChildReport::default(), seed, 0);
    for round in 0..ROUNDS {
        // Every fourth round kills the child while it opens the log or creates the topics.
        let after = if round % 4 == 0 { 0 } else { mix(&mut state) % 120 };
        let then = Duration::from_micros(mix(&mut state) % 60_000);
        total += run_and_kill(root.path(), round, after, then, &mut report);
        let folder = DataFolder::open(root.path()).unwrap();
        runtime.block_on(async {
            let log = open(&folder).await;
            check(&log, &report).await;
            log.close().await;
        });
    }
    assert!(total > ROUNDS, "too few acknowledgements: {total}");
}
