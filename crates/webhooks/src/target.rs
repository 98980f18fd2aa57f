//! Where deliveries may go. Names are resolved when a connection is made and checked there, so that a name cannot stand for
//! one address when it is checked and for another when it is called.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

use crate::WebhookError;

/// Longer ones are nobody's.
const LONGEST: usize = 2048;

/// Reads an address; refuses what deliveries may not go to.
pub(crate) fn check(text: &str, allow_private: bool) -> Result<Url, WebhookError> {
    let bad = |why: String| WebhookError::Url(why);
    if text.len() > LONGEST {
        return Err(bad(format!("it has {} bytes, at most {LONGEST} are taken", text.len())));
    }
    let url = Url::parse(text).map_err(|error| bad(format!("{error}: {text:?}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad(format!("scheme {:?}; http and https are allowed", url.scheme())));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(bad("it holds a user or a password, which everybody who lists webhooks would see".into()));
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
        true => Err(bad(format!("{} is no public address, and ML_WEBHOOK_ALLOW_PRIVATE forbids others", shown(&url)))),
        false => Ok(url),
    }
}

fn shown(url: &Url) -> &str {
    url.host_str().unwrap_or_default()
}

/// Whether an address is of the public internet, and of no machine or network of one's own.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => match embedded(address) {
            Some(inner) => is_public_v4(inner),
            None => is_public_v6(address),
        },
    }
}

/// The IPv4 address that some forms of IPv6 lead to.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let parts = address.segments();
    let of = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match parts {
        // Mapped, and NAT64.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(of(high, low)),
        // 6to4.
        [0x2002, high, low, ..] => Some(of(high, low)),
        _ => None,
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let reserved = match (a, b, c) {
        // This network, carrier-grade NAT, protocol assignments, benchmarks, the future.
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
    // Global unicast, but for protocol assignments (Teredo too) and documentation.
    match address.segments() {
        [0x2001, second, ..] => second >= 0x200 && second != 0xdb8,
        [0x3fff, second, ..] => second >= 0x1000,
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

/// Resolves names to their public addresses alone.
pub(crate) struct PublicOnly;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let public: Vec<SocketAddr> = found.filter(|address| is_public(address.ip())).collect();
            if public.is_empty() {
                return Err(format!(
                    "{} has no public address, and ML_WEBHOOK_ALLOW_PRIVATE forbids others",
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
    fn addresses_of_ones_own_are_told_from_public_ones() {
        for public in ["93.184.216.34", "1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "64:ff9b::101:101"] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for own in [
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
            assert!(!is_public(own.parse().unwrap()), "{own}");
        }
    }

    #[test]
    fn hostile_addresses_are_refused() {
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
            &format!("https://example.com/{}", "x".repeat(LONGEST)),
        ] {
            assert!(matches!(check(bad, true), Err(WebhookError::Url(_))), "{bad}");
        }
        // However they are spelled.
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
    async fn a_name_that_stands_for_this_machine_is_not_resolved() {
        let resolved = PublicOnly.resolve("localhost".parse().unwrap()).await;
        assert!(resolved.is_err());
    }
}
