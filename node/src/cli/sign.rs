//! What `apply`, `delete` and `rollback` have in common: show what would change, ask, sign, hand to the agent of this host.

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use clap::Args;
use starling_gossip::DocumentKey;
use starling_gossip::documents::system::{self, from_hex};
use starling_gossip::documents::{Draft, DraftRow};

use super::{block_on, chain, client, diff, merge, out, pause};
use crate::admin::view;
use crate::config::SOCKET;
use crate::documents::file;
use crate::mesh::unix_s;
use crate::operator::Operator;

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
    /// The key that has to have signed it, as revocations name it. With `None` the same text of any operator will do.
    pub(super) signer: Option<String>,
}

/// A change, and what there is now.
struct Planned {
    change: Change,
    newest: u64,
    /// The revision that the new one replaces.
    replaces: Option<[u8; 32]>,
    before: Option<String>,
}

impl Sign {
    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Whether nothing is to be changed.
    pub(super) fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    /// What the agent holds of a document.
    pub(super) fn history(&self, key: &DocumentKey) -> anyhow::Result<view::History> {
        history(&self.socket, key)
    }

    /// Asks the agent for `path`.
    pub(super) fn ask<T: serde::de::DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        Ok(block_on(client::ask_for(&self.socket, path))??)
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
        let mut room = merge::Room::new();
        for plan in &planned {
            let body = plan.change.body.as_deref();
            if room.must_be_asked(&plan.change.key.kind, body) {
                merge::if_short(self, &operator, &plan.change.key.kind, body.is_none())?;
            }
            self.submit(&operator, plan)?;
        }
        Ok(())
    }

    /// The document's key comes back if there is nothing to do.
    fn plan(&self, change: Change) -> anyhow::Result<Result<Planned, DocumentKey>> {
        let history = self.history(&change.key)?;
        let newest = chain::newest(&history);
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
        // What a revoked operator signed above it narrows it until it is signed again.
        let is_on_top =
            history.revisions.first().map(|held| &held.hash) == newest.map(|held| &held.hash);
        let signed_by = newest.map(|held| &held.public_key);
        let is_theirs = change.signer.is_none() || change.signer.as_ref() == signed_by;
        if is_same && is_theirs && is_on_top && !is_lost && history.document.fork.is_none() {
            return Ok(Err(change.key));
        }
        Ok(Ok(Planned {
            newest: history.newest,
            replaces: newest.and_then(|held| from_hex(&held.hash)),
            before,
            change,
        }))
    }

    /// Who signs.
    pub(super) fn operator(&self) -> anyhow::Result<Operator> {
        operator(self.key.clone())
    }

    fn submit(&self, operator: &Operator, plan: &Planned) -> anyhow::Result<()> {
        let key = &plan.change.key;
        let revision = plan.newest + 1;
        let draft = Draft {
            kind: key.kind.clone(),
            issued: date_for(revision),
            rows: vec![DraftRow {
                name: key.name.clone(),
                revision,
                replaces: plan.replaces,
                deleted: plan.change.body.is_none(),
                body: plan.change.body.clone().unwrap_or_default(),
            }],
        };
        let document = operator.sign(&draft)?;
        let receipt: view::Receipt =
            block_on(client::post_for(&self.socket, "/v1/documents", &document))?
                .with_context(|| format!("{key} was not changed"))?;
        out::say(&self.outcome(plan, receipt.revision)?)?;
        Ok(())
    }

    /// Waits a moment for the agent to put it in force.
    fn outcome(&self, plan: &Planned, revision: u64) -> anyhow::Result<String> {
        let key = &plan.change.key;
        for _ in 0..POLLS_MAX {
            if let Some(told) = plan.told(&self.history(key)?.document, revision) {
                return Ok(told);
            }
            pause(POLL_PAUSE)?;
        }
        Ok(format!("{key}@{revision} is {} here", view::CHECKING))
    }
}

impl Planned {
    /// What became of it as `revision`; nothing if `seen` is still about what was there before.
    fn told(&self, seen: &view::Document, revision: u64) -> Option<String> {
        let key = &self.change.key;
        // A text never deletes: that is what became of the one before it.
        let is_of_before = seen.state == "deleted" && self.change.body.is_some();
        let is_settled = seen.revision > revision
            || seen.in_force == Some(revision)
            || (seen.revision == revision && seen.state != "in force");
        if !is_settled || is_of_before || seen.state == view::CHECKING || seen.state.is_empty() {
            return None;
        }
        Some(match &seen.why {
            None if seen.state == "deleted" => {
                format!("{key}@{revision} deletes it, in force here")
            }
            None => format!("{key}@{revision} is {} here", seen.state),
            Some(why) => format!("{key}@{revision} is {} here: {why}", seen.state),
        })
    }

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
pub(super) struct NotAllowed(String, &'static str);

impl NotAllowed {
    pub(super) fn new(why: String) -> Self {
        Self::with_hint(why, NEW_OPERATOR)
    }

    pub(super) fn with_hint(why: String, hint: &'static str) -> Self {
        Self(why, hint)
    }
}

impl NoKey {
    pub(super) fn hint(&self) -> String {
        format!("`--key alice.operator`, or set {KEY_VARIABLE}; `starling operator new` makes one")
    }
}

impl NotAllowed {
    pub(super) fn hint(&self) -> String {
        self.1.to_owned()
    }
}

/// What puts most of it right.
const NEW_OPERATOR: &str = "`starling operator new` makes a key that may, where the root's key is";

/// A date that allows a revision's number, now if it does. Numbers run at most five minutes ahead of clocks, so one that does cannot
/// keep anybody waiting longer than it takes to get there.
pub(super) fn date_for(revision: u64) -> u64 {
    let ahead = |now: u64| revision.saturating_sub(now + CLOCKS_APART_S);
    let wait = ahead(unix_s(SystemTime::now()));
    if wait > 0 {
        // If it cannot be waited for, the agent says that the date is ahead.
        let _waited = pause(Duration::from_secs(wait.min(CLOCKS_APART_S)));
    }
    unix_s(SystemTime::now()).max(revision)
}

fn may_sign(operator: &Operator, key: &DocumentKey) -> Result<(), NotAllowed> {
    let grant = operator.grant();
    let name = &grant.operator;
    let needed = system::needed_kind(&key.kind);
    if !needed.is_none_or(|needed| grant.kinds.contains(needed.as_str())) {
        let kinds: Vec<_> = grant.kinds.iter().map(ToString::to_string).collect();
        return Err(NotAllowed::new(format!(
            "{name} may not sign documents of kind {}, only {}",
            key.kind,
            kinds.join(", ")
        )));
    }
    if unix_s(SystemTime::now()) > grant.not_after {
        return Err(NotAllowed::new(format!("the grant of {name} has ended")));
    }
    Ok(())
}

pub(super) fn confirmed(count: usize) -> anyhow::Result<bool> {
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

/// How far ahead of its own clock an agent lets a date be.
const CLOCKS_APART_S: u64 = 5 * 60;

/// The agent follows its documents within milliseconds.
const POLL_PAUSE: Duration = Duration::from_millis(50);
const POLLS_MAX: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deleted_document_that_is_made_again_is_not_told_to_be_deleted() {
        let plan = |body: Option<&str>| Planned {
            change: Change {
                key: "policy/orders".parse().unwrap(),
                body: body.map(str::to_owned),
                signer: None,
            },
            newest: 4,
            replaces: None,
            before: None,
        };
        let seen = |state: &str, in_force| view::Document {
            revision: 5,
            state: state.into(),
            in_force,
            ..view::Document::default()
        };
        let told = |body, seen: &view::Document| plan(body).told(seen, 5);
        assert_eq!(told(Some("x = 1"), &seen("deleted", None)), None);
        assert_eq!(
            told(Some("x = 1"), &seen("in force", Some(5))).as_deref(),
            Some("policy/orders@5 is in force here")
        );
        assert_eq!(
            told(None, &seen("deleted", None)).as_deref(),
            Some("policy/orders@5 deletes it, in force here")
        );
        assert_eq!(told(None, &seen(view::CHECKING, None)), None);
    }
}
