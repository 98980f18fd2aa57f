//! The rows that [`standing`](super::standing) is computed from, for one registration.

use super::standing::{NamePeriod, Promotion, VersionState, target_registration};
use carbon_store::{Connection, Row};

/// The versions of a registration, and the promotions that mean it, in log order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PromotionInputs {
    pub versions: Vec<VersionState>,
    pub promotions: Vec<Promotion>,
}

const COLUMNS: &str = "\"offset\", occurred_at, model_name, registration_id, version, version_id, run_id, stage, alias, \
    archive_existing";

fn promotion(row: &Row) -> Result<Promotion, sqlx::Error> {
    Ok(Promotion {
        offset: row.try_get(0)?,
        occurred_at: row.try_get(1)?,
        model_name: row.try_get(2)?,
        registration: row.try_get(3)?,
        version: row.try_get(4)?,
        version_id: row.try_get(5)?,
        run_id: row.try_get(6)?,
        stage: row.try_get(7)?,
        alias: row.try_get(8)?,
        archive_existing: row.try_get(9)?,
    })
}

/// The periods in which registrations had a name, in log order.
pub(super) async fn name_periods(
    connection: &mut Connection<'_>,
    tenant: &str,
    name: &str,
) -> Result<Vec<NamePeriod>, sqlx::Error> {
    let rows = carbon_store::query(
        "SELECT registration_id, opened_at, closed_at FROM model_names \
         WHERE tenant_id = $1 AND name = $2 ORDER BY opened_offset",
    )
    .bind(tenant)
    .bind(name)
    .fetch_all(connection)
    .await?;
    let period = |row: &Row| {
        Ok(NamePeriod {
            name: name.to_owned(),
            registration: row.try_get(0)?,
            opened_at: row.try_get(1)?,
            closed_at: row.try_get(2)?,
        })
    };
    rows.iter().map(period).collect()
}

/// All names that a registration has had.
pub(super) async fn names(
    connection: &mut Connection<'_>,
    tenant: &str,
    registration: &str,
) -> Result<Vec<String>, sqlx::Error> {
    carbon_store::query(
        "SELECT DISTINCT name FROM model_names WHERE tenant_id = $1 AND registration_id = $2 ORDER BY name",
    )
    .bind(tenant)
    .bind(registration)
    .scalars(connection)
    .await
}

/// The promotions that name a model and no registration.
pub(super) async fn promotions_by_name(
    connection: &mut Connection<'_>,
    tenant: &str,
    name: &str,
) -> Result<Vec<Promotion>, sqlx::Error> {
    let sql = format!(
        "SELECT {COLUMNS} FROM promotions WHERE tenant_id = $1 AND model_name = $2 AND registration_id IS NULL"
    );
    let query = carbon_store::query(sqlx::AssertSqlSafe(sql)).bind(tenant).bind(name);
    query.fetch_all(connection).await?.iter().map(promotion).collect()
}

/// Reads the inputs of one registration.
pub(super) async fn promotion_inputs(
    connection: &mut Connection<'_>,
    tenant: &str,
    registration: &str,
) -> Result<PromotionInputs, sqlx::Error> {
    let sql = format!("SELECT {COLUMNS} FROM promotions WHERE tenant_id = $1 AND registration_id = $2");
    let rows = carbon_store::query(sqlx::AssertSqlSafe(sql)).bind(tenant).bind(registration);
    let rows = rows.fetch_all(&mut *connection).await?;
    let mut promotions = rows.iter().map(promotion).collect::<Result<Vec<_>, _>>()?;
    for name in names(connection, tenant, registration).await? {
        let named = promotions_by_name(connection, tenant, &name).await?;
        if named.is_empty() {
            continue;
        }
        let periods = name_periods(connection, tenant, &name).await?;
        promotions.extend(
            named.into_iter().filter(|promotion| target_registration(promotion, &periods) == Some(registration)),
        );
    }
    promotions.sort_by_key(|promotion| promotion.offset);
    let rows = carbon_store::query(
        "SELECT version, version_id, run_id, deleted_at FROM model_versions \
         WHERE tenant_id = $1 AND registration_id = $2 ORDER BY version",
    )
    .bind(tenant)
    .bind(registration)
    .fetch_all(connection)
    .await?;
    let version = |row: &Row| {
        Ok(VersionState {
            version: row.try_get(0)?,
            version_id: row.try_get(1)?,
            run_id: row.try_get(2)?,
            deleted_at: row.try_get(3)?,
        })
    };
    let versions = rows.iter().map(version).collect::<Result<Vec<_>, sqlx::Error>>()?;
    Ok(PromotionInputs { versions, promotions })
}
