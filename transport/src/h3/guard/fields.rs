//! What makes a field section well-formed (RFC 9114 §4.2 and §4.3, RFC 9220 for extended CONNECT).

use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};

use super::message::{Asked, qpack_failed};
use super::{Reason, Refusal};
use crate::h3::codes;
use crate::h3::qpack::{self, QpackError};

/// What the guard needs to know of a checked head.
#[derive(Debug)]
pub(super) struct Head {
    /// A CONNECT, plain or extended: the stream is a tunnel from here on.
    pub(super) is_connect: bool,
    pub(super) content_length: Option<u64>,
    /// Of a response; 200 in a request.
    pub(super) status: StatusCode,
}

/// Checks the head of a request. What comes back beside it is the section as h3 is to read it, here and below.
pub(super) fn check_request(section: &[u8], bytes_max: usize) -> Result<(Head, Vec<u8>), Refusal> {
    let mut seen = Seen::default();
    let mut plain = decode(section, bytes_max, |name, value| {
        seen.field(name, value, Kind::Request)
    })?;
    let is_connect = seen.request_complete()?;
    if let Some(protocol) = &seen.protocol {
        plain = without_protocol(section, bytes_max, protocol)?;
    }
    let head = Head {
        is_connect,
        content_length: seen.content_length,
        status: StatusCode::OK,
    };
    Ok((head, plain))
}

/// Checks the head of a response. The fields are collected only for a CONNECT, whose answer h3 does not parse.
pub(super) fn check_response(
    section: &[u8],
    bytes_max: usize,
    asked: Asked,
) -> Result<(Head, HeaderMap, Vec<u8>), Refusal> {
    let mut seen = Seen::default();
    let mut fields = HeaderMap::new();
    let plain = decode(section, bytes_max, |name, value| {
        seen.field(name, value, Kind::Response)?;
        if asked == Asked::Connect && !name.starts_with(b":") {
            let name = HeaderName::from_lowercase(name).map_err(|_refused| bad_field())?;
            fields.append(
                name,
                HeaderValue::from_bytes(value).map_err(|_refused| bad_field())?,
            );
        }
        Ok(())
    })?;
    let status = seen.status.ok_or_else(bad_pseudo)?;
    let head = Head {
        is_connect: false,
        content_length: seen.content_length,
        status,
    };
    Ok((head, fields, plain))
}

/// Checks a trailer section.
pub(super) fn check_trailers(section: &[u8], bytes_max: usize) -> Result<Vec<u8>, Refusal> {
    let mut seen = Seen::default();
    decode(section, bytes_max, |name, value| {
        seen.field(name, value, Kind::Trailers)
    })
}

/// h3 knows two protocols only and refuses the head of any other extended CONNECT. It gets `:protocol` as the field
/// `upgrade` instead, which no peer can have sent: it is refused here as a connection field.
fn without_protocol(section: &[u8], bytes_max: usize, protocol: &[u8]) -> Result<Vec<u8>, Refusal> {
    let mut out = qpack::Section::new();
    decode(section, bytes_max, |name, value| {
        if name != b":protocol" {
            out.field(name, value);
        }
        Ok(())
    })?;
    out.field(b"upgrade", protocol);
    Ok(out.into_bytes())
}

fn decode(
    section: &[u8],
    bytes_max: usize,
    mut each: impl FnMut(&[u8], &[u8]) -> Result<(), Refusal>,
) -> Result<Vec<u8>, Refusal> {
    let mut count = 0;
    qpack::decode(section, bytes_max, |name, value| {
        count += 1;
        if count > FIELDS_MAX {
            return Err(too_large());
        }
        each(name, value)
    })
}

impl From<QpackError> for Refusal {
    fn from(error: QpackError) -> Self {
        match error {
            QpackError::Invalid => qpack_failed(),
            QpackError::TooLarge => too_large(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Request,
    Response,
    Trailers,
}

/// What of a section has passed so far.
#[derive(Debug, Default)]
struct Seen {
    regular: bool,
    method: Option<Method>,
    scheme: Option<Scheme>,
    path: Option<Path>,
    authority: Option<Vec<u8>>,
    protocol: Option<Vec<u8>>,
    status: Option<StatusCode>,
    host: Option<Vec<u8>>,
    content_length: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Connect,
    Options,
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Http,
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Path {
    Absolute,
    Asterisk,
    Other,
}

impl Seen {
    fn field(&mut self, name: &[u8], value: &[u8], kind: Kind) -> Result<(), Refusal> {
        if let Some(pseudo) = name.strip_prefix(b":") {
            let allowed = !self.regular && is_value(value);
            return match kind {
                Kind::Request if allowed => self.request_pseudo(pseudo, value),
                Kind::Response if allowed => self.response_pseudo(pseudo, value),
                _ => Err(bad_pseudo()),
            };
        }
        self.regular = true;
        if !is_name(name) || !is_value(value) {
            return Err(bad_field());
        }
        match name {
            b"connection" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding"
            | b"upgrade" => Err(Refusal::malformed(Reason::ConnectionField)),
            b"te" if !value.eq_ignore_ascii_case(b"trailers") => {
                Err(Refusal::malformed(Reason::ConnectionField))
            }
            b"host" if kind == Kind::Request => once(&mut self.host, value.to_vec()),
            b"content-length" if kind != Kind::Trailers => self.content_length(value),
            _ => Ok(()),
        }
    }

    fn request_pseudo(&mut self, name: &[u8], value: &[u8]) -> Result<(), Refusal> {
        match name {
            b"method" if is_token(value) => {
                let method = match value {
                    b"CONNECT" => Method::Connect,
                    b"OPTIONS" => Method::Options,
                    _ => Method::Other,
                };
                once(&mut self.method, method)
            }
            b"scheme" if is_scheme(value) => {
                let is_http =
                    value.eq_ignore_ascii_case(b"http") || value.eq_ignore_ascii_case(b"https");
                once(
                    &mut self.scheme,
                    if is_http { Scheme::Http } else { Scheme::Other },
                )
            }
            b"path" if is_target(value) => {
                let path = match value {
                    [b'/', ..] => Path::Absolute,
                    b"*" => Path::Asterisk,
                    _ => Path::Other,
                };
                once(&mut self.path, path)
            }
            b"authority" if is_authority(value) => once(&mut self.authority, value.to_vec()),
            b"protocol" if is_protocol(value) => once(&mut self.protocol, value.to_vec()),
            _ => Err(bad_pseudo()),
        }
    }

    fn response_pseudo(&mut self, name: &[u8], value: &[u8]) -> Result<(), Refusal> {
        if name != b"status" {
            return Err(bad_pseudo());
        }
        let status = StatusCode::from_bytes(value).map_err(|_refused| bad_pseudo())?;
        once(&mut self.status, status)
    }

    /// One number, given once: a list or a repetition could be read differently further on.
    fn content_length(&mut self, value: &[u8]) -> Result<(), Refusal> {
        let fault = Refusal::malformed(Reason::ContentLength);
        if value.is_empty() || self.content_length.is_some() {
            return Err(fault);
        }
        let length = value.iter().try_fold(0u64, |length, byte| {
            let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
            length.checked_mul(10)?.checked_add(digit)
        });
        self.content_length = Some(length.ok_or(fault)?);
        Ok(())
    }

    /// Whether what a request needs is there, and nothing that excludes it. Returns whether it is a CONNECT.
    fn request_complete(&self) -> Result<bool, Refusal> {
        let fault = Err(bad_pseudo());
        let Some(method) = self.method else {
            return fault;
        };
        if self.authority.is_some() && self.host.is_some() && self.authority != self.host {
            return fault;
        }
        if method == Method::Connect && self.protocol.is_none() {
            let alone = self.scheme.is_none() && self.path.is_none();
            return if alone && self.authority.is_some() {
                Ok(true)
            } else {
                fault
            };
        }
        let (Some(scheme), Some(path)) = (self.scheme, self.path) else {
            return fault;
        };
        let host_given = self.host.as_deref().is_some_and(is_authority);
        let named = self.authority.is_some() || host_given;
        let path_fits = match path {
            Path::Absolute => true,
            Path::Asterisk => method == Method::Options,
            Path::Other => scheme == Scheme::Other,
        };
        let is_extended = self.protocol.is_some();
        let extended_fits = !is_extended || (method == Method::Connect && self.authority.is_some());
        let authority_fits = scheme == Scheme::Other || named;
        if path_fits && extended_fits && authority_fits {
            Ok(is_extended)
        } else {
            fault
        }
    }
}

fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), Refusal> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(bad_pseudo()),
    }
}

/// RFC 9110 §5.1, without uppercase (RFC 9114 §4.2).
fn is_name(name: &[u8]) -> bool {
    is_token(name) && !name.iter().any(u8::is_ascii_uppercase)
}

/// RFC 9110 §5.5: no control characters but tab, and no blank at either end.
fn is_value(value: &[u8]) -> bool {
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let allowed = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f);
    !blank(value.first()) && !blank(value.last()) && value.iter().all(allowed)
}

/// RFC 9110 §5.6.2.
fn is_token(bytes: &[u8]) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !bytes.is_empty() && bytes.iter().all(allowed)
}

/// What HTTP/1.1 would say in `Upgrade` (RFC 9110 §7.8): a name and perhaps a version.
fn is_protocol(bytes: &[u8]) -> bool {
    let mut parts = bytes.split(|byte| *byte == b'/');
    parts.clone().count() <= 2 && parts.all(is_token)
}

/// RFC 3986 §3.1.
fn is_scheme(bytes: &[u8]) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
    bytes.first().is_some_and(u8::is_ascii_alphabetic) && bytes.iter().all(allowed)
}

/// A path and query: visible characters and no fragment.
fn is_target(bytes: &[u8]) -> bool {
    !bytes.is_empty()
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_graphic() && *byte != b'#')
}

/// A host and perhaps a port, never user information (RFC 9114 §4.3.1).
fn is_authority(bytes: &[u8]) -> bool {
    !bytes.is_empty()
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_graphic() && !b"@/?#\\".contains(byte))
}

fn bad_pseudo() -> Refusal {
    Refusal::malformed(Reason::PseudoHeader)
}

fn bad_field() -> Refusal {
    Refusal::malformed(Reason::Field)
}

fn too_large() -> Refusal {
    Refusal::stream(codes::EXCESSIVE_LOAD, Reason::HeaderBytes)
}

/// Fields in one section. `HeaderMap` panics past 32,768; no honest message comes near this.
const FIELDS_MAX: usize = 4096;
