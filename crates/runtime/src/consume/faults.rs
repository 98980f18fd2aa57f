//! Which internal errors repeat at one position. The fifth halts the processor there.

use std::time::Duration;

use carbon_core::Positions;

/// Internal errors and panics at one position after which the processor halts.
const HALT_AFTER: u32 = 5;

/// How long a halted processor waits before it tries again, in case the cause is gone.
pub(super) const HALTED_RETRY: Duration = Duration::from_secs(30);

/// The internal errors since the last batch that landed.
#[derive(Debug, Default)]
pub(super) struct Faults {
    at: Positions,
    count: u32,
    /// Where the batch that failed first ended; until then records are taken one by one, so that those before the culprit
    /// land and its position is known.
    careful_until: Positions,
}

impl Faults {
    /// Counts an error of a batch; true if the processor halts.
    pub fn count(&mut self, from: &Positions, upto: Option<&Positions>) -> bool {
        if self.at == *from {
            self.count += 1;
        } else {
            (self.at, self.count) = (from.clone(), 1);
        }
        if let Some(upto) = upto {
            self.careful_until.merge(upto);
        }
        self.count >= HALT_AFTER
    }

    /// A batch landed, up to these positions.
    pub fn landed(&mut self, committed: &Positions) {
        self.count = 0;
        self.at = Positions::new();
        let passed: Vec<_> = self
            .careful_until
            .iter()
            .filter(|(at, upto)| committed.next(at) >= *upto)
            .map(|(at, _)| at.clone())
            .collect();
        passed.iter().for_each(|at| self.careful_until.remove(at));
    }

    /// Forgets partitions that this member does not have: nothing of them lands here.
    pub fn keep_only(&mut self, own: &Positions) {
        self.careful_until = self
            .careful_until
            .iter()
            .filter(|(at, _)| own.get(at).is_some())
            .map(|(at, upto)| (at.clone(), upto))
            .collect();
    }

    /// Whether nothing failed since the last batch that landed.
    pub fn is_clean(&self) -> bool {
        self.count == 0
    }

    /// Whether records are taken one by one.
    pub fn is_careful(&self) -> bool {
        !self.careful_until.is_empty()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use carbon_core::{TopicName, TopicPartition};

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
        assert!(faults.is_careful());
        for n in 0..5 {
            assert_eq!(faults.count(&at(3), Some(&at(4))), n == 4);
        }
        faults.landed(&at(10));
        assert!(!faults.is_careful());
        assert!(!faults.count(&at(3), None));
    }
}
