//! Which requests over loopback are meant for us, and which some web page makes a browser send.

use std::net::IpAddr;

use http::header::{HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, Uri};

/// Keeps web pages out: their requests carry an `Origin`, say that they come from another site, or, after DNS rebinding,
/// have a name that is not ours as `Host`. Names of this host's own choosing cannot be told from those, so only addresses
/// and `localhost` count.
pub(super) fn is_meant_for(uri: &Uri, headers: &HeaderMap, reached: IpAddr) -> bool {
    let Some(host) = the_one(headers, HOST) else {
        return false;
    };
    let Ok(authority) = Authority::try_from(host) else {
        return false;
    };
    if uri.authority().is_some_and(|named| *named != authority) {
        return false;
    }
    is_ours(&authority, reached) && is_same_origin(headers, host) && is_same_site(headers)
}

fn is_ours(authority: &Authority, reached: IpAddr) -> bool {
    let name = authority.host();
    let bare = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'))
        .unwrap_or(name);
    name.eq_ignore_ascii_case("localhost")
        || bare
            .parse()
            .is_ok_and(|ip: IpAddr| ip.to_canonical() == reached)
}

fn is_same_origin(headers: &HeaderMap, host: &str) -> bool {
    !headers.contains_key(ORIGIN)
        || the_one(headers, ORIGIN).and_then(|origin| origin.strip_prefix("http://")) == Some(host)
}

/// Browsers say where a request comes from, also those of images and links, which have no `Origin`. `none` is an address
/// that the user entered. A page on another port of this host is `same-site`, and a stranger like any other.
fn is_same_site(headers: &HeaderMap) -> bool {
    !headers.contains_key(SEC_FETCH_SITE)
        || the_one(headers, SEC_FETCH_SITE)
            .is_some_and(|site| ["same-origin", "none"].contains(&site))
}

fn the_one(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    let (value, None) = (values.next()?, values.next()) else {
        return None;
    };
    value.to_str().ok()
}

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
