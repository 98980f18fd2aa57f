use carbon_core::{Classify, Fault, Position, Positions, Retry, TopicName};

/// What can go wrong with the log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("the log has no topic {0}; topics are made from topology.yaml at start")]
    UnknownTopic(TopicName),
    #[error("topic {topic} has {partitions} partitions, there is no partition {partition}")]
    NoPartition { topic: TopicName, partition: u32, partitions: u32 },
    #[error("a record for {topic} has {bytes} bytes, at most {max} are taken")]
    TooLarge { topic: TopicName, bytes: usize, max: usize },
    #[error("topic {topic}: {what} is {found} in the log, {wanted} in the topology; {hint}")]
    TopicDiffers { topic: TopicName, what: &'static str, found: String, wanted: String, hint: &'static str },
    /// A failure midway: which records were accepted.
    #[error("the log took only a part of the records: {message}")]
    Partial { accepted: Vec<Option<Position>>, message: String },
    /// Another member of the group has moved its position (law 5).
    #[error("group {group} stands at {actual}, not where this batch begins")]
    Fenced { group: String, actual: Positions },
    #[error("{path} is in use by another process (pid {pid}); stop it, or choose another --data-dir")]
    Locked { path: String, pid: String },
    #[error("{path} was written by {writer} in format {found}, this program reads up to format {known}; upgrade it")]
    NewerFormat { path: String, writer: String, found: u32, known: u32 },
    #[error(
        "{path} is missing or empty, but read-models/ beside it is not: put the log back, or delete read-models/ to begin a new one"
    )]
    Lost { path: String },
    #[error("{0}")]
    Options(String),
    #[error(
        "the schema registry has no {subject} with the schema of version {version:03}; run `carbon-ml topology apply`"
    )]
    SchemaMissing { subject: String, version: u32 },
    #[error("the schema of {subject} is refused: {message}")]
    SchemaRefused { subject: String, message: String },
    #[error("the log is shutting down")]
    Closed,
    #[error("the log is unavailable: {0}")]
    Unavailable(String),
    /// The open file is not what the path names any more: what is written to it would be lost.
    #[error(
        "{path} was deleted or replaced while this process has it open, and nothing is appended: stop the process and put the file back"
    )]
    Removed { path: String },
    #[error("{path}: {source}")]
    Io { path: String, source: std::io::Error },
    #[error("the log's file is damaged: {0}")]
    Corrupt(String),
}

/// SQLITE_CORRUPT and SQLITE_NOTADB, with their extended codes.
fn is_damage(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code()?.parse::<i32>().ok());
    code.is_some_and(|code| matches!(code & 0xff, 11 | 26))
}

impl LogError {
    /// The same error for another of the requests that failed together.
    pub(crate) fn repeated(&self) -> Self {
        match self {
            LogError::Removed { path } => LogError::Removed { path: path.clone() },
            LogError::Corrupt(message) => LogError::Corrupt(message.clone()),
            LogError::Unavailable(message) => LogError::Unavailable(message.clone()),
            error => LogError::Unavailable(error.to_string()),
        }
    }
}

impl From<sqlx::Error> for LogError {
    fn from(error: sqlx::Error) -> Self {
        match error {
            error if is_damage(&error) => {
                LogError::Corrupt(format!("{error}: stop the process and restore the file from a backup"))
            }
            sqlx::Error::ColumnDecode { .. } => LogError::Corrupt(error.to_string()),
            sqlx::Error::PoolClosed => LogError::Closed,
            _ => LogError::Unavailable(error.to_string()),
        }
    }
}

impl Classify for LogError {
    fn fault(&self) -> Fault {
        match self {
            LogError::TooLarge { .. } | LogError::Options(_) => Fault::User,
            LogError::UnknownTopic(_)
            | LogError::NoPartition { .. }
            | LogError::Fenced { .. }
            | LogError::Corrupt(_) => Fault::Internal,
            _ => Fault::External,
        }
    }

    fn retry(&self) -> Retry {
        match self {
            LogError::Unavailable(_)
            | LogError::Partial { .. }
            | LogError::Removed { .. }
            | LogError::Io { .. }
            // Somebody runs `topology apply`, and it is there.
            | LogError::SchemaMissing { .. } => Retry::Later,
            _ => Retry::Never,
        }
    }
}
