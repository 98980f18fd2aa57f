//! Topics: their names, and the settings that the topology declares.

use serde::{Deserialize, Serialize};

use crate::ids::identifier;

fn topic_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-')
}

identifier!(
    /// The name of a topic, such as `ml.entity.changed.v1`.
    TopicName, "topic", "^[a-zA-Z0-9_.-]{1,249}$", 249, topic_byte
);

/// The cleanup policy: what happens to old records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cleanup {
    /// Never deleted, never compacted.
    Keep,
    /// The last record of each key is kept (law 6).
    Compact,
    /// Deleted after the retention time.
    Delete,
}

/// The hash that maps a partition key to a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Partitioner {
    /// Murmur2, the default of Kafka's Java clients.
    #[default]
    Murmur2,
    /// CRC-32, the default of librdkafka.
    Crc32,
}

impl Partitioner {
    /// Returns the partition of a key, from 0 to `count - 1`.
    pub fn partition(self, key: &[u8], count: u32) -> u32 {
        match self {
            // Kafka's clients clear the sign bit, too.
            Partitioner::Murmur2 => (murmur2(key) & 0x7fff_ffff) % count.max(1),
            Partitioner::Crc32 => crc32fast::hash(key) % count.max(1),
        }
    }
}

/// Murmur2 with the seed that Kafka's clients use (Appleby 2008).
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut h: u32 = 0x9747_b28c ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(M);
        k ^= k >> 24;
        h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let tail = words.remainder();
    if !tail.is_empty() {
        for (i, byte) in tail.iter().enumerate() {
            h ^= u32::from(*byte) << (8 * i);
        }
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^ (h >> 15)
}

/// Retention times, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// For `delete`: the age at which a record is deleted. `None`: never.
    pub retention_ms: Option<i64>,
    /// For `compact`: the minimum age of a record that compaction may remove.
    pub min_compaction_lag_ms: i64,
    /// For `compact`: how long a null value is kept.
    pub delete_retention_ms: i64,
}

impl Default for Retention {
    fn default() -> Self {
        Self { retention_ms: None, min_compaction_lag_ms: 0, delete_retention_ms: 7 * 86_400_000 }
    }
}

/// A topic as the topology declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    pub name: TopicName,
    pub partitions: u32,
    pub cleanup: Cleanup,
    pub partitioner: Partitioner,
    pub retention: Retention,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur2_equals_that_of_kafkas_clients() {
        // The values of Apache Kafka's own unit test (UtilsTest.testMurmur2), as signed numbers there.
        for (text, hash) in [
            ("21", -973_932_308_i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(text.as_bytes()) as i32, hash, "{text}");
        }
    }

    #[test]
    fn partitions_are_in_range() {
        for partitioner in [Partitioner::Murmur2, Partitioner::Crc32] {
            assert!((0..1000).all(|n: u32| partitioner.partition(&n.to_le_bytes(), 6) < 6));
        }
    }
}
