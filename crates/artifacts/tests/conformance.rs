//! The conformance suite of artifact stores. It runs on a local folder, on an in-memory `object_store`, and on an
//! `object_store` in a folder, which shows the parts of uploads as files.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "conformance/content.rs"]
mod content;
#[path = "conformance/interrupted.rs"]
mod interrupted;
#[path = "conformance/support.rs"]
mod support;

/// One test of the suite on one store.
macro_rules! conformance_test {
    ($store:ident $module:ident $test:ident) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $test() {
            crate::$module::$test(&crate::support::Fixture::$store()).await;
        }
    };
}

/// Every test of the suite on every store.
macro_rules! suite {
    ($($module:ident::$test:ident,)*) => {
        mod local { $(conformance_test!(local $module $test);)* }
        mod memory { $(conformance_test!(memory $module $test);)* }
        mod parts { $(conformance_test!(parts $module $test);)* }
    };
}

suite!(
    content::stored_content_is_read_back,
    content::the_chunking_does_not_change_the_blob,
    content::the_same_content_is_stored_once,
    content::sixteen_concurrent_puts_store_one_blob,
    content::ranges_are_read,
    content::a_blob_that_was_never_stored_is_missing,
    content::content_beyond_the_limit_is_rejected,
    content::changed_bytes_are_detected,
    content::a_blob_of_a_wrong_size_is_replaced,
    interrupted::a_stream_that_fails_leaves_nothing,
    interrupted::a_put_that_is_dropped_leaves_nothing,
    interrupted::a_sweep_keeps_running_uploads,
    interrupted::failed_writes_are_reported,
);
