use carbon_core::{TenantId, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::tracking::{TenantKey, TrackingLimits as Limits, at_most, at_most_of, needed};
use crate::event::{Event, event_schema, uuid_text};

/// What became of a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WebhookKind {
    Unknown,
    Created,
    Updated,
    Deleted,
}

/// `ml.webhook.changed.v1`: a webhook was created or changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WebhookChanged {
    #[serde(with = "uuid_text")]
    pub event_id: Uuid,
    pub occurred_at: Timestamp,
    pub tenant_id: TenantId,
    #[serde(with = "uuid_text")]
    pub webhook_id: Uuid,
    pub kind: WebhookKind,
    pub name: Option<String>,
    pub description: Option<String>,
    pub url: Option<String>,
    pub events: Vec<String>,
    pub status: Option<String>,
    pub sealed_secret: Option<String>,
}

/// What a webhook's status may be.
pub const WEBHOOK_STATUSES: [&str; 2] = ["ACTIVE", "DISABLED"];

/// Events that one webhook is told of.
const EVENTS: usize = 100;

impl WebhookChanged {
    /// An event that says nothing yet but what it is about.
    pub fn of(event_id: Uuid, at: Timestamp, tenant: &TenantId, webhook_id: Uuid, kind: WebhookKind) -> Self {
        Self {
            event_id,
            occurred_at: at,
            tenant_id: tenant.clone(),
            webhook_id,
            kind,
            name: None,
            description: None,
            url: None,
            events: Vec::new(),
            status: None,
            sealed_secret: None,
        }
    }
}

/// `entity.action`. Which there are is no matter of the schema: later programs know more.
fn is_event(text: &str) -> bool {
    let word = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    text.len() <= Limits::ID && text.split_once('.').is_some_and(|(entity, action)| word(entity) && word(action))
}

impl Event for WebhookChanged {
    const NAME: &'static str = "ml.webhook.changed.v1";
    type Key = TenantKey;

    event_schema!(WebhookChanged);

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
        TenantKey::new(&self.tenant_id, &self.webhook_id.to_string())
    }

    fn parse_key(text: &str) -> Result<TenantKey, String> {
        TenantKey::parse(text)
    }

    fn check(&self) -> Result<(), String> {
        if self.kind == WebhookKind::Created {
            needed("created", "name", self.name.as_ref())?;
            needed("created", "url", self.url.as_ref())?;
            needed("created", "events", self.events.first())?;
        }
        if let Some(url) = &self.url
            && !url.starts_with("http://")
            && !url.starts_with("https://")
        {
            return Err(format!("url {url:?} is neither http nor https"));
        }
        if let Some(status) = &self.status
            && !WEBHOOK_STATUSES.contains(&status.as_str())
        {
            return Err(format!("{status:?} is no status of a webhook"));
        }
        for text in [&self.name, &self.description, &self.url, &self.sealed_secret].into_iter().flatten() {
            at_most("name, description, url or sealed_secret", text, Limits::NAME)?;
        }
        at_most_of("events", self.events.len(), EVENTS)?;
        match self.events.iter().find(|event| !is_event(event)) {
            Some(bad) => Err(format!("event {bad:?} is not entity.action")),
            None => Ok(()),
        }
    }

    fn is_unknown(&self) -> bool {
        self.kind == WebhookKind::Unknown
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_kept() {
        let tenant = TenantId::parse("acme").unwrap();
        let of = |kind| WebhookChanged::of(Uuid::nil(), Timestamp(0), &tenant, Uuid::nil(), kind);
        let made = WebhookChanged {
            name: Some("n".into()),
            url: Some("https://example.com/h".into()),
            events: vec!["registered_model.created".into()],
            ..of(WebhookKind::Created)
        };
        assert_eq!(made.check(), Ok(()));
        assert_eq!(of(WebhookKind::Updated).check(), Ok(()));
        let told = |event: &str| WebhookChanged { events: vec![event.into()], ..made.clone() };
        assert_eq!(told("what_comes.later").check(), Ok(()));
        for bad in [
            of(WebhookKind::Created),
            WebhookChanged { url: Some("ftp://example.com".into()), ..of(WebhookKind::Updated) },
            WebhookChanged { status: Some("active".into()), ..of(WebhookKind::Updated) },
            WebhookChanged { events: vec!["a.b".into(); EVENTS + 1], ..made.clone() },
            WebhookChanged { events: Vec::new(), ..made.clone() },
            told("registered_model"),
            told("a.b.c"),
            told("A.b"),
            told(".b"),
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }
}
