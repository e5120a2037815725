//! `starling revoke` and `starling decommission`: throw a host, a service, an issuer or a key out of the mesh.

mod invitations;
mod lines;
mod target;

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use starling_gossip::{DocumentKey, NodeName};
use starling_transport::LineName;

use self::target::{NAME_MAX, Target};
use super::operator_key::{self, Choices};
use super::sign::{Change, Sign};
use super::{out, pause};
use crate::admin::view;
use crate::mesh::unix_s;
use crate::random;

/// Throw a host, a service, an issuer or a key out of the mesh
///
/// Its connections end at once and new ones are refused, on every node that can be reached, also those of certificates that it
/// renews later. A host that was set up anew can be invited again. Invitations from before are ended and listed, used ones too, at
/// every issuer that can be asked. `starling delete revocation/NAME` takes it back.
#[derive(Debug, Args)]
pub(super) struct Revoke {
    /// node/NODE (all that was issued to the host), svc/SERVICE, svc/SERVICE@NODE, issuer/NODE, or key/sha256:HEX
    #[arg(value_name = "WHAT")]
    target: Target,
    /// Why, for the people who read the document
    #[arg(long)]
    reason: String,
    /// Of a node that is an issuer: leave certificates that it signed good
    #[arg(long)]
    not_issuer: bool,
    /// Of a key: a file with the certificate, PEM, if no issuer knows it any more
    #[arg(long, value_name = "FILE")]
    certificate: Option<PathBuf>,
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
    /// If it was an issuer: leave certificates that it signed good
    #[arg(long)]
    not_issuer: bool,
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
            anyhow::ensure!(
                self.certificate.is_none(),
                "--certificate is for the key of a certificate"
            );
            return throw_out(&self.target, self.not_issuer, &self.reason, &self.sign);
        };
        let operators: Vec<view::Operator> = self.sign.ask("/v1/operators")?;
        let known = operators
            .iter()
            .find(|operator| operator.key == key.to_string());
        if let Some(target) = known {
            let (choices, reason) = (&self.choices, &self.reason);
            return operator_key::revoke(key, target, &operators, choices, reason, &self.sign);
        }
        anyhow::ensure!(
            self.choices.is_empty(),
            "no operator with this key has signed anything that is held here, so there is nothing to keep or drop"
        );
        let line = match &self.certificate {
            Some(file) => lines::of_file(file, key)?,
            None => lines::of_key(key, &self.sign),
        };
        if line.is_none() {
            operator_key::revoke_unknown(key, &self.reason, &self.sign)?;
        }
        revoke(&self.target, Also::line(line), &self.reason, &self.sign)?;
        anyhow::ensure!(line.is_some() || self.sign.is_dry_run(), lines::UNKNOWN);
        Ok(())
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
        throw_out(
            &Target::Node(self.node),
            self.not_issuer,
            &self.reason,
            &self.sign,
        )
    }
}

/// What a document revokes besides its target.
#[derive(Debug, Clone, Copy, Default)]
struct Also {
    /// Of a node: all that the issuer on it signed.
    is_issuer: bool,
    /// Of a key: the line of its certificate.
    line: Option<LineName>,
}

impl Also {
    fn line(line: Option<LineName>) -> Self {
        Self {
            line,
            ..Self::default()
        }
    }
}

/// Revokes what is no key. With an issuer go the certificates that it signed: its key was on that host.
fn throw_out(target: &Target, not_issuer: bool, reason: &str, sign: &Sign) -> anyhow::Result<()> {
    let issuer = match target {
        Target::Issuer(node) => Some(node),
        Target::Node(node) if !not_issuer => Some(node),
        _ => None,
    };
    let known = issuer.map(|node| lines::of_issuer(node, sign));
    // What cannot be asked must not keep the host in.
    let (signed, error) = match known.transpose() {
        Ok(signed) => (signed, None),
        Err(error) => (None, Some(error)),
    };
    let signed = signed.filter(|signed| signed.is_issuer);
    let is_issuer = signed.is_some() && matches!(target, Target::Node(_));
    if let Some(signed) = &signed {
        out::say(&lines::thrown_out(signed, target.node()))?;
    }
    let also = Also {
        is_issuer,
        line: None,
    };
    revoke(target, also, reason, sign)?;
    match error {
        Some(error) if matches!(target, Target::Node(_)) => {
            let node = target.node().map(NodeName::as_str).unwrap_or_default();
            Err(error.context(format!(
                "{node} is revoked. Whether it is an issuer could not be asked; if it is: `starling revoke issuer/{node}`"
            )))
        }
        _ => Ok(()),
    }
}

fn revoke(target: &Target, also: Also, reason: &str, sign: &Sign) -> anyhow::Result<()> {
    let status: view::Status = sign.ask("/v1/status")?;
    let now = SystemTime::now();
    let issued_before = next_second(now);
    let body = target.body(&status.trust_domain, also, reason, issued_before, now)?;
    sign.make(vec![Change {
        key: free_name(target.document()?, sign, unix_s(now))?,
        body: Some(body),
    }])?;
    if sign.is_dry_run() {
        return Ok(());
    }
    invitations::end(target, sign, issued_before)?;
    // From here on what is issued is good.
    let left = issued_before.duration_since(SystemTime::now());
    pause(left.unwrap_or_default().min(Duration::from_secs(1)))?;
    Ok(())
}

/// Certificates count in whole seconds, so what began in the second of a revocation must count as before it.
fn next_second(now: SystemTime) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(unix_s(now) + 1)
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
