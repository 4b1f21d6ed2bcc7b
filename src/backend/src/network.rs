//! Services that storages reach over a network, by what their addresses say.

use std::net::IpAddr;

/// Whether `HOST` or `HOST:PORT` is the loopback of this host: what is sent there does not leave it, needs no encryption,
/// and cannot be passed on by a proxy. No name is resolved: of names it is `localhost` alone.
pub fn is_loopback(authority: &str) -> bool {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => host,
        _ => authority,
    };
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let address = address.parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_is_told_from_names_that_look_like_it() {
        for authority in [
            "localhost",
            "LocalHost:5000",
            "127.0.0.1",
            "127.1.2.3:80",
            "[::1]",
            "[::1]:5000",
        ] {
            assert!(is_loopback(authority), "{authority}");
        }
        for authority in [
            "",
            ":80",
            "localhost.example",
            "127.0.0.1.example:80",
            "127.0.0.1@store.example",
            "10.0.0.1:9000",
            "169.254.169.254",
            "[::2]:1",
            "[2001:db8::1]",
            "0.0.0.0",
        ] {
            assert!(!is_loopback(authority), "{authority}");
        }
    }
}
