//! Which header fields cross the agent, and which it sets itself.
//!
//! Rules, the same at both ends, so that a peer that is not an agent gains nothing:
//! - Fields of one hop end here (RFC 9110 §7.6.1), those named by `Connection` included. `Connection` cannot name away
//!   what the mesh or message framing relies on.
//! - Fields that claim an identity never pass from an app or a peer: `starling-*`, `x-starling-*`, `x-forwarded-client-cert`,
//!   `client-cert` and `client-cert-chain` (RFC 9440). Aliases that CGI-like servers would read as the same name
//!   (`starling_caller`, `Starling.Caller`) count as the same. The callee's app gets `starling-caller` from its own agent.
//! - What servers take for the word of a proxy (`untrusted`) does not pass to the app, unless its service says so.
//! - `forwarded` and `x-forwarded-*` pass untouched, as does `via`: they tell of addresses, not of mesh identities, and
//!   an app that is an edge proxy needs them to reach the apps behind it. The mesh adds none.
//! - `upgrade` ends here too, but one that the mesh carries (`crate::upgrade`) is put back for the next hop.
//! - `starling-hops` is one exception: it only ever counts up, and stops requests that go round in circles. `starling-mirror` is
//!   the other: the caller's agent marks a copy, and the callee's writes `x-starling-mirror` for its app.

mod untrusted;

use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, HOST, SEC_WEBSOCKET_KEY, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::request;
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};

use crate::reason::{self, Reason};
use crate::telemetry::trace;

pub use untrusted::{is_untrusted, remove_untrusted};

/// Who called: the caller's SPIFFE ID, set by the callee's agent for its app.
pub const CALLER: HeaderName = HeaderName::from_static("starling-caller");
/// The callee's agent to the caller's: `no` where another try would only add to the load of what is failing.
pub const RETRY: HeaderName = HeaderName::from_static("starling-retry");
/// The caller's agent to the callee's: nobody waits for the answer to this request, as it is a copy.
pub const MIRROR: HeaderName = HeaderName::from_static("starling-mirror");
/// The same for the app, so that it need not send the mail or charge the card.
const MIRROR_FOR_APP: HeaderName = HeaderName::from_static("x-starling-mirror");
/// How many times a request went through a caller's agent.
pub const HOPS: HeaderName = HeaderName::from_static("starling-hops");

/// Caller's agent: turns an app's request into one for the mesh, with its authority in the URI and nowhere else. The field
/// `upgrade` is left only if the request asks for an upgrade that the mesh carries.
/// `service` stands in for the host that HTTP/1.0 may leave out.
pub fn request_from_app(head: &mut request::Parts, service: &str) -> Result<(), Reason> {
    if head.method == Method::CONNECT {
        return Err(Reason::NotSupported);
    }
    if !is_framed_once(head) {
        return Err(Reason::BadRequest);
    }
    let authority = match authority(head)? {
        Some(authority) => authority,
        None if head.version <= Version::HTTP_10 => parse_authority(service.as_bytes())?,
        None => return Err(Reason::BadRequest),
    };
    let hops = hops(&head.headers) + 1;
    if hops > HOPS_MAX {
        return Err(Reason::Loop);
    }
    let upgrade = upgrade(head);
    clean_request(&mut head.headers, hops);
    if let Some(protocol) = upgrade {
        head.headers.insert(UPGRADE, protocol);
    }
    set_uri(head, Some((Scheme::HTTPS, authority)))?;
    encode_path(head)
}

/// Callee's agent: turns a peer's request into one for the app, and tells the app who called. `caller` is the
/// identity that the peer's certificate proved. The field `upgrade` stays: peers cannot send it but by asking for one.
pub fn request_from_peer(head: &mut request::Parts, caller: &str) -> Result<(), Reason> {
    let authority = authority(head)?.ok_or(Reason::BadRequest)?;
    let hops = hops(&head.headers).min(HOPS_MAX);
    let upgrade = head.headers.remove(UPGRADE);
    let is_copy = head.headers.contains_key(MIRROR);
    clean_request(&mut head.headers, hops);
    if is_copy {
        let mark = HeaderValue::from_static("1");
        head.headers.insert(MIRROR_FOR_APP, mark);
    }
    if let Some(protocol) = upgrade {
        head.headers.insert(UPGRADE, protocol);
    }
    set_uri(head, Some((Scheme::HTTP, authority)))?;
    let caller = HeaderValue::from_str(caller).map_err(|_invalid| Reason::Internal)?;
    head.headers.insert(CALLER, caller);
    Ok(())
}

/// Callee's agent: the form HTTP/1.1 wants of a request cleaned by [`request_from_peer`]: `Host`, a bare path,
/// one `cookie` field, and `te` or `upgrade` announced as a field of this hop.
pub fn into_http1(head: &mut request::Parts) -> Result<(), Reason> {
    let authority = head.uri.authority().ok_or(Reason::BadRequest)?;
    let host = HeaderValue::from_str(authority.as_str()).map_err(|_invalid| Reason::BadRequest)?;
    head.headers.insert(HOST, host);
    if let Some(protocol) = head.headers.get(UPGRADE) {
        let is_websocket = protocol.as_bytes().eq_ignore_ascii_case(b"websocket");
        if is_websocket && !head.headers.contains_key(SEC_WEBSOCKET_KEY) {
            head.headers.insert(SEC_WEBSOCKET_KEY, websocket_key());
        }
        head.headers.remove(TE);
        head.headers
            .insert(CONNECTION, HeaderValue::from_static("upgrade"));
    } else if head.headers.contains_key(TE) {
        head.headers
            .insert(CONNECTION, HeaderValue::from_static("te"));
    }
    join_cookies(&mut head.headers)?;
    head.version = Version::HTTP_11;
    set_uri(head, None)
}

/// Callee's agent: what of an app's response may enter the mesh.
pub fn response_from_app(headers: &mut HeaderMap) {
    remove_hop(headers);
    remove_claims(headers);
}

/// Caller's agent: what of a peer's response may reach the app. Returns the reason if the peer says that its mesh end,
/// not the app, failed the call.
pub fn response_from_peer(headers: &mut HeaderMap) -> Option<Reason> {
    let failed = headers
        .get(reason::HEADER)
        .and_then(|name| Reason::parse(name.as_bytes()));
    response_from_app(headers);
    if let Some(reason) = failed {
        headers.insert(reason::HEADER, HeaderValue::from_static(reason.as_str()));
    }
    failed
}

/// Either agent: what of trailers may pass. They can neither frame a message nor claim an identity.
pub fn trailers(headers: &mut HeaderMap) {
    remove_hop(headers);
    remove_claims(headers);
    remove_untrusted(headers, &[]);
    headers.remove(CONTENT_LENGTH);
    headers.remove(HOST);
}

/// The one host a request is for: canonical, or nothing if it names none.
fn authority(head: &request::Parts) -> Result<Option<Authority>, Reason> {
    let mut hosts = head.headers.get_all(HOST).iter();
    let (host, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return Err(Reason::BadRequest);
    }
    let host = host
        .map(|host| parse_authority(host.as_bytes()))
        .transpose()?;
    let Some(named) = head.uri.authority() else {
        return Ok(host);
    };
    let named = parse_authority(named.as_str().as_bytes())?;
    // HTTP/1 says that an absolute URI beats `Host`; the later versions call a difference malformed.
    if head.version >= Version::HTTP_2 && host.is_some_and(|host| host != named) {
        return Err(Reason::BadRequest);
    }
    Ok(Some(named))
}

/// Lower-case host and optional port, without user information.
fn parse_authority(text: &[u8]) -> Result<Authority, Reason> {
    let authority = Authority::try_from(text).map_err(|_invalid| Reason::BadRequest)?;
    if authority.host().is_empty() || authority.as_str().contains('@') {
        return Err(Reason::BadRequest);
    }
    if !authority
        .as_str()
        .bytes()
        .any(|byte| byte.is_ascii_uppercase())
    {
        return Ok(authority);
    }
    let lower = authority.as_str().to_ascii_lowercase();
    Authority::try_from(lower).map_err(|_invalid| Reason::BadRequest)
}

fn set_uri(head: &mut request::Parts, origin: Option<(Scheme, Authority)>) -> Result<(), Reason> {
    let mut parts = std::mem::take(&mut head.uri).into_parts();
    (parts.scheme, parts.authority) = origin.unzip();
    parts
        .path_and_query
        .get_or_insert_with(|| PathAndQuery::from_static("/"));
    head.uri = Uri::from_parts(parts).map_err(|_invalid| Reason::BadRequest)?;
    Ok(())
}

/// A URI is ASCII. Apps send other text raw, which servers of HTTP/1 mostly take, and which no peer has to.
fn encode_path(head: &mut request::Parts) -> Result<(), Reason> {
    let path = head.uri.path_and_query().map(PathAndQuery::as_str);
    let Some(path) = path.filter(|path| !path.is_ascii()) else {
        return Ok(());
    };
    let mut encoded = String::with_capacity(2 * path.len());
    for byte in path.bytes() {
        match byte.is_ascii() {
            true => encoded.push(char::from(byte)),
            false => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    let mut parts = std::mem::take(&mut head.uri).into_parts();
    let encoded = PathAndQuery::try_from(encoded).map_err(|_invalid| Reason::BadRequest)?;
    parts.path_and_query = Some(encoded);
    head.uri = Uri::from_parts(parts).map_err(|_invalid| Reason::BadRequest)?;
    Ok(())
}

/// Whether there is one way to tell where the body ends: a length, or chunks and nothing else. The mesh could pass on
/// what it read by either, but a request that says both was made to be read in two ways.
fn is_framed_once(head: &request::Parts) -> bool {
    let mut codings = head.headers.get_all(TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else {
        return true;
    };
    codings.next().is_none()
        && coding.as_bytes().eq_ignore_ascii_case(b"chunked")
        && head.version == Version::HTTP_11
        && !head.headers.contains_key(CONTENT_LENGTH)
}

/// What came after a request that is in doubt is in doubt as well: the answer ends a connection of HTTP/1.
pub fn end_if_in_doubt(reason: Reason, version: Version, answer: &mut HeaderMap) {
    let is_doubtful = matches!(reason, Reason::BadRequest | Reason::NotSupported);
    if is_doubtful && version < Version::HTTP_2 {
        answer.insert(CONNECTION, HeaderValue::from_static("close"));
    }
}

fn clean_request(headers: &mut HeaderMap, hops: u8) {
    let wants_trailers = wants_trailers(headers);
    // Whoever framed by chunks framed by nothing else: a length beside it is what smuggling is made of.
    if headers.contains_key(TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
    }
    remove_hop(headers);
    remove_claims(headers);
    headers.remove(HOST);
    headers.remove("http2-settings");
    // CGI programs would read it as the variable `HTTP_PROXY`.
    headers.remove("proxy");
    if wants_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if hops > 0 {
        headers.insert(HOPS, HeaderValue::from(u16::from(hops)));
    }
}

/// Removes the fields of one hop and those that `Connection` names.
fn remove_hop(headers: &mut HeaderMap) {
    let named: Vec<_> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .filter(|name| !is_kept(name))
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in [CONNECTION, TE, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
    headers.remove("keep-alive");
    headers.remove("proxy-connection");
}

/// What `Connection` cannot name away: message framing, who is asked, who asks, and the trace.
fn is_kept(name: &HeaderName) -> bool {
    [HOST, CONTENT_LENGTH, trace::TRACEPARENT, trace::TRACESTATE].contains(name) || is_claim(name)
}

fn remove_claims(headers: &mut HeaderMap) {
    let claims: Vec<_> = headers
        .keys()
        .filter(|name| is_claim(name))
        .cloned()
        .collect();
    for name in claims {
        headers.remove(name);
    }
}

/// Removes the fields of these lower-case names, and those that a server may read as one of them.
pub(crate) fn remove_aliases(headers: &mut HeaderMap, names: &[&str]) {
    let found = headers.keys().filter(|name| is_alias(name, names));
    for name in found.cloned().collect::<Vec<_>>() {
        headers.remove(name);
    }
}

/// Whether a field, or one that a server may read as the same name, claims what only an agent may say.
pub fn is_claim(name: &HeaderName) -> bool {
    begins(name, "starling-") || begins(name, "x-starling-") || is_alias(name, &CLAIMS)
}

fn is_alias(name: &HeaderName, of: &[&str]) -> bool {
    of.iter()
        .any(|one| name.as_str().len() == one.len() && begins(name, one))
}

/// CGI-like servers make one name of all that differ only in what is neither letter nor digit.
fn begins(name: &HeaderName, with: &str) -> bool {
    let plain = |byte: u8| {
        if byte.is_ascii_alphanumeric() {
            byte
        } else {
            b'-'
        }
    };
    name.as_str().len() >= with.len()
        && name
            .as_str()
            .bytes()
            .map(plain)
            .zip(with.bytes())
            .all(|(a, b)| a == b)
}

/// The one protocol that a request of an app wants its connection to become. RFC 9110 §7.8 lets anyone ignore the wish,
/// and so do we where it could not be kept: with a body or another method than GET, which an extended CONNECT cannot say;
/// and for other versions of HTTP and TLS, in which requests would pass that nobody judges.
fn upgrade(head: &request::Parts) -> Option<HeaderValue> {
    let headers = &head.headers;
    let is_bare = !headers.contains_key(TRANSFER_ENCODING)
        && headers
            .get_all(CONTENT_LENGTH)
            .iter()
            .all(|length| length.as_bytes() == b"0");
    if head.method != Method::GET || head.version != Version::HTTP_11 || !is_bare {
        return None;
    }
    let mut named = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    if !named.any(|name| name.trim_ascii().eq_ignore_ascii_case(b"upgrade")) {
        return None;
    }
    let mut protocols = headers.get_all(UPGRADE).iter();
    let protocol = protocols.next().filter(|_| protocols.next().is_none())?;
    let is_token = |word: &[u8]| {
        let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
        !word.is_empty() && word.iter().all(allowed)
    };
    let words: Vec<_> = protocol
        .as_bytes()
        .splitn(2, |byte| *byte == b'/')
        .collect();
    let name = words[0].to_ascii_lowercase();
    let is_carried = !matches!(&*name, b"http" | b"h2" | b"h2c" | b"tls");
    (is_carried && words.into_iter().all(is_token)).then(|| protocol.clone())
}

/// What HTTP/1.1 wants of a WebSocket handshake and RFC 9220 leaves out: 16 random bytes in base64. It guards against
/// nothing here; apps echo a hash of it.
fn websocket_key() -> HeaderValue {
    let mut key: Vec<u8> = (0..21).map(|_| fastrand::alphanumeric() as u8).collect();
    // The last digit stands for two bits.
    key.extend_from_slice(b"A==");
    HeaderValue::from_bytes(&key).expect("base64 fits a field")
}

fn wants_trailers(headers: &HeaderMap) -> bool {
    let values = headers
        .get_all(TE)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    values
        .into_iter()
        .any(|value| value.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

/// Passages so far; what is no number counts as none, for only those that copy fields need to be stopped.
fn hops(headers: &HeaderMap) -> u8 {
    let values = headers
        .get_all(HOPS)
        .iter()
        .filter_map(|value| value.to_str().ok());
    values
        .filter_map(|value| value.parse().ok())
        .max()
        .map_or(0, |hops: u8| hops.min(u8::MAX - 1))
}

/// HTTP/2 and HTTP/3 may split `cookie` into many fields; HTTP/1.1 knows one.
fn join_cookies(headers: &mut HeaderMap) -> Result<(), Reason> {
    let crumbs: Vec<_> = headers
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if crumbs.len() > 1 {
        let joined = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]))
            .map_err(|_invalid| Reason::BadRequest)?;
        headers.insert(COOKIE, joined);
    }
    Ok(())
}

/// Passages through the mesh after which a request is taken to go round in circles. Apps that call on behalf of a
/// request make a new one and start from zero; only proxies that copy every field count up.
const HOPS_MAX: u8 = 16;

/// Fields besides `starling-*` and `x-starling-*` that claim an identity.
const CLAIMS: [&str; 3] = [
    "x-forwarded-client-cert",
    "client-cert",
    "client-cert-chain",
];

#[cfg(test)]
mod tests;
