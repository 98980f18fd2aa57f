//! The webhook payloads of a record. A record that the registry's fold rejected has none.

use carbon_core::{TenantScope, Timestamp};
use carbon_read_models::registry::queries::{IS_PROMPT, promotion_effect, registration_has_tag};
use carbon_read_models::registry::standing::Effect;
use carbon_read_models::registry::verdict;
use carbon_schemas::events::{KeyValue, ModelKind, ModelPromoted, ModelRegistered};
use carbon_schemas::{Decoded, feed};
use carbon_store::{Namespace, StoreError};
use carbon_webhooks::HookEvent;
use serde_json::{Map, Value, json};
use uuid::Uuid;

feed! {
    /// A record of a topic that webhooks are notified about.
    pub enum WebhookRecord with WebhookDecoders {
        Model(ModelRegistered),
        Promotion(ModelPromoted),
    }
}

/// Tags that MLflow sets on prompts for its own use.
const PROMPT_TYPE: &str = "_mlflow_prompt_type";
const PROMPT_TEXT: &str = "mlflow.prompt.text";

/// Events with their data: the payloads of one record, in order.
type Payloads = Vec<(HookEvent, Value)>;

impl WebhookRecord {
    /// The log-append time.
    pub(super) fn time(&self) -> Timestamp {
        match self {
            Self::Model(record) => record.timestamp,
            Self::Promotion(record) => record.timestamp,
        }
    }

    /// The later of the log-append time and the producer's time. It is compared with the time a webhook was created: a
    /// difference between the two clocks must not hide from a webhook what happened after its creation.
    pub(super) fn latest_time(&self) -> Timestamp {
        let occurred_at = match self {
            Self::Model(record) => match &record.body {
                Decoded::Event { event, .. } => Some(event.occurred_at),
                _ => None,
            },
            Self::Promotion(record) => match &record.body {
                Decoded::Event { event, .. } => Some(event.occurred_at),
                _ => None,
            },
        };
        self.time().max(occurred_at.unwrap_or_default())
    }

    /// The tenant that owns the record; `None` for poison and null values.
    pub(super) fn scope(&self) -> Option<TenantScope> {
        match self {
            Self::Model(record) => record.body.scope(),
            Self::Promotion(record) => record.body.scope(),
        }
    }
}

/// The payloads of a record. The registry must have folded the record.
pub(super) async fn payloads(
    registry: &Namespace,
    scope: &TenantScope,
    record: &WebhookRecord,
) -> Result<Payloads, StoreError> {
    match record {
        WebhookRecord::Model(record) => match &record.body {
            Decoded::Event { event, .. } if verdict(registry, &record.position).await?.is_none() => {
                model_payloads(registry, scope, event).await
            }
            _ => Ok(Vec::new()),
        },
        WebhookRecord::Promotion(record) => match &record.body {
            Decoded::Event { event, .. }
                if promotion_effect(registry, &record.position).await? == Some(Effect::Applied) =>
            {
                promotion_payloads(registry, scope, event).await
            }
            _ => Ok(Vec::new()),
        },
    }
}

/// True if the registration is a prompt. MLflow stores a prompt as a registered model with a tag.
async fn is_prompt(
    registry: &Namespace,
    scope: &TenantScope,
    id: Option<Uuid>,
    name: &str,
) -> Result<bool, StoreError> {
    let id = id.map(|id| id.to_string());
    registration_has_tag(registry, scope, (id.as_deref(), name), (IS_PROMPT, "true")).await
}

/// True if a creation's tags make a prompt. If a key occurs twice, the last value counts.
fn has_prompt_tag(tags: &[KeyValue]) -> bool {
    tags.iter().rfind(|tag| tag.key == IS_PROMPT).is_some_and(|tag| tag.value.eq_ignore_ascii_case("true"))
}

/// The tags as a JSON object, without the listed keys.
fn tags_without(tags: &[KeyValue], without: &[&str]) -> Map<String, Value> {
    let kept = tags.iter().filter(|tag| !without.contains(&tag.key.as_str()));
    kept.map(|tag| (tag.key.clone(), tag.value.as_str().into())).collect()
}

async fn model_payloads(
    registry: &Namespace,
    scope: &TenantScope,
    event: &ModelRegistered,
) -> Result<Payloads, StoreError> {
    let name = &event.model_name;
    let description = event.description.as_deref().filter(|text| !text.is_empty());
    let version = event.version.unwrap_or_default().to_string();
    let mut payloads = Vec::new();
    let mut push = |entity: &str, action: &str, data: Value| {
        payloads.extend(HookEvent::new(entity, action).map(|event| (event, data)));
    };
    match event.kind {
        ModelKind::Created if has_prompt_tag(&event.tags) => {
            let tags = tags_without(&event.tags, &[IS_PROMPT, PROMPT_TYPE]);
            push("prompt", "created", json!({"name": name, "tags": tags, "description": description}));
        }
        ModelKind::Created => {
            let tags = tags_without(&event.tags, &[]);
            push("registered_model", "created", json!({"name": name, "tags": tags, "description": description}));
        }
        ModelKind::VersionCreated if has_prompt_tag(&event.tags) => {
            let template = event.tags.iter().rfind(|tag| tag.key == PROMPT_TEXT).map(|tag| tag.value.as_str());
            let tags = tags_without(&event.tags, &[IS_PROMPT, PROMPT_TYPE, PROMPT_TEXT]);
            let data = json!({
                "name": name, "version": version, "template": template, "tags": tags, "description": description,
            });
            push("prompt_version", "created", data);
        }
        ModelKind::VersionCreated => {
            let run_id = event.run_id.as_deref().filter(|id| !id.is_empty());
            let data = json!({
                "name": name, "version": version, "source": event.source, "run_id": run_id,
                "tags": tags_without(&event.tags, &[]), "description": description,
            });
            push("model_version", "created", data);
        }
        ModelKind::Tagged if is_prompt(registry, scope, event.registration_id, name).await? => {
            for tag in &event.tags {
                push("prompt_tag", "set", json!({"name": name, "key": tag.key, "value": tag.value}));
            }
            for key in &event.removed_tags {
                push("prompt_tag", "deleted", json!({"name": name, "key": key}));
            }
        }
        ModelKind::VersionTagged => {
            let prompt = is_prompt(registry, scope, event.registration_id, name).await?;
            let entity = if prompt { "prompt_version_tag" } else { "model_version_tag" };
            for tag in &event.tags {
                let data = json!({"name": name, "version": version, "key": tag.key, "value": tag.value});
                push(entity, "set", data);
            }
            for key in &event.removed_tags {
                push(entity, "deleted", json!({"name": name, "version": version, "key": key}));
            }
        }
        // MLflow defines no webhook events for the other kinds.
        _ => {}
    }
    Ok(payloads)
}

async fn promotion_payloads(
    registry: &Namespace,
    scope: &TenantScope,
    event: &ModelPromoted,
) -> Result<Payloads, StoreError> {
    // MLflow defines no webhook events for stages.
    let Some(alias) = &event.alias else { return Ok(Vec::new()) };
    let name = &event.model_name;
    let prompt = is_prompt(registry, scope, event.registration_id, name).await?;
    let entity = if prompt { "prompt_alias" } else { "model_version_alias" };
    let (action, data) = match event.version {
        Some(version) => ("created", json!({"name": name, "alias": alias, "version": version.to_string()})),
        None => ("deleted", json!({"name": name, "alias": alias})),
    };
    Ok(HookEvent::new(entity, action).map(|event| (event, data)).into_iter().collect())
}
