//! Tenants. A function that reads or writes the data of a tenant takes a [`TenantScope`], not a string (law 12).

use crate::ids::identifier;

fn tenant_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-')
}

identifier!(
    /// The id of a tenant.
    TenantId, "tenant_id", "^[a-zA-Z0-9_-]{1,100}$", 100, tenant_byte
);

impl TenantId {
    /// The tenant of callers that name none, while authentication is off.
    pub const DEFAULT: &str = "default";

    pub fn default_tenant() -> Self {
        Self(Self::DEFAULT.into())
    }
}

/// Permission to read and write the data of one tenant. Two places create it: the HTTP extractor, from an authenticated
/// request, and the decoder, from a record whose key, header and payload agree.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TenantScope(TenantId);

impl TenantScope {
    /// Creates the scope. The caller must have checked the permission; `clippy.toml` lists this as a disallowed method, so
    /// each call states its reason.
    pub fn authorised(tenant: TenantId) -> Self {
        Self(tenant)
    }

    pub fn tenant(&self) -> &TenantId {
        &self.0
    }
}
