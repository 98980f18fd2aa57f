//! Registered models, their versions, stages and aliases.

use std::collections::BTreeMap;

use carbon_artifacts::{ArtifactPath, Manifest, ManifestEntry, Sha256Hex};
use carbon_schemas::Event as _;
use carbon_schemas::events::{KeyValue, ManifestFile, ModelKind, ModelPromoted, ModelRegistered};
use uuid::Uuid;

use super::report::Kind;
use super::sink::{List, at};
use super::store::{Bind, maybe, maybe_number, number, text};
use super::{Import, pair_size, pairs};
use crate::error::CliError;

/// What MLflow leaves of a version that was deleted: its number, which is never used again.
const DELETED: &str = "Deleted_Internal";

struct Model {
    name: String,
    created: i64,
    updated: i64,
    description: Option<String>,
    registration: Uuid,
}

impl Model {
    /// What ids of things of this model are derived from.
    fn own(&self) -> [String; 2] {
        [self.name.clone(), self.created.to_string()]
    }

    fn id(&self, import: &Import, table: &str, parts: &[&str]) -> Uuid {
        let [name, created] = self.own();
        import.sink.id(table, &[&[name.as_str(), created.as_str()], parts].concat())
    }

    fn event(&self, import: &Import, event_id: Uuid, time: i64, kind: ModelKind) -> ModelRegistered {
        ModelRegistered {
            registration_id: Some(self.registration),
            ..ModelRegistered::of(event_id, at(time), &import.sink.tenant, &self.name, kind)
        }
    }
}

struct Version {
    number: i64,
    created: i64,
    updated: i64,
    description: Option<String>,
    stage: String,
    source: String,
    storage: Option<String>,
    run: String,
    run_link: Option<String>,
    id: Uuid,
}

pub async fn import(import: &mut Import) -> Result<(), CliError> {
    let sql = format!(
        "SELECT name, CAST(creation_time AS BIGINT), CAST(last_updated_time AS BIGINT), description \
         FROM registered_models WHERE {} ORDER BY creation_time, name",
        import.store.in_workspace()
    );
    let workspace = import.store.workspace.clone();
    let mut owned = Vec::new();
    for row in import.store.rows(&sql, &[Bind::Text(&workspace)]).await? {
        let (name, created) = (text(&row, 0)?, number(&row, 1)?);
        let registration = import.sink.id("registered_models", &[&name, &created.to_string()]);
        let updated = maybe_number(&row, 2)?.unwrap_or(created);
        let model = Model {
            name,
            created,
            updated,
            description: maybe(&row, 3)?.filter(|said| !said.is_empty()),
            registration,
        };
        if one(import, &model).await? {
            owned.push(model);
        }
        import.bar.inc(1);
    }
    import.sink.flush().await?;
    import.read_claims().await?;
    let lost = owned.iter().find(|model| !import.claims.models.registrations.contains_key(&model.registration));
    match (&import.reader, lost) {
        (Some(_), Some(model)) => Err(CliError::Failed(format!(
            "another writer has registered the model {:?} at the same moment; run the same command again",
            model.name
        ))),
        _ => Ok(()),
    }
}

/// Whether the model is in the log as this store's.
async fn one(import: &mut Import, model: &Model) -> Result<bool, CliError> {
    let of_name = format!("{} AND name = $2", import.store.in_workspace());
    let workspace = import.store.workspace.clone();
    let binds = [Bind::Text(&workspace), Bind::Text(&model.name)];
    let known = &import.claims.models;
    if !known.registrations.contains_key(&model.registration) && known.named(&model.name).is_some() {
        let reason = "the name is taken by a model that is not of this store; rename one of them, or import for another --tenant";
        import.sink.report.refuse(Kind::Models, 1, &model.name, reason);
        refuse_versions(import, model, &of_name, &binds).await?;
        return Ok(false);
    }
    let event = ModelRegistered {
        description: model.description.clone(),
        ..model.event(import, model.id(import, "registered_models/created", &[]), model.created, ModelKind::Created)
    };
    if !import.sink.put(&event, &[(Kind::Models, 1)], &model.name).await? {
        refuse_versions(import, model, &of_name, &binds).await?;
        return Ok(false);
    }
    import.claims.models.fold(&event);
    let sql = format!("SELECT key, value FROM registered_model_tags WHERE {of_name} ORDER BY key");
    let items = pairs(&import.store.rows(&sql, &binds).await?)?;
    put_tags(import, Kind::ModelTags, "registered_models/tags", &model.own().join("/"), items, &|import, id| {
        model.event(import, id, model.created, ModelKind::Tagged)
    })
    .await?;

    let mut imported = BTreeMap::new();
    for version in versions(import, model, &of_name, &binds).await? {
        if put_version(import, model, &version, &of_name).await? {
            imported.insert(version.number, version.id);
        }
    }
    let sql =
        format!("SELECT alias, CAST(version AS BIGINT) FROM registered_model_aliases WHERE {of_name} ORDER BY alias");
    for row in import.store.rows(&sql, &binds).await? {
        let (alias, number) = (text(&row, 0)?, number(&row, 1)?);
        let shown = format!("{}@{alias}", model.name);
        let Some(version_id) = imported.get(&number).copied() else {
            import.sink.report.refuse(Kind::Aliases, 1, &shown, &format!("version {number} is not imported"));
            continue;
        };
        let event = ModelPromoted {
            registration_id: Some(model.registration),
            version: Some(number),
            version_id: Some(version_id),
            alias: Some(alias.clone()),
            ..ModelPromoted::of(
                model.id(import, "registered_models/alias", &[&alias, &number.to_string()]),
                at(model.updated),
                &import.sink.tenant,
                &model.name,
            )
        };
        import.sink.put(&event, &[(Kind::Aliases, 1)], &shown).await?;
    }
    // Last: versions have moved the time of the model's last change.
    let said = model.description.clone().unwrap_or_default();
    let event_id = model.id(import, "registered_models/described", &[&model.updated.to_string(), &said]);
    let event = ModelRegistered {
        description: model.description.clone(),
        ..model.event(import, event_id, model.updated, ModelKind::Described)
    };
    import.sink.put_state(&event, Kind::Models, &model.name).await?;
    Ok(true)
}

async fn refuse_versions(
    import: &mut Import,
    model: &Model,
    of_name: &str,
    binds: &[Bind<'_>],
) -> Result<(), CliError> {
    let count = import.store.count(&format!("model_versions WHERE {of_name}"), binds).await?;
    if count > 0 {
        import.sink.report.refuse(Kind::Versions, count, &model.name, "their model is not imported");
    }
    Ok(())
}

async fn versions(
    import: &mut Import,
    model: &Model,
    of_name: &str,
    binds: &[Bind<'_>],
) -> Result<Vec<Version>, CliError> {
    let sql = format!(
        "SELECT CAST(version AS BIGINT), CAST(creation_time AS BIGINT), CAST(last_updated_time AS BIGINT), description, \
         current_stage, source, storage_location, run_id, run_link FROM model_versions WHERE {of_name} ORDER BY version"
    );
    let rows = import.store.rows(&sql, binds).await?;
    rows.iter()
        .map(|row| {
            let (number, created) = (number(row, 0)?, number(row, 1)?);
            let id = model.id(import, "model_versions", &[&number.to_string(), &created.to_string()]);
            Ok(Version {
                number,
                created,
                updated: maybe_number(row, 2)?.unwrap_or(created),
                description: maybe(row, 3)?.filter(|said| !said.is_empty()),
                stage: text(row, 4)?,
                source: text(row, 5)?,
                storage: maybe(row, 6)?,
                run: text(row, 7)?,
                run_link: maybe(row, 8)?.filter(|link| !link.is_empty()),
                id,
            })
        })
        .collect()
}

/// Whether it is there, and not deleted.
async fn put_version(import: &mut Import, model: &Model, version: &Version, of_name: &str) -> Result<bool, CliError> {
    let name = format!("{}/{}", model.name, version.number);
    let claimed = import.claims.models.versions.get(&(model.registration, version.number));
    if claimed.is_some_and(|by| *by != version.id) {
        let reason = "the number is taken by a version that is not of this store";
        import.sink.report.refuse(Kind::Versions, 1, &name, reason);
        return Ok(false);
    }
    let own = version.id.to_string();
    let of = |import: &Import, event_id, time, kind| ModelRegistered {
        version: Some(version.number),
        version_id: Some(version.id),
        ..model.event(import, event_id, time, kind)
    };
    let deleted = version.stage == DELETED;
    let event_id = import.sink.id("model_versions/created", &[&own]);
    let mut event = of(import, event_id, version.created, ModelKind::VersionCreated);
    let source = import.places.rewritten(&version.source);
    if !deleted {
        let storage = version.storage.as_deref().map(|storage| import.places.rewritten(storage));
        let storage = storage.filter(|storage| !storage.is_empty() && *storage != source);
        let manifest = manifest(import, storage.as_deref().unwrap_or(&source))?;
        let file = |entry: &ManifestEntry| ManifestFile {
            path: entry.path.to_string(),
            size: i64::try_from(entry.size).unwrap_or(i64::MAX),
            sha256: entry.sha256.to_string(),
        };
        event.manifest = manifest.entries().iter().map(file).collect();
        event.manifest_digest = (!event.manifest.is_empty()).then(|| manifest.digest().to_string());
        event.storage = storage;
        event.description.clone_from(&version.description);
        event.run_id = Some(version.run.clone()).filter(|run| !run.is_empty());
        event.run_link.clone_from(&version.run_link);
        event.model_id = logged_model(&source);
    }
    event.source = Some(source);
    if let Err(reason) = event.check()
        && !event.manifest.is_empty()
    {
        // The version is worth more than the list of its files.
        import.sink.report.refuse_part(Kind::Versions, &name, &format!("imported without its list of files: {reason}"));
        (event.manifest, event.manifest_digest) = (Vec::new(), None);
    }
    if !import.sink.put(&event, &[(Kind::Versions, 1)], &name).await? {
        return Ok(false);
    }
    import.claims.models.fold(&event);
    if deleted {
        let event_id = import.sink.id("model_versions/deleted", &[&own]);
        let event = of(import, event_id, version.updated, ModelKind::VersionDeleted);
        import.sink.put_state(&event, Kind::Versions, &name).await?;
        return Ok(false);
    }
    let workspace = import.store.workspace.clone();
    let binds = [Bind::Text(&workspace), Bind::Text(&model.name), Bind::Number(version.number)];
    let sql = format!("SELECT key, value FROM model_version_tags WHERE {of_name} AND version = $3 ORDER BY key");
    let items = pairs(&import.store.rows(&sql, &binds).await?)?;
    put_tags(import, Kind::VersionTags, "model_versions/tags", &own, items, &|import, id| {
        of(import, id, version.created, ModelKind::VersionTagged)
    })
    .await?;
    let updated = version.updated.to_string();
    if version.updated != version.created {
        let said = version.description.clone().unwrap_or_default();
        let event_id = import.sink.id("model_versions/described", &[&own, &updated, &said]);
        let event = ModelRegistered {
            description: Some(said),
            ..of(import, event_id, version.updated, ModelKind::VersionDescribed)
        };
        import.sink.put_state(&event, Kind::Versions, &name).await?;
    }
    if !matches!(version.stage.as_str(), "" | "None") {
        let event = ModelPromoted {
            registration_id: Some(model.registration),
            version: Some(version.number),
            version_id: Some(version.id),
            stage: Some(version.stage.clone()),
            ..ModelPromoted::of(
                import.sink.id("model_versions/stage", &[&own, &version.stage, &updated]),
                at(version.updated),
                &import.sink.tenant,
                &model.name,
            )
        };
        import.sink.put(&event, &[(Kind::Stages, 1)], &format!("{name} {}", version.stage)).await?;
    }
    Ok(true)
}

/// `of` makes an event of an id, without the tags.
async fn put_tags(
    import: &mut Import,
    kind: Kind,
    table: &'static str,
    owner: &str,
    items: Vec<KeyValue>,
    of: &(dyn Fn(&Import, Uuid) -> ModelRegistered + Sync),
) -> Result<(), CliError> {
    let list = List { kind, table, owner, items, size: pair_size, name: |pair: &KeyValue| &pair.key };
    let bare = of(import, Uuid::nil());
    import.sink.put_list(list, |event_id, tags| ModelRegistered { event_id, tags, ..bare.clone() }).await
}

/// `models:/m-…`: the source of what was logged as a model.
fn logged_model(source: &str) -> Option<String> {
    let id = source.strip_prefix("models:/")?.trim_start_matches('/').split('/').next()?;
    let hex = id.strip_prefix("m-")?;
    (hex.len() == 32 && hex.bytes().all(|digit| digit.is_ascii_hexdigit())).then(|| id.to_owned())
}

/// The imported files of a place.
fn manifest(import: &Import, storage: &str) -> Result<Manifest, CliError> {
    let Some(root) = import.places.path_of(storage).filter(|root| !root.is_empty()) else {
        return Ok(Manifest::default());
    };
    let prefix = format!("{root}/");
    let below = import.files.range(prefix.clone()..).take_while(|(path, _)| path.starts_with(&prefix));
    let mut entries = Vec::new();
    for (path, (size, sha256)) in below {
        let fault = |error: carbon_artifacts::ArtifactError| CliError::Failed(error.to_string());
        entries.push(ManifestEntry {
            path: ArtifactPath::parse(&path[prefix.len()..]).map_err(fault)?,
            size: *size,
            sha256: Sha256Hex::parse(sha256).map_err(fault)?,
        });
    }
    Manifest::new(entries).map_err(|error| CliError::Failed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_may_be_a_logged_model() {
        let id = format!("m-{}", "0a".repeat(16));
        assert_eq!(logged_model(&format!("models:/{id}")), Some(id.clone()));
        assert_eq!(logged_model(&format!("models:/{id}/model")), Some(id));
        for other in ["models:/m-1", "models:/name/3", "models:/m-forecast@champion", "s3://b/m-1", "runs:/r/m"] {
            assert_eq!(logged_model(other), None, "{other}");
        }
    }
}
