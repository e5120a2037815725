//! Which requests are meant for us, and which some web page makes a browser send.

use std::net::IpAddr;

use http::header::{HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, Uri};

/// Keeps web pages out: their requests carry an `Origin`, say that they come from another site, or, after DNS rebinding,
/// have a name that is not ours as `Host`. Names of this host's own choosing cannot be told from those, so only addresses
/// and `localhost` count.
pub(super) fn is_meant_for(uri: &Uri, headers: &HeaderMap, reached: IpAddr) -> bool {
    let is_local = |host: &Authority| host.host().eq_ignore_ascii_case("localhost");
    is_for(uri, headers, "http", |host| {
        is_local(host) || is_address(host, reached)
    })
}

/// The same for what is reached by `scheme`, where `is_ours` knows this host's names.
pub(super) fn is_for(
    uri: &Uri,
    headers: &HeaderMap,
    scheme: &str,
    is_ours: impl Fn(&Authority) -> bool,
) -> bool {
    let Some(host) = the_one(headers, HOST) else {
        return false;
    };
    let Ok(authority) = Authority::try_from(host) else {
        return false;
    };
    if uri.authority().is_some_and(|named| *named != authority) {
        return false;
    }
    is_ours(&authority) && is_same_origin(headers, scheme, host) && is_same_site(headers)
}

/// Whether it names the address that was reached.
pub(super) fn is_address(authority: &Authority, reached: IpAddr) -> bool {
    let name = authority.host();
    let bare = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'))
        .unwrap_or(name);
    bare.parse()
        .is_ok_and(|ip: IpAddr| ip.to_canonical() == reached)
}

fn is_same_origin(headers: &HeaderMap, scheme: &str, host: &str) -> bool {
    let named = || {
        let origin = the_one(headers, ORIGIN)?.strip_prefix(scheme)?;
        origin.strip_prefix("://")
    };
    !headers.contains_key(ORIGIN) || named() == Some(host)
}

/// Browsers say where a request comes from, also those of images and links, which have no `Origin`. `none` is an address
/// that the user entered. A page on another port of this host is `same-site`, and a stranger like any other.
pub(crate) fn is_same_site(headers: &HeaderMap) -> bool {
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
