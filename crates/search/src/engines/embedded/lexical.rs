//! The lexical index in tantivy. A document has the terms and the filter labels of a row, the row's number, and the
//! sequence of its write.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tantivy::indexer::{IndexWriterOptions, LogMergePolicy};
use tantivy::schema::{FAST, Field, INDEXED, IndexRecordOption, Schema, TextFieldIndexing, TextOptions};
use tantivy::{Index, IndexReader, IndexSettings, IndexWriter, ReloadPolicy, Searcher, TantivyDocument, Term};
use uuid::Uuid;

use super::directory::UnsyncedDirectory;
use super::row_table::Row;
use super::tokenizer::{TOKENIZER_NAME, TenantTokenizer, labels_of, terms_value_of};

/// Memory budget of tantivy's indexing thread: 15 MB, the smallest that tantivy accepts.
const WRITER_BYTES: usize = 15_000_000;
/// Maximum share of deleted documents in a segment, from 0 to 1. A segment with more is merged.
const MAX_DELETED_RATIO: f32 = 0.3;
/// Segments with fewer documents belong to one level of the merge policy.
const SMALL_SEGMENT: u32 = 1000;

/// The fields of tantivy's schema.
#[derive(Clone, Copy)]
pub(super) struct Fields {
    /// The terms of a document, with frequencies and length.
    pub terms: Field,
    /// Filter labels, without frequencies.
    pub labels: Field,
    /// Row number.
    pub row: Field,
    /// Sequence of the write.
    pub sequence: Field,
}

/// The payload of a tantivy commit: the incarnation of `rows.db` that it was derived from, and the sequence of the
/// rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CommitPayload {
    pub incarnation: Uuid,
    pub sequence: u64,
}

/// A row change that tantivy does not have yet. Both carry the row number.
pub(super) enum Change {
    Put(u32, Arc<Row>),
    Remove(u32),
}

/// An open tantivy index with its writer.
pub(super) struct LexicalIndex {
    pub fields: Fields,
    reader: IndexReader,
    writer: IndexWriter,
}

/// The schema of the index, and its fields.
fn schema() -> (Schema, Fields) {
    let mut builder = Schema::builder();
    let indexing = TextFieldIndexing::default()
        .set_tokenizer(TOKENIZER_NAME)
        .set_index_option(IndexRecordOption::WithFreqs)
        .set_fieldnorms(true);
    let terms = builder.add_text_field("terms", TextOptions::default().set_indexing_options(indexing));
    let indexing = TextFieldIndexing::default()
        .set_tokenizer("raw")
        .set_index_option(IndexRecordOption::Basic)
        .set_fieldnorms(false);
    let labels = builder.add_text_field("labels", TextOptions::default().set_indexing_options(indexing));
    let row = builder.add_u64_field("row", INDEXED | FAST);
    let sequence = builder.add_u64_field("sequence", FAST);
    (builder.build(), Fields { terms, labels, row, sequence })
}

impl LexicalIndex {
    /// Creates an empty index in `folder`.
    pub fn create(folder: &Path) -> tantivy::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let (schema, fields) = schema();
        Self::with(Index::create(UnsyncedDirectory::open(folder)?, schema, IndexSettings::default())?, fields)
    }

    /// Opens the index in `folder` and returns the payload of its last commit. Fails if the schema differs or a
    /// checksum is wrong.
    pub fn open(folder: &Path) -> tantivy::Result<(Self, Option<CommitPayload>)> {
        let (schema, fields) = schema();
        let index = Index::open(UnsyncedDirectory::open(folder)?)?;
        if index.schema() != schema {
            return Err(tantivy::TantivyError::SchemaError("the schema differs from the program's".to_owned()));
        }
        if let Some(path) = index.validate_checksum()?.into_iter().next() {
            return Err(tantivy::TantivyError::InternalError(format!("the checksum of {} is wrong", path.display())));
        }
        let payload = index.load_metas()?.payload;
        let payload = payload.and_then(|text| serde_json::from_str(&text).ok());
        Ok((Self::with(index, fields)?, payload))
    }

    /// Opens writer and reader of an index.
    fn with(index: Index, fields: Fields) -> tantivy::Result<Self> {
        index.tokenizers().register(TOKENIZER_NAME, TenantTokenizer);
        let options = IndexWriterOptions::builder()
            .memory_budget_per_thread(WRITER_BYTES)
            .num_worker_threads(1)
            .num_merge_threads(1)
            .build();
        let writer = index.writer_with_options(options)?;
        // A process that was killed may have left files of an unfinished commit. The next commit uses the same file
        // names.
        writer.garbage_collect_files().wait()?;
        let mut policy = LogMergePolicy::default();
        policy.set_del_docs_ratio_before_merge(MAX_DELETED_RATIO);
        policy.set_min_layer_size(SMALL_SEGMENT);
        writer.set_merge_policy(Box::new(policy));
        let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()?;
        Ok(Self { fields, reader, writer })
    }

    /// Writes the changes and commits them with the payload.
    pub fn write(&mut self, changes: &[Change], payload: CommitPayload) -> tantivy::Result<()> {
        let fields = self.fields;
        for change in changes {
            match change {
                Change::Remove(number) => {
                    self.writer.delete_term(Term::from_field_u64(fields.row, u64::from(*number)));
                }
                Change::Put(number, row) => {
                    self.writer.delete_term(Term::from_field_u64(fields.row, u64::from(*number)));
                    let mut document = TantivyDocument::default();
                    document.add_text(fields.terms, terms_value_of(row));
                    for label in labels_of(row) {
                        document.add_text(fields.labels, label);
                    }
                    document.add_u64(fields.row, u64::from(*number));
                    document.add_u64(fields.sequence, row.sequence);
                    self.writer.add_document(document)?;
                }
            }
        }
        let text =
            serde_json::to_string(&payload).map_err(|error| tantivy::TantivyError::InternalError(error.to_string()))?;
        let mut commit = self.writer.prepare_commit()?;
        commit.set_payload(&text);
        commit.commit()?;
        Ok(())
    }

    /// Waits for running merges and releases the directory.
    pub fn close(self) -> tantivy::Result<()> {
        self.writer.wait_merging_threads()
    }

    /// Returns a searcher over the last commit.
    pub fn searcher(&self) -> tantivy::Result<Searcher> {
        self.reader.reload()?;
        Ok(self.reader.searcher())
    }
}
