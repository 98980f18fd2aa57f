//! The live state of a processor, as `/status` and `/ready` show it.

use std::fmt;
use std::time::Duration;

use carbon_core::Positions;

use super::progress::{Phase, Progress};

/// A processor with records under way that commits nothing for this long does not move.
pub const STALLED_AFTER: Duration = Duration::from_secs(10);

/// What a processor is doing right now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    Starting,
    /// Its generation is being filled.
    Filling {
        folded: u64,
        of: u64,
    },
    Running,
    /// It tries again after an error.
    Retrying {
        error: String,
    },
    /// Records are under way, and nothing was committed for this many seconds.
    Stalled {
        seconds: u64,
    },
    /// It stopped at a position, and tries again every 30 s.
    Halted {
        at: String,
        error: String,
    },
    Stopped,
}

impl State {
    pub(super) fn of(progress: &Progress, fill: Option<&Positions>) -> Self {
        let stalled = progress.busy_since.map(|since| since.elapsed()).filter(|busy| *busy >= STALLED_AFTER);
        match &progress.phase {
            Phase::Halted { at, error } => State::Halted { at: at.clone(), error: error.clone() },
            Phase::Retrying { error, .. } => State::Retrying { error: error.clone() },
            Phase::Stopped => State::Stopped,
            _ if !progress.halted.is_empty() => {
                let (at, needs): (Vec<_>, Vec<_>) =
                    progress.halted.iter().map(|(at, needs)| (at.to_string(), needs.as_str())).unzip();
                State::Halted { at: at.join(","), error: format!("needs {}", needs.join("; ")) }
            }
            _ if stalled.is_some() => State::Stalled { seconds: stalled.unwrap_or_default().as_secs() },
            Phase::Starting => State::Starting,
            Phase::Running => match fill {
                None => State::Running,
                Some(ends) => {
                    let folded = ends.iter().map(|(at, end)| progress.positions.next(at).min(end)).sum();
                    State::Filling { folded, of: ends.iter().map(|(_, end)| end).sum() }
                }
            },
        }
    }

    /// One word for `/status`.
    pub fn name(&self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Filling { .. } => "filling",
            State::Running => "running",
            State::Retrying { .. } => "retrying",
            State::Stalled { .. } => "stalled",
            State::Halted { .. } => "halted",
            State::Stopped => "stopped",
        }
    }

    /// Whether it commits what comes, or may in a moment.
    pub fn moves(&self) -> bool {
        matches!(self, State::Running | State::Filling { .. } | State::Starting)
    }

    /// What went wrong, where something did.
    pub fn error(&self) -> Option<String> {
        match self {
            State::Retrying { error } => Some(error.clone()),
            State::Halted { at, error } => Some(format!("at {at}: {error}")),
            State::Stalled { seconds } => Some(format!("no progress for {seconds} s while records wait")),
            _ => None,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, self.error()) {
            (State::Filling { folded, of }, _) => write!(f, "filling ({folded} of {of} records)"),
            (_, Some(error)) => write!(f, "{} ({error})", self.name()),
            (_, None) => f.write_str(self.name()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use carbon_core::{TopicName, TopicPartition};
    use tokio::time::Instant;

    use super::*;

    #[test]
    fn the_worst_is_shown() {
        let at = TopicPartition::new(TopicName::parse("t").unwrap(), 0);
        let ends = Positions::from_iter([(at.clone(), 10)]);
        let mut progress = Progress { phase: Phase::Running, ..Progress::default() };
        assert_eq!(State::of(&progress, None), State::Running);
        progress.positions.set(at.clone(), 4);
        assert_eq!(State::of(&progress, Some(&ends)).to_string(), "filling (4 of 10 records)");
        progress.busy_since = Instant::now().checked_sub(STALLED_AFTER);
        assert_eq!(State::of(&progress, Some(&ends)).name(), "stalled");
        progress.halted.insert(at, "version 9".into());
        assert_eq!(State::of(&progress, None).to_string(), "halted (at t:0: needs version 9)");
        progress.phase = Phase::Retrying { error: "no disk".into(), attempt: 1 };
        assert_eq!(State::of(&progress, None).to_string(), "retrying (no disk)");
    }
}
