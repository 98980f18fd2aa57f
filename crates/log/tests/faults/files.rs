//! Files that are deleted, replaced or damaged while the log is open.

use std::path::Path;
use std::process::Command;

use carbon_log::{EmbeddedLog, EventLog as _, Group, LogError};
use fail::FailScenario;

use super::harness::{Harness, at_offset, spec, topic};

/// Asserts that reads still work, and all writes fail because the file `name` was removed.
async fn assert_removed(harness: &mut Harness, name: &str) {
    let end = harness.log.ends(&topic()).await.unwrap();
    let removed = |outcome: Result<(), LogError>| match outcome {
        Err(error @ LogError::Removed { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    };
    let message = removed(harness.log.check().await);
    assert!(message.contains(name) && message.contains("put the file back"), "{message}");
    for count in [1, 40] {
        removed(harness.append("lost", count).await);
    }
    removed(harness.log.commit(&Group::new("p", "g"), &at_offset(1)).await);
    removed(harness.log.ensure_topics(&[spec("other", 1)]).await);
    removed(harness.log.compact().await.map(drop));
    assert_eq!(harness.log.ends(&topic()).await.unwrap(), end);
}

#[tokio::test]
async fn law_14_appends_to_a_deleted_or_replaced_file_are_rejected() {
    let scenario = FailScenario::setup();
    let mut harness = Harness::new().await;
    harness.assert_works("before").await;
    let aside = harness.file("aside");
    for name in ["log.db", "log.db-wal"] {
        let path = harness.file(name);
        std::fs::rename(&path, &aside).unwrap();
        assert_removed(&mut harness, name).await;
        std::fs::write(&path, "another").unwrap();
        assert_removed(&mut harness, name).await;
        // The original file is put back.
        std::fs::rename(&aside, &path).unwrap();
        harness.assert_works(name).await;
    }
    harness.assert_complete(&[]).await;
    scenario.teardown();
}

#[tokio::test]
async fn law_14_appends_to_a_deleted_data_folder_are_rejected() {
    let scenario = FailScenario::setup();
    let mut harness = Harness::new().await;
    harness.assert_works("before").await;
    std::fs::remove_dir_all(harness.root.path()).unwrap();
    assert_removed(&mut harness, "log.db").await;
    harness.log.close().await;
    assert!(!harness.root.path().exists());
    scenario.teardown();
}

/// Until the close, the acknowledged records are only in the WAL file. The close copies them to the database.
#[tokio::test]
async fn law_14_a_close_keeps_the_records_of_a_deleted_wal() {
    let scenario = FailScenario::setup();
    let mut harness = Harness::new().await;
    harness.assert_works("before").await;
    std::fs::remove_file(harness.file("log.db-wal")).unwrap();
    assert_removed(&mut harness, "log.db-wal").await;
    harness.log.close().await;
    harness.log = EmbeddedLog::open(&harness.folder).await.unwrap();
    harness.assert_works("after").await;
    harness.assert_complete(&[]).await;
    scenario.teardown();
}

/// When the last connection is closed, SQLite deletes the WAL file by its path. It must not delete a file that replaced
/// it.
#[tokio::test]
async fn law_14_a_close_leaves_replaced_files_unchanged() {
    let scenario = FailScenario::setup();
    let mut harness = Harness::new().await;
    harness.assert_works("before").await;
    for name in ["log.db", "log.db-wal"] {
        std::fs::copy(harness.file(name), harness.file("aside")).unwrap();
        std::fs::rename(harness.file("aside"), harness.file(name)).unwrap();
    }
    let wal = std::fs::read(harness.file("log.db-wal")).unwrap();
    assert_removed(&mut harness, "log.db").await;
    harness.log.close().await;
    assert!(!wal.is_empty() && std::fs::read(harness.file("log.db-wal")).unwrap() == wal);
    std::fs::remove_file(harness.file("log.db-shm")).unwrap();
    harness.log = EmbeddedLog::open(&harness.folder).await.unwrap();
    harness.assert_works("after").await;
    harness.assert_complete(&[]).await;
    scenario.teardown();
}

/// Overwrites pages of old records, which appends do not read.
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
async fn law_16_damaged_pages_are_reported_and_appends_are_rejected() {
    let scenario = FailScenario::setup();
    let mut harness = Harness::new().await;
    harness.assert_works("before").await;
    harness.assert_works("between").await;
    harness.log.close().await;
    damage(&harness.folder.log_file());
    harness.log = EmbeddedLog::open(&harness.folder).await.unwrap();
    // No access has read the damaged pages yet.
    harness.log.check().await.unwrap();
    let corrupt = |outcome: Result<(), LogError>| match outcome {
        Err(LogError::Corrupt(message)) => assert!(message.contains("backup"), "{message}"),
        other => panic!("{other:?}"),
    };
    let mut stream = harness.log.follow(&at_offset(0)).await.unwrap();
    let first_error = async {
        loop {
            if let Err(error) = stream.next().await.unwrap().map(drop) {
                break error;
            }
        }
    };
    corrupt(Err(tokio::time::timeout(std::time::Duration::from_secs(20), first_error).await.unwrap()));
    corrupt(harness.log.check().await);
    let end = harness.log.ends(&topic()).await.unwrap();
    for count in [1, 40] {
        corrupt(harness.append("rejected", count).await);
    }
    // A successful read of other pages does not clear the damage.
    harness.log.committed(&Group::new("p", "g")).await.unwrap();
    corrupt(harness.log.check().await);
    assert_eq!(harness.log.ends(&topic()).await.unwrap(), end);
    scenario.teardown();
}
