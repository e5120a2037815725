//! SPIFFE IDs as starling uses them: one of a node or of a service, in one trust domain.
//!
//! An identity is compared byte for byte. Nothing is normalised, so two spellings can never mean one identity.

use std::fmt;
use std::sync::Arc;

/// The name under which a mesh's identities stand, such as `example.org`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// Checks `name` against the SPIFFE ID specification §2.1: 1 to 255 bytes of `a-z 0-9 . - _`. We also ask that it can
    /// stand in a DNS name, as every SVID carries one, so `_` and empty or over-long labels are refused.
    pub fn parse(name: &str) -> Result<Self, IdentityError> {
        let labels_ok = name.split('.').all(is_label);
        if name.is_empty() || name.len() > TRUST_DOMAIN_BYTES_MAX || !labels_ok {
            return Err(IdentityError::TrustDomain);
        }
        Ok(Self(name.into()))
    }

    /// The name as written in certificates.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A SPIFFE ID: `spiffe://<trust-domain>/node/<node>` or `spiffe://<trust-domain>/svc/<service>`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    text: Arc<str>,
    trust_domain: TrustDomain,
    kind: Kind,
}

/// What an identity speaks for, with the name of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdentityKind<'a> {
    /// A host's agent.
    Node(&'a str),
    /// A service, wherever its instances run.
    Service(&'a str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Kind {
    Node,
    Service,
}

impl SpiffeId {
    /// Reads `text` strictly: no port, query, fragment, percent-encoding, upper case, empty segment or trailing slash.
    pub fn parse(text: &str) -> Result<Self, IdentityError> {
        if text.len() > SPIFFE_ID_BYTES_MAX {
            return Err(IdentityError::TooLong);
        }
        let rest = text
            .strip_prefix("spiffe://")
            .ok_or(IdentityError::Scheme)?;
        let (domain, path) = rest.split_once('/').ok_or(IdentityError::Path)?;
        let trust_domain = TrustDomain::parse(domain)?;
        match path.split_once('/') {
            Some(("node", name)) => Self::new(&trust_domain, Kind::Node, name),
            Some(("svc", name)) => Self::new(&trust_domain, Kind::Service, name),
            _ => Err(IdentityError::Path),
        }
    }

    /// The identity of node `name`.
    pub fn node(trust_domain: &TrustDomain, name: &str) -> Result<Self, IdentityError> {
        Self::new(trust_domain, Kind::Node, name)
    }

    /// The identity of service `name`.
    pub fn service(trust_domain: &TrustDomain, name: &str) -> Result<Self, IdentityError> {
        Self::new(trust_domain, Kind::Service, name)
    }

    /// The whole URI, as it stands in the certificate.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Which mesh vouches for it.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Node or service, and its name.
    pub fn kind(&self) -> IdentityKind<'_> {
        // The name holds no slash, so it starts behind the last one.
        let name = &self.text[self.text.rfind('/').map_or(0, |at| at + 1)..];
        match self.kind {
            Kind::Node => IdentityKind::Node(name),
            Kind::Service => IdentityKind::Service(name),
        }
    }

    /// The DNS name that its certificate carries beside the URI and that a caller sends as SNI:
    /// `<service>.svc.<trust-domain>` or `<node>.node.<trust-domain>`.
    pub fn dns_name(&self) -> String {
        match self.kind() {
            IdentityKind::Node(name) => format!("{name}.node.{}", self.trust_domain),
            IdentityKind::Service(name) => format!("{name}.svc.{}", self.trust_domain),
        }
    }

    /// The service's name, if it speaks for a service.
    pub fn service_name(&self) -> Option<&str> {
        match self.kind() {
            IdentityKind::Service(name) => Some(name),
            IdentityKind::Node(_) => None,
        }
    }

    /// The node's name, if it speaks for a node.
    pub fn node_name(&self) -> Option<&str> {
        match self.kind() {
            IdentityKind::Node(name) => Some(name),
            IdentityKind::Service(_) => None,
        }
    }

    fn new(trust_domain: &TrustDomain, kind: Kind, name: &str) -> Result<Self, IdentityError> {
        if !is_label(name) {
            return Err(IdentityError::Name);
        }
        let role = match kind {
            Kind::Node => "node",
            Kind::Service => "svc",
        };
        Ok(Self {
            text: format!("spiffe://{trust_domain}/{role}/{name}").into(),
            trust_domain: trust_domain.clone(),
            kind,
        })
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Why a text is no identity of ours. None of these quotes the text, which may come from a stranger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// Longer than the SPIFFE ID specification allows.
    #[error("longer than {SPIFFE_ID_BYTES_MAX} bytes")]
    TooLong,
    /// Another scheme, or none.
    #[error("does not start with `spiffe://`")]
    Scheme,
    /// Not a lower-case DNS name.
    #[error(
        "the trust domain is not a lower-case DNS name of at most {TRUST_DOMAIN_BYTES_MAX} bytes"
    )]
    TrustDomain,
    /// Neither `/node/<name>` nor `/svc/<name>`.
    #[error("the path is neither `/node/<name>` nor `/svc/<name>`")]
    Path,
    /// Not a DNS label.
    #[error("a name is 1 to 63 letters a-z, digits and inner dashes")]
    Name,
}

/// A DNS label in lower case (RFC 1035 §2.3.1 with the leading digit of RFC 1123 §2.1).
fn is_label(label: &str) -> bool {
    let bytes = label.as_bytes();
    let inner = bytes
        .iter()
        .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    inner && (1..=63).contains(&bytes.len()) && bytes[0] != b'-' && bytes[bytes.len() - 1] != b'-'
}

/// SPIFFE ID specification §2.3.
const SPIFFE_ID_BYTES_MAX: usize = 2048;

/// A DNS name has at most 253 characters (RFC 1035 §2.3.4), of which `<63>.node.` takes 69.
const TRUST_DOMAIN_BYTES_MAX: usize = 184;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn good_identities_say_what_they_are() {
        let id = SpiffeId::parse("spiffe://example.org/svc/orders").unwrap();
        assert_eq!(id.kind(), IdentityKind::Service("orders"));
        assert_eq!(id.dns_name(), "orders.svc.example.org");
        let id = SpiffeId::parse("spiffe://example.org/node/n-1").unwrap();
        assert_eq!(id.kind(), IdentityKind::Node("n-1"));
        assert_eq!(id.dns_name(), "n-1.node.example.org");
    }

    #[test]
    fn other_spellings_are_refused() {
        for (text, error) in [
            ("", IdentityError::Scheme),
            ("SPIFFE://example.org/svc/a", IdentityError::Scheme),
            ("https://example.org/svc/a", IdentityError::Scheme),
            ("spiffe://example.org", IdentityError::Path),
            ("spiffe://example.org/", IdentityError::Path),
            ("spiffe://example.org/svc", IdentityError::Path),
            ("spiffe://example.org/pod/a", IdentityError::Path),
            ("spiffe://example.org//svc/a", IdentityError::Path),
            ("spiffe://example.org/svc/", IdentityError::Name),
            ("spiffe://example.org/svc/a/", IdentityError::Name),
            ("spiffe://example.org/svc/a/b", IdentityError::Name),
            ("spiffe://example.org/svc/A", IdentityError::Name),
            ("spiffe://example.org/svc/%61", IdentityError::Name),
            ("spiffe://example.org/svc/a?x", IdentityError::Name),
            ("spiffe://example.org/svc/a\0", IdentityError::Name),
            ("spiffe://example.org/svc/-a", IdentityError::Name),
            ("spiffe:///svc/a", IdentityError::TrustDomain),
            ("spiffe://Example.org/svc/a", IdentityError::TrustDomain),
            ("spiffe://example.org:80/svc/a", IdentityError::TrustDomain),
            ("spiffe://me@example.org/svc/a", IdentityError::TrustDomain),
            ("spiffe://example..org/svc/a", IdentityError::TrustDomain),
        ] {
            assert_eq!(SpiffeId::parse(text), Err(error), "{text}");
        }
        assert_eq!(
            SpiffeId::parse(&format!("spiffe://a/svc/{}", "a".repeat(3000))),
            Err(IdentityError::TooLong)
        );
    }

    proptest! {
        #[test]
        fn what_parses_is_written_the_same(text in "(spiffe://)?[a-z.A-Z/:%-]{0,80}") {
            if let Ok(id) = SpiffeId::parse(&text) {
                prop_assert_eq!(id.as_str(), text);
            }
        }
    }
}
