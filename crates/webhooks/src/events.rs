//! The events that a webhook can subscribe to, and the request bodies, with MLflow's names and JSON fields.

use std::fmt;

use carbon_core::Timestamp;
use serde_json::{Value, json};

/// An event that a webhook can subscribe to: an entity and an action. Its text form is `entity.action`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HookEvent {
    pub entity: &'static str,
    pub action: &'static str,
}

const ALL: [HookEvent; 15] = [
    HookEvent { entity: "registered_model", action: "created" },
    HookEvent { entity: "model_version", action: "created" },
    HookEvent { entity: "model_version_tag", action: "set" },
    HookEvent { entity: "model_version_tag", action: "deleted" },
    HookEvent { entity: "model_version_alias", action: "created" },
    HookEvent { entity: "model_version_alias", action: "deleted" },
    HookEvent { entity: "prompt", action: "created" },
    HookEvent { entity: "prompt_version", action: "created" },
    HookEvent { entity: "prompt_tag", action: "set" },
    HookEvent { entity: "prompt_tag", action: "deleted" },
    HookEvent { entity: "prompt_version_tag", action: "set" },
    HookEvent { entity: "prompt_version_tag", action: "deleted" },
    HookEvent { entity: "prompt_alias", action: "created" },
    HookEvent { entity: "prompt_alias", action: "deleted" },
    // This platform has no budgets, so the event never occurs. MLflow's clients may subscribe to it all the same.
    HookEvent { entity: "budget_policy", action: "exceeded" },
];

impl HookEvent {
    /// All events that MLflow defines.
    pub fn all() -> &'static [HookEvent] {
        &ALL
    }

    /// The event with these names; `None` if MLflow defines no such event.
    pub fn new(entity: &str, action: &str) -> Option<Self> {
        ALL.into_iter().find(|event| event.entity == entity && event.action == action)
    }

    /// Parses `entity.action`.
    pub fn parse(text: &str) -> Option<Self> {
        let (entity, action) = text.split_once('.')?;
        Self::new(entity, action)
    }
}

impl fmt::Display for HookEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.entity, self.action)
    }
}

/// The request body of a delivery, in JSON.
pub fn body(event: HookEvent, at: Timestamp, data: &Value) -> String {
    json!({"entity": event.entity, "action": event.action, "timestamp": at.to_rfc3339(), "data": data}).to_string()
}

/// Example data of an event, for the test of a webhook.
pub fn example(event: HookEvent) -> Value {
    let name = if event.entity.starts_with("prompt") { "example_prompt" } else { "example_model" };
    let mut data = json!({"name": name});
    let fields: &[&str] = match (event.entity, event.action) {
        ("registered_model" | "prompt", _) => &["tags", "description"],
        ("model_version", _) => &["version", "source", "run_id", "tags", "description"],
        ("prompt_version", _) => &["version", "template", "tags", "description"],
        ("prompt_tag", "set") => &["key", "value"],
        ("prompt_tag", _) => &["key"],
        ("model_version_tag" | "prompt_version_tag", "set") => &["version", "key", "value"],
        ("model_version_tag" | "prompt_version_tag", _) => &["version", "key"],
        (_, "created") => &["alias", "version"],
        ("model_version_alias" | "prompt_alias", _) => &["alias"],
        _ => return budget_example(),
    };
    for field in fields {
        data[*field] = match *field {
            "tags" => json!({"example_key": "example_value"}),
            "version" => json!("1"),
            "source" => json!("models:/example_model/1"),
            "run_id" => json!("0123456789abcdef0123456789abcdef"),
            "template" => json!("Hello {{name}}!"),
            other => json!(format!("example_{other}")),
        };
    }
    data
}

fn budget_example() -> Value {
    json!({
        "budget_policy_id": "example_policy", "budget_unit": "USD", "budget_amount": 100.0, "current_spend": 101.5,
        "duration_unit": "DAYS", "duration_value": 1, "target_scope": "GLOBAL", "workspace": "default",
        "target_value": null, "window_start": 1_767_225_600_000_i64,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_text_form_of_an_event_parses_to_the_event() {
        for event in HookEvent::all() {
            assert_eq!(HookEvent::parse(&event.to_string()), Some(*event));
        }
        for unknown in ["", "registered_model", "registered_model.deleted", "run.created", "a.b.c", "Prompt.created"] {
            assert_eq!(HookEvent::parse(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn examples_have_the_fields_of_their_event() {
        let fields = |text: &str| {
            let data = example(HookEvent::parse(text).unwrap());
            let mut names: Vec<String> = data.as_object().unwrap().keys().cloned().collect();
            names.sort();
            names.join(" ")
        };
        for (event, expected) in [
            ("registered_model.created", "description name tags"),
            ("model_version.created", "description name run_id source tags version"),
            ("model_version_tag.set", "key name value version"),
            ("model_version_tag.deleted", "key name version"),
            ("model_version_alias.created", "alias name version"),
            ("model_version_alias.deleted", "alias name"),
            ("prompt.created", "description name tags"),
            ("prompt_version.created", "description name tags template version"),
            ("prompt_tag.set", "key name value"),
            ("prompt_tag.deleted", "key name"),
            ("prompt_version_tag.set", "key name value version"),
            ("prompt_version_tag.deleted", "key name version"),
            ("prompt_alias.created", "alias name version"),
            ("prompt_alias.deleted", "alias name"),
        ] {
            assert_eq!(fields(event), expected, "{event}");
        }
        assert!(fields("budget_policy.exceeded").contains("budget_amount"));
    }
}
