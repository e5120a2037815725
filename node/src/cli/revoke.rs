//! `starling revoke` and `starling decommission`: throw a host, a service, an issuer or a key out of the mesh.

mod invitations;
mod lines;
mod target;

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use starling_gossip::documents::system::KeyStatement;
use starling_gossip::{DocumentKey, NodeName};
use starling_transport::{DATED_BACK, LineName, SpiffeId};

use self::target::{NAME_MAX, Target};
use super::operator_key::{self, Choices};
use super::sign::{Change, Sign};
use super::{chain, out, pause};
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
    /// Of a key: it is an operator's, though no document that is held here says so
    #[arg(long, conflicts_with = "certificate")]
    operator: bool,
    #[command(flatten)]
    choices: Choices,
    #[command(flatten)]
    sign: Sign,
}

/// Revoke all that was issued to a host that is gone for good
///
/// Certificates that it signed, if it was an issuer, stay good, as they would if it had only stopped.
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
            anyhow::ensure!(
                self.certificate.is_none() && !self.operator,
                "--certificate and --operator are for keys"
            );
            return throw_out(&self.target, !self.not_issuer, &self.reason, &self.sign);
        };
        let operators: Vec<view::Operator> = self.sign.ask("/v1/operators")?;
        let known = operators
            .iter()
            .find(|operator| operator.key == key.to_string());
        if let Some(target) = known {
            let (choices, reason) = (&self.choices, &self.reason);
            return operator_key::revoke(key, target, &operators, choices, reason, &self.sign);
        }
        let by_root = KeyStatement {
            key: key.bytes(),
            reason: String::new(),
        };
        let by_root = self.sign.history(&by_root.document(None))?;
        if chain::newest(&by_root).is_some_and(|newest| !newest.deleted) {
            return Ok(out::say(
                "The root has revoked this operator's key already; nothing that is signed with it counts.",
            )?);
        }
        anyhow::ensure!(
            self.choices.is_empty(),
            "no operator with this key has signed anything that is held here, so there is nothing to keep or drop"
        );
        if self.operator {
            return operator_key::revoke_unknown(key, &self.reason, &self.sign);
        }
        let line = match &self.certificate {
            Some(file) => lines::of_file(file, key)?,
            None => lines::of_key(key, &self.sign),
        };
        if line.is_none() {
            operator_key::revoke_unknown(key, &self.reason, &self.sign)?;
        }
        let is_known = line.is_some();
        revoke(&self.target, Also::line(line), &self.reason, &self.sign)?;
        anyhow::ensure!(is_known || self.sign.is_dry_run(), lines::UNKNOWN);
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
        let node = self.node.clone();
        let target = Target::Node(self.node);
        throw_out(&target, false, &self.reason, &self.sign)?;
        if lines::of(&target, true, &self.sign).is_ok_and(|known| known.is_issuer) {
            out::complain(&format!(
                "{node} was an issuer. What it signed stays good; if its key may be in other hands: `starling revoke issuer/{node}`"
            ));
        }
        Ok(())
    }
}

/// What a document revokes besides its target.
#[derive(Debug, Clone, Default)]
struct Also {
    /// Of a node: all that the issuer on it signed.
    is_issuer: bool,
    /// When the youngest line of the target began, in seconds since 1970, as far as that is known.
    youngest: Option<u64>,
    /// Of a key: the line of its certificate, and whose it is.
    line: Option<(LineName, SpiffeId)>,
}

impl Also {
    fn line(line: Option<(LineName, SpiffeId)>) -> Self {
        Self {
            line,
            ..Self::default()
        }
    }
}

/// Revokes what is no key. With an issuer go the certificates that it signed: its key was on that host.
fn throw_out(target: &Target, with_issuer: bool, reason: &str, sign: &Sign) -> anyhow::Result<()> {
    let known = lines::of(target, with_issuer, sign);
    // What cannot be asked must not keep the host in.
    let (known, error) = match known {
        Ok(known) => (known, None),
        Err(error) => (view::LineAnswer::default(), Some(error)),
    };
    let goes_with_it = known.is_issuer && with_issuer;
    if goes_with_it {
        out::say(&lines::thrown_out(&known, target.node()))?;
    }
    let also = Also {
        is_issuer: goes_with_it && matches!(target, Target::Node(_)),
        youngest: known.youngest,
        line: None,
    };
    revoke(target, also, reason, sign)?;
    match (error, target) {
        (Some(error), Target::Node(node)) if with_issuer => Err(error.context(format!(
            "{node} is revoked. Whether it is an issuer could not be asked; if it is: `starling revoke issuer/{node}`"
        ))),
        _ => Ok(()),
    }
}

fn revoke(target: &Target, also: Also, reason: &str, sign: &Sign) -> anyhow::Result<()> {
    let status: view::Status = sign.ask("/v1/status")?;
    let now = SystemTime::now();
    let issued_before = issued_before(now, also.youngest)?;
    let body = target.body(&status.trust_domain, also, reason, issued_before, now)?;
    sign.make(vec![Change {
        key: free_name(target.document()?, sign, unix_s(now))?,
        body: Some(body),
        signer: None,
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

/// Certificates count in whole seconds, so what began in the second of a revocation must count as before it; and so must what
/// began by a clock that is ahead of this one.
fn issued_before(now: SystemTime, youngest: Option<u64>) -> anyhow::Result<SystemTime> {
    let next = unix_s(now) + 1;
    let latest = unix_s(now + DATED_BACK);
    let after = youngest.map_or(0, |youngest| youngest.saturating_add(1));
    anyhow::ensure!(
        after <= latest,
        "a certificate of it was made more than {} from now by this host's clock, so it would not be revoked: put the clock right \
         here, or run this on another host",
        humantime::format_duration(DATED_BACK)
    );
    Ok(UNIX_EPOCH + Duration::from_secs(next.max(after)))
}

/// The name of a revocation, or another one where its next number is ahead of the clock: nobody can keep a revocation waiting by
/// numbering its document up.
fn free_name(key: DocumentKey, sign: &Sign, now: u64) -> anyhow::Result<DocumentKey> {
    if sign.history(&key)?.newest < now {
        return Ok(key);
    }
    let bytes: [u8; 4] = random::bytes()?;
    let name: String = key.name.as_str().chars().take(NAME_MAX - 9).collect();
    let suffix: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{}/{}-{suffix}", key.kind, name.trim_end_matches('-')).parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_was_invited_by_a_clock_ahead_of_ours_is_revoked_all_the_same() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let before = |youngest| issued_before(at(1000), youngest).ok();
        assert_eq!(before(None), Some(at(1001)));
        assert_eq!(before(Some(900)), Some(at(1001)));
        assert_eq!(before(Some(1200)), Some(at(1201)));
        assert_eq!(before(Some(1299)), Some(at(1300)));
        // The mesh would refuse such a document, and one that is earlier would not reach the host.
        assert_eq!(before(Some(1300)), None);
        assert_eq!(before(Some(u64::MAX)), None);
    }
}
