//! The start positions of an event stream: the parameter `from` and the header `Last-Event-ID`.

use axum::http::HeaderMap;
use carbon_core::{Position, Positions, Timestamp, TopicPartition, TopicSpec, parse_rfc3339};
use carbon_http::Problem;
use carbon_log::{EventLog, LogError};

/// The parameter `from`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum StreamStart {
    Earliest,
    Latest,
    /// Only these partitions, from these offsets on.
    At(Positions),
    Time(Timestamp),
}

impl StreamStart {
    pub fn parse(text: &str, topic: &TopicSpec) -> Result<Self, Problem> {
        match text {
            "earliest" => return Ok(Self::Earliest),
            "latest" => return Ok(Self::Latest),
            _ => {}
        }
        // The query string decodes the plus sign of a UTC offset as a space.
        if let Some(time) = parse_rfc3339(&text.replace(' ', "+")) {
            return Ok(Self::Time(time));
        }
        let mut positions = Positions::new();
        for part in text.split(',') {
            let position: Position = part.parse().map_err(|_| {
                Problem::invalid("from must be earliest, latest, <topic>:<partition>:<offset>, or an RFC 3339 time")
            })?;
            positions.set(position.topic_partition(), position.offset);
        }
        check_topic(&positions, topic, "from")?;
        Ok(Self::At(positions))
    }

    /// Returns the next offset of every partition that the stream reads. `ends` are the end offsets. The positions of
    /// `Last-Event-ID` (`resumed`) take precedence over `from`. A partition that they leave out has sent no event yet: it is
    /// read from the offset that `from` names for it, or else from offset 0.
    pub async fn positions(
        &self,
        log: &dyn EventLog,
        topic: &TopicSpec,
        ends: &Positions,
        resumed: Option<&Positions>,
    ) -> Result<Positions, LogError> {
        let all = |next: &dyn Fn(&TopicPartition) -> u64| -> Positions {
            let partitions = (0..topic.partitions).map(|partition| TopicPartition::new(topic.name.clone(), partition));
            partitions.map(|at| (at.clone(), next(&at))).collect()
        };
        match (self, resumed) {
            (Self::At(from), None) => Ok(from.clone()),
            (Self::At(from), Some(id)) => {
                Ok(from.iter().map(|(at, next)| (at.clone(), id.get(at).unwrap_or(next))).collect())
            }
            (_, Some(id)) => Ok(all(&|at| id.next(at))),
            (Self::Earliest, None) => Ok(all(&|_| 0)),
            (Self::Latest, None) => Ok(all(&|at| ends.next(at))),
            (Self::Time(time), None) => {
                let found = log.positions_for_time(&topic.name, *time).await?;
                Ok(all(&|at| found.get(at).unwrap_or_else(|| ends.next(at))))
            }
        }
    }
}

/// Parses the header `Last-Event-ID`: the positions up to which the client has seen all events.
pub(super) fn last_event_id(headers: &HeaderMap, topic: &TopicSpec) -> Result<Option<Positions>, Problem> {
    let Some(value) = headers.get("last-event-id") else { return Ok(None) };
    let text = value.to_str().map_err(|_| Problem::invalid("last-event-id is not text"))?;
    // A client that has not received an id yet may send an empty one.
    if text.is_empty() {
        return Ok(None);
    }
    let seen = Positions::parse_done(text).map_err(|error| Problem::invalid(format!("last-event-id: {error}")))?;
    check_topic(&seen, topic, "last-event-id")?;
    Ok(Some(seen))
}

/// Rejects positions of another topic or of a partition that does not exist. `what` names the parameter.
fn check_topic(positions: &Positions, topic: &TopicSpec, what: &str) -> Result<(), Problem> {
    let elsewhere = positions.iter().find(|(at, _)| at.topic != topic.name || at.partition >= topic.partitions);
    match elsewhere {
        None => Ok(()),
        Some((at, _)) => Err(Problem::invalid(format!(
            "{what} names {at}; the topic is {} with {} partitions",
            topic.name, topic.partitions
        ))),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use carbon_core::{Cleanup, Partitioner, Retention, TopicName};

    use super::*;

    fn topic() -> TopicSpec {
        TopicSpec {
            name: TopicName::parse("t").unwrap(),
            partitions: 2,
            cleanup: Cleanup::Keep,
            partitioner: Partitioner::Murmur2,
            retention: Retention::default(),
        }
    }

    #[test]
    fn every_form_of_from_is_parsed() {
        let parse = |text: &str| StreamStart::parse(text, &topic()).unwrap();
        assert_eq!((parse("earliest"), parse("latest")), (StreamStart::Earliest, StreamStart::Latest));
        assert_eq!(parse("2000-02-29T12:00:00Z"), StreamStart::Time(Timestamp(951_825_600_000)));
        assert_eq!(parse("2000-02-29T13:00:00 01:00"), StreamStart::Time(Timestamp(951_825_600_000)));
        let StreamStart::At(at) = parse("t:1:7") else { panic!("not a position") };
        assert_eq!((at.len(), at.next(&TopicPartition::new(topic().name, 1))), (1, 7));
    }

    #[test]
    fn malformed_positions_are_rejected() {
        for bad in
            ["", "now", "t", "t:0", "t:2:0", "u:0:0", "t:0:-1", "t:0:0,", "2000-02-29", "t:0:99999999999999999999"]
        {
            assert!(StreamStart::parse(bad, &topic()).is_err(), "{bad}");
        }
        let id = |text: &str| {
            let headers = [("last-event-id".parse().unwrap(), text.parse().unwrap())].into_iter().collect();
            last_event_id(&headers, &topic())
        };
        for bad in ["x", "u:0:1", "t:9:1", "t:0:18446744073709551615"] {
            assert!(id(bad).is_err(), "{bad}");
        }
        assert!(id("").unwrap().is_none());
        assert_eq!(id("t:0:4,t:1:1").unwrap().unwrap().to_done_string(), "t:0:4,t:1:1");
    }
}
