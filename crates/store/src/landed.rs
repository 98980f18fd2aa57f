//! What this process has committed itself, and what was remarked of it: who waits for a record need not ask the store, which
//! has nothing to say of nearly all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use carbon_core::{Position, Positions, TopicPartition};

/// How many remarks are kept.
const REMARKS: usize = 10_000;

#[derive(Clone, Debug, Default)]
pub struct Landed(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    /// By partition: what this process committed without a gap.
    ranges: BTreeMap<TopicPartition, (u64, u64)>,
    remarks: BTreeSet<(TopicPartition, u64)>,
    era: u64,
}

impl Known {
    fn forget(&mut self) {
        *self = Self { era: self.era + 1, ..Self::default() };
    }
}

impl Landed {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After the commit.
    pub(crate) fn add(&self, from: &Positions, upto: &Positions, remarks: &[Position]) {
        let mut known = self.known();
        if known.remarks.len() + remarks.len() > REMARKS {
            known.forget();
        }
        for (at, upto) in upto.iter() {
            let from = from.next(at);
            let range = known.ranges.entry(at.clone()).or_insert((from, from));
            *range = (if range.1 == from { range.0 } else { from }, upto);
        }
        known.remarks.extend(remarks.iter().map(|position| (position.topic_partition(), position.offset)));
    }

    pub(crate) fn forget(&self) {
        self.known().forget();
    }

    /// After the commit.
    pub(crate) fn revoke(&self) {
        self.known().era += 1;
    }

    pub(crate) fn era(&self) -> u64 {
        self.known().era
    }

    /// Whether something was remarked of a position; `None` where this process does not know.
    pub(crate) fn remarked(&self, position: &Position) -> Option<bool> {
        let (at, known) = (position.topic_partition(), self.known());
        let (from, upto) = *known.ranges.get(&at)?;
        (from..upto).contains(&position.offset).then(|| known.remarks.contains(&(at, position.offset)))
    }
}

#[cfg(test)]
mod tests {
    use carbon_core::TopicName;

    use super::*;

    fn position(offset: u64) -> Position {
        Position::new(TopicName::parse("ml.run.logged.v1").unwrap(), 0, offset)
    }

    fn add(landed: &Landed, from: u64, upto: u64, remarks: &[u64]) {
        let at = |next| Positions::from_iter([(position(0).topic_partition(), next)]);
        let remarks: Vec<_> = remarks.iter().map(|offset| position(*offset)).collect();
        landed.add(&at(from), &at(upto), &remarks);
    }

    #[test]
    fn it_says_nothing_of_what_it_did_not_commit() {
        let landed = Landed::default();
        let said = |offset| landed.remarked(&position(offset));
        assert_eq!(said(5), None);
        add(&landed, 5, 7, &[6]);
        assert_eq!([4, 5, 6, 7].map(said), [None, Some(false), Some(true), None]);
        add(&landed, 7, 8, &[]);
        assert_eq!([5, 6, 7, 8].map(said), [Some(false), Some(true), Some(false), None]);
        // Somebody else committed what lies between.
        add(&landed, 20, 21, &[]);
        assert_eq!([6, 8, 19, 20].map(said), [None, None, None, Some(false)]);
        let era = landed.era();
        landed.forget();
        assert_eq!(said(20), None);
        assert!(landed.era() > era);
    }

    #[test]
    fn it_forgets_rather_than_grows() {
        let landed = Landed::default();
        let all: Vec<u64> = (0..REMARKS as u64).collect();
        add(&landed, 0, REMARKS as u64, &all);
        assert_eq!(landed.remarked(&position(1)), Some(true));
        let next = REMARKS as u64;
        add(&landed, next, next + 2, &[next + 1]);
        assert_eq!(
            [1, next, next + 1].map(|offset| landed.remarked(&position(offset))),
            [None, Some(false), Some(true)]
        );
    }
}
