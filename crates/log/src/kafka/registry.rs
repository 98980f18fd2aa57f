//! The client of the schema registry (Confluent API). Subjects are `<topic>-value`. Ids and schemas never change, so
//! they are cached without expiry.

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

/// Timeout of one request. Not longer than a client waits for the answer to an append.
const REGISTRY_TIMEOUT: Duration = Duration::from_secs(5);

/// Owns the connection to the schema registry, and the cached ids and schemas.
pub(super) struct SchemaRegistry {
    address: String,
    settings: SrSettings,
    client: reqwest::Client,
    /// Ids by event and fingerprint.
    ids: Mutex<HashMap<(String, Fingerprint), u32>>,
    /// Schemas (JSON) by id.
    schemas: Mutex<HashMap<u32, String>>,
}

/// Error codes for a missing subject, version or schema (Confluent Schema Registry API, "Errors").
const NOT_FOUND: [u32; 3] = [40401, 40402, 40403];
/// Error codes for a rejected schema: incompatible, or invalid.
const REJECTED: [u32; 4] = [409, 422, 42201, 42202];

/// The subject of an event's schemas.
pub(super) fn subject(event: &str) -> String {
    format!("{event}-value")
}

fn avro_schema(json: &str) -> SuppliedSchema {
    SuppliedSchema::new(None, SchemaType::Avro, json.to_owned())
}

impl SchemaRegistry {
    /// Fails with [`LogError::Options`] if the address is not valid. Connects to nothing.
    pub fn new(address: &str) -> Result<Self, LogError> {
        let invalid =
            |error: &dyn std::fmt::Display| LogError::Options(format!("ML_SCHEMA_REGISTRY_URL is invalid: {error}"));
        let parsed = reqwest::Url::parse(address).map_err(|error| invalid(&error))?;
        if !matches!(parsed.scheme(), "http" | "https") {
            return Err(invalid(&"the scheme is neither http nor https"));
        }
        // The HTTP client has no TLS provider of its own. A second installation fails without effect.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let address = address.trim_end_matches('/').to_owned();
        let settings = SrSettings::new_builder(address.clone()).set_timeout(REGISTRY_TIMEOUT).build();
        let settings = settings.map_err(|error| invalid(&error.error))?;
        let client = reqwest::Client::builder().timeout(REGISTRY_TIMEOUT).build().map_err(|error| invalid(&error))?;
        Ok(Self { address, settings, client, ids: Mutex::default(), schemas: Mutex::default() })
    }

    /// The registry's id for the schema with this fingerprint. Fails with [`LogError::SchemaMissing`] if the registry
    /// does not have the schema.
    pub async fn id(&self, event: &str, fingerprint: Fingerprint) -> Result<u32, LogError> {
        let key = (event.to_owned(), fingerprint);
        if let Some(id) = lock(&self.ids).get(&key) {
            return Ok(*id);
        }
        let compiled_in =
            versions().iter().find(|version| version.event == event && version.fingerprint == fingerprint);
        let Some(version) = compiled_in else {
            return Err(LogError::Corrupt(format!("event {event} has no schema with fingerprint {fingerprint}")));
        };
        let id = self.look_up(version).await?;
        id.ok_or_else(|| LogError::SchemaMissing { subject: subject(event), version: version.number })
    }

    /// The registry's id for this version; `None` if the registry does not have it. Caches the id and the schema, so
    /// that appends and decoders go on while the registry is unavailable.
    pub async fn look_up(&self, version: &SchemaVersion) -> Result<Option<u32>, LogError> {
        let body = json!({"schema": version.json, "schemaType": "AVRO"}).to_string();
        let subject = subject(version.event);
        match perform_sr_call(&self.settings, SrCall::PostForVersion(&subject, &body)).await {
            Ok(found) => {
                let id = found.id;
                let id =
                    id.ok_or_else(|| LogError::Unavailable("schema registry: the answer contains no id".into()))?;
                lock(&self.ids).insert((version.event.to_owned(), version.fingerprint), id);
                lock(&self.schemas).insert(id, version.json.to_owned());
                Ok(Some(id))
            }
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => Err(unavailable(&error)),
        }
    }

    /// The schema with this id; `None` if the registry does not have it.
    pub async fn schema(&self, id: u32) -> Result<Option<String>, LogError> {
        if let Some(schema) = lock(&self.schemas).get(&id) {
            return Ok(Some(schema.clone()));
        }
        // Registry ids are Java ints. The registry answers a larger number with an error for a malformed request.
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

    /// Registers a schema, and returns its id. Registering a schema again returns the same id. If two clients register
    /// at once, some registries reject the second ("already exists"), so a rejected registration is retried once.
    pub async fn put(&self, event: &str, json: &str) -> Result<u32, LogError> {
        match self.post(event, json).await {
            Err(LogError::SchemaRefused { .. }) => self.post(event, json).await,
            outcome => outcome,
        }
    }

    async fn post(&self, event: &str, json: &str) -> Result<u32, LogError> {
        let rejected = |message: String| LogError::SchemaRefused { subject: subject(event), message };
        let schema = carbon_schemas::parse(json).map_err(rejected)?;
        match post_schema(&self.settings, subject(event), avro_schema(json)).await {
            Ok(registered) => {
                let key = (event.to_owned(), Fingerprint::of(&schema));
                lock(&self.ids).insert(key, registered.id);
                Ok(registered.id)
            }
            Err(error) => match raw(&error) {
                Some(raw) if REJECTED.contains(&raw.error_code) => Err(rejected(raw.message.clone())),
                _ => Err(unavailable(&error)),
            },
        }
    }

    /// Sets a subject's compatibility to `FULL_TRANSITIVE` (law 13). If two clients set it at once, some registries
    /// answer the second with a conflict, so a conflict is retried once.
    pub async fn require_compatibility(&self, event: &str) -> Result<(), LogError> {
        let outcome = match self.put_compatibility(event).await {
            Err(error) if error.status() == Some(reqwest::StatusCode::CONFLICT) => self.put_compatibility(event).await,
            outcome => outcome,
        };
        outcome.map_err(|error| LogError::Unavailable(format!("schema registry: {}", error.without_url())))
    }

    async fn put_compatibility(&self, event: &str) -> Result<(), reqwest::Error> {
        let url = format!("{}/config/{}", self.address, subject(event));
        let body = json!({"compatibility": "FULL_TRANSITIVE"}).to_string();
        let request = self.client.put(url).header("content-type", "application/vnd.schemaregistry.v1+json").body(body);
        request.send().await?.error_for_status().map(drop)
    }

    /// The registered versions of an event's subject, oldest first, as number and schema. Empty if the subject does not
    /// exist.
    pub async fn versions(&self, event: &str) -> Result<Vec<(u32, String)>, LogError> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
            schema: String,
        }
        let base = format!("{}/subjects/{}/versions", self.address, subject(event));
        let failed = |error: reqwest::Error| LogError::Unavailable(format!("schema registry: {}", error.without_url()));
        let answer = self.client.get(&base).send().await.map_err(failed)?;
        if answer.status() == reqwest::StatusCode::NOT_FOUND {
            return Ok(Vec::new());
        }
        let numbers: Vec<u32> = answer.error_for_status().map_err(failed)?.json().await.map_err(failed)?;
        let mut found = Vec::with_capacity(numbers.len());
        for number in numbers {
            let answer = self.client.get(format!("{base}/{number}")).send().await.map_err(failed)?;
            let version: Version = answer.error_for_status().map_err(failed)?.json().await.map_err(failed)?;
            found.push((version.version, version.schema));
        }
        Ok(found)
    }
}

/// The error body that the registry answered with, if there is one.
fn raw(error: &SRCError) -> Option<&RawError> {
    std::error::Error::source(error)?.downcast_ref()
}

/// True if the registry itself reports that something is missing. A 404 of a proxy does not count: it would turn good
/// records into poison.
fn is_not_found(error: &SRCError) -> bool {
    raw(error).is_some_and(|raw| NOT_FOUND.contains(&raw.error_code))
}

fn unavailable(error: &SRCError) -> LogError {
    let message = match raw(error) {
        Some(raw) => format!("{} (code {})", raw.message, raw.error_code),
        None => match std::error::Error::source(error).and_then(|source| source.downcast_ref::<reqwest::Error>()) {
            Some(error) if error.is_timeout() => "no answer in time".into(),
            Some(error) if error.is_connect() => "connection failed".into(),
            _ => error.error.clone(),
        },
    };
    LogError::Unavailable(format!("schema registry: {message}"))
}
