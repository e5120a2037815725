//! `starling revoke` and `starling decommission`: throw a host, a service, an issuer or a key out of the mesh.

mod invitations;

use std::fmt::Write as _;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use clap::Args;
use starling_gossip::{DocumentKey, NodeName, ServiceName};
use starling_transport::{KeyHash, KeyHashError};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::operator_key::{self, Choices};
use super::sign::{Change, Sign};
use crate::admin::view;
use crate::ca::LIFETIMES;
use crate::mesh::unix_s;
use crate::random;

/// Throw a host, a service, an issuer or a key out of the mesh
///
/// Its connections end at once and new ones are refused, on every node that can be reached. Certificates that are issued later
/// are good, so a host that was set up anew can be invited again. Invitations from before are ended and listed, used ones too, at
/// every issuer that can be asked. `starling delete revocation/NAME` takes it back.
#[derive(Debug, Args)]
pub(super) struct Revoke {
    /// node/NODE (all that was issued to the host), svc/SERVICE, svc/SERVICE@NODE, issuer/NODE, or key/sha256:HEX
    #[arg(value_name = "WHAT")]
    target: Target,
    /// Why, for the people who read the document
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    choices: Choices,
    #[command(flatten)]
    sign: Sign,
}

/// Revoke all that was issued to a host that is gone for good
#[derive(Debug, Args)]
pub(super) struct Decommission {
    /// The host's node
    #[arg(value_name = "NODE", value_parser = str::parse::<NodeName>)]
    node: NodeName,
    /// Why, for the people who read the document
    #[arg(long, default_value = "decommissioned")]
    reason: String,
    #[command(flatten)]
    sign: Sign,
}

impl Revoke {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let Target::Key(key) = &self.target else {
            anyhow::ensure!(
                self.choices.is_empty(),
                "--keep, --drop and --adopt are for the key of an operator"
            );
            return revoke(&self.target, &self.reason, &self.sign);
        };
        let operators: Vec<view::Operator> = self.sign.ask("/v1/operators")?;
        match operators
            .iter()
            .find(|operator| operator.key == key.to_string())
        {
            Some(target) => {
                let (choices, reason) = (&self.choices, &self.reason);
                operator_key::revoke(key, target, &operators, choices, reason, &self.sign)
            }
            None => {
                anyhow::ensure!(
                    self.choices.is_empty(),
                    "no operator with this key has signed anything that is held here, so there is nothing to keep or drop"
                );
                operator_key::revoke_unknown(key, &self.reason, &self.sign)?;
                revoke(&self.target, &self.reason, &self.sign)
            }
        }
    }
}

impl Decommission {
    /// A host that still serves is more likely a slip of the pen than one that is gone.
    pub(super) fn run(self) -> anyhow::Result<()> {
        let nodes: Vec<view::Node> = self.sign.ask("/v1/nodes")?;
        let known = nodes.iter().find(|known| known.node == self.node.as_str());
        if known.is_some_and(|known| known.liveness == "alive" && known.state != "left") {
            anyhow::bail!(
                "{node} is alive; stop it for good with `starling leave` there, or throw it out with `starling revoke node/{node}`",
                node = self.node
            );
        }
        revoke(&Target::Node(self.node), &self.reason, &self.sign)
    }
}

fn revoke(target: &Target, reason: &str, sign: &Sign) -> anyhow::Result<()> {
    let status: view::Status = sign.ask("/v1/status")?;
    let now = SystemTime::now();
    let body = target.body(&status.trust_domain, reason, now)?;
    sign.make(vec![Change {
        key: free_name(target.document()?, sign, unix_s(now))?,
        body: Some(body),
    }])?;
    if sign.is_dry_run() {
        return Ok(());
    }
    invitations::end(target, sign, now)
}

/// The name of a revocation, or another one where its next number is ahead of the clock: nobody can keep a revocation waiting by
/// numbering its document up.
fn free_name(key: DocumentKey, sign: &Sign, now: u64) -> anyhow::Result<DocumentKey> {
    if sign.history(&key)?.document.revision < now {
        return Ok(key);
    }
    let bytes: [u8; 4] = random::bytes()?;
    let name: String = key.name.as_str().chars().take(NAME_MAX - 9).collect();
    let suffix: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{}/{}-{suffix}", key.kind, name.trim_end_matches('-')).parse()?)
}

/// Whom to throw out.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
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
    fn document(&self) -> anyhow::Result<DocumentKey> {
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

    fn body(&self, trust_domain: &str, reason: &str, now: SystemTime) -> anyhow::Result<String> {
        let mut body = String::from("[[revoked]]\n");
        let mut line = |key: &str, value: &str| {
            let _ = writeln!(body, "{key} = {}", quoted(value));
        };
        let identity = |service: &ServiceName| format!("spiffe://{trust_domain}/svc/{service}");
        match self {
            Self::Node(node) => line("host", node.as_str()),
            Self::Service(service) => line("identity", &identity(service)),
            Self::ServiceOn(service, node) => {
                line("identity", &identity(service));
                line("host", node.as_str());
            }
            Self::Issuer(node) => line("issuer", node.as_str()),
            Self::Key(key) => line("public_key", &key.to_string()),
        }
        line("reason", reason);
        if !matches!(self, Self::Key(_)) {
            let _ = writeln!(body, "issued_before = {}", moment(now)?);
        }
        let _ = writeln!(
            body,
            "not_after = {}",
            moment(now + *LIFETIMES.end() + CLOCKS_APART)?
        );
        Ok(body)
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
const NAME_MAX: usize = 63;

/// Added to the longest lifetime of a certificate: some clock may be behind.
const CLOCKS_APART: Duration = Duration::from_secs(24 * 60 * 60);

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::config::revocation;

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
                .body("example.org", "\"lost\"\nin a train", now)
                .unwrap();
            let entries = revocation::parse(Path::new("body"), &body).unwrap();
            assert_eq!(entries.len(), 1, "{body}");
            assert_eq!(entries[0].reason.as_deref(), Some("\"lost\"\nin a train"));
            assert!(entries[0].not_after.unwrap() > now + *LIFETIMES.end());
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
}
