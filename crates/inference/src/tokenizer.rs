//! Tokenisation: text to token ids, truncated to the model's maximum.

use tokenizers::{Tokenizer, TruncationParams};

use crate::encoder::{PrepareError, Prepared};

/// The tokenizer of a model.
pub(crate) struct TextTokenizer {
    tokenizer: Tokenizer,
    /// Maximum tokens of a text, special tokens included.
    max_tokens: usize,
    /// Number of special tokens, such as `[CLS]` and `[SEP]`, that the tokenizer adds to every text.
    special_tokens: usize,
}

/// Maximum bytes of a text that are tokenised: 256 KiB. Longer texts are truncated.
const MAX_BYTES: usize = 256 * 1024;

impl TextTokenizer {
    /// Parses `tokenizer.json`.
    pub fn from_bytes(json: &[u8], max_tokens: usize) -> Result<Self, String> {
        let mut tokenizer = Tokenizer::from_bytes(json).map_err(|error| error.to_string())?;
        tokenizer.with_padding(None);
        tokenizer
            .with_truncation(Some(TruncationParams { max_length: max_tokens, ..TruncationParams::default() }))
            .map_err(|error| error.to_string())?;
        let special_tokens = tokenizer.encode_fast("", true).map_err(|error| error.to_string())?.len();
        Ok(Self { tokenizer, max_tokens, special_tokens })
    }

    /// Tokenises a text. Fails with [`PrepareError::NotEmbeddable`] if it has no tokens.
    pub fn prepare(&self, text: &str) -> Result<Prepared, PrepareError> {
        if text.trim().is_empty() {
            return Err(PrepareError::NotEmbeddable("it is empty"));
        }
        let head = readable_head(text, self.max_tokens);
        let encoding =
            self.tokenizer.encode_fast(head, true).map_err(|error| PrepareError::Tokenizer(error.to_string()))?;
        let ids = encoding.get_ids().to_vec();
        if ids.len() <= self.special_tokens {
            return Err(PrepareError::NotEmbeddable("it has no tokens for the model"));
        }
        let truncated = head.len() < text.len() || !encoding.get_overflowing().is_empty();
        Ok(Prepared { tokens: ids.len() as u32, ids, truncated })
    }
}

/// Returns a prefix that has more than `max_tokens` tokens, or the whole text. It ends at the start of a word or at
/// [`MAX_BYTES`]. The tokenizer reads its whole input, and a text can be megabytes long.
fn readable_head(text: &str, max_tokens: usize) -> &str {
    if text.len() <= max_tokens {
        return text;
    }
    // Each start of a word and each ASCII punctuation character starts a token. A special token in the text, such as
    // `[SEP]`, counts 3 times, therefore the factor 3.
    let enough = 3 * (max_tokens + 1);
    let mut tokens = 0;
    let mut boundary = true;
    for (at, byte) in text.bytes().enumerate() {
        if byte.is_ascii_alphanumeric() {
            if boundary {
                if tokens >= enough {
                    return &text[..at];
                }
                tokens += 1;
            }
            boundary = false;
        } else {
            tokens += usize::from(byte.is_ascii_punctuation());
            boundary = byte.is_ascii_punctuation() || byte.is_ascii_whitespace();
        }
    }
    let end = text.floor_char_boundary(MAX_BYTES);
    &text[..end]
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    /// A tokenizer with a vocabulary of a few words.
    const TINY: &str = r###"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],
        "normalizer":{"type":"BertNormalizer","clean_text":true,"handle_chinese_chars":true,"strip_accents":null,"lowercase":true},
        "pre_tokenizer":{"type":"BertPreTokenizer"},
        "post_processor":{"type":"TemplateProcessing",
          "single":[{"SpecialToken":{"id":"[CLS]","type_id":0}},{"Sequence":{"id":"A","type_id":0}},{"SpecialToken":{"id":"[SEP]","type_id":0}}],
          "pair":[{"Sequence":{"id":"A","type_id":0}},{"Sequence":{"id":"B","type_id":1}}],
          "special_tokens":{"[CLS]":{"id":"[CLS]","ids":[1],"tokens":["[CLS]"]},"[SEP]":{"id":"[SEP]","ids":[2],"tokens":["[SEP]"]}}},
        "decoder":null,
        "model":{"type":"WordPiece","unk_token":"[UNK]","continuing_subword_prefix":"##","max_input_chars_per_word":100,
          "vocab":{"[UNK]":0,"[CLS]":1,"[SEP]":2,"gas":3,"oil":4,"##s":5,",":6}}}"###;

    #[test]
    fn ids_are_enclosed_by_special_tokens() {
        let tokenizer = TextTokenizer::from_bytes(TINY.as_bytes(), 8).unwrap();
        let prepared = tokenizer.prepare("Gas, OILS").unwrap();
        assert_eq!(prepared, Prepared { ids: vec![1, 3, 6, 4, 5, 2], tokens: 6, truncated: false });
    }

    #[test]
    fn a_text_that_is_too_long_is_truncated_and_reported_as_truncated() {
        let tokenizer = TextTokenizer::from_bytes(TINY.as_bytes(), 8).unwrap();
        let full = tokenizer.prepare("gas gas gas gas gas gas").unwrap();
        assert_eq!((full.tokens, full.truncated), (8, false));
        let cut = tokenizer.prepare("gas gas gas gas gas gas gas").unwrap();
        assert_eq!((cut.tokens, cut.truncated), (8, true));
        assert_eq!(cut.ids, full.ids);
        // So long that it is truncated before it is tokenised.
        let long = tokenizer.prepare(&"gas ".repeat(1_000_000)).unwrap();
        assert_eq!((long.ids, long.truncated), (full.ids, true));
    }

    #[test]
    fn truncation_before_tokenisation_does_not_change_the_ids() {
        for text in ["gas,oil ".repeat(500), "a".repeat(5000), "é ".repeat(900), format!("{}gas", " ".repeat(9000))] {
            let head = readable_head(&text, 8);
            let tokenizer = TextTokenizer::from_bytes(TINY.as_bytes(), 8).unwrap();
            let whole = tokenizer.tokenizer.encode_fast(text.as_str(), true).unwrap();
            assert_eq!(tokenizer.tokenizer.encode_fast(head, true).unwrap().get_ids(), whole.get_ids());
            assert_eq!(tokenizer.prepare(&text).unwrap().truncated, !whole.get_overflowing().is_empty());
        }
    }

    #[test]
    fn a_text_without_tokens_is_not_embeddable() {
        let tokenizer = TextTokenizer::from_bytes(TINY.as_bytes(), 8).unwrap();
        for text in ["", " \n\t ", "\u{0}\u{1}"] {
            assert!(matches!(tokenizer.prepare(text), Err(PrepareError::NotEmbeddable(_))), "{text:?}");
        }
    }
}
