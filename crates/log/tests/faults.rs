//! Failures of the embedded log's disk, file and writer task, injected by failpoints. Failpoints are global to the
//! process, so every test holds the `FailScenario`, which serialises the tests.

#![allow(clippy::unwrap_used, clippy::panic)]

mod faults {
    mod files;
    pub mod harness;
}

use std::process::Command;

use carbon_core::{Positions, TopicName};
use carbon_log::{Delivery, EmbeddedLog, EventLog as _, Group, LogError};
use fail::FailScenario;
use faults::harness::{Harness, assert_unavailable, at_offset, records, spec};

/// SQLite's message for a full disk.
const FULL: &str = "database or disk is full";

#[tokio::test]
async fn law_14_a_full_disk_fails_an_append_and_the_next_succeeds() {
    let scenario = FailScenario::setup();
    let mut harness = Harness::new().await;
    harness.assert_works("before").await;
    fail::cfg("log::max_page_count", "return(1)").unwrap();
    for round in 0..3 {
        assert_unavailable(harness.append(&format!("full-{round}"), 40).await, FULL);
        assert_unavailable(harness.append(&format!("small-{round}"), 10).await, FULL);
    }
    fail::remove("log::max_page_count");
    harness.assert_works("after").await;
    harness.assert_complete(&[]).await;
    scenario.teardown();
}

/// If the disk is full, SQLite rolls the transaction back by itself, and sqlx does not notice.
#[tokio::test]
async fn law_14_a_transaction_that_sqlite_rolled_back_does_not_stop_the_next() {
    let scenario = FailScenario::setup();
    let mut harness = Harness::new().await;
    harness.assert_works("before").await;
    fail::cfg("log::rolled_back", "return").unwrap();
    let (group, zero) = (Group::new("p", "g"), at_offset(0));
    for round in 0..3 {
        assert_unavailable(harness.append(&format!("failed-{round}"), 40).await, "injected");
        let advanced = harness.log.append_and_advance(&group, records("failed", 2), &zero, &at_offset(1)).await;
        assert_unavailable(advanced, "injected");
    }
    fail::remove("log::rolled_back");
    harness.assert_works("after").await;
    assert_eq!(harness.log.committed(&group).await.unwrap(), Positions::new());
    harness.assert_complete(&[]).await;
    scenario.teardown();
}

/// A failed write of topics, schemas or offsets leaves the connection usable as well.
#[tokio::test]
async fn law_14_a_full_disk_fails_every_write_without_lasting_effect() {
    let scenario = FailScenario::setup();
    let mut harness = Harness::new().await;
    harness.assert_works("before").await;
    let group = Group::new("p", "g");
    let (zero, one) = (at_offset(0), at_offset(1));
    let json = format!(r#"{{"type": "record", "name": "r", "doc": "{}", "fields": []}}"#, "x".repeat(1_000_000));
    fail::cfg("log::max_page_count", "return(1)").unwrap();
    assert_unavailable(harness.log.ensure_topics(&[spec("wide", 4000)]).await, FULL);
    assert_unavailable(harness.log.put_schema("x", &json).await, FULL);
    assert_unavailable(harness.log.append_and_advance(&group, records("advance", 40), &zero, &one).await, FULL);
    fail::remove("log::max_page_count");
    harness.assert_works("after").await;
    assert!(matches!(harness.log.ends(&TopicName::parse("wide").unwrap()).await, Err(LogError::UnknownTopic(_))));
    assert_eq!(harness.log.committed(&group).await.unwrap(), Positions::new());
    harness.log.ensure_topics(&[spec("wide", 4000)]).await.unwrap();
    harness.log.put_schema("x", &json).await.unwrap();
    // A fenced append is not a failure of the file: the next append succeeds.
    let fenced = harness.log.append_and_advance(&group, records("fenced", 1), &one, &at_offset(2)).await;
    assert!(matches!(fenced, Err(LogError::Fenced { .. })), "{fenced:?}");
    harness.assert_works("fenced").await;
    harness.assert_complete(&[]).await;
    scenario.teardown();
}

#[tokio::test]
async fn law_14_a_failed_compaction_leaves_the_log_working() {
    let scenario = FailScenario::setup();
    let mut harness = Harness::new().await;
    harness.assert_works("before").await;
    let stop = "CREATE TRIGGER stop BEFORE DELETE ON record BEGIN SELECT RAISE(ROLLBACK, 'stopped'); END";
    let mut file = connect(&harness).await;
    sqlx::raw_sql(stop).execute(&mut file).await.unwrap();
    harness.append("before-1", 1).await.unwrap();
    harness.acknowledged.clear();
    assert_unavailable(harness.log.compact().await, "stopped");
    assert_unavailable(harness.log.delete_records(&at_offset(3)).await, "stopped");
    harness.append("between", 40).await.unwrap();
    sqlx::raw_sql("DROP TRIGGER stop").execute(&mut file).await.unwrap();
    harness.log.compact().await.unwrap();
    harness.log.delete_records(&at_offset(3)).await.unwrap();
    harness.assert_works("after").await;
    scenario.teardown();
}

async fn connect(harness: &Harness) -> sqlx::SqliteConnection {
    use sqlx::Connection as _;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(harness.folder.log_file());
    sqlx::SqliteConnection::connect_with(&options).await.unwrap()
}

/// Fills a file system to its last byte.
#[tokio::test]
#[ignore = "needs root: mounts a tmpfs of 32 MiB"]
async fn law_14_a_full_file_system_fails_appends_until_space_is_free() {
    let scenario = FailScenario::setup();
    let root = tempfile::tempdir().unwrap();
    let run = |program: &str, arguments: &[&str]| {
        assert!(Command::new(program).args(arguments).arg(root.path()).status().unwrap().success());
    };
    run("mount", &["-t", "tmpfs", "-o", "size=32m", "tmpfs"]);
    let inner = tempfile::tempdir_in(root.path()).unwrap();
    let ballast = root.path().join("ballast");
    let mut harness = Harness::at(inner).await;
    harness.assert_works("before").await;
    for round in 0..3 {
        let mut file = std::fs::File::create(&ballast).unwrap();
        // The copy ends when the file system is full.
        std::io::copy(&mut std::io::repeat(7), &mut file).unwrap_err();
        for n in 0..2 {
            assert!(harness.append(&format!("full-{round}-{n}"), 40).await.is_err());
            assert!(harness.append(&format!("small-{round}-{n}"), 1).await.is_err());
            assert!(harness.log.check().await.is_err());
        }
        drop(file);
        std::fs::remove_file(&ballast).unwrap();
        // The check tests whether writes work again.
        harness.log.check().await.unwrap();
        harness.assert_works(&format!("after-{round}")).await;
    }
    harness.assert_complete(&[]).await;
    run("umount", &["-l"]);
    scenario.teardown();
}

#[tokio::test]
async fn law_14_a_failure_before_during_or_after_the_commit_loses_nothing() {
    let scenario = FailScenario::setup();
    let mut harness = Harness::new().await;
    let mut stream = harness.log.follow(&at_offset(0)).await.unwrap();
    harness.assert_works("before").await;
    for point in ["log::append", "log::commit"] {
        fail::cfg(point, "1*return").unwrap();
        assert_unavailable(harness.append(point, 40).await, "injected");
        harness.assert_works(point).await;
    }
    fail::cfg("log::append", "1*return").unwrap();
    assert_unavailable(harness.append("small", 1).await, "injected");
    // Records that are committed but not acknowledged are in the log, and the next records follow them.
    let mut unknown = Vec::new();
    for count in [1, 40] {
        fail::cfg("log::appended", "1*return").unwrap();
        assert_unavailable(harness.append(&format!("unknown-{count}"), count).await, "injected");
        unknown.extend((0..count).map(|n| format!("unknown-{count}.{n}")));
        harness.assert_works(&format!("after-{count}")).await;
    }
    // A reader gets each record once, without gaps.
    let (mut next, end) = (0, harness.keys().await.len() as u64);
    while next < end {
        let delivery = tokio::time::timeout(std::time::Duration::from_secs(20), stream.next()).await.unwrap();
        if let Delivery::Records(records) = delivery.unwrap().unwrap() {
            for record in records {
                assert_eq!(record.position.offset, next);
                next += 1;
            }
        }
    }
    harness.assert_complete(&unknown.iter().map(String::as_str).collect::<Vec<_>>()).await;
    scenario.teardown();
}

#[tokio::test]
async fn law_16_a_failed_reopen_is_reported_until_one_succeeds() {
    let scenario = FailScenario::setup();
    let mut harness = Harness::new().await;
    harness.assert_works("before").await;
    fail::cfg("log::append", "1*return").unwrap();
    fail::cfg("log::reopen", "return").unwrap();
    assert_unavailable(harness.append("first", 1).await, "injected");
    assert_unavailable(harness.append("second", 40).await, "injected");
    assert_unavailable(harness.log.check().await, "injected");
    fail::remove("log::reopen");
    // The check alone detects that the log works again.
    harness.log.check().await.unwrap();
    harness.assert_works("after").await;
    harness.assert_complete(&[]).await;
    scenario.teardown();
}

#[tokio::test]
async fn law_16_a_panic_of_the_writer_is_reported() {
    let scenario = FailScenario::setup();
    let mut harness = Harness::new().await;
    harness.assert_works("before").await;
    fail::cfg("log::append", "panic").unwrap();
    assert_unavailable(harness.append("panics", 1).await, "panic");
    fail::remove("log::append");
    assert_unavailable(harness.append("later", 1).await, "panic");
    assert_unavailable(harness.log.check().await, "panic");
    harness.log.close().await;
    assert!(matches!(harness.log.check().await, Err(LogError::Closed)));
    harness.log = EmbeddedLog::open(&harness.folder).await.unwrap();
    harness.assert_works("after").await;
    harness.assert_complete(&[]).await;
    scenario.teardown();
}
