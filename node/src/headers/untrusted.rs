//! Fields that some servers take for the word of a proxy in front of them: another path, or who the user is. No caller may say
//! so, unless a service trusts all its callers with one.

use http::{HeaderMap, HeaderName};

use super::{begins, is_alias};

/// Whether servers read a field of this name as a proxy's word.
pub fn is_untrusted(name: &HeaderName) -> bool {
    is_alias(name, &NAMES) || PREFIXES.iter().any(|prefix| begins(name, prefix))
}

/// Removes such fields but for those of these lower-case names, to the letter: an alias of one is another field.
pub fn remove_untrusted(headers: &mut HeaderMap, trusted: &[HeaderName]) {
    let found = headers.keys();
    let found = found.filter(|name| is_untrusted(name) && !trusted.contains(name));
    for name in found.cloned().collect::<Vec<_>>() {
        headers.remove(name);
    }
}

/// Paths and files: Symfony, IIS, Zend and nginx. Users and their certificates: Apache, nginx, WSGI.
const NAMES: [&str; 7] = [
    "x-original-uri",
    "x-original-url",
    "x-rewrite-url",
    "x-accel-redirect",
    "x-client-cert",
    "remote-user",
    "x-remote-user",
];

/// Of nginx and Apache, and of oauth2-proxy.
const PREFIXES: [&str; 3] = ["ssl-client-", "x-ssl-client-", "x-auth-request-"];

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_caller_does_not_say_what_only_a_proxy_knows() {
        let kept = |name: &'static str, trusted: &[&'static str]| {
            let trusted: Vec<_> = trusted
                .iter()
                .map(|name| HeaderName::from_static(name))
                .collect();
            let mut headers = HeaderMap::new();
            headers.insert(
                HeaderName::from_static(name),
                HeaderValue::from_static("admin"),
            );
            remove_untrusted(&mut headers, &trusted);
            !headers.is_empty()
        };
        for name in NAMES.into_iter().chain([
            "ssl-client-verify",
            "ssl-client-s-dn",
            "ssl_client_s_dn",
            "x-ssl-client-cert",
            "x-auth-request-user",
            "x-auth-request-groups",
            "x_auth_request_email",
            "remote_user",
            "x_remote_user",
            "x-remote.user",
        ]) {
            assert!(!kept(name, &[]), "{name}");
        }
        for name in [
            "forwarded",
            "x-forwarded-for",
            "x-forwarded-user",
            "x-real-ip",
            "remote-users",
        ] {
            assert!(kept(name, &[]), "{name}");
        }
        assert!(kept("x-remote-user", &["x-remote-user"]));
        assert!(!kept("x_remote_user", &["x-remote-user"]));
        assert!(!kept("remote-user", &["x-remote-user"]));
    }
}
