//! The registry's commit hook: which positions this process committed, and which of them produced conflicts. It lets a
//! waiting request skip a query that is almost always empty.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use carbon_core::{Position, TopicPartition};
use carbon_store::{CommitHook, CommittedRange, Namespace};

/// Maximum number of remembered conflicts.
const CONFLICTS: usize = 10_000;

/// What the fold of a batch reports to [`RegistryCommits`].
#[derive(Debug, Default)]
pub struct BatchEffects {
    /// The positions of records that changed nothing.
    pub conflicts: Vec<Position>,
    /// True if an experiment or a run may have been deleted.
    pub deletes: bool,
}

/// The commits of this process to one open namespace.
#[derive(Debug, Default)]
pub struct RegistryCommits(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// By partition: the offsets from the first to before the second, which this process committed without a gap.
    ranges: BTreeMap<TopicPartition, (u64, u64)>,
    conflicts: BTreeSet<(TopicPartition, u64)>,
    deletions: u64,
}

impl State {
    /// Drops everything that was remembered, and with it what others derived from the number of deletions.
    fn reset(&mut self) {
        *self = Self { deletions: self.deletions + 1, ..Self::default() };
    }
}

impl RegistryCommits {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the record at a position produced a conflict; `None` if this process did not commit the position, or no
    /// longer remembers it.
    pub fn had_conflict(&self, position: &Position) -> Option<bool> {
        let (at, state) = (position.topic_partition(), self.state());
        let (from, upto) = *state.ranges.get(&at)?;
        (from..upto).contains(&position.offset).then(|| state.conflicts.contains(&(at, position.offset)))
    }
}

impl CommitHook for RegistryCommits {
    type Effects = BatchEffects;

    fn committed(&self, range: Option<CommittedRange<'_>>, effects: BatchEffects) {
        let mut state = self.state();
        if effects.deletes {
            state.deletions += 1;
        }
        let Some(CommittedRange { from, upto }) = range else { return };
        if state.conflicts.len() + effects.conflicts.len() > CONFLICTS {
            state.reset();
        }
        for (at, upto) in upto.iter() {
            let from = from.next(at);
            let range = state.ranges.entry(at.clone()).or_insert((from, from));
            *range = (if range.1 == from { range.0 } else { from }, upto);
        }
        let conflicts = effects.conflicts.iter();
        state.conflicts.extend(conflicts.map(|position| (position.topic_partition(), position.offset)));
    }

    fn cleared(&self) {
        self.state().reset();
    }
}

/// A number that grows with every commit that may have deleted an experiment or a run: what was found active under one
/// number is still active while the number is the same. `None` if other processes commit to the namespace too.
pub fn deletion_count(namespace: &Namespace) -> Option<u64> {
    if namespace.is_shared() {
        return None;
    }
    namespace.hook::<RegistryCommits>().map(|commits| commits.state().deletions)
}

#[cfg(test)]
mod tests {
    use carbon_core::{Positions, TopicName};

    use super::*;

    fn position(offset: u64) -> Position {
        Position::new(TopicName::parse("ml.run.logged.v1").unwrap(), 0, offset)
    }

    fn commit(commits: &RegistryCommits, from: u64, upto: u64, conflicts: &[u64]) {
        let at = |next| Positions::from_iter([(position(0).topic_partition(), next)]);
        let conflicts: Vec<_> = conflicts.iter().map(|offset| position(*offset)).collect();
        let range = CommittedRange { from: &at(from), upto: &at(upto) };
        commits.committed(Some(range), BatchEffects { conflicts, deletes: false });
    }

    #[test]
    fn positions_of_other_processes_are_unknown() {
        let commits = RegistryCommits::default();
        let had_conflict = |offset| commits.had_conflict(&position(offset));
        assert_eq!(had_conflict(5), None);
        commit(&commits, 5, 7, &[6]);
        assert_eq!([4, 5, 6, 7].map(had_conflict), [None, Some(false), Some(true), None]);
        commit(&commits, 7, 8, &[]);
        assert_eq!([5, 6, 7, 8].map(had_conflict), [Some(false), Some(true), Some(false), None]);
        // Another process committed the offsets between.
        commit(&commits, 20, 21, &[]);
        assert_eq!([6, 8, 19, 20].map(had_conflict), [None, None, None, Some(false)]);
        let before = commits.state().deletions;
        commits.cleared();
        assert_eq!(had_conflict(20), None);
        assert!(commits.state().deletions > before);
    }

    #[test]
    fn a_deletion_counts_without_a_move_of_the_checkpoint_too() {
        let commits = RegistryCommits::default();
        commits.committed(None, BatchEffects { conflicts: Vec::new(), deletes: true });
        commits.committed(None, BatchEffects::default());
        assert_eq!(commits.state().deletions, 1);
    }

    #[test]
    fn conflicts_are_evicted_when_there_are_too_many() {
        let commits = RegistryCommits::default();
        let all: Vec<u64> = (0..CONFLICTS as u64).collect();
        commit(&commits, 0, CONFLICTS as u64, &all);
        assert_eq!(commits.had_conflict(&position(1)), Some(true));
        let next = CONFLICTS as u64;
        commit(&commits, next, next + 2, &[next + 1]);
        assert_eq!(
            [1, next, next + 1].map(|offset| commits.had_conflict(&position(offset))),
            [None, Some(false), Some(true)]
        );
    }
}
