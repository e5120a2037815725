//! `hosts` of a service and of an upstream: which authorities its requests may name.

use std::sync::Arc;

use http::uri::Authority;
use toml::Spanned;

use super::check::Checker;
use super::keys::shown;

/// The authorities that requests may name (RFC 9110 §7.2). Without a list, any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts(Option<Arc<[Authority]>>);

impl Hosts {
    pub(super) fn check(
        raw: Option<&Spanned<Vec<Spanned<String>>>>,
        checker: &mut Checker<'_>,
    ) -> Self {
        let Some(raw) = raw else {
            return Self::default();
        };
        let names = raw.get_ref();
        if names.is_empty() || names.len() > HOSTS_MAX {
            let what = format!("`hosts` has {} entries", names.len());
            let hint = format!("list 1 to {HOSTS_MAX}, or leave `hosts` out to take any");
            checker.problem(raw.span(), what, &hint);
        }
        let hosts = names.iter().filter_map(|name| host(name, checker));
        Self(Some(hosts.collect()))
    }

    /// Whether a request may name `authority`. An entry without a port stands for the host with any port.
    pub fn admit(&self, authority: &Authority) -> bool {
        let Some(hosts) = &self.0 else {
            return true;
        };
        hosts.iter().any(|host| match host.port() {
            Some(_) => host == authority,
            None => host.host().eq_ignore_ascii_case(authority.host()),
        })
    }

    #[cfg(test)]
    pub(crate) fn listed(hosts: &[&'static str]) -> Self {
        let hosts = hosts.iter().map(|host| Authority::from_static(host));
        Self(Some(hosts.collect()))
    }

    /// Whether there is a list.
    pub fn is_declared(&self) -> bool {
        self.0.is_some()
    }
}

fn host(name: &Spanned<String>, checker: &mut Checker<'_>) -> Option<Authority> {
    let text = name.get_ref();
    let authority = Authority::try_from(text.as_str()).ok().filter(|authority| {
        // What is no port is none to `http`.
        let is_port = authority.port().is_some() || authority.as_str() == authority.host();
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
        let is_short = text.len() <= HOST_BYTES_MAX;
        !authority.host().is_empty() && is_port && is_short && text.bytes().all(is_plain)
    });
    if authority.is_none() {
        let what = format!("`{}` in `hosts` is no host", shown(text));
        let hint = "a name or an address, with a port or without, as in \"orders\" or \"127.0.0.1:9001\"; there is no wildcard";
        checker.problem(name.span(), what, hint);
    }
    authority
}

/// Looked through for each request.
const HOSTS_MAX: usize = 64;

/// A DNS name has 253 bytes at most, and a port five more with its colon.
const HOST_BYTES_MAX: usize = 259;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_names_another_host_is_not_admitted() {
        let hosts = Hosts::listed(&["shop.example", "127.0.0.1:9001", "[::1]:9001"]);
        let check = |authority: &'static str, expected| {
            assert_eq!(
                hosts.admit(&Authority::from_static(authority)),
                expected,
                "{authority}"
            );
        };
        for good in [
            "shop.example",
            "SHOP.example",
            "shop.example:81",
            "127.0.0.1:9001",
            "[::1]:9001",
        ] {
            check(good, true);
        }
        for bad in [
            "admin.example",
            "shop.example.evil.example",
            "shop.example.",
            "xshop.example",
            "127.0.0.1",
            "127.0.0.1:9002",
            "localhost:9001",
            "[::1]",
        ] {
            check(bad, false);
        }
        assert!(Hosts::default().admit(&Authority::from_static("any.example")));
    }
}
