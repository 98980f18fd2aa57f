//! `GET /events/{topic}`: the events of a topic as they come, as server-sent events.

mod json;
mod show;
mod start;
mod tail;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use carbon_core::Positions;
use carbon_http::{Path, Problem, Query, Tenant};
use futures::stream;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::App;
use start::From;
use tail::Tail;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct EventsQuery {
    /// `earliest`, `latest`, a position (`topic:partition:offset`, several separated by commas: these partitions
    /// alone, from these records on), or an RFC 3339 time. Unless said: `latest`, and `earliest` where
    /// `follow` is false.
    from: Option<String>,
    /// Whether to wait for more at the end.
    #[param(default = true)]
    follow: Option<bool>,
    /// The tenant; `default` where nothing names one.
    #[allow(dead_code)]
    tenant_id: Option<String>,
}

/// Follow the events of a topic
///
/// Each event is decoded: `{position, timestamp, key, headers, event}`, with bytes as base64; a null value is
/// `event: null`; poison is `{position, timestamp, key, poison: {reason, message}}`. Only the tenant's own events
/// come, and those of the platform. The `id` of each holds the last position of every partition; sent back as
/// `Last-Event-ID`, the stream goes on after it. A stream that the log ends says so in an event named `error`.
#[utoipa::path(get, path = "/events/{topic}", tag = "events",
    params(
        ("topic" = String, Path, description = "Such as ml.entity.changed.v1"),
        EventsQuery,
        ("last-event-id" = Option<String>, Header, description = "Go on after this event"),
    ),
    responses(
        (status = 200, body = String, content_type = "text/event-stream"),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such topic", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn get_events(
    State(app): State<Arc<App>>,
    Path(topic): Path<String>,
    tenant: Tenant,
    Query(query): Query<EventsQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let shown: String = topic.chars().take(100).collect();
    let topic = app.parts.topology.topics.get(&topic);
    let topic = topic.ok_or_else(|| Problem::not_found(format!("there is no topic {shown:?}")))?;
    let show = show::for_topic(topic).ok_or_else(|| Problem::not_found(format!("{shown} cannot be shown")))?;
    let follow = query.follow.unwrap_or(true);
    let default = if follow { "latest" } else { "earliest" };
    let from = From::parse(query.from.as_deref().unwrap_or(default), &topic.spec)?;
    let resumed = start::last_event_id(&headers, &topic.spec)?;
    let log = &app.parts.log;
    let ends = log.ends(&topic.spec.name).await?;
    let begin = from.positions(&**log, &topic.spec, &ends, resumed.as_ref()).await?;
    let until: Option<Positions> = (!follow).then(|| begin.iter().map(|(at, _)| (at.clone(), ends.next(at))).collect());
    let records = log.follow(&begin).await?;
    let tail = Tail::new(records, log.clone(), show, tenant.scope(), begin, until, app.parts.shutdown.clone());
    let events = stream::unfold(tail, |mut tail| async move {
        let event = tail.next().await?;
        Some((Ok::<Event, Infallible>(event), tail))
    });
    let keep_alive = KeepAlive::new().interval(Duration::from_secs(15));
    // Proxies must not hold events back.
    let unbuffered = [(HeaderName::from_static("x-accel-buffering"), "no")];
    Ok((unbuffered, Sse::new(events).keep_alive(keep_alive)).into_response())
}
