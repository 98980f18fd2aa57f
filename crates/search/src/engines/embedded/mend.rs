//! Opening the tantivy directory so that it holds what the rows say: what is behind catches up,
//! what follows another file or cannot be read is made anew.

use std::path::Path;

use roaring::RoaringBitmap;
use tantivy::TantivyError;
use uuid::Uuid;

use super::data::Data;
use super::lexical::{Change, Lexical, Payload};
use super::view::View;
use crate::error::IndexError;

pub(super) struct Opened {
    pub lexical: Lexical,
    pub view: View,
    /// Another than was given, if the directory was ahead: two histories must not share one.
    pub incarnation: Uuid,
    pub repairs: Vec<String>,
}

pub(super) fn open(folder: &Path, incarnation: Uuid, data: &Data) -> Result<Opened, IndexError> {
    let wanted = Payload { incarnation, sequence: data.sequence };
    let (lexical, behind) = match Lexical::open(folder) {
        Ok((lexical, Some(found))) if found.incarnation == incarnation && found.sequence <= wanted.sequence => {
            let behind = (found.sequence < wanted.sequence)
                .then(|| format!("the text index stood at {}, the rows at {}", found.sequence, wanted.sequence));
            (lexical, behind)
        }
        Ok((lexical, found)) => {
            drop(lexical);
            let (reason, incarnation) = match found {
                Some(found) if found.incarnation == incarnation => {
                    let reason = format!("stood at {}, ahead of the rows at {}", found.sequence, wanted.sequence);
                    (reason, Uuid::new_v4())
                }
                Some(_) => ("followed another file of rows".to_owned(), incarnation),
                None => ("did not say what it follows".to_owned(), incarnation),
            };
            return anew(folder, incarnation, data, Some(reason));
        }
        // Somebody else is writing there.
        Err(error @ TantivyError::LockFailure(..)) => return Err(error.into()),
        Err(_) if data.sequence == 0 && !folder.exists() => return anew(folder, incarnation, data, None),
        Err(error) if !folder.exists() => {
            return anew(folder, incarnation, data, Some(format!("was missing: {error}")));
        }
        Err(error) => return anew(folder, incarnation, data, Some(format!("could not be read: {error}"))),
    };
    let searcher = lexical.searcher()?;
    let view = match View::new(data.clone(), searcher, lexical.fields, None) {
        Ok(view) => view,
        Err(error) => {
            drop(lexical);
            return anew(folder, incarnation, data, Some(format!("could not be read: {error}")));
        }
    };
    let changes = differences(&view);
    let repair = match (behind, changes.len()) {
        (None, 0) => return Ok(Opened { lexical, view, incarnation, repairs: Vec::new() }),
        (Some(behind), count) => format!("{behind}; {count} changes were caught up"),
        (None, count) => format!("the text index differed from the rows; {count} changes mended it"),
    };
    match finish(lexical, wanted, &changes, data, vec![repair]) {
        // A process that was killed may have left files of a commit that never was, in this one's way.
        Err(IndexError::Lexical(error)) => {
            anew(folder, incarnation, data, Some(format!("could not catch up: {error}")))
        }
        finished => finished,
    }
}

fn anew(folder: &Path, incarnation: Uuid, data: &Data, reason: Option<String>) -> Result<Opened, IndexError> {
    if folder.exists() {
        std::fs::remove_dir_all(folder)
            .map_err(|source| IndexError::Io { path: folder.display().to_string(), source })?;
    }
    let lexical = Lexical::create(folder)?;
    let put = |number| data.row(number).map(|row| Change::Put(number, row.clone()));
    let mut numbers: Vec<u32> = data.numbers().collect();
    numbers.sort_unstable();
    let changes: Vec<Change> = numbers.into_iter().filter_map(put).collect();
    let repairs = reason.map(|reason| format!("the text index {reason}; it was made anew"));
    let payload = Payload { incarnation, sequence: data.sequence };
    finish(lexical, payload, &changes, data, repairs.into_iter().collect())
}

fn finish(
    mut lexical: Lexical,
    payload: Payload,
    changes: &[Change],
    data: &Data,
    repairs: Vec<String>,
) -> Result<Opened, IndexError> {
    lexical.write(changes, payload)?;
    let view = View::new(data.clone(), lexical.searcher()?, lexical.fields, None)?;
    Ok(Opened { lexical, view, incarnation: payload.incarnation, repairs })
}

/// What makes the directory hold each row's last write, and nothing else.
fn differences(view: &View) -> Vec<Change> {
    let mut right = RoaringBitmap::new();
    let mut changes = Vec::new();
    for (number, sequence) in view.segments.iter().flat_map(|segment| segment.alive()) {
        let is_right = view.data.row(number).is_some_and(|row| row.sequence == sequence);
        // A second one of the same write would count twice.
        if !is_right || !right.insert(number) {
            right.remove(number);
            changes.push(Change::Remove(number));
        }
    }
    let mut missing: Vec<u32> = view.data.numbers().filter(|number| !right.contains(*number)).collect();
    missing.sort_unstable();
    let put = |number| view.data.row(number).map(|row| Change::Put(number, row.clone()));
    changes.extend(missing.into_iter().filter_map(put));
    changes
}
