//! What `apply`, `delete` and `rollback` have in common: show what would change, ask, sign, hand to the agent of this host.

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use clap::Args;
use starling_gossip::DocumentKey;
use starling_gossip::documents::Draft;
use starling_transport::KeyHash;

use super::{block_on, client, diff, out};
use crate::admin::view;
use crate::config::SOCKET;
use crate::documents::file;
use crate::mesh::unix_s;
use crate::operator::{self, Operator};

/// Who signs, and which agent takes it.
#[derive(Debug, Args)]
pub(super) struct Sign {
    /// The operator's file [default: $STARLING_OPERATOR]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Show what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Do it without asking
    #[arg(long)]
    yes: bool,
    /// Admin socket of the agent
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    socket: PathBuf,
}

/// What is to become of one document.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) key: DocumentKey,
    /// The new body; none deletes the document.
    pub(super) body: Option<String>,
}

/// A change, and what there is now.
struct Planned {
    change: Change,
    newest: u64,
    before: Option<String>,
}

impl Sign {
    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// What the agent holds of a document.
    pub(super) fn history(&self, key: &DocumentKey) -> anyhow::Result<view::History> {
        history(&self.socket, key)
    }

    /// Asks the agent for `path`.
    pub(super) fn ask<T: serde::de::DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        Ok(block_on(client::ask_for(&self.socket, path))??)
    }

    /// Refuses to have an operator revoke itself: the revocation would go with the key.
    pub(super) fn is_not_own(&self, key: &KeyHash) -> anyhow::Result<()> {
        let grant = self.operator()?;
        let own = operator::key_hash(&grant.grant().public_key);
        anyhow::ensure!(
            own != *key,
            "this is the operator's own key; another operator has to revoke it"
        );
        Ok(())
    }

    /// Shows the changes, and makes them unless told otherwise.
    pub(super) fn make(&self, changes: Vec<Change>) -> anyhow::Result<()> {
        let mut planned = Vec::new();
        for change in changes {
            match self.plan(change)? {
                Ok(plan) => planned.push(plan),
                Err(unchanged) => out::say(&format!("{unchanged} is so already"))?,
            }
        }
        for plan in &planned {
            out::say(&plan.show())?;
        }
        if planned.is_empty() || self.dry_run {
            return Ok(());
        }
        // Before asking: whoever cannot sign need not decide.
        let operator = self.operator()?;
        for plan in &planned {
            may_sign(&operator, &plan.change.key)?;
        }
        if !self.yes && !confirmed(planned.len())? {
            anyhow::bail!("nothing was changed");
        }
        for plan in &planned {
            self.submit(&operator, plan)?;
        }
        Ok(())
    }

    /// The document's key comes back if there is nothing to do.
    fn plan(&self, change: Change) -> anyhow::Result<Result<Planned, DocumentKey>> {
        let history = self.history(&change.key)?;
        let newest = history.revisions.iter().find(|held| !held.lost);
        let before = newest
            .filter(|held| !held.deleted)
            .map(|held| held.body.clone());
        // A file that is lost is made anew by saying the same again.
        let is_lost = history.document.state == "lost";
        let is_same = match (&before, &change.body) {
            (Some(before), Some(after)) => before.trim_matches('\n') == after.trim_matches('\n'),
            (None, None) => true,
            _ => false,
        };
        if is_same && !is_lost && history.document.fork.is_none() {
            return Ok(Err(change.key));
        }
        Ok(Ok(Planned {
            newest: history.document.revision,
            before,
            change,
        }))
    }

    fn operator(&self) -> anyhow::Result<Operator> {
        operator(self.key.clone())
    }

    fn submit(&self, operator: &Operator, plan: &Planned) -> anyhow::Result<()> {
        let key = &plan.change.key;
        let draft = Draft {
            key: key.clone(),
            revision: plan.newest + 1,
            issued: unix_s(SystemTime::now()),
            deleted: plan.change.body.is_none(),
            body: plan.change.body.clone().unwrap_or_default(),
        };
        let document = operator.sign(&draft)?;
        let receipt: view::Receipt =
            block_on(client::post_for(&self.socket, "/v1/documents", &document))?
                .with_context(|| format!("{key} was not changed"))?;
        out::say(&self.outcome(key, receipt.revision)?)?;
        Ok(())
    }

    /// Waits a moment for the agent to put it in force.
    fn outcome(&self, key: &DocumentKey, revision: u64) -> anyhow::Result<String> {
        let mut seen = view::Document::default();
        for _ in 0..POLLS_MAX {
            seen = self.history(key)?.document;
            let is_settled = seen.revision > revision
                || seen.in_force == Some(revision)
                || (seen.revision == revision && seen.state != "in force");
            if is_settled && seen.state != view::CHECKING && !seen.state.is_empty() {
                break;
            }
            std::thread::park_timeout(POLL_PAUSE);
        }
        Ok(match seen.why {
            None if seen.state == "deleted" => {
                format!("{key}@{revision} deletes it, in force here")
            }
            None => format!("{key}@{revision} is {} here", seen.state),
            Some(why) => format!("{key}@{revision} is {} here: {why}", seen.state),
        })
    }
}

impl Planned {
    fn show(&self) -> String {
        let key = &self.change.key;
        let next = self.newest + 1;
        let text = |body: &Option<String>| {
            body.as_ref()
                .map_or_else(String::new, |body| file::to_text(key, body))
        };
        let (before, after) = (text(&self.before), text(&self.change.body));
        let head = match (&self.before, &self.change.body) {
            (None, _) => format!("{key}: new, revision {next}"),
            (Some(_), None) => format!("{key}: deleted by revision {next}"),
            (Some(_), Some(_)) => format!("{key}: revision {} becomes {next}", self.newest),
        };
        format!("{head}\n{}", diff::show(&before, &after))
    }
}

/// The operator whose file was given, or is named by the environment.
pub(super) fn operator(given: Option<PathBuf>) -> anyhow::Result<Operator> {
    let path = given.or_else(|| std::env::var_os(KEY_VARIABLE).map(PathBuf::from));
    let path = path.ok_or(NoKey)?;
    Ok(Operator::read(&path)?)
}

/// What the agent at `socket` holds of a document.
pub(super) fn history(socket: &Path, key: &DocumentKey) -> anyhow::Result<view::History> {
    let path = format!("/v1/documents/{key}");
    Ok(block_on(client::ask_for(socket, &path))??)
}

/// No file to sign with was named.
#[derive(Debug, thiserror::Error)]
#[error("no operator's key was named")]
pub(super) struct NoKey;

/// The operator may not do this; the mesh would refuse it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct NotAllowed(String);

impl NotAllowed {
    pub(super) fn new(why: String) -> Self {
        Self(why)
    }
}

impl NoKey {
    pub(super) fn hint(&self) -> String {
        format!("`--key alice.operator`, or set {KEY_VARIABLE}; `starling operator new` makes one")
    }
}

impl NotAllowed {
    pub(super) fn hint(&self) -> String {
        "`starling operator new` makes a key that may, where the root's key is".to_owned()
    }
}

fn may_sign(operator: &Operator, key: &DocumentKey) -> Result<(), NotAllowed> {
    let grant = operator.grant();
    let name = &grant.operator;
    if !grant.kinds.contains(&key.kind) {
        let kinds: Vec<_> = grant.kinds.iter().map(ToString::to_string).collect();
        return Err(NotAllowed(format!(
            "{name} may not sign documents of kind {}, only {}",
            key.kind,
            kinds.join(", ")
        )));
    }
    if unix_s(SystemTime::now()) > grant.not_after {
        return Err(NotAllowed(format!("the grant of {name} has ended")));
    }
    Ok(())
}

fn confirmed(count: usize) -> anyhow::Result<bool> {
    anyhow::ensure!(
        io::stdin().is_terminal(),
        "nobody can be asked here; --yes does it without asking, --dry-run only shows"
    );
    let what = if count == 1 { "this" } else { "all of this" };
    write!(io::stderr(), "Do {what} for the whole mesh? [y/N] ")?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Names the operator's file where `--key` does not.
pub(super) const KEY_VARIABLE: &str = "STARLING_OPERATOR";

/// The agent follows its documents within milliseconds.
const POLL_PAUSE: Duration = Duration::from_millis(50);
const POLLS_MAX: usize = 60;
