//! What a write is answered with.

use axum::Json;
use axum::response::{IntoResponse, Response};
use carbon_core::{Position, Positions};
use carbon_http::{LogPosition, Problem};
use carbon_log::{EventLog, LogError, NewRecord};
use serde::Serialize;
use utoipa::ToSchema;

/// A line of a stream that was not taken.
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
    /// Why a stream was ended before its end.
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

/// Appends at once; a failure midway names the items that were accepted.
pub(super) async fn append(log: &dyn EventLog, records: Vec<NewRecord>) -> Result<Appended, Problem> {
    let mut appended = Appended::default();
    match log.append(records).await {
        Ok(positions) => {
            appended.add(&positions);
            Ok(appended)
        }
        Err(error) => {
            let taken = taken(&error);
            let items = ranges(taken.iter().map(|(index, _)| *index as u64));
            let positions: Vec<_> = taken.into_iter().map(|(_, position)| position).collect();
            appended.add(&positions);
            Err(failure(&error, &appended).with("accepted_items", items))
        }
    }
}

/// The records that a failed append took all the same, by index.
pub(super) fn taken(error: &LogError) -> Vec<(usize, Position)> {
    let LogError::Partial { accepted, .. } = error else { return Vec::new() };
    accepted.iter().enumerate().filter_map(|(index, position)| Some((index, position.clone()?))).collect()
}

pub(super) fn failure(error: &LogError, appended: &Appended) -> Problem {
    Problem::of(error, None)
        .with("accepted", appended.accepted)
        .with("positions", listed(&appended.done))
        .with_header(LogPosition::NAME, &appended.done.to_done_string())
}

/// Rising numbers as `first-last`.
pub(super) fn ranges(numbers: impl Iterator<Item = u64>) -> Vec<String> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => runs.push((number, number)),
        }
    }
    let shown = |(first, last)| if first == last { format!("{first}") } else { format!("{first}-{last}") };
    runs.into_iter().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_numbers_are_written_short() {
        assert_eq!(ranges([0, 1, 2, 5, 7, 8].into_iter()), ["0-2", "5", "7-8"]);
        assert!(ranges(std::iter::empty()).is_empty());
    }
}
