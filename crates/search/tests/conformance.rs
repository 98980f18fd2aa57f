//! The conformance suite of [`HybridIndex`]: every engine must pass it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "conformance/generations.rs"]
mod generations;
#[path = "conformance/queries.rs"]
mod queries;
mod support;
#[path = "conformance/tenants.rs"]
mod tenants;
#[path = "conformance/writes.rs"]
mod writes;

use carbon_search::{EmbeddedIndex, HybridIndex};

/// An engine with an empty index, in its own folder or server namespace.
pub trait Engine {
    fn index(&self) -> &dyn HybridIndex;
}

/// Makes an engine. A test that compares two indexes calls it twice.
pub type Make<'m> = &'m (dyn Fn() -> Box<dyn Engine> + Sync);

struct Embedded {
    index: EmbeddedIndex,
    _folder: tempfile::TempDir,
}

impl Engine for Embedded {
    fn index(&self) -> &dyn HybridIndex {
        &self.index
    }
}

fn embedded() -> Embedded {
    let folder = tempfile::tempdir().unwrap();
    Embedded { index: EmbeddedIndex::new(folder.path()), _folder: folder }
}

/// Runs every test of the suite on one engine. `$engine` is the function that makes it.
macro_rules! conformance {
    ($engine:ident: $($module:ident::$name:ident,)*) => {
        mod $engine {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let make = || Box::new(super::$engine()) as Box<dyn super::Engine>;
                    super::$module::$name(&make).await;
                }
            )*
        }
    };
}

conformance! { embedded:
    writes::applied_documents_are_found_and_deleted_ones_are_not,
    writes::law_04_an_older_op_never_overwrites_a_newer_one,
    writes::law_04_a_batch_from_a_stale_checkpoint_changes_nothing,
    writes::ops_of_a_batch_are_deduplicated,
    writes::a_batch_with_an_invalid_vector_is_rejected_whole,
    queries::filters_select_the_matching_documents,
    queries::identifiers_are_found_whole_and_in_parts,
    queries::searches_succeed_during_a_thousand_updates,
    queries::similar_returns_the_nearest_neighbours,
    tenants::law_12_tenants_do_not_see_each_other,
    tenants::law_12_scores_do_not_depend_on_other_tenants,
    generations::reached_waits_for_the_view,
    generations::rows_scroll_in_key_order,
    generations::reset_and_drop_delete_rows_and_checkpoint,
}
