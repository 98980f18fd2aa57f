//! Feature hashing (Weinberger et al. 2009): vectors from hashed words and character trigrams, without weights. Texts
//! with similar spelling have similar vectors. It serves tests, and machines without a model.

use crate::InferenceError;
use crate::encoder::{PrepareError, Prepared, TextModel, normalise};

/// The feature-hashing model.
pub(crate) struct FeatureHashing {
    /// Number of components of a vector.
    dimension: usize,
    /// A text is truncated to this many words.
    max_words: usize,
}

/// Weight of a word; a trigram has weight 1.
const WORD_WEIGHT: f32 = 2.0;

impl FeatureHashing {
    pub fn new(dimension: usize, max_words: usize) -> Self {
        Self { dimension: dimension.max(1), max_words }
    }
}

/// FNV-1a (64-bit) with the finaliser of MurmurHash3, because the low bits of FNV-1a are weak. `kind` separates words
/// from trigrams.
fn hash(kind: u8, bytes: impl Iterator<Item = u8>) -> u32 {
    let mut state = 0xcbf2_9ce4_8422_2325_u64;
    for byte in std::iter::once(kind).chain(bytes) {
        state = (state ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    state = (state ^ (state >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    state = (state ^ (state >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    (state >> 32) as u32
}

/// Appends the ids of a word and of its trigrams. Bit 0 of an id is the sign, bit 1 is set for a word, and the other
/// bits select the component. Trigrams include start and end marks of the word.
fn features(word: &str, ids: &mut Vec<u32>) {
    ids.push(hash(b'w', word.bytes()) | 0b10);
    let delimited: Vec<char> = std::iter::once('\u{2}').chain(word.chars()).chain(std::iter::once('\u{3}')).collect();
    for trigram in delimited.windows(3) {
        let mut buffer = [0u8; 12];
        let mut end = 0;
        for c in trigram {
            end += c.encode_utf8(&mut buffer[end..]).len();
        }
        ids.push(hash(b't', buffer[..end].iter().copied()) & !0b10);
    }
}

impl TextModel for FeatureHashing {
    fn dimension(&self) -> usize {
        self.dimension
    }

    fn prepare(&self, text: &str) -> Result<Prepared, PrepareError> {
        let lower = text.to_lowercase();
        let mut words: Vec<&str> =
            lower.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
        if words.is_empty() {
            words = lower.split_whitespace().collect();
        }
        if words.is_empty() {
            return Err(PrepareError::NotEmbeddable("it is empty"));
        }
        let truncated = words.len() > self.max_words;
        words.truncate(self.max_words);
        let mut ids = Vec::new();
        words.iter().for_each(|word| features(word, &mut ids));
        Ok(Prepared { ids, tokens: words.len() as u32, truncated })
    }

    fn run(&self, batch: &[&[u32]]) -> Result<Vec<Vec<f32>>, InferenceError> {
        let embed = |ids: &&[u32]| {
            let mut vector = vec![0.0f32; self.dimension];
            let component = |id: u32| (id >> 2) as usize % self.dimension;
            for &id in ids.iter() {
                let weight = if id & 0b10 != 0 { WORD_WEIGHT } else { 1.0 };
                vector[component(id)] += if id & 1 == 0 { weight } else { -weight };
            }
            // All features cancelled out: use the first one alone.
            if !normalise(&mut vector) {
                vector[ids.first().map_or(0, |&id| component(id))] = 1.0;
            }
            vector
        };
        Ok(batch.iter().map(embed).collect())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn embed(text: &str) -> Vec<f32> {
        let model = FeatureHashing::new(384, 4096);
        let prepared = model.prepare(text).unwrap();
        model.run(&[&prepared.ids]).unwrap().remove(0)
    }

    fn cosine(a: &[f32], b: &[f32]) -> f32 {
        a.iter().zip(b).map(|(a, b)| a * b).sum()
    }

    #[test]
    fn vectors_are_equal_on_all_machines_and_builds() {
        let vector = embed("Henry Hub natural gas, day-ahead");
        let first: Vec<(usize, f32)> =
            vector.iter().copied().enumerate().filter(|(_, value)| *value != 0.0).take(4).collect();
        assert_eq!(first, GOLDEN);
        assert!((cosine(&vector, &vector) - 1.0).abs() < 1e-6);
    }

    const GOLDEN: [(usize, f32); 4] = [(14, 0.14142136), (54, 0.14142136), (62, 0.14142136), (69, 0.14142136)];

    #[test]
    fn vectors_ignore_case_and_punctuation_and_depend_on_spelling() {
        let gas = embed("Henry Hub natural gas");
        assert_eq!(gas, embed("  henry hub: NATURAL gas! "));
        assert!(cosine(&gas, &embed("natural gases at henry hub")) > 0.5);
        assert!(cosine(&gas, &embed("wheat from France")) < 0.3);
    }

    #[test]
    fn texts_without_letters_have_a_vector_and_blank_texts_have_none() {
        assert_ne!(embed("+++"), embed("???"));
        let model = FeatureHashing::new(384, 4096);
        assert!(matches!(model.prepare(" \n\t"), Err(PrepareError::NotEmbeddable(_))));
    }

    #[test]
    fn a_long_text_is_truncated_and_reported_as_truncated() {
        let model = FeatureHashing::new(384, 3);
        let truncated = model.prepare("one two three four").unwrap();
        assert_eq!((truncated.tokens, truncated.truncated), (3, true));
        assert_eq!(truncated.ids, model.prepare("one two three").unwrap().ids);
        assert!(!model.prepare("one two three").unwrap().truncated);
    }
}
