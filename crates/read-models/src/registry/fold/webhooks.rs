//! `ml.webhook.changed.v1`. The fold stores webhooks; an effect handler delivers.

use carbon_schemas::events::{WebhookChanged, WebhookKind};
use carbon_store::Tables;

use crate::projection::FoldError;
use crate::registry::verdict::{Conflict, ConflictCode};

/// Applies one event. Returns the conflict if the event changes nothing.
pub(super) async fn apply(tables: &mut Tables<'_>, event: &WebhookChanged) -> Result<Option<Conflict>, FoldError> {
    let id = event.webhook_id.to_string();
    let deleted: Option<bool> =
        carbon_store::query("SELECT deleted FROM webhooks WHERE tenant_id = $1 AND webhook_id = $2")
            .bind(event.tenant_id.as_str())
            .bind(&id)
            .scalar(tables.connection())
            .await?;
    match (event.kind, deleted) {
        (WebhookKind::Unknown, _) => Ok(None),
        (WebhookKind::Created, None) => created(tables, event, &id).await,
        (WebhookKind::Created, Some(_)) => {
            Ok(Some(Conflict::new(ConflictCode::IdTaken, format!("webhook id {id} is taken"))))
        }
        (_, None | Some(true)) => {
            Ok(Some(Conflict::new(ConflictCode::DoesNotExist, format!("Webhook with ID {id} not found."))))
        }
        (WebhookKind::Updated, _) => updated(tables, event, &id).await,
        (WebhookKind::Deleted, _) => deleted_now(tables, event, &id).await,
    }
}

/// The events of a webhook as a JSON list, sorted and without duplicates.
fn events(event: &WebhookChanged) -> Result<String, FoldError> {
    let mut events = event.events.clone();
    events.sort_unstable();
    events.dedup();
    Ok(serde_json::to_string(&events)?)
}

async fn created(tables: &mut Tables<'_>, event: &WebhookChanged, id: &str) -> Result<Option<Conflict>, FoldError> {
    carbon_store::query(
        "INSERT INTO webhooks (tenant_id, webhook_id, name, description, url, events, status, sealed_secret, deleted, \
         created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0, $9, $9)",
    )
    .bind(event.tenant_id.as_str())
    .bind(id)
    .bind(event.name.as_deref().unwrap_or_default())
    .bind(event.description.as_deref().unwrap_or_default())
    .bind(event.url.as_deref().unwrap_or_default())
    .bind(events(event)?)
    .bind(event.status.as_deref().unwrap_or("ACTIVE"))
    .bind(event.sealed_secret.as_deref().unwrap_or_default())
    .bind(event.occurred_at.0)
    .execute(tables.connection())
    .await?;
    Ok(None)
}

/// Updates the fields that the event has.
async fn updated(tables: &mut Tables<'_>, event: &WebhookChanged, id: &str) -> Result<Option<Conflict>, FoldError> {
    let events = if event.events.is_empty() { None } else { Some(events(event)?) };
    carbon_store::query(
        "UPDATE webhooks SET name = COALESCE($3, name), description = COALESCE($4, description), \
         url = COALESCE($5, url), events = COALESCE($6, events), status = COALESCE($7, status), \
         sealed_secret = COALESCE($8, sealed_secret), updated_at = $9 WHERE tenant_id = $1 AND webhook_id = $2",
    )
    .bind(event.tenant_id.as_str())
    .bind(id)
    .bind(&event.name)
    .bind(&event.description)
    .bind(&event.url)
    .bind(events)
    .bind(&event.status)
    .bind(&event.sealed_secret)
    .bind(event.occurred_at.0)
    .execute(tables.connection())
    .await?;
    Ok(None)
}

/// Marks the row as deleted and removes the secret. The row stays, so its id stays taken.
async fn deleted_now(tables: &mut Tables<'_>, event: &WebhookChanged, id: &str) -> Result<Option<Conflict>, FoldError> {
    carbon_store::query(
        "UPDATE webhooks SET deleted = 1, sealed_secret = '', updated_at = $3 WHERE tenant_id = $1 AND webhook_id = $2",
    )
    .bind(event.tenant_id.as_str())
    .bind(id)
    .bind(event.occurred_at.0)
    .execute(tables.connection())
    .await?;
    Ok(None)
}
