//! `ml.model.promoted.v1`: stages and aliases of model versions.

use carbon_core::{TenantId, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::tracking::{TrackingLimits, check_alias, check_model_name, check_optional, check_version};
use crate::event::{Event, common_fields, tenant_key, uuid_text};

/// `ml.model.promoted.v1`: a version got a stage or an alias, or an alias was removed.
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

/// The valid values of a version's stage.
pub const MODEL_STAGES: [&str; 4] = ["None", "Staging", "Production", "Archived"];

impl ModelPromoted {
    /// An event with its identity; every other field is empty.
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
    common_fields!("ml.model.promoted.v1");
    tenant_key!(model_name);

    fn check(&self) -> Result<(), String> {
        check_model_name(&self.model_name)?;
        match (&self.stage, &self.alias) {
            (Some(stage), None) => {
                if !MODEL_STAGES.contains(&stage.as_str()) {
                    return Err(format!("{stage:?} is not a stage"));
                }
                if self.version.is_none() {
                    return Err("a stage needs a version".into());
                }
                if self.archive_existing && !matches!(stage.as_str(), "Staging" | "Production") {
                    return Err(format!("archive_existing is not allowed with stage {stage}"));
                }
            }
            (None, Some(alias)) => {
                check_alias(alias)?;
                if self.archive_existing {
                    return Err("archive_existing is not allowed with an alias".into());
                }
            }
            _ => return Err("exactly one of stage and alias must be set".into()),
        }
        check_version(self.version)?;
        check_version(self.previous)?;
        check_optional("run_id", &[&self.run_id], TrackingLimits::ID)?;
        check_optional("promoted_by", &[&self.promoted_by], TrackingLimits::ID)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_of_stage_and_alias_is_accepted() {
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
