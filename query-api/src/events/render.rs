//! Renders a record as the JSON that a tenant may see of it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use carbon_core::TenantId;
use carbon_log::Record;
use carbon_schemas::events::{
    ArtifactChanged, DeadLetter, EmbeddingGenerated, EntityChanged, ExperimentChanged, GenerationChanged, IndexUpdated,
    LoggedModelChanged, ModelPromoted, ModelRegistered, RunLogged, WebhookChanged,
};
use carbon_schemas::{DecodeError, Decoded, Decoder, Event, Poison, PoisonReason, SchemaId};
use carbon_topology::Topic;
use serde::Serialize;

use super::json::to_json;

pub(super) enum Rendered {
    /// JSON.
    Data(String),
    /// The record belongs to another tenant, or its tenant is not known.
    Hidden,
    /// The caller must get the schema from the log, pass it to [`RenderRecord::add_schema`], and render again.
    NeedSchema(SchemaId),
}

/// Renders the records of one topic.
pub(super) trait RenderRecord: Send {
    fn render(&mut self, record: &Record, tenant: &TenantId) -> Rendered;

    /// Adds a schema of the log; `None` if the log does not have it.
    fn add_schema(&mut self, id: SchemaId, json: Option<&str>);
}

/// Returns the renderer of a topic's records; `None` if the topic's event has no type in this binary.
pub(super) fn for_topic(topic: &Topic) -> Option<Box<dyn RenderRecord>> {
    Some(match topic.spec.name.as_str() {
        EntityChanged::NAME => Typed::<EntityChanged>::boxed(topic, |event| event),
        EmbeddingGenerated::NAME => Typed::<EmbeddingGenerated>::boxed(topic, |event| event),
        ExperimentChanged::NAME => Typed::<ExperimentChanged>::boxed(topic, |event| event),
        ArtifactChanged::NAME => Typed::<ArtifactChanged>::boxed(topic, |event| event),
        LoggedModelChanged::NAME => Typed::<LoggedModelChanged>::boxed(topic, |event| event),
        ModelRegistered::NAME => Typed::<ModelRegistered>::boxed(topic, |event| event),
        ModelPromoted::NAME => Typed::<ModelPromoted>::boxed(topic, |event| event),
        RunLogged::NAME => Typed::<RunLogged>::boxed(topic, |event| event),
        WebhookChanged::NAME => Typed::<WebhookChanged>::boxed(topic, without_secret),
        GenerationChanged::NAME => Typed::<GenerationChanged>::boxed(topic, |event| event),
        IndexUpdated::NAME => Typed::<IndexUpdated>::boxed(topic, |event| event),
        DeadLetter::NAME => Typed::<DeadLetter>::boxed(topic, without_foreign_bytes),
        _ => return None,
    })
}

/// Removes bytes that may belong to another tenant. A dead letter without a tenant is shown to all tenants, but the owner
/// of its bytes is not known. A record in the wrong partition belongs to the tenant of its key, but its payload was never
/// decoded, so the payload's tenant is not known.
fn without_foreign_bytes(letter: DeadLetter) -> DeadLetter {
    match letter.tenant_id {
        Some(_) if letter.reason == PoisonReason::WrongPartition.as_str() => {
            DeadLetter { payload: None, headers: BTreeMap::new(), ..letter }
        }
        Some(_) => letter,
        None => DeadLetter { key: None, payload: None, headers: BTreeMap::new(), message: String::new(), ..letter },
    }
}

/// Replaces the encrypted secret by `***`; an empty one stays empty.
fn without_secret(webhook: WebhookChanged) -> WebhookChanged {
    let sealed_secret = webhook.sealed_secret.map(|sealed| if sealed.is_empty() { sealed } else { "***".into() });
    WebhookChanged { sealed_secret, ..webhook }
}

struct Typed<E: Event> {
    decoder: Decoder<E>,
    /// True if the first field of the key is the tenant.
    tenant_in_key: bool,
    redact: fn(E) -> E,
}

/// The fields of the JSON before the event.
#[derive(Serialize)]
struct Head<'a> {
    position: String,
    timestamp: String,
    key: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    headers: Option<BTreeMap<&'a str, Cow<'a, str>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    poison: Option<RenderedPoison<'a>>,
    /// The version that a record of a newer event kind needs.
    #[serde(skip_serializing_if = "Option::is_none")]
    needs: Option<String>,
}

#[derive(Serialize)]
struct RenderedPoison<'a> {
    reason: &'static str,
    message: &'a str,
}

impl<'a> Head<'a> {
    fn of(record: &'a Record) -> Self {
        Self {
            position: record.position.to_string(),
            timestamp: record.timestamp.to_rfc3339(),
            key: record.key.as_deref().map(String::from_utf8_lossy),
            headers: None,
            poison: None,
            needs: None,
        }
    }

    fn with_headers(mut self, record: &'a Record) -> Self {
        let text = |(name, value): &'a (String, Vec<u8>)| (name.as_str(), String::from_utf8_lossy(value));
        self.headers = Some(record.headers.iter().map(text).collect());
        self
    }
}

impl<E: Event> Typed<E> {
    fn boxed(topic: &Topic, redact: fn(E) -> E) -> Box<dyn RenderRecord> {
        let decoder = Decoder::new(topic.spec.partitions, topic.spec.partitioner);
        let tenant_in_key = topic.key.first().is_some_and(|field| field == "tenant_id");
        Box::new(Self { decoder, tenant_in_key, redact })
    }

    /// True if the key can be read and names this tenant.
    fn key_names(&self, record: &Record, tenant: &TenantId) -> bool {
        let key = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok());
        let readable = key.filter(|key| self.tenant_in_key && E::parse_key(key).is_ok());
        readable.and_then(|key| key.split('/').next()) == Some(tenant.as_str())
    }

    fn poison(&self, record: &Record, tenant: &TenantId, poison: &Poison) -> Rendered {
        if !self.key_names(record, tenant) {
            return Rendered::Hidden;
        }
        // The message of a mismatch quotes the payload, which may belong to another tenant.
        let foreign = matches!(poison.reason, PoisonReason::KeyMismatch | PoisonReason::HeaderMismatch);
        let message = if foreign { "" } else { &poison.message };
        let poison = RenderedPoison { reason: poison.reason.as_str(), message };
        data(to_json(&Head { poison: Some(poison), ..Head::of(record) }))
    }
}

impl<E: Event> RenderRecord for Typed<E> {
    fn render(&mut self, record: &Record, tenant: &TenantId) -> Rendered {
        match self.decoder.decode(&record.raw()) {
            Ok(Decoded::Event { event, .. }) if event.tenant().is_none_or(|owner| owner == tenant) => {
                let head = to_json(&Head::of(record).with_headers(record));
                data(head.and_then(|head| Ok(with_event(head, &to_json(&(self.redact)(event))?))))
            }
            Ok(Decoded::Event { .. }) => Rendered::Hidden,
            Ok(Decoded::Null { .. }) if !self.tenant_in_key || self.key_names(record, tenant) => {
                data(to_json(&Head::of(record).with_headers(record)).map(|head| with_event(head, "null")))
            }
            Ok(Decoded::Null { .. }) => Rendered::Hidden,
            Ok(Decoded::Quarantined { poison, .. } | Decoded::Rejected { poison }) => {
                self.poison(record, tenant, &poison)
            }
            Err(DecodeError::NeedSchema(id)) => Rendered::NeedSchema(id),
            Err(DecodeError::Newer { needs, .. }) if !self.tenant_in_key || self.key_names(record, tenant) => {
                data(to_json(&Head { needs: Some(needs), ..Head::of(record) }))
            }
            Err(DecodeError::Newer { .. }) => Rendered::Hidden,
        }
    }

    fn add_schema(&mut self, id: SchemaId, json: Option<&str>) {
        self.decoder.learn(id, json);
    }
}

/// Appends the field `event` to the JSON object `head`. Both arguments are JSON.
fn with_event(mut head: String, event: &str) -> String {
    head.truncate(head.len().saturating_sub(1));
    head.push_str(",\"event\":");
    head.push_str(event);
    head.push('}');
    head
}

fn data(json: Result<String, serde_json::Error>) -> Rendered {
    match json {
        Ok(json) => Rendered::Data(json),
        Err(error) => {
            tracing::error!(%error, "serialisation of the event failed; the event is skipped");
            Rendered::Hidden
        }
    }
}
