//! Which ends were seen (law 4). An offset may belong to a transaction marker, which is never delivered, so
//! that "caught up" cannot be told by comparing offsets. The client library's event for an end does not
//! say where it lies; its statistics do. They come out of turn, before what was fetched earlier, so an end of
//! theirs counts once the queue was found empty: everything below it has been delivered then.

use std::collections::{BTreeMap, HashMap};

use carbon_core::{Position, TopicPartition};
use serde::Deserialize;

use super::client::at;

#[derive(Debug)]
struct Seen {
    /// Everything below was delivered.
    next: u64,
    /// An end of the statistics that waits for an empty queue.
    end: Option<u64>,
    /// The end that the reader was told last.
    told: Option<u64>,
}

/// The partitions of one reader.
#[derive(Debug, Default)]
pub(super) struct Ends(BTreeMap<TopicPartition, Seen>);

#[derive(Deserialize)]
struct Statistics {
    topics: HashMap<String, Topic>,
}

#[derive(Deserialize)]
struct Topic {
    partitions: HashMap<i32, Partition>,
}

#[derive(Deserialize)]
struct Partition {
    fetch_state: String,
    eof_offset: i64,
}

impl Ends {
    pub fn begin(&mut self, at: TopicPartition, next: u64) {
        self.0.insert(at, Seen { next, end: None, told: None });
    }

    pub fn forget(&mut self, at: &TopicPartition) {
        self.0.remove(at);
    }

    pub fn delivered(&mut self, position: &Position) {
        if let Some(seen) = self.0.get_mut(&position.topic_partition()) {
            seen.next = seen.next.max(position.offset + 1);
        }
    }

    /// The library says that a partition's end was seen, but not of which topic: an answer only where that is clear.
    pub fn ended(&mut self, partition: i32) -> Option<(TopicPartition, u64)> {
        let mut own = self.0.iter_mut().filter(|(at, _)| i64::from(at.partition) == i64::from(partition));
        let (at, seen) = own.next()?;
        if own.next().is_some() || seen.told == Some(seen.next) {
            return None;
        }
        seen.told = Some(seen.next);
        Some((at.clone(), seen.next))
    }

    pub fn statistics(&mut self, json: &[u8]) {
        let Ok(statistics) = serde_json::from_slice::<Statistics>(json) else { return };
        for (topic, found) in statistics.topics {
            for (partition, found) in found.partitions {
                // What is not being fetched has the end of an assignment before.
                let (Ok(end), "active") = (u64::try_from(found.eof_offset), found.fetch_state.as_str()) else {
                    continue;
                };
                if let Some(seen) = at(&topic, partition).and_then(|at| self.0.get_mut(&at)) {
                    seen.end = Some(end);
                }
            }
        }
    }

    /// The queue is empty: what the statistics said has come true.
    pub fn drained(&mut self) -> Vec<(TopicPartition, u64)> {
        let mut told = Vec::new();
        for (at, seen) in &mut self.0 {
            let Some(end) = seen.end.take() else { continue };
            seen.next = seen.next.max(end);
            if end == seen.next && seen.told != Some(end) {
                seen.told = Some(end);
                told.push((at.clone(), end));
            }
        }
        told
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn json(state: &str, eof: i64) -> Vec<u8> {
        let partition = serde_json::json!({"partition": 0, "fetch_state": state, "eof_offset": eof, "lo_offset": 0});
        serde_json::json!({"name": "x", "topics": {"t": {"topic": "t", "partitions": {"0": partition, "-1": partition}}}})
            .to_string()
            .into_bytes()
    }

    #[test]
    fn an_end_behind_a_marker_is_told_when_the_queue_is_empty() {
        let t = at("t", 0).unwrap();
        let mut ends = Ends::default();
        ends.begin(t.clone(), 3);
        assert_eq!(ends.ended(0), Some((t.clone(), 3)));
        assert_eq!(ends.ended(0), None, "it was told");
        ends.delivered(&Position::new(t.topic.clone(), 0, 3));
        // Record 3, marker 4.
        ends.statistics(&json("active", 5));
        assert_eq!(ends.ended(0), Some((t.clone(), 4)), "not yet the marker: the queue may hold something");
        assert_eq!(ends.drained(), [(t.clone(), 5)]);
        assert_eq!(ends.drained(), []);
        ends.statistics(&json("active", 5));
        assert_eq!((ends.drained(), ends.ended(0)), (vec![], None));
    }

    #[test]
    fn an_end_of_an_assignment_before_is_not_believed() {
        let t = at("t", 0).unwrap();
        let mut ends = Ends::default();
        ends.begin(t.clone(), 0);
        ends.statistics(&json("stopped", 9));
        ends.statistics(&json("active", -1001));
        assert_eq!(ends.drained(), []);
        ends.statistics(&json("active", 9));
        ends.forget(&t);
        ends.begin(t, 0);
        assert_eq!(ends.drained(), []);
        ends.statistics(b"{\"topics\": 3}");
        assert_eq!(ends.drained(), []);
    }

    #[test]
    fn of_two_topics_the_event_says_nothing() {
        let mut ends = Ends::default();
        ends.begin(at("t", 0).unwrap(), 0);
        ends.begin(at("u", 0).unwrap(), 0);
        assert_eq!(ends.ended(0), None);
        ends.statistics(&json("active", 0));
        assert_eq!(ends.drained(), [(at("t", 0).unwrap(), 0)]);
    }
}
