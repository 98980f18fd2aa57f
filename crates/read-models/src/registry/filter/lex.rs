//! The lexer: splits a text into tokens in one pass that reads each character a bounded number of times.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Letters, digits and underscores, but no number.
    Word,
    Number,
    /// `'...'`
    Single,
    /// `"..."`
    Double,
    /// `` `...` ``
    Backtick,
    Dot,
    /// A sequence of `< > = ! ~`, also if there is no such operator.
    Compare,
    /// An operator that joins operands into an expression. No clause accepts an expression.
    Arithmetic,
    Open,
    Close,
    Comma,
    Semicolon,
    Comment,
    /// Any other character, for example a quote that is not closed.
    Other,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Token {
    pub kind: Kind,
    pub start: usize,
    pub end: usize,
}

impl Token {
    pub fn text<'t>(&self, text: &'t str) -> &'t str {
        &text[self.start..self.end]
    }
}

/// The tokens of a text, without white space.
pub(super) fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    // After this index no comment ends, so the search is not repeated.
    let comments = text.rfind("*/").unwrap_or(0);
    let mut start = 0;
    while let Some(first) = text[start..].chars().next() {
        if first.is_whitespace() {
            start += first.len_utf8();
            continue;
        }
        let rest = &text[start..];
        let (kind, length) = token(rest, first, start < comments);
        tokens.push(Token { kind, start, end: start + length });
        start += length;
    }
    tokens
}

fn token(rest: &str, first: char, comments: bool) -> (Kind, usize) {
    if let Some(length) = comment(rest, comments) {
        return (Kind::Comment, length);
    }
    if let Some(length) = number(rest) {
        return (Kind::Number, length);
    }
    let quote = match first {
        '\'' => Some(Kind::Single),
        '"' => Some(Kind::Double),
        '`' => Some(Kind::Backtick),
        _ => None,
    };
    if let Some(kind) = quote {
        return quoted(rest, first as u8).map_or((Kind::Other, 1), |length| (kind, length));
    }
    if is_word(first) {
        return (Kind::Word, run(rest, is_word));
    }
    match first {
        '<' | '>' | '=' | '!' | '~' => (Kind::Compare, run(rest, |c| matches!(c, '<' | '>' | '=' | '!' | '~'))),
        '+' | '-' | '*' | '/' | '%' | '|' | '&' | '^' | '@' => {
            (Kind::Arithmetic, if rest.starts_with("||") { 2 } else { 1 })
        }
        '.' => (Kind::Dot, 1),
        '(' => (Kind::Open, 1),
        ')' => (Kind::Close, 1),
        ',' => (Kind::Comma, 1),
        ';' => (Kind::Semicolon, 1),
        _ => (Kind::Other, first.len_utf8()),
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn run(text: &str, of: impl Fn(char) -> bool) -> usize {
    text.find(|c| !of(c)).unwrap_or(text.len())
}

/// `-- to the end of the line`, `# the same`, `/* ... */`
fn comment(rest: &str, ends: bool) -> Option<usize> {
    if rest.starts_with("--") || rest.starts_with('#') {
        return Some(rest.find('\n').map_or(rest.len(), |at| at + 1));
    }
    if !ends {
        return None;
    }
    rest.strip_prefix("/*")?.find("*/").map(|at| at + 4)
}

/// `-?digits[.digits][e[+-]digits]` or `-?.digits[e[+-]digits]`, followed by no letter.
fn number(rest: &str) -> Option<usize> {
    let bytes = rest.as_bytes();
    let digits = |from: usize| bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let letter = |at: usize| rest[at..].chars().next().is_some_and(is_word);
    let mut at = usize::from(bytes.first() == Some(&b'-'));
    let whole = digits(at);
    at += whole;
    let mut fraction = 0;
    if bytes.get(at) == Some(&b'.') {
        fraction = digits(at + 1);
        // `5.` is a number. In `5.e3` the dot is not part of the number.
        if fraction > 0 || (whole > 0 && !letter(at + 1)) {
            at += 1 + fraction;
        }
    }
    if whole + fraction == 0 {
        return None;
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
        let exponent = digits((at + 1 + sign).min(bytes.len()));
        if exponent > 0 {
            at += 1 + sign + exponent;
        }
    }
    (!letter(at)).then_some(at)
}

/// The length of a quoted text with its quotes. A quote that is doubled, or that follows a backslash (except in
/// backticks), does not end the text, unless no other quote does: `'C:\'`.
fn quoted(rest: &str, quote: u8) -> Option<usize> {
    let bytes = rest.as_bytes();
    let mut fallback = None;
    let mut at = 1;
    while let Some(&byte) = bytes.get(at) {
        if byte == quote {
            if bytes.get(at + 1) != Some(&quote) {
                return Some(at + 1);
            }
            fallback = Some(at + 1);
            at += 2;
        } else if byte == b'\\' && quote != b'`' && bytes.get(at + 1) == Some(&quote) {
            fallback = Some(at + 2);
            at += 2;
        } else {
            at += 1;
        }
    }
    fallback
}
