//! The analysis as tantivy's tokenizer: each term prefixed by its tenant.

use carbon_core::MetadataValue;
use tantivy::Term;
use tantivy::schema::Field;
use tantivy::tokenizer::{Token, TokenStream, Tokenizer};

use super::data::Row;
use crate::analyze::{Terms, terms};

/// Neither tenants nor ids can hold it.
const SEPARATOR: char = '\0';
pub(super) const NAME: &str = "carbon";

/// What is handed to tantivy for a row: `tenant\0id\0text`.
pub(super) fn value_of(row: &Row) -> String {
    let key = &row.document.key;
    format!("{}{SEPARATOR}{}{SEPARATOR}{}", key.tenant, key.entity_id, row.document.text)
}

/// A term of a tenant.
pub(super) fn term_of(field: Field, tenant: &str, term: &str) -> Term {
    let mut text = String::with_capacity(tenant.len() + 1 + term.len());
    text.push_str(tenant);
    text.push(SEPARATOR);
    text.push_str(term);
    Term::from_field_text(field, &text)
}

/// Longer labels are left out; no filter's value is as long.
const MAX_LABEL_BYTES: usize = 8192;

/// What a filter can ask for by equality, as one term: a tag, or a metadata value. `None` for
/// what nothing equals.
pub(super) fn label_of(tenant: &str, name: Label<'_>) -> Option<String> {
    let label = match name {
        Label::Tag(tag) => format!("{tenant}{SEPARATOR}t{SEPARATOR}{tag}"),
        Label::Value(key, MetadataValue::String(text)) => {
            format!("{tenant}{SEPARATOR}s{SEPARATOR}{key}{SEPARATOR}{text}")
        }
        Label::Value(_, MetadataValue::Double(number)) if number.is_nan() => return None,
        // Adding 0 makes -0 and 0 one.
        Label::Value(key, MetadataValue::Double(number)) => {
            format!("{tenant}{SEPARATOR}d{SEPARATOR}{key}{SEPARATOR}{:x}", (number + 0.0).to_bits())
        }
        Label::Value(key, MetadataValue::Boolean(value)) => {
            format!("{tenant}{SEPARATOR}b{SEPARATOR}{key}{SEPARATOR}{value}")
        }
    };
    (label.len() <= MAX_LABEL_BYTES).then_some(label)
}

#[derive(Clone, Copy)]
pub(super) enum Label<'l> {
    Tag(&'l str),
    Value(&'l str, &'l MetadataValue),
}

/// All labels of a row.
pub(super) fn labels_of(row: &Row) -> impl Iterator<Item = String> {
    let document = &row.document;
    let values = document.metadata.iter().map(|(key, value)| Label::Value(key, value));
    let labels = document.tags.iter().map(|tag| Label::Tag(tag)).chain(values);
    labels.filter_map(|label| label_of(document.key.tenant.as_str(), label))
}

#[derive(Clone)]
pub(super) struct TenantTokenizer;

pub(super) struct TenantTerms<'t> {
    id: Terms<'t>,
    text: Terms<'t>,
    token: Token,
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
