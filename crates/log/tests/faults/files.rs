//! Files that are deleted, replaced or damaged while the log is open.

use std::path::Path;
use std::process::Command;

use carbon_log::{EmbeddedLog, EventLog as _, Group, LogError};
use fail::FailScenario;

use super::world::{World, reached, spec, topic};

async fn is_removed(world: &mut World, name: &str) {
    let end = world.log.ends(&topic()).await.unwrap();
    let removed = |outcome: Result<(), LogError>| match outcome {
        Err(error @ LogError::Removed { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    };
    let message = removed(world.log.check().await);
    assert!(message.contains(name) && message.contains("put the file back"), "{message}");
    for count in [1, 40] {
        removed(world.append("lost", count).await);
    }
    removed(world.log.commit(&Group::new("p", "g"), &reached(1)).await);
    removed(world.log.ensure_topics(&[spec("other", 1)]).await);
    removed(world.log.compact().await.map(drop));
    assert_eq!(world.log.ends(&topic()).await.unwrap(), end);
}

#[tokio::test]
async fn law_14_nothing_is_appended_to_a_file_that_was_deleted_or_replaced() {
    let scenario = FailScenario::setup();
    let mut world = World::new().await;
    world.works("before").await;
    let aside = world.file("aside");
    for name in ["log.db", "log.db-wal"] {
        let path = world.file(name);
        std::fs::rename(&path, &aside).unwrap();
        is_removed(&mut world, name).await;
        std::fs::write(&path, "another").unwrap();
        is_removed(&mut world, name).await;
        // The same file again.
        std::fs::rename(&aside, &path).unwrap();
        world.works(name).await;
    }
    world.ends_well(&[]).await;
    scenario.teardown();
}

#[tokio::test]
async fn law_14_a_deleted_data_folder_takes_no_records() {
    let scenario = FailScenario::setup();
    let mut world = World::new().await;
    world.works("before").await;
    std::fs::remove_dir_all(world.root.path()).unwrap();
    is_removed(&mut world, "log.db").await;
    world.log.close().await;
    assert!(!world.root.path().exists());
    scenario.teardown();
}

/// The acknowledged records are in the write-ahead log alone, until the close moves them into the database.
#[tokio::test]
async fn law_14_a_close_saves_the_records_of_a_deleted_write_ahead_log() {
    let scenario = FailScenario::setup();
    let mut world = World::new().await;
    world.works("before").await;
    std::fs::remove_file(world.file("log.db-wal")).unwrap();
    is_removed(&mut world, "log.db-wal").await;
    world.log.close().await;
    world.log = EmbeddedLog::open(&world.folder).await.unwrap();
    world.works("after").await;
    world.ends_well(&[]).await;
    scenario.teardown();
}

/// SQLite deletes the write-ahead log by its name when the last connection is closed: not that of a file that was put back.
#[tokio::test]
async fn law_14_a_close_leaves_the_files_that_were_put_back() {
    let scenario = FailScenario::setup();
    let mut world = World::new().await;
    world.works("before").await;
    for name in ["log.db", "log.db-wal"] {
        std::fs::copy(world.file(name), world.file("aside")).unwrap();
        std::fs::rename(world.file("aside"), world.file(name)).unwrap();
    }
    let wal = std::fs::read(world.file("log.db-wal")).unwrap();
    is_removed(&mut world, "log.db").await;
    world.log.close().await;
    assert!(!wal.is_empty() && std::fs::read(world.file("log.db-wal")).unwrap() == wal);
    std::fs::remove_file(world.file("log.db-shm")).unwrap();
    world.log = EmbeddedLog::open(&world.folder).await.unwrap();
    world.works("after").await;
    world.ends_well(&[]).await;
    scenario.teardown();
}

/// Overwrites pages of records that no append needs.
fn damage(path: &Path) {
    let pages = std::fs::metadata(path).unwrap().len() / 4096;
    assert!(pages > 400, "{pages}");
    let (seek, count) = (format!("seek={}", pages / 2), format!("count={}", pages / 8));
    let output = format!("of={}", path.display());
    let mut dd = Command::new("dd");
    dd.args(["if=/dev/urandom", &output, "bs=4096", "conv=notrunc", "status=none", &seek, &count]);
    assert!(dd.status().unwrap().success());
}

#[tokio::test]
async fn law_16_damaged_pages_are_reported_and_nothing_is_appended_to_them() {
    let scenario = FailScenario::setup();
    let mut world = World::new().await;
    world.works("before").await;
    world.works("between").await;
    world.log.close().await;
    damage(&world.folder.log_file());
    world.log = EmbeddedLog::open(&world.folder).await.unwrap();
    // Nobody has seen it.
    world.log.check().await.unwrap();
    let corrupt = |outcome: Result<(), LogError>| match outcome {
        Err(LogError::Corrupt(message)) => assert!(message.contains("backup"), "{message}"),
        other => panic!("{other:?}"),
    };
    let mut stream = world.log.follow(&reached(0)).await.unwrap();
    let seen = async {
        loop {
            if let Err(error) = stream.next().await.unwrap().map(drop) {
                break error;
            }
        }
    };
    corrupt(Err(tokio::time::timeout(std::time::Duration::from_secs(20), seen).await.unwrap()));
    corrupt(world.log.check().await);
    let end = world.log.ends(&topic()).await.unwrap();
    for count in [1, 40] {
        corrupt(world.append("rejected", count).await);
    }
    // A read of what is whole does not make the rest whole.
    world.log.committed(&Group::new("p", "g")).await.unwrap();
    corrupt(world.log.check().await);
    assert_eq!(world.log.ends(&topic()).await.unwrap(), end);
    scenario.teardown();
}
