//! `webhooks/*`: addresses that are told of the registry's events. The processor `webhooks` tells them; only a test is sent
//! from here.

use axum::extract::Path;
use carbon_read_models::registry::queries::{Webhook, webhook, webhooks};
use carbon_schemas::events::{WEBHOOK_STATUSES, WebhookChanged, WebhookKind};
use carbon_webhooks::{Delivery, HookEvent, WebhookError, body, example};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::args::Args;
use super::call::{Answer, Answered, Call, nothing};
use super::check;
use super::error::MlflowError;
use super::page::Paging;
use super::shapes;

const SECRET: usize = 1000;

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

    /// What both create and update may say of a webhook.
    fn webhook_fields(&self, event: &mut WebhookChanged) -> Result<(), MlflowError> {
        let args = &self.args;
        let given = |name: &str| -> Result<Option<String>, MlflowError> {
            Ok(args.text(name)?.filter(|text| !text.is_empty()).map(str::to_owned))
        };
        (event.name, event.url) = (given("name")?, given("url")?);
        if let Some(name) = &event.name {
            check::webhook_name(name)?;
        }
        if let Some(url) = &event.url {
            self.parts.webhooks.check_url(url)?;
        }
        for asked in args.objects("events")? {
            event.events.push(hook_event(&asked)?.to_string());
        }
        event.description = args.text("description")?.map(str::to_owned);
        event.status = given("status")?;
        if let Some(status) = &event.status
            && !WEBHOOK_STATUSES.contains(&status.as_str())
        {
            return Err(MlflowError::invalid(format!(
                "Invalid value {status:?} for parameter 'status' supplied: it is one of {}",
                WEBHOOK_STATUSES.join(", ")
            )));
        }
        if let Some(secret) = args.text("secret")? {
            check::too_long(secret, "secret", SECRET)?;
            event.sealed_secret = Some(match secret {
                "" => String::new(),
                secret => self.parts.webhooks.seal(&self.scope, &event.webhook_id.to_string(), secret)?,
            });
        }
        Ok(())
    }
}

/// An event by the names of MLflow's enums: `REGISTERED_MODEL`, `CREATED`.
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
        let (called, entities) = (args.called("entity"), entities.join(", "));
        return Err(MlflowError::invalid(format!(
            "Invalid value \"{}\" for parameter '{called}' supplied: it is one of {entities}",
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
    let paging = Paging::read(&call.args, Some(100), 1000)?;
    let page = webhooks(call.rows()?, &call.scope, paging.limit, paging.offset).await?;
    let mut answer = Map::new();
    if !page.items.is_empty() {
        shapes::put(&mut answer, "webhooks", page.items.iter().map(shapes::webhook).collect::<Vec<_>>());
    }
    paging.sign(&mut answer, page.more);
    Ok(Answer(answer.into()))
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
    nothing()
}

/// Sends an example, once. Whatever comes of it is the answer, and no error.
pub(super) async fn test(Path(id): Path<String>, call: Call) -> Answered {
    let (_, webhook) = call.webhook(&id).await?;
    let event = match call.args.object("event")? {
        Some(asked) => Some(hook_event(&asked)?),
        None => webhook.events.iter().find_map(|event| HookEvent::parse(event)),
    };
    let event = event.ok_or_else(|| MlflowError::missing("event"))?;
    let result = match attempt(&call, &webhook, event).await {
        Ok(result) => result,
        Err(error) => json!({"success": false, "error_message": format!("Failed to test webhook: {error}")}),
    };
    Ok(Answer(json!({"result": result})))
}

async fn attempt(call: &Call, webhook: &Webhook, event: HookEvent) -> Result<Value, WebhookError> {
    let secret = call.parts.webhooks.open(&call.scope, &webhook.webhook_id, &webhook.sealed_secret)?;
    let body = body(event, call.now(), &example(event));
    let delivery = Delivery { id: Uuid::new_v4(), url: webhook.url.clone(), secret, body };
    let reply = call.parts.webhooks.send(&delivery).await?;
    let mut result = json!({
        "success": reply.status < 300, "response_status": reply.status, "response_body": reply.body,
    });
    if (300..400).contains(&reply.status) {
        result["error_message"] = "it redirects, which is not followed".into();
    }
    Ok(result)
}
