//! The tenant of a request.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use carbon_core::{TenantId, TenantScope};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa::openapi::Required;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Type};

use crate::problem::Problem;
use crate::rewrite::PathTenant;

/// The tenant that the path and the query string name. There is no authentication: the caller may name any tenant. Only
/// this type creates the [`TenantScope`] of a request (law 12).
#[derive(Clone, Debug)]
pub struct Tenant {
    explicit: Option<TenantId>,
}

impl Tenant {
    /// Returns the scope of a request whose body can name tenants as well. An error if two names differ.
    pub fn resolve<'a>(&self, body: impl IntoIterator<Item = Option<&'a str>>) -> Result<TenantScope, Problem> {
        let mut tenant = self.explicit.clone();
        for named in body.into_iter().flatten() {
            tenant = Some(agree(tenant, parse(named)?)?);
        }
        Ok(TenantScope::authorised(tenant.unwrap_or_else(TenantId::default_tenant)))
    }

    /// Returns the scope of a request whose body names no tenant.
    pub fn scope(&self) -> TenantScope {
        TenantScope::authorised(self.explicit.clone().unwrap_or_else(TenantId::default_tenant))
    }
}

fn parse(text: &str) -> Result<TenantId, Problem> {
    TenantId::parse(text).map_err(|error| Problem::invalid(error.to_string()))
}

fn agree(one: Option<TenantId>, other: TenantId) -> Result<TenantId, Problem> {
    match one {
        Some(one) if one != other => {
            Err(Problem::invalid(format!("the request names two tenants, {one} and {other}; they must be the same")))
        }
        _ => Ok(other),
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Tenant {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let mut explicit = match parts.extensions.get::<PathTenant>() {
            Some(PathTenant(Ok(tenant))) => Some(tenant.clone()),
            Some(PathTenant(Err(message))) => return Err(Problem::invalid(message.clone())),
            None => None,
        };
        for name in query_tenants(parts)? {
            explicit = Some(agree(explicit, parse(&name)?)?);
        }
        Ok(Self { explicit })
    }
}

impl IntoParams for Tenant {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let tenant =
            ParameterBuilder::new().name("tenant_id").parameter_in(ParameterIn::Query).required(Required::False);
        let schema = ObjectBuilder::new().schema_type(Type::String);
        vec![tenant.description(Some("The tenant; `default` if the request names none")).schema(Some(schema)).build()]
    }
}

/// Returns every `tenant_id` of the query string.
fn query_tenants(parts: &Parts) -> Result<Vec<String>, Problem> {
    #[derive(Deserialize)]
    #[serde(transparent)]
    struct Pairs(Vec<(String, String)>);
    match axum::extract::Query::<Pairs>::try_from_uri(&parts.uri) {
        Ok(query) => {
            let pairs = query.0.0.into_iter().filter(|(name, _)| name.to_ascii_lowercase().starts_with("tenant"));
            let exact = |(name, value): (String, String)| match name == "tenant_id" {
                true => Ok(value),
                // A misspelt parameter would otherwise select the default tenant.
                false => Err(Problem::invalid(format!("unknown query parameter {name:?}; did you mean tenant_id?"))),
            };
            pairs.map(exact).collect()
        }
        Err(rejection) => Err(Problem::invalid(rejection.body_text())),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use axum::http::Request;

    use super::*;
    use crate::problem::Code;

    async fn tenant(uri: &str) -> Result<Tenant, Problem> {
        let request = crate::rewrite::rewrite(Request::get(uri).body(axum::body::Body::empty()).unwrap());
        Tenant::from_request_parts(&mut request.into_parts().0, &()).await
    }

    #[tokio::test]
    async fn law_12_path_query_and_body_must_name_the_same_tenant() {
        assert_eq!(tenant("/x").await.unwrap().scope().tenant().as_str(), "default");
        for uri in ["/x?tenant_id=acme", "/tenants/acme/x", "/tenants/acme/x?tenant_id=acme&tenant_id=acme"] {
            let tenant = tenant(uri).await.unwrap();
            assert_eq!(tenant.scope().tenant().as_str(), "acme", "{uri}");
            assert_eq!(tenant.resolve([Some("acme"), None]).unwrap().tenant().as_str(), "acme");
            assert_eq!(tenant.resolve([Some("other")]).unwrap_err().code(), Code::InvalidInput);
        }
        assert_eq!(tenant("/x").await.unwrap().resolve([Some("b")]).unwrap().tenant().as_str(), "b");
        assert!(tenant("/x").await.unwrap().resolve([Some("b"), Some("c")]).is_err());
        for uri in [
            "/tenants/acme/x?tenant_id=b",
            "/x?tenant_id=a.b",
            "/x?tenant_id=",
            "/x?tenant_id=a&tenant_id=b",
            "/x?TENANT_ID=a",
            "/x?tenant_id[]=a",
        ] {
            assert_eq!(tenant(uri).await.unwrap_err().code(), Code::InvalidInput, "{uri}");
        }
    }
}
