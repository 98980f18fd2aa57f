//! `ml.webhook.changed.v1`: MLflow webhooks.

use carbon_core::{TenantId, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::tracking::{TrackingLimits, check_count, check_optional, check_status, require};
use crate::event::{Event, common_fields, tenant_key, uuid_text};

/// The change to a webhook.
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

/// The valid values of a webhook's status.
pub const WEBHOOK_STATUSES: [&str; 2] = ["ACTIVE", "DISABLED"];

/// Maximum number of events that one webhook subscribes to.
const MAX_EVENTS: usize = 100;

impl WebhookChanged {
    /// An event with its identity and kind; every other field is empty.
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

/// True for the syntax `entity.action`. The schema does not list the events, so that later versions can add some.
fn is_event_name(text: &str) -> bool {
    let word = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    text.len() <= TrackingLimits::ID
        && text.split_once('.').is_some_and(|(entity, action)| word(entity) && word(action))
}

impl Event for WebhookChanged {
    common_fields!("ml.webhook.changed.v1");
    tenant_key!(webhook_id);

    fn check(&self) -> Result<(), String> {
        if self.kind == WebhookKind::Created {
            require("created", "name", self.name.as_ref())?;
            require("created", "url", self.url.as_ref())?;
            require("created", "events", self.events.first())?;
        }
        if let Some(url) = &self.url
            && !url.starts_with("http://")
            && !url.starts_with("https://")
        {
            return Err(format!("url {url:?} is neither http nor https"));
        }
        check_status("a webhook", self.status.as_ref(), &WEBHOOK_STATUSES)?;
        let texts = [&self.name, &self.description, &self.url, &self.sealed_secret];
        check_optional("name, description, url or sealed_secret", &texts, TrackingLimits::NAME)?;
        check_count("events", self.events.len(), MAX_EVENTS)?;
        match self.events.iter().find(|event| !is_event_name(event)) {
            Some(bad) => Err(format!("event {bad:?} does not have the form entity.action")),
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
    fn fields_beyond_their_limits_are_rejected() {
        let tenant = TenantId::parse("acme").unwrap();
        let of = |kind| WebhookChanged::of(Uuid::nil(), Timestamp(0), &tenant, Uuid::nil(), kind);
        let created = WebhookChanged {
            name: Some("n".into()),
            url: Some("https://example.com/h".into()),
            events: vec!["registered_model.created".into()],
            ..of(WebhookKind::Created)
        };
        assert_eq!(created.check(), Ok(()));
        assert_eq!(of(WebhookKind::Updated).check(), Ok(()));
        let with_event = |event: &str| WebhookChanged { events: vec![event.into()], ..created.clone() };
        assert_eq!(with_event("added_entity.created").check(), Ok(()));
        for bad in [
            of(WebhookKind::Created),
            WebhookChanged { url: Some("ftp://example.com".into()), ..of(WebhookKind::Updated) },
            WebhookChanged { status: Some("active".into()), ..of(WebhookKind::Updated) },
            WebhookChanged { events: vec!["a.b".into(); MAX_EVENTS + 1], ..created.clone() },
            WebhookChanged { events: Vec::new(), ..created.clone() },
            with_event("registered_model"),
            with_event("a.b.c"),
            with_event("A.b"),
            with_event(".b"),
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }
}
