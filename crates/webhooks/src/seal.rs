//! Encryption of secrets with ChaCha20-Poly1305. HKDF-SHA256 derives the key from a passphrase; the tenant and the
//! webhook's id are authenticated with the secret, so it can be decrypted for them only.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use carbon_core::TenantScope;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::WebhookError;

/// The prefix of an encrypted secret: the version of the format.
const FORMAT: &str = "v1:";
const SALT: &[u8] = b"carbon-ml";
const PURPOSE: &[u8] = b"webhook secrets, v1";

pub(crate) struct SecretKey {
    key: LessSafeKey,
    random: SystemRandom,
}

/// Maps an error of `ring`, which has no text, to an internal error that names the operation.
fn internal(what: &'static str) -> impl Fn(ring::error::Unspecified) -> WebhookError {
    move |_| WebhookError::Internal(format!("{what} failed"))
}

/// The data that is authenticated with the secret.
fn associated_data(scope: &TenantScope, webhook_id: &str) -> Aad<Vec<u8>> {
    Aad::from(format!("{}\u{1f}{webhook_id}", scope.tenant()).into_bytes())
}

impl SecretKey {
    pub fn derive(passphrase: &str) -> Result<Self, WebhookError> {
        let extracted = Salt::new(HKDF_SHA256, SALT).extract(passphrase.as_bytes());
        let expanded = extracted.expand(&[PURPOSE], &CHACHA20_POLY1305).map_err(internal("key derivation"))?;
        Ok(Self { key: LessSafeKey::new(UnboundKey::from(expanded)), random: SystemRandom::new() })
    }

    pub fn seal(&self, scope: &TenantScope, webhook_id: &str, secret: &str) -> Result<String, WebhookError> {
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).map_err(internal("generating a nonce"))?;
        let mut sealed = secret.as_bytes().to_vec();
        self.key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                associated_data(scope, webhook_id),
                &mut sealed,
            )
            .map_err(internal("encryption"))?;
        Ok(format!("{FORMAT}{}", BASE64_STANDARD.encode([&nonce[..], &sealed].concat())))
    }

    pub fn open(&self, scope: &TenantScope, webhook_id: &str, sealed: &str) -> Result<String, WebhookError> {
        let bytes = sealed.strip_prefix(FORMAT).and_then(|text| BASE64_STANDARD.decode(text).ok());
        let bytes = bytes.ok_or(WebhookError::CannotDecrypt)?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE_LEN).ok_or(WebhookError::CannotDecrypt)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| WebhookError::CannotDecrypt)?;
        let mut sealed = sealed.to_vec();
        let opened = self.key.open_in_place(nonce, associated_data(scope, webhook_id), &mut sealed);
        let opened = opened.map_err(|_| WebhookError::CannotDecrypt)?;
        String::from_utf8(opened.to_vec()).map_err(|_| WebhookError::CannotDecrypt)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use carbon_core::TenantId;

    use super::*;

    fn scope(tenant: &str) -> TenantScope {
        TenantScope::authorised(TenantId::parse(tenant).unwrap())
    }

    #[test]
    fn only_the_same_key_tenant_and_webhook_decrypt_a_secret() {
        let key = SecretKey::derive("a passphrase").unwrap();
        let sealed = key.seal(&scope("acme"), "w", "s3cr3t").unwrap();
        assert!(!sealed.contains("s3cr3t") && sealed != key.seal(&scope("acme"), "w", "s3cr3t").unwrap());
        assert_eq!(key.open(&scope("acme"), "w", &sealed).unwrap(), "s3cr3t");
        assert_eq!(SecretKey::derive("a passphrase").unwrap().open(&scope("acme"), "w", &sealed).unwrap(), "s3cr3t");
        let other = SecretKey::derive("another").unwrap();
        assert!(matches!(other.open(&scope("acme"), "w", &sealed), Err(WebhookError::CannotDecrypt)));
        for (tenant, id) in [("other", "w"), ("acme", "x")] {
            assert!(matches!(key.open(&scope(tenant), id, &sealed), Err(WebhookError::CannotDecrypt)), "{tenant} {id}");
        }
    }

    #[test]
    fn a_changed_or_malformed_secret_is_rejected() {
        let key = SecretKey::derive("a passphrase").unwrap();
        let sealed = key.seal(&scope("acme"), "w", "s3cr3t").unwrap();
        let mut bytes = BASE64_STANDARD.decode(&sealed[FORMAT.len()..]).unwrap();
        bytes[NONCE_LEN] ^= 1;
        let changed = format!("{FORMAT}{}", BASE64_STANDARD.encode(bytes));
        for bad in [changed.as_str(), "", "v1:", "v1:AAAA", "v1:%", "v2:AAAA", &sealed[FORMAT.len()..], "s3cr3t"] {
            assert!(matches!(key.open(&scope("acme"), "w", bad), Err(WebhookError::CannotDecrypt)), "{bad}");
        }
    }
}
