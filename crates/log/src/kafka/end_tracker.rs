//! Tracks which partitions a reader has read to the end (law 4).
//!
//! Comparing offsets is not enough: the last offset may belong to a transaction marker, which is never delivered.
//! librdkafka offers two sources, and neither is sufficient:
//!
//! - The event `PartitionEOF` is reliable, but carries a partition number without a topic or an offset.
//! - The statistics contain the end offset (`eof_offset`), but may be ahead of the deliveries: a rebalance discards
//!   records that were fetched and not delivered, and fetches them again, while the statistics keep the end offset.
//!
//! So the statistics only give a hint. If a hint beyond the delivered records repeats, another client reads the gap
//! between them. If the gap contains no record, the hint is the end.

use std::collections::{BTreeMap, HashMap};

use carbon_core::{Position, TopicPartition};
use serde::Deserialize;

use super::client::topic_partition;

/// Number of equal hints before the first gap of a partition is read. Low, because the subscriber waits for the end to
/// be caught up.
const FIRST_GAP_HINTS: u32 = 2;
/// Number of equal hints before a later gap is read. Higher, so that a stream of transactions does not cause a read for
/// each of them.
const LATER_GAP_HINTS: u32 = 5;

/// The progress of one partition.
#[derive(Debug)]
struct Progress {
    /// All records below this offset were delivered.
    next: u64,
    /// The last hint, and how many times in a row it came.
    hint: Option<(u64, u32)>,
    /// Number of equal hints before the gap is read.
    hints_needed: u32,
    /// A read of the gap is running.
    reading_gap: bool,
    /// The last end that was reported to the subscriber.
    reported: Option<u64>,
}

/// A range of offsets between the delivered records and a hint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    pub at: TopicPartition,
    pub from: u64,
}

/// Owns the progress of one reader's partitions.
#[derive(Debug, Default)]
pub(super) struct EndTracker(BTreeMap<TopicPartition, Progress>);

/// The part of librdkafka's statistics that is used here.
#[derive(Deserialize)]
struct Statistics {
    topics: HashMap<String, TopicStatistics>,
}

#[derive(Deserialize)]
struct TopicStatistics {
    partitions: HashMap<i32, PartitionStatistics>,
}

#[derive(Deserialize)]
struct PartitionStatistics {
    eof_offset: i64,
}

impl EndTracker {
    /// Tracks a partition that is read from offset `next` on.
    pub fn start(&mut self, at: TopicPartition, next: u64) {
        let hints_needed = FIRST_GAP_HINTS;
        self.0.insert(at, Progress { next, hint: None, hints_needed, reading_gap: false, reported: None });
    }

    /// Stops tracking a partition.
    pub fn remove(&mut self, at: &TopicPartition) {
        self.0.remove(at);
    }

    /// Records that the record at this position was delivered.
    pub fn delivered(&mut self, position: &Position) {
        if let Some(progress) = self.0.get_mut(&position.topic_partition()) {
            progress.next = progress.next.max(position.offset + 1);
        }
    }

    /// Handles a `PartitionEOF` event. Returns the end to report. `None` if it was reported before, or if several
    /// topics have a partition of this number, since the event does not name the topic.
    pub fn end_event(&mut self, partition: i32) -> Option<(TopicPartition, u64)> {
        let mut candidates = self.0.iter_mut().filter(|(at, _)| i64::from(at.partition) == i64::from(partition));
        let (at, progress) = candidates.next()?;
        if candidates.next().is_some() || progress.reported == Some(progress.next) {
            return None;
        }
        progress.reported = Some(progress.next);
        Some((at.clone(), progress.next))
    }

    /// Handles librdkafka's statistics. Returns the gaps to read.
    pub fn statistics(&mut self, json: &[u8]) -> Vec<Gap> {
        let Ok(statistics) = serde_json::from_slice::<Statistics>(json) else { return Vec::new() };
        let mut gaps = Vec::new();
        for (topic, found) in statistics.topics {
            for (partition, found) in found.partitions {
                let Ok(end) = u64::try_from(found.eof_offset) else { continue };
                let Some(at) = topic_partition(&topic, partition) else { continue };
                let Some(progress) = self.0.get_mut(&at) else { continue };
                let times = progress.hint.filter(|(before, _)| *before == end).map_or(1, |(_, times)| times + 1);
                progress.hint = Some((end, times));
                if times >= progress.hints_needed && end > progress.next && !progress.reading_gap {
                    progress.reading_gap = true;
                    progress.hints_needed = LATER_GAP_HINTS;
                    gaps.push(Gap { at, from: progress.next });
                }
            }
        }
        gaps
    }

    /// The ends to report that need no read of a gap: the hint equals the end of the delivered records.
    pub fn reached(&mut self) -> Vec<(TopicPartition, u64)> {
        let mut ends = Vec::new();
        for (at, progress) in &mut self.0 {
            if progress.hint.is_some_and(|(end, _)| end == progress.next) && progress.reported != Some(progress.next) {
                progress.reported = Some(progress.next);
                ends.push((at.clone(), progress.next));
            }
        }
        ends
    }

    /// Handles a finished read of a gap. `end` is the end offset if the gap contains no record, else `None`. Returns
    /// the end to report. `None` if the partition was assigned or read further during the read.
    pub fn gap_was_read(&mut self, gap: &Gap, end: Option<u64>) -> Option<(TopicPartition, u64)> {
        let progress = self.0.get_mut(&gap.at)?;
        progress.reading_gap = false;
        let end = end.filter(|end| progress.next == gap.from && *end > progress.next)?;
        progress.next = end;
        progress.reported = Some(end);
        Some((gap.at.clone(), end))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn json(eof: i64) -> Vec<u8> {
        let partition = serde_json::json!({"partition": 0, "eof_offset": eof});
        serde_json::json!({"name": "x", "topics": {"t": {"topic": "t", "partitions": {"0": partition, "-1": partition}}}})
            .to_string()
            .into_bytes()
    }

    #[test]
    fn an_end_after_a_marker_is_reported_after_the_gap_was_read() {
        let t = topic_partition("t", 0).unwrap();
        let mut ends = EndTracker::default();
        ends.start(t.clone(), 3);
        assert_eq!(ends.end_event(0), Some((t.clone(), 3)));
        assert_eq!(ends.end_event(0), None, "this end was reported before");
        ends.delivered(&Position::new(t.topic.clone(), 0, 3));
        assert_eq!(ends.end_event(0), Some((t.clone(), 4)), "the marker at 4 is not known yet");
        let gap = Gap { at: t.clone(), from: 4 };
        assert_eq!(ends.statistics(&json(5)), [], "one hint is not enough");
        assert_eq!(ends.statistics(&json(5)).first(), Some(&gap));
        assert_eq!(ends.statistics(&json(5)), [], "the gap is being read");
        assert_eq!(ends.gap_was_read(&gap, Some(5)), Some((t.clone(), 5)));
        assert_eq!((ends.statistics(&json(5)), ends.reached(), ends.end_event(0)), (vec![], vec![], None));
    }

    #[test]
    fn a_hint_beyond_the_delivered_records_is_not_an_end() {
        let t = topic_partition("t", 0).unwrap();
        let mut ends = EndTracker::default();
        ends.start(t.clone(), 3);
        ends.statistics(&json(9));
        let gap = ends.statistics(&json(9)).remove(0);
        assert_eq!(ends.reached(), []);
        // The gap contains a record.
        assert_eq!(ends.gap_was_read(&gap, None), None);
        assert_eq!(ends.end_event(0), Some((t.clone(), 3)));
        // A new assignment makes the read of a gap worthless.
        assert!((3..LATER_GAP_HINTS).all(|_| ends.statistics(&json(9)).is_empty()), "a later gap needs more hints");
        let gap = ends.statistics(&json(9)).remove(0);
        ends.start(t.clone(), 1);
        assert_eq!(ends.gap_was_read(&gap, Some(9)), None);
        ends.remove(&t);
        assert_eq!(ends.gap_was_read(&gap, Some(9)), None);
        assert_eq!(ends.statistics(b"{\"topics\": 3}"), []);
    }

    #[test]
    fn an_end_event_is_ambiguous_between_two_topics() {
        let mut ends = EndTracker::default();
        ends.start(topic_partition("t", 0).unwrap(), 0);
        ends.start(topic_partition("u", 0).unwrap(), 0);
        assert_eq!(ends.end_event(0), None);
        ends.statistics(&json(0));
        assert_eq!(ends.reached(), [(topic_partition("t", 0).unwrap(), 0)]);
        assert_eq!(ends.reached(), []);
    }
}
