//! Text analysis: splits text into terms. Documents and queries use the same function.
//!
//! A word is a run of letters and digits. It is lower-cased and stemmed (Porter 2); English stop words are dropped.
//! Words joined by `_`, `.`, `-` or `/` are a compound. A compound gives one unstemmed term for itself, and then one
//! term for each of its words: `NG_HH_BALMO` gives `ng_hh_balmo`, `ng`, `hh`, `balmo`.

use std::ops::Range;
use std::sync::LazyLock;

use tantivy::tokenizer::{Language, Stemmer, StopWordFilter, Token, TokenFilter, TokenStream, Tokenizer};

/// Maximum length of a term. A longer term is dropped; the words of a compound that is too long are kept.
const MAX_TERM_BYTES: usize = 255;

static STOP_WORDS: LazyLock<StopWordFilter> =
    LazyLock::new(|| StopWordFilter::new(Language::English).unwrap_or_else(|| StopWordFilter::remove(Vec::new())));

/// A token stream over one token, which the caller sets. tantivy's filters are built once over this stream, and their
/// buffers are reused for every word. `position` is 0 for a new token and 1 after the token was consumed.
#[derive(Clone, Default)]
struct SingleToken(Token);

impl TokenStream for SingleToken {
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

impl Tokenizer for SingleToken {
    type TokenStream<'a> = SingleToken;
    fn token_stream<'a>(&'a mut self, _text: &'a str) -> SingleToken {
        SingleToken::default()
    }
}

/// An iterator over the terms of a text, which lends each term.
pub struct Terms<'t> {
    scanner: Scanner<'t>,
    /// The filters for words: stop words and stemmer.
    words: Box<dyn TokenStream>,
    /// Buffer for a whole compound.
    whole: String,
}

/// Returns the terms of `text`.
pub fn terms(text: &str) -> Terms<'_> {
    let mut chain = Stemmer::new(Language::English).transform(STOP_WORDS.clone().transform(SingleToken::default()));
    Terms { scanner: Scanner::new(text), words: Box::new(chain.token_stream("")), whole: String::new() }
}

impl Terms<'_> {
    /// The next term, borrowed from a buffer that the next call overwrites.
    #[allow(clippy::should_implement_trait)] // `Iterator` cannot lend.
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

    /// Calls `each` with every term.
    pub fn for_each(mut self, mut each: impl FnMut(&str)) {
        while let Some(term) = self.next() {
            each(term);
        }
    }
}

/// Calls `each` with every term of a document: the terms of its id (the compound and its words), then those of its
/// text.
pub fn for_each_document_term(entity_id: &str, text: &str, mut each: impl FnMut(&str)) {
    terms(entity_id).for_each(&mut each);
    terms(text).for_each(each);
}

/// Returns the number of terms of a document: its length for BM25.
pub fn count_document_terms(entity_id: &str, text: &str) -> u32 {
    let mut count = 0;
    for_each_document_term(entity_id, text, |_| count += 1);
    count
}

/// Overwrites `out` with `text` in lower case.
fn lowercase(text: &str, out: &mut String) {
    out.clear();
    if text.is_ascii() {
        out.push_str(text);
        out.make_ascii_lowercase();
        return;
    }
    for c in text.chars() {
        match c {
            // The stemmer knows only the ASCII apostrophe.
            '\u{2019}' => out.push('\''),
            _ => out.extend(c.to_lowercase()),
        }
    }
}

/// True for a character that joins the words of a compound.
fn is_joiner(c: char) -> bool {
    matches!(c, '_' | '.' | '-' | '/')
}

/// Finds words and compounds, as byte ranges of the text.
struct Scanner<'t> {
    text: &'t str,
    /// Byte offset of the rest of the text.
    at: usize,
    /// The words still to be returned of the compound that was returned last.
    parts: Range<usize>,
}

impl<'t> Scanner<'t> {
    fn new(text: &'t str) -> Self {
        Self { text, at: 0, parts: 0..0 }
    }

    /// The next word or compound; true for a compound. After a compound follow its words.
    fn next(&mut self) -> Option<(Range<usize>, bool)> {
        if let Some(part) = self.next_part() {
            return Some((part, false));
        }
        let start = self.at + self.text[self.at..].find(char::is_alphanumeric)?;
        let mut end = self.word_end(start);
        let mut compound = false;
        while let Some(after) = self.next_joined(end) {
            compound = true;
            end = self.word_end(after);
        }
        self.at = end;
        if compound {
            self.parts = start..end;
        }
        Some((start..end, compound))
    }

    /// The next word of the current compound.
    fn next_part(&mut self) -> Option<Range<usize>> {
        let rest = &self.text[self.parts.clone()];
        let start = self.parts.start + rest.find(char::is_alphanumeric)?;
        let end = self.word_end(start);
        self.parts.start = end;
        Some(start..end)
    }

    /// End of the word that starts at `start`. An apostrophe inside the word is part of it if a letter follows.
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

    /// Start of the next word of a compound, if one or two joiners follow `end` directly.
    fn next_joined(&self, end: usize) -> Option<usize> {
        let mut chars = self.text[end..].chars();
        let first = chars.next().filter(|c| is_joiner(*c))?;
        let mut after = end + first.len_utf8();
        let mut next = chars.next()?;
        if is_joiner(next) {
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
    fn a_compound_gives_itself_and_its_words() {
        assert_eq!(all("NG_HH_BALMO"), ["ng_hh_balmo", "ng", "hh", "balmo"]);
        assert_eq!(all("u.s. crude"), ["u.s", "u", "s", "crude"]);
        assert_eq!(all("risk-adjusted returns"), ["risk-adjusted", "risk", "adjust", "return"]);
        assert_eq!(all("USD/MWh, 2.5"), ["usd/mwh", "usd", "mwh", "2.5", "2", "5"]);
        assert_eq!(all("_x- a__b"), ["x", "a__b", "b"]);
        assert_eq!(all("wait...what"), ["wait", "what"]);
    }

    #[test]
    fn words_are_lower_cased_and_stemmed_and_stop_words_dropped() {
        assert_eq!(
            all("The Company\u{2019}s prices were TRADING in 2026"),
            ["compani", "price", "were", "trade", "2026"]
        );
        assert_eq!(all("STRASSE Ölpreis ÇA"), ["strass", "ölprei", "ça"]);
        assert!(all(" \u{0} ... the of ").is_empty());
        assert_eq!(all(&format!("{}_end", "x".repeat(300))), ["end"]);
    }

    #[test]
    fn the_term_count_equals_the_number_of_terms() {
        let mut count = 0;
        for_each_document_term("NG_HH", "gas at the hub", |_| count += 1);
        assert_eq!((count, count_document_terms("NG_HH", "gas at the hub")), (5, 5));
    }

    proptest::proptest! {
        #[test]
        fn terms_of_any_text_are_not_empty_and_not_too_long(text in "\\PC{0,60}|[a-zA-Z_./' -]{0,40}") {
            for term in all(&text) {
                proptest::prop_assert!(!term.is_empty());
                proptest::prop_assert!(term.len() <= MAX_TERM_BYTES);
            }
        }
    }
}
