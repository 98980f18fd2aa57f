//! The conformance suite of `carbon_log::EventLog`. An implementation needs a factory (`conformance::support::Cluster`)
//! and a line at the end of this file. The second list needs a log whose clock and cleaner the test controls
//! (`conformance::support::TimedCluster`).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod conformance {
    mod support;

    pub mod append;
    pub mod compaction;
    pub mod embedded;
    pub mod kafka;
    pub mod lifecycle;
    pub mod stage;
    pub mod subscribe;
    pub mod time;
    pub mod topics;
}

use conformance::embedded::Embedded;
use conformance::kafka::Kafka;

/// Generates a test for each function, with a new cluster.
macro_rules! suite {
    ($name:ident, $factory:expr, $ignored:meta, [$($module:ident::$test:ident,)*]) => {
        mod $name {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread")]
                #[$ignored]
                async fn $test() {
                    conformance::$module::$test(&$factory).await;
                }
            )*
        }
    };
}

/// The tests for every log.
macro_rules! every_log {
    ($name:ident, $factory:expr, $ignored:meta) => {
        suite!(
            $name,
            $factory,
            $ignored,
            [
                append::positions_are_returned_in_order_and_offsets_are_dense,
                append::a_key_goes_to_the_partition_that_kafka_clients_compute,
                append::keys_values_and_headers_are_read_unchanged,
                append::an_event_is_read_unchanged,
                append::law_14_an_append_with_one_invalid_record_is_rejected_as_a_whole,
                append::a_record_of_exactly_the_maximum_size_is_accepted,
                append::concurrent_appends_get_distinct_and_dense_positions,
                subscribe::the_assignment_comes_first_and_reading_starts_at_the_answer,
                subscribe::every_partition_reports_its_end_and_an_append_notifies_the_reader,
                subscribe::many_deliveries_keep_the_order,
                subscribe::committed_offsets_are_durable_and_the_default_start,
                subscribe::a_second_member_waits_until_the_first_acknowledges,
                subscribe::a_second_member_gets_the_partitions_of_a_dropped_member,
                subscribe::groups_read_independently,
                subscribe::follow_reads_only_the_partitions_it_is_given,
                subscribe::read_returns_a_range_without_waiting,
                stage::law_05_outputs_and_offsets_are_committed_atomically,
                stage::law_05_a_stale_member_is_fenced_and_writes_nothing,
                stage::law_05_exactly_one_of_racing_members_wins,
                stage::law_05_only_the_partitions_of_upto_advance,
                stage::law_05_an_output_goes_to_the_partition_it_names,
                topics::topics_are_created_once_and_a_changed_partition_count_is_rejected,
                topics::an_error_names_the_missing_topic,
                topics::readers_skip_deleted_records,
                topics::a_deletion_that_names_an_unknown_partition_deletes_nothing,
                topics::a_rejected_commit_does_not_affect_concurrent_requests,
                topics::law_13_schemas_are_stored_by_id,
                topics::law_04_the_log_recognises_its_own_checkpoints,
                lifecycle::law_14_records_accepted_before_the_close_are_durable,
                lifecycle::a_closed_log_rejects_all_requests,
                lifecycle::a_close_ends_every_stream,
            ]
        );
    };
}

/// The tests for a log whose clock and cleaner the test controls.
macro_rules! timed_log {
    ($name:ident, $factory:expr) => {
        suite!(
            $name,
            $factory,
            cfg(all()),
            [
                time::log_append_time_never_decreases,
                time::positions_for_time_are_the_first_not_older,
                time::retention_deletes_only_expired_records,
                compaction::law_06_compaction_keeps_only_the_last_record_per_key,
                compaction::law_06_records_younger_than_the_lag_stay,
                compaction::law_06_a_null_value_is_deleted_after_its_retention,
                compaction::law_06_a_kept_topic_is_never_compacted,
                compaction::law_06_any_history_folds_to_the_same_state_after_compaction,
            ]
        );
    };
}

every_log!(embedded, Embedded::new(), cfg(all()));
every_log!(kafka, Kafka::new(), ignore = "needs a broker and a registry: scripts/services.sh up, and its env");
timed_log!(embedded_timed, Embedded::new());
