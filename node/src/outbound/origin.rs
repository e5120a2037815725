//! Which requests at an upstream come from programs of this host, and which some web page makes a browser send.

use http::header::ORIGIN;
use http::request::Parts;
use http::uri::Authority;

use crate::admin::is_same_site;
use crate::config::Hosts;

/// Whether a request whose authority is in its URI is one that `hosts` lets in. Without a list, any is. With one, a page can
/// reach the upstream neither by a name of its own (DNS rebinding) nor by the address: browsers say where a request comes from
/// (`Origin`, RFC 6454 §7, and `Sec-Fetch-Site`).
pub(super) fn is_let_in(hosts: &Hosts, head: &Parts) -> bool {
    if !hosts.is_declared() {
        return true;
    }
    let is_listed = head.uri.authority().is_some_and(|named| hosts.admit(named));
    let mut origins = head.headers.get_all(ORIGIN).iter();
    is_listed
        && origins.all(|origin| is_listed_origin(hosts, origin.as_bytes()))
        && is_same_site(&head.headers)
}

fn is_listed_origin(hosts: &Hosts, origin: &[u8]) -> bool {
    let named = origin.strip_prefix(b"http://");
    let named = named.and_then(|named| Authority::try_from(named).ok());
    named.is_some_and(|named| hosts.admit(&named))
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    /// Whether an upstream for this host's programs takes it.
    fn is_taken(authority: &str, fields: &[(&str, &str)]) -> bool {
        let hosts = Hosts::listed(&["127.0.0.1:9001", "localhost:9001", "orders"]);
        let mut request = Request::get(format!("https://{authority}/"));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        assert!(
            is_let_in(&Hosts::default(), &head),
            "without a list, any is let in"
        );
        is_let_in(&hosts, &head)
    }

    #[test]
    fn a_program_of_this_host_is_let_in() {
        for host in ["127.0.0.1:9001", "localhost:9001", "orders", "orders:9001"] {
            assert!(is_taken(host, &[]), "{host}");
        }
        // An address that the user entered, and a page that the service itself gave.
        assert!(is_taken("127.0.0.1:9001", &[("sec-fetch-site", "none")]));
        let own = [
            ("origin", "http://localhost:9001"),
            ("sec-fetch-site", "same-origin"),
        ];
        assert!(is_taken("localhost:9001", &own));
    }

    #[test]
    fn a_web_page_calls_nothing_in_the_name_of_a_service() {
        let own = "127.0.0.1:9001";
        let strangers: &[(&str, &[(&str, &str)])] = &[
            // DNS rebinding: the page's own name leads here.
            ("evil.example:9001", &[]),
            ("evil.example:9001", &[("sec-fetch-site", "same-origin")]),
            // fetch with no-cors, an image, a form, a WebSocket.
            (
                own,
                &[
                    ("sec-fetch-site", "cross-site"),
                    ("sec-fetch-mode", "no-cors"),
                ],
            ),
            (own, &[("sec-fetch-site", "same-site")]),
            (
                own,
                &[("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")],
            ),
            (own, &[("origin", "https://evil.example")]),
            (own, &[("origin", "http://127.0.0.1:8000")]),
            (own, &[("origin", "null")]),
            (
                own,
                &[
                    ("origin", "http://localhost:9001"),
                    ("origin", "http://evil.example"),
                ],
            ),
        ];
        for (authority, fields) in strangers {
            assert!(!is_taken(authority, fields), "{authority} {fields:?}");
        }
    }
}
