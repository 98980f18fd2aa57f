//! The terms of tantivy's index: text terms and filter labels, each prefixed by its tenant.

use carbon_core::MetadataValue;
use tantivy::Term;
use tantivy::schema::Field;
use tantivy::tokenizer::{Token, TokenStream, Tokenizer};

use super::row_table::Row;
use crate::analyze::{Terms, terms};

/// Separates the parts of a term. Tenants and ids cannot contain it.
const SEPARATOR: char = '\0';
/// Name under which [`TenantTokenizer`] is registered in tantivy. It is part of the stored schema.
pub(super) const TOKENIZER_NAME: &str = "carbon";

/// The value of the field `terms` of a row: `tenant\0id\0text`.
pub(super) fn terms_value_of(row: &Row) -> String {
    let key = &row.document.key;
    format!("{}{SEPARATOR}{}{SEPARATOR}{}", key.tenant, key.entity_id, row.document.text)
}

/// The tantivy term of a tenant's term: `tenant\0term`.
pub(super) fn term_of(field: Field, tenant: &str, term: &str) -> Term {
    let mut text = String::with_capacity(tenant.len() + 1 + term.len());
    text.push_str(tenant);
    text.push(SEPARATOR);
    text.push_str(term);
    Term::from_field_text(field, &text)
}

/// Maximum length of a label. A longer one is not indexed; a filter's value has at most 4 KiB.
const MAX_LABEL_BYTES: usize = 8192;

/// The index term of a label of a tenant. `None` if nothing equals the value (NaN), or if the term is too long.
pub(super) fn label_of(tenant: &str, label: Label<'_>) -> Option<String> {
    let term = match label {
        Label::Tag(tag) => format!("{tenant}{SEPARATOR}t{SEPARATOR}{tag}"),
        Label::Value(key, MetadataValue::String(text)) => {
            format!("{tenant}{SEPARATOR}s{SEPARATOR}{key}{SEPARATOR}{text}")
        }
        Label::Value(_, MetadataValue::Double(number)) if number.is_nan() => return None,
        // Adding 0.0 turns -0.0 into 0.0: both are the same label.
        Label::Value(key, MetadataValue::Double(number)) => {
            format!("{tenant}{SEPARATOR}d{SEPARATOR}{key}{SEPARATOR}{:x}", (number + 0.0).to_bits())
        }
        Label::Value(key, MetadataValue::Boolean(value)) => {
            format!("{tenant}{SEPARATOR}b{SEPARATOR}{key}{SEPARATOR}{value}")
        }
    };
    (term.len() <= MAX_LABEL_BYTES).then_some(term)
}

/// A property of a document that a filter can test for equality: a tag, or the value of a metadata key.
#[derive(Clone, Copy)]
pub(super) enum Label<'l> {
    Tag(&'l str),
    Value(&'l str, &'l MetadataValue),
}

/// The index terms of all labels of a row.
pub(super) fn labels_of(row: &Row) -> impl Iterator<Item = String> {
    let document = &row.document;
    let values = document.metadata.iter().map(|(key, value)| Label::Value(key, value));
    let labels = document.tags.iter().map(|tag| Label::Tag(tag)).chain(values);
    labels.filter_map(|label| label_of(document.key.tenant.as_str(), label))
}

/// A tantivy tokenizer for values from [`terms_value_of`].
#[derive(Clone)]
pub(super) struct TenantTokenizer;

/// The token stream of [`TenantTokenizer`]: the terms of the id, then those of the text, each prefixed by the tenant.
pub(super) struct TenantTerms<'t> {
    id: Terms<'t>,
    text: Terms<'t>,
    token: Token,
    /// Length in bytes of tenant and separator, with which every token starts.
    prefix: usize,
}

impl Tokenizer for TenantTokenizer {
    type TokenStream<'a> = TenantTerms<'a>;

    fn token_stream<'a>(&'a mut self, value: &'a str) -> TenantTerms<'a> {
        let (tenant, rest) = value.split_once(SEPARATOR).unwrap_or(("", value));
        let (id, text) = rest.split_once(SEPARATOR).unwrap_or(("", rest));
        let mut token = Token { position: usize::MAX, ..Token::default() };
        token.text.push_str(tenant);
        token.text.push(SEPARATOR);
        let prefix = token.text.len();
        TenantTerms { id: terms(id), text: terms(text), token, prefix }
    }
}

impl TokenStream for TenantTerms<'_> {
    fn advance(&mut self) -> bool {
        let term = match self.id.next() {
            Some(term) => Some(term),
            None => self.text.next(),
        };
        let Some(term) = term else { return false };
        self.token.text.truncate(self.prefix);
        self.token.text.push_str(term);
        self.token.position = self.token.position.wrapping_add(1);
        true
    }

    fn token(&self) -> &Token {
        &self.token
    }

    fn token_mut(&mut self) -> &mut Token {
        &mut self.token
    }
}
