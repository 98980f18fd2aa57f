//! What only the embedded engine must do: find its way back from whatever lies on disk.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::path::{Path, PathBuf};

use carbon_search::{EmbeddedIndex, Filter, Hit, HybridIndex, IndexError, IndexOp, Retrieval};
use support::*;

fn rows_of(root: &Path) -> PathBuf {
    root.join(spec().id.as_str()).join("rows.db")
}

fn texts_of(root: &Path) -> PathBuf {
    root.join(spec().id.as_str()).join("tantivy")
}

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

fn ops(from: u64, count: u64) -> Vec<IndexOp> {
    (from..from + count).map(|n| upsert("acme", &format!("e{}", n % 40), &text(n), n)).collect()
}

/// Opens, applies, closes; the files then hold everything.
async fn fill(root: &Path, next: u64, ops: Vec<IndexOp>) {
    let index = EmbeddedIndex::new(root);
    let mut feed = Feed::new(&index).await;
    feed.next = next;
    feed.apply_and_see(ops).await;
    index.close().await.unwrap();
}

/// What a search finds, and what had to be mended.
async fn open(root: &Path) -> (Vec<Vec<(String, f32)>>, Vec<String>) {
    let index = EmbeddedIndex::new(root);
    index.create(&spec()).await.unwrap();
    let (found, repairs) = (rankings(&index, "acme", &QUERIES).await, index.repairs(&spec().id).unwrap());
    index.close().await.unwrap();
    (found, repairs)
}

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
    // A tombstone alone changes no row, and no text.
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
    // Tombstones outlive the process.
    let applied = feed.apply_and_see(vec![upsert("acme", "e3", "stale", 59), upsert("acme", "e4", "new", 63)]).await;
    assert_eq!((applied.fenced, applied.upserts), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_the_text_index_is_mended_and_said() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    fill(root, 0, ops(0, 50)).await;
    let older_rows = folder.path().join("older-rows.db");
    copy(&rows_of(root), &older_rows);
    let older_texts = folder.path().join("older-texts");
    copy(&texts_of(root), &older_texts);
    let mut more = ops(50, 30);
    more.push(delete("acme", "e7", 90));
    fill(root, 50, more.clone()).await;
    let (right, repairs) = open(root).await;
    assert_eq!(repairs, Vec::<String>::new());
    let all: Vec<IndexOp> = ops(0, 50).into_iter().chain(more).collect();
    assert_same(&right, &fresh(all).await);

    let check = async |says: &str| {
        let (found, repairs) = open(root).await;
        assert!(repairs.len() == 1 && repairs[0].contains(says), "{says}: {repairs:?}");
        assert_same(&found, &right);
        let (found, repairs) = open(root).await;
        assert_eq!(repairs, Vec::<String>::new(), "after: {says}");
        assert_same(&found, &right);
    };
    std::fs::remove_dir_all(texts_of(root)).unwrap();
    check("missing").await;
    copy(&older_texts, &texts_of(root));
    check("stood at 1, the rows at 2").await;
    // What a killed process left of a commit that never was lies in the next one's way.
    copy(&older_texts, &texts_of(root));
    let files: Vec<PathBuf> = std::fs::read_dir(texts_of(root)).unwrap().map(|entry| entry.unwrap().path()).collect();
    for segment in files.iter().filter(|file| file.extension().is_some_and(|end| end == "idx")) {
        for stamp in 0..3000 {
            let left = segment.with_extension(format!("{stamp}.del"));
            if !left.exists() {
                std::fs::write(left, "").unwrap();
            }
        }
    }
    check("could not catch up").await;
    std::fs::write(texts_of(root).join("meta.json"), "{").unwrap();
    check("could not be read").await;
    let of_terms = |entry: &std::fs::DirEntry| entry.path().extension().is_some_and(|end| end == "idx");
    let damaged = std::fs::read_dir(texts_of(root)).unwrap().flatten().find(of_terms).unwrap().path();
    let mut bytes = std::fs::read(&damaged).unwrap();
    bytes[10] ^= 1;
    std::fs::write(&damaged, bytes).unwrap();
    check("checksum").await;
    let other = tempfile::tempdir().unwrap();
    fill(other.path(), 0, ops(5, 20)).await;
    copy(&texts_of(other.path()), &texts_of(root));
    check("followed another file").await;

    // The rows go back to an older copy: the text index is ahead.
    for end in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{end}", rows_of(root).display()));
    }
    copy(&older_rows, &rows_of(root));
    let newer_texts = folder.path().join("newer-texts");
    copy(&texts_of(root), &newer_texts);
    let (found, repairs) = open(root).await;
    assert!(repairs.len() == 1 && repairs[0].contains("ahead of the rows"), "{repairs:?}");
    assert_same(&found, &fresh(ops(0, 50)).await);
    // From here on there are two histories; the other one's text index must not pass for this one's.
    fill(root, 50, ops(100, 3)).await;
    let (right, _) = open(root).await;
    copy(&newer_texts, &texts_of(root));
    let (found, repairs) = open(root).await;
    assert!(repairs.len() == 1 && repairs[0].contains("another file"), "{repairs:?}");
    assert_same(&found, &right);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ruined_rows_begin_anew_and_another_spec_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    fill(root, 0, ops(0, 20)).await;
    let index = EmbeddedIndex::new(root);
    let mut other = spec();
    other.dimension = 8;
    assert!(matches!(index.create(&other).await, Err(IndexError::Spec { .. })));
    std::fs::write(rows_of(root), "this is not a database, however long one looks at it").unwrap();
    for end in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{end}", rows_of(root).display()));
    }
    index.create(&spec()).await.unwrap();
    assert!(index.repairs(&spec().id).unwrap()[0].contains("begins anew"));
    assert!(index.checkpoint(&spec().id).await.unwrap().positions.is_empty());
    fill_again(&index).await;
    index.close().await.unwrap();
}

async fn fill_again(index: &EmbeddedIndex) {
    Feed::new(index).await.apply_and_see(ops(0, 20)).await;
    assert_eq!(index.stats(&spec().id, None).await.unwrap().total, 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_one_process_writes_a_generation() {
    let folder = tempfile::tempdir().unwrap();
    let first = EmbeddedIndex::new(folder.path());
    first.create(&spec()).await.unwrap();
    let second = EmbeddedIndex::new(folder.path());
    let refused = second.create(&spec()).await;
    assert!(matches!(refused, Err(IndexError::Lexical(_))), "{refused:?}");
    first.close().await.unwrap();
    second.create(&spec()).await.unwrap();
}

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
    /// The batch ends here; true waits for the view, false goes on under load.
    Split(bool),
    /// An op that comes late: as of so many positions before.
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

/// Runs the steps on one index, and their outcome on another; both must find the same.
async fn any_history_equals_a_fresh_build(steps: Vec<Step>) {
    let folder = tempfile::tempdir().unwrap();
    let index = EmbeddedIndex::new(folder.path());
    let mut feed = Feed::new(&index).await;
    // The last op of each entity by position.
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
                (tenant, id, at, upsert(TENANTS[tenant], &format!("NG_HH_{id}"), "gas that comes late", at))
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
    let live = last.into_values().map(|(_, op)| op);
    let live: Vec<IndexOp> = live.filter(|op| matches!(op.kind, carbon_search::OpKind::Upsert { .. })).collect();
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
    let again = EmbeddedIndex::new(folder.path());
    again.create(&spec()).await.unwrap();
    assert_eq!(again.repairs(&spec().id).unwrap(), Vec::<String>::new());
    for (tenant, before) in TENANTS.iter().zip(&before) {
        assert_same(before, &rankings(&again, tenant, &QUERIES).await);
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

/// The best of a deep retrieval, which scores every row, are what a shallow one must find by
/// Block-WAND and by the scan over bytes.
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

/// Too few are replaced for a merge, so that their old documents still lie in the segment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replaced_documents_count_no_more_before_a_merge() {
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
