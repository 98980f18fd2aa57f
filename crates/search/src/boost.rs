//! Boosts: what is added to a fused score for reasons beyond the two halves.

use std::collections::{BTreeMap, HashSet};

use crate::types::Document;

/// Added when the query is, or contains as a token, the entity's id.
pub const EXACT_IDENTIFIER: f32 = 1.0;

/// The boosts of one document: name to what it adds.
pub type Boosted = BTreeMap<&'static str, f32>;

/// What of a query boosts can depend on, read once per query.
pub struct Boosts {
    /// What could be an id in the query, in lower case.
    identifiers: HashSet<String>,
}

impl Boosts {
    pub fn of(query: &str) -> Self {
        // Cut at all that an id cannot hold; and without the punctuation that a sentence adds.
        let tokens = query.split(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '.' | '-')));
        let tokens = tokens.map(|token| token.trim_matches(['.', '-'])).filter(|token| names_something(token));
        let mut identifiers: HashSet<String> = tokens.map(str::to_lowercase).collect();
        identifiers.insert(query.trim().to_lowercase());
        Self { identifiers }
    }

    /// Which boosts apply to a document.
    pub fn for_document(&self, document: &Document) -> Boosted {
        let mut boosted = Boosted::new();
        let id = document.key.entity_id.as_str().to_ascii_lowercase();
        if self.identifiers.contains(&id) {
            boosted.insert("exact_identifier", EXACT_IDENTIFIER);
        }
        boosted
    }
}

/// Whether a word within a sentence is meant as an id: tickers such as `OIL` are words as well, so
/// a word of letters alone must be written in capitals.
fn names_something(token: &str) -> bool {
    let letters_alone = token.chars().all(char::is_alphabetic);
    !token.is_empty() && (!letters_alone || !token.chars().any(char::is_lowercase))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use crate::order::testing::hit;

    #[test]
    fn an_id_is_found_whole_and_as_a_token_only() {
        let document = hit("NG_HH_BALMO", None, None).document;
        let boosts = |query: &str| !Boosts::of(query).for_document(&document).is_empty();
        for query in ["ng_hh_balmo", "  NG_HH_BALMO ", "price of (ng_hh_balmo).", "what is NG_HH_BALMO?"] {
            assert!(boosts(query), "{query}");
        }
        for query in ["ng hh balmo", "NG_HH", "XNG_HH_BALMO", "NG_HH_BALMO_2"] {
            assert!(!boosts(query), "{query}");
        }
    }

    #[test]
    fn a_ticker_that_is_a_word_is_meant_when_it_is_written_as_one() {
        let document = hit("OIL", None, None).document;
        let boosts = |query: &str| !Boosts::of(query).for_document(&document).is_empty();
        for query in ["OIL", "oil", "price of OIL today"] {
            assert!(boosts(query), "{query}");
        }
        for query in ["crude oil etf", "Oil majors"] {
            assert!(!boosts(query), "{query}");
        }
    }
}
