//! Runs a query on a view: the candidates of both retrievers under one filter, each with its exact scores.

use std::collections::HashMap;
use std::sync::Arc;

use carbon_core::TenantId;
use roaring::RoaringBitmap;

use super::bm25::LexicalQuery;
use super::row_table::TenantRows;
use super::tokenizer::{Label, label_of};
use super::top_k::TopK;
use super::vectors::{check, cosine, nearest, normalised};
use super::view::View;
use crate::error::IndexError;
use crate::filter::{Condition, Filter};
use crate::index::{Candidates, Hit, Retrieval};

/// Minimum number of rows for which the two retrievers run on a thread each.
const MANY_ROWS: u64 = 8192;

/// Maximum number of rows that are all scored exactly, without Block-WAND.
const FEW_ROWS: u64 = 512;

/// Runs the retrievers on the rows of `tenant`. Fails with [`IndexError::QueryVector`] if the vector is invalid.
pub(super) fn run(view: &View, tenant: &TenantId, retrieval: &Retrieval) -> Result<Candidates, IndexError> {
    let table = &view.table;
    let vector = match &retrieval.vector {
        Some(vector) => {
            check(vector, table.dimension).map_err(IndexError::QueryVector)?;
            Some(normalised(vector.clone()))
        }
        None => None,
    };
    let Some(tenant_rows) = table.tenants.get(tenant) else { return Ok(Candidates::default()) };
    let filtered = filtered_rows(view, tenant, tenant_rows, &retrieval.filter)?;
    let rows = filtered.as_ref().unwrap_or(&tenant_rows.rows);
    if rows.is_empty() {
        return Ok(Candidates::default());
    }
    let depth = retrieval.depth.max(1);
    let scan = || vector.as_ref().map_or_else(Vec::new, |vector| nearest(table, rows, vector, depth));
    let propose_lexical = || -> Result<(Option<LexicalQuery>, Vec<u32>), IndexError> {
        let lexical = if retrieval.lexical { LexicalQuery::new(view, tenant, &retrieval.text)? } else { None };
        let proposed = match &lexical {
            Some(_) if rows.len() <= FEW_ROWS => rows.iter().collect(),
            Some(lexical) => lexical.candidates(view, filtered.as_ref(), depth)?,
            None => Vec::new(),
        };
        Ok((lexical, proposed))
    };
    let (dense, proposed) = if vector.is_some() && retrieval.lexical && rows.len() >= MANY_ROWS {
        std::thread::scope(|scope| {
            let scanning = scope.spawn(scan);
            let proposed = propose_lexical();
            let dense = scanning.join().map_err(|_| IndexError::Thread("the scan panicked".to_owned()));
            dense.map(|dense| (dense, proposed))
        })?
    } else {
        (scan(), propose_lexical())
    };
    let (lexical, proposed) = proposed?;
    // All candidates: first those of the lexical retriever, then those that only the dense retriever returned.
    let mut numbers = proposed;
    let lexical_count = numbers.len();
    let mut index_of: HashMap<u32, usize> = numbers.iter().enumerate().map(|(at, number)| (*number, at)).collect();
    for (_, number) in &dense {
        index_of.entry(*number).or_insert_with(|| {
            numbers.push(*number);
            numbers.len() - 1
        });
    }
    let scores = match &lexical {
        Some(lexical) => lexical.scores(view, &numbers)?,
        None => vec![None; numbers.len()],
    };

    let mut best = TopK::new(depth);
    for (number, score) in numbers.iter().zip(&scores).take(lexical_count) {
        if let Some(score) = score {
            best.push(table, *score, *number);
        }
    }
    let lexical_ranks = ranks(&best.sorted(table));
    let dense_ranks = ranks(&dense);
    let hits = numbers.iter().zip(scores).filter_map(|(number, lexical)| {
        let (dense_rank, lexical_rank) = (dense_ranks.get(number).copied(), lexical_ranks.get(number).copied());
        if dense_rank.is_none() && lexical_rank.is_none() {
            return None;
        }
        let row = table.row(*number)?;
        let dense = vector.as_ref().map(|vector| cosine(vector, &row.vector));
        Some(Hit { document: Arc::clone(&row.document), dense, lexical, dense_rank, lexical_rank })
    });
    Ok(Candidates { hits: hits.collect(), considered: rows.len() })
}

/// The rank of each row number, from 1.
fn ranks(sorted: &[(f32, u32)]) -> HashMap<u32, u32> {
    sorted.iter().zip(1..).map(|((_, number), rank)| (*number, rank)).collect()
}

/// The numbers of the rows that match a filter; `None` if the filter is empty. Types, tags and equal values come from
/// bitmaps and postings. Ranges are then evaluated on the remaining rows.
fn filtered_rows(
    view: &View,
    id: &TenantId,
    tenant: &TenantRows,
    filter: &Filter,
) -> Result<Option<RoaringBitmap>, IndexError> {
    if filter.is_empty() {
        return Ok(None);
    }
    let mut rows = if filter.types.is_empty() {
        tenant.rows.clone()
    } else {
        let wanted = tenant.types.iter().filter(|(name, _)| filter.types.iter().any(|wanted| wanted == name.as_str()));
        wanted.fold(RoaringBitmap::new(), |all, (_, rows)| all | rows)
    };
    let labelled = |label| match label_of(id.as_str(), label) {
        Some(label) => view.labelled(&label),
        None => Ok(RoaringBitmap::new()),
    };
    for tag in &filter.tags {
        rows &= labelled(Label::Tag(tag))?;
    }
    let mut ranges = Vec::new();
    for (key, condition) in &filter.metadata {
        match condition {
            Condition::OneOf(values) => {
                let mut any = RoaringBitmap::new();
                for value in values {
                    any |= labelled(Label::Value(key, value))?;
                }
                rows &= any;
            }
            Condition::Range { .. } => ranges.push((key, condition)),
        }
    }
    if !ranges.is_empty() {
        rows.retain(|number| {
            let metadata = view.table.row(number).map(|row| &row.document.metadata);
            metadata.is_some_and(|metadata| {
                ranges.iter().all(|(key, condition)| metadata.get(*key).is_some_and(|value| condition.matches(value)))
            })
        });
    }
    Ok(Some(rows))
}
