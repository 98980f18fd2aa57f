//! What came of an import: counts by kind, and what was refused.

use serde::Serialize;
use serde_json::{Value, json};

use crate::error::CliError;
use crate::term;

/// Kinds of rows, in the order of the summary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Experiments,
    ExperimentTags,
    Runs,
    Params,
    RunTags,
    Metrics,
    Datasets,
    ModelLinks,
    LoggedModels,
    LoggedModelParams,
    LoggedModelTags,
    Files,
    Models,
    ModelTags,
    Versions,
    VersionTags,
    Stages,
    Aliases,
}

const NAMES: [&str; 18] = [
    "experiments",
    "experiment tags",
    "runs",
    "params",
    "run tags",
    "metric values",
    "datasets of runs",
    "models of runs",
    "logged models",
    "logged model params",
    "logged model tags",
    "files",
    "registered models",
    "registered model tags",
    "model versions",
    "model version tags",
    "stages",
    "aliases",
];

/// Refusals that are kept; all are counted.
const KEPT: usize = 1000;

/// Of rows.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Counts {
    pub written: u64,
    pub already_there: u64,
    pub refused: u64,
}

#[derive(Clone, Debug, Serialize)]
pub struct Refusal {
    pub kind: &'static str,
    pub id: String,
    pub reason: String,
}

#[derive(Debug, Default)]
pub struct Report {
    counts: [Counts; NAMES.len()],
    /// What no event can say, by name.
    pub not_imported: Vec<(String, u64)>,
    pub refusals: Vec<Refusal>,
    pub refused: u64,
    pub events: u64,
}

impl Report {
    pub fn of(&mut self, kind: Kind) -> &mut Counts {
        &mut self.counts[kind as usize]
    }

    pub fn refuse(&mut self, kind: Kind, count: u64, id: &str, reason: &str) {
        self.of(kind).refused += count;
        self.refused += count;
        self.keep(kind, id, reason);
    }

    /// A part of something that is counted as a whole.
    pub fn refuse_part(&mut self, kind: Kind, id: &str, reason: &str) {
        self.refused += 1;
        self.keep(kind, id, reason);
    }

    fn keep(&mut self, kind: Kind, id: &str, reason: &str) {
        if self.refusals.len() < KEPT {
            let kind = NAMES[kind as usize];
            self.refusals.push(Refusal { kind, id: id.to_owned(), reason: reason.to_owned() });
        }
    }

    pub fn leave_out(&mut self, what: &str, count: u64) {
        if count > 0 {
            self.not_imported.push((what.to_owned(), count));
        }
    }

    pub fn json(&self, store: &str, tenant: &str, dry_run: bool, renumbered: &[(i64, i64)]) -> Value {
        let kinds: Vec<_> = NAMES
            .iter()
            .zip(&self.counts)
            .map(|(kind, counts)| {
                let found = counts.written + counts.already_there + counts.refused;
                json!({"kind": kind, "found": found, "written": counts.written,
                    "already_there": counts.already_there, "refused": counts.refused})
            })
            .collect();
        let not_imported: Vec<_> =
            self.not_imported.iter().map(|(kind, found)| json!({"kind": kind, "found": found})).collect();
        let renumbered: Vec<_> = renumbered.iter().map(|(from, to)| json!({"from": from, "to": to})).collect();
        json!({"store": store, "renumbered_experiments": renumbered, "tenant": tenant, "dry_run": dry_run, "events": self.events, "kinds": kinds,
            "not_imported": not_imported, "refused_count": self.refused, "refused": self.refusals})
    }

    pub fn print(&self, dry_run: bool) -> Result<(), CliError> {
        let written = if dry_run { "would be written" } else { "written" };
        let mut table = term::table(&["kind", "found", written, "already there", "refused", "not imported"]);
        for (name, counts) in NAMES.iter().zip(&self.counts) {
            let found = counts.written + counts.already_there + counts.refused;
            if found > 0 {
                let cells = [found, counts.written, counts.already_there, counts.refused, 0].map(term::thousands);
                table.add_row([&[(*name).to_owned()], &cells[..]].concat());
            }
        }
        for (name, count) in &self.not_imported {
            let cells = [*count, 0, 0, 0, *count].map(term::thousands);
            table.add_row([&[term::printable(name)], &cells[..]].concat());
        }
        term::show(&table)?;
        const SHOWN: usize = 10;
        for Refusal { kind, id, reason } in self.refusals.iter().take(SHOWN) {
            term::line(format_args!("  refused: {kind} {}: {}", term::printable(id), term::printable(reason)))?;
        }
        let more = self.refusals.len().saturating_sub(SHOWN) as u64;
        if more > 0 {
            term::line(format_args!("  … and {} more (--json lists up to 1,000)", term::thousands(more)))?;
        }
        let events = term::thousands(self.events);
        match dry_run {
            true => term::line(format_args!("nothing was written; it would be {events} events")),
            false if self.events == 0 => term::line("nothing was appended: everything is in the log already"),
            false => term::line(format_args!("{events} events were appended")),
        }
    }
}
