//! Top-k selection of rows by score. Ties are ordered by the row's key, so the result does not depend on the order of
//! arrival.

use std::cmp::Ordering;

use super::row_table::RowTable;
use crate::order::compare_by_score;

/// The `count` rows with the highest scores among those pushed.
pub(super) struct TopK {
    count: usize,
    /// Scores and row numbers: the best so far, and rows pushed since the last selection.
    entries: Vec<(f32, u32)>,
    /// The lowest score of the last selection; `None` before the first.
    min_score: Option<f32>,
}

/// Compares entries: higher scores first, ties by key.
fn order(table: &RowTable, a: &(f32, u32), b: &(f32, u32)) -> Ordering {
    // Keys are compared only for ties.
    if a.0 != b.0 {
        return b.0.total_cmp(&a.0);
    }
    match (table.key(a.1), table.key(b.1)) {
        (Some(x), Some(y)) => compare_by_score((a.0, x), (b.0, y)),
        _ => a.1.cmp(&b.1),
    }
}

impl TopK {
    /// An empty selection of at most `count` rows, at least 1.
    pub fn new(count: usize) -> Self {
        Self { count: count.max(1), entries: Vec::new(), min_score: None }
    }

    /// The lowest score that can still be selected; `None` while every score can.
    pub fn min_score(&self) -> Option<f32> {
        self.min_score
    }

    /// Adds a row.
    pub fn push(&mut self, table: &RowTable, score: f32, number: u32) {
        if self.min_score.is_some_and(|min_score| score < min_score) {
            return;
        }
        self.entries.push((score, number));
        // Selecting only when `entries` has doubled makes the cost per push constant.
        if self.entries.len() >= 2 * self.count + 32 {
            self.select(table);
        }
    }

    /// Drops all entries but the best `count`.
    fn select(&mut self, table: &RowTable) {
        if self.entries.len() <= self.count {
            return;
        }
        self.entries.select_nth_unstable_by(self.count - 1, |a, b| order(table, a, b));
        self.entries.truncate(self.count);
        self.min_score = self.entries.last().map(|entry| entry.0);
    }

    /// The selected scores and row numbers, best first.
    pub fn sorted(mut self, table: &RowTable) -> Vec<(f32, u32)> {
        self.select(table);
        self.entries.sort_unstable_by(|a, b| order(table, a, b));
        self.entries
    }
}
