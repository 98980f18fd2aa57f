//! The answer to a write of entities: what was accepted, rejected, and where it lies in the log.

use axum::Json;
use axum::response::{IntoResponse, Response};
use carbon_core::{Position, Positions};
use carbon_http::{LogPosition, Problem};
use carbon_log::{EventLog, LogError, NewRecord};
use serde::Serialize;
use utoipa::ToSchema;

/// A line of a stream that was rejected.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Rejected {
    /// Counted from 1.
    pub line: u64,
    pub reason: String,
}

#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct Appended {
    pub accepted: u64,
    /// The first 1,000.
    pub rejected: Vec<Rejected>,
    pub rejected_count: u64,
    /// The last position of each partition, as `topic:partition:offset`.
    pub positions: Vec<String>,
    /// Why the service stopped reading the stream before its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped: Option<&'static str>,
    #[serde(skip)]
    pub done: Positions,
}

impl Appended {
    pub fn add(&mut self, positions: &[Position]) {
        self.accepted += positions.len() as u64;
        positions.iter().for_each(|position| self.done.advance_past(position));
    }
}

pub(super) fn listed(done: &Positions) -> Vec<String> {
    done.to_done_string().split(',').filter(|position| !position.is_empty()).map(str::to_owned).collect()
}

impl IntoResponse for Appended {
    fn into_response(mut self) -> Response {
        self.positions = listed(&self.done);
        (LogPosition(std::mem::take(&mut self.done)), Json(self)).into_response()
    }
}

/// Appends the records in one call. If the log accepts only some of them, the error names their items.
pub(super) async fn append(log: &dyn EventLog, records: Vec<NewRecord>) -> Result<Appended, Problem> {
    let mut appended = Appended::default();
    match log.append(records).await {
        Ok(positions) => {
            appended.add(&positions);
            Ok(appended)
        }
        Err(error) => {
            let accepted = accepted_records(&error);
            let items = ranges(accepted.iter().map(|(index, _)| *index as u64));
            let positions: Vec<_> = accepted.into_iter().map(|(_, position)| position).collect();
            appended.add(&positions);
            Err(failure(&error, &appended).with("accepted_items", items))
        }
    }
}

/// Returns the records that the log accepted before the append failed, with their indexes.
pub(super) fn accepted_records(error: &LogError) -> Vec<(usize, Position)> {
    let LogError::Partial { accepted, .. } = error else { return Vec::new() };
    accepted.iter().enumerate().filter_map(|(index, position)| Some((index, position.clone()?))).collect()
}

pub(super) fn failure(error: &LogError, appended: &Appended) -> Problem {
    Problem::of(error, None)
        .with("accepted", appended.accepted)
        .with("positions", listed(&appended.done))
        .with_header(LogPosition::NAME, &appended.done.to_done_string())
}

/// Formats ascending numbers as ranges `first-last`.
pub(super) fn ranges(numbers: impl Iterator<Item = u64>) -> Vec<String> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => runs.push((number, number)),
        }
    }
    let range = |(first, last)| if first == last { format!("{first}") } else { format!("{first}-{last}") };
    runs.into_iter().map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consecutive_numbers_become_ranges() {
        assert_eq!(ranges([0, 1, 2, 5, 7, 8].into_iter()), ["0-2", "5", "7-8"]);
        assert!(ranges(std::iter::empty()).is_empty());
    }
}
