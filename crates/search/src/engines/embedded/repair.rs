//! Opens the tantivy directory and makes it agree with the rows. A directory that is behind catches up. A directory
//! that is ahead, that belongs to another `rows.db`, or that cannot be read is rebuilt.

use std::path::Path;

use roaring::RoaringBitmap;
use tantivy::TantivyError;
use uuid::Uuid;

use super::lexical::{Change, CommitPayload, LexicalIndex};
use super::row_table::RowTable;
use super::view::View;
use crate::error::IndexError;

/// An open tantivy index that agrees with the rows.
pub(super) struct OpenedIndex {
    pub lexical: LexicalIndex,
    pub view: View,
    /// A new incarnation if the directory was ahead of the rows, otherwise the given one. Two histories of the rows
    /// must not share an incarnation.
    pub incarnation: Uuid,
    /// Descriptions of the repairs; empty if none was necessary.
    pub repairs: Vec<String>,
}

/// Opens the index in `folder`, or creates it, and makes it agree with the rows. Fails if another writer has the lock
/// of the directory.
pub(super) fn open(folder: &Path, incarnation: Uuid, table: &RowTable) -> Result<OpenedIndex, IndexError> {
    let wanted = CommitPayload { incarnation, sequence: table.sequence };
    let (lexical, behind) = match LexicalIndex::open(folder) {
        Ok((lexical, Some(found))) if found.incarnation == incarnation && found.sequence <= wanted.sequence => {
            let behind = (found.sequence < wanted.sequence).then(|| {
                format!("the text index was at sequence {}, behind the rows at {}", found.sequence, wanted.sequence)
            });
            (lexical, behind)
        }
        Ok((lexical, found)) => {
            drop(lexical);
            let (reason, incarnation) = match found {
                Some(found) if found.incarnation == incarnation => {
                    let reason =
                        format!("was at sequence {}, ahead of the rows at {}", found.sequence, wanted.sequence);
                    (reason, Uuid::new_v4())
                }
                Some(_) => ("belonged to another rows.db".to_owned(), incarnation),
                None => ("had no commit payload".to_owned(), incarnation),
            };
            return rebuild(folder, incarnation, table, Some(reason));
        }
        // Another writer has the directory open.
        Err(error @ TantivyError::LockFailure(..)) => return Err(error.into()),
        Err(_) if table.sequence == 0 && !folder.exists() => return rebuild(folder, incarnation, table, None),
        Err(error) if !folder.exists() => {
            return rebuild(folder, incarnation, table, Some(format!("was missing: {error}")));
        }
        Err(error) => return rebuild(folder, incarnation, table, Some(format!("could not be read: {error}"))),
    };
    let searcher = lexical.searcher()?;
    let view = match View::new(table.clone(), searcher, lexical.fields, None) {
        Ok(view) => view,
        Err(error) => {
            drop(lexical);
            return rebuild(folder, incarnation, table, Some(format!("could not be read: {error}")));
        }
    };
    let changes = differences(&view);
    let repair = match (behind, changes.len()) {
        (None, 0) => return Ok(OpenedIndex { lexical, view, incarnation, repairs: Vec::new() }),
        (Some(behind), count) => format!("{behind}; {count} changes were caught up"),
        (None, count) => format!("the text index differed from the rows; {count} changes repaired it"),
    };
    match write_and_view(lexical, wanted, &changes, table, vec![repair]) {
        // A process that was killed may have left files of an unfinished commit, with the file names of this commit.
        Err(IndexError::Lexical(error)) => {
            rebuild(folder, incarnation, table, Some(format!("could not catch up: {error}")))
        }
        finished => finished,
    }
}

/// Deletes the directory and rebuilds it from the rows. `reason` is `None` for a new generation.
fn rebuild(
    folder: &Path,
    incarnation: Uuid,
    table: &RowTable,
    reason: Option<String>,
) -> Result<OpenedIndex, IndexError> {
    if folder.exists() {
        std::fs::remove_dir_all(folder)
            .map_err(|source| IndexError::Io { path: folder.display().to_string(), source })?;
    }
    let lexical = LexicalIndex::create(folder)?;
    let put = |number| table.row(number).map(|row| Change::Put(number, row.clone()));
    let mut numbers: Vec<u32> = table.numbers().collect();
    numbers.sort_unstable();
    let changes: Vec<Change> = numbers.into_iter().filter_map(put).collect();
    let repairs = reason.map(|reason| format!("the text index {reason}; it was made anew"));
    let payload = CommitPayload { incarnation, sequence: table.sequence };
    write_and_view(lexical, payload, &changes, table, repairs.into_iter().collect())
}

/// Writes the changes and opens a view.
fn write_and_view(
    mut lexical: LexicalIndex,
    payload: CommitPayload,
    changes: &[Change],
    table: &RowTable,
    repairs: Vec<String>,
) -> Result<OpenedIndex, IndexError> {
    lexical.write(changes, payload)?;
    let view = View::new(table.clone(), lexical.searcher()?, lexical.fields, None)?;
    Ok(OpenedIndex { lexical, view, incarnation: payload.incarnation, repairs })
}

/// The changes after which the directory has exactly one document for each row, made by the row's last write.
fn differences(view: &View) -> Vec<Change> {
    let mut matching = RoaringBitmap::new();
    let mut changes = Vec::new();
    for (number, sequence) in view.segments.iter().flat_map(|segment| segment.alive()) {
        let matches = view.table.row(number).is_some_and(|row| row.sequence == sequence);
        // A second document of the same write would count twice in the scores.
        if !matches || !matching.insert(number) {
            matching.remove(number);
            changes.push(Change::Remove(number));
        }
    }
    let mut missing: Vec<u32> = view.table.numbers().filter(|number| !matching.contains(*number)).collect();
    missing.sort_unstable();
    let put = |number| view.table.row(number).map(|row| Change::Put(number, row.clone()));
    changes.extend(missing.into_iter().filter_map(put));
    changes
}
