//! `carbon-ml search`.

use std::collections::BTreeMap;

use carbon_core::Positions;
use clap::{Args, ValueEnum};
use comfy_table::{Cell, CellAlignment};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::args::Global;
use crate::client::Service;
use crate::error::CliError;
use crate::term;

/// Search entities by meaning and by words
#[derive(Debug, Args)]
#[command(after_long_help = HELP)]
pub struct SearchArgs {
    /// What to look for: words, a question, or an identifier
    query: String,
    /// Only entities of this type; may be given several times
    #[arg(long = "type", value_name = "TYPE")]
    types: Vec<String>,
    /// Only entities with this tag; may be given several times
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Only entities whose metadata fit: key=value, key>=number, key<=number; several values of one key are
    /// alternatives
    #[arg(long = "filter", value_name = "KEY=VALUE", value_parser = Filter::parse)]
    filters: Vec<Filter>,
    /// Results to show
    #[arg(long, short = 'n', value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Results to skip
    #[arg(long, value_name = "N", default_value_t = 0)]
    offset: u32,
    /// Which halves of the index to ask
    #[arg(long, value_enum, default_value_t = Mode::Hybrid)]
    mode: Mode,
    /// How the halves of a hybrid search are fused [default: the service's]
    #[arg(long, value_enum)]
    fusion: Option<Fusion>,
    /// Weight of the dense half in weighted fusion, 0 to 1 [default: the service's]
    #[arg(long, value_name = "W", value_parser = weight)]
    dense_weight: Option<f32>,
    /// Show how each score came about
    #[arg(long)]
    explain: bool,
    /// Wait until the index has this position: what a write answered as X-Log-Position
    #[arg(long, value_name = "POSITION", value_parser = position)]
    min_position: Option<String>,
    /// The service's answer as JSON
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
Examples:
  carbon-ml search \"henry hub natural gas futures\"
  carbon-ml search NG_HH_BALMO --limit 3
  carbon-ml search \"cold winter\" --type scenario --type backtest
  carbon-ml search \"swap\" --filter exchange=NYMEX --filter 'contract_size>=10000' --tag futures
  carbon-ml search \"widow maker\" --mode dense --explain
  carbon-ml search \"gas\" --filter active=true --filter 'code=\"007\"'   quotes keep a text a text
  carbon-ml search \"gas\" --json | jq -r '.results[].entity_id'";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    Hybrid,
    Dense,
    Lexical,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Fusion {
    Weighted,
    Rrf,
}

pub fn weight(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(weight) if (0.0..=1.0).contains(&weight) => Ok(weight),
        _ => Err("expected a number from 0 to 1".into()),
    }
}

fn position(text: &str) -> Result<String, String> {
    Positions::parse_done(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

/// One condition on metadata.
#[derive(Clone, Debug, PartialEq)]
struct Filter {
    key: String,
    condition: Condition,
}

#[derive(Clone, Debug, PartialEq)]
enum Condition {
    Is(Value),
    AtLeast(Value),
    AtMost(Value),
}

impl Filter {
    fn parse(text: &str) -> Result<Self, String> {
        let (left, value) = text.split_once('=').ok_or("expected key=value, key>=number or key<=number")?;
        let (key, condition): (&str, fn(Value) -> Condition) = match (left.strip_suffix('>'), left.strip_suffix('<')) {
            (Some(key), _) => (key, Condition::AtLeast),
            (_, Some(key)) => (key, Condition::AtMost),
            _ => (left, Condition::Is),
        };
        let key = key.trim();
        match key {
            "" => return Err("the key is missing: expected key=value".into()),
            "type" => return Err("use --type for the entity's type".into()),
            "tags" => return Err("use --tag for tags".into()),
            "tenant_id" => return Err("use --tenant for the tenant".into()),
            _ => {}
        }
        Ok(Self { key: key.to_owned(), condition: condition(scalar(value.trim())) })
    }
}

/// A number, `true` or `false` where it reads as one; text otherwise, or in double quotes.
fn scalar(text: &str) -> Value {
    match serde_json::from_str::<Value>(text) {
        Ok(value @ (Value::Number(_) | Value::Bool(_) | Value::String(_))) => value,
        _ => Value::String(text.to_owned()),
    }
}

/// The request's `filters`: one value is itself, several are a list, bounds are a range.
fn filters(types: &[String], tags: &[String], conditions: &[Filter]) -> Result<Map<String, Value>, CliError> {
    let mut all = Map::new();
    if !types.is_empty() {
        all.insert("type".into(), one_or_list(types.iter().cloned().map(Value::String).collect()));
    }
    if !tags.is_empty() {
        all.insert("tags".into(), json!(tags));
    }
    let mut values: BTreeMap<&str, (Vec<Value>, Map<String, Value>)> = BTreeMap::new();
    for Filter { key, condition } in conditions {
        let (alternatives, range) = values.entry(key).or_default();
        match condition {
            Condition::Is(value) => alternatives.push(value.clone()),
            Condition::AtLeast(value) => drop(range.insert("gte".into(), value.clone())),
            Condition::AtMost(value) => drop(range.insert("lte".into(), value.clone())),
        }
    }
    for (key, (alternatives, range)) in values {
        let value = match (alternatives.is_empty(), range.is_empty()) {
            (false, false) => {
                return Err(CliError::Usage(format!("--filter {key}: give either values or bounds, not both")));
            }
            (false, true) => one_or_list(alternatives),
            _ => Value::Object(range),
        };
        all.insert(key.to_owned(), value);
    }
    Ok(all)
}

fn one_or_list(mut values: Vec<Value>) -> Value {
    match values.len() {
        1 => values.remove(0),
        _ => Value::Array(values),
    }
}

fn body(args: &SearchArgs) -> Result<Value, CliError> {
    let mut body = json!({
        "query": args.query, "mode": args.mode, "limit": args.limit, "offset": args.offset, "debug": args.explain,
    });
    let filters = filters(&args.types, &args.tags, &args.filters)?;
    if !filters.is_empty() {
        body["filters"] = Value::Object(filters);
    }
    if let Some(fusion) = args.fusion {
        body["fusion"] = json!(fusion);
    }
    if let Some(weight) = args.dense_weight {
        body["dense_weight"] = number(weight);
    }
    Ok(body)
}

/// A float as people wrote it: 0.7, not 0.699999988.
pub fn number(value: f32) -> Value {
    serde_json::from_str(&value.to_string()).unwrap_or(Value::Null)
}

#[derive(Debug, Deserialize)]
struct Answer {
    results: Vec<Hit>,
    total: u64,
    latency_ms: f64,
    #[serde(default)]
    generation: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Hit {
    entity_type: String,
    entity_id: String,
    score: f64,
    text: String,
    #[serde(default)]
    metadata: Map<String, Value>,
    #[serde(default)]
    explain: Option<Value>,
}

pub async fn run(global: &Global, args: SearchArgs) -> Result<(), CliError> {
    let body = body(&args)?;
    let config = global.config()?;
    let query = Service::query(&config, global)?;
    let mut request = query.post("/search").json(&body);
    if let Some(position) = &args.min_position {
        request = request.header("x-min-position", position).header("x-timeout-ms", 10_000);
    }
    if args.json {
        return term::json(&query.json::<Value>(request).await?);
    }
    let answer: Answer = query.json(request).await?;
    if answer.results.is_empty() {
        term::line("nothing was found")?;
    } else {
        table(&answer.results, args.offset, args.explain, term::width())?;
    }
    let generation = answer.generation.map_or_else(String::new, |id| format!(", generation {id}"));
    let total = term::thousands(answer.total);
    term::note(format_args!("{} of {total} in {:.1} ms{generation}", answer.results.len(), answer.latency_ms));
    Ok(())
}

fn table(hits: &[Hit], offset: u32, explain: bool, width: Option<usize>) -> Result<(), CliError> {
    let widths = Widths::new(hits, offset, width);
    let header = ["rank", "score", "type", "id", "name", "text"];
    let mut table = term::table(&header[..if widths.text == 0 { 5 } else { 6 }]);
    for (rank, hit) in (offset + 1..).zip(hits) {
        let mut row = vec![
            Cell::new(rank).set_alignment(CellAlignment::Right),
            Cell::new(format!("{:.3}", hit.score)).set_alignment(CellAlignment::Right),
            Cell::new(term::printable(&hit.entity_type)),
            Cell::new(term::printable(&hit.entity_id)),
            Cell::new(term::fit(name(hit), widths.name)),
        ];
        if widths.text > 0 {
            row.push(Cell::new(term::fit(&hit.text, widths.text)));
        }
        table.add_row(row);
    }
    term::show(&table)?;
    if explain {
        term::line("")?;
        for (rank, hit) in (offset + 1..).zip(hits) {
            let how = hit.explain.as_ref().map_or_else(|| "nothing was said".into(), explained);
            term::line(format_args!("{rank:>4}  {how}"))?;
        }
    }
    Ok(())
}

/// `metadata.name`, or the start of the text.
fn name(hit: &Hit) -> &str {
    match hit.metadata.get("name") {
        Some(Value::String(name)) if !name.trim().is_empty() => name,
        _ => {
            let end = hit.text.find(". ").unwrap_or(hit.text.len());
            &hit.text[..end]
        }
    }
}

/// How wide the columns of free text may be.
#[derive(Debug, PartialEq, Eq)]
struct Widths {
    name: usize,
    /// 0 where there is no room for it.
    text: usize,
}

impl Widths {
    const TEXT: usize = 100;
    const NAME: usize = 32;

    fn new(hits: &[Hit], offset: u32, width: Option<usize>) -> Self {
        let Some(width) = width else { return Self { name: Self::NAME, text: Self::TEXT } };
        let widest = |of: fn(&Hit) -> &str, least: usize| {
            hits.iter().map(|h| term::columns(of(h))).max().unwrap_or(0).max(least)
        };
        let rank = (u64::from(offset) + hits.len() as u64).to_string().len().max(4);
        // Each column has two spaces behind it.
        let fixed = rank + 6 + widest(|hit| &hit.entity_type, 4) + widest(|hit| &hit.entity_id, 2) + 12;
        let room = width.saturating_sub(fixed);
        let name = widest(name, 4).min(Self::NAME).min((room / 2).max(8));
        match room.saturating_sub(name) {
            text if text < 16 => Self { name: room.clamp(8, Self::NAME), text: 0 },
            text => Self { name, text: text.min(Self::TEXT) },
        }
    }
}

/// `semantic #1 0.71, lexical #3 4.20, fused 0.88 (weighted), boosts exact_id=0.2`.
fn explained(explain: &Value) -> String {
    let float = |key: &str| explain[key].as_f64().map(|score| format!("{score:.4}"));
    let half = |name: &str| {
        let score = float(&format!("{name}_score")).map_or_else(String::new, |score| format!(" {score}"));
        match explain[format!("{name}_rank")].as_u64() {
            Some(rank) => format!("{name} #{rank}{score}"),
            None => format!("{name} -{score}"),
        }
    };
    let mut parts = vec![half("semantic"), half("lexical")];
    if let Some(fused) = float("fused_score") {
        parts.push(match explain["fusion"].as_str() {
            Some(fusion) => format!("fused {fused} ({})", term::printable(fusion)),
            None => format!("fused {fused}"),
        });
    }
    if let Some(boosts) = explain["boosts"].as_object().filter(|boosts| !boosts.is_empty()) {
        let list: Vec<_> = boosts.iter().map(|(name, value)| format!("{}={value}", term::printable(name))).collect();
        parts.push(format!("boosts {}", list.join(" ")));
    }
    parts.join(", ")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn parsed(texts: &[&str]) -> Result<Value, CliError> {
        let list: Vec<Filter> = texts.iter().map(|text| Filter::parse(text).unwrap()).collect();
        filters(&[], &[], &list).map(Value::Object)
    }

    #[test]
    fn filters_become_the_requests_form() {
        assert_eq!(parsed(&["hub=Henry Hub"]).unwrap(), json!({"hub": "Henry Hub"}));
        assert_eq!(
            parsed(&["a=1", "b=true", "c=\"1\"", "d=x=y"]).unwrap(),
            json!({"a": 1, "b": true, "c": "1", "d": "x=y"})
        );
        assert_eq!(parsed(&["a=x", "a=y"]).unwrap(), json!({"a": ["x", "y"]}));
        assert_eq!(parsed(&["n>=10", "n<=2e3"]).unwrap(), json!({"n": {"gte": 10, "lte": 2000.0}}));
        assert_eq!(parsed(&["n>=1", "n=2"]).unwrap_err().exit_code(), 2);
        for bad in ["", "x", "=1", ">=1", "type=a", "tags=a", "tenant_id=a"] {
            assert!(Filter::parse(bad).is_err(), "{bad}");
        }
        let types = ["a".to_owned()];
        assert_eq!(Value::Object(filters(&types, &types, &[]).unwrap()), json!({"type": "a", "tags": ["a"]}));
    }

    #[test]
    fn weights_travel_as_written() {
        assert_eq!(number(0.7).to_string(), "0.7");
        assert!(weight("1.1").is_err() && weight("nan").is_err() && weight("0").is_ok());
    }

    fn hit(id: &str, text: &str) -> Hit {
        serde_json::from_value(json!({"entity_type": "curve", "entity_id": id, "score": 0.5, "text": text})).unwrap()
    }

    #[test]
    fn columns_share_the_width() {
        let hits = [hit("NG_HH_BALMO", &"word ".repeat(60))];
        assert_eq!(Widths::new(&hits, 0, None), Widths { name: 32, text: 100 });
        for width in [60, 80, 120, 200] {
            let widths = Widths::new(&hits, 0, Some(width));
            let total = 4 + 6 + 5 + 11 + 12 + widths.name + widths.text;
            assert!(total <= width, "{widths:?} at {width}");
        }
        assert_eq!(Widths::new(&hits, 0, Some(50)).text, 0);
    }

    #[test]
    fn a_name_is_metadata_or_the_first_sentence() {
        assert_eq!(name(&hit("x", "First. Second.")), "First");
        let mut named = hit("x", "First. Second.");
        named.metadata.insert("name".into(), json!("Valaris"));
        assert_eq!(name(&named), "Valaris");
    }

    #[test]
    fn explanations_fit_a_line() {
        let text = explained(&json!({"semantic_rank": 1, "semantic_score": 0.7123, "lexical_rank": null,
            "lexical_score": null, "fused_score": 0.5, "fusion": "weighted", "boosts": {"exact_id": 0.2}}));
        assert_eq!(text, "semantic #1 0.7123, lexical -, fused 0.5000 (weighted), boosts exact_id=0.2");
    }
}
