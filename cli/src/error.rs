//! What can go wrong in a command, what to do about it, and the exit code that says which.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use carbon_inference::InferenceError;
use carbon_runtime::ConfigError;

use crate::term;

/// Exit codes: 1 failed, 2 wrong usage, 3 the service is not reachable or not ready, 4 not found,
/// 5 a check did not hold.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("{service} does not answer at {url}{reason}; start it with `carbon-ml up`, or set {setting}")]
    Unreachable { service: &'static str, url: String, setting: &'static str, reason: String },
    #[error("{service} is not ready: {detail}; `carbon-ml status` shows what it waits for")]
    NotReady { service: &'static str, detail: String },
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    CheckFailed(String),
    /// The service understood and said no.
    #[error("{service} refused: {detail} (HTTP {status}{request})")]
    Refused { service: &'static str, status: u16, detail: String, request: String },
    /// A file that is not what it should be, at a line.
    #[error("{}:{line}: {what}", path.display())]
    Malformed { path: PathBuf, line: u64, what: String },
    #[error("{} cannot be read: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Inference(#[from] InferenceError),
    #[error("the output cannot be written: {0}")]
    Output(std::io::Error),
    /// What `topology apply` would make.
    #[error("the cluster is not as the topology wants it; `carbon-ml topology apply` makes what is missing:\n  {}", .0.join("\n  "))]
    NotApplied(Vec<String>),
    #[error("{0}")]
    Failed(String),
}

impl CliError {
    pub fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }

    pub fn malformed(path: &Path, line: u64, what: impl Into<String>) -> Self {
        Self::Malformed { path: path.to_owned(), line, what: what.into() }
    }

    pub fn exit_code(&self) -> u8 {
        match self {
            // Who reads our output has seen enough: `carbon-ml tail … | head`.
            Self::Output(error) if error.kind() == std::io::ErrorKind::BrokenPipe => 0,
            Self::Output(_) | Self::Refused { .. } | Self::Malformed { .. } | Self::Failed(_) => 1,
            Self::Usage(_) | Self::Config(_) => 2,
            Self::Unreachable { .. } | Self::NotReady { .. } => 3,
            Self::NotFound(_) | Self::Inference(InferenceError::UnknownModel { .. }) => 4,
            Self::File { source, .. } if source.kind() == std::io::ErrorKind::NotFound => 4,
            Self::File { .. } | Self::Inference(_) => 1,
            Self::CheckFailed(_) | Self::NotApplied(_) => 5,
        }
    }

    /// Says what went wrong on standard error, and ends with the code for it.
    pub fn report(&self) -> ExitCode {
        let code = self.exit_code();
        if code != 0 {
            // Details come from services and files: they may hold anything.
            let text: Vec<String> = self.to_string().lines().map(term::printable).collect();
            let _ = writeln!(std::io::stderr(), "error: {}", text.join("\n"));
        }
        ExitCode::from(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_exit_code() {
        let unreachable = CliError::Unreachable {
            service: "query-api",
            url: "http://x".into(),
            setting: "ML_URL",
            reason: String::new(),
        };
        assert!(unreachable.to_string().contains("carbon-ml up") && unreachable.to_string().contains("ML_URL"));
        let gone = std::io::Error::from(std::io::ErrorKind::NotFound);
        let closed = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        for (error, code) in [
            (unreachable, 3),
            (CliError::Usage("x".into()), 2),
            (CliError::NotFound("x".into()), 4),
            (CliError::CheckFailed("x".into()), 5),
            (CliError::Failed("x".into()), 1),
            (CliError::File { path: "x".into(), source: gone }, 4),
            (CliError::Output(closed), 0),
        ] {
            assert_eq!(error.exit_code(), code, "{error}");
        }
    }
}
