//! Entities as they come: NDJSON passes as it is, a JSON array becomes one line an element. Nothing is
//! held but the piece at hand.

/// Turns a file's bytes into NDJSON, piece by piece.
#[derive(Debug, Default)]
pub struct Feeder {
    shape: Shape,
    /// Lines that hold something, or elements; the last one may still be open.
    entities: u64,
    line_has_content: bool,
}

#[derive(Debug)]
enum Shape {
    /// Only white space so far; it is kept, so that the service counts lines as the file does.
    Unknown(Vec<u8>),
    Lines,
    Array(Splitter),
}

impl Default for Shape {
    fn default() -> Self {
        Self::Unknown(Vec::new())
    }
}

impl Feeder {
    pub fn entities(&self) -> u64 {
        self.entities
    }

    /// What an entity is called in messages: `line 3` of the file, or `element 3` of its array.
    pub fn unit(&self) -> &'static str {
        match self.shape {
            Shape::Array(_) => "element",
            _ => "line",
        }
    }

    /// Whether white space may follow that changes nothing, not even the count of lines.
    pub fn is_between(&self) -> bool {
        match &self.shape {
            Shape::Unknown(_) => true,
            Shape::Lines => !self.line_has_content,
            Shape::Array(splitter) => splitter.at != At::Element,
        }
    }

    /// Takes a piece and puts what to send for it into `out`; after an error that is what came before it.
    pub fn feed(&mut self, mut input: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        if let Shape::Unknown(blank) = &mut self.shape {
            if blank.is_empty() {
                // A byte order mark, if the first piece is long enough to show it.
                input = input.strip_prefix(b"\xef\xbb\xbf").unwrap_or(input);
            }
            let Some(first) = input.iter().position(|byte| !byte.is_ascii_whitespace()) else {
                blank.extend_from_slice(input);
                return Ok(());
            };
            if input[first] == b'[' {
                self.shape = Shape::Array(Splitter::default());
                input = &input[first..];
            } else {
                out.append(blank);
                self.shape = Shape::Lines;
            }
        }
        match &mut self.shape {
            Shape::Array(splitter) => {
                let fed = splitter.feed(input, out);
                self.entities = splitter.elements;
                fed
            }
            _ => {
                self.count_lines(input);
                out.extend_from_slice(input);
                Ok(())
            }
        }
    }

    fn count_lines(&mut self, input: &[u8]) {
        for byte in input {
            match byte {
                b'\n' => self.line_has_content = false,
                byte if !byte.is_ascii_whitespace() && !self.line_has_content => {
                    self.line_has_content = true;
                    self.entities += 1;
                }
                _ => {}
            }
        }
    }

    /// The file is over: whether it may end here.
    pub fn finish(&self) -> Result<(), String> {
        match &self.shape {
            Shape::Array(splitter) if splitter.at != At::End => Err("the file ends within its JSON array".into()),
            _ => Ok(()),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    #[default]
    Start,
    /// After `[`: an element, or the end.
    First,
    /// After a comma.
    Next,
    Element,
    AfterElement,
    End,
}

/// Splits a JSON array of objects. It knows only brackets and strings; the service parses the elements.
#[derive(Debug, Default)]
struct Splitter {
    at: At,
    elements: u64,
    line: u64,
    depth: u32,
    in_string: bool,
    escaped: bool,
}

impl Splitter {
    fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        for &byte in input {
            self.line += u64::from(byte == b'\n');
            if self.at == At::Element {
                self.inside(byte, out)?;
                continue;
            }
            match (self.at, byte) {
                (_, b' ' | b'\t' | b'\r' | b'\n') => {}
                (At::Start, b'[') => self.at = At::First,
                (At::First | At::Next, b'{') => {
                    self.at = At::Element;
                    self.elements += 1;
                    self.depth = 1;
                    out.push(byte);
                }
                (At::First | At::AfterElement, b']') => self.at = At::End,
                (At::AfterElement, b',') => self.at = At::Next,
                (At::First | At::Next, _) => return Err(self.wrong("an entity was expected: an object in braces")),
                (At::AfterElement, _) => return Err(self.wrong("a comma or the end of the array was expected")),
                _ => return Err(self.wrong("nothing was expected after the array")),
            }
        }
        Ok(())
    }

    fn inside(&mut self, byte: u8, out: &mut Vec<u8>) -> Result<(), String> {
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                b'\n' | b'\r' => return Err(self.wrong("a string holds a line break; JSON writes it \\n")),
                _ => {}
            }
        } else {
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => self.depth -= 1,
                _ => {}
            }
        }
        // One element is one line.
        out.push(if matches!(byte, b'\n' | b'\r') { b' ' } else { byte });
        if self.depth == 0 {
            self.at = At::AfterElement;
            out.push(b'\n');
        }
        Ok(())
    }

    fn wrong(&self, what: &str) -> String {
        format!("line {}: {what}", self.line + 1)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn fed(text: &str, size: usize) -> Result<(String, u64), String> {
        let mut feeder = Feeder::default();
        let mut out = Vec::new();
        for piece in text.as_bytes().chunks(size) {
            feeder.feed(piece, &mut out)?;
        }
        feeder.finish()?;
        Ok((String::from_utf8(out).unwrap(), feeder.entities()))
    }

    #[test]
    fn lines_pass_as_they_are() {
        let text = "\n{\"a\":1}\r\n\n  \n{\"b\":\"[\"}";
        for size in [1, 3, 100] {
            assert_eq!(fed(text, size).unwrap(), (text.to_owned(), 2));
        }
        assert_eq!(fed("", 1).unwrap(), (String::new(), 0));
        assert_eq!(fed("\u{feff}{}", 10).unwrap(), ("{}".to_owned(), 1));
    }

    #[test]
    fn an_array_becomes_lines() {
        let text = "\n [\n {\"a\": [1,\n{\"x\":\"}]\\\"\\\\\"}]},\n{}\n , {\"b\":{}}]\n";
        for size in [1, 2, 7, 100] {
            let (out, count) = fed(text, size).unwrap();
            assert_eq!(count, 3);
            let lines: Vec<serde_json::Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            assert_eq!(lines[0], serde_json::json!({"a": [1, {"x": "}]\"\\"}]}));
            assert_eq!(lines.len(), 3);
        }
        assert_eq!(fed("[]", 1).unwrap(), (String::new(), 0));
    }

    #[test]
    fn what_is_no_array_of_objects_is_named_with_its_line() {
        for (text, part) in [
            ("[1]", "line 1: an entity was expected"),
            ("[{},\n\n]", "line 3: an entity was expected"),
            ("[{}\n{}]", "line 2: a comma"),
            ("[{}]x", "line 1: nothing was expected"),
            ("[{\"a\":\"x\ny\"}]", "line break"),
            ("[{}", "ends within"),
            ("[{\"a\":", "ends within"),
            ("[", "ends within"),
        ] {
            let error = fed(text, 2).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_can_break_it(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..100)) {
            let mut bytes = bytes;
            bytes.insert(0, b'[');
            let _ = Feeder::default().feed(&bytes, &mut Vec::new());
        }
    }
}
