//! BM25 (Robertson and Zaragoza 2009; inverse document frequency as in Lucene and tantivy) with the statistics of one
//! tenant, so that a tenant's scores do not depend on other tenants (law 12).
//!
//! The score of a document is the sum over the query's terms of
//!
//! ```text
//! count * idf * (k1 + 1) * frequency / (frequency + k1 * (1 - b + b * length / average))
//! ```
//!
//! where `count` is the number of occurrences of the term in the query, `frequency` that in the document, `length` the
//! number of terms of the document, and `average` the mean length of the tenant's documents.

use std::collections::HashMap;

use tantivy::postings::Postings;
use tantivy::query::{Bm25StatisticsProvider, BooleanQuery, BoostQuery, EnableScoring, Occur, Query, TermQuery};
use tantivy::schema::{Field, IndexRecordOption};
use tantivy::{DocSet, TERMINATED, Term};

use super::tokenizer::term_of;
use super::top_k::TopK;
use super::view::{Segment, View};
use crate::analyze;
use carbon_core::TenantId;
use roaring::RoaringBitmap;
use tantivy::fieldnorm::FieldNormReader;
use tantivy::postings::TermInfo;

/// Saturation of the term frequency: the usual value, and tantivy's constant.
const K1: f32 = 1.2;
/// Strength of the length normalisation, from 0 to 1: the usual value, and tantivy's constant.
const B: f32 = 0.75;
/// Maximum number of distinct terms of a query. Further terms are ignored.
const MAX_TERMS: usize = 256;

/// The terms of a query, with the statistics that their scores need.
pub(super) struct LexicalQuery {
    terms: Vec<QueryTerm>,
    /// Number of the tenant's documents.
    documents: u64,
    /// Number of terms of the tenant's documents.
    tokens: u64,
    /// `k1 * (1 - b + b * length / average)` for each of the 256 lengths that tantivy distinguishes.
    norms: Vec<f32>,
}

/// A distinct term of a query.
struct QueryTerm {
    term: Term,
    /// Number of the tenant's documents that have the term.
    frequency: u64,
    /// Number of occurrences of the term in the query.
    count: f32,
    /// `idf * (k1 + 1) * count`.
    weight: f32,
    /// Location of the term's postings in each segment; `None` if the segment does not have the term.
    infos: Vec<Option<TermInfo>>,
}

impl LexicalQuery {
    /// Analyses a query. `None` if no document of the tenant has any of the terms.
    pub fn new(view: &View, tenant: &TenantId, text: &str) -> tantivy::Result<Option<Self>> {
        let Some(statistics) = view.table.tenants.get(tenant) else { return Ok(None) };
        let (documents, tokens) = (statistics.documents(), statistics.tokens);
        let mut counts: Vec<(String, f32)> = Vec::new();
        let mut known = HashMap::new();
        analyze::terms(text).for_each(|term| match known.get(term) {
            Some(at) => {
                let entry: &mut (String, f32) = &mut counts[*at];
                entry.1 += 1.0;
            }
            None if counts.len() < MAX_TERMS => {
                known.insert(term.to_owned(), counts.len());
                counts.push((term.to_owned(), 1.0));
            }
            None => {}
        });
        let mut terms = Vec::with_capacity(counts.len());
        for (text, count) in counts {
            let term = term_of(view.fields.terms, tenant.as_str(), &text);
            let infos: Vec<Option<TermInfo>> =
                view.segments.iter().map(|segment| segment.terms.get_term_info(&term)).collect::<Result<_, _>>()?;
            let mut frequency = 0;
            for (segment, info) in view.segments.iter().zip(&infos) {
                if let Some(info) = info {
                    frequency += u64::from(alive_frequency(segment, info)?);
                }
            }
            if frequency > 0 {
                let frequency = frequency.min(documents);
                let weight = idf(frequency, documents) * (K1 + 1.0) * count;
                terms.push(QueryTerm { term, frequency, count, weight, infos });
            }
        }
        if terms.is_empty() {
            return Ok(None);
        }
        let average = tokens as f32 / documents as f32;
        let norm = |id: u8| K1 * (1.0 - B + B * FieldNormReader::id_to_fieldnorm(id) as f32 / average);
        Ok(Some(Self { terms, documents, tokens, norms: (0..=255).map(norm).collect() }))
    }

    /// The exact score of each row, or `None` if no term matches. The terms are summed in the order of the query, so
    /// that the floating-point result does not depend on the segments.
    pub fn scores(&self, view: &View, numbers: &[u32]) -> tantivy::Result<Vec<Option<f32>>> {
        let mut scores = vec![None; numbers.len()];
        let mut by_segment: Vec<Vec<(u32, usize)>> = vec![Vec::new(); view.segments.len()];
        for (at, number) in numbers.iter().enumerate() {
            if let Some((segment, document)) = view.locate(*number) {
                by_segment[segment].push((document, at));
            }
        }
        for documents in &mut by_segment {
            documents.sort_unstable();
        }
        for term in &self.terms {
            for ((segment, info), documents) in view.segments.iter().zip(&term.infos).zip(&by_segment) {
                let Some(info) = info else { continue };
                if documents.is_empty() {
                    continue;
                }
                let mut postings = segment.terms.read_postings_from_terminfo(info, IndexRecordOption::WithFreqs)?;
                for (document, at) in documents {
                    if postings.doc() < *document {
                        postings.seek(*document);
                    }
                    if postings.doc() == *document {
                        let frequency = postings.term_freq() as f32;
                        let norm = self.norms[usize::from(segment.lengths.fieldnorm_id(*document))];
                        *scores[*at].get_or_insert(0.0) += term.weight * frequency / (frequency + norm);
                    }
                }
            }
        }
        Ok(scores)
    }

    /// The `depth` best rows by tantivy's Block-WAND (Ding and Suel 2011), best first; only rows in `allowed`, if
    /// given. The result is approximate: the score bounds of a block are computed with the average length of the
    /// segment, not of the tenant, so a row with a score close to the lowest may be missed.
    pub fn candidates(&self, view: &View, allowed: Option<&RoaringBitmap>, depth: usize) -> tantivy::Result<Vec<u32>> {
        let scoring = EnableScoring::enabled_from_statistics_provider(self, &view.searcher);
        let weight = self.query().weight(scoring)?;
        let mut best = TopK::new(depth);
        // A row has a document in one segment only, so the threshold is valid for all segments. The margin of 2e-5
        // allows for the rounding of scores.
        let threshold = |best: &TopK| best.min_score().map_or(f32::MIN, |score| score * (1.0 - 2e-5));
        for segment in &view.segments {
            let alive = segment.reader.alive_bitset();
            weight.for_each_pruning(threshold(&best), &segment.reader, &mut |document, score| {
                if alive.is_none_or(|alive| alive.is_alive(document)) {
                    let number = segment.row_of(document);
                    if allowed.is_none_or(|allowed| allowed.contains(number)) && view.table.row(number).is_some() {
                        best.push(&view.table, rounded(score), number);
                    }
                }
                threshold(&best)
            })?;
        }
        Ok(best.sorted(&view.table).into_iter().map(|(_, number)| number).collect())
    }

    /// The tantivy query for all terms.
    fn query(&self) -> Box<dyn Query> {
        let term_query = |term: &QueryTerm| -> Box<dyn Query> {
            let query = Box::new(TermQuery::new(term.term.clone(), IndexRecordOption::WithFreqs));
            if term.count == 1.0 { query } else { Box::new(BoostQuery::new(query, term.count)) }
        };
        match self.terms.as_slice() {
            // The boost of a single term does not change the order.
            [single] => Box::new(TermQuery::new(single.term.clone(), IndexRecordOption::WithFreqs)),
            terms => Box::new(BooleanQuery::new(terms.iter().map(|term| (Occur::Should, term_query(term))).collect())),
        }
    }
}

impl Bm25StatisticsProvider for LexicalQuery {
    fn total_num_tokens(&self, _field: Field) -> tantivy::Result<u64> {
        Ok(self.tokens)
    }

    fn total_num_docs(&self) -> tantivy::Result<u64> {
        Ok(self.documents)
    }

    fn doc_freq(&self, term: &Term) -> tantivy::Result<u64> {
        Ok(self.terms.iter().find(|known| known.term == *term).map_or(0, |known| known.frequency))
    }
}

/// Inverse document frequency, never negative: `ln(1 + (N - n + 0.5) / (n + 0.5))` for a term in `n` of `N` documents.
fn idf(frequency: u64, documents: u64) -> f32 {
    let (n, all) = (frequency as f32, documents as f32);
    (1.0 + (all - n + 0.5) / (n + 0.5)).ln()
}

/// Rounds a score to about 5 significant digits. Block-WAND sums the terms in another order, and scores that differ
/// only by floating-point rounding must be ties.
fn rounded(score: f32) -> f32 {
    f32::from_bits((score.to_bits() + 64) & !127)
}

/// The number of documents of a segment that have a term and are not deleted.
fn alive_frequency(segment: &Segment, info: &TermInfo) -> tantivy::Result<u32> {
    if segment.deleted.is_empty() {
        return Ok(info.doc_freq);
    }
    let mut postings = segment.terms.read_postings_from_terminfo(info, IndexRecordOption::Basic)?;
    // If there are few deleted documents, seek each of them in the postings; otherwise read all postings.
    if segment.deleted.len() * 4 < info.doc_freq as usize {
        let mut deleted = 0;
        for document in &segment.deleted {
            if postings.doc() < *document {
                postings.seek(*document);
            }
            if postings.doc() == TERMINATED {
                break;
            }
            deleted += u32::from(postings.doc() == *document);
        }
        return Ok(info.doc_freq - deleted);
    }
    Ok(match segment.reader.alive_bitset() {
        Some(alive) => postings.doc_freq_given_deletes(alive),
        None => info.doc_freq,
    })
}
