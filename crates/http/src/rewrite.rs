//! Prefixes that stand before any route: `/tenants/{tenant_id}` and `/api/v1`. They are taken off before
//! routing, so that every route has one name.

use axum::extract::Request;
use axum::http::Uri;
use axum::http::uri::PathAndQuery;
use carbon_core::TenantId;

/// The tenant that the path named.
#[derive(Clone, Debug)]
pub(crate) struct PathTenant(pub Result<TenantId, String>);

pub(crate) fn rewrite(mut request: Request) -> Request {
    let uri = request.uri();
    let (rest, tenant) = strip(uri.path());
    if rest.len() == uri.path().len() {
        return request;
    }
    let tenant = tenant.map(|name| PathTenant(TenantId::parse(name).map_err(|error| error.to_string())));
    let path = match uri.query() {
        Some(query) => format!("/{}?{query}", rest.trim_start_matches('/')),
        None => format!("/{}", rest.trim_start_matches('/')),
    };
    let mut parts = uri.clone().into_parts();
    // A tail of a valid path is a valid path; if not, the request stays what it was and meets no route.
    if let Ok(path) = path.parse::<PathAndQuery>() {
        parts.path_and_query = Some(path);
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }
    if let Some(tenant) = tenant {
        request.extensions_mut().insert(tenant);
    }
    request
}

/// What remains of a path, and the tenant that it named.
fn strip(path: &str) -> (&str, Option<&str>) {
    let path = version(path);
    let Some(rest) = path.strip_prefix("/tenants/") else { return (path, None) };
    let (tenant, rest) = match rest.find('/') {
        Some(end) => rest.split_at(end),
        None => (rest, ""),
    };
    (version(rest), Some(tenant))
}

fn version(path: &str) -> &str {
    match path.strip_prefix("/api/v1") {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => rest,
        _ => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_come_off() {
        for (path, rest, tenant) in [
            ("/search", "/search", None),
            ("/api/v1/search", "/search", None),
            ("/api/v10/search", "/api/v10/search", None),
            ("/tenants/acme/search", "/search", Some("acme")),
            ("/tenants/acme/api/v1/search", "/search", Some("acme")),
            ("/api/v1/tenants/acme/search", "/search", Some("acme")),
            ("/tenants/acme", "", Some("acme")),
            ("/tenants//x", "/x", Some("")),
            ("/tenants/a/tenants/b/x", "/tenants/b/x", Some("a")),
        ] {
            assert_eq!(strip(path), (rest, tenant), "{path}");
        }
    }
}
