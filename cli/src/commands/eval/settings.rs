//! Which settings of the search are compared, and what is demanded of them.

use serde::Serialize;
use serde_json::{Value, json};

use super::metrics;
use crate::commands::search::{Fusion, Mode, number};
use crate::error::CliError;

/// One way to ask the search.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Setting {
    /// `hybrid.weighted@0.7`, `hybrid.rrf`, `dense` …
    pub name: String,
    pub mode: Mode,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fusion: Option<Fusion>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dense_weight: Option<Value>,
}

impl Setting {
    /// All that were asked for: fusions and weights vary the hybrid search alone, weights weighted fusion alone.
    pub fn all(modes: &[Mode], fusions: &[Fusion], weights: &[f32]) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        for &mode in modes {
            let fusions = if mode == Mode::Hybrid { fusions } else { &[] };
            let plain = match mode {
                Mode::Hybrid => "hybrid",
                Mode::Dense => "dense",
                Mode::Lexical => "lexical",
            };
            if fusions.is_empty() {
                all.push(Self { name: plain.into(), mode, fusion: None, dense_weight: None });
            }
            for &fusion in fusions {
                let (name, weights) = match fusion {
                    Fusion::Weighted => (format!("{plain}.weighted"), weights),
                    Fusion::Rrf => (format!("{plain}.rrf"), &[][..]),
                };
                if weights.is_empty() {
                    all.push(Self { name: name.clone(), mode, fusion: Some(fusion), dense_weight: None });
                }
                for &weight in weights {
                    let name = format!("{name}@{weight}");
                    all.push(Self { name, mode, fusion: Some(fusion), dense_weight: Some(number(weight)) });
                }
            }
        }
        let mut seen = std::collections::HashSet::new();
        all.retain(|setting| seen.insert(setting.name.clone()));
        all
    }

    pub fn body(&self, query: &str, limit: usize) -> Value {
        let mut body = json!({"query": query, "mode": self.mode, "limit": limit});
        if let Some(fusion) = self.fusion {
            body["fusion"] = json!(fusion);
        }
        if let Some(weight) = &self.dense_weight {
            body["dense_weight"] = weight.clone();
        }
        body
    }

    /// Whether `hybrid` or `hybrid.weighted` means this one: by whole parts of its name.
    fn is_meant(&self, selector: &str) -> bool {
        match self.name.strip_prefix(selector) {
            Some(rest) => selector.is_empty() || rest.is_empty() || rest.starts_with(['.', '@']),
            None => false,
        }
    }
}

/// `hybrid.ndcg@10=0.40`: every setting that the name means must reach the value.
#[derive(Clone, Debug, PartialEq)]
pub struct Demand {
    left: String,
    least: f64,
}

/// What became of a demand at one setting.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    pub setting: String,
    pub metric: String,
    pub least: f64,
    pub found: f64,
    pub holds: bool,
}

impl Demand {
    pub fn parse(text: &str) -> Result<Self, String> {
        let (left, value) = text.split_once('=').ok_or("expected metric=value, such as hybrid.ndcg@10=0.40")?;
        let least: f64 = value.trim().parse().map_err(|_| format!("{value:?} is not a number"))?;
        if !(0.0..=1.0).contains(&least) {
            return Err("every metric is from 0 to 1".into());
        }
        Ok(Self { left: left.trim().to_owned(), least })
    }

    /// The settings that it means, by index, and the metric's index in [`metrics::names`].
    pub fn resolve(&self, settings: &[Setting], k: usize) -> Result<(Vec<usize>, usize), CliError> {
        let names = metrics::names(k);
        let metric = names.iter().position(|name| {
            self.left.strip_suffix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        });
        let Some(metric) = metric else {
            return Err(CliError::Usage(format!(
                "--at-least {}: no such metric; there are {}",
                self.left,
                names.join(", ")
            )));
        };
        let selector = self.left[..self.left.len() - names[metric].len()].trim_end_matches('.');
        let meant: Vec<usize> = (0..settings.len()).filter(|index| settings[*index].is_meant(selector)).collect();
        if meant.is_empty() {
            let known: Vec<&str> = settings.iter().map(|setting| setting.name.as_str()).collect();
            return Err(CliError::Usage(format!(
                "--at-least {}: {selector:?} is not evaluated; evaluated are {}",
                self.left,
                known.join(", ")
            )));
        }
        Ok((meant, metric))
    }

    pub fn judge(&self, setting: &Setting, metric: &str, found: f64) -> Verdict {
        let holds = found >= self.least;
        Verdict { setting: setting.name.clone(), metric: metric.to_owned(), least: self.least, found, holds }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn names(settings: &[Setting]) -> Vec<&str> {
        settings.iter().map(|setting| setting.name.as_str()).collect()
    }

    #[test]
    fn fusions_and_weights_vary_what_they_can() {
        let modes = [Mode::Hybrid, Mode::Dense, Mode::Lexical, Mode::Dense];
        let all = Setting::all(&modes, &[Fusion::Weighted, Fusion::Rrf], &[0.5, 0.7]);
        assert_eq!(names(&all), ["hybrid.weighted@0.5", "hybrid.weighted@0.7", "hybrid.rrf", "dense", "lexical"]);
        assert_eq!(
            all[1].body("q", 100),
            json!({"query": "q", "mode": "hybrid", "limit": 100, "fusion": "weighted", "dense_weight": 0.7})
        );
        assert_eq!(all[3].body("q", 100), json!({"query": "q", "mode": "dense", "limit": 100}));
        let plain = Setting::all(&modes[..1], &[Fusion::Weighted], &[]);
        assert_eq!(plain[0].body("q", 1), json!({"query": "q", "mode": "hybrid", "limit": 1, "fusion": "weighted"}));
    }

    #[test]
    fn demands_name_settings_and_metrics() {
        let all = Setting::all(&[Mode::Hybrid, Mode::Dense], &[Fusion::Weighted, Fusion::Rrf], &[0.5, 0.7]);
        for (text, meant, metric) in [
            ("ndcg@10=0.4", &[0, 1, 2, 3][..], 0),
            ("hybrid.ndcg@10=0.4", &[0, 1, 2], 0),
            ("hybrid.weighted.recall@100=0", &[0, 1], 1),
            ("hybrid.weighted@0.7.mrr@10=1", &[1], 2),
            ("dense.success@3=0.5", &[3], 3),
        ] {
            let demand = Demand::parse(text).unwrap();
            assert_eq!(demand.resolve(&all, 10).unwrap(), (meant.to_vec(), metric), "{text}");
        }
        for bad in ["hyb.ndcg@10=0.4", "lexical.ndcg@10=0.4", "ndcg@5=0.4", "xndcg@10=0.1", "hybrid=0.1"] {
            assert_eq!(Demand::parse(bad).unwrap().resolve(&all, 10).unwrap_err().exit_code(), 2, "{bad}");
        }
        for bad in ["ndcg@10", "ndcg@10=x", "ndcg@10=1.5", "ndcg@10=nan"] {
            assert!(Demand::parse(bad).is_err(), "{bad}");
        }
    }
}
