//! What queries run on: rows and searcher of one sequence, together, unchanging.

use std::collections::HashMap;
use std::sync::Arc;

use roaring::RoaringBitmap;
use tantivy::columnar::Column;
use tantivy::fieldnorm::FieldNormReader;
use tantivy::index::{InvertedIndexReader, SegmentId, SegmentReader};
use tantivy::schema::IndexRecordOption;
use tantivy::{DocId, DocSet, Searcher, TERMINATED, Term};

use super::data::Data;
use super::lexical::Fields;

pub(super) struct View {
    pub data: Data,
    pub searcher: Searcher,
    pub fields: Fields,
    pub segments: Vec<Segment>,
}

/// One segment of tantivy's, with what leads from rows to its documents and back.
pub(super) struct Segment {
    pub reader: SegmentReader,
    pub terms: Arc<InvertedIndexReader>,
    labels: Arc<InvertedIndexReader>,
    pub lengths: FieldNormReader,
    sequences: Column<u64>,
    rows: Arc<SegmentRows>,
    /// The documents that were replaced or deleted, in order.
    pub deleted: Vec<DocId>,
}

/// Does not change in the life of a segment.
pub(super) struct SegmentRows {
    by_document: Vec<u32>,
    /// A row can have several documents, of which at most one is alive.
    by_row: Vec<(u32, DocId)>,
}

impl View {
    /// Takes from the view before what has not changed.
    pub fn new(data: Data, searcher: Searcher, fields: Fields, before: Option<&View>) -> tantivy::Result<Self> {
        let known: HashMap<SegmentId, &Arc<SegmentRows>> = before
            .into_iter()
            .flat_map(|view| &view.segments)
            .map(|segment| (segment.reader.segment_id(), &segment.rows))
            .collect();
        let mut segments = Vec::with_capacity(searcher.segment_readers().len());
        for reader in searcher.segment_readers() {
            let rows = known.get(&reader.segment_id()).map(|rows| Arc::clone(rows));
            segments.push(Segment::open(reader, fields, rows)?);
        }
        Ok(Self { data, searcher, fields, segments })
    }

    /// The document of a row: segment, and document in it. Only one that was made by the write
    /// that made the row counts.
    pub fn locate(&self, number: u32) -> Option<(usize, DocId)> {
        let sequence = self.data.row(number)?.sequence;
        self.segments.iter().enumerate().find_map(|(at, segment)| {
            let document = segment.alive_document(number)?;
            (segment.sequences.first(document) == Some(sequence)).then_some((at, document))
        })
    }

    /// The rows with a label.
    pub fn labelled(&self, label: &str) -> tantivy::Result<RoaringBitmap> {
        let term = Term::from_field_text(self.fields.labels, label);
        let mut rows = RoaringBitmap::new();
        for segment in &self.segments {
            let Some(mut postings) = segment.labels.read_postings(&term, IndexRecordOption::Basic)? else { continue };
            while postings.doc() != TERMINATED {
                if !segment.reader.is_deleted(postings.doc()) {
                    rows.insert(segment.row_of(postings.doc()));
                }
                postings.advance();
            }
        }
        Ok(rows)
    }
}

impl Segment {
    fn open(reader: &SegmentReader, fields: Fields, rows: Option<Arc<SegmentRows>>) -> tantivy::Result<Self> {
        let rows = match rows {
            Some(rows) => rows,
            None => Arc::new(SegmentRows::read(reader)?),
        };
        let deleted = match reader.alive_bitset() {
            Some(alive) => (0..reader.max_doc()).filter(|document| alive.is_deleted(*document)).collect(),
            None => Vec::new(),
        };
        Ok(Self {
            terms: reader.inverted_index(fields.terms)?,
            labels: reader.inverted_index(fields.labels)?,
            lengths: reader.get_fieldnorms_reader(fields.terms)?,
            sequences: reader.fast_fields().u64("sequence")?,
            reader: reader.clone(),
            rows,
            deleted,
        })
    }

    pub fn row_of(&self, document: DocId) -> u32 {
        self.rows.by_document[document as usize]
    }

    fn alive_document(&self, number: u32) -> Option<DocId> {
        let by_row = &self.rows.by_row;
        let from = by_row.partition_point(|(row, _)| *row < number);
        let documents = by_row[from..].iter().take_while(|(row, _)| *row == number);
        documents.map(|(_, document)| *document).find(|document| !self.reader.is_deleted(*document))
    }

    /// Every document that is alive: its row, and the sequence of its write.
    pub fn alive(&self) -> impl Iterator<Item = (u32, u64)> {
        self.reader.doc_ids_alive().map(|document| {
            // A document without a sequence is none of ours.
            (self.row_of(document), self.sequences.first(document).unwrap_or(u64::MAX))
        })
    }
}

impl SegmentRows {
    fn read(reader: &SegmentReader) -> tantivy::Result<Self> {
        let column: Column<u64> = reader.fast_fields().u64("row")?;
        let documents: Vec<DocId> = (0..reader.max_doc()).collect();
        let mut numbers = vec![None; documents.len()];
        column.first_vals(&documents, &mut numbers);
        // What is not a row number leads to no row.
        let number = |n: Option<u64>| n.and_then(|n| u32::try_from(n).ok()).unwrap_or(u32::MAX);
        let by_document: Vec<u32> = numbers.into_iter().map(number).collect();
        let mut by_row: Vec<(u32, DocId)> = by_document.iter().copied().zip(documents).collect();
        by_row.sort_unstable();
        Ok(Self { by_document, by_row })
    }
}
