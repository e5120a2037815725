//! What can be revoked, and the document that does it.

use std::str::FromStr;
use std::time::{Duration, SystemTime};

use starling_gossip::{DocumentKey, NodeName, ServiceName};
use starling_transport::{KeyHash, KeyHashError};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Also;
use crate::ca::LIFETIMES;

/// Whom to throw out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    Node(NodeName),
    Service(ServiceName),
    ServiceOn(ServiceName, NodeName),
    Issuer(NodeName),
    Key(KeyHash),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let said = |error: &dyn std::fmt::Display| error.to_string();
        let node = |name: &str| NodeName::parse(name).map_err(|error| said(&error));
        let service = |name: &str| ServiceName::parse(name).map_err(|error| said(&error));
        match text.split_once('/') {
            Some(("node", name)) => node(name).map(Self::Node),
            Some(("issuer", name)) => node(name).map(Self::Issuer),
            Some(("key", hash)) => hash
                .parse()
                .map(Self::Key)
                .map_err(|error: KeyHashError| said(&error)),
            Some(("svc", name)) => match name.split_once('@') {
                Some((name, on)) => Ok(Self::ServiceOn(service(name)?, node(on)?)),
                None => service(name).map(Self::Service),
            },
            _ => Err(
                "as in node/n3, svc/orders, svc/orders@n3, issuer/n1 or key/sha256:…".to_owned(),
            ),
        }
    }
}

impl Target {
    /// One document for each target, so that revoking twice is one thing, and so is taking it back.
    pub(super) fn document(&self) -> anyhow::Result<DocumentKey> {
        let name = match self {
            Self::Node(node) => format!("node-{node}"),
            Self::Service(service) => format!("svc-{service}"),
            Self::ServiceOn(service, node) => format!("svc-{service}-on-{node}"),
            Self::Issuer(node) => format!("issuer-{node}"),
            Self::Key(key) => format!("key-{}", &key.to_string()["sha256:".len()..][..16]),
        };
        let name = match name.len() {
            ..=NAME_MAX => name,
            // Two long names that begin alike stay two.
            _ => {
                let hash = KeyHash::of(name.as_bytes()).to_string();
                let begin = name[..NAME_MAX - 17].trim_end_matches('-');
                format!("{begin}-{}", &hash["sha256:".len()..][..16])
            }
        };
        Ok(format!("revocation/{name}").parse()?)
    }

    /// The node that it names as a whole.
    pub(super) fn node(&self) -> Option<&NodeName> {
        match self {
            Self::Node(node) | Self::Issuer(node) => Some(node),
            Self::Service(_) | Self::ServiceOn(..) | Self::Key(_) => None,
        }
    }

    /// The host and the service whose certificates it revokes by name.
    pub(super) fn host_and_service(&self) -> (Option<String>, Option<String>) {
        match self {
            Self::Node(node) => (Some(node.to_string()), None),
            Self::Service(service) => (None, Some(service.to_string())),
            Self::ServiceOn(service, node) => (Some(node.to_string()), Some(service.to_string())),
            Self::Issuer(_) | Self::Key(_) => (None, None),
        }
    }

    /// The text of the document, signed at `now`.
    pub(super) fn body(
        &self,
        trust_domain: &str,
        also: Also,
        reason: &str,
        issued_before: SystemTime,
        now: SystemTime,
    ) -> anyhow::Result<String> {
        let identity = |service: &ServiceName| {
            let id = format!("spiffe://{trust_domain}/svc/{service}");
            format!("identity = {}\n", quoted(&id))
        };
        let host = |node: &NodeName| format!("host = {}\n", quoted(node.as_str()));
        let issuer = |node: &NodeName| format!("issuer = {}\n", quoted(node.as_str()));
        let mut tables = match self {
            Self::Node(node) => vec![host(node)],
            Self::Service(service) => vec![identity(service)],
            Self::ServiceOn(service, node) => vec![identity(service) + &host(node)],
            Self::Issuer(node) => vec![issuer(node)],
            Self::Key(key) => vec![format!("public_key = {}\n", quoted(&key.to_string()))],
        };
        if let (Self::Node(node), true) = (self, also.is_issuer) {
            tables.push(issuer(node));
        }
        let last = match self {
            Self::Key(_) => {
                let end = moment(now + *LIFETIMES.end() + CLOCKS_APART)?;
                format!("not_after = {end}\n")
            }
            _ => format!("issued_before = {}\n", moment(issued_before)?),
        };
        let reason = format!("reason = {}\n", quoted(reason));
        let tables = tables
            .into_iter()
            .map(|table| format!("[[revoked]]\n{table}{reason}{last}"));
        let line = also.line.map(|(line, id)| {
            let (line, id) = (quoted(&line.to_string()), quoted(id.as_str()));
            format!("[[revoked]]\nline = {line}\nidentity = {id}\n{reason}")
        });
        Ok(tables.chain(line).collect::<Vec<_>>().join("\n"))
    }
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    let escaped = text.chars().map(|character| match character {
        '"' | '\\' => format!("\\{character}"),
        _ if character.is_control() => format!("\\u{:04X}", u32::from(character)),
        _ => character.to_string(),
    });
    format!("\"{}\"", escaped.collect::<String>())
}

fn moment(time: SystemTime) -> anyhow::Result<String> {
    let time = OffsetDateTime::from(time).replace_nanosecond(0)?;
    Ok(time.format(&Rfc3339)?)
}

/// Characters in the name of a document.
pub(super) const NAME_MAX: usize = 63;

/// Added to the longest lifetime of a certificate: some clock may be behind.
const CLOCKS_APART: Duration = Duration::from_secs(24 * 60 * 60);

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::UNIX_EPOCH;

    use starling_transport::{LineName, Revoked, SpiffeId};

    use super::*;
    use crate::config::revocation;
    use crate::revocation::What;

    const KEY: &str = "key/sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn every_target_is_a_document_that_reads_back() {
        let now = UNIX_EPOCH + Duration::from_secs(1_772_366_400);
        let cases = [
            ("node/n3", "revocation/node-n3"),
            ("svc/orders", "revocation/svc-orders"),
            ("svc/orders@n3", "revocation/svc-orders-on-n3"),
            ("issuer/n1", "revocation/issuer-n1"),
            (KEY, "revocation/key-0123456789abcdef"),
        ];
        for (text, document) in cases {
            let target: Target = text.parse().unwrap();
            assert_eq!(target.document().unwrap().to_string(), document);
            let body = target
                .body(
                    "example.org",
                    Also::default(),
                    "\"lost\"\nin a train",
                    now,
                    now,
                )
                .unwrap();
            let entries = revocation::parse(Path::new("body"), &body).unwrap();
            assert_eq!(entries.len(), 1, "{body}");
            assert_eq!(entries[0].reason.as_deref(), Some("\"lost\"\nin a train"));
            match &entries[0].what {
                What::Key(_, end) => assert!(end.unwrap() > now + *LIFETIMES.end()),
                What::Certificates(_, before) => assert_eq!(*before, now),
                What::Line(line, _) => panic!("{line}"),
            }
        }
    }

    #[test]
    fn long_names_stay_apart() {
        let (service, node) = ("s".repeat(63), "n".repeat(62));
        let document = |text: String| text.parse::<Target>().unwrap().document().unwrap();
        let one = document(format!("svc/{service}@{node}1"));
        let other = document(format!("svc/{service}@{node}2"));
        assert_ne!(one, other);
    }

    #[test]
    fn what_is_no_target_is_refused() {
        for text in [
            "n3",
            "node/",
            "node/a b",
            "svc/orders@",
            "key/sha256:00",
            "pod/x",
        ] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_goes_with_a_target_stands_in_its_document() {
        let now = UNIX_EPOCH + Duration::from_secs(1_772_366_400);
        let whats = |text: &str, also| {
            let target: Target = text.parse().unwrap();
            let body = target.body("example.org", also, "lost", now, now).unwrap();
            let entries = revocation::parse(Path::new("body"), &body).unwrap();
            entries
                .into_iter()
                .map(|entry| entry.what)
                .collect::<Vec<_>>()
        };
        let issuer = Also {
            is_issuer: true,
            ..Also::default()
        };
        let of = |what| What::Certificates(what, now);
        assert_eq!(
            whats("node/n3", issuer),
            [
                of(Revoked::Host("n3".into())),
                of(Revoked::Issuer("n3".into()))
            ]
        );
        let id = SpiffeId::parse("spiffe://example.org/node/n3").unwrap();
        let line = (LineName([5; 16]), id);
        let entries = whats(KEY, Also::line(Some(line.clone())));
        assert!(matches!(entries[0], What::Key(..)));
        assert_eq!(entries[1..], [What::Line(line.0, line.1)]);
    }
}
