//! BM25 by the tenant's own statistics, so that no tenant's scores depend on another's.

use std::collections::HashMap;

use tantivy::postings::Postings;
use tantivy::query::{Bm25StatisticsProvider, BooleanQuery, BoostQuery, EnableScoring, Occur, Query, TermQuery};
use tantivy::schema::{Field, IndexRecordOption};
use tantivy::{DocSet, TERMINATED, Term};

use super::best::Best;
use super::tokenizer::term_of;
use super::view::{Segment, View};
use crate::analyze;
use carbon_core::TenantId;
use roaring::RoaringBitmap;
use tantivy::fieldnorm::FieldNormReader;
use tantivy::postings::TermInfo;

const K1: f32 = 1.2;
const B: f32 = 0.75;
/// Of a longer query the first different terms count.
const MAX_TERMS: usize = 256;

/// The terms of a query with what their scores need.
pub(super) struct LexicalQuery {
    terms: Vec<QueryTerm>,
    documents: u64,
    tokens: u64,
    /// `k1 * (1 - b + b * length / average)` for each of tantivy's 256 lengths.
    norms: Vec<f32>,
}

struct QueryTerm {
    term: Term,
    /// Alive documents that hold it.
    frequency: u64,
    /// How often the query says it.
    count: f32,
    /// What it weighs: idf · (k1 + 1) · count.
    weight: f32,
    /// Where its postings lie, segment by segment.
    infos: Vec<Option<TermInfo>>,
}

impl LexicalQuery {
    /// `None` when the tenant has no document with any of the terms.
    pub fn new(view: &View, tenant: &TenantId, text: &str) -> tantivy::Result<Option<Self>> {
        let Some(statistics) = view.data.tenants.get(tenant) else { return Ok(None) };
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

    /// The true score of each row, or `None` where no term matches. Summed in the order of the
    /// query's terms, so that it does not depend on how documents lie in segments.
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

    /// The rows that tantivy's Block-WAND finds best, among `allowed` if that is given. The
    /// bounds of its blocks were computed with a segment's average length, not the tenant's: at
    /// the very end of the list a row may be missed.
    pub fn candidates(&self, view: &View, allowed: Option<&RoaringBitmap>, depth: usize) -> tantivy::Result<Vec<u32>> {
        let scoring = EnableScoring::enabled_from_statistics_provider(self, &view.searcher);
        let weight = self.query().weight(scoring)?;
        let mut best = Best::new(depth);
        // Each of our rows lies in one segment, so that the threshold holds across segments.
        let threshold = |best: &Best| best.floor().map_or(f32::MIN, |floor| floor * (1.0 - 2e-5));
        for segment in &view.segments {
            let alive = segment.reader.alive_bitset();
            weight.for_each_pruning(threshold(&best), &segment.reader, &mut |document, score| {
                if alive.is_none_or(|alive| alive.is_alive(document)) {
                    let number = segment.row_of(document);
                    if allowed.is_none_or(|allowed| allowed.contains(number)) && view.data.row(number).is_some() {
                        best.push(&view.data, rounded(score), number);
                    }
                }
                threshold(&best)
            })?;
        }
        Ok(best.sorted(&view.data).into_iter().map(|(_, number)| number).collect())
    }

    fn query(&self) -> Box<dyn Query> {
        let of_term = |term: &QueryTerm| -> Box<dyn Query> {
            let query = Box::new(TermQuery::new(term.term.clone(), IndexRecordOption::WithFreqs));
            if term.count == 1.0 { query } else { Box::new(BoostQuery::new(query, term.count)) }
        };
        match self.terms.as_slice() {
            // The boost of a single term changes no order.
            [single] => Box::new(TermQuery::new(single.term.clone(), IndexRecordOption::WithFreqs)),
            terms => Box::new(BooleanQuery::new(terms.iter().map(|term| (Occur::Should, of_term(term))).collect())),
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

fn idf(frequency: u64, documents: u64) -> f32 {
    let (n, all) = (frequency as f32, documents as f32);
    (1.0 + (all - n + 0.5) / (n + 0.5)).ln()
}

/// To about five digits: Block-WAND sums in an order of its own, and what is equal but for the
/// rounding must count as a tie.
fn rounded(score: f32) -> f32 {
    f32::from_bits((score.to_bits() + 64) & !127)
}

/// How many documents of a segment that hold a term are alive.
fn alive_frequency(segment: &Segment, info: &TermInfo) -> tantivy::Result<u32> {
    if segment.deleted.is_empty() {
        return Ok(info.doc_freq);
    }
    let mut postings = segment.terms.read_postings_from_terminfo(info, IndexRecordOption::Basic)?;
    // Few deleted documents are looked up in many postings; otherwise all postings are read.
    if segment.deleted.len() * 4 < info.doc_freq as usize {
        let mut gone = 0;
        for document in &segment.deleted {
            if postings.doc() < *document {
                postings.seek(*document);
            }
            if postings.doc() == TERMINATED {
                break;
            }
            gone += u32::from(postings.doc() == *document);
        }
        return Ok(info.doc_freq - gone);
    }
    Ok(match segment.reader.alive_bitset() {
        Some(alive) => postings.doc_freq_given_deletes(alive),
        None => info.doc_freq,
    })
}
