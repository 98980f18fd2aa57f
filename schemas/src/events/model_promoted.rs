use carbon_core::{TenantId, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::tracking::{TenantKey, TrackingLimits as Limits, at_most, check_alias, check_model_name};
use crate::event::{Event, event_schema, uuid_text};

/// `ml.model.promoted.v1`: a version was given a stage or an alias, or an alias was taken away.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelPromoted {
    #[serde(with = "uuid_text")]
    pub event_id: Uuid,
    pub occurred_at: Timestamp,
    pub tenant_id: TenantId,
    pub model_name: String,
    #[serde(with = "uuid_text::option")]
    pub registration_id: Option<Uuid>,
    pub version: Option<i64>,
    #[serde(with = "uuid_text::option")]
    pub version_id: Option<Uuid>,
    pub run_id: Option<String>,
    pub stage: Option<String>,
    pub alias: Option<String>,
    pub archive_existing: bool,
    pub previous: Option<i64>,
    pub promoted_by: Option<String>,
}

/// What a version's stage may be.
pub const MODEL_STAGES: [&str; 4] = ["None", "Staging", "Production", "Archived"];

impl ModelPromoted {
    /// An event that says nothing yet but what it is about.
    pub fn of(event_id: Uuid, at: Timestamp, tenant: &TenantId, model_name: &str) -> Self {
        Self {
            event_id,
            occurred_at: at,
            tenant_id: tenant.clone(),
            model_name: model_name.to_owned(),
            registration_id: None,
            version: None,
            version_id: None,
            run_id: None,
            stage: None,
            alias: None,
            archive_existing: false,
            previous: None,
            promoted_by: None,
        }
    }
}

impl Event for ModelPromoted {
    const NAME: &'static str = "ml.model.promoted.v1";
    type Key = TenantKey;

    event_schema!(ModelPromoted);

    fn event_id(&self) -> Uuid {
        self.event_id
    }

    fn occurred_at(&self) -> Timestamp {
        self.occurred_at
    }

    fn tenant(&self) -> Option<&TenantId> {
        Some(&self.tenant_id)
    }

    fn key(&self) -> Result<TenantKey, String> {
        TenantKey::new(&self.tenant_id, &self.model_name)
    }

    fn parse_key(text: &str) -> Result<TenantKey, String> {
        TenantKey::parse(text)
    }

    fn check(&self) -> Result<(), String> {
        check_model_name(&self.model_name)?;
        match (&self.stage, &self.alias) {
            (Some(stage), None) => {
                if !MODEL_STAGES.contains(&stage.as_str()) {
                    return Err(format!("{stage:?} is no stage"));
                }
                if self.version.is_none() {
                    return Err("a stage needs version".into());
                }
                if self.archive_existing && !matches!(stage.as_str(), "Staging" | "Production") {
                    return Err(format!("archive_existing says nothing of stage {stage}"));
                }
            }
            (None, Some(alias)) => {
                check_alias(alias)?;
                if self.archive_existing {
                    return Err("archive_existing says nothing of an alias".into());
                }
            }
            _ => return Err("either stage or alias is given".into()),
        }
        if let Some(version) =
            [self.version, self.previous].into_iter().flatten().find(|v| !Limits::VERSIONS.contains(v))
        {
            return Err(format!("version {version} is not from 1 to {}", Limits::VERSIONS.end()));
        }
        at_most("run_id", self.run_id.as_deref().unwrap_or_default(), Limits::ID)?;
        at_most("promoted_by", self.promoted_by.as_deref().unwrap_or_default(), Limits::ID)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn either_a_stage_or_an_alias() {
        let tenant = TenantId::parse("acme").unwrap();
        let of =
            |stage: Option<&str>, alias: Option<&str>, version: Option<i64>, archive_existing: bool| ModelPromoted {
                stage: stage.map(Into::into),
                alias: alias.map(Into::into),
                version,
                archive_existing,
                ..ModelPromoted::of(Uuid::nil(), Timestamp(0), &tenant, "m")
            };
        let production = Some("Production");
        for good in [
            of(production, None, Some(1), true),
            of(Some("None"), None, Some(1), false),
            of(None, Some("champion"), None, false),
            of(None, Some("été-1"), Some(3), false),
        ] {
            assert_eq!(good.check(), Ok(()));
        }
        for bad in [
            of(None, None, Some(1), false),
            of(production, Some("champion"), Some(1), false),
            of(production, None, None, false),
            of(Some("production"), None, Some(1), false),
            of(Some("None"), None, Some(1), true),
            of(None, Some("champion"), Some(1), true),
            of(None, Some("champion"), Some(0), false),
            of(None, Some("v12"), Some(1), false),
            of(None, Some("Latest"), Some(1), false),
            of(None, Some("a b"), Some(1), false),
            of(None, Some(""), Some(1), false),
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }
}
