//! Which internal errors repeat at one position. The fifth halts the processor there.

use std::collections::BTreeMap;
use std::time::Duration;

use carbon_core::{Positions, TopicPartition};

/// Internal errors and panics at one position after which the processor halts.
const HALT_AFTER: u32 = 5;

/// How long a halted processor waits before it tries again, in case the cause is gone.
pub(super) const HALTED_RETRY: Duration = Duration::from_secs(30);

/// The internal errors that no commit has passed yet.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// By partition: the position of the batch that failed, and how often.
    counts: BTreeMap<TopicPartition, (u64, u32)>,
    /// Errors whose position is not known, since something was committed.
    elsewhere: u32,
    /// Where the batch that failed first ended; until then records are taken one by one, so that those before the culprit
    /// land and its position is known.
    careful_until: Positions,
}

impl Faults {
    /// Counts an error of a batch; true if the processor halts.
    pub fn count(&mut self, from: &Positions, upto: Option<&Positions>) -> bool {
        if let Some(upto) = upto {
            self.careful_until.merge(upto);
        }
        if from.is_empty() {
            self.elsewhere += 1;
            return self.elsewhere >= HALT_AFTER;
        }
        let mut most = 0;
        for (at, position) in from.iter() {
            let known = self.counts.entry(at.clone()).or_insert((position, 0));
            *known = if known.0 == position { (position, known.1 + 1) } else { (position, 1) };
            most = most.max(known.1);
        }
        most >= HALT_AFTER
    }

    /// A batch landed, up to these positions. A partition that it has not passed keeps its count, whatever lands in others.
    pub fn landed(&mut self, committed: &Positions) {
        self.elsewhere = 0;
        self.counts.retain(|at, (position, _)| committed.next(at) <= *position);
        self.careful_until = self
            .careful_until
            .iter()
            .filter(|(at, upto)| committed.next(at) < *upto)
            .map(|(at, upto)| (at.clone(), upto))
            .collect();
    }

    /// Forgets partitions that this member does not have: nothing of them lands here.
    pub fn keep_only(&mut self, own: &Positions) {
        self.counts.retain(|at, _| own.get(at).is_some());
        self.careful_until = self
            .careful_until
            .iter()
            .filter(|(at, _)| own.get(at).is_some())
            .map(|(at, upto)| (at.clone(), upto))
            .collect();
    }

    /// Whether every batch that failed has landed since.
    pub fn is_clean(&self) -> bool {
        self.counts.is_empty() && self.elsewhere == 0
    }

    /// Whether records are taken one by one.
    pub fn is_careful(&self) -> bool {
        !self.careful_until.is_empty()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use carbon_core::TopicName;

    use super::*;

    fn at(next: u64) -> Positions {
        Positions::from_iter([(TopicPartition::new(TopicName::parse("t").unwrap(), 0), next)])
    }

    #[test]
    fn five_at_one_position_halt_and_another_position_starts_over() {
        let mut faults = Faults::default();
        for _ in 0..4 {
            assert!(!faults.count(&at(0), Some(&at(10))));
        }
        assert!(faults.is_careful());
        faults.landed(&at(3));
        assert!(faults.is_careful() && faults.is_clean());
        for n in 0..5 {
            assert_eq!(faults.count(&at(3), Some(&at(4))), n == 4);
        }
        faults.landed(&at(10));
        assert!(!faults.is_careful());
        assert!(!faults.count(&at(3), None));
    }

    #[test]
    fn what_lands_in_another_partition_does_not_start_it_over() {
        let other = Positions::from_iter([(TopicPartition::new(TopicName::parse("t").unwrap(), 1), 7)]);
        let mut faults = Faults::default();
        for n in 0..5 {
            assert_eq!(faults.count(&at(3), Some(&at(4))), n == 4);
            faults.landed(&other);
            assert!(!faults.is_clean());
        }
    }
}
