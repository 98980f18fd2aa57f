//! Which ends were seen (law 4). An offset may belong to a transaction marker, which is never delivered, so
//! that "caught up" cannot be told by comparing offsets. The client library's event for an end does not say where
//! it lies. Its statistics do, but cannot be believed: what was fetched and not yet delivered is thrown away by a
//! rebalance, and fetched again, while they still tell the end. So they are a hint: where one stays that lies
//! beyond what was delivered, somebody reads the gap by other means, and says whether a record is in it.

use std::collections::{BTreeMap, HashMap};

use carbon_core::{Position, TopicPartition};
use serde::Deserialize;

use super::client::at;

#[derive(Debug)]
struct Seen {
    /// Everything below was delivered.
    next: u64,
    /// The last hint, and how often it came.
    hint: Option<(u64, u32)>,
    /// How often a hint has to come before its gap is read.
    patience: u32,
    /// The gap is being read.
    asked: bool,
    /// The end that the reader was told last.
    told: Option<u64>,
}

/// A gap between what was delivered and what may be the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    pub at: TopicPartition,
    pub from: u64,
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
    eof_offset: i64,
}

/// At the beginning somebody waits for the end.
const EAGER: u32 = 2;
/// Later a stream of transactions would have a gap read for each of them: only one that stays is worth it.
const PATIENT: u32 = 5;

impl Ends {
    pub fn begin(&mut self, at: TopicPartition, next: u64) {
        self.0.insert(at, Seen { next, hint: None, patience: EAGER, asked: false, told: None });
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

    /// Takes the hints; answers the gaps that are to be read.
    pub fn statistics(&mut self, json: &[u8]) -> Vec<Gap> {
        let Ok(statistics) = serde_json::from_slice::<Statistics>(json) else { return Vec::new() };
        let mut gaps = Vec::new();
        for (topic, found) in statistics.topics {
            for (partition, found) in found.partitions {
                let Ok(end) = u64::try_from(found.eof_offset) else { continue };
                let Some(at) = at(&topic, partition) else { continue };
                let Some(seen) = self.0.get_mut(&at) else { continue };
                let times = seen.hint.filter(|(before, _)| *before == end).map_or(1, |(_, times)| times + 1);
                seen.hint = Some((end, times));
                if times >= seen.patience && end > seen.next && !seen.asked {
                    seen.asked = true;
                    seen.patience = PATIENT;
                    gaps.push(Gap { at, from: seen.next });
                }
            }
        }
        gaps
    }

    /// Ends that need no reading: the hint is where the delivered records end.
    pub fn reached(&mut self) -> Vec<(TopicPartition, u64)> {
        let mut told = Vec::new();
        for (at, seen) in &mut self.0 {
            if seen.hint.is_some_and(|(end, _)| end == seen.next) && seen.told != Some(seen.next) {
                seen.told = Some(seen.next);
                told.push((at.clone(), seen.next));
            }
        }
        told
    }

    /// The gap was read: no record lies in it up to `end`; `None` where there is one, or nobody can tell.
    pub fn read(&mut self, gap: &Gap, end: Option<u64>) -> Option<(TopicPartition, u64)> {
        let seen = self.0.get_mut(&gap.at)?;
        seen.asked = false;
        // What was delivered or assigned anew meanwhile has moved the gap.
        let end = end.filter(|end| seen.next == gap.from && *end > seen.next)?;
        seen.next = end;
        seen.told = Some(end);
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
    fn an_end_behind_a_marker_is_told_once_the_gap_was_read() {
        let t = at("t", 0).unwrap();
        let mut ends = Ends::default();
        ends.begin(t.clone(), 3);
        assert_eq!(ends.ended(0), Some((t.clone(), 3)));
        assert_eq!(ends.ended(0), None, "it was told");
        ends.delivered(&Position::new(t.topic.clone(), 0, 3));
        assert_eq!(ends.ended(0), Some((t.clone(), 4)), "the marker at 4 is not known yet");
        let gap = Gap { at: t.clone(), from: 4 };
        assert_eq!(ends.statistics(&json(5)), [], "it may be passing");
        assert_eq!(ends.statistics(&json(5)).first(), Some(&gap));
        assert_eq!(ends.statistics(&json(5)), [], "it is being read");
        assert_eq!(ends.read(&gap, Some(5)), Some((t.clone(), 5)));
        assert_eq!((ends.statistics(&json(5)), ends.reached(), ends.ended(0)), (vec![], vec![], None));
    }

    #[test]
    fn a_hint_beyond_what_was_delivered_moves_nothing_by_itself() {
        let t = at("t", 0).unwrap();
        let mut ends = Ends::default();
        ends.begin(t.clone(), 3);
        ends.statistics(&json(9));
        let gap = ends.statistics(&json(9)).remove(0);
        assert_eq!(ends.reached(), []);
        // A record is in it.
        assert_eq!(ends.read(&gap, None), None);
        assert_eq!(ends.ended(0), Some((t.clone(), 3)));
        // What was read for an assignment before is not believed.
        assert!((3..PATIENT).all(|_| ends.statistics(&json(9)).is_empty()), "one that stays is worth a read");
        let gap = ends.statistics(&json(9)).remove(0);
        ends.begin(t.clone(), 1);
        assert_eq!(ends.read(&gap, Some(9)), None);
        ends.forget(&t);
        assert_eq!(ends.read(&gap, Some(9)), None);
        assert_eq!(ends.statistics(b"{\"topics\": 3}"), []);
    }

    #[test]
    fn of_two_topics_the_event_says_nothing() {
        let mut ends = Ends::default();
        ends.begin(at("t", 0).unwrap(), 0);
        ends.begin(at("u", 0).unwrap(), 0);
        assert_eq!(ends.ended(0), None);
        ends.statistics(&json(0));
        assert_eq!(ends.reached(), [(at("t", 0).unwrap(), 0)]);
        assert_eq!(ends.reached(), []);
    }
}
