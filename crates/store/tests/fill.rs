//! The fill marker, the check of an open file, the removal of a namespace, and switches between namespaces, in either
//! store as in `namespace.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use carbon_store::{
    Checkpoint, Dialect, Durability, Namespace, Postgres, Site, SqliteNamespace, StoreError, query, testing,
};
use sqlx::Connection as _;
use support::{ITEM, ids, layout, positions, site, write};

#[tokio::test]
async fn law_07_a_new_namespace_is_unfilled_until_it_is_set_filled() {
    let (site, _dir) = site().await;
    let space = Namespace::open(&site, &layout(1)).await.unwrap();
    assert!(!space.is_filled().await.unwrap());
    write(&space, "first", 0, 1).await.unwrap();
    // A process that restarts continues to fill.
    let other = Namespace::open(&site, &layout(1)).await.unwrap();
    assert!(!other.is_filled().await.unwrap());
    space.set_filled().await.unwrap();
    space.set_filled().await.unwrap();
    assert!(space.is_filled().await.unwrap() && other.is_filled().await.unwrap());
    assert!(Namespace::open(&site, &layout(1)).await.unwrap().is_filled().await.unwrap());
    space.clear().await.unwrap();
    assert!(!space.is_filled().await.unwrap() && !other.is_filled().await.unwrap());
    space.clear().await.unwrap();
    assert!(ids(&space).await.is_empty());
    assert_eq!(space.checkpoint().await.unwrap(), Checkpoint::default());
}

/// Two open a new namespace at the same time, and only the one that created it sets the marker.
#[tokio::test]
async fn of_two_that_open_a_new_namespace_only_one_sets_the_marker() {
    for _ in 0..10 {
        let (site, _dir) = site().await;
        let (one, other) = (site.clone(), site.clone());
        let open = |site: Site| async move {
            let space = Namespace::open(&site, &layout(1)).await.unwrap();
            space.set_filled().await.unwrap();
            space
        };
        let (one, other) = tokio::join!(tokio::spawn(open(one)), tokio::spawn(open(other)));
        assert!(one.unwrap().is_filled().await.unwrap() && other.unwrap().is_filled().await.unwrap());
    }
}

#[tokio::test]
async fn a_namespace_of_an_older_program_counts_as_filled() {
    let (site, _dir) = site().await;
    let space = Namespace::open(&site, &layout(1)).await.unwrap();
    write(&space, "first", 0, 1).await.unwrap();
    let mut tables = space.begin().await.unwrap();
    query("DROP TABLE fill").execute(tables.connection()).await.unwrap();
    tables.commit().await.unwrap();
    space.close().await;
    let space = Namespace::open(&site, &layout(1)).await.unwrap();
    assert!(space.is_filled().await.unwrap());
    space.clear().await.unwrap();
    assert!(!space.is_filled().await.unwrap());
}

#[tokio::test]
async fn a_file_alone_has_the_marker_too() {
    let dir = tempfile::tempdir().unwrap();
    let space = SqliteNamespace::open(&dir.path().join("rows.db"), Durability::Full, 1, &ITEM.ddl(Dialect::Sqlite))
        .await
        .unwrap();
    assert!(!space.is_filled().await.unwrap());
    space.set_filled().await.unwrap();
    assert!(space.is_filled().await.unwrap());
    space.clear().await.unwrap();
    assert!(!space.is_filled().await.unwrap());
}

fn gone(checked: Result<(), StoreError>) -> bool {
    matches!(&checked, Err(StoreError::Gone { path }) if path.ends_with("rows.db"))
}

#[tokio::test]
async fn law_16_a_file_that_was_deleted_or_replaced_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("model");
    let path = folder.join("rows.db");
    let open = || async { Namespace::open(&Site::File(path.clone()), &layout(1)).await.unwrap() };
    let space = open().await;
    space.check().unwrap();
    // A file that is renamed and renamed back is the same file.
    let aside = folder.join("aside.db");
    std::fs::rename(&path, &aside).unwrap();
    let error = space.check().unwrap_err();
    assert!(error.to_string().contains("stop the process and start it again"), "{error}");
    std::fs::rename(&aside, &path).unwrap();
    space.check().unwrap();
    std::fs::copy(&path, &aside).unwrap();
    std::fs::rename(&aside, &path).unwrap();
    assert!(gone(space.check()), "replaced");
    space.close().await;

    let space = open().await;
    space.check().unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(gone(space.check()), "the folder was deleted");
}

/// Connections are opened on demand. A later one must not create an empty file where the open file was deleted.
#[tokio::test]
async fn a_deleted_file_is_not_created_again_by_a_later_connection() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rows.db");
    let space = SqliteNamespace::open(&path, Durability::Derived, 1, &ITEM.ddl(Dialect::Sqlite)).await.unwrap();
    std::fs::remove_file(&path).unwrap();
    // No reader is open yet, and the writer's connection is closed after a failure.
    let mut tables = space.begin().await.unwrap();
    sqlx::query("INSERT INTO nowhere VALUES (1)").execute(tables.connection()).await.unwrap_err();
    drop(tables);
    assert!(matches!(space.checkpoint().await, Err(StoreError::Gone { .. })));
    assert!(matches!(space.begin().await.map(drop), Err(StoreError::Gone { .. })));
    assert!(sqlx::query("SELECT 1").execute(space.readers()).await.is_err());
    assert!(!path.exists());
}

#[tokio::test]
async fn a_site_is_dropped_with_all_of_its_files() {
    let (site, dir) = site().await;
    Namespace::drop_site(&site).await.unwrap();
    let space = Namespace::open(&site, &layout(1)).await.unwrap();
    write(&space, "first", 0, 1).await.unwrap();
    space.set_filled().await.unwrap();
    space.close().await;
    // Files that a killed process leaves.
    if let Site::File(path) = &site {
        for suffix in ["-wal", "-shm"] {
            std::fs::write(format!("{}{suffix}", path.display()), "left").unwrap();
        }
    }
    Namespace::drop_site(&site).await.unwrap();
    Namespace::drop_site(&site).await.unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    // Another layout is accepted now.
    let space = Namespace::open(&site, &layout(2)).await.unwrap();
    assert!(ids(&space).await.is_empty() && !space.is_filled().await.unwrap());
}

#[tokio::test]
async fn a_snapshot_reads_row_by_row_with_the_checkpoint_of_the_same_commit() {
    let (site, _dir) = site().await;
    let space = Namespace::open(&site, &layout(1)).await.unwrap();
    write(&space, "a", 0, 1).await.unwrap();
    write(&space, "b", 1, 2).await.unwrap();
    let mut snapshot = space.snapshot().await.unwrap();
    let select = "SELECT id FROM item WHERE id <> $1 ORDER BY id";
    let read = async |snapshot: &mut carbon_store::Snapshot| {
        let mut found = Vec::new();
        let row = |row: &carbon_store::Row| {
            found.push(row.try_get::<String>(0)?);
            Ok(())
        };
        snapshot.each(query(select).bind("none"), row).await.unwrap();
        found
    };
    assert_eq!(read(&mut snapshot).await, ["a", "b"]);
    write(&space, "c", 2, 3).await.unwrap();
    assert_eq!(read(&mut snapshot).await, ["a", "b"]);
    assert_eq!(snapshot.checkpoint().await.unwrap().positions, positions(2));
    snapshot.end().await.unwrap();
    let mut snapshot = space.snapshot().await.unwrap();
    assert_eq!(snapshot.checkpoint().await.unwrap().positions, positions(3));
    assert_eq!(read(&mut snapshot).await, ["a", "b", "c"]);
    // An error of the callback ends the query.
    let stopped = snapshot.each(query(select).bind("none"), |_| Err(StoreError::Address)).await;
    assert!(matches!(stopped, Err(StoreError::Address)));
}

async fn schemas() -> (Postgres, [Site; 2], String) {
    let postgres = testing::postgres().await;
    let model = uuid::Uuid::new_v4().to_string();
    // Longer than an identifier of Postgres.
    let sites = ["one", "two"].map(|end| Site::Schema(postgres.clone(), format!("{model}-{model}-{end}")));
    (postgres, sites, model)
}

#[tokio::test]
#[ignore = "needs a Postgres: scripts/postgres.py cargo test -p carbon-store -- --include-ignored"]
async fn law_07_a_switch_needs_a_checkpoint_that_covers_the_other() {
    let (postgres, [old, new], model) = schemas().await;
    assert_eq!(postgres.serving(&model, 3).await.unwrap(), None);
    let old = Namespace::open(&old, &layout(1)).await.unwrap();
    let new = Namespace::open(&new, &layout(1)).await.unwrap();
    assert!(postgres.switch(&model, 3, &old, None).await.unwrap());
    assert_eq!(postgres.serving(&model, 3).await.unwrap(), Some(old.name()));
    write(&old, "a", 0, 2).await.unwrap();
    assert!(!postgres.switch(&model, 3, &new, Some(&old)).await.unwrap());
    assert_eq!(postgres.serving(&model, 3).await.unwrap(), Some(old.name()));
    write(&new, "a", 0, 2).await.unwrap();
    assert!(postgres.switch(&model, 3, &new, Some(&old)).await.unwrap());
    assert_eq!(postgres.serving(&model, 3).await.unwrap(), Some(new.name()));
    assert!(new.name().ends_with("-two"), "{}", new.name());
    // Each fold version has its own row.
    assert_eq!(postgres.serving(&model, 4).await.unwrap(), None);
    // Another process switches back.
    let other = testing::postgres().await;
    assert!(other.switch(&model, 3, &old, Some(&new)).await.unwrap());
    assert_eq!(postgres.serving(&model, 3).await.unwrap(), Some(old.name()));
}

#[tokio::test]
#[ignore = "needs a Postgres: scripts/postgres.py cargo test -p carbon-store -- --include-ignored"]
async fn law_07_a_switch_waits_for_both_writers_and_two_switches_do_not_deadlock() {
    let (postgres, [one, two], model) = schemas().await;
    let one = Namespace::open(&one, &layout(1)).await.unwrap();
    let two = Namespace::open(&two, &layout(1)).await.unwrap();
    for held in [&one, &two] {
        let tables = held.begin().await.unwrap();
        let (postgres, one, two, model) = (postgres.clone(), one.clone(), two.clone(), model.clone());
        let switch = tokio::spawn(async move { postgres.switch(&model, 1, &two, Some(&one)).await.unwrap() });
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        assert!(!switch.is_finished());
        tables.commit().await.unwrap();
        assert!(switch.await.unwrap());
    }
    let address = testing::postgres_address().unwrap();
    let switches = (0..8).map(|n| {
        let (address, model) = (address.clone(), model.clone());
        let (to, from) = if n % 2 == 0 { (one.clone(), two.clone()) } else { (two.clone(), one.clone()) };
        tokio::spawn(async move {
            let postgres = Postgres::open(&address).await.unwrap();
            for _ in 0..20 {
                assert!(postgres.switch(&model, 1, &to, Some(&from)).await.unwrap());
            }
        })
    });
    for switch in switches.collect::<Vec<_>>() {
        switch.await.unwrap();
    }
}

#[tokio::test]
#[ignore = "needs a Postgres: scripts/postgres.py cargo test -p carbon-store -- --include-ignored"]
async fn a_switch_is_notified_to_readers_of_both() {
    let (postgres, sites, model) = schemas().await;
    let mut waiting = Vec::new();
    let mut spaces = Vec::new();
    for site in &sites {
        let space = Namespace::open(site, &layout(1)).await.unwrap();
        let mut commits = space.commits().unwrap();
        waiting.push(tokio::spawn(async move { commits.next(std::time::Duration::from_secs(600)).await }));
        spaces.push(space);
    }
    let switches = async {
        while waiting.iter().any(|one| !one.is_finished()) {
            postgres.switch(&model, 1, &spaces[0], Some(&spaces[1])).await.unwrap();
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), switches).await.unwrap();
}

#[tokio::test]
#[ignore = "needs a Postgres: scripts/postgres.py cargo test -p carbon-store -- --include-ignored"]
async fn a_first_switch_of_several_processes_makes_one_table() {
    let address = testing::postgres_address().unwrap();
    let admin = sqlx::PgPool::connect(&address).await.unwrap();
    let name = format!("switch_{}", uuid::Uuid::new_v4().simple());
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&admin).await.unwrap();
    let own = format!("{}/{name}", address.rsplit_once('/').unwrap().0);
    let switches = (0..8).map(|n| {
        let own = own.clone();
        tokio::spawn(async move {
            let postgres = Postgres::open(&own).await.unwrap();
            let site = Site::Schema(postgres.clone(), format!("model-{n}"));
            let space = Namespace::open(&site, &layout(1)).await.unwrap();
            assert!(postgres.switch("model", n, &space, None).await.unwrap());
            assert_eq!(postgres.serving("model", n).await.unwrap(), Some(format!("model-{n}")));
        })
    });
    for switch in switches.collect::<Vec<_>>() {
        switch.await.unwrap();
    }
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)"))).execute(&admin).await.unwrap();
}

#[tokio::test]
#[ignore = "needs a Postgres: scripts/postgres.py cargo test -p carbon-store -- --include-ignored"]
async fn a_file_is_not_switched_on_a_postgres() {
    let (postgres, [schema, _], model) = schemas().await;
    let dir = tempfile::tempdir().unwrap();
    let file = Namespace::open(&Site::File(dir.path().join("rows.db")), &layout(1)).await.unwrap();
    let schema = Namespace::open(&schema, &layout(1)).await.unwrap();
    for (to, from) in [(&file, None), (&schema, Some(&file))] {
        let error = postgres.switch(&model, 1, to, from).await.unwrap_err();
        assert!(matches!(error, StoreError::NotShared { .. }), "{error}");
    }
}

/// A connection on which a transaction failed is not used again.
#[tokio::test]
async fn a_full_file_rejects_a_batch_and_takes_the_next_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rows.db");
    let site = Site::File(path.clone());
    let space = Namespace::open(&site, &layout(1)).await.unwrap();
    write(&space, "before", 0, 1).await.unwrap();
    let mut tables = space.begin_at("log-a", &positions(1), &positions(2), Vec::new()).await.unwrap();
    query("PRAGMA max_page_count = 1").fetch_all(tables.connection()).await.unwrap();
    let insert = "INSERT INTO item (id, bytes) VALUES ('large', zeroblob(1000000))";
    let error = query(insert).execute(tables.connection()).await.unwrap_err();
    assert!(error.to_string().contains("full"), "{error}");
    drop(tables);
    write(&space, "after", 1, 2).await.unwrap();
    space.clear().await.unwrap();
    write(&space, "again", 0, 1).await.unwrap();
    assert_eq!(ids(&space).await, ["again"]);
    let mut connection = sqlx::SqliteConnection::connect(&format!("sqlite://{}", path.display())).await.unwrap();
    let sound: String = sqlx::query_scalar("PRAGMA integrity_check").fetch_one(&mut connection).await.unwrap();
    assert_eq!(sound, "ok");
}
