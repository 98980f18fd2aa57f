//! `GET /events/{topic}`: a topic's events as server-sent events.

mod event_stream;
mod json;
mod render;
mod start;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use carbon_core::Positions;
use carbon_http::{Path, Problem, Query, Tenant, responses};
use carbon_log::EventLog;
use carbon_runtime::Shutdown;
use carbon_topology::Topology;
use futures::stream;
use serde::Deserialize;
use utoipa::IntoParams;

use event_stream::EventStream;
use start::StreamStart;

/// Interval of the keep-alive comments.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct EventsQuery {
    /// Where the stream starts: `earliest`, `latest`, an RFC 3339 time, or positions (`topic:partition:offset`, separated
    /// by commas), which select only their partitions. Default: `latest`, or `earliest` if `follow` is false.
    from: Option<String>,
    /// True keeps the stream open at the end of the topic and sends new events; false ends it there.
    #[param(default = true)]
    follow: Option<bool>,
    /// The tenant; `default` if the request names none.
    #[allow(dead_code)]
    tenant_id: Option<String>,
}

/// Follow the events of a topic
///
/// Each event is decoded JSON: `{position, timestamp, key, headers, event}`, with bytes as base64. A null value is
/// `event: null`. Poison is `{position, timestamp, key, poison: {reason, message}}`. The stream contains the events of the
/// tenant and those without a tenant. The `id` of each event holds the last position of every partition; a client that
/// sends it back as `Last-Event-ID` resumes after it. If the log fails, the stream ends with an event named `error`.
/// Answers 404 if the topic does not exist or its events cannot be rendered.
#[utoipa::path(get, path = "/events/{topic}", tag = "events",
    params(
        ("topic" = String, Path, description = "Such as ml.entity.changed.v1"),
        EventsQuery,
        ("last-event-id" = Option<String>, Header, description = "Resume after this event"),
    ),
    responses(
        (status = 200, body = String, content_type = "text/event-stream"), responses::InvalidInput, responses::NotFound,
    ))]
pub(crate) async fn get_events(
    State(log): State<Arc<dyn EventLog>>,
    State(topology): State<Arc<Topology>>,
    State(shutdown): State<Shutdown>,
    Path(topic): Path<String>,
    tenant: Tenant,
    Query(query): Query<EventsQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let name: String = topic.chars().take(100).collect();
    let topic = topology.topics.get(&topic);
    let topic = topic.ok_or_else(|| Problem::not_found(format!("there is no topic {name:?}")))?;
    let renderer = render::for_topic(topic);
    let renderer = renderer.ok_or_else(|| Problem::not_found(format!("topic {name} has no event type")))?;
    let follow = query.follow.unwrap_or(true);
    let default = if follow { "latest" } else { "earliest" };
    let start = StreamStart::parse(query.from.as_deref().unwrap_or(default), &topic.spec)?;
    let resumed = start::last_event_id(&headers, &topic.spec)?;
    let ends = log.ends(&topic.spec.name).await?;
    let begin = start.positions(&*log, &topic.spec, &ends, resumed.as_ref()).await?;
    let until: Option<Positions> = (!follow).then(|| begin.iter().map(|(at, _)| (at.clone(), ends.next(at))).collect());
    let records = log.follow(&begin).await?;
    let events = EventStream::new(records, log, renderer, tenant.scope(), begin, until, shutdown);
    let events = stream::unfold(events, |mut events| async move {
        let event = events.next().await?;
        Some((Ok::<Event, Infallible>(event), events))
    });
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    // Stops proxies from buffering the events.
    let unbuffered = [(HeaderName::from_static("x-accel-buffering"), "no")];
    Ok((unbuffered, Sse::new(events).keep_alive(keep_alive)).into_response())
}
