//! `starling operator revoke` and `restore`: the root's word on an operator's key, which no operator can undo.

use std::path::PathBuf;
use std::time::SystemTime;

use clap::Args;
use starling_gossip::DocumentKey;
use starling_gossip::documents::system::{KeyStatement, retention_lists};
use starling_gossip::documents::{Draft, DraftRow};
use starling_transport::KeyHash;

use super::operator_key::Choices;
use super::{block_on, ca, chain, client, out, sign, signed};
use crate::admin::view;
use crate::ca::RootKey;
use crate::config::{SOCKET, STATE};
use crate::mesh::unix_s;

/// Revoke an operator's key with the root's
///
/// It counts whatever the operator's rank, and only the root takes it back. What the operator denied stays denied, as the lists say that are
/// made of all that the agent holds; what the operator granted does not count any more.
#[derive(Debug, Args)]
pub(super) struct Revoke {
    /// The key: sha256: and 64 hex digits, as `starling history` shows it
    #[arg(value_name = "KEY")]
    key: KeyHash,
    /// Why, for the people who read it
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    choices: Choices,
    #[command(flatten)]
    by: Root,
}

/// Take the root's revocation of an operator's key back
///
/// All that the operator signed counts again.
#[derive(Debug, Args)]
pub(super) struct Restore {
    /// The key: sha256: and 64 hex digits
    #[arg(value_name = "KEY")]
    key: KeyHash,
    #[command(flatten)]
    by: Root,
}

/// The root's key, and where what it signs goes.
#[derive(Debug, Args)]
struct Root {
    /// State directory that holds ca/root.key and ca/root.pem
    #[arg(long, value_name = "DIR", default_value = STATE)]
    state: PathBuf,
    /// Write what is signed to this file, for `starling apply` on a host with an agent: for a root that is kept offline
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Do it without asking
    #[arg(long)]
    yes: bool,
    /// Admin socket of the agent
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    socket: PathBuf,
}

impl Revoke {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let root = RootKey::load(&ca::root_state(&self.by.state)?)?;
        let about = self.key.bytes();
        let mut documents: Vec<(DocumentKey, Option<String>)> = Vec::new();
        if let Some(target) = self.by.operator(&self.key)? {
            let plan = self
                .choices
                .plan(&target, &KeyHash::from_bytes([0; 32]).to_string())?;
            out::say(&plan.show(&target))?;
            anyhow::ensure!(
                !plan.adopts(),
                "the root adopts nothing; let an operator do it"
            );
            let lists = retention_lists(&about, None, &plan.entries);
            documents.extend(lists.into_iter().map(|(key, text)| (key, Some(text))));
        } else {
            out::complain(
                "note: what the operator denied is not known here, so nothing is listed; hosts that have it keep it, and \
                 `starling check` names it there until an operator lists it with `starling revoke key/…`",
            );
        }
        let statement = KeyStatement {
            key: about,
            reason: self.reason.clone(),
        };
        documents.push((statement.document(None), Some(statement.to_text())));
        self.by.publish(&root, documents)
    }
}

impl Restore {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let root = RootKey::load(&ca::root_state(&self.by.state)?)?;
        let statement = KeyStatement {
            key: self.key.bytes(),
            reason: String::new(),
        };
        let document = statement.document(None);
        // Where no agent is asked, a deletion of nothing does no harm.
        if self.by.out.is_none() {
            let history = sign::history(&self.by.socket, &document)?;
            anyhow::ensure!(
                chain::newest(&history).is_some_and(|newest| !newest.deleted),
                "the root has not revoked {}; what an operator revoked is taken back by `starling delete operator-revocation/…`",
                self.key
            );
        }
        self.by.publish(&root, vec![(document, None)])
    }
}

impl Root {
    /// What the agent knows of a key; nothing where there is no agent to be asked.
    fn operator(&self, key: &KeyHash) -> anyhow::Result<Option<view::Operator>> {
        if self.out.is_some() {
            return Ok(None);
        }
        let all: Vec<view::Operator> = block_on(client::ask_for(&self.socket, "/v1/operators"))??;
        Ok(all
            .into_iter()
            .find(|operator| operator.key == key.to_string()))
    }

    /// Signs the documents and hands them over in order.
    fn publish(
        &self,
        root: &RootKey,
        documents: Vec<(DocumentKey, Option<String>)>,
    ) -> anyhow::Result<()> {
        if !self.yes && !sign::confirmed(documents.len())? {
            anyhow::bail!("nothing was changed");
        }
        let packets = documents
            .into_iter()
            .map(|(key, body)| self.sign(root, key, body));
        let packets = packets.collect::<anyhow::Result<Vec<_>>>()?;
        let Some(file) = &self.out else {
            return signed::hand_over(&self.socket, &packets);
        };
        std::fs::write(file, signed::to_text(packets.iter().map(Vec::as_slice)))?;
        out::say(&format!(
            "{file} holds it; on a host with an agent, `starling apply -f {file}` hands it to the mesh",
            file = file.display()
        ))?;
        Ok(())
    }

    /// The root numbers by its clock, so it need not know the newest number; where it does it is ahead of it.
    fn sign(
        &self,
        root: &RootKey,
        key: DocumentKey,
        body: Option<String>,
    ) -> anyhow::Result<Vec<u8>> {
        let now = unix_s(SystemTime::now());
        let newest = match self.out {
            Some(_) => 0,
            None => sign::history(&self.socket, &key)?.newest,
        };
        let revision = now.max(newest + 1);
        let draft = Draft {
            kind: key.kind,
            issued: revision,
            rows: vec![DraftRow {
                name: key.name,
                revision,
                replaces: None,
                deleted: body.is_none(),
                body: body.unwrap_or_default(),
            }],
        };
        let signature = root.sign(&draft.to_sign_as_root(root.trust_domain().as_str()))?;
        Ok(draft.signed_by_root(signature))
    }
}
