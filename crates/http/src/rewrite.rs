//! Strips the prefixes `/tenants/{tenant_id}` and `/api/v1` from the path before routing, so each route is declared once.

use axum::extract::Request;
use axum::http::Uri;
use axum::http::uri::PathAndQuery;
use carbon_core::TenantId;

/// The tenant of the path prefix, or the error message if its name is not valid; an extension of the request.
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
    // The rest of a valid path is a valid path. If parsing fails all the same, the path stays unchanged and no route
    // matches.
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

/// Returns the path without prefixes, and the tenant that it names.
fn strip(path: &str) -> (&str, Option<&str>) {
    let path = without_version(path);
    let Some(rest) = path.strip_prefix("/tenants/") else { return (path, None) };
    let (tenant, rest) = match rest.find('/') {
        Some(end) => rest.split_at(end),
        None => (rest, ""),
    };
    (without_version(rest), Some(tenant))
}

fn without_version(path: &str) -> &str {
    match path.strip_prefix("/api/v1") {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => rest,
        _ => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_stripped() {
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
