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
    #[error("{path}: {source}")]
    Io { path: String, source: std::io::Error },
    #[error("the log's file is damaged: {0}")]
    Corrupt(String),
}

impl From<sqlx::Error> for LogError {
    fn from(error: sqlx::Error) -> Self {
        match error {
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
            | LogError::Io { .. }
            // Somebody runs `topology apply`, and it is there.
            | LogError::SchemaMissing { .. } => Retry::Later,
            _ => Retry::Never,
        }
    }
}
