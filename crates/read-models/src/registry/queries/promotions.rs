//! The history of promotions.

use carbon_core::{Position, TenantScope, Timestamp};
use carbon_store::{Namespace, Row, StoreError};

use super::{Page, corrupt};
use crate::registry::standing::Effect;

/// A promotion and its outcome.
#[derive(Clone, Debug, PartialEq)]
pub struct PromotionRecord {
    /// The offset of the event.
    pub offset: u64,
    pub event_id: String,
    pub occurred_at: Timestamp,
    /// The name in the event.
    pub model_name: String,
    /// The registration that the promotion means; `None` if there is none.
    pub registration_id: Option<String>,
    pub version: Option<i64>,
    pub run_id: Option<String>,
    pub stage: Option<String>,
    pub alias: Option<String>,
    pub archive_existing: bool,
    pub previous: Option<i64>,
    pub promoted_by: Option<String>,
    /// `applied`, or the reason why the promotion had no effect.
    pub effect: String,
}

/// A page of the promotions of a name.
#[derive(Clone, Copy, Debug)]
pub struct PromotionsPage {
    /// Only promotions before this offset.
    pub before: Option<u64>,
    /// Only promotions until this time.
    pub as_of: Option<Timestamp>,
    pub limit: usize,
}

/// The promotions of all registrations that have or had a name, and the promotions by this name that had no effect;
/// newest first.
pub async fn promotions(
    namespace: &Namespace,
    scope: &TenantScope,
    name: &str,
    page: PromotionsPage,
) -> Result<Page<PromotionRecord>, StoreError> {
    let rows = carbon_store::query(
        "SELECT \"offset\", event_id, occurred_at, model_name, meant_id, version, run_id, stage, alias, \
                archive_existing, previous, promoted_by, effect \
         FROM promotions WHERE tenant_id = $1 AND \"offset\" < $3 AND occurred_at <= $4 \
         AND (model_name = $2 OR meant_id IN \
              (SELECT registration_id FROM model_names WHERE tenant_id = $1 AND name = $2)) \
         ORDER BY \"offset\" DESC LIMIT $5",
    )
    .bind(scope.tenant().as_str())
    .bind(name)
    .bind(page.before.map_or(i64::MAX, |offset| i64::try_from(offset).unwrap_or(i64::MAX)))
    .bind(page.as_of.map_or(i64::MAX, |at| at.0))
    .bind(page.limit as i64 + 1)
    .fetch_all(namespace.readers())
    .await?;
    let read = |row: &Row| {
        Ok(PromotionRecord {
            offset: row.try_get::<i64>(0)? as u64,
            event_id: row.try_get(1)?,
            occurred_at: Timestamp(row.try_get(2)?),
            model_name: row.try_get(3)?,
            registration_id: row.try_get(4)?,
            version: row.try_get(5)?,
            run_id: row.try_get(6)?,
            stage: row.try_get(7)?,
            alias: row.try_get(8)?,
            archive_existing: row.try_get(9)?,
            previous: row.try_get(10)?,
            promoted_by: row.try_get(11)?,
            effect: row.try_get(12)?,
        })
    };
    Ok(Page::of(rows.iter().map(read).collect::<Result<Vec<_>, StoreError>>()?, page.limit))
}

/// The outcome of the promotion at a position, which must be folded.
pub async fn promotion_effect(namespace: &Namespace, position: &Position) -> Result<Option<Effect>, StoreError> {
    let effect: Option<String> = carbon_store::query("SELECT effect FROM promotions WHERE \"offset\" = $1")
        .bind(position.offset as i64)
        .scalar(namespace.readers())
        .await?;
    let parse = |text: String| Effect::parse(&text).ok_or_else(|| corrupt(format!("effect {text:?}")));
    effect.map(parse).transpose()
}
