//! Server-sent events: bytes to frames, as the HTML standard parses them.

use std::time::Duration;

/// One dispatched event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    pub event: String,
    pub data: String,
    /// The last id seen on the stream, this frame's own included.
    pub id: Option<String>,
}

/// Takes a stream in pieces of any size.
#[derive(Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    /// The last byte was a carriage return: a line feed after it ends no other line.
    after_return: bool,
    begun: bool,
    event: String,
    data: String,
    id: Option<String>,
    retry: Option<Duration>,
}

impl Parser {
    /// How long the server wants a client to wait before it connects again.
    pub fn retry(&self) -> Option<Duration> {
        self.retry
    }

    /// The bytes of the line and of the event that are still open.
    pub fn held(&self) -> usize {
        self.line.len() + self.data.len()
    }

    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Frame> {
        let mut frames = Vec::new();
        for &byte in bytes {
            let after_return = std::mem::take(&mut self.after_return);
            match byte {
                b'\n' if after_return => {}
                b'\n' | b'\r' => {
                    self.after_return = byte == b'\r';
                    let line = std::mem::take(&mut self.line);
                    frames.extend(self.take_line(&line));
                }
                _ => self.line.push(byte),
            }
        }
        frames
    }

    fn take_line(&mut self, line: &[u8]) -> Option<Frame> {
        let line = String::from_utf8_lossy(line);
        let line = match std::mem::replace(&mut self.begun, true) {
            false => line.strip_prefix('\u{feff}').unwrap_or(&line),
            true => &line,
        };
        if line.is_empty() {
            return self.dispatch();
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.event),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            "id" if !value.contains('\0') => self.id = Some(value.to_owned()),
            "retry" if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) => {
                self.retry = value.parse().ok().map(Duration::from_millis);
            }
            // A comment (`: heartbeat`) or a field that we do not know.
            _ => {}
        }
        None
    }

    fn dispatch(&mut self) -> Option<Frame> {
        let event = std::mem::take(&mut self.event);
        let mut data = std::mem::take(&mut self.data);
        if data.is_empty() {
            return None;
        }
        data.pop();
        let event = if event.is_empty() { "message".to_owned() } else { event };
        Some(Frame { event, data, id: self.id.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = "\u{feff}: hello\r\nid: t:0:1\r\nevent: record\r\ndata: {\"a\":1}\r\n\r\ndata:x\ndata: y\n\nid: z\n\n\
                          retry: 250\rdata\r\rid\ndata: é\n\ndata: never finished";

    fn frames(pieces: impl Iterator<Item = Vec<u8>>) -> (Vec<Frame>, Option<Duration>) {
        let mut parser = Parser::default();
        let frames = pieces.flat_map(|piece| parser.feed(&piece)).collect();
        (frames, parser.retry())
    }

    fn frame(event: &str, data: &str, id: &str) -> Frame {
        Frame { event: event.into(), data: data.into(), id: Some(id.into()) }
    }

    #[test]
    fn frames_are_as_the_standard_says() {
        let (found, retry) = frames(std::iter::once(STREAM.as_bytes().to_vec()));
        let expected = [
            frame("record", "{\"a\":1}", "t:0:1"),
            frame("message", "x\ny", "t:0:1"),
            // `data` without a value is one empty line; the id stays until another comes.
            frame("message", "", "z"),
            frame("message", "é", ""),
        ];
        assert_eq!(found, expected);
        assert_eq!(retry, Some(Duration::from_millis(250)));
    }

    proptest::proptest! {
        #[test]
        fn pieces_make_no_difference(size in 1usize..20) {
            let whole = frames(std::iter::once(STREAM.as_bytes().to_vec()));
            let pieces = frames(STREAM.as_bytes().chunks(size).map(<[u8]>::to_vec));
            proptest::prop_assert_eq!(whole, pieces);
        }

        #[test]
        fn no_bytes_can_break_it(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            Parser::default().feed(&bytes);
        }
    }
}
