//! `starling history`: what was said before.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use starling_gossip::DocumentKey;

use super::ask::span;
use super::table::Table;
use super::{block_on, chain, client, out, sign};
use crate::admin::view;
use crate::config::SOCKET;
use crate::documents::file;

/// List the revisions of a document that the mesh still holds, or print one
#[derive(Debug, Args)]
pub(super) struct History {
    /// Which document
    #[arg(value_name = "KIND/NAME", value_parser = str::parse::<DocumentKey>)]
    document: DocumentKey,
    /// Print the text of this revision, by its number or, where two have the same number, by its hash
    #[arg(long, value_name = "REVISION|HASH")]
    show: Option<String>,
    /// Print the agent's JSON as it is
    #[arg(long)]
    json: bool,
    /// Admin socket of the agent
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    socket: PathBuf,
}

impl History {
    pub(super) fn run(self) -> anyhow::Result<()> {
        if self.json {
            let path = format!("/v1/documents/{}", self.document);
            let json = block_on(client::ask(&self.socket, &path))??;
            out::say_json(String::from_utf8_lossy(&json).trim_end())?;
            return Ok(());
        }
        let history = sign::history(&self.socket, &self.document)?;
        anyhow::ensure!(history.newest > 0, "there is no document {}", self.document);
        let Some(which) = &self.show else {
            out::say(&format!("{}\n\n{}", render(&history), keys(&history)))?;
            return Ok(());
        };
        let held = chosen(&history, which)?;
        anyhow::ensure!(!held.deleted, "revision {which} deletes the document");
        out::say(file::to_text(&self.document, &held.body).trim_end())?;
        Ok(())
    }
}

/// The revision with this number, or with a hash that begins so.
fn chosen<'h>(history: &'h view::History, which: &str) -> anyhow::Result<&'h view::Revision> {
    let number = which.parse::<u64>();
    let Some(number) = number.ok().filter(|_| which.len() < HASH_DIGITS) else {
        return chain::by_hash(history, which);
    };
    let mut held = history.revisions.iter();
    let held = held.find(|held| held.revision == number && !held.lost);
    held.with_context(|| format!("revision {number} is not held"))
}

fn render(history: &view::History) -> String {
    let mut table = Table::new(["REVISION", "OPERATOR", "ISSUED", "WHAT", "HASH"]);
    let chain = chain::chain(history);
    for held in &history.revisions {
        let mut what = match (held.lost, held.deleted) {
            (true, _) => "lost a fork".to_owned(),
            (false, true) => "deleted".to_owned(),
            (false, false) => format!("{} lines", held.body.lines().count()),
        };
        let note = match held.standing.as_str() {
            "kept" if held.has_effect => ", key revoked, denials stay",
            "unlisted" if held.has_effect => ", key revoked, on no list, denials stay here",
            "kept" | "unlisted" => ", key revoked",
            "dropped" => ", key revoked, dropped",
            _ if !chain.iter().any(|one| one.hash == held.hash) => ", off the chain",
            _ => "",
        };
        what += note;
        let is_in_force = history.document.in_force == Some(held.revision)
            && !held.lost
            && held.standing == "counts";
        table.row([
            held.revision.to_string(),
            held.operator.clone(),
            format!("{} ago", span(held.age_s)),
            if is_in_force {
                format!("{what}, in force")
            } else {
                what
            },
            chain::short(&held.hash),
        ]);
    }
    table.render()
}

/// The keys that signed it, as `starling revoke key/…` names them: an operator may have had several.
fn keys(history: &view::History) -> String {
    let mut table = Table::new(["OPERATOR", "KEY"]);
    let mut shown = BTreeSet::new();
    for held in &history.revisions {
        if shown.insert((&held.operator, &held.public_key)) {
            table.row([held.operator.clone(), held.public_key.clone()]);
        }
    }
    table.render()
}

/// A text of so many digits is a hash: numbers end at the seconds since 1970.
const HASH_DIGITS: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_operator_sees() {
        let held = |revision, lost, deleted| view::Revision {
            revision,
            operator: "alice".into(),
            public_key: String::new(),
            age_s: 61,
            deleted,
            lost,
            has_effect: true,
            hash: format!("{revision}123456789abcdef"),
            replaces: Some(format!("{}123456789abcdef", revision - 1)),
            standing: "counts".into(),
            signed: String::new(),
            body: "a\nb".into(),
        };
        let history = view::History {
            document: view::Document {
                in_force: Some(2),
                ..view::Document::default()
            },
            newest: 3,
            revisions: vec![
                held(3, false, true),
                held(2, false, false),
                held(2, true, false),
            ],
        };
        let expected = "\
REVISION  OPERATOR  ISSUED     WHAT               HASH
3         alice     1m 1s ago  deleted            3123456789ab
2         alice     1m 1s ago  2 lines, in force  2123456789ab
2         alice     1m 1s ago  lost a fork        2123456789ab";
        assert_eq!(render(&history), expected);
        let other = view::Revision {
            operator: "bob".into(),
            public_key: "sha256:01".into(),
            ..held(1, false, false)
        };
        let two = view::History {
            revisions: vec![held(2, false, false), other.clone(), other],
            ..view::History::default()
        };
        assert_eq!(
            keys(&two),
            "OPERATOR  KEY\nalice     -\nbob       sha256:01"
        );
        let strange = view::Revision {
            hash: "0000aaaabbbb".into(),
            ..held(1, false, false)
        };
        let dropped = view::Revision {
            standing: "dropped".into(),
            ..strange.clone()
        };
        let shown = render(&view::History {
            revisions: vec![held(3, false, false), strange, dropped],
            ..view::History::default()
        });
        for note in ["2 lines, off the chain ", "2 lines, key revoked, dropped "] {
            assert!(shown.contains(note), "{shown}");
        }
    }

    #[test]
    fn of_two_revisions_with_one_number_each_can_be_shown() {
        let held = |hash: &str, lost| view::Revision {
            revision: 2,
            operator: "alice".into(),
            public_key: String::new(),
            age_s: 61,
            deleted: false,
            lost,
            has_effect: true,
            hash: hash.into(),
            replaces: None,
            standing: "counts".into(),
            signed: String::new(),
            body: hash.into(),
        };
        let history = view::History {
            revisions: vec![held("aaaabbbbcccc1", false), held("1111222233334", true)],
            ..view::History::default()
        };
        let shown = |which| chosen(&history, which).map(|held| held.body.as_str());
        assert_eq!(shown("2").unwrap(), "aaaabbbbcccc1");
        assert_eq!(shown("111122223333").unwrap(), "1111222233334");
        assert_eq!(shown("aaaabbbb").unwrap(), "aaaabbbbcccc1");
        for which in ["3", "abc", "aaaabbbbdddd", ""] {
            assert!(shown(which).is_err(), "{which}");
        }
    }
}
