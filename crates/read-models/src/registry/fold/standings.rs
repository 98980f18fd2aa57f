//! The stages and aliases of every registration that a batch may have changed, computed at the end of the batch. They
//! are stored and not computed by queries, so that searches can filter and order by them.

use std::collections::BTreeSet;

use carbon_store::Tables;

use crate::projection::FoldError;
use crate::registry::promotion_inputs::{name_periods, names, promotion_inputs, promotions_by_name};
use crate::registry::standing::{Effect, Standing, effect, standing, target_registration};

/// The registrations and names that a batch may have changed, each with its tenant.
#[derive(Debug, Default)]
pub(super) struct Touched {
    models: BTreeSet<(String, String)>,
    names: BTreeSet<(String, String)>,
}

impl Touched {
    pub fn model(&mut self, tenant: &str, registration: &str) {
        self.models.insert((tenant.to_owned(), registration.to_owned()));
    }

    pub fn name(&mut self, tenant: &str, name: &str) {
        self.names.insert((tenant.to_owned(), name.to_owned()));
    }
}

/// Writes the outcomes of promotions, and the stages and aliases.
pub(super) async fn settle(tables: &mut Tables<'_>, touched: Touched) -> Result<(), FoldError> {
    let Touched { mut models, names: mut of_names } = touched;
    for (tenant, registration) in &models {
        for name in names(&mut tables.connection(), tenant, registration).await? {
            of_names.insert((tenant.clone(), name));
        }
    }
    // A promotion by name may now mean another registration that has or had the name.
    for (tenant, name) in &of_names {
        let periods = name_periods(&mut tables.connection(), tenant, name).await?;
        for promotion in promotions_by_name(&mut tables.connection(), tenant, name).await? {
            if target_registration(&promotion, &periods).is_none() {
                record(tables, promotion.offset, None, Effect::NoSuchModel).await?;
            }
        }
        models.extend(periods.into_iter().map(|period| (tenant.clone(), period.registration)));
    }
    for (tenant, registration) in &models {
        settle_one(tables, tenant, registration).await?;
    }
    Ok(())
}

async fn settle_one(tables: &mut Tables<'_>, tenant: &str, registration: &str) -> Result<(), FoldError> {
    let found: Option<i64> =
        carbon_store::query("SELECT 1 FROM registered_models WHERE tenant_id = $1 AND registration_id = $2")
            .bind(tenant)
            .bind(registration)
            .scalar(tables.connection())
            .await?;
    if found.is_none() {
        return Ok(());
    }
    let inputs = promotion_inputs(&mut tables.connection(), tenant, registration).await?;
    for promotion in &inputs.promotions {
        record(tables, promotion.offset, Some(registration), effect(promotion, &inputs.versions)).await?;
    }
    let standing = standing(&inputs.versions, &inputs.promotions, None);
    carbon_store::query(
        "UPDATE registered_models SET last_updated = CASE WHEN $3 > updated_at THEN $3 ELSE updated_at END \
         WHERE tenant_id = $1 AND registration_id = $2",
    )
    .bind(tenant)
    .bind(registration)
    .bind(standing.staged_at)
    .execute(tables.connection())
    .await?;
    write_stages(tables, tenant, registration, &standing).await?;
    write_aliases(tables, tenant, registration, &standing).await
}

/// Writes only the versions that changed: most batches change one.
async fn write_stages(
    tables: &mut Tables<'_>,
    tenant: &str,
    registration: &str,
    standing: &Standing,
) -> Result<(), FoldError> {
    let rows = carbon_store::query(
        "SELECT version, stage, updated_at, last_updated FROM model_versions \
         WHERE tenant_id = $1 AND registration_id = $2",
    )
    .bind(tenant)
    .bind(registration)
    .fetch_all(tables.connection())
    .await?;
    for row in &rows {
        let version: i64 = row.try_get(0)?;
        let (updated_at, known): (i64, i64) = (row.try_get(2)?, row.try_get(3)?);
        let (stage, since) = standing.stages.get(&version).map_or(("None", None), |(stage, at)| (stage, Some(*at)));
        let last_updated = since.map_or(updated_at, |since| since.max(updated_at));
        if row.try_get::<String>(1)? == stage && known == last_updated {
            continue;
        }
        carbon_store::query(
            "UPDATE model_versions SET stage = $4, last_updated = $5 \
             WHERE tenant_id = $1 AND registration_id = $2 AND version = $3",
        )
        .bind(tenant)
        .bind(registration)
        .bind(version)
        .bind(stage)
        .bind(last_updated)
        .execute(tables.connection())
        .await?;
    }
    Ok(())
}

async fn write_aliases(
    tables: &mut Tables<'_>,
    tenant: &str,
    registration: &str,
    standing: &Standing,
) -> Result<(), FoldError> {
    carbon_store::query("DELETE FROM model_aliases WHERE tenant_id = $1 AND registration_id = $2")
        .bind(tenant)
        .bind(registration)
        .execute(tables.connection())
        .await?;
    for (alias, version) in &standing.aliases {
        carbon_store::query(
            "INSERT INTO model_aliases (tenant_id, registration_id, alias, version) VALUES ($1, $2, $3, $4)",
        )
        .bind(tenant)
        .bind(registration)
        .bind(alias)
        .bind(version)
        .execute(tables.connection())
        .await?;
    }
    Ok(())
}

/// Writes the outcome of a promotion if it changed.
async fn record(
    tables: &mut Tables<'_>,
    offset: i64,
    registration: Option<&str>,
    effect: Effect,
) -> Result<(), FoldError> {
    carbon_store::query(
        "UPDATE promotions SET meant_id = $2, effect = $3 \
         WHERE \"offset\" = $1 AND (meant_id IS DISTINCT FROM $2 OR effect <> $3)",
    )
    .bind(offset)
    .bind(registration)
    .bind(effect.as_str())
    .execute(tables.connection())
    .await?;
    Ok(())
}
