//! Dead letters: records that no processor can take, with what is known of them.

use carbon_core::{TenantId, derived_id};
use carbon_log::{NewRecord, Record};
use carbon_schemas::events::{DeadLetter, DeadLetterKind, Source};
use carbon_schemas::{CodecError, MAX_RECORD_BYTES, Poison, PoisonReason};

/// Room for the fields beside the payload.
const OVERHEAD: usize = 256 * 1024;

/// The dead letter of a poisonous record. Its id is derived from position and reason (law 11), so that
/// every processor that meets the record reports the same one.
pub fn dead_letter(processor: &str, record: &Record, poison: &Poison) -> Result<NewRecord, CodecError> {
    let reason = poison.reason.as_str();
    let cut = |bytes: &[u8], max: usize| bytes[..bytes.len().min(max)].to_vec();
    let max = MAX_RECORD_BYTES - OVERHEAD;
    let key_tenant = record.key.as_deref().and_then(tenant_of_key);
    let header_tenant = record.headers.iter().find(|(name, _)| name == "tenant_id");
    let header_tenant = header_tenant.and_then(|(_, value)| TenantId::parse(std::str::from_utf8(value).ok()?).ok());
    let tenant = match poison.reason {
        // Whose it is, is what is wrong with it: no tenant is shown its bytes.
        PoisonReason::KeyMismatch | PoisonReason::HeaderMismatch | PoisonReason::UnreadableKey => None,
        _ if header_tenant.is_some() && header_tenant != key_tenant => None,
        _ => key_tenant,
    };
    let letter = DeadLetter {
        event_id: derived_id(&[&record.position.to_string(), reason]),
        occurred_at: record.timestamp,
        tenant_id: tenant,
        kind: DeadLetterKind::Reported,
        source: Source::from(&record.position),
        processor: processor.to_owned(),
        reason: reason.to_owned(),
        message: poison.message.chars().take(2000).collect(),
        key: record.key.as_ref().map(|key| cut(key, 64 * 1024)),
        payload: record.value.as_ref().map(|value| cut(value, max)),
        payload_truncated: record.value.as_ref().is_some_and(|value| value.len() > max),
        headers: record
            .headers
            .iter()
            .take(32)
            .map(|(name, value)| (name.chars().take(100).collect(), serde_bytes::ByteBuf::from(cut(value, 2048))))
            .collect(),
    };
    NewRecord::event(&letter)
}

fn tenant_of_key(key: &[u8]) -> Option<TenantId> {
    TenantId::parse(std::str::from_utf8(key).ok()?.split('/').next()?).ok()
}
