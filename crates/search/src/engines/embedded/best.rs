//! The best rows by score, ties by the row's key, so that what is kept does not depend on the
//! order of arrival.

use std::cmp::Ordering;

use super::data::Data;
use crate::order::by_score;

pub(super) struct Best {
    count: usize,
    entries: Vec<(f32, u32)>,
    /// The lowest score that can still get in, once there are enough.
    floor: Option<f32>,
}

fn order(data: &Data, a: &(f32, u32), b: &(f32, u32)) -> Ordering {
    // Keys are looked up for ties alone.
    if a.0 != b.0 {
        return b.0.total_cmp(&a.0);
    }
    match (data.key(a.1), data.key(b.1)) {
        (Some(x), Some(y)) => by_score((a.0, x), (b.0, y)),
        _ => a.1.cmp(&b.1),
    }
}

impl Best {
    pub fn new(count: usize) -> Self {
        Self { count: count.max(1), entries: Vec::new(), floor: None }
    }

    /// Below this, nothing gets in any more.
    pub fn floor(&self) -> Option<f32> {
        self.floor
    }

    pub fn push(&mut self, data: &Data, score: f32, number: u32) {
        if self.floor.is_some_and(|floor| score < floor) {
            return;
        }
        self.entries.push((score, number));
        // Twice as many, so that the selection costs little for each.
        if self.entries.len() >= 2 * self.count + 32 {
            self.select(data);
        }
    }

    fn select(&mut self, data: &Data) {
        if self.entries.len() <= self.count {
            return;
        }
        self.entries.select_nth_unstable_by(self.count - 1, |a, b| order(data, a, b));
        self.entries.truncate(self.count);
        self.floor = self.entries.last().map(|entry| entry.0);
    }

    /// The best, in order.
    pub fn sorted(mut self, data: &Data) -> Vec<(f32, u32)> {
        self.select(data);
        self.entries.sort_unstable_by(|a, b| order(data, a, b));
        self.entries
    }
}
