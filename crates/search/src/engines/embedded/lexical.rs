//! The tantivy directory: terms, labels for filters, row numbers and the sequence of each write.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tantivy::indexer::{IndexWriterOptions, LogMergePolicy};
use tantivy::schema::{FAST, Field, INDEXED, IndexRecordOption, Schema, TextFieldIndexing, TextOptions};
use tantivy::{Index, IndexReader, IndexSettings, IndexWriter, ReloadPolicy, Searcher, TantivyDocument, Term};
use uuid::Uuid;

use super::data::Row;
use super::directory::UnsyncedDirectory;
use super::tokenizer::{NAME, TenantTokenizer, labels_of, value_of};

const WRITER_BYTES: usize = 15_000_000;
/// Replaced documents are merged away when they are more than this share of a segment.
const MAX_REPLACED: f32 = 0.3;
/// Segments below this size count as equally small.
const SMALL_SEGMENT: u32 = 1000;

#[derive(Clone, Copy)]
pub(super) struct Fields {
    pub terms: Field,
    pub labels: Field,
    pub row: Field,
    pub sequence: Field,
}

/// What a commit says of itself: which file it follows, and how far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Payload {
    pub incarnation: Uuid,
    pub sequence: u64,
}

/// One change that tantivy has yet to take.
pub(super) enum Change {
    Put(u32, Arc<Row>),
    Remove(u32),
}

pub(super) struct Lexical {
    pub fields: Fields,
    reader: IndexReader,
    writer: IndexWriter,
}

fn schema() -> (Schema, Fields) {
    let mut builder = Schema::builder();
    let indexing = TextFieldIndexing::default()
        .set_tokenizer(NAME)
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

impl Lexical {
    pub fn create(folder: &Path) -> tantivy::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let (schema, fields) = schema();
        Self::with(Index::create(UnsyncedDirectory::open(folder)?, schema, IndexSettings::default())?, fields)
    }

    /// Opens what is there, with the payload of its last commit.
    pub fn open(folder: &Path) -> tantivy::Result<(Self, Option<Payload>)> {
        let (schema, fields) = schema();
        let index = Index::open(UnsyncedDirectory::open(folder)?)?;
        if index.schema() != schema {
            return Err(tantivy::TantivyError::SchemaError("it has another schema".to_owned()));
        }
        if let Some(path) = index.validate_checksum()?.into_iter().next() {
            return Err(tantivy::TantivyError::InternalError(format!("the checksum of {} is wrong", path.display())));
        }
        let payload = index.load_metas()?.payload;
        let payload = payload.and_then(|text| serde_json::from_str(&text).ok());
        Ok((Self::with(index, fields)?, payload))
    }

    fn with(index: Index, fields: Fields) -> tantivy::Result<Self> {
        index.tokenizers().register(NAME, TenantTokenizer);
        let options = IndexWriterOptions::builder()
            .memory_budget_per_thread(WRITER_BYTES)
            .num_worker_threads(1)
            .num_merge_threads(1)
            .build();
        let writer = index.writer_with_options(options)?;
        // Files of a commit that a kill cut short: the next commit would give its own the same names.
        writer.garbage_collect_files().wait()?;
        let mut policy = LogMergePolicy::default();
        policy.set_del_docs_ratio_before_merge(MAX_REPLACED);
        policy.set_min_layer_size(SMALL_SEGMENT);
        writer.set_merge_policy(Box::new(policy));
        let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()?;
        Ok(Self { fields, reader, writer })
    }

    /// Takes the changes and commits them.
    pub fn write(&mut self, changes: &[Change], payload: Payload) -> tantivy::Result<()> {
        let fields = self.fields;
        for change in changes {
            match change {
                Change::Remove(number) => {
                    self.writer.delete_term(Term::from_field_u64(fields.row, u64::from(*number)));
                }
                Change::Put(number, row) => {
                    self.writer.delete_term(Term::from_field_u64(fields.row, u64::from(*number)));
                    let mut document = TantivyDocument::default();
                    document.add_text(fields.terms, value_of(row));
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

    /// Lets go of the directory, once no merge writes to it any more.
    pub fn close(self) -> tantivy::Result<()> {
        self.writer.wait_merging_threads()
    }

    /// A searcher over the last commit.
    pub fn searcher(&self) -> tantivy::Result<Searcher> {
        self.reader.reload()?;
        Ok(self.reader.searcher())
    }
}
