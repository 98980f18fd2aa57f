//! The schema registry, by the Confluent API. Subjects are `<topic>-value`; ids and schemas are kept once they
//! were seen, since neither ever changes.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use carbon_schemas::{Fingerprint, SchemaVersion, versions};
use schema_registry_converter::async_impl::schema_registry::{
    SrSettings, get_schema_by_id, perform_sr_call, post_schema,
};
use schema_registry_converter::error::SRCError;
use schema_registry_converter::schema_registry_common::{RawError, SchemaType, SrCall, SuppliedSchema};
use serde::Deserialize;
use serde_json::json;

use super::client::lock;
use crate::error::LogError;

/// Not longer than a writer waits for its answer.
const TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct Registry {
    address: String,
    settings: SrSettings,
    client: reqwest::Client,
    ids: Mutex<HashMap<(String, Fingerprint), u32>>,
    schemas: Mutex<HashMap<u32, String>>,
}

/// The registry's own codes (Confluent Schema Registry API, "Errors").
const NOT_FOUND: [u32; 3] = [40401, 40402, 40403];

pub(super) fn subject(event: &str) -> String {
    format!("{event}-value")
}

fn supplied(json: &str) -> SuppliedSchema {
    SuppliedSchema::new(None, SchemaType::Avro, json.to_owned())
}

impl Registry {
    pub fn new(address: &str) -> Result<Self, LogError> {
        let fault = |error: &dyn std::fmt::Display| {
            LogError::Options(format!("ML_SCHEMA_REGISTRY_URL cannot be used: {error}"))
        };
        let parsed = reqwest::Url::parse(address).map_err(|error| fault(&error))?;
        if !matches!(parsed.scheme(), "http" | "https") {
            return Err(fault(&"it begins with neither http:// nor https://"));
        }
        // The HTTP client brings no TLS provider of its own. A second installation changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let address = address.trim_end_matches('/').to_owned();
        let settings = SrSettings::new_builder(address.clone()).set_timeout(TIMEOUT).build();
        let settings = settings.map_err(|error| fault(&error.error))?;
        let client = reqwest::Client::builder().timeout(TIMEOUT).build().map_err(|error| fault(&error))?;
        Ok(Self { address, settings, client, ids: Mutex::default(), schemas: Mutex::default() })
    }

    /// The id under which a subject holds the schema of this fingerprint.
    pub async fn id(&self, event: &str, fingerprint: Fingerprint) -> Result<u32, LogError> {
        let key = (event.to_owned(), fingerprint);
        if let Some(id) = lock(&self.ids).get(&key) {
            return Ok(*id);
        }
        let known = versions().iter().find(|version| version.event == event && version.fingerprint == fingerprint);
        let Some(version) = known else {
            return Err(LogError::Corrupt(format!("{event} has no schema with fingerprint {fingerprint}")));
        };
        let id = self.look_up(version).await?;
        id.ok_or_else(|| LogError::SchemaMissing { subject: subject(event), version: version.number })
    }

    /// Where the registry has this version; `None` where it has not. What was found once is not asked for again, in
    /// either direction: a registry that goes away holds up nothing that runs.
    pub async fn look_up(&self, version: &SchemaVersion) -> Result<Option<u32>, LogError> {
        let body = json!({"schema": version.json, "schemaType": "AVRO"}).to_string();
        let subject = subject(version.event);
        match perform_sr_call(&self.settings, SrCall::PostForVersion(&subject, &body)).await {
            Ok(found) => {
                let id = found.id;
                let id = id.ok_or_else(|| LogError::Unavailable("schema registry: an answer without an id".into()))?;
                lock(&self.ids).insert((version.event.to_owned(), version.fingerprint), id);
                lock(&self.schemas).insert(id, version.json.to_owned());
                Ok(Some(id))
            }
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => Err(unavailable(&error)),
        }
    }

    /// The schema of an id; `None` where the registry does not know it.
    pub async fn schema(&self, id: u32) -> Result<Option<String>, LogError> {
        if let Some(schema) = lock(&self.schemas).get(&id) {
            return Ok(Some(schema.clone()));
        }
        // Ids beyond a signed number are no registry's; Java's would call the request malformed.
        if i32::try_from(id).is_err() {
            return Ok(None);
        }
        match get_schema_by_id(id, &self.settings).await {
            Ok(found) => {
                lock(&self.schemas).insert(id, found.schema.clone());
                Ok(Some(found.schema))
            }
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => Err(unavailable(&error)),
        }
    }

    /// Registers a schema; where it is there already, the id is the same. Of two who register at once a registry may
    /// refuse the second ("already exists"), so a refusal holds only where it is said twice.
    pub async fn put(&self, event: &str, json: &str) -> Result<u32, LogError> {
        match self.post(event, json).await {
            Err(LogError::SchemaRefused { .. }) => self.post(event, json).await,
            answer => answer,
        }
    }

    async fn post(&self, event: &str, json: &str) -> Result<u32, LogError> {
        let refused = |message: String| LogError::SchemaRefused { subject: subject(event), message };
        let schema = carbon_schemas::parse(json).map_err(refused)?;
        match post_schema(&self.settings, subject(event), supplied(json)).await {
            Ok(registered) => {
                let key = (event.to_owned(), Fingerprint::of(&schema));
                lock(&self.ids).insert(key, registered.id);
                Ok(registered.id)
            }
            Err(error) => match raw(&error) {
                Some(raw) if matches!(raw.error_code, 409 | 422 | 42201 | 42202) => Err(refused(raw.message.clone())),
                _ => Err(unavailable(&error)),
            },
        }
    }

    /// Demands full transitive compatibility of a subject (law 13). Of two who do so at once a registry may tell the
    /// second that the rule is there already, so it is asked again.
    pub async fn demand_compatibility(&self, event: &str) -> Result<(), LogError> {
        let answer = match self.put_compatibility(event).await {
            Err(error) if error.status() == Some(reqwest::StatusCode::CONFLICT) => self.put_compatibility(event).await,
            answer => answer,
        };
        answer.map_err(|error| LogError::Unavailable(format!("schema registry: {}", error.without_url())))
    }

    async fn put_compatibility(&self, event: &str) -> Result<(), reqwest::Error> {
        let url = format!("{}/config/{}", self.address, subject(event));
        let body = json!({"compatibility": "FULL_TRANSITIVE"}).to_string();
        let request = self.client.put(url).header("content-type", "application/vnd.schemaregistry.v1+json").body(body);
        request.send().await?.error_for_status().map(drop)
    }

    /// The versions of a subject, oldest first; none where it is not there.
    pub async fn versions(&self, event: &str) -> Result<Vec<(u32, String)>, LogError> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
            schema: String,
        }
        let base = format!("{}/subjects/{}/versions", self.address, subject(event));
        let fault = |error: reqwest::Error| LogError::Unavailable(format!("schema registry: {}", error.without_url()));
        let answer = self.client.get(&base).send().await.map_err(fault)?;
        if answer.status() == reqwest::StatusCode::NOT_FOUND {
            return Ok(Vec::new());
        }
        let numbers: Vec<u32> = answer.error_for_status().map_err(fault)?.json().await.map_err(fault)?;
        let mut found = Vec::with_capacity(numbers.len());
        for number in numbers {
            let answer = self.client.get(format!("{base}/{number}")).send().await.map_err(fault)?;
            let version: Version = answer.error_for_status().map_err(fault)?.json().await.map_err(fault)?;
            found.push((version.version, version.schema));
        }
        Ok(found)
    }
}

/// The registry's own words, where it answered.
fn raw(error: &SRCError) -> Option<&RawError> {
    std::error::Error::source(error)?.downcast_ref()
}

/// Only the registry's own code counts: a proxy's 404 must not make poison of good records.
fn is_not_found(error: &SRCError) -> bool {
    raw(error).is_some_and(|raw| NOT_FOUND.contains(&raw.error_code))
}

fn unavailable(error: &SRCError) -> LogError {
    let message = match raw(error) {
        Some(raw) => format!("{} (code {})", raw.message, raw.error_code),
        None => match std::error::Error::source(error).and_then(|source| source.downcast_ref::<reqwest::Error>()) {
            Some(error) if error.is_timeout() => "no answer in time".into(),
            Some(error) if error.is_connect() => "it cannot be reached".into(),
            _ => error.error.clone(),
        },
    };
    LogError::Unavailable(format!("schema registry: {message}"))
}
