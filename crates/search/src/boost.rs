//! Boosts: amounts that are added to a fused score. Today there is one, for an exact identifier.

use std::collections::{BTreeMap, HashSet};

use crate::types::Document;

/// Added if the query is the entity's id or contains it as a token. As much as the highest fused score.
pub const EXACT_IDENTIFIER: f32 = 1.0;

/// The boosts of one document: name and the amount added to the score.
pub type Boosted = BTreeMap<&'static str, f32>;

/// The parts of a query that boosts depend on, computed once per query.
pub struct Boosts {
    /// Tokens of the query that may be an id, and the whole query; in lower case.
    identifiers: HashSet<String>,
}

impl Boosts {
    /// Extracts the possible identifiers of a query.
    pub fn of(query: &str) -> Self {
        // Split at characters that an id cannot contain, then trim the punctuation of a sentence.
        let tokens = query.split(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '.' | '-')));
        let tokens = tokens.map(|token| token.trim_matches(['.', '-'])).filter(|token| is_written_as_id(token));
        let mut identifiers: HashSet<String> = tokens.map(str::to_lowercase).collect();
        identifiers.insert(query.trim().to_lowercase());
        Self { identifiers }
    }

    /// Returns the boosts that apply to a document.
    pub fn for_document(&self, document: &Document) -> Boosted {
        let mut boosted = Boosted::new();
        let id = document.key.entity_id.as_str().to_ascii_lowercase();
        if self.identifiers.contains(&id) {
            boosted.insert("exact_identifier", EXACT_IDENTIFIER);
        }
        boosted
    }
}

/// True if a token within a sentence is meant as an id. Tickers such as `OIL` are also words, so a token of letters
/// only must be in upper case.
fn is_written_as_id(token: &str) -> bool {
    let letters_alone = token.chars().all(char::is_alphabetic);
    !token.is_empty() && (!letters_alone || !token.chars().any(char::is_lowercase))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use crate::order::testing::hit;

    #[test]
    fn an_id_is_boosted_as_the_whole_query_or_as_a_token() {
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
    fn a_ticker_that_is_also_a_word_is_boosted_in_upper_case_or_as_the_whole_query() {
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
