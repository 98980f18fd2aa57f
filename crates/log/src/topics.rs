//! Compares an existing topic with the spec that is wanted.

use carbon_core::{Cleanup, Partitioner, TopicSpec};

use crate::error::LogError;

/// The name of a cleanup policy in `topology.yaml`.
pub(crate) fn cleanup_name(cleanup: Cleanup) -> &'static str {
    match cleanup {
        Cleanup::Keep => "keep",
        Cleanup::Compact => "compact",
        Cleanup::Delete => "delete",
    }
}

/// The name of a partitioner in `topology.yaml`.
pub(crate) fn partitioner_name(partitioner: Partitioner) -> &'static str {
    match partitioner {
        Partitioner::Murmur2 => "murmur2",
        Partitioner::Crc32 => "crc32",
    }
}

/// Fails if the difference cannot be undone: partition count, partitioner or cleanup. A different retention is allowed.
pub(crate) fn reject_difference(existing: &TopicSpec, wanted: &TopicSpec) -> Result<(), LogError> {
    let differs = |what, found: String, wanted: String, hint| {
        Err(LogError::TopicDiffers { topic: existing.name.clone(), what, found, wanted, hint })
    };
    if existing.partitions != wanted.partitions {
        let hint = "a keyed topic's partition count cannot change";
        return differs(
            "the number of partitions",
            existing.partitions.to_string(),
            wanted.partitions.to_string(),
            hint,
        );
    }
    if existing.partitioner != wanted.partitioner {
        let (found, wanted) = (partitioner_name(existing.partitioner), partitioner_name(wanted.partitioner));
        return differs("the partitioner", found.into(), wanted.into(), "keys would move to other partitions");
    }
    if existing.cleanup != wanted.cleanup {
        let (found, wanted) = (cleanup_name(existing.cleanup), cleanup_name(wanted.cleanup));
        return differs("the cleanup", found.into(), wanted.into(), "records would be deleted, or never deleted");
    }
    Ok(())
}
