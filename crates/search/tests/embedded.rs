//! Tests of the embedded engine only: it repairs whatever state its files are in, and its results equal a fresh build.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::path::{Path, PathBuf};

use carbon_search::{EmbeddedIndex, Filter, Hit, HybridIndex, IndexError, IndexOp, Retrieval};
use support::*;

fn rows_of(root: &Path) -> PathBuf {
    root.join(spec().id.as_str()).join("rows.db")
}

/// The tantivy directory.
fn tantivy_of(root: &Path) -> PathBuf {
    root.join(spec().id.as_str()).join("tantivy")
}

/// Copies a file, or replaces a folder.
fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        let _ = std::fs::remove_dir_all(to);
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            copy(&entry.path(), &to.join(entry.file_name()));
        }
    } else {
        std::fs::copy(from, to).unwrap();
    }
}

/// `count` upserts from offset `from`, over 40 entities.
fn ops(from: u64, count: u64) -> Vec<IndexOp> {
    (from..from + count).map(|n| upsert("acme", &format!("e{}", n % 40), &text(n), n)).collect()
}

/// Opens the index, applies `ops` as one batch from checkpoint `next`, and closes it.
async fn fill(root: &Path, next: u64, ops: Vec<IndexOp>) {
    let index = EmbeddedIndex::new(root);
    let mut feed = Feed::new(&index).await;
    feed.next = next;
    feed.apply_and_see(ops).await;
    index.close().await.unwrap();
}

/// Opens the index and returns rankings and repairs.
async fn open(root: &Path) -> (Vec<Vec<(String, f32)>>, Vec<String>) {
    let index = EmbeddedIndex::new(root);
    index.create(&spec()).await.unwrap();
    let (found, repairs) = (rankings(&index, "acme", &QUERIES).await, index.repairs(&spec().id).unwrap());
    index.close().await.unwrap();
    (found, repairs)
}

/// The rankings of a new index with `ops`.
async fn fresh(ops: Vec<IndexOp>) -> Vec<Vec<(String, f32)>> {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path(), 0, ops).await;
    open(folder.path()).await.0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reopened_index_finds_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let index = EmbeddedIndex::new(folder.path());
    let mut feed = Feed::new(&index).await;
    feed.apply_and_see(ops(0, 60)).await;
    feed.apply_and_see(vec![delete("acme", "e3", 60), delete("acme", "e4", 61)]).await;
    // A tombstone alone changes no row and no tantivy document.
    feed.apply_and_see(vec![delete("acme", "nothing", 62)]).await;
    let before = rankings(&index, "acme", &QUERIES).await;
    index.close().await.unwrap();
    let (after, repairs) = open(folder.path()).await;
    assert_eq!(repairs, Vec::<String>::new());
    assert_same(&before, &after);

    let index = EmbeddedIndex::new(folder.path());
    let mut feed = Feed::new(&index).await;
    feed.next = 63;
    assert_eq!(index.checkpoint(&spec().id).await.unwrap().positions, input(63));
    assert_eq!(index.view_positions(&spec().id).await.unwrap(), done(62));
    // Tombstones are durable.
    let applied = feed.apply_and_see(vec![upsert("acme", "e3", "stale", 59), upsert("acme", "e4", "new", 63)]).await;
    assert_eq!((applied.fenced, applied.upserts), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tantivy_directory_in_any_wrong_state_is_repaired_and_reported() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    fill(root, 0, ops(0, 50)).await;
    let older_rows = folder.path().join("older-rows.db");
    copy(&rows_of(root), &older_rows);
    let older_tantivy = folder.path().join("older-tantivy");
    copy(&tantivy_of(root), &older_tantivy);
    let mut more = ops(50, 30);
    more.push(delete("acme", "e7", 90));
    fill(root, 50, more.clone()).await;
    let (right, repairs) = open(root).await;
    assert_eq!(repairs, Vec::<String>::new());
    let all: Vec<IndexOp> = ops(0, 50).into_iter().chain(more).collect();
    assert_same(&right, &fresh(all).await);

    let check = async |expected: &str| {
        let (found, repairs) = open(root).await;
        assert!(repairs.len() == 1 && repairs[0].contains(expected), "{expected}: {repairs:?}");
        assert_same(&found, &right);
        let (found, repairs) = open(root).await;
        assert_eq!(repairs, Vec::<String>::new(), "after: {expected}");
        assert_same(&found, &right);
    };
    std::fs::remove_dir_all(tantivy_of(root)).unwrap();
    check("missing").await;
    copy(&older_tantivy, &tantivy_of(root));
    check("was at sequence 1, behind the rows at 2").await;
    // A process that was killed left files of an unfinished commit, with the file names of the next commit.
    copy(&older_tantivy, &tantivy_of(root));
    let files: Vec<PathBuf> = std::fs::read_dir(tantivy_of(root)).unwrap().map(|entry| entry.unwrap().path()).collect();
    for segment in files.iter().filter(|file| file.extension().is_some_and(|end| end == "idx")) {
        for stamp in 0..3000 {
            let left = segment.with_extension(format!("{stamp}.del"));
            if !left.exists() {
                std::fs::write(left, "").unwrap();
            }
        }
    }
    check("could not catch up").await;
    std::fs::write(tantivy_of(root).join("meta.json"), "{").unwrap();
    check("could not be read").await;
    let of_terms = |entry: &std::fs::DirEntry| entry.path().extension().is_some_and(|end| end == "idx");
    let damaged = std::fs::read_dir(tantivy_of(root)).unwrap().flatten().find(of_terms).unwrap().path();
    let mut bytes = std::fs::read(&damaged).unwrap();
    bytes[10] ^= 1;
    std::fs::write(&damaged, bytes).unwrap();
    check("checksum").await;
    let other = tempfile::tempdir().unwrap();
    fill(other.path(), 0, ops(5, 20)).await;
    copy(&tantivy_of(other.path()), &tantivy_of(root));
    check("belonged to another rows.db").await;

    // `rows.db` is replaced by an older copy: tantivy is ahead.
    for end in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{end}", rows_of(root).display()));
    }
    copy(&older_rows, &rows_of(root));
    let newer_tantivy = folder.path().join("newer-tantivy");
    copy(&tantivy_of(root), &newer_tantivy);
    let (found, repairs) = open(root).await;
    assert!(repairs.len() == 1 && repairs[0].contains("ahead of the rows"), "{repairs:?}");
    assert_same(&found, &fresh(ops(0, 50)).await);
    // From here on there are two histories. A tantivy directory of the other history must not be accepted.
    fill(root, 50, ops(100, 3)).await;
    let (right, _) = open(root).await;
    copy(&newer_tantivy, &tantivy_of(root));
    let (found, repairs) = open(root).await;
    assert!(repairs.len() == 1 && repairs[0].contains("another rows.db"), "{repairs:?}");
    assert_same(&found, &right);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_corrupt_file_of_rows_is_replaced_and_another_spec_is_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    fill(root, 0, ops(0, 20)).await;
    let index = EmbeddedIndex::new(root);
    let mut other = spec();
    other.dimension = 8;
    assert!(matches!(index.create(&other).await, Err(IndexError::Spec { .. })));
    std::fs::write(rows_of(root), "this file is not a SQLite database").unwrap();
    for end in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{end}", rows_of(root).display()));
    }
    index.create(&spec()).await.unwrap();
    assert!(index.repairs(&spec().id).unwrap()[0].contains("the generation starts empty"));
    assert!(index.checkpoint(&spec().id).await.unwrap().positions.is_empty());
    assert_can_be_filled(&index).await;
    index.close().await.unwrap();
}

async fn assert_can_be_filled(index: &EmbeddedIndex) {
    Feed::new(index).await.apply_and_see(ops(0, 20)).await;
    assert_eq!(index.stats(&spec().id, None).await.unwrap().total, 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_one_process_writes_a_generation() {
    let folder = tempfile::tempdir().unwrap();
    let first = EmbeddedIndex::new(folder.path());
    first.create(&spec()).await.unwrap();
    let second = EmbeddedIndex::new(folder.path());
    let rejected = second.create(&spec()).await;
    assert!(matches!(rejected, Err(IndexError::Lexical(_))), "{rejected:?}");
    first.close().await.unwrap();
    second.create(&spec()).await.unwrap();
}

/// A step of a random history.
#[derive(Clone, Debug)]
enum Step {
    Put {
        tenant: usize,
        id: u64,
        text: u64,
    },
    Delete {
        tenant: usize,
        id: u64,
    },
    /// Ends the batch. True waits for the view; false continues at once.
    Split(bool),
    /// An op that arrives late: its source offset is `back` before the current one.
    Late {
        tenant: usize,
        id: u64,
        back: u64,
    },
}

fn step() -> impl proptest::strategy::Strategy<Value = Step> {
    use proptest::prelude::*;
    prop_oneof![
        6 => (0usize..2, 0u64..8, 0u64..1000).prop_map(|(tenant, id, text)| Step::Put { tenant, id, text }),
        2 => (0usize..2, 0u64..8).prop_map(|(tenant, id)| Step::Delete { tenant, id }),
        1 => (0usize..2, 0u64..8, 1u64..20).prop_map(|(tenant, id, back)| Step::Late { tenant, id, back }),
        2 => any::<bool>().prop_map(Step::Split),
    ]
}

const TENANTS: [&str; 2] = ["acme", "beta"];

/// Applies the steps to one index, and only the last op of each entity to another. Both must have the same rows and
/// rankings.
async fn any_history_equals_a_fresh_build(steps: Vec<Step>) {
    let folder = tempfile::tempdir().unwrap();
    let index = EmbeddedIndex::new(folder.path());
    let mut feed = Feed::new(&index).await;
    // The op with the highest position of each entity.
    let mut last = std::collections::BTreeMap::<(usize, u64), (u64, IndexOp)>::new();
    let (mut batch, mut offset) = (Vec::new(), 0);
    for step in steps {
        let (tenant, id, at, op) = match step {
            Step::Split(wait) => {
                let ops = std::mem::take(&mut batch);
                if wait {
                    feed.apply_and_see(ops).await;
                } else {
                    feed.apply(ops).await.unwrap();
                }
                continue;
            }
            Step::Put { tenant, id, text: seed } => {
                (tenant, id, offset, upsert(TENANTS[tenant], &format!("NG_HH_{id}"), &text(seed), offset))
            }
            Step::Delete { tenant, id } => {
                (tenant, id, offset, delete(TENANTS[tenant], &format!("NG_HH_{id}"), offset))
            }
            Step::Late { tenant, id, back } => {
                let at = offset.saturating_sub(back);
                (tenant, id, at, upsert(TENANTS[tenant], &format!("NG_HH_{id}"), "gas that arrives late", at))
            }
        };
        offset += 1;
        let newest = last.get(&(tenant, id)).is_none_or(|(before, _)| at >= *before);
        if newest {
            last.insert((tenant, id), (at, op.clone()));
        }
        batch.push(op);
    }
    feed.apply_and_see(batch).await;
    feed.apply_and_see(vec![delete("acme", "the-end", offset)]).await;

    let fresh_folder = tempfile::tempdir().unwrap();
    let fresh = EmbeddedIndex::new(fresh_folder.path());
    let last = last.into_values().map(|(_, op)| op);
    let live: Vec<IndexOp> = last.filter(|op| matches!(op.kind, carbon_search::OpKind::Upsert { .. })).collect();
    Feed::new(&fresh).await.apply_and_see(live).await;
    let mut before = Vec::new();
    for tenant in TENANTS {
        before.push(rankings(&index, tenant, &QUERIES).await);
        assert_same(&before[before.len() - 1], &rankings(&fresh, tenant, &QUERIES).await);
    }
    assert_eq!(index.stats(&spec().id, None).await.unwrap(), fresh.stats(&spec().id, None).await.unwrap());
    assert_eq!(
        index.scroll(&spec().id, None, 1000).await.unwrap(),
        fresh.scroll(&spec().id, None, 1000).await.unwrap()
    );
    index.close().await.unwrap();
    let reopened = EmbeddedIndex::new(folder.path());
    reopened.create(&spec()).await.unwrap();
    assert_eq!(reopened.repairs(&spec().id).unwrap(), Vec::<String>::new());
    for (tenant, before) in TENANTS.iter().zip(&before) {
        assert_same(before, &rankings(&reopened, tenant, &QUERIES).await);
    }
}

#[test]
fn any_history_equals_a_fresh_build_of_its_outcome() {
    use proptest::test_runner::{Config, TestRunner};
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut runner = TestRunner::new(Config { cases: 24, max_shrink_iters: 64, ..Config::default() });
    let histories = proptest::collection::vec(step(), 1..60);
    runner
        .run(&histories, |steps| {
            runtime.block_on(any_history_equals_a_fresh_build(steps));
            Ok(())
        })
        .unwrap();
}

/// A retrieval with a large depth scores every row exactly. One with a small depth, by Block-WAND and by the int8 scan,
/// must return the same best rows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shallow_retrieval_finds_the_best_of_a_deep_one() {
    let folder = tempfile::tempdir().unwrap();
    let index = EmbeddedIndex::new(folder.path());
    let mut feed = Feed::new(&index).await;
    let id = |n: u64| format!("e{}", n % 2000);
    for from in (0..3000).step_by(250) {
        let ops = (from..from + 250)
            .flat_map(|n| [upsert("acme", &id(n), &text(n), 2 * n), upsert("other", &id(n), &text(n + 1), 2 * n + 1)]);
        feed.apply_and_see(ops.collect()).await;
    }
    feed.apply_and_see((0..300).map(|n| delete("acme", &id(n * 3), 7000 + n)).collect()).await;
    let filters = [Filter::default(), Filter { tags: vec!["energy".into()], ..Default::default() }];
    for (query, filter) in QUERIES.iter().flat_map(|query| filters.iter().map(move |filter| (query, filter))) {
        let retrieval = |depth| Retrieval {
            text: (*query).to_owned(),
            lexical: true,
            vector: Some(vector(query.len() as u64)),
            filter: filter.clone(),
            depth,
        };
        let ranked = async |depth, dense: bool| {
            let hits = index.query(&spec().id, &scope("acme"), &retrieval(depth)).await.unwrap().hits;
            let rank = |hit: &Hit| if dense { hit.dense_rank } else { hit.lexical_rank };
            let score = |hit: &Hit| if dense { hit.dense } else { hit.lexical };
            let mut ranked: Vec<_> =
                hits.iter().filter_map(|hit| Some((rank(hit)?, hit.document.key.clone(), score(hit)))).collect();
            ranked.sort_by_key(|entry| entry.0);
            ranked.truncate(100);
            ranked
        };
        for dense in [true, false] {
            let (shallow, deep) = (ranked(100, dense).await, ranked(5000, dense).await);
            assert_eq!(deep.len(), if *query == "NG_HH" && !dense { deep.len() } else { 100 });
            assert_eq!(shallow, deep, "{query}");
        }
    }
}

/// Too few documents are replaced for a merge, so the segment still has the old ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replaced_documents_do_not_affect_scores_or_filters_before_a_merge() {
    for (total, replaced) in [(20, 4), (200, 2)] {
        let folder = tempfile::tempdir().unwrap();
        let index = EmbeddedIndex::new(folder.path());
        let mut feed = Feed::new(&index).await;
        let of = |n: u64| upsert("acme", &format!("e{n}"), &format!("natural gas price {}", text(n)), n);
        let other = |n: u64| {
            let mut document = document("acme", &format!("e{n}"), "power curve", 1000 + n);
            document.tags = vec!["moved".into()];
            IndexOp::upsert(document, vector(n))
        };
        feed.apply_and_see((0..total).map(of).collect()).await;
        feed.apply_and_see((0..replaced).map(other).collect()).await;
        feed.apply_and_see((replaced..2 * replaced).map(|n| delete("acme", &format!("e{n}"), 2000 + n)).collect())
            .await;
        for (tag, count) in [("energy", total - 2 * replaced), ("moved", replaced)] {
            let filter = Filter { tags: vec![tag.into()], ..Default::default() };
            let retrieval = Retrieval { vector: Some(vector(1)), filter, depth: 10, ..Default::default() };
            let considered = index.query(&spec().id, &scope("acme"), &retrieval).await.unwrap().considered;
            assert_eq!(considered, count);
        }
        let right = fresh((0..replaced).map(other).chain((2 * replaced..total).map(of)).collect()).await;
        assert_same(&rankings(&index, "acme", &QUERIES).await, &right);
    }
}
