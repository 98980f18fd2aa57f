//! The check of the addresses that deliveries may go to. A host name is resolved when the connection is made, and its
//! addresses are checked there: a name cannot resolve to one address for the check and to another for the connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

use crate::WebhookError;

/// Maximum length of a URL.
const MAX_URL_BYTES: usize = 2048;

/// Parses a URL, and rejects one that deliveries must not go to.
pub(crate) fn check(text: &str, allow_private: bool) -> Result<Url, WebhookError> {
    let bad = |reason: String| WebhookError::Url(reason);
    if text.len() > MAX_URL_BYTES {
        return Err(bad(format!("it has {} bytes, at most {MAX_URL_BYTES} are allowed", text.len())));
    }
    let url = Url::parse(text).map_err(|error| bad(format!("{error}: {text:?}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad(format!("scheme {:?}; http and https are allowed", url.scheme())));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(bad("it holds a user or a password, which is visible to everybody who lists webhooks".into()));
    }
    let private = match url.host() {
        None => return Err(bad("it has no host".into())),
        Some(Host::Ipv4(address)) => !is_public(address.into()),
        Some(Host::Ipv6(address)) => !is_public(address.into()),
        Some(Host::Domain(name)) => {
            let name = name.trim_end_matches('.');
            name == "localhost" || name.ends_with(".localhost")
        }
    };
    match private && !allow_private {
        true => Err(bad(format!(
            "{} is not a public address, and ML_WEBHOOK_ALLOW_PRIVATE does not allow others",
            url.host_str().unwrap_or_default()
        ))),
        false => Ok(url),
    }
}

/// True for an address of the public internet; false for loopback, private, link-local and reserved addresses.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => match embedded(address) {
            Some(inner) => is_public_v4(inner),
            None => is_public_v6(address),
        },
    }
}

/// The IPv4 address that an IPv6 address embeds: IPv4-mapped, NAT64 or 6to4.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let parts = address.segments();
    let of = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match parts {
        // IPv4-mapped, and NAT64.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(of(high, low)),
        // 6to4.
        [0x2002, high, low, ..] => Some(of(high, low)),
        _ => None,
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let reserved = match (a, b, c) {
        // "This network" and reserved for future use; carrier-grade NAT; protocol assignments; benchmarks.
        (0 | 240..=255, ..) | (100, 64..=127, _) | (192, 0, 0) | (198, 18 | 19, _) => true,
        _ => false,
    };
    !(reserved
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation())
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    // Global unicast, except protocol assignments (including Teredo) and documentation.
    match address.segments() {
        [0x2001, second, ..] => second >= 0x200 && second != 0xdb8,
        [0x3fff, second, ..] => second >= 0x1000,
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

/// A DNS resolver that returns only the public addresses of a name.
pub(crate) struct PublicOnly;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let public: Vec<SocketAddr> = found.filter(|address| is_public(address.ip())).collect();
            if public.is_empty() {
                return Err(format!(
                    "{} has no public address, and ML_WEBHOOK_ALLOW_PRIVATE does not allow others",
                    name.as_str()
                )
                .into());
            }
            Ok(Box::new(public.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_public() {
        for public in ["93.184.216.34", "1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "64:ff9b::101:101"] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for private in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "0.0.0.0",
            "100.64.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "192.0.0.8",
            "198.18.0.1",
            "203.0.113.1",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "ff02::1",
            "2001:db8::1",
            "2001::1",
            "::ffff:127.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "2002:7f00:1::",
            "::7f00:1",
        ] {
            assert!(!is_public(private.parse().unwrap()), "{private}");
        }
    }

    #[test]
    fn invalid_and_private_urls_are_rejected() {
        for bad in [
            "",
            " ",
            "nonsense",
            "ftp://example.com/x",
            "file:///etc/passwd",
            "http://",
            "javascript:alert(1)",
            "http://user:password@example.com/",
            "http://me@example.com/",
            "http://exa mple.com/",
            "gopher://example.com",
            &format!("https://example.com/{}", "x".repeat(MAX_URL_BYTES)),
        ] {
            assert!(matches!(check(bad, true), Err(WebhookError::Url(_))), "{bad}");
        }
        // Private addresses in all spellings.
        for private in [
            "http://127.0.0.1:8080/x",
            "http://127.1/",
            "http://0x7f.1/",
            "http://2130706433/",
            "http://0177.0.0.1/",
            "http://[::1]/",
            "http://[::ffff:10.0.0.1]/",
            "http://localhost/",
            "http://LOCALHOST./",
            "http://a.localhost/",
            "http://169.254.169.254/latest/meta-data",
            "https://10.0.0.1/",
        ] {
            assert!(check(private, false).is_err(), "{private}");
            assert!(check(private, true).is_ok(), "{private}");
        }
        for good in ["https://example.com/hook?token=x", "http://93.184.216.34/h", "https://[2606:4700::1111]:8443/"] {
            assert!(check(good, false).is_ok(), "{good}");
        }
    }

    #[tokio::test]
    async fn a_name_with_only_private_addresses_does_not_resolve() {
        let resolved = PublicOnly.resolve("localhost".parse().unwrap()).await;
        assert!(resolved.is_err());
    }
}
