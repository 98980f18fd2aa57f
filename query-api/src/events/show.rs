//! From a record to what a tenant may see of it.

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

pub(super) enum Shown {
    Data(String),
    /// Another tenant's, or nobody's.
    Hidden,
    /// Ask the log, [`Show::learn`], and show again.
    NeedSchema(SchemaId),
}

pub(super) trait Show: Send {
    fn show(&mut self, record: &Record, tenant: &TenantId) -> Shown;
    fn learn(&mut self, id: SchemaId, json: Option<&str>);
}

/// What shows a topic's records; `None` for a topic whose event has no type here.
pub(super) fn for_topic(topic: &Topic) -> Option<Box<dyn Show>> {
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

/// A dead letter of no tenant is shown to all, but nobody knows whose its bytes are. That of a record in a wrong
/// partition is its key's tenant's, but whether the payload is, nobody has looked.
fn without_foreign_bytes(letter: DeadLetter) -> DeadLetter {
    match letter.tenant_id {
        Some(_) if letter.reason == PoisonReason::WrongPartition.as_str() => {
            DeadLetter { payload: None, headers: BTreeMap::new(), ..letter }
        }
        Some(_) => letter,
        None => DeadLetter { key: None, payload: None, headers: BTreeMap::new(), message: String::new(), ..letter },
    }
}

/// A secret is not shown, sealed as it is; that there is one is.
fn without_secret(webhook: WebhookChanged) -> WebhookChanged {
    let sealed_secret = webhook.sealed_secret.map(|sealed| if sealed.is_empty() { sealed } else { "***".into() });
    WebhookChanged { sealed_secret, ..webhook }
}

struct Typed<E: Event> {
    decoder: Decoder<E>,
    /// Whether the key begins with a tenant.
    tenant_in_key: bool,
    redact: fn(E) -> E,
}

#[derive(Serialize)]
struct Head<'a> {
    position: String,
    timestamp: String,
    key: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    headers: Option<BTreeMap<&'a str, Cow<'a, str>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    poison: Option<ShownPoison<'a>>,
    /// What a newer program's record needs.
    #[serde(skip_serializing_if = "Option::is_none")]
    needs: Option<String>,
}

#[derive(Serialize)]
struct ShownPoison<'a> {
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
        let shown = |(name, value): &'a (String, Vec<u8>)| (name.as_str(), String::from_utf8_lossy(value));
        self.headers = Some(record.headers.iter().map(shown).collect());
        self
    }
}

impl<E: Event> Typed<E> {
    fn boxed(topic: &Topic, redact: fn(E) -> E) -> Box<dyn Show> {
        let decoder = Decoder::new(topic.spec.partitions, topic.spec.partitioner);
        let tenant_in_key = topic.key.first().is_some_and(|field| field == "tenant_id");
        Box::new(Self { decoder, tenant_in_key, redact })
    }

    /// Whether a readable key says that the record is of this tenant.
    fn key_is_of(&self, record: &Record, tenant: &TenantId) -> bool {
        let key = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok());
        let readable = key.filter(|key| self.tenant_in_key && E::parse_key(key).is_ok());
        readable.and_then(|key| key.split('/').next()) == Some(tenant.as_str())
    }

    fn poison(&self, record: &Record, tenant: &TenantId, poison: &Poison) -> Shown {
        if !self.key_is_of(record, tenant) {
            return Shown::Hidden;
        }
        // What disagrees may be another tenant's, and the message says it.
        let foreign = matches!(poison.reason, PoisonReason::KeyMismatch | PoisonReason::HeaderMismatch);
        let message = if foreign { "" } else { &poison.message };
        let poison = ShownPoison { reason: poison.reason.as_str(), message };
        data(to_json(&Head { poison: Some(poison), ..Head::of(record) }))
    }
}

impl<E: Event> Show for Typed<E> {
    fn show(&mut self, record: &Record, tenant: &TenantId) -> Shown {
        match self.decoder.decode(&record.raw()) {
            Ok(Decoded::Event { event, .. }) if event.tenant().is_none_or(|owner| owner == tenant) => {
                let head = to_json(&Head::of(record).with_headers(record));
                data(head.and_then(|head| Ok(joined(head, &to_json(&(self.redact)(event))?))))
            }
            Ok(Decoded::Event { .. }) => Shown::Hidden,
            Ok(Decoded::Null { .. }) if !self.tenant_in_key || self.key_is_of(record, tenant) => {
                data(to_json(&Head::of(record).with_headers(record)).map(|head| joined(head, "null")))
            }
            Ok(Decoded::Null { .. }) => Shown::Hidden,
            Ok(Decoded::Quarantined { poison, .. } | Decoded::Rejected { poison }) => {
                self.poison(record, tenant, &poison)
            }
            Err(DecodeError::NeedSchema(id)) => Shown::NeedSchema(id),
            Err(DecodeError::Newer { needs, .. }) if !self.tenant_in_key || self.key_is_of(record, tenant) => {
                data(to_json(&Head { needs: Some(needs), ..Head::of(record) }))
            }
            Err(DecodeError::Newer { .. }) => Shown::Hidden,
        }
    }

    fn learn(&mut self, id: SchemaId, json: Option<&str>) {
        self.decoder.learn(id, json);
    }
}

/// Puts the event into its head, both being JSON already.
fn joined(mut head: String, event: &str) -> String {
    head.truncate(head.len().saturating_sub(1));
    head.push_str(",\"event\":");
    head.push_str(event);
    head.push('}');
    head
}

fn data(json: Result<String, serde_json::Error>) -> Shown {
    match json {
        Ok(json) => Shown::Data(json),
        Err(error) => {
            tracing::error!(%error, "event cannot be written as json");
            Shown::Hidden
        }
    }
}
