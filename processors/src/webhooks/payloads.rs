//! What a record tells, by the registry's verdict on it: a record that changed nothing tells nothing.

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
    /// What webhooks follow.
    pub enum WebhookRecord with WebhookDecoders {
        Model(ModelRegistered),
        Promotion(ModelPromoted),
    }
}

const PROMPT_TYPE: &str = "_mlflow_prompt_type";
const PROMPT_TEXT: &str = "mlflow.prompt.text";

type Told = Vec<(HookEvent, Value)>;

impl WebhookRecord {
    /// When the log took it.
    pub(super) fn time(&self) -> Timestamp {
        match self {
            Self::Model(record) => record.timestamp,
            Self::Promotion(record) => record.timestamp,
        }
    }

    /// When it happened, by the later of the log's clock and its producer's: of two clocks that differ neither makes a
    /// webhook miss what came after it.
    pub(super) fn happened(&self) -> Timestamp {
        let producers = match self {
            Self::Model(record) => match &record.body {
                Decoded::Event { event, .. } => Some(event.occurred_at),
                _ => None,
            },
            Self::Promotion(record) => match &record.body {
                Decoded::Event { event, .. } => Some(event.occurred_at),
                _ => None,
            },
        };
        self.time().max(producers.unwrap_or_default())
    }

    /// Whose it is; poison is nobody's.
    pub(super) fn scope(&self) -> Option<TenantScope> {
        match self {
            Self::Model(record) => record.body.scope(),
            Self::Promotion(record) => record.body.scope(),
        }
    }
}

/// What a record tells; the registry has folded it.
pub(super) async fn told(
    registry: &Namespace,
    scope: &TenantScope,
    record: &WebhookRecord,
) -> Result<Told, StoreError> {
    match record {
        WebhookRecord::Model(record) => match &record.body {
            Decoded::Event { event, .. } if verdict(registry, &record.position).await?.is_none() => {
                of_model(registry, scope, event).await
            }
            _ => Ok(Vec::new()),
        },
        WebhookRecord::Promotion(record) => match &record.body {
            Decoded::Event { event, .. }
                if promotion_effect(registry, &record.position).await? == Some(Effect::Applied) =>
            {
                of_promotion(registry, scope, event).await
            }
            _ => Ok(Vec::new()),
        },
    }
}

async fn is_prompt(
    registry: &Namespace,
    scope: &TenantScope,
    id: Option<Uuid>,
    name: &str,
) -> Result<bool, StoreError> {
    let id = id.map(|id| id.to_string());
    registration_has_tag(registry, scope, (id.as_deref(), name), (IS_PROMPT, "true")).await
}

/// By the tags that a creation sets; the last of a key counts.
fn says_prompt(tags: &[KeyValue]) -> bool {
    tags.iter().rfind(|tag| tag.key == IS_PROMPT).is_some_and(|tag| tag.value.eq_ignore_ascii_case("true"))
}

/// A prompt's own marks are left out.
fn tags(tags: &[KeyValue], without: &[&str]) -> Map<String, Value> {
    let shown = tags.iter().filter(|tag| !without.contains(&tag.key.as_str()));
    shown.map(|tag| (tag.key.clone(), tag.value.as_str().into())).collect()
}

async fn of_model(registry: &Namespace, scope: &TenantScope, event: &ModelRegistered) -> Result<Told, StoreError> {
    let name = &event.model_name;
    let description = event.description.as_deref().filter(|text| !text.is_empty());
    let version = event.version.unwrap_or_default().to_string();
    let mut told = Vec::new();
    let mut tell = |entity: &str, action: &str, data: Value| {
        told.extend(HookEvent::new(entity, action).map(|event| (event, data)));
    };
    match event.kind {
        ModelKind::Created if says_prompt(&event.tags) => {
            let tags = tags(&event.tags, &[IS_PROMPT, PROMPT_TYPE]);
            tell("prompt", "created", json!({"name": name, "tags": tags, "description": description}));
        }
        ModelKind::Created => {
            let tags = tags(&event.tags, &[]);
            tell("registered_model", "created", json!({"name": name, "tags": tags, "description": description}));
        }
        ModelKind::VersionCreated if says_prompt(&event.tags) => {
            let template = event.tags.iter().rfind(|tag| tag.key == PROMPT_TEXT).map(|tag| tag.value.as_str());
            let tags = tags(&event.tags, &[IS_PROMPT, PROMPT_TYPE, PROMPT_TEXT]);
            let data = json!({
                "name": name, "version": version, "template": template, "tags": tags, "description": description,
            });
            tell("prompt_version", "created", data);
        }
        ModelKind::VersionCreated => {
            let run_id = event.run_id.as_deref().filter(|id| !id.is_empty());
            let data = json!({
                "name": name, "version": version, "source": event.source, "run_id": run_id,
                "tags": tags(&event.tags, &[]), "description": description,
            });
            tell("model_version", "created", data);
        }
        ModelKind::Tagged if is_prompt(registry, scope, event.registration_id, name).await? => {
            for tag in &event.tags {
                tell("prompt_tag", "set", json!({"name": name, "key": tag.key, "value": tag.value}));
            }
            for key in &event.removed_tags {
                tell("prompt_tag", "deleted", json!({"name": name, "key": key}));
            }
        }
        ModelKind::VersionTagged => {
            let prompt = is_prompt(registry, scope, event.registration_id, name).await?;
            let entity = if prompt { "prompt_version_tag" } else { "model_version_tag" };
            for tag in &event.tags {
                let data = json!({"name": name, "version": version, "key": tag.key, "value": tag.value});
                tell(entity, "set", data);
            }
            for key in &event.removed_tags {
                tell(entity, "deleted", json!({"name": name, "version": version, "key": key}));
            }
        }
        // MLflow has no words for the rest.
        _ => {}
    }
    Ok(told)
}

async fn of_promotion(registry: &Namespace, scope: &TenantScope, event: &ModelPromoted) -> Result<Told, StoreError> {
    // Stages tell nobody: MLflow has no word for them.
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
