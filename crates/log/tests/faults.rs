//! What the embedded log does when its disk, its file or its writer fails. Failures are injected where the file's own would
//! come up; every test holds the scenario, since failpoints are the process's.

#![allow(clippy::unwrap_used, clippy::panic)]

mod faults {
    mod files;
    pub mod world;
}

use std::process::Command;

use carbon_core::{Positions, TopicName};
use carbon_log::{Delivery, EmbeddedLog, EventLog as _, Group, LogError};
use fail::FailScenario;
use faults::world::{World, reached, records, spec, unavailable};

const FULL: &str = "database or disk is full";

#[tokio::test]
async fn law_14_a_full_disk_fails_an_append_and_the_next_succeeds() {
    let scenario = FailScenario::setup();
    let mut world = World::new().await;
    world.works("before").await;
    fail::cfg("log::max_page_count", "return(1)").unwrap();
    for round in 0..3 {
        unavailable(world.append(&format!("full-{round}"), 40).await, FULL);
        unavailable(world.append(&format!("small-{round}"), 10).await, FULL);
    }
    fail::remove("log::max_page_count");
    world.works("after").await;
    world.ends_well(&[]).await;
    scenario.teardown();
}

/// SQLite has rolled the transaction back by itself, as it does where the disk is full at a write; sqlx does not notice.
#[tokio::test]
async fn law_14_a_transaction_that_sqlite_rolled_back_does_not_stop_the_next() {
    let scenario = FailScenario::setup();
    let mut world = World::new().await;
    world.works("before").await;
    fail::cfg("log::rolled_back", "return").unwrap();
    let (group, zero) = (Group::new("p", "g"), reached(0));
    for round in 0..3 {
        unavailable(world.append(&format!("failed-{round}"), 40).await, "injected");
        let advanced = world.log.append_and_advance(&group, records("failed", 2), &zero, &reached(1)).await;
        unavailable(advanced, "injected");
    }
    fail::remove("log::rolled_back");
    world.works("after").await;
    assert_eq!(world.log.committed(&group).await.unwrap(), Positions::new());
    world.ends_well(&[]).await;
    scenario.teardown();
}

/// The others who write to the file leave its connection usable, too.
#[tokio::test]
async fn law_14_a_full_disk_fails_topics_and_schemas_and_offsets_alone() {
    let scenario = FailScenario::setup();
    let mut world = World::new().await;
    world.works("before").await;
    let group = Group::new("p", "g");
    let (zero, one) = (reached(0), reached(1));
    let json = format!(r#"{{"type": "record", "name": "r", "doc": "{}", "fields": []}}"#, "x".repeat(1_000_000));
    fail::cfg("log::max_page_count", "return(1)").unwrap();
    unavailable(world.log.ensure_topics(&[spec("wide", 4000)]).await, FULL);
    unavailable(world.log.put_schema("x", &json).await, FULL);
    unavailable(world.log.append_and_advance(&group, records("advance", 40), &zero, &one).await, FULL);
    fail::remove("log::max_page_count");
    world.works("after").await;
    assert!(matches!(world.log.ends(&TopicName::parse("wide").unwrap()).await, Err(LogError::UnknownTopic(_))));
    assert_eq!(world.log.committed(&group).await.unwrap(), Positions::new());
    world.log.ensure_topics(&[spec("wide", 4000)]).await.unwrap();
    world.log.put_schema("x", &json).await.unwrap();
    // A business answer is no failure: the next append works, whatever connection it has.
    let fenced = world.log.append_and_advance(&group, records("fenced", 1), &one, &reached(2)).await;
    assert!(matches!(fenced, Err(LogError::Fenced { .. })), "{fenced:?}");
    world.works("fenced").await;
    world.ends_well(&[]).await;
    scenario.teardown();
}

#[tokio::test]
async fn law_14_a_failed_compaction_leaves_the_log_working() {
    let scenario = FailScenario::setup();
    let mut world = World::new().await;
    world.works("before").await;
    let stop = "CREATE TRIGGER stop BEFORE DELETE ON record BEGIN SELECT RAISE(ROLLBACK, 'stopped'); END";
    let mut file = connect(&world).await;
    sqlx::raw_sql(stop).execute(&mut file).await.unwrap();
    world.append("before-1", 1).await.unwrap();
    world.acknowledged.clear();
    unavailable(world.log.compact().await, "stopped");
    unavailable(world.log.delete_records(&reached(3)).await, "stopped");
    world.append("between", 40).await.unwrap();
    sqlx::raw_sql("DROP TRIGGER stop").execute(&mut file).await.unwrap();
    world.log.compact().await.unwrap();
    world.log.delete_records(&reached(3)).await.unwrap();
    world.works("after").await;
    scenario.teardown();
}

async fn connect(world: &World) -> sqlx::SqliteConnection {
    use sqlx::Connection as _;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(world.folder.log_file());
    sqlx::SqliteConnection::connect_with(&options).await.unwrap()
}

/// A disk that is full indeed, down to its last byte.
#[tokio::test]
#[ignore = "needs root: mounts a tmpfs of 32 MiB"]
async fn law_14_a_full_file_system_fails_appends_until_there_is_room() {
    let scenario = FailScenario::setup();
    let root = tempfile::tempdir().unwrap();
    let run = |program: &str, arguments: &[&str]| {
        assert!(Command::new(program).args(arguments).arg(root.path()).status().unwrap().success());
    };
    run("mount", &["-t", "tmpfs", "-o", "size=32m", "tmpfs"]);
    let inner = tempfile::tempdir_in(root.path()).unwrap();
    let ballast = root.path().join("ballast");
    let mut world = World::at(inner).await;
    world.works("before").await;
    for round in 0..3 {
        let mut file = std::fs::File::create(&ballast).unwrap();
        // Ends with the error that there is no room.
        std::io::copy(&mut std::io::repeat(7), &mut file).unwrap_err();
        for n in 0..2 {
            assert!(world.append(&format!("full-{round}-{n}"), 40).await.is_err());
            assert!(world.append(&format!("small-{round}-{n}"), 1).await.is_err());
            assert!(world.log.check().await.is_err());
        }
        drop(file);
        std::fs::remove_file(&ballast).unwrap();
        // The check itself finds that there is room again.
        world.log.check().await.unwrap();
        world.works(&format!("after-{round}")).await;
    }
    world.ends_well(&[]).await;
    run("umount", &["-l"]);
    scenario.teardown();
}

#[tokio::test]
async fn law_14_a_failure_before_during_or_after_the_commit_loses_nothing() {
    let scenario = FailScenario::setup();
    let mut world = World::new().await;
    let mut stream = world.log.follow(&reached(0)).await.unwrap();
    world.works("before").await;
    for point in ["log::append", "log::commit"] {
        fail::cfg(point, "1*return").unwrap();
        unavailable(world.append(point, 40).await, "injected");
        world.works(point).await;
    }
    fail::cfg("log::append", "1*return").unwrap();
    unavailable(world.append("small", 1).await, "injected");
    // Committed, and not acknowledged: the records are there, and the next ones come after them.
    let mut unknown = Vec::new();
    for count in [1, 40] {
        fail::cfg("log::appended", "1*return").unwrap();
        unavailable(world.append(&format!("unknown-{count}"), count).await, "injected");
        unknown.extend((0..count).map(|n| format!("unknown-{count}.{n}")));
        world.works(&format!("after-{count}")).await;
    }
    // A reader gets each record once, without a gap.
    let (mut next, end) = (0, world.keys().await.len() as u64);
    while next < end {
        let delivery = tokio::time::timeout(std::time::Duration::from_secs(20), stream.next()).await.unwrap();
        if let Delivery::Records(records) = delivery.unwrap().unwrap() {
            for record in records {
                assert_eq!(record.position.offset, next);
                next += 1;
            }
        }
    }
    world.ends_well(&unknown.iter().map(String::as_str).collect::<Vec<_>>()).await;
    scenario.teardown();
}

#[tokio::test]
async fn law_16_a_file_that_cannot_be_opened_again_is_reported_until_it_can() {
    let scenario = FailScenario::setup();
    let mut world = World::new().await;
    world.works("before").await;
    fail::cfg("log::append", "1*return").unwrap();
    fail::cfg("log::reopen", "return").unwrap();
    unavailable(world.append("first", 1).await, "injected");
    unavailable(world.append("second", 40).await, "injected");
    unavailable(world.log.check().await, "injected");
    fail::remove("log::reopen");
    // Nobody need append for the log to be found working.
    world.log.check().await.unwrap();
    world.works("after").await;
    world.ends_well(&[]).await;
    scenario.teardown();
}

#[tokio::test]
async fn law_16_a_panic_of_the_writer_is_reported() {
    let scenario = FailScenario::setup();
    let mut world = World::new().await;
    world.works("before").await;
    fail::cfg("log::append", "panic").unwrap();
    unavailable(world.append("panics", 1).await, "panic");
    fail::remove("log::append");
    unavailable(world.append("later", 1).await, "panic");
    unavailable(world.log.check().await, "panic");
    world.log.close().await;
    assert!(matches!(world.log.check().await, Err(LogError::Closed)));
    world.log = EmbeddedLog::open(&world.folder).await.unwrap();
    world.works("after").await;
    world.ends_well(&[]).await;
    scenario.teardown();
}
