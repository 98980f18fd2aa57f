//! HTTP to the running services: addresses, tenants, and what their refusals mean.

use std::time::Duration;

use carbon_core::TenantId;
use carbon_runtime::Config;
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde::de::DeserializeOwned;

use crate::args::Global;
use crate::error::CliError;

/// How long an answer may take where the request itself says nothing longer.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a request is made again that was turned away because of load.
const LOAD_RETRIES: u32 = 8;

/// query-api or tracking-api, at its address, for a tenant.
#[derive(Clone, Debug)]
pub struct Service {
    name: &'static str,
    setting: &'static str,
    /// Without a slash at the end.
    url: String,
    tenant: Option<TenantId>,
    http: reqwest::Client,
}

/// RFC 9457, and what an append that failed midway adds to it.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
struct Problem {
    title: Option<String>,
    detail: Option<String>,
    code: Option<String>,
    request_id: Option<String>,
    accepted: Option<serde_json::Value>,
}

/// An address as it may be shown.
fn without_password(url: &str) -> String {
    match Url::parse(url) {
        Ok(mut parsed) if parsed.password().is_some() => {
            let _ = parsed.set_password(Some("***"));
            parsed.to_string()
        }
        _ => url.to_owned(),
    }
}

impl Service {
    pub fn query(config: &Config, global: &Global) -> Result<Self, CliError> {
        Self::new("query-api", &config.url, "ML_URL", global.tenant.clone())
    }

    pub fn tracking(config: &Config, global: &Global) -> Result<Self, CliError> {
        Self::new("tracking-api", &config.tracking_url, "ML_TRACKING_URL", global.tenant.clone())
    }

    fn new(name: &'static str, url: &str, setting: &'static str, tenant: Option<TenantId>) -> Result<Self, CliError> {
        let wrong = |why: String| CliError::Usage(format!("{setting}={url:?} is not the address of {name}: {why}"));
        let parsed = Url::parse(url.trim()).map_err(|error| wrong(error.to_string()))?;
        let host = match (parsed.scheme(), parsed.host_str()) {
            ("http" | "https", Some(host)) => host.trim_matches(['[', ']']).to_owned(),
            _ => return Err(wrong("expected http://host:port".into())),
        };
        let local = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        let builder = reqwest::Client::builder()
            .user_agent(concat!("carbon-ml/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(5));
        // A proxy for the world outside knows no service of this machine.
        let builder = if local { builder.no_proxy() } else { builder };
        let http = builder.build().map_err(|error| CliError::Failed(format!("no HTTP client: {error}")))?;
        Ok(Self { name, setting, url: url.trim().trim_end_matches('/').to_owned(), tenant, http })
    }

    pub fn for_tenant(mut self, tenant: &TenantId) -> Self {
        self.tenant = Some(tenant.clone());
        self
    }

    pub fn get(&self, path: &str) -> RequestBuilder {
        self.request(Method::GET, path)
    }

    pub fn post(&self, path: &str) -> RequestBuilder {
        self.request(Method::POST, path)
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let prefix = self.tenant.as_ref().map_or_else(String::new, |tenant| format!("/tenants/{tenant}"));
        self.http.request(method, format!("{}{prefix}{path}", self.url))
    }

    /// Sends, and turns every refusal into an error; the answer's body is still to be read.
    pub async fn send(&self, request: RequestBuilder) -> Result<Response, CliError> {
        let response = request.send().await.map_err(|error| self.broken(&error))?;
        match response.status() {
            status if status.is_success() => Ok(response),
            status => Err(self.refusal(status, &response.text().await.unwrap_or_default())),
        }
    }

    /// Sends a request whose answer is JSON; again where the service is overloaded.
    pub async fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, CliError> {
        let mut next = Some(request.timeout(PATIENCE));
        let mut attempt = 0;
        while let Some(request) = next.take() {
            let again = request.try_clone();
            let response = request.send().await.map_err(|error| self.broken(&error))?;
            let status = response.status();
            if status == StatusCode::TOO_MANY_REQUESTS && attempt < LOAD_RETRIES && again.is_some() {
                attempt += 1;
                tokio::time::sleep(retry_after(&response).unwrap_or(Duration::from_millis(200 * u64::from(attempt))))
                    .await;
                next = again;
                continue;
            }
            let body = response.bytes().await.map_err(|error| self.broken(&error))?;
            if !status.is_success() {
                return Err(self.refusal(status, &String::from_utf8_lossy(&body)));
            }
            return serde_json::from_slice(&body).map_err(|error| {
                CliError::Failed(format!(
                    "{} answered what this version cannot read: {error}; are both of one version?",
                    self.name
                ))
            });
        }
        Err(self.refusal(StatusCode::TOO_MANY_REQUESTS, ""))
    }

    /// No answer, or no whole one.
    pub fn broken(&self, error: &reqwest::Error) -> CliError {
        let mut reason = String::new();
        if error.is_timeout() && !error.is_connect() {
            reason = " in time".into();
        } else if !error.is_connect() {
            // The innermost cause says most.
            let mut cause: &dyn std::error::Error = error;
            while let Some(inner) = cause.source() {
                cause = inner;
            }
            reason = format!(" as it should ({cause})");
        }
        CliError::Unreachable { service: self.name, url: without_password(&self.url), setting: self.setting, reason }
    }

    fn refusal(&self, status: StatusCode, body: &str) -> CliError {
        let problem: Problem = serde_json::from_str(body).unwrap_or_default();
        let title = status.canonical_reason().unwrap_or("an unknown status").to_lowercase();
        let said = problem.detail.filter(|text| !text.is_empty()).or(problem.title);
        let mut detail = said.unwrap_or_else(|| match body.trim() {
            "" => title,
            text => text.chars().take(300).collect(),
        });
        if let Some(accepted) = problem.accepted {
            detail.push_str(&format!("; accepted before that: {accepted}"));
        }
        match status {
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
                CliError::NotReady { service: self.name, detail }
            }
            // A route that is not there at all is another service, another server, or another version.
            StatusCode::NOT_FOUND if problem.code.is_none() || detail.contains("no route") => {
                CliError::NotFound(format!("{detail}: {} is not {}; set {}", self.url, self.name, self.setting))
            }
            StatusCode::NOT_FOUND => CliError::NotFound(detail),
            _ => {
                let request = problem.request_id.map_or_else(String::new, |id| format!(", request {id}"));
                CliError::Refused { service: self.name, status: status.as_u16(), detail, request }
            }
        }
    }
}

fn retry_after(response: &Response) -> Option<Duration> {
    let seconds: f64 = response.headers().get("retry-after")?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs_f64(seconds.clamp(0.05, 10.0)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn service(url: &str) -> Result<Service, CliError> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        Service::new("query-api", url, "ML_URL", Some(TenantId::parse("acme").unwrap()))
    }

    #[test]
    fn addresses_are_checked_and_tenants_go_in_front() {
        for bad in ["", "localhost:9005", "ftp://x", "http://"] {
            assert_eq!(service(bad).unwrap_err().exit_code(), 2, "{bad}");
        }
        let request = service("http://h:1/base/").unwrap().get("/search").build().unwrap();
        assert_eq!(request.url().as_str(), "http://h:1/base/tenants/acme/search");
    }

    #[test]
    fn refusals_keep_the_services_words() {
        let service = service("http://h:1").unwrap();
        let error = service.refusal(
            StatusCode::BAD_REQUEST,
            r#"{"title":"Bad","detail":"limit is at most 1000","code":"invalid_input","request_id":"r1"}"#,
        );
        assert_eq!(error.exit_code(), 1);
        assert_eq!(error.to_string(), "query-api refused: limit is at most 1000 (HTTP 400, request r1)");
        let error =
            service.refusal(StatusCode::SERVICE_UNAVAILABLE, r#"{"detail":"index is filling","code":"unavailable"}"#);
        assert!(error.exit_code() == 3 && error.to_string().contains("index is filling"), "{error}");
        assert_eq!(
            service.refusal(StatusCode::NOT_FOUND, r#"{"detail":"no entity","code":"not_found"}"#).exit_code(),
            4
        );
        assert!(service.refusal(StatusCode::NOT_FOUND, "<html>").to_string().contains("ML_URL"));
        assert!(service.refusal(StatusCode::BAD_GATEWAY, "").to_string().contains("bad gateway"));
    }
}
