//! The view: an immutable snapshot of the rows and of the tantivy index at one sequence. Queries run on it.

use std::collections::HashMap;
use std::sync::Arc;

use roaring::RoaringBitmap;
use tantivy::columnar::Column;
use tantivy::fieldnorm::FieldNormReader;
use tantivy::index::{InvertedIndexReader, SegmentId, SegmentReader};
use tantivy::schema::IndexRecordOption;
use tantivy::{DocId, DocSet, Searcher, TERMINATED, Term};

use super::lexical::Fields;
use super::row_table::RowTable;

/// A snapshot of a generation at one sequence.
pub(super) struct View {
    pub table: RowTable,
    pub searcher: Searcher,
    pub fields: Fields,
    pub segments: Vec<Segment>,
}

/// A tantivy segment, with the mapping between row numbers and its documents.
pub(super) struct Segment {
    pub reader: SegmentReader,
    pub terms: Arc<InvertedIndexReader>,
    labels: Arc<InvertedIndexReader>,
    /// Length of each document in terms, quantised by tantivy.
    pub lengths: FieldNormReader,
    /// Sequence of the write that made each document.
    sequences: Column<u64>,
    rows: Arc<SegmentRows>,
    /// The deleted documents (replaced ones included), in ascending order.
    pub deleted: Vec<DocId>,
}

/// The mapping between row numbers and documents of a segment. It never changes, so views share it.
pub(super) struct SegmentRows {
    /// Row number of each document; `u32::MAX` for a document without a row.
    by_document: Vec<u32>,
    /// Row number and document, sorted. A row can have several documents, of which at most one is alive.
    by_row: Vec<(u32, DocId)>,
}

impl View {
    /// A view of `table` and `searcher`. Segments that the previous view `before` also has are not read again.
    pub fn new(table: RowTable, searcher: Searcher, fields: Fields, before: Option<&View>) -> tantivy::Result<Self> {
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
        Ok(Self { table, searcher, fields, segments })
    }

    /// The tantivy document of a row: index of its segment, and document in the segment. `None` if tantivy has only a
    /// document of another write of the row.
    pub fn locate(&self, number: u32) -> Option<(usize, DocId)> {
        let sequence = self.table.row(number)?.sequence;
        self.segments.iter().enumerate().find_map(|(at, segment)| {
            let document = segment.alive_document(number)?;
            (segment.sequences.first(document) == Some(sequence)).then_some((at, document))
        })
    }

    /// The numbers of the rows that have a label. `label` is a term from
    /// [`label_of`](super::tokenizer::label_of).
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

    /// The row number of a document.
    pub fn row_of(&self, document: DocId) -> u32 {
        self.rows.by_document[document as usize]
    }

    /// The document of a row that is not deleted.
    fn alive_document(&self, number: u32) -> Option<DocId> {
        let by_row = &self.rows.by_row;
        let from = by_row.partition_point(|(row, _)| *row < number);
        let documents = by_row[from..].iter().take_while(|(row, _)| *row == number);
        documents.map(|(_, document)| *document).find(|document| !self.reader.is_deleted(*document))
    }

    /// Row number and sequence of every document that is not deleted.
    pub fn alive(&self) -> impl Iterator<Item = (u32, u64)> {
        self.reader.doc_ids_alive().map(|document| {
            // A document without a sequence matches no row.
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
        // A value that is not a row number matches no row.
        let number = |n: Option<u64>| n.and_then(|n| u32::try_from(n).ok()).unwrap_or(u32::MAX);
        let by_document: Vec<u32> = numbers.into_iter().map(number).collect();
        let mut by_row: Vec<(u32, DocId)> = by_document.iter().copied().zip(documents).collect();
        by_row.sort_unstable();
        Ok(Self { by_document, by_row })
    }
}
