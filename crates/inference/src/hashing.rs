//! Feature hashing (Weinberger et al., 2009): vectors from words and character trigrams, without
//! weights. Close in spelling is close in space; for tests and machines that have no model.

use crate::InferenceError;
use crate::encoder::{PrepareError, Prepared, TextModel, normalise};

pub(crate) struct FeatureHashing {
    dimension: usize,
    max_words: usize,
}

/// A word says more than one of its trigrams.
const WORD_WEIGHT: f32 = 2.0;

impl FeatureHashing {
    pub fn new(dimension: usize, max_words: usize) -> Self {
        Self { dimension: dimension.max(1), max_words }
    }
}

/// FNV-1a with a final mix, since its low bits alone are weak.
fn hash(kind: u8, bytes: impl Iterator<Item = u8>) -> u32 {
    let mut state = 0xcbf2_9ce4_8422_2325_u64;
    for byte in std::iter::once(kind).chain(bytes) {
        state = (state ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    state = (state ^ (state >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    state = (state ^ (state >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    (state >> 32) as u32
}

/// A feature's id: bit 0 its sign, bit 1 whether it is a word, the rest its place.
fn features(word: &str, ids: &mut Vec<u32>) {
    ids.push(hash(b'w', word.bytes()) | 0b10);
    let marked: Vec<char> = std::iter::once('\u{2}').chain(word.chars()).chain(std::iter::once('\u{3}')).collect();
    for trigram in marked.windows(3) {
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
            let place = |id: u32| (id >> 2) as usize % self.dimension;
            for &id in ids.iter() {
                let weight = if id & 0b10 != 0 { WORD_WEIGHT } else { 1.0 };
                vector[place(id)] += if id & 1 == 0 { weight } else { -weight };
            }
            // Features can cancel out; then the first one stands for all.
            if !normalise(&mut vector) {
                vector[ids.first().map_or(0, |&id| place(id))] = 1.0;
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
    fn it_never_changes_between_machines_or_builds() {
        let vector = embed("Henry Hub natural gas, day-ahead");
        let first: Vec<(usize, f32)> =
            vector.iter().copied().enumerate().filter(|(_, value)| *value != 0.0).take(4).collect();
        assert_eq!(first, GOLDEN);
        assert!((cosine(&vector, &vector) - 1.0).abs() < 1e-6);
    }

    const GOLDEN: [(usize, f32); 4] = [(14, 0.14142136), (54, 0.14142136), (62, 0.14142136), (69, 0.14142136)];

    #[test]
    fn case_and_punctuation_do_not_count_and_spelling_does() {
        let gas = embed("Henry Hub natural gas");
        assert_eq!(gas, embed("  henry hub: NATURAL gas! "));
        assert!(cosine(&gas, &embed("natural gases at henry hub")) > 0.5);
        assert!(cosine(&gas, &embed("wheat from France")) < 0.3);
    }

    #[test]
    fn texts_without_letters_have_a_vector_and_texts_without_anything_have_none() {
        assert_ne!(embed("+++"), embed("???"));
        let model = FeatureHashing::new(384, 4096);
        assert!(matches!(model.prepare(" \n\t"), Err(PrepareError::NotEmbeddable(_))));
    }

    #[test]
    fn long_texts_are_cut_and_it_says_so() {
        let model = FeatureHashing::new(384, 3);
        let cut = model.prepare("one two three four").unwrap();
        assert_eq!((cut.tokens, cut.truncated), (3, true));
        assert_eq!(cut.ids, model.prepare("one two three").unwrap().ids);
        assert!(!model.prepare("one two three").unwrap().truncated);
    }
}
