//! From text to terms: one function for documents and queries.
//!
//! A word is a run of letters and digits, lower-cased, without English stop words, stemmed
//! (Porter 2). Words joined by `_`, `.`, `-` or `/` are a compound, which yields itself whole,
//! unstemmed, and then its parts as words: `NG_HH_BALMO` is `ng_hh_balmo`, `ng`, `hh`, `balmo`.

use std::ops::Range;
use std::sync::LazyLock;

use tantivy::tokenizer::{Language, Stemmer, StopWordFilter, Token, TokenFilter, TokenStream, Tokenizer};

/// Longer terms are left out; a compound's parts stay.
const MAX_TERM_BYTES: usize = 255;

static STOP_WORDS: LazyLock<StopWordFilter> =
    LazyLock::new(|| StopWordFilter::new(Language::English).unwrap_or_else(|| StopWordFilter::remove(Vec::new())));

/// A stream over one token that is set from outside, so that tantivy's filters can be put over
/// it and their buffers used again for word after word. `position` 1 says that it is spent.
#[derive(Clone, Default)]
struct Slot(Token);

impl TokenStream for Slot {
    fn advance(&mut self) -> bool {
        let fresh = self.0.position == 0;
        self.0.position = 1;
        fresh
    }
    fn token(&self) -> &Token {
        &self.0
    }
    fn token_mut(&mut self) -> &mut Token {
        &mut self.0
    }
}

impl Tokenizer for Slot {
    type TokenStream<'a> = Slot;
    fn token_stream<'a>(&'a mut self, _text: &'a str) -> Slot {
        Slot::default()
    }
}

/// The terms of a text, one after the other.
pub struct Terms<'t> {
    scanner: Scanner<'t>,
    words: Box<dyn TokenStream>,
    whole: String,
}

/// The terms of `text`.
pub fn terms(text: &str) -> Terms<'_> {
    let mut chain = Stemmer::new(Language::English).transform(STOP_WORDS.clone().transform(Slot::default()));
    Terms { scanner: Scanner::new(text), words: Box::new(chain.token_stream("")), whole: String::new() }
}

impl Terms<'_> {
    /// The next term; it is borrowed from a buffer that is used again.
    #[allow(clippy::should_implement_trait)] // Lends, which `Iterator` cannot.
    pub fn next(&mut self) -> Option<&str> {
        loop {
            let (range, whole) = self.scanner.next()?;
            let piece = &self.scanner.text[range];
            if whole {
                lowercase(piece, &mut self.whole);
                if self.whole.len() <= MAX_TERM_BYTES {
                    break;
                }
                continue;
            }
            let token = self.words.token_mut();
            lowercase(piece, &mut token.text);
            token.position = 0;
            if token.text.len() <= MAX_TERM_BYTES && self.words.advance() {
                return Some(&self.words.token().text);
            }
        }
        Some(&self.whole)
    }

    pub fn for_each(mut self, mut each: impl FnMut(&str)) {
        while let Some(term) = self.next() {
            each(term);
        }
    }
}

/// The terms of a document: those of its id (whole, and in parts), then those of its text.
pub fn for_each_document_term(entity_id: &str, text: &str, mut each: impl FnMut(&str)) {
    terms(entity_id).for_each(&mut each);
    terms(text).for_each(each);
}

/// How many terms a document has.
pub fn count_document_terms(entity_id: &str, text: &str) -> u32 {
    let mut count = 0;
    for_each_document_term(entity_id, text, |_| count += 1);
    count
}

fn lowercase(text: &str, out: &mut String) {
    out.clear();
    if text.is_ascii() {
        out.push_str(text);
        out.make_ascii_lowercase();
        return;
    }
    for c in text.chars() {
        match c {
            // So that the stemmer knows it.
            '\u{2019}' => out.push('\''),
            _ => out.extend(c.to_lowercase()),
        }
    }
}

fn joins(c: char) -> bool {
    matches!(c, '_' | '.' | '-' | '/')
}

/// Finds words, and compounds with their parts, as ranges of the text.
struct Scanner<'t> {
    text: &'t str,
    at: usize,
    /// What is left of the compound that was just given out whole.
    parts: Range<usize>,
}

impl<'t> Scanner<'t> {
    fn new(text: &'t str) -> Self {
        Self { text, at: 0, parts: 0..0 }
    }

    /// The next piece, and whether it is a whole compound.
    fn next(&mut self) -> Option<(Range<usize>, bool)> {
        if let Some(part) = self.next_part() {
            return Some((part, false));
        }
        let start = self.at + self.text[self.at..].find(char::is_alphanumeric)?;
        let mut end = self.word_end(start);
        let mut compound = false;
        while let Some(after) = self.joined(end) {
            compound = true;
            end = self.word_end(after);
        }
        self.at = end;
        if compound {
            self.parts = start..end;
        }
        Some((start..end, compound))
    }

    fn next_part(&mut self) -> Option<Range<usize>> {
        let rest = &self.text[self.parts.clone()];
        let start = self.parts.start + rest.find(char::is_alphanumeric)?;
        let end = self.word_end(start);
        self.parts.start = end;
        Some(start..end)
    }

    /// Where the word that begins at `start` ends; an apostrophe inside belongs to it.
    fn word_end(&self, start: usize) -> usize {
        let mut chars = self.text[start..].char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            let inside = c.is_alphanumeric()
                || (matches!(c, '\'' | '\u{2019}') && at > 0 && chars.peek().is_some_and(|(_, c)| c.is_alphabetic()));
            if !inside {
                return start + at;
            }
        }
        self.text.len()
    }

    /// Where the next word of a compound begins, if one or two joints lead from `end` to it.
    fn joined(&self, end: usize) -> Option<usize> {
        let mut chars = self.text[end..].chars();
        let first = chars.next().filter(|c| joins(*c))?;
        let mut after = end + first.len_utf8();
        let mut next = chars.next()?;
        if joins(next) {
            after += next.len_utf8();
            next = chars.next()?;
        }
        next.is_alphanumeric().then_some(after)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn all(text: &str) -> Vec<String> {
        let mut found = Vec::new();
        terms(text).for_each(|term| found.push(term.to_owned()));
        found
    }

    #[test]
    fn compounds_yield_themselves_and_their_parts() {
        assert_eq!(all("NG_HH_BALMO"), ["ng_hh_balmo", "ng", "hh", "balmo"]);
        assert_eq!(all("u.s. crude"), ["u.s", "u", "s", "crude"]);
        assert_eq!(all("risk-adjusted returns"), ["risk-adjusted", "risk", "adjust", "return"]);
        assert_eq!(all("USD/MWh, 2.5"), ["usd/mwh", "usd", "mwh", "2.5", "2", "5"]);
        assert_eq!(all("_x- a__b"), ["x", "a__b", "b"]);
        assert_eq!(all("wait...what"), ["wait", "what"]);
    }

    #[test]
    fn words_are_lowered_stemmed_and_stop_words_dropped() {
        assert_eq!(
            all("The Company\u{2019}s prices were TRADING in 2026"),
            ["compani", "price", "were", "trade", "2026"]
        );
        assert_eq!(all("STRASSE Ölpreis ÇA"), ["strass", "ölprei", "ça"]);
        assert!(all(" \u{0} ... the of ").is_empty());
        assert_eq!(all(&format!("{}_end", "x".repeat(300))), ["end"]);
    }

    #[test]
    fn a_documents_count_is_that_of_its_terms() {
        let mut count = 0;
        for_each_document_term("NG_HH", "gas at the hub", |_| count += 1);
        assert_eq!((count, count_document_terms("NG_HH", "gas at the hub")), (5, 5));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_taken_and_terms_are_their_own_terms_lowercase(text in "\\PC{0,60}|[a-zA-Z_./' -]{0,40}") {
            for term in all(&text) {
                proptest::prop_assert!(!term.is_empty());
                proptest::prop_assert!(term.len() <= MAX_TERM_BYTES);
            }
        }
    }
}
