//! What every store does: a local folder, any `object_store` (here in memory), and the same writing by parts to a disk.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "conformance/broken.rs"]
mod broken;
#[path = "conformance/content.rs"]
mod content;
#[path = "conformance/support.rs"]
mod support;

/// Runs every law on a store.
macro_rules! law {
    ($store:ident $module:ident $law:ident) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $law() {
            crate::$module::$law(&crate::support::Fixture::$store()).await;
        }
    };
}

macro_rules! suite {
    ($($module:ident::$law:ident,)*) => {
        mod local { $(law!(local $module $law);)* }
        mod memory { $(law!(memory $module $law);)* }
        mod parts { $(law!(parts $module $law);)* }
    };
}

suite!(
    content::what_is_put_is_read,
    content::every_chunking_is_the_same_blob,
    content::the_same_content_is_stored_once,
    content::sixteen_puts_at_once_are_one_blob,
    content::ranges_are_read,
    content::what_is_not_there_is_missing,
    content::a_limit_is_kept,
    content::a_change_of_bytes_is_found,
    content::a_blob_of_another_size_is_mended,
    broken::a_stream_that_fails_leaves_nothing,
    broken::a_put_that_is_dropped_leaves_nothing,
    broken::a_sweep_spares_running_uploads,
    broken::writes_that_fail_are_told,
);
