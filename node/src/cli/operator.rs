//! `starling operator`: who may sign documents.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use starling_gossip::documents::RIGHTS;
use starling_gossip::{DocumentKind, OperatorName};

use super::{ca, out, root_revocation};
use crate::ca::RootKey;
use crate::config::STATE;
use crate::operator::key_hash;
use crate::pass::TAP;

/// Make and revoke operators: those who may sign documents for the mesh
#[derive(Debug, Args)]
pub(super) struct Operator {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    New(New),
    Revoke(root_revocation::Revoke),
    Restore(root_revocation::Restore),
}

/// Make an operator's key, and have the root vouch for it
///
/// Run it where the root's key is, which may be a host that is no part of the mesh. Nobody else learns the key.
#[derive(Debug, Args)]
struct New {
    /// Name of the operator, which every node shows beside the documents
    #[arg(long, value_name = "NAME", value_parser = OperatorName::parse)]
    name: OperatorName,
    /// Kinds of documents that the operator may sign, such as policy,revocation,route; and what the operator may let others
    /// look at: tap for calls, see for dashboards
    #[arg(long, value_name = "KIND,…", value_delimiter = ',', required = true, value_parser = DocumentKind::parse)]
    kinds: Vec<DocumentKind>,
    /// How long the operator may sign; what was signed stays in force
    #[arg(long, value_name = "TIME", default_value = "365d", value_parser = humantime::parse_duration)]
    lifetime: Duration,
    /// Who may revoke the operator's key: operators of a smaller rank, and nobody else but the root
    /// [default: one behind the operator made last]
    #[arg(long, value_name = "NUMBER")]
    rank: Option<u32>,
    /// File to write, readable by you alone
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// State directory that holds ca/root.key and ca/root.pem
    #[arg(long, value_name = "DIR", default_value = STATE)]
    state: PathBuf,
}

impl Operator {
    pub(super) fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::New(new) => new.run(),
            Command::Revoke(revoke) => revoke.run(),
            Command::Restore(restore) => restore.run(),
        }
    }
}

impl New {
    fn run(self) -> anyhow::Result<()> {
        let state = ca::root_state(&self.state)?;
        let root = RootKey::load(&state)?;
        let kinds: BTreeSet<_> = self.kinds.into_iter().collect();
        let rank = match self.rank {
            Some(rank) => rank,
            None => RootKey::next_rank(&state)?,
        };
        let operator = crate::operator::Operator::make(|public_key| -> anyhow::Result<_> {
            Ok(root.grant(
                self.name.clone(),
                public_key,
                kinds.clone(),
                rank,
                self.lifetime,
            )?)
        })?;
        operator.write(&self.out)?;
        RootKey::keep_rank(&state, rank)?;
        let file = self.out.display();
        out::say(&format!(
            "{} may {} in mesh {} for {}, with rank {rank}: operators of a smaller rank may revoke the key.\n\
             The key is in {file}; give it to nobody else. Its public half is {}.\n\
             `--key {file}` signs with it, or set {}={file}.",
            self.name,
            may(&kinds),
            root.trust_domain(),
            humantime::format_duration(self.lifetime),
            key_hash(&operator.grant().public_key),
            super::sign::KEY_VARIABLE,
        ))?;
        Ok(())
    }
}

/// What a grant of `kinds` allows, in words.
fn may(kinds: &BTreeSet<DocumentKind>) -> String {
    let is_right = |kind: &&DocumentKind| RIGHTS.contains(&kind.as_str());
    let documents = kinds.iter().filter(|kind| !is_right(kind));
    let documents: Vec<_> = documents.map(DocumentKind::as_str).collect();
    let mut all = Vec::new();
    if !documents.is_empty() {
        all.push(format!("sign documents of kind {}", documents.join(", ")));
    }
    for right in kinds.iter().filter(is_right) {
        all.push(match right.as_str() {
            TAP => "give passes for live calls (tap)".to_owned(),
            _ => "give passes for dashboards (see)".to_owned(),
        });
    }
    all.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_is_told_in_words() {
        let check = |kinds: &str, expected: &str| {
            let kinds = kinds.split(',').map(|kind| kind.parse().unwrap());
            assert_eq!(may(&kinds.collect()), expected);
        };
        check("policy", "sign documents of kind policy");
        check(
            "tap,route,policy",
            "sign documents of kind policy, route, give passes for live calls (tap)",
        );
        check("see", "give passes for dashboards (see)");
    }
}
