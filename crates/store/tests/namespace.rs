//! The behaviour of a namespace in either store: a file, or a schema of the Postgres that `CARBON_TEST_POSTGRES` names.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::time::Duration;

use carbon_store::{
    Checkpoint, CheckpointError, CommitHook, CommittedRange, Namespace, Postgres, QueryBuilder, Site, StoreError,
    query, testing,
};
use support::{ids, layout, positions, site, write};

#[tokio::test]
async fn law_04_a_zombies_batch_aborts_whole() {
    let (site, _dir) = site().await;
    let space = Namespace::open(&site, &layout(1)).await.unwrap();
    assert_eq!(space.checkpoint().await.unwrap(), Checkpoint::default());
    write(&space, "first", 0, 2).await.unwrap();
    // The zombie read the same records, and commits later.
    let other = Namespace::open(&site, &layout(1)).await.unwrap();
    let zombie = write(&other, "second", 0, 2).await;
    assert!(matches!(zombie, Err(CheckpointError::Moved { ref actual }) if *actual == positions(2)), "{zombie:?}");
    assert_eq!(ids(&space).await, ["first"]);
    let checkpoint = Checkpoint { log: Some("log-a".into()), positions: positions(2) };
    assert_eq!(space.checkpoint().await.unwrap(), checkpoint);
    assert_eq!(other.checkpoint().await.unwrap(), checkpoint);
}

#[tokio::test]
async fn a_dropped_transaction_is_rolled_back_and_a_clear_keeps_the_tables() {
    let (site, _dir) = site().await;
    let space = Namespace::open(&site, &layout(1)).await.unwrap();
    let mut tables = space.begin().await.unwrap();
    query("INSERT INTO item (id) VALUES ('lost')").execute(tables.connection()).await.unwrap();
    drop(tables);
    assert!(ids(&space).await.is_empty());
    write(&space, "kept", 0, 1).await.unwrap();
    space.clear().await.unwrap();
    assert!(ids(&space).await.is_empty());
    assert_eq!(space.checkpoint().await.unwrap(), Checkpoint::default());
    write(&space, "again", 0, 1).await.unwrap();
    assert_eq!(ids(&space).await, ["again"]);
}

#[tokio::test]
async fn another_layout_is_refused_and_the_same_keeps_its_rows() {
    let (site, _dir) = site().await;
    let space = Namespace::open(&site, &layout(1)).await.unwrap();
    write(&space, "first", 0, 1).await.unwrap();
    space.close().await;
    let error = Namespace::open(&site, &layout(2)).await.unwrap_err();
    assert!(matches!(error, StoreError::Layout { found: 1, expected: 2, .. }), "{error}");
    assert_eq!(ids(&Namespace::open(&site, &layout(1)).await.unwrap()).await, ["first"]);
}

#[tokio::test]
async fn a_snapshot_sees_no_later_commit() {
    let (site, _dir) = site().await;
    let space = Namespace::open(&site, &layout(1)).await.unwrap();
    let mut snapshot = space.snapshot().await.unwrap();
    let count = "SELECT count(*) FROM item";
    assert_eq!(query(count).scalar_one::<i64>(snapshot.connection()).await.unwrap(), 0);
    write(&space, "later", 0, 1).await.unwrap();
    assert_eq!(query(count).scalar_one::<i64>(snapshot.connection()).await.unwrap(), 0);
    drop(snapshot);
    assert_eq!(query(count).scalar_one::<i64>(space.readers()).await.unwrap(), 1);
}

#[tokio::test]
async fn a_second_writer_waits_for_the_first() {
    let (site, _dir) = site().await;
    let space = Namespace::open(&site, &layout(1)).await.unwrap();
    let other = Namespace::open(&site, &layout(1)).await.unwrap();
    let first = space.begin().await.unwrap();
    let second = tokio::spawn(async move {
        let tables = other.begin().await.unwrap();
        tables.commit().await.unwrap();
    });
    // The second transaction does not begin while the first is open.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!second.is_finished());
    first.commit().await.unwrap();
    tokio::time::timeout(Duration::from_secs(20), second).await.unwrap().unwrap();
}

#[tokio::test]
async fn values_come_back_as_they_were_and_canonical_rows_are_the_same_everywhere() {
    let (site, _dir) = site().await;
    let space = Namespace::open(&site, &layout(1)).await.unwrap();
    let rows = [
        ("", Some(i64::MIN), Some(f64::NEG_INFINITY), Some(vec![0_u8, 255])),
        ("a\0b\u{10FFFF}0", Some(i64::MAX), Some(1e300), Some(Vec::new())),
        ("ünï", None, None, None),
    ];
    let mut tables = space.begin().await.unwrap();
    let mut insert = QueryBuilder::new(space.dialect(), "INSERT INTO item (id, number, measure, bytes) ");
    insert.push_values(rows.clone(), |mut bind, (id, number, measure, bytes)| {
        bind.push_bind(id).push_bind(number).push_bind(measure).push_bind(bytes);
    });
    assert_eq!(insert.build().execute(tables.connection()).await.unwrap(), 3);
    tables.commit().await.unwrap();
    let found =
        query("SELECT id, number, measure, bytes FROM item ORDER BY id").fetch_all(space.readers()).await.unwrap();
    for (row, (id, number, measure, bytes)) in found.iter().zip(rows) {
        assert_eq!(row.try_get::<String>(0).unwrap(), id);
        assert_eq!(row.try_get::<Option<i64>>(1).unwrap(), number);
        assert_eq!(row.try_get::<Option<f64>>(2).unwrap(), measure);
        assert_eq!(row.try_get::<Option<Vec<u8>>>(3).unwrap(), bytes);
    }
    let canonical: Vec<String> = found.iter().map(|row| row.canonical().unwrap()).collect();
    assert_eq!(
        canonical,
        [
            r#"["",-9223372036854775808,"-inf","00FF"]"#.to_owned(),
            "[\"a\\u0000b\u{10FFFF}0\",9223372036854775807,1e+300,\"\"]".to_owned(),
            r#"["ünï",null,null,null]"#.to_owned(),
        ]
    );
    assert!(found[2].try_get::<i64>(1).is_err());
    let list = query("SELECT value FROM json_each($1) ORDER BY 1").bind(r#"["b", "a"]"#);
    assert_eq!(list.scalars::<String>(space.readers()).await.unwrap(), ["a", "b"]);
}

/// Counts commits, and adds up their effects.
#[derive(Debug, Default)]
struct Counts(std::sync::Mutex<(u32, u64, u64)>);

impl CommitHook for Counts {
    type Effects = u64;

    fn committed(&self, range: Option<CommittedRange<'_>>, effects: u64) {
        let mut counts = self.0.lock().unwrap();
        counts.0 += 1;
        counts.1 += effects;
        counts.2 = range.map_or(counts.2, |range| range.upto.iter().map(|(_, next)| next).sum());
    }

    fn cleared(&self) {
        *self.0.lock().unwrap() = Default::default();
    }
}

#[tokio::test]
async fn the_commit_hook_is_called_with_the_effects_of_each_commit() {
    let (site, _dir) = site().await;
    let space = Namespace::open(&site, &layout(1).with_hook::<Counts>()).await.unwrap();
    let counts = || *space.hook::<Counts>().unwrap().0.lock().unwrap();
    write(&space, "a", 0, 2).await.unwrap();
    assert_eq!(counts(), (1, 0, 2));
    let tables = space.begin_at("log-a", &positions(2), &positions(5), Vec::new()).await.unwrap();
    tables.folded().with_effects::<Counts>(7).commit().await.unwrap();
    assert_eq!(counts(), (2, 7, 5));
    // A transaction that moves no checkpoint, one that is rolled back, and a clear.
    space.begin().await.unwrap().commit().await.unwrap();
    assert_eq!(counts(), (3, 7, 5));
    drop(space.begin().await.unwrap().folded().with_effects::<Counts>(7));
    assert_eq!(counts(), (3, 7, 5));
    space.clone().clear().await.unwrap();
    assert_eq!(counts(), (0, 0, 0));
    assert!(space.hook::<()>().is_none());
}

/// The last statement of a fold runs with the commit.
#[tokio::test]
async fn statements_that_end_a_fold_commit_with_it() {
    let (site, _dir) = site().await;
    let space = Namespace::open(&site, &layout(1)).await.unwrap();
    let insert = |id: &'static str| {
        let mut insert = QueryBuilder::new(space.dialect(), "INSERT INTO item (id) VALUES (");
        insert.push_bind(id).push(")");
        insert
    };
    let folded = space.begin().await.unwrap().end([insert("a"), insert("b")]).await.unwrap();
    drop(folded);
    assert!(ids(&space).await.is_empty());
    space.begin().await.unwrap().end([insert("a"), insert("b")]).await.unwrap().commit().await.unwrap();
    assert_eq!(ids(&space).await, ["a", "b"]);
}

/// Processes that share a namespace are notified of commits by the others.
#[tokio::test]
#[ignore = "needs a Postgres: scripts/postgres.py cargo test -p carbon-store -- --include-ignored"]
async fn a_commit_is_notified() {
    let (site, _dir) = site().await;
    let space = Namespace::open(&site, &layout(1)).await.unwrap();
    let mut commits = space.commits().unwrap();
    let Site::Schema(postgres, name) = &site else { panic!("{site:?}") };
    let stranger = Site::Schema(postgres.clone(), format!("{name}x"));
    let stranger = Namespace::open(&stranger, &layout(1)).await.unwrap();
    let (far, deadline) = (Duration::from_secs(600), Duration::from_secs(20));
    let notified = tokio::spawn(async move { commits.next(far).await });
    // The listener may not be connected yet when the first commits are made.
    let mut next = 0;
    let writes = async {
        while !notified.is_finished() {
            write(&stranger, &format!("s{next}"), next, next + 1).await.unwrap();
            write(&space, &format!("i{next}"), next, next + 1).await.unwrap();
            next += 1;
        }
    };
    tokio::time::timeout(deadline, writes).await.unwrap();
}

#[tokio::test]
#[ignore = "needs a Postgres: scripts/postgres.py cargo test -p carbon-store -- --include-ignored"]
async fn an_mlflow_store_is_refused() {
    let address = testing::postgres_address().unwrap();
    let name = format!("mlflow_{}", uuid::Uuid::new_v4().simple());
    let admin = sqlx::PgPool::connect(&address).await.unwrap();
    let run = async |pool: &sqlx::PgPool, sql: String| {
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(pool).await.unwrap();
    };
    run(&admin, format!("CREATE DATABASE {name}")).await;
    let (rest, _) = address.rsplit_once('/').unwrap();
    let own = format!("{rest}/{name}");
    Postgres::open(&own).await.unwrap();
    let pool = sqlx::PgPool::connect(&own).await.unwrap();
    run(&pool, "CREATE TABLE alembic_version (v int); CREATE TABLE registered_models (v int)".into()).await;
    let error = Postgres::open(&own).await.unwrap_err();
    assert!(error.to_string().contains("carbon-ml import mlflow"), "{error}");
    pool.close().await;
    run(&admin, format!("DROP DATABASE {name} WITH (FORCE)")).await;
}
