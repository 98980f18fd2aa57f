//! Measures of a ranking against judgements, as trec_eval defines them.
//!
//! `ndcg@k` is trec_eval's `ndcg_cut`: linear gain, grade / log2(rank + 1), over the ideal order of all judged
//! documents cut at the same k; a grade below 0 gains nothing. `recall@100`, `mrr@10` (`recip_rank` cut at 10)
//! and `success@3` take every grade above 0 as relevant. A document without a judgement has grade 0.

use std::collections::HashMap;

/// The judgements of one query: document to grade.
pub type Grades = HashMap<String, i32>;

fn grade(grades: &Grades, id: &str) -> i32 {
    grades.get(id).copied().unwrap_or(0)
}

fn discounted(gains: impl Iterator<Item = i32>) -> f64 {
    (1u32..).zip(gains).map(|(rank, gain)| f64::from(gain.max(0)) / f64::from(rank + 1).log2()).sum()
}

pub fn ndcg(ranking: &[String], grades: &Grades, k: usize) -> f64 {
    let mut ideal: Vec<i32> = grades.values().copied().collect();
    ideal.sort_unstable_by(|a, b| b.cmp(a));
    let best = discounted(ideal.into_iter().take(k));
    if best == 0.0 {
        return 0.0;
    }
    discounted(ranking.iter().take(k).map(|id| grade(grades, id))) / best
}

/// The share of the relevant documents that is among the first k.
pub fn recall(ranking: &[String], grades: &Grades, k: usize) -> f64 {
    let relevant = grades.values().filter(|grade| **grade > 0).count();
    if relevant == 0 {
        return 0.0;
    }
    let found = ranking.iter().take(k).filter(|id| grade(grades, id) > 0).count();
    found as f64 / relevant as f64
}

/// 1 / rank of the first relevant document among the first k.
pub fn reciprocal_rank(ranking: &[String], grades: &Grades, k: usize) -> f64 {
    let first = ranking.iter().take(k).position(|id| grade(grades, id) > 0);
    first.map_or(0.0, |index| 1.0 / (index + 1) as f64)
}

/// Whether a relevant document is among the first k.
pub fn success(ranking: &[String], grades: &Grades, k: usize) -> f64 {
    f64::from(u8::from(ranking.iter().take(k).any(|id| grade(grades, id) > 0)))
}

/// What was measured of one setting, summed over queries.
#[derive(Clone, Debug, Default)]
pub struct Sums {
    queries: u32,
    /// In the order of [`names`].
    sums: [f64; 4],
    latencies: Vec<f64>,
}

/// The measures' names, as `--at-least` takes them.
pub fn names(k: usize) -> [String; 4] {
    [format!("ndcg@{k}"), "recall@100".into(), "mrr@10".into(), "success@3".into()]
}

impl Sums {
    pub fn add(&mut self, ranking: &[String], grades: &Grades, k: usize, latency_ms: f64) {
        let measured = [
            ndcg(ranking, grades, k),
            recall(ranking, grades, 100),
            reciprocal_rank(ranking, grades, 10),
            success(ranking, grades, 3),
        ];
        self.queries += 1;
        self.sums.iter_mut().zip(measured).for_each(|(sum, value)| *sum += value);
        self.latencies.push(latency_ms);
    }

    /// The means over queries, in the order of [`names`].
    pub fn means(&self) -> [f64; 4] {
        self.sums.map(|sum| sum / f64::from(self.queries.max(1)))
    }

    /// The latency that this share of the queries kept to (nearest rank).
    pub fn latency(&self, share: f64) -> f64 {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let rank = (share * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grades(list: &[(&str, i32)]) -> Grades {
        list.iter().map(|(id, grade)| ((*id).to_owned(), *grade)).collect()
    }

    fn ranking(text: &str) -> Vec<String> {
        text.split(' ').filter(|id| !id.is_empty()).map(str::to_owned).collect()
    }

    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-9, "{found} is not {expected}");
    }

    #[test]
    fn ndcg_has_linear_gain() {
        let judged = grades(&[("a", 3), ("b", 2), ("c", 3), ("d", 0), ("e", 1), ("f", 2)]);
        // 3/1 + 2/1.5849625 + 3/2 + 0 + 1/2.5849625 + 2/2.8073549, over 3 + 3/1.5849625 + 2/2 + 2/2.3219281 + 1/2.5849625.
        let dcg = 3.0 + 2.0 / 3f64.log2() + 1.5 + 1.0 / 6f64.log2() + 2.0 / 7f64.log2();
        let ideal = 3.0 + 3.0 / 3f64.log2() + 1.0 + 2.0 / 5f64.log2() + 1.0 / 6f64.log2();
        close(dcg, 6.861_126_688_593_502);
        close(ndcg(&ranking("a b c d e f"), &judged, 6), dcg / ideal);
        close(ndcg(&ranking("a b c d e f"), &judged, 6), 0.960_808_194_336_061_7);
        // Cut at 2, both sides.
        close(ndcg(&ranking("a b c d e f"), &judged, 2), (3.0 + 2.0 / 3f64.log2()) / (3.0 + 3.0 / 3f64.log2()));
        // The ideal order and only the ideal order is 1; what is missing counts.
        close(ndcg(&ranking("c a f b e d"), &judged, 10), 1.0);
        close(ndcg(&ranking("x y a"), &grades(&[("a", 1), ("b", 1)]), 10), 0.5 / (1.0 + 1.0 / 3f64.log2()));
    }

    #[test]
    fn negative_and_missing_grades_gain_nothing() {
        let judged = grades(&[("a", -2), ("b", 1)]);
        close(ndcg(&ranking("a b"), &judged, 10), 1.0 / 3f64.log2());
        close(recall(&ranking("a x"), &judged, 100), 0.0);
        close(ndcg(&ranking("a"), &grades(&[("a", 0)]), 10), 0.0);
        close(ndcg(&[], &judged, 10), 0.0);
    }

    #[test]
    fn recall_reciprocal_rank_and_success_take_grades_above_zero() {
        let judged = grades(&[("a", 1), ("b", 2), ("c", 0), ("d", 1), ("e", 4)]);
        let found = ranking("c x a y b");
        close(recall(&found, &judged, 100), 0.5);
        close(recall(&found, &judged, 3), 0.25);
        close(reciprocal_rank(&found, &judged, 10), 1.0 / 3.0);
        close(reciprocal_rank(&found, &judged, 2), 0.0);
        close(success(&found, &judged, 3), 1.0);
        close(success(&found, &judged, 2), 0.0);
    }

    #[test]
    fn means_and_latencies_are_over_queries() {
        let judged = grades(&[("a", 1)]);
        let mut sums = Sums::default();
        for (text, latency) in [("a", 4.0), ("x a", 1.0), ("x", 3.0), ("x y z a", 2.0)] {
            sums.add(&ranking(text), &judged, 10, latency);
        }
        let [ndcg, recall, mrr, success] = sums.means();
        close(ndcg, (1.0 + 1.0 / 3f64.log2() + 1.0 / 5f64.log2()) / 4.0);
        close(recall, 0.75);
        close(mrr, (1.0 + 0.5 + 0.25) / 4.0);
        close(success, 0.5);
        assert_eq!((sums.latency(0.5), sums.latency(0.95), sums.latency(0.0)), (2.0, 4.0, 1.0));
        assert_eq!(Sums::default().latency(0.5), 0.0);
    }
}
