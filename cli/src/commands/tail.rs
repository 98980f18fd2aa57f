//! `carbon-ml tail`.

use std::time::Duration;

use carbon_core::{Positions, TopicName, parse_rfc3339};
use clap::Args;
use futures::StreamExt as _;
use serde_json::Value;

use crate::args::Global;
use crate::client::Service;
use crate::error::CliError;
use crate::sse::{Frame, Parser};
use crate::term;

/// Show the events of a topic, decoded, as they come
///
/// Events of the tenant alone. A connection that breaks is made again, and goes on after the last event
/// that was shown.
#[derive(Debug, Args)]
#[command(after_long_help = HELP)]
pub struct TailArgs {
    #[arg(value_name = "TOPIC", value_parser = TopicName::parse)]
    topic: TopicName,
    /// Where to begin: earliest, latest, a position (topic:partition:offset), or a time
    /// (2026-03-01T09:30:00Z) [default: latest; earliest with --no-follow]
    #[arg(long, value_name = "FROM", value_parser = from)]
    from: Option<String>,
    /// End at the end of the topic instead of waiting for more
    #[arg(long)]
    no_follow: bool,
    /// End after so many events
    #[arg(short = 'n', long = "count", value_name = "N")]
    count: Option<u64>,
    /// One line of JSON an event, with position, headers and payload
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
Examples:
  carbon-ml tail ml.entity.changed.v1
  carbon-ml tail ml.entity.changed.v1 --from earliest -n 5
  carbon-ml tail ml.deadletter.v1 --no-follow
  carbon-ml tail ml.entity.changed.v1 --from 2026-03-01T09:30:00Z --no-follow --json | jq .key
  carbon-ml tail ml.entity.changed.v1 --from ml.entity.changed.v1:0:41

Topics: ml.entity.changed.v1, ml.embedding.generated.v1, ml.generation.changed.v1,
search.index.updated.v1, ml.deadletter.v1; `carbon-ml topology graph` shows who makes and takes them.";

/// A service that is away for longer than all of these pauses is given up.
const RECONNECTS: u32 = 12;
/// No event is larger than a record may be, with room for its JSON.
const LARGEST: usize = 64 << 20;

fn from(text: &str) -> Result<String, String> {
    let known =
        matches!(text, "earliest" | "latest") || Positions::parse_done(text).is_ok() || parse_rfc3339(text).is_some();
    match known {
        true => Ok(text.to_owned()),
        false => {
            Err("expected earliest, latest, <topic>:<partition>:<offset>, or a time such as 2026-03-01T09:30:00Z"
                .into())
        }
    }
}

/// Why a connection ended.
enum End {
    /// All that was asked for was shown.
    Done,
    /// It broke; `heard` says whether anything came over it.
    Broken { heard: bool, pause: Option<Duration> },
}

pub async fn run(global: &Global, args: TailArgs) -> Result<(), CliError> {
    let config = global.config()?;
    let query = Service::query(&config, global)?;
    let mut tail = Tail { shown: 0, last_id: None, width: term::width(), args };
    let mut failures = 0;
    loop {
        let end = match tail.connect(&query).await {
            // A first connection that fails is not repaired by waiting.
            Err(error) if failures == 0 && tail.last_id.is_none() => return Err(error),
            Err(error @ (CliError::Unreachable { .. } | CliError::NotReady { .. })) => {
                if failures >= RECONNECTS {
                    return Err(error);
                }
                End::Broken { heard: false, pause: None }
            }
            Err(error) => return Err(error),
            Ok(response) => tail.read(response).await?,
        };
        match end {
            End::Done => return Ok(()),
            End::Broken { heard, pause } => {
                if failures == 0 || heard {
                    term::note("the connection broke; connecting again");
                }
                failures = if heard { 1 } else { failures + 1 };
                let pause =
                    pause.unwrap_or(Duration::from_millis(500 * u64::from(failures))).min(Duration::from_secs(10));
                tokio::time::sleep(pause).await;
            }
        }
    }
}

struct Tail {
    args: TailArgs,
    shown: u64,
    last_id: Option<String>,
    width: Option<usize>,
}

impl Tail {
    async fn connect(&self, query: &Service) -> Result<reqwest::Response, CliError> {
        let follow = !self.args.no_follow;
        let from = self.args.from.as_deref().unwrap_or(if follow { "latest" } else { "earliest" });
        let mut request = query
            .get(&format!("/events/{}", self.args.topic))
            .header("accept", "text/event-stream")
            .query(&[("from", from), ("follow", if follow { "true" } else { "false" })]);
        if let Some(id) = &self.last_id {
            request = request.header("last-event-id", id);
        }
        query.send(request).await
    }

    async fn read(&mut self, response: reqwest::Response) -> Result<End, CliError> {
        let mut parser = Parser::default();
        let mut pieces = response.bytes_stream();
        let mut heard = false;
        if self.args.count == Some(0) {
            return Ok(End::Done);
        }
        loop {
            let piece = match pieces.next().await {
                Some(Ok(piece)) => piece,
                // The service ends a stream that does not follow at the topic's end.
                None if self.args.no_follow => return Ok(End::Done),
                _ => return Ok(End::Broken { heard, pause: parser.retry() }),
            };
            for frame in parser.feed(&piece) {
                heard = true;
                self.take(&frame)?;
                if self.args.count.is_some_and(|count| self.shown >= count) {
                    return Ok(End::Done);
                }
            }
            if parser.held() > LARGEST {
                return Err(CliError::Failed("query-api sent an event larger than any record can be".into()));
            }
        }
    }

    fn take(&mut self, frame: &Frame) -> Result<(), CliError> {
        let event: Value = match serde_json::from_str(&frame.data) {
            Ok(event) => event,
            Err(_) => Value::String(frame.data.clone()),
        };
        if frame.event == "error" {
            let detail = event["detail"].as_str().map_or_else(|| frame.data.clone(), str::to_owned);
            return Err(CliError::Failed(format!("query-api ended the stream: {detail}")));
        }
        if self.args.json {
            // One line, in the service's own order of fields.
            term::line(frame.data.replace('\n', " "))?;
        } else {
            term::line(summary_line(&event, self.width))?;
        }
        self.shown += 1;
        self.last_id = frame.id.clone().filter(|id| !id.is_empty()).or(self.last_id.take());
        Ok(())
    }
}

/// `2026-03-01T09:30:00.000Z  ml.entity.changed.v1:0:41  acme/curve/X  Henry Hub …`
fn summary_line(shown: &Value, width: Option<usize>) -> String {
    let part = |name: &str| shown[name].as_str().map_or_else(|| "-".to_owned(), term::printable);
    let head = ["timestamp", "position", "key"].map(part).join("  ");
    let room = width.map_or(160, |width| width.saturating_sub(term::columns(&head) + 2));
    let said = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let summary = match (&shown["poison"], &shown["needs"]) {
        (Value::Object(poison), _) => {
            let [reason, message] = ["reason", "message"].map(|name| poison.get(name).map(said).unwrap_or_default());
            format!("poison, {reason}: {message}")
        }
        (_, Value::String(needs)) => format!("needs a newer program: {needs}"),
        _ => summary(&shown["event"]),
    };
    format!("{head}  {}", term::fit(&summary, room.max(24))).trim_end().to_owned()
}

/// What a payload says, in words: by the fields that it has.
fn summary(payload: &Value) -> String {
    let text = |key: &str| payload[key].as_str().unwrap_or_default();
    if payload.is_null() {
        return "erased".into();
    }
    if payload["deleted"] == Value::Bool(true) {
        return match text("reason") {
            "" => "deleted".into(),
            reason => format!("deleted: {reason}"),
        };
    }
    if !payload["dimension"].is_null() {
        return format!("{} dimensions by {}: {}", payload["dimension"], text("model"), text("text"));
    }
    if !text("processor").is_empty() && !text("reason").is_empty() {
        return format!("{} {}: {}", text("processor"), text("reason"), text("message"));
    }
    if !text("generation").is_empty() && !text("state").is_empty() {
        return format!("{} {}", text("generation"), text("state"));
    }
    if !payload["upserts"].is_null() {
        return format!("{} upserts, {} deletes", payload["upserts"], payload["deletes"]);
    }
    match text("text") {
        "" => payload.to_string(),
        text => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn where_to_begin_is_checked_before_anything_is_asked() {
        for good in ["earliest", "latest", "t:0:1", "t:0:1,t:1:4", "2026-03-01T09:30:00Z"] {
            assert!(from(good).is_ok(), "{good}");
        }
        for bad in ["", "newest", "t:0", "2026-03-01"] {
            assert!(from(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn each_event_has_one_line() {
        let mut shown = json!({"position": "t:0:1", "timestamp": "1970-01-01T00:00:00.000Z", "key": "a/b/c", "headers": {},
            "event": {"text": "line\none\u{1b}[2J", "deleted": false}});
        assert_eq!(summary_line(&shown, None), "1970-01-01T00:00:00.000Z  t:0:1  a/b/c  line one [2J");
        let narrow = summary_line(&shown, Some(20));
        assert!(!narrow.contains('\n') && narrow.ends_with("[2J"), "{narrow}");
        shown["event"] = Value::Null;
        assert!(summary_line(&shown, None).ends_with("a/b/c  erased"));
        shown["poison"] = json!({"reason": "undecodable", "message": "too short"});
        assert!(summary_line(&shown, None).ends_with("poison, undecodable: too short"));
        assert!(
            summary_line(&json!({"key": null, "needs": "x.v1 002"}), None)
                .starts_with("-  -  -  needs a newer program")
        );
    }

    #[test]
    fn payloads_are_summarised_by_what_they_have() {
        for (payload, expected) in [
            (json!({"deleted": true, "reason": "quarantined"}), "deleted: quarantined"),
            (json!({"dimension": 384, "model": "m@1@f32", "text": "x"}), "384 dimensions by m@1@f32: x"),
            (
                json!({"processor": "embedder", "reason": "field_limit", "message": "too long"}),
                "embedder field_limit: too long",
            ),
            (json!({"generation": "search-v1-1", "state": "active"}), "search-v1-1 active"),
            (json!({"generation": "g", "upserts": 3, "deletes": 0}), "3 upserts, 0 deletes"),
            (json!({"other": 1}), "{\"other\":1}"),
        ] {
            assert_eq!(summary(&payload), expected);
        }
    }
}
