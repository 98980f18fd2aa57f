//! One suite for every implementation of `carbon_log::EventLog`. An implementation joins by a
//! factory (`conformance::support::Cluster`) and one line of `suite!`; what can be asked only of a log whose
//! clock and cleaner stand under the test's hand (`conformance::support::Timed`) is the second list.

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

/// Makes a test of each function, on a fresh cluster.
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

/// What holds on every log.
macro_rules! every_log {
    ($name:ident, $factory:expr, $ignored:meta) => {
        suite!(
            $name,
            $factory,
            $ignored,
            [
                append::positions_are_answered_in_order_and_offsets_are_dense,
                append::a_key_goes_to_its_partition_as_kafkas_clients_compute_it,
                append::keys_values_and_headers_come_back_as_they_were,
                append::an_event_comes_back_as_it_was,
                append::law_14_a_batch_with_one_bad_record_is_refused_whole,
                append::a_record_of_exactly_the_limit_is_taken,
                append::concurrent_appends_get_distinct_and_dense_positions,
                subscribe::assigned_comes_first_and_the_start_is_honoured,
                subscribe::every_partition_ends_and_an_append_wakes_the_reader,
                subscribe::more_records_than_one_delivery_holds_come_in_order,
                subscribe::committed_offsets_survive_and_serve_where_no_start_is_given,
                subscribe::a_second_member_waits_until_the_first_acknowledges,
                subscribe::a_second_member_takes_over_from_one_that_is_dropped,
                subscribe::groups_read_independently,
                subscribe::follow_reads_only_the_partitions_it_is_given,
                subscribe::read_answers_a_range_without_waiting,
                stage::law_05_outputs_and_offset_are_there_together_or_not_at_all,
                stage::law_05_a_stale_member_is_fenced_and_writes_nothing,
                stage::law_05_of_two_racing_members_one_wins,
                stage::law_05_only_the_partitions_of_upto_move,
                stage::law_05_an_output_lies_in_the_partition_it_is_given,
                topics::topics_are_made_once_and_a_changed_partition_count_is_refused,
                topics::a_topic_that_is_not_there_is_named,
                topics::deleted_records_are_skipped_by_readers,
                topics::a_deletion_that_names_an_unknown_partition_deletes_nothing,
                topics::a_commit_that_is_refused_does_not_harm_its_neighbours,
                topics::law_13_writers_schemas_are_kept_by_their_id,
                topics::law_04_the_log_knows_its_own_checkpoints,
                lifecycle::law_14_what_was_accepted_before_the_close_is_durable,
                lifecycle::a_closed_log_takes_nothing_more,
                lifecycle::a_close_ends_every_stream,
            ]
        );
    };
}

/// What holds on a log whose clock and cleaner the test moves.
macro_rules! timed_log {
    ($name:ident, $factory:expr) => {
        suite!(
            $name,
            $factory,
            cfg(all()),
            [
                time::log_append_time_never_goes_back,
                time::positions_for_a_time_are_the_first_not_older,
                time::retention_removes_what_is_too_old_and_nothing_else,
                compaction::law_06_the_last_record_per_key_stays,
                compaction::law_06_what_is_younger_than_the_lag_stays,
                compaction::law_06_a_null_value_goes_after_its_time,
                compaction::law_06_a_kept_topic_is_never_compacted,
                compaction::law_06_any_history_folds_to_the_same_state_after_compaction,
            ]
        );
    };
}

every_log!(embedded, Embedded::new(), cfg(all()));
every_log!(kafka, Kafka::new(), ignore = "needs a broker and a registry: scripts/services.sh up, and its env");
timed_log!(embedded_timed, Embedded::new());
