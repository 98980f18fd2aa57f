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
        let query = query.to_lowercase();
        // Cut at all that an id cannot hold; and without the punctuation that a sentence adds.
        let tokens = query.split(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '.' | '-')));
        let tokens = tokens.flat_map(|token| [token, token.trim_matches(['.', '-'])]);
        let mut identifiers: HashSet<String> = tokens.filter(|t| !t.is_empty()).map(str::to_owned).collect();
        identifiers.insert(query.trim().to_owned());
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
}
