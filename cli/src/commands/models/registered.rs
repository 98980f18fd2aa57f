//! `carbon-ml models promote` and `history`: registered models, through the services.

use clap::Args;
use reqwest::Url;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::args::Global;
use crate::client::Service;
use crate::error::CliError;
use crate::term;

#[derive(Debug, Args)]
#[command(
    disable_version_flag = true,
    after_long_help = "\
Examples:
  carbon-ml models promote basis-spread --version 3 --stage Production --archive-existing
  carbon-ml models promote basis-spread --run-id 7131e7ed4f5342f9b5064e1444897c64 --stage Staging
  carbon-ml models promote basis-spread --version 2 --alias champion      an earlier version is a rollback
  carbon-ml models promote basis-spread --version 3 --stage Production --by release-pipeline --json"
)]
pub struct PromoteArgs {
    /// The registered model
    name: String,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    to: To,
    /// With a stage: other versions in it become Archived
    #[arg(long, requires = "stage")]
    archive_existing: bool,
    /// Who does it, for the history [default: the user of this machine]
    #[arg(long, value_name = "WHO")]
    by: Option<String>,
    /// The service's answer as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// The version's number
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    version: Option<i64>,
    /// The run that made the version; the newest, where it made several
    #[arg(long, value_name = "RUN")]
    run_id: Option<String>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct To {
    /// None, Staging, Production or Archived
    #[arg(long, value_name = "STAGE", value_parser = stage)]
    stage: Option<String>,
    /// Letters, digits, _ and -
    #[arg(long, value_name = "ALIAS")]
    alias: Option<String>,
}

#[derive(Debug, Args)]
#[command(
    disable_version_flag = true,
    after_long_help = "\
Examples:
  carbon-ml models history basis-spread
  carbon-ml models history basis-spread --as-of 2026-01-31T12:00:00Z
  carbon-ml models history basis-spread --limit 1000 --json | jq -r '.promotions[] | select(.stage == \"Production\")'"
)]
pub struct HistoryArgs {
    /// The registered model, by any name that it has or had
    name: String,
    /// Only promotions until then
    #[arg(long, value_name = "TIME", value_parser = time)]
    as_of: Option<String>,
    /// Promotions to show, the newest first
    #[arg(long, short = 'n', value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// The service's answer as JSON
    #[arg(long)]
    json: bool,
}

fn stage(text: &str) -> Result<String, String> {
    let stages = carbon_schemas::events::MODEL_STAGES;
    let known = stages.into_iter().find(|stage| stage.eq_ignore_ascii_case(text));
    known.map(str::to_owned).ok_or_else(|| format!("expected one of {}", stages.join(", ")))
}

fn time(text: &str) -> Result<String, String> {
    let parsed = carbon_core::parse_rfc3339(text);
    parsed.map(|_| text.to_owned()).ok_or_else(|| "expected a time such as 2026-01-31T12:00:00Z".to_owned())
}

/// `/models/<name>/<what>`, whatever is in the name.
fn path(name: &str, what: &str) -> Result<String, CliError> {
    let failed = || CliError::Usage(format!("{name:?} is no name of a model"));
    if matches!(name, "" | "." | "..") || name.contains(['/', ':']) {
        return Err(failed());
    }
    let mut url = Url::parse("http://localhost").map_err(|_| failed())?;
    url.path_segments_mut().map_err(|()| failed())?.extend(["models", name, what]);
    Ok(url.path().to_owned())
}

#[derive(Debug, Deserialize, Serialize)]
struct Promoted {
    version: i64,
    previous: Option<i64>,
    position: String,
    #[serde(flatten)]
    rest: serde_json::Map<String, Value>,
}

pub async fn promote(global: &Global, args: PromoteArgs) -> Result<(), CliError> {
    let service = Service::tracking(&global.config()?, global)?;
    let by = args.by.or_else(|| std::env::var("USER").ok()).filter(|name| !name.is_empty());
    let body = json!({
        "version": args.which.version, "run_id": args.which.run_id, "stage": args.to.stage, "alias": args.to.alias,
        "archive_existing": args.archive_existing, "promoted_by": by,
    });
    let promoted: Promoted = service.json(service.post(&path(&args.name, "promote")?).json(&body)).await?;
    if args.json {
        return term::json(&promoted);
    }
    let place = match (&args.to.stage, &args.to.alias) {
        (Some(stage), _) => format!("in stage {stage}"),
        (None, alias) => format!("{}@{}", args.name, alias.as_deref().unwrap_or_default()),
    };
    let before = match promoted.previous {
        Some(previous) if previous != promoted.version => format!("; before it was version {previous}"),
        Some(_) => "; it was so already".to_owned(),
        None => String::new(),
    };
    term::line(format_args!("version {} of {} is {place}{before} ({})", promoted.version, args.name, promoted.position))
}

#[derive(Debug, Deserialize, Serialize)]
struct History {
    name: String,
    promotions: Vec<Promotion>,
    next: Option<u64>,
}

#[derive(Debug, Deserialize, Serialize)]
struct Promotion {
    at: String,
    version: Option<i64>,
    stage: Option<String>,
    alias: Option<String>,
    archive_existing: bool,
    previous: Option<i64>,
    promoted_by: Option<String>,
    effect: String,
    position: String,
    #[serde(flatten)]
    rest: serde_json::Map<String, Value>,
}

pub async fn history(global: &Global, args: HistoryArgs) -> Result<(), CliError> {
    let service = Service::query(&global.config()?, global)?;
    let mut asked = vec![("limit", args.limit.to_string())];
    asked.extend(args.as_of.map(|at| ("as_of", at)));
    let history: History = service.json(service.get(&path(&args.name, "history")?).query(&asked)).await?;
    if args.json {
        return term::json(&history);
    }
    if history.promotions.is_empty() {
        return term::line(format_args!("nobody has promoted a version of {} yet", args.name));
    }
    let mut table = term::table(&["at", "version", "to", "before", "by", "effect", "position"]);
    for own in &history.promotions {
        let number = |version: Option<i64>| version.map_or_else(|| "-".to_owned(), |version| version.to_string());
        let to = match (&own.stage, &own.alias) {
            (Some(stage), _) if own.archive_existing => format!("{stage} (alone)"),
            (Some(stage), _) => stage.clone(),
            (None, Some(alias)) if own.version.is_none() => format!("@{alias} removed"),
            (None, alias) => format!("@{}", alias.as_deref().unwrap_or_default()),
        };
        table.add_row(vec![
            own.at.clone(),
            number(own.version),
            to,
            number(own.previous),
            own.promoted_by.clone().unwrap_or_else(|| "-".to_owned()),
            own.effect.replace('_', " "),
            own.position.clone(),
        ]);
    }
    term::show(&table)?;
    match history.next {
        Some(_) => term::line(format_args!("there are older ones: --limit shows up to 1000")),
        None => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_are_encoded() {
        assert_eq!(path("basis spread?", "history").unwrap(), "/models/basis%20spread%3F/history");
        for bad in ["", ".", "..", "a/b", "a:b"] {
            assert_eq!(path(bad, "history").unwrap_err().exit_code(), 2, "{bad}");
        }
    }

    #[test]
    fn stages_and_times_are_checked_before_anything_is_sent() {
        assert_eq!(stage("production").unwrap(), "Production");
        assert!(stage("best").is_err());
        assert!(time("2026-01-31T12:00:00Z").is_ok() && time("yesterday").is_err());
    }
}
