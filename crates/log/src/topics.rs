//! Which differences between a topic as it is and as it is wanted would lose records.

use carbon_core::{Cleanup, Partitioner, TopicSpec};

use crate::error::LogError;

/// What a topology calls them.
pub(crate) fn cleanup_name(cleanup: Cleanup) -> &'static str {
    match cleanup {
        Cleanup::Keep => "keep",
        Cleanup::Compact => "compact",
        Cleanup::Delete => "delete",
    }
}

pub(crate) fn partitioner_name(partitioner: Partitioner) -> &'static str {
    match partitioner {
        Partitioner::Murmur2 => "murmur2",
        Partitioner::Crc32 => "crc32",
    }
}

/// Refuses what cannot be taken back; a longer or shorter retention can.
pub(crate) fn refuse_difference(known: &TopicSpec, wanted: &TopicSpec) -> Result<(), LogError> {
    let differs = |what, found: String, wanted: String, hint| {
        Err(LogError::TopicDiffers { topic: known.name.clone(), what, found, wanted, hint })
    };
    if known.partitions != wanted.partitions {
        let hint = "a keyed topic's partition count cannot change";
        return differs("the number of partitions", known.partitions.to_string(), wanted.partitions.to_string(), hint);
    }
    if known.partitioner != wanted.partitioner {
        let (found, wanted) = (partitioner_name(known.partitioner), partitioner_name(wanted.partitioner));
        return differs("the partitioner", found.into(), wanted.into(), "keys would change their partition");
    }
    if known.cleanup != wanted.cleanup {
        let (found, wanted) = (cleanup_name(known.cleanup), cleanup_name(wanted.cleanup));
        return differs("the cleanup", found.into(), wanted.into(), "records would be lost, or stay for ever");
    }
    Ok(())
}
