//! NDJSON: taken line by line, a chunk at a time, the next one when the last is durable.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use carbon_http::Problem;
use carbon_log::{EventLog, NewRecord};
use carbon_runtime::Shutdown;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use tokio::time::Instant;

use super::answer::{Appended, Rejected, failure, ranges, taken};
use super::input::Writer;

/// A reason may repeat what the line held.
const REASON_CHARS: usize = 300;
const CHUNK_LINES: usize = 500;
const CHUNK_BYTES: usize = 1024 * 1024;
const LINE_BYTES: usize = 2 * 1024 * 1024;
const REJECTED_SHOWN: usize = 1000;
/// How long a stream may be silent.
const IDLE: Duration = Duration::from_secs(30);
/// How long lines of a slow stream wait for more before they are appended.
const LINGER: Duration = Duration::from_millis(100);

pub(super) struct Ingest {
    log: Arc<dyn EventLog>,
    writer: Writer,
    shutdown: Shutdown,
    lines: Lines,
    chunk: Chunk,
    answer: Appended,
}

#[derive(Default)]
struct Chunk {
    records: Vec<NewRecord>,
    lines: Vec<u64>,
    bytes: usize,
}

/// What the wait for more data came to.
enum Came {
    Data(Bytes),
    End,
    Broken(String),
    Lingered,
    Stopped(&'static str),
}

impl Ingest {
    pub fn new(log: Arc<dyn EventLog>, writer: Writer, shutdown: Shutdown) -> Self {
        let (lines, chunk, answer) = (Lines::default(), Chunk::default(), Appended::default());
        Self { log, writer, shutdown, lines, chunk, answer }
    }

    pub async fn run(mut self, mut data: BoxStream<'static, Result<Bytes, String>>) -> Result<Appended, Problem> {
        let mut heard = Instant::now();
        loop {
            match self.wait(&mut data, heard).await {
                Came::Data(bytes) => {
                    heard = Instant::now();
                    self.lines.push(&bytes);
                    while let Some((number, line)) = self.lines.next() {
                        self.take(number, &line);
                        if self.chunk.is_full() {
                            self.flush().await?;
                            // Time spent here is not the caller's silence.
                            heard = Instant::now();
                        }
                    }
                }
                Came::Lingered => self.flush().await?,
                Came::End => {
                    if let Some((number, line)) = self.lines.rest() {
                        self.take(number, &line);
                    }
                    break;
                }
                Came::Broken(reason) => {
                    self.cut_off(&format!("the line is cut off: {reason}"));
                    break;
                }
                Came::Stopped(why) => {
                    self.cut_off(&format!("the line is cut off: {why}"));
                    self.answer.stopped = Some(why);
                    break;
                }
            }
        }
        self.flush().await?;
        Ok(self.answer)
    }

    async fn wait(&self, data: &mut BoxStream<'static, Result<Bytes, String>>, heard: Instant) -> Came {
        let lingers = !self.chunk.records.is_empty();
        let until = heard + if lingers { LINGER } else { IDLE };
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => Came::Stopped("the service is shutting down"),
            more = tokio::time::timeout_at(until, data.next()) => match more {
                Ok(Some(Ok(bytes))) => Came::Data(bytes),
                Ok(Some(Err(reason))) => Came::Broken(reason),
                Ok(None) => Came::End,
                Err(_) if lingers => Came::Lingered,
                Err(_) => Came::Stopped("no data for 30 s"),
            },
        }
    }

    fn take(&mut self, number: u64, line: &Line) {
        let line = match line {
            Line::Whole(line) if line.trim_ascii().is_empty() => return,
            Line::Whole(line) => line,
            Line::TooLong => return self.reject(number, format!("the line has more than {LINE_BYTES} bytes")),
        };
        match self.writer.record(line) {
            Ok(record) => self.chunk.push(number, line.len(), record),
            Err(reason) => self.reject(number, reason),
        }
    }

    /// The rest of a stream that did not end by itself was never meant to be a line.
    fn cut_off(&mut self, reason: &str) {
        if let Some((number, line)) = self.lines.rest()
            && !matches!(line, Line::Whole(line) if line.trim_ascii().is_empty())
        {
            self.reject(number, reason.to_owned());
        }
    }

    fn reject(&mut self, line: u64, reason: String) {
        self.answer.rejected_count += 1;
        if self.answer.rejected.len() < REJECTED_SHOWN {
            let reason = carbon_http::shorten(reason, REASON_CHARS).into_owned();
            self.answer.rejected.push(Rejected { line, reason });
        }
    }

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
                let taken = taken(&error);
                let kept: Vec<u64> = taken.iter().filter_map(|(index, _)| lines.get(*index).copied()).collect();
                let first_lost = lines.iter().find(|line| !kept.contains(line)).copied();
                let positions: Vec<_> = taken.into_iter().map(|(_, position)| position).collect();
                self.answer.add(&positions);
                // Every good line before this chunk is accepted.
                Err(failure(&error, &self.answer)
                    .with("accepted_before_line", lines.first().copied())
                    .with("accepted_lines", ranges(kept.into_iter()))
                    .with("first_line_not_accepted", first_lost)
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

/// Cuts a stream at its line feeds, holding no more than one line.
#[derive(Default)]
struct Lines {
    buffer: BytesMut,
    /// The buffer has no line feed before this.
    scanned: usize,
    /// The present line is too long, and what is read of it is dropped.
    skipping: bool,
    number: u64,
}

impl Lines {
    fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    fn next(&mut self) -> Option<(u64, Line)> {
        match self.buffer[self.scanned..].iter().position(|byte| *byte == b'\n') {
            Some(found) => {
                let mut line = self.buffer.split_to(self.scanned + found + 1);
                line.truncate(line.len() - 1);
                self.scanned = 0;
                self.number += 1;
                let too_long = std::mem::take(&mut self.skipping) || line.len() > LINE_BYTES;
                Some((self.number, if too_long { Line::TooLong } else { Line::Whole(line.freeze()) }))
            }
            None => {
                self.scanned = self.buffer.len();
                if self.buffer.len() > LINE_BYTES {
                    self.buffer.clear();
                    self.scanned = 0;
                    self.skipping = true;
                }
                None
            }
        }
    }

    /// What stands behind the last line feed.
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

    fn cut(parts: &[&[u8]]) -> Vec<Option<String>> {
        let mut lines = Lines::default();
        let mut cut = Vec::new();
        for part in parts {
            lines.push(part);
            while let Some((_, line)) = lines.next() {
                cut.push(line);
            }
        }
        cut.extend(lines.rest().map(|(_, line)| line));
        let text = |line: Line| match line {
            Line::Whole(line) => Some(String::from_utf8(line.to_vec()).unwrap()),
            Line::TooLong => None,
        };
        cut.into_iter().map(text).collect()
    }

    #[test]
    fn lines_are_cut_wherever_the_parts_end() {
        let whole = [Some("a".to_owned()), Some(String::new()), Some("bc".to_owned())];
        assert_eq!(cut(&[b"a\n\nbc"]), whole);
        assert_eq!(cut(&[b"a", b"\n", b"\nb", b"c"]), whole);
        assert_eq!(cut(&[b"a\n\nbc\n"]), whole);
        assert_eq!(cut(&[]), Vec::<Option<String>>::new());
    }

    #[test]
    fn a_line_that_is_too_long_is_not_held() {
        let long = vec![b'x'; LINE_BYTES + 1];
        let mut lines = Lines::default();
        lines.push(&long);
        assert!(lines.next().is_none());
        assert_eq!(lines.buffer.len(), 0);
        assert_eq!(cut(&[&long, b"tail\nb\n", &long]), [None, Some("b".to_owned()), None]);
        let longest = vec![b'x'; LINE_BYTES];
        assert!(cut(&[&longest, b"\n"])[0].is_some());
    }
}
