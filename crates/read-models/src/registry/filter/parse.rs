//! The parser: groups tokens into comparisons and reports the tokens that belong to none.

use super::lex::{Kind, Token, tokens};
use super::values::clause;
use super::{Clause, GrammarError, MAX_CLAUSES, Target, check_text};

/// Reserved words of SQL: without an entity they are no key. MLflow reserves several hundred; these are the ones that
/// could be mistaken for an attribute. Others are rejected as unknown keys.
const RESERVED: [&str; 25] = [
    "alias",
    "asc",
    "by",
    "comment",
    "count",
    "date",
    "desc",
    "from",
    "group",
    "key",
    "limit",
    "max",
    "min",
    "or",
    "order",
    "owner",
    "path",
    "select",
    "source",
    "time",
    "timestamp",
    "type",
    "user",
    "version",
    "where",
];

pub(super) fn is_reserved(word: &str) -> bool {
    RESERVED.iter().any(|reserved| word.eq_ignore_ascii_case(reserved))
}

/// One side of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// Words and quoted names with dots between them.
    Name,
    /// A name in double quotes. As a value it is a text.
    DoubleQuoted,
    SingleQuoted,
    Number,
    /// In parentheses.
    Group,
    /// NULL, or an expression.
    Other,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Operand<'t> {
    pub side: Side,
    pub text: &'t str,
}

/// The operator of a comparison as it is written, except that the case and the spaces of IS and NOT IN are normalised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator<'t> {
    Written(&'t str),
    NotIn,
    IsNull,
    IsNotNull,
}

impl<'t> Operator<'t> {
    pub fn as_str(&self) -> &'t str {
        match self {
            Operator::Written(text) => text,
            Operator::NotIn => "NOT IN",
            Operator::IsNull => "IS NULL",
            Operator::IsNotNull => "IS NOT NULL",
        }
    }

    fn is_null(&self) -> bool {
        matches!(self, Operator::IsNull | Operator::IsNotNull)
    }

    fn wants_list(&self) -> bool {
        *self == Operator::NotIn || self.as_str().eq_ignore_ascii_case("in")
    }
}

/// A comparison in the text. IS NULL has no right side.
#[derive(Clone, Copy, Debug)]
pub(super) struct Comparison<'t> {
    pub left: Operand<'t>,
    pub operator: Operator<'t>,
    pub right: Option<Operand<'t>>,
}

/// The clauses of a filter, all of which must match. An empty filter has none.
pub fn parse_filter(target: Target, text: &str) -> Result<Vec<Clause>, GrammarError> {
    check_text("filter", text)?;
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let mut parser = Parser::new(text);
    if parser.tokens.is_empty() {
        return Err(GrammarError::new(match target {
            Target::LoggedModels => one_expression(text),
            _ => format!("Invalid filter '{text}'. Could not be parsed."),
        }));
    }
    if parser.has_statements() {
        return Err(GrammarError::new(match target {
            Target::LoggedModels => one_expression(text),
            _ => format!(
                "Search filter contained multiple expression {}. Provide AND-ed expression list.",
                python_repr(text)
            ),
        }));
    }
    let (comparisons, leftover) = parser.comparisons();
    if !leftover.is_empty() {
        return Err(invalid_clauses(target, text, &leftover));
    }
    if comparisons.len() > MAX_CLAUSES {
        let count = comparisons.len();
        return Err(GrammarError::new(format!(
            "Invalid filter: it has {count} clauses, at most {MAX_CLAUSES} are allowed."
        )));
    }
    comparisons.iter().map(|comparison| clause(target, comparison)).collect()
}

fn one_expression(text: &str) -> String {
    format!("Invalid filter string: {}. Expected a single SQL expression.", python_repr(text))
}

fn invalid_clauses(target: Target, text: &str, leftover: &[&str]) -> GrammarError {
    let list = match target {
        Target::LoggedModels => {
            return GrammarError::new(format!(
                "Invalid filter string: {}. Expected a list of comparisons separated by 'AND' (e.g. 'metrics.loss > \
                 0.1 AND params.lr = 0.01').",
                python_repr(text)
            ));
        }
        Target::Runs => leftover.iter().map(|each| format!("'{each}'")).collect::<Vec<_>>().join(", "),
        _ => leftover.join(", "),
    };
    GrammarError::new(format!("Invalid clause(s) in filter string: {list}"))
}

/// A text as `repr` of Python prints it, for messages.
pub(super) fn python_repr(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut repr = String::with_capacity(text.len() + 2);
    repr.push(quote);
    for c in text.chars() {
        match c {
            '\n' => repr.push_str("\\n"),
            '\r' => repr.push_str("\\r"),
            '\t' => repr.push_str("\\t"),
            '\\' => repr.push_str("\\\\"),
            c if c == quote => repr.extend(['\\', c]),
            c if c.is_control() => repr.push_str(&format!("\\x{:02x}", c as u32)),
            c => repr.push(c),
        }
    }
    repr.push(quote);
    repr
}

pub(super) struct Parser<'t> {
    text: &'t str,
    tokens: Vec<Token>,
    /// For each opening parenthesis the token that closes it.
    closes: Vec<Option<usize>>,
    at: usize,
}

impl<'t> Parser<'t> {
    pub fn new(text: &'t str) -> Self {
        let tokens = tokens(text);
        let mut closes = vec![None; tokens.len()];
        let mut open = Vec::new();
        for (at, token) in tokens.iter().enumerate() {
            match token.kind {
                Kind::Open => open.push(at),
                Kind::Close => {
                    if let Some(opened) = open.pop() {
                        closes[opened] = Some(at);
                    }
                }
                _ => {}
            }
        }
        Self { text, tokens, closes, at: 0 }
    }

    /// Whether a token follows a semicolon.
    fn has_statements(&self) -> bool {
        let all_but_last = self.tokens.len().saturating_sub(1);
        self.tokens[..all_but_last].iter().any(|token| token.kind == Kind::Semicolon)
    }

    /// The comparisons, and the texts of all other tokens except AND. The places of AND are not checked: MLflow accepts
    /// a filter that begins or ends with AND, or lacks one.
    fn comparisons(&mut self) -> (Vec<Comparison<'t>>, Vec<&'t str>) {
        let (mut comparisons, mut leftover) = (Vec::new(), Vec::new());
        while let Some(text) = self.peek_text() {
            if self.is_word("and") {
                self.at += 1;
                continue;
            }
            let Some(left) = self.operand() else {
                leftover.push(text);
                self.at += 1;
                continue;
            };
            let before = self.at;
            let Some(operator) = self.operator() else {
                leftover.push(left.text);
                continue;
            };
            let operator_text = self.since(before);
            if operator.is_null() {
                if matches!(left.side, Side::Name | Side::DoubleQuoted) {
                    comparisons.push(Comparison { left, operator, right: None });
                } else {
                    leftover.extend([left.text, operator_text]);
                }
                continue;
            }
            match self.operand() {
                Some(right) if right.side == Side::Group || !operator.wants_list() => {
                    comparisons.push(Comparison { left, operator, right: Some(right) });
                }
                right => {
                    leftover.extend([left.text, operator_text]);
                    leftover.extend(right.map(|right| right.text));
                }
            }
        }
        (comparisons, leftover)
    }

    fn peek(&self) -> Option<Token> {
        self.tokens.get(self.at).copied()
    }

    fn peek_text(&self) -> Option<&'t str> {
        self.peek().map(|token| token.text(self.text))
    }

    fn is_word_at(&self, at: usize, word: &str) -> bool {
        self.tokens.get(at).is_some_and(|token| token.text(self.text).eq_ignore_ascii_case(word))
    }

    fn is_word(&self, word: &str) -> bool {
        self.is_word_at(self.at, word)
    }

    /// The text from that token to the current one.
    fn since(&self, first: usize) -> &'t str {
        let start = self.tokens.get(first).map_or(self.text.len(), |token| token.start);
        let end = self.at.checked_sub(1).and_then(|last| self.tokens.get(last)).map_or(start, |token| token.end);
        self.text.get(start..end).unwrap_or_default()
    }

    pub fn ended(&self) -> bool {
        self.at == self.tokens.len()
    }

    /// Whether the tokens fill the text: no character, not even white space, is before the first or after the last
    /// token.
    pub fn fills(&self) -> bool {
        self.tokens.first().is_some_and(|token| token.start == 0)
            && self.tokens.last().is_some_and(|token| token.end == self.text.len())
    }

    pub fn word(&mut self) -> Option<&'t str> {
        let token = self.peek().filter(|token| token.kind == Kind::Word)?;
        self.at += 1;
        Some(token.text(self.text))
    }

    fn operator(&mut self) -> Option<Operator<'t>> {
        let first = self.peek()?;
        let text = first.text(self.text);
        let not = usize::from(self.is_word("not"));
        let (operator, length) = if first.kind == Kind::Compare && text != "!" {
            (Operator::Written(text), 1)
        } else if self.is_word_at(self.at + not, "like") || self.is_word_at(self.at + not, "ilike") {
            let last = self.tokens.get(self.at + not)?;
            (Operator::Written(&self.text[first.start..last.end]), 1 + not)
        } else if self.is_word("in") {
            (Operator::Written(text), 1)
        } else if not == 1 && self.is_word_at(self.at + 1, "in") {
            (Operator::NotIn, 2)
        } else if self.is_word("is") && self.is_word_at(self.at + 1, "null") {
            (Operator::IsNull, 2)
        } else if self.is_word("is") && self.is_word_at(self.at + 1, "not") && self.is_word_at(self.at + 2, "null") {
            (Operator::IsNotNull, 3)
        } else {
            return None;
        };
        self.at += length;
        Some(operator)
    }

    /// An operand, or an expression of several that an operator such as `-` joins.
    pub fn operand(&mut self) -> Option<Operand<'t>> {
        let first = self.at;
        let mut operand = self.simple_operand()?;
        while self.peek().is_some_and(|token| token.kind == Kind::Arithmetic) {
            let joint = self.at;
            self.at += 1;
            if self.simple_operand().is_none() {
                self.at = joint;
                break;
            }
            operand = Operand { side: Side::Other, text: self.since(first) };
        }
        Some(operand)
    }

    fn simple_operand(&mut self) -> Option<Operand<'t>> {
        let (first, token) = (self.at, self.peek()?);
        let side = match token.kind {
            Kind::Number => Side::Number,
            Kind::Single => Side::SingleQuoted,
            Kind::Open => {
                self.at = self.closes.get(first).copied().flatten()?;
                Side::Group
            }
            Kind::Word | Kind::Double | Kind::Backtick => {
                let dotted = self.dotted_name();
                let text = token.text(self.text);
                if !dotted && token.kind == Kind::Word {
                    let is = |word: &str| text.eq_ignore_ascii_case(word);
                    if is("null") {
                        self.at += 1;
                        return Some(Operand { side: Side::Other, text });
                    }
                    if is_reserved(text) || ["and", "not", "like", "ilike", "in", "is"].into_iter().any(is) {
                        return None;
                    }
                }
                if !dotted && token.kind == Kind::Double { Side::DoubleQuoted } else { Side::Name }
            }
            _ => return None,
        };
        self.at += 1;
        Some(Operand { side, text: self.since(first) })
    }

    /// Advances to the last token of a name, whose tokens have no space between them. Returns whether the name has a
    /// dot. Nothing has to follow a dot, and reserved words are accepted after one.
    fn dotted_name(&mut self) -> bool {
        let mut dotted = false;
        while let (Some(token), Some(next)) = (self.peek(), self.tokens.get(self.at + 1)) {
            let part = matches!(next.kind, Kind::Word | Kind::Single | Kind::Double | Kind::Backtick);
            let follows = next.kind == Kind::Dot || (part && token.kind == Kind::Dot);
            if next.start != token.end || !follows {
                break;
            }
            dotted = true;
            self.at += 1;
        }
        dotted
    }
}
