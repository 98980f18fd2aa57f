//! `webhooks/*`: the URLs that get the registry's events. The processor `webhooks` sends the deliveries; only test
//! deliveries are sent here.

use axum::extract::Path;
use carbon_read_models::registry::queries::{Webhook, webhook, webhooks};
use carbon_schemas::events::{WEBHOOK_STATUSES, WebhookChanged, WebhookKind};
use carbon_webhooks::{Delivery, HookEvent, WebhookError, body, example};
use serde_json::{Value, json};
use uuid::Uuid;

use super::args::Args;
use super::call::{Answer, Answered, Call, empty_answer};
use super::check;
use super::error::MlflowError;
use super::page::Paging;
use super::shapes;

/// Maximum length of a secret, in characters.
const SECRET_CHARS: usize = 1000;

impl From<WebhookError> for MlflowError {
    fn from(error: WebhookError) -> Self {
        Self::of(&error)
    }
}

impl Call {
    fn webhook_event(&self, id: Uuid, kind: WebhookKind) -> WebhookChanged {
        WebhookChanged::of(self.event_id(), self.now(), self.scope.tenant(), id, kind)
    }

    async fn webhook(&self, id: &str) -> Result<(Uuid, Webhook), MlflowError> {
        let missing = || MlflowError::does_not_exist(format!("Webhook with ID {id} not found."));
        let parsed = Uuid::try_parse(id).map_err(|_| missing())?;
        let found = webhook(self.rows()?, &self.scope, id).await?;
        Ok((parsed, found.ok_or_else(missing)?))
    }

    /// Parses the arguments that `create` and `update` share into `event`.
    fn webhook_fields(&self, event: &mut WebhookChanged) -> Result<(), MlflowError> {
        let args = &self.args;
        (event.name, event.url) = (args.non_empty("name")?, args.non_empty("url")?);
        if let Some(name) = &event.name {
            check::webhook_name(name)?;
        }
        if let Some(url) = &event.url {
            self.dependencies.webhooks.check_url(url)?;
        }
        for selected in args.objects("events")? {
            event.events.push(hook_event(&selected)?.to_string());
        }
        event.description = args.text("description")?.map(str::to_owned);
        event.status = args.non_empty("status")?;
        if let Some(status) = &event.status
            && !WEBHOOK_STATUSES.contains(&status.as_str())
        {
            return Err(MlflowError::invalid(format!(
                "Invalid value {status:?} for parameter 'status' supplied: it is one of {}",
                WEBHOOK_STATUSES.join(", ")
            )));
        }
        if let Some(secret) = args.text("secret")? {
            check::max_chars(secret, "secret", SECRET_CHARS)?;
            event.sealed_secret = Some(match secret {
                "" => String::new(),
                secret => self.dependencies.webhooks.seal(&self.scope, &event.webhook_id.to_string(), secret)?,
            });
        }
        Ok(())
    }
}

/// Parses an event with the names of MLflow's enums, such as `REGISTERED_MODEL` and `CREATED`.
fn hook_event(args: &Args) -> Result<HookEvent, MlflowError> {
    let (entity, action) = (args.required("entity")?.to_lowercase(), args.required("action")?.to_lowercase());
    if let Some(event) = HookEvent::new(&entity, &action) {
        return Ok(event);
    }
    let of_entity = HookEvent::all().iter().filter(|event| event.entity == entity);
    let mut actions: Vec<_> = of_entity.map(|event| format!("'{}'", event.action)).collect();
    if actions.is_empty() {
        let known = |event: &HookEvent| event.entity.to_uppercase();
        let mut entities: Vec<_> = HookEvent::all().iter().map(known).collect();
        entities.dedup();
        let (parameter, entities) = (args.full_name("entity"), entities.join(", "));
        return Err(MlflowError::invalid(format!(
            "Invalid value \"{}\" for parameter '{parameter}' supplied: it is one of {entities}",
            entity.to_uppercase()
        )));
    }
    actions.sort();
    Err(MlflowError::invalid(format!(
        "Invalid action '{action}' for entity '{entity}'. Valid actions are: [{}]",
        actions.join(", ")
    )))
}

async fn answered(call: &Call, id: Uuid) -> Answered {
    let (_, webhook) = call.webhook(&id.to_string()).await?;
    Ok(Answer(json!({"webhook": shapes::webhook(&webhook)})))
}

pub(super) async fn create(call: Call) -> Answered {
    let args = &call.args;
    args.required("name")?;
    args.required("url")?;
    if args.objects("events")?.is_empty() {
        return Err(MlflowError::missing("events"));
    }
    let id = Uuid::new_v4();
    let mut event = call.webhook_event(id, WebhookKind::Created);
    call.webhook_fields(&mut event)?;
    event.sealed_secret = event.sealed_secret.filter(|sealed| !sealed.is_empty());
    call.write(&event).await?;
    answered(&call, id).await
}

pub(super) async fn list(call: Call) -> Answered {
    let paging = Paging::parse(&call.args, Some(100), 1000)?;
    let page = webhooks(call.rows()?, &call.scope, paging.limit, paging.offset).await?;
    paging.answer("webhooks", page.items.iter().map(shapes::webhook).collect(), page.more)
}

pub(super) async fn get(Path(id): Path<String>, call: Call) -> Answered {
    let (_, webhook) = call.webhook(&id).await?;
    Ok(Answer(json!({"webhook": shapes::webhook(&webhook)})))
}

pub(super) async fn update(Path(id): Path<String>, call: Call) -> Answered {
    let (id, _) = call.webhook(&id).await?;
    let mut event = call.webhook_event(id, WebhookKind::Updated);
    call.webhook_fields(&mut event)?;
    call.write(&event).await?;
    answered(&call, id).await
}

pub(super) async fn delete(Path(id): Path<String>, call: Call) -> Answered {
    let (id, _) = call.webhook(&id).await?;
    call.write(&call.webhook_event(id, WebhookKind::Deleted)).await?;
    empty_answer()
}

/// Sends one test delivery. A failed delivery is a result in the answer, not an error.
pub(super) async fn test(Path(id): Path<String>, call: Call) -> Answered {
    let (_, webhook) = call.webhook(&id).await?;
    let event = match call.args.object("event")? {
        Some(selected) => Some(hook_event(&selected)?),
        None => webhook.events.iter().find_map(|event| HookEvent::parse(event)),
    };
    let event = event.ok_or_else(|| MlflowError::missing("event"))?;
    let result = match send_test(&call, &webhook, event).await {
        Ok(result) => result,
        Err(error) => json!({"success": false, "error_message": format!("Failed to test webhook: {error}")}),
    };
    Ok(Answer(json!({"result": result})))
}

async fn send_test(call: &Call, webhook: &Webhook, event: HookEvent) -> Result<Value, WebhookError> {
    let secret = call.dependencies.webhooks.open(&call.scope, &webhook.webhook_id, &webhook.sealed_secret)?;
    let body = body(event, call.now(), &example(event));
    let delivery = Delivery { id: Uuid::new_v4(), url: webhook.url.clone(), secret, body };
    let reply = call.dependencies.webhooks.send(&delivery).await?;
    let mut result = json!({
        "success": reply.status < 300, "response_status": reply.status, "response_body": reply.body,
    });
    if (300..400).contains(&reply.status) {
        result["error_message"] = "the webhook answered with a redirect, which is not followed".into();
    }
    Ok(result)
}
