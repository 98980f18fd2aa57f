//! Tenants. What a caller may see is a type (law 12): functions that read or write tenants'
//! data take a [`TenantScope`], never a bare string.

use crate::ids::identifier;

fn tenant_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-')
}

identifier!(
    /// The name of a tenant.
    TenantId, "tenant_id", "^[a-zA-Z0-9_-]{1,100}$", 100, tenant_byte
);

impl TenantId {
    /// The tenant of callers that name none while authentication is off.
    pub const DEFAULT: &str = "default";

    pub fn default_tenant() -> Self {
        Self(Self::DEFAULT.into())
    }
}

/// The right to touch one tenant's data. Only two places make one: the HTTP extractor, from an
/// authenticated request, and the decoder, from a record whose key, header and payload agree.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TenantScope(TenantId);

impl TenantScope {
    /// States that the caller was found to be allowed to act for `tenant`.
    pub fn authorised(tenant: TenantId) -> Self {
        Self(tenant)
    }

    pub fn tenant(&self) -> &TenantId {
        &self.0
    }
}
