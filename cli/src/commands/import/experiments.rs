//! Experiments keep their ids where those are free.

use std::collections::HashMap;

use carbon_schemas::events::{ExperimentChanged, ExperimentKind, KeyValue};
use uuid::Uuid;

use super::report::Kind;
use super::sink::{List, at};
use super::store::{Bind, maybe_number, number, text};
use super::{Import, pair_size, pairs};
use crate::error::CliError;

/// The experiment that every tenant has from the start.
const DEFAULT: (i64, &str) = (0, "Default");

/// What an experiment of the store is here.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    pub id: i64,
    pub deleted: bool,
}

struct Row {
    id: i64,
    name: String,
    location: String,
    deleted: bool,
    created: Option<i64>,
    updated: i64,
}

/// What becomes of an experiment of the store.
enum Fate {
    /// It is imported under this id.
    As(i64),
    /// It is one that is there, and only gets the tags.
    Joined(i64),
    Refused(String),
}

/// The ids under which the store's experiments are imported, by those that they have there.
pub async fn import(import: &mut Import) -> Result<HashMap<i64, Target>, CliError> {
    let sql = format!(
        "SELECT CAST(experiment_id AS BIGINT), name, artifact_location, lifecycle_stage, CAST(creation_time AS BIGINT), \
         CAST(last_update_time AS BIGINT) FROM experiments WHERE {} ORDER BY experiment_id",
        import.store.in_workspace()
    );
    let workspace = import.store.workspace.clone();
    let mut rows = Vec::new();
    for row in import.store.rows(&sql, &[Bind::Text(&workspace)]).await? {
        let created = maybe_number(&row, 4)?;
        rows.push(Row {
            id: number(&row, 0)?,
            name: text(&row, 1)?,
            location: text(&row, 2)?,
            deleted: text(&row, 3)? == "deleted",
            created,
            updated: maybe_number(&row, 5)?.or(created).unwrap_or_default(),
        });
    }
    rows.iter().for_each(|row| import.places.learn(&row.location));
    let claims = import.claims.experiments.0.iter();
    let earlier = claims.map(|(id, claim)| (*id, claim.created_by)).filter(|(_, by)| by.get_version_num() == 5);
    let earlier: Vec<(i64, Uuid)> = earlier.collect();
    let mut ids = HashMap::new();
    let last = rows.iter().map(|row| row.id).max().unwrap_or_default();
    let mut claimed = Vec::new();
    for row in &rows {
        match fate(import, row, last, &earlier) {
            Fate::As(id) => {
                if create(import, row, id).await? {
                    if id != row.id {
                        import.renumbered.push((row.id, id));
                    }
                    claimed.push((row, id));
                    ids.insert(row.id, Target { id, deleted: row.deleted });
                }
            }
            Fate::Joined(id) => {
                import.sink.report.of(Kind::Experiments).already_there += 1;
                tags(import, row, id).await?;
                ids.insert(row.id, Target { id, deleted: row.deleted });
            }
            Fate::Refused(reason) => {
                import.sink.report.refuse(Kind::Experiments, 1, &named(row), &reason);
            }
        }
    }
    import.sink.flush().await?;
    import.read_claims().await?;
    // Another writer of the cluster may have been quicker: what refers to its id would land in its experiment.
    if let Some((row, id)) = claimed.iter().find(|(row, id)| !is_own(import, row, *id)) {
        return Err(CliError::Failed(format!(
            "{} was to get id {id}, which another writer has claimed at the same moment; run the same command again",
            named(row)
        )));
    }
    for row in rows.iter().filter(|row| !ids.contains_key(&row.id)) {
        for (kind, table) in [(Kind::Runs, "runs"), (Kind::LoggedModels, "logged_models")] {
            let what = format!("{table} WHERE experiment_id = $1");
            let count = import.store.count(&what, &[Bind::Number(row.id)]).await?;
            if count > 0 {
                import.sink.report.refuse(kind, count, &named(row), "their experiment is not imported");
            }
        }
    }
    Ok(ids)
}

fn named(row: &Row) -> String {
    format!("{} {:?}", row.id, row.name)
}

/// What ids of things of this experiment are derived from. It may be renamed, but one of a time before there were times
/// has only its name.
fn own(row: &Row) -> String {
    format!("{}/{}", row.id, row.created.map_or_else(|| row.name.clone(), |time| time.to_string()))
}

fn created_by(import: &Import, row: &Row, id: i64) -> Uuid {
    import.sink.id("experiments", &[&own(row), &id.to_string()])
}

fn is_own(import: &Import, row: &Row, id: i64) -> bool {
    match &import.reader {
        Some(_) => {
            let claim = import.claims.experiments.0.get(&id);
            claim.is_some_and(|claim| claim.created_by == created_by(import, row, id))
        }
        None => true,
    }
}

/// `earlier` are those that an import may have made.
fn fate(import: &Import, row: &Row, last: i64, earlier: &[(i64, Uuid)]) -> Fate {
    let known = &import.claims.experiments;
    if let Some(claim) = known.0.get(&row.id)
        && claim.created_by == created_by(import, row, row.id)
    {
        return Fate::As(row.id);
    }
    let own = earlier.iter().find(|(id, by)| *by == created_by(import, row, *id));
    if let Some((id, _)) = own {
        return Fate::As(*id);
    }
    match known.named(&row.name) {
        Some(id) if (id, row.name.as_str()) == DEFAULT && row.id == id => Fate::Joined(id),
        Some(id) => Fate::Refused(format!(
            "the name is taken by experiment {id}, which is not of this store; rename one of them, or import for another --tenant"
        )),
        None if (0..=ExperimentChanged::LAST_ID).contains(&row.id) && !known.0.contains_key(&row.id) => {
            Fate::As(row.id)
        }
        None => {
            let taken = known.0.keys().next_back().copied().unwrap_or_default();
            let most = last.min(ExperimentChanged::LAST_ID - 1);
            Fate::As(taken.max(most).max(0) + 1)
        }
    }
}

async fn create(import: &mut Import, row: &Row, id: i64) -> Result<bool, CliError> {
    let tenant = import.sink.tenant.clone();
    let of = |event_id, time, kind| ExperimentChanged::of(event_id, at(time), &tenant, id, kind);
    let created = row.created.unwrap_or(row.updated);
    let event = ExperimentChanged {
        name: Some(row.name.clone()),
        artifact_location: Some(import.places.rewritten(&row.location)),
        ..of(created_by(import, row, id), created, ExperimentKind::Created)
    };
    if !import.sink.put(&event, &[(Kind::Experiments, 1)], &named(row)).await? {
        return Ok(false);
    }
    import.claims.experiments.fold(&event);
    let tagged = tags(import, row, id).await?;
    let own = own(row);
    let updated = row.updated.to_string();
    if tagged == 0 && row.updated != created && !row.deleted {
        // A change without tags: it says when the experiment changed last.
        let event_id = import.sink.id("experiments/touched", &[&own, &updated]);
        import
            .sink
            .put_state(&of(event_id, row.updated, ExperimentKind::Tagged), Kind::Experiments, &named(row))
            .await?;
    }
    if row.deleted {
        let event_id = import.sink.id("experiments/deleted", &[&own, &updated]);
        import
            .sink
            .put_state(&of(event_id, row.updated, ExperimentKind::Deleted), Kind::Experiments, &named(row))
            .await?;
    }
    Ok(true)
}

async fn tags(import: &mut Import, row: &Row, id: i64) -> Result<usize, CliError> {
    let sql = "SELECT key, value FROM experiment_tags WHERE experiment_id = $1 ORDER BY key";
    let items = pairs(&import.store.rows(sql, &[Bind::Number(row.id)]).await?)?;
    let (count, tenant, updated) = (items.len(), import.sink.tenant.clone(), row.updated);
    let owner = own(row);
    let list = List {
        kind: Kind::ExperimentTags,
        table: "experiments/tags",
        owner: &owner,
        items,
        size: pair_size,
        name: |tag: &KeyValue| &tag.key,
    };
    let event = |event_id, tags| ExperimentChanged {
        tags,
        ..ExperimentChanged::of(event_id, at(updated), &tenant, id, ExperimentKind::Tagged)
    };
    import.sink.put_list(list, event).await?;
    Ok(count)
}
