//! Whom a request believes it talks to.
//!
//! A page in a browser on this host can make its own name mean 127.0.0.1, and then read what is
//! served there. Its requests carry that name, which is how they are told apart.

use std::net::IpAddr;

use axum::http::header::HOST;
use axum::http::{HeaderMap, Uri, Version};

/// Whether a request to a loopback address is meant for it. Only HTTP/1.0 may leave the name out:
/// probes do, browsers never.
pub(super) fn is_loopback(version: Version, uri: &Uri, headers: &HeaderMap) -> bool {
    if uri.host().is_some_and(|host| !names_loopback(host)) {
        return false;
    }
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) => version == Version::HTTP_10,
        (Some(host), None) => host
            .to_str()
            .is_ok_and(|host| names_loopback(name_of(host))),
        (Some(_), Some(_)) => false,
    }
}

/// `Host` without its port. Another port is no harm: a tunnel ends where it likes.
fn name_of(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

fn names_loopback(name: &str) -> bool {
    let bare = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'));
    match bare.unwrap_or(name).parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => name.eq_ignore_ascii_case("localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_taken(version: Version, uri: &'static str, hosts: &[&'static str]) -> bool {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, host.parse().unwrap());
        }
        is_loopback(version, &Uri::from_static(uri), &headers)
    }

    #[test]
    fn names_of_this_host_are_taken_with_any_port() {
        for host in [
            "localhost",
            "LOCALHOST:9644",
            "127.0.0.1",
            "127.8.9.10:1",
            "[::1]",
            "[::1]:80",
            "[::ffff:127.0.0.1]:80",
        ] {
            assert!(is_taken(Version::HTTP_11, "/metrics", &[host]), "{host}");
        }
        assert!(is_taken(Version::HTTP_10, "/metrics", &[]));
        assert!(is_taken(
            Version::HTTP_11,
            "http://localhost:1/",
            &["localhost"]
        ));
    }

    #[test]
    fn foreign_missing_and_doubled_names_are_not() {
        for host in [
            "",
            "example.org",
            "localhost.example.org",
            "127.0.0.1.example.org",
            "10.0.0.1",
            "[::2]",
            "localhost:x",
            "local\thost",
        ] {
            assert!(!is_taken(Version::HTTP_11, "/metrics", &[host]), "{host:?}");
        }
        assert!(!is_taken(Version::HTTP_11, "/metrics", &[]));
        assert!(!is_taken(
            Version::HTTP_11,
            "/",
            &["localhost", "localhost"]
        ));
        assert!(!is_taken(
            Version::HTTP_11,
            "http://example.org/",
            &["localhost"]
        ));
    }
}
