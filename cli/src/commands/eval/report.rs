//! What an evaluation found.

use carbon_core::TenantId;
use comfy_table::{Cell, CellAlignment};
use serde_json::{Map, Value, json};

use super::files::Judged;
use super::metrics::Sums;
use super::settings::{Setting, Verdict};
use crate::error::CliError;
use crate::term;

pub struct Report<'a> {
    pub tenant: TenantId,
    pub generation: Option<String>,
    pub documents: usize,
    pub judged: &'a Judged,
    pub names: [String; 4],
    pub settings: &'a [Setting],
    pub sums: Vec<Sums>,
    pub verdicts: Vec<Verdict>,
}

impl Report<'_> {
    pub fn json(&self) -> Value {
        let rows: Vec<Value> = self
            .settings
            .iter()
            .zip(&self.sums)
            .map(|(setting, sums)| {
                let metrics: Map<String, Value> =
                    self.names.iter().cloned().zip(sums.means().map(|mean| json!(mean))).collect();
                let mut row = json!(setting);
                row["metrics"] = Value::Object(metrics);
                row["latency_ms"] = json!({"p50": sums.latency(0.5), "p95": sums.latency(0.95)});
                row
            })
            .collect();
        json!({
            "tenant": self.tenant, "generation": self.generation, "documents": self.documents,
            "queries": self.judged.queries.len(), "queries_left_out": self.judged.left_out,
            "judgements_of_unknown_documents": self.judged.unknown_documents,
            "gain": "linear", "settings": rows, "checks": self.verdicts,
        })
    }

    pub fn print(&self) -> Result<(), CliError> {
        let [ndcg, recall, mrr, success] = &self.names;
        let mut table = term::table(&["setting", ndcg, recall, mrr, success, "p50 ms", "p95 ms"]);
        for (setting, sums) in self.settings.iter().zip(&self.sums) {
            let mut row = vec![Cell::new(&setting.name)];
            let numbers = sums.means().map(|mean| format!("{mean:.4}")).into_iter();
            let latencies = [0.5, 0.95].map(|share| format!("{:.1}", sums.latency(share)));
            row.extend(numbers.chain(latencies).map(|text| Cell::new(text).set_alignment(CellAlignment::Right)));
            table.add_row(row);
        }
        term::show(&table)?;
        let generation = self.generation.as_ref().map_or_else(String::new, |id| format!(", generation {id}"));
        term::note(format_args!(
            "{} documents, {} queries, tenant {}{generation}",
            term::thousands(self.documents as u64),
            self.judged.queries.len(),
            self.tenant
        ));
        for verdict in &self.verdicts {
            let Verdict { setting, metric, least, found, holds } = verdict;
            let word = if *holds { "holds" } else { "does not hold" };
            term::line(format_args!("{setting}.{metric} >= {least}  {word} ({found:.4})"))?;
        }
        Ok(())
    }

    /// Exit code 5 unless every demand holds.
    pub fn check(&self) -> Result<(), CliError> {
        let missed: Vec<String> = self
            .verdicts
            .iter()
            .filter(|verdict| !verdict.holds)
            .map(|v| format!("{}.{} is {:.4}, {} was demanded", v.setting, v.metric, v.found, v.least))
            .collect();
        match missed.is_empty() {
            true => Ok(()),
            false => Err(CliError::CheckFailed(missed.join("; "))),
        }
    }
}
