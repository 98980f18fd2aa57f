//! Positions in the log: of one record, and of a reader over several partitions.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::topic::TopicName;

/// One partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TopicPartition {
    pub topic: TopicName,
    pub partition: u32,
}

impl TopicPartition {
    pub fn new(topic: TopicName, partition: u32) -> Self {
        Self { topic, partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.topic, self.partition)
    }
}

/// The position of one record. Its text form is `topic:partition:offset`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    pub topic: TopicName,
    pub partition: u32,
    pub offset: u64,
}

impl Position {
    pub fn new(topic: TopicName, partition: u32, offset: u64) -> Self {
        Self { topic, partition, offset }
    }

    pub fn topic_partition(&self) -> TopicPartition {
        TopicPartition::new(self.topic.clone(), self.partition)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.topic, self.partition, self.offset)
    }
}

/// The error of a text that is not a position.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a position: expected <topic>:<partition>:<offset>[,…]")]
pub struct PositionError(String);

impl FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        let bad = || PositionError(text.chars().take(120).collect());
        let mut parts = text.trim().split(':');
        let (Some(topic), Some(partition), Some(offset), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(bad());
        };
        Ok(Position {
            topic: TopicName::parse(topic).map_err(|_| bad())?,
            partition: partition.parse().map_err(|_| bad())?,
            offset: offset.parse().map_err(|_| bad())?,
        })
    }
}

/// The next offset to read for each partition. All records below it are processed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Positions(BTreeMap<TopicPartition, u64>);

impl Positions {
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the next offset of a partition; 0 if it is not in the map.
    pub fn next(&self, at: &TopicPartition) -> u64 {
        self.0.get(at).copied().unwrap_or(0)
    }

    pub fn get(&self, at: &TopicPartition) -> Option<u64> {
        self.0.get(at).copied()
    }

    pub fn set(&mut self, at: TopicPartition, next: u64) {
        self.0.insert(at, next);
    }

    /// Marks a record as processed. The next offset never decreases.
    pub fn advance_past(&mut self, position: &Position) {
        let next = self.0.entry(position.topic_partition()).or_insert(0);
        *next = (*next).max(position.offset + 1);
    }

    /// Sets each partition to the higher next offset of the two maps.
    pub fn merge(&mut self, other: &Positions) {
        for (at, next) in &other.0 {
            let mine = self.0.entry(at.clone()).or_insert(0);
            *mine = (*mine).max(*next);
        }
    }

    /// Returns true if the next offset of each partition in `other` is reached here too.
    pub fn covers(&self, other: &Positions) -> bool {
        other.0.iter().all(|(at, next)| self.next(at) >= *next)
    }

    pub fn remove(&mut self, at: &TopicPartition) {
        self.0.remove(at);
    }

    pub fn iter(&self) -> impl Iterator<Item = (&TopicPartition, u64)> {
        self.0.iter().map(|(at, next)| (at, *next))
    }

    pub fn of_topic(&self, topic: &TopicName) -> Positions {
        self.0.iter().filter(|(at, _)| at.topic == *topic).map(|(at, next)| (at.clone(), *next)).collect()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Parses the header `X-Min-Position`: positions of records that must be processed, separated by commas.
    pub fn parse_done(text: &str) -> Result<Self, PositionError> {
        let mut positions = Self::new();
        for part in text.split(',') {
            let position: Position = part.parse()?;
            if position.offset == u64::MAX {
                return Err(PositionError(text.chars().take(120).collect()));
            }
            positions.advance_past(&position);
        }
        Ok(positions)
    }

    /// Formats the header `X-Log-Position`: the position of the last processed record of each partition.
    pub fn to_done_string(&self) -> String {
        let done = self.0.iter().filter(|(_, next)| **next > 0);
        done.map(|(at, next)| format!("{at}:{}", next - 1)).collect::<Vec<_>>().join(",")
    }
}

impl FromIterator<(TopicPartition, u64)> for Positions {
    fn from_iter<I: IntoIterator<Item = (TopicPartition, u64)>>(iter: I) -> Self {
        Self(iter.into_iter().collect())
    }
}

impl fmt::Display for Positions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (at, next) in &self.0 {
            if !first {
                f.write_str(",")?;
            }
            first = false;
            write!(f, "{at}:{next}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(partition: u32) -> TopicPartition {
        TopicPartition::new(TopicName::parse("t").unwrap(), partition)
    }

    #[test]
    fn position_headers_round_trip_and_invalid_ones_are_rejected() {
        let positions = Positions::parse_done("t:0:4, t:1:0,t:0:2").unwrap();
        assert_eq!(positions.next(&at(0)), 5);
        assert_eq!(positions.to_done_string(), "t:0:4,t:1:0");
        for bad in ["", "t", "t:0", "t:x:1", "t:0:1:2", "t:0:-1", "/:0:1", &format!("t:0:{}", u64::MAX)] {
            assert!(Positions::parse_done(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn covers_compares_each_partition() {
        let low: Positions = [(at(0), 3)].into_iter().collect();
        let high: Positions = [(at(0), 3), (at(1), 1)].into_iter().collect();
        assert!(high.covers(&low) && !low.covers(&high));
    }
}
