//! The errors of the log.

use carbon_core::{Classify, Fault, Position, Positions, Retry, TopicName};

/// An error of the log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("the log has no topic {0}; topics are created from topology.yaml at start")]
    UnknownTopic(TopicName),
    #[error("topic {topic} has {partitions} partitions; partition {partition} does not exist")]
    NoPartition { topic: TopicName, partition: u32, partitions: u32 },
    #[error("a record for {topic} has {bytes} bytes, at most {max} are allowed")]
    TooLarge { topic: TopicName, bytes: usize, max: usize },
    #[error("topic {topic}: {what} is {found} in the log, but {wanted} in the topology; {hint}")]
    TopicDiffers { topic: TopicName, what: &'static str, found: String, wanted: String, hint: &'static str },
    /// The append failed for some of the records. `accepted` has an entry per record, in their order.
    #[error("only some of the records were accepted: {message}")]
    Partial { accepted: Vec<Option<Position>>, message: String },
    /// Another member of the group has committed other offsets, or owns the partitions (law 5).
    #[error("group {group} has committed {actual}, which is not where this batch starts")]
    Fenced { group: String, actual: Positions },
    #[error("{path} is in use by another process (pid {pid}); stop it, or choose another --data-dir")]
    Locked { path: String, pid: String },
    #[error(
        "{path} was written by {writer} in format {found}, but this program reads only up to format {known}; upgrade the program"
    )]
    NewerFormat { path: String, writer: String, found: u32, known: u32 },
    /// The log file is missing beside read models. A new log would discard the read models.
    #[error(
        "{path} is missing or empty, but read-models/ beside it is not: restore the log, or delete read-models/ to start a new log"
    )]
    Lost { path: String },
    /// An option is not valid.
    #[error("{0}")]
    Options(String),
    #[error("the schema registry does not have version {version:03} of {subject}; run `carbon-ml topology apply`")]
    SchemaMissing { subject: String, version: u32 },
    #[error("the schema of {subject} was rejected: {message}")]
    SchemaRefused { subject: String, message: String },
    #[error("the log is shutting down")]
    Closed,
    #[error("the log is unavailable: {0}")]
    Unavailable(String),
    /// The path no longer names the open file, so records written to it would be lost.
    #[error(
        "{path} was deleted or replaced while this process has it open; appends are rejected: stop the process and put the file back"
    )]
    Removed { path: String },
    #[error("{path}: {source}")]
    Io { path: String, source: std::io::Error },
    #[error("the log is damaged: {0}")]
    Corrupt(String),
}

/// True for `SQLITE_CORRUPT` (11) and `SQLITE_NOTADB` (26), and their extended codes.
fn is_damage(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code()?.parse::<i32>().ok());
    code.is_some_and(|code| matches!(code & 0xff, 11 | 26))
}

impl LogError {
    /// The same error, for another request of a group commit that failed. Variants that cannot be cloned become
    /// [`LogError::Unavailable`].
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
            // An operator can run `topology apply` at any time.
            | LogError::SchemaMissing { .. } => Retry::Later,
            _ => Retry::Never,
        }
    }
}
