//! NDJSON bodies: validates line by line and appends in chunks. Reads the next chunk when the previous one is durable.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use carbon_http::Problem;
use carbon_log::{EventLog, NewRecord};
use carbon_runtime::Shutdown;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use tokio::time::Instant;

use super::answer::{Appended, Rejected, accepted_records, failure, ranges};
use super::encode::EntityEncoder;

/// Maximum length of a reason in the answer, in characters. A reason can quote the line.
const MAX_REASON_CHARS: usize = 300;

/// Maximum number of lines of a chunk.
const CHUNK_LINES: usize = 500;

/// A chunk of this many bytes is appended.
const CHUNK_BYTES: usize = 1024 * 1024;

/// Maximum length of a line, in bytes.
const MAX_LINE_BYTES: usize = 2 * 1024 * 1024;

/// Maximum number of rejected lines in the answer.
const MAX_REJECTED: usize = 1000;

/// Maximum time without data before the stream ends.
const IDLE: Duration = Duration::from_secs(30);

/// Maximum time that the lines of a slow stream wait for a full chunk.
const LINGER: Duration = Duration::from_millis(100);

/// Reads one stream and appends its entities.
pub(super) struct Ingest {
    log: Arc<dyn EventLog>,
    encoder: EntityEncoder,
    shutdown: Shutdown,
    lines: Lines,
    chunk: Chunk,
    answer: Appended,
}

/// The records that are appended in the next call.
#[derive(Default)]
struct Chunk {
    records: Vec<NewRecord>,
    /// The line number of each record.
    lines: Vec<u64>,
    bytes: usize,
}

/// The result of a wait for more data.
enum Input {
    Data(Bytes),
    End,
    /// The connection failed.
    Failed(String),
    /// No data came for [`LINGER`].
    Lingered,
    /// The service stops reading, for this reason.
    Stopped(&'static str),
}

impl Ingest {
    pub fn new(log: Arc<dyn EventLog>, encoder: EntityEncoder, shutdown: Shutdown) -> Self {
        let (lines, chunk, answer) = (Lines::default(), Chunk::default(), Appended::default());
        Self { log, encoder, shutdown, lines, chunk, answer }
    }

    /// Reads the stream to its end and returns the answer.
    pub async fn run(mut self, mut data: BoxStream<'static, Result<Bytes, String>>) -> Result<Appended, Problem> {
        let mut last_data = Instant::now();
        loop {
            match self.wait(&mut data, last_data).await {
                Input::Data(bytes) => {
                    last_data = Instant::now();
                    self.lines.push(&bytes);
                    while let Some((number, line)) = self.lines.next() {
                        self.add_line(number, &line);
                        if self.chunk.is_full() {
                            self.flush().await?;
                            // The time of the append does not count as idle time of the caller.
                            last_data = Instant::now();
                        }
                    }
                }
                Input::Lingered => self.flush().await?,
                Input::End => {
                    if let Some((number, line)) = self.lines.rest() {
                        self.add_line(number, &line);
                    }
                    break;
                }
                Input::Failed(reason) => {
                    self.reject_partial_line(&format!("the line is cut off: {reason}"));
                    break;
                }
                Input::Stopped(why) => {
                    self.reject_partial_line(&format!("the line is cut off: {why}"));
                    self.answer.stopped = Some(why);
                    break;
                }
            }
        }
        self.flush().await?;
        Ok(self.answer)
    }

    async fn wait(&self, data: &mut BoxStream<'static, Result<Bytes, String>>, last_data: Instant) -> Input {
        let lingers = !self.chunk.records.is_empty();
        let until = last_data + if lingers { LINGER } else { IDLE };
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => Input::Stopped("the service is shutting down"),
            more = tokio::time::timeout_at(until, data.next()) => match more {
                Ok(Some(Ok(bytes))) => Input::Data(bytes),
                Ok(Some(Err(reason))) => Input::Failed(reason),
                Ok(None) => Input::End,
                Err(_) if lingers => Input::Lingered,
                Err(_) => Input::Stopped("no data for 30 s"),
            },
        }
    }

    /// Adds the record of a line to the chunk, or rejects the line. Ignores blank lines.
    fn add_line(&mut self, number: u64, line: &Line) {
        let line = match line {
            Line::Whole(line) if line.trim_ascii().is_empty() => return,
            Line::Whole(line) => line,
            Line::TooLong => return self.reject(number, format!("the line has more than {MAX_LINE_BYTES} bytes")),
        };
        match self.encoder.record(line) {
            Ok(record) => self.chunk.push(number, line.len(), record),
            Err(reason) => self.reject(number, reason),
        }
    }

    /// Rejects the text after the last line feed of a stream that was interrupted, even if it is valid JSON.
    fn reject_partial_line(&mut self, reason: &str) {
        if let Some((number, line)) = self.lines.rest()
            && !matches!(line, Line::Whole(line) if line.trim_ascii().is_empty())
        {
            self.reject(number, reason.to_owned());
        }
    }

    fn reject(&mut self, line: u64, reason: String) {
        self.answer.rejected_count += 1;
        if self.answer.rejected.len() < MAX_REJECTED {
            let reason = carbon_http::shorten(reason, MAX_REASON_CHARS).into_owned();
            self.answer.rejected.push(Rejected { line, reason });
        }
    }

    /// Appends the chunk.
    async fn flush(&mut self) -> Result<(), Problem> {
        let Chunk { records, lines, .. } = std::mem::take(&mut self.chunk);
        if records.is_empty() {
            return Ok(());
        }
        match self.log.append(records).await {
            Ok(positions) => {
                self.answer.add(&positions);
                Ok(())
            }
            Err(error) => {
                let accepted = accepted_records(&error);
                let accepted_lines: Vec<u64> =
                    accepted.iter().filter_map(|(index, _)| lines.get(*index).copied()).collect();
                let first_not_accepted = lines.iter().find(|line| !accepted_lines.contains(line)).copied();
                let positions: Vec<_> = accepted.into_iter().map(|(_, position)| position).collect();
                self.answer.add(&positions);
                // All valid lines of earlier chunks are accepted.
                Err(failure(&error, &self.answer)
                    .with("accepted_before_line", lines.first().copied())
                    .with("accepted_lines", ranges(accepted_lines.into_iter()))
                    .with("first_line_not_accepted", first_not_accepted)
                    .with("rejected_count", self.answer.rejected_count))
            }
        }
    }
}

impl Chunk {
    fn push(&mut self, number: u64, bytes: usize, record: NewRecord) {
        self.records.push(record);
        self.lines.push(number);
        self.bytes += bytes;
    }

    fn is_full(&self) -> bool {
        self.records.len() >= CHUNK_LINES || self.bytes >= CHUNK_BYTES
    }
}

enum Line {
    Whole(Bytes),
    TooLong,
}

/// Splits a stream at its line feeds. Buffers at most one incomplete line.
#[derive(Default)]
struct Lines {
    buffer: BytesMut,
    /// The first `scanned` bytes of the buffer contain no line feed.
    scanned: usize,
    /// True if the current line is too long; its bytes are dropped.
    skipping: bool,
    /// The number of lines so far.
    number: u64,
}

impl Lines {
    fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns the next complete line with its number, counted from 1.
    fn next(&mut self) -> Option<(u64, Line)> {
        match self.buffer[self.scanned..].iter().position(|byte| *byte == b'\n') {
            Some(found) => {
                let mut line = self.buffer.split_to(self.scanned + found + 1);
                line.truncate(line.len() - 1);
                self.scanned = 0;
                self.number += 1;
                let too_long = std::mem::take(&mut self.skipping) || line.len() > MAX_LINE_BYTES;
                Some((self.number, if too_long { Line::TooLong } else { Line::Whole(line.freeze()) }))
            }
            None => {
                self.scanned = self.buffer.len();
                if self.buffer.len() > MAX_LINE_BYTES {
                    self.buffer.clear();
                    self.scanned = 0;
                    self.skipping = true;
                }
                None
            }
        }
    }

    /// Returns the text after the last line feed, unless it is empty.
    fn rest(&mut self) -> Option<(u64, Line)> {
        let line = std::mem::take(&mut self.buffer).freeze();
        self.number += 1;
        match (std::mem::take(&mut self.skipping), line.is_empty()) {
            (true, _) => Some((self.number, Line::TooLong)),
            (false, true) => None,
            (false, false) => Some((self.number, Line::Whole(line))),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Splits a stream that arrives in `parts`; `None` stands for a line that is too long.
    fn split(parts: &[&[u8]]) -> Vec<Option<String>> {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        for part in parts {
            lines.push(part);
            while let Some((_, line)) = lines.next() {
                found.push(line);
            }
        }
        found.extend(lines.rest().map(|(_, line)| line));
        let text = |line: Line| match line {
            Line::Whole(line) => Some(String::from_utf8(line.to_vec()).unwrap()),
            Line::TooLong => None,
        };
        found.into_iter().map(text).collect()
    }

    #[test]
    fn lines_are_split_independently_of_the_chunks_of_the_body() {
        let whole = [Some("a".to_owned()), Some(String::new()), Some("bc".to_owned())];
        assert_eq!(split(&[b"a\n\nbc"]), whole);
        assert_eq!(split(&[b"a", b"\n", b"\nb", b"c"]), whole);
        assert_eq!(split(&[b"a\n\nbc\n"]), whole);
        assert_eq!(split(&[]), Vec::<Option<String>>::new());
    }

    #[test]
    fn a_line_that_is_too_long_is_not_buffered() {
        let long = vec![b'x'; MAX_LINE_BYTES + 1];
        let mut lines = Lines::default();
        lines.push(&long);
        assert!(lines.next().is_none());
        assert_eq!(lines.buffer.len(), 0);
        assert_eq!(split(&[&long, b"tail\nb\n", &long]), [None, Some("b".to_owned()), None]);
        let longest = vec![b'x'; MAX_LINE_BYTES];
        assert!(split(&[&longest, b"\n"])[0].is_some());
    }
}
