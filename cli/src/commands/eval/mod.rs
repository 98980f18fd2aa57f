//! `carbon-ml eval`.

mod files;
mod ids;
mod load;
mod metrics;
mod report;
mod settings;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Instant;

use carbon_core::{EntityType, TenantId};
use clap::Args;
use serde::Deserialize;

use crate::args::Global;
use crate::client::Service;
use crate::commands::search::{Fusion, Mode, weight};
use crate::error::CliError;
use crate::term;
use files::{Corpus, Judged, Survey};
use metrics::Sums;
use report::Report;
use settings::{Demand, Setting};

/// Measure the search against a judged collection
///
/// Loads the corpus through the log into a tenant of its own, waits until it is searchable, asks every judged
/// query one after the other, and compares modes, fusions and weights.
#[derive(Debug, Args)]
#[command(after_long_help = HELP)]
pub struct EvalArgs {
    /// corpus.jsonl of {"_id", "title"?, "text", "metadata"?}, or entities as `produce entities` takes them
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    corpus: PathBuf,
    /// queries.jsonl of {"_id", "text"}
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    queries: PathBuf,
    /// Judgements: a header and lines of query-id, corpus-id, score, separated by tabs
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    qrels: PathBuf,
    /// Entity type of a corpus's documents
    #[arg(long, value_name = "TYPE", default_value = "doc", value_parser = EntityType::parse)]
    entity_type: EntityType,
    /// Modes to compare
    #[arg(long, value_enum, value_delimiter = ',', default_value = "hybrid,dense,lexical")]
    modes: Vec<Mode>,
    /// Fusions of the hybrid search to compare
    #[arg(long, value_enum, value_delimiter = ',', default_value = "weighted,rrf")]
    fusions: Vec<Fusion>,
    /// Dense weights of weighted fusion to compare, 0 to 1 [default: the service's]
    #[arg(long, value_name = "W,W", value_delimiter = ',', value_parser = weight)]
    dense_weights: Vec<f32>,
    /// Where nDCG is cut
    #[arg(long, value_name = "K", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    k: u32,
    /// Exit 5 unless the metric reaches the value; may be given several times
    #[arg(long, value_name = "METRIC=VALUE", value_parser = Demand::parse)]
    at_least: Vec<Demand>,
    /// The corpus is loaded already
    #[arg(long)]
    no_load: bool,
    /// The report as JSON
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
Examples:
  carbon-ml eval --corpus samples/entities.jsonl \\
    --queries samples/queries.jsonl --qrels samples/qrels/test.tsv
  carbon-ml eval --corpus c.jsonl --queries q.jsonl --qrels q.tsv --dense-weights 0.3,0.5,0.7
  carbon-ml eval … --modes hybrid --fusions weighted --at-least hybrid.ndcg@10=0.40
  carbon-ml eval … --no-load --json

Metrics, as trec_eval defines them:
  ndcg@K       linear gain: grade / log2(rank + 1), over the same of the ideal order (ndcg_cut)
  recall@100   share of the relevant documents (grade above 0) among the first 100
  mrr@10       1 / rank of the first relevant document, 0 beyond rank 10
  success@3    whether a relevant document is among the first 3
Each is the mean over the queries that have a relevant document; what is not judged has grade 0.

Latencies are what this client saw, one query at a time; the settings are asked in the table's order.
A setting is named hybrid.weighted, hybrid.weighted@0.7, hybrid.rrf, dense or lexical. --at-least
takes [SETTING.]METRIC=VALUE; a name that means several settings (hybrid, or none) demands it of
each.

A document's text is its title, \". \" and its text. A document id that is no entity id is escaped
and comes back. Without --tenant the tenant is eval-<hash of the corpus>, so that nothing else
disturbs it and the same corpus meets what is there already.";

#[derive(Debug, Deserialize)]
struct Answer {
    results: Vec<Hit>,
    #[serde(default)]
    generation: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Hit {
    entity_type: String,
    entity_id: String,
}

pub async fn run(global: &Global, args: EvalArgs) -> Result<(), CliError> {
    let k = args.k as usize;
    let settings = Setting::all(&args.modes, &args.fusions, &args.dense_weights);
    let demands = args.at_least.iter().map(|demand| Ok((demand, demand.resolve(&settings, k)?)));
    let demands = demands.collect::<Result<Vec<_>, CliError>>()?;
    let config = global.config()?;
    let survey = Survey::read(&args.corpus, &args.entity_type)?;
    let judged = Judged::read(&args.queries, &args.qrels, &survey.ids)?;
    tell(&survey, &judged);
    let tenant = match &global.tenant {
        Some(tenant) => tenant.clone(),
        None => {
            TenantId::parse(&format!("eval-{}", survey.digest)).map_err(|error| CliError::Failed(error.to_string()))?
        }
    };
    let query = Service::query(&config, global)?.for_tenant(&tenant);
    if !args.no_load {
        let tracking = Service::tracking(&config, global)?.for_tenant(&tenant);
        load::load(&tracking, &query, &args.corpus, &args.entity_type, &survey).await?;
    }
    let (sums, generation) = measure(&query, &settings, &judged, &survey, &args).await?;
    let names = metrics::names(k);
    let mut verdicts = Vec::new();
    for (demand, (meant, metric)) in demands {
        verdicts.extend(
            meant.iter().map(|index| demand.judge(&settings[*index], &names[metric], sums[*index].means()[metric])),
        );
    }
    let report = Report {
        tenant,
        generation,
        documents: survey.ids.len(),
        judged: &judged,
        names,
        settings: &settings,
        sums,
        verdicts,
    };
    if args.json {
        term::json(&report.json())?;
    } else {
        report.print()?;
    }
    report.check()
}

fn tell(survey: &Survey, judged: &Judged) {
    if survey.empty > 0 {
        term::note(format_args!("{} documents have no text and are left out", survey.empty));
    }
    if judged.left_out > 0 {
        term::note(format_args!("{} queries have no relevant document and are left out", judged.left_out));
    }
    if judged.unknown_documents > 0 {
        let count = judged.unknown_documents;
        term::note(format_args!(
            "{count} judgements name documents that the corpus does not hold; they count as not found"
        ));
    }
}

/// Asks every query under every setting, one at a time.
async fn measure(
    query: &Service,
    settings: &[Setting],
    judged: &Judged,
    survey: &Survey,
    args: &EvalArgs,
) -> Result<(Vec<Sums>, Option<String>), CliError> {
    let k = args.k as usize;
    let bar = term::bar(
        Some((settings.len() * judged.queries.len()) as u64),
        "{msg:24!} {bar:30} {pos}/{len} queries  {eta} left",
    );
    let mut all = Vec::with_capacity(settings.len());
    let mut generation = None;
    for setting in settings {
        bar.set_message(setting.name.clone());
        let mut sums = Sums::default();
        for one in &judged.queries {
            let request = query.post("/search").json(&setting.body(&one.text, k.max(100)));
            let started = Instant::now();
            let answer: Answer = query.json(request).await.inspect_err(|_| {
                bar.finish_and_clear();
                term::note(format_args!("at query {:?} with {}", one.id, setting.name));
            })?;
            let latency_ms = started.elapsed().as_secs_f64() * 1000.0;
            let name = |hit: &Hit| Corpus::judged_id(survey.form, &args.entity_type, &hit.entity_type, &hit.entity_id);
            let ranking: Vec<String> = answer.results.iter().map(name).collect();
            sums.add(&ranking, &one.grades, k, latency_ms);
            generation = answer.generation.or(generation);
            bar.inc(1);
        }
        all.push(sums);
    }
    bar.finish_and_clear();
    Ok((all, generation))
}
