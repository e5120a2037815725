//! `starling rollback`: say again what was said before.

use anyhow::Context;
use clap::Args;
use starling_gossip::DocumentKey;

use super::sign::{Change, Sign};
use crate::admin::view;

/// Make an earlier revision of a document the newest again
#[derive(Debug, Args)]
pub(super) struct Rollback {
    /// Which one
    #[arg(value_name = "KIND/NAME", value_parser = str::parse::<DocumentKey>)]
    document: DocumentKey,
    /// The revision to go back to [default: the one before the newest]
    #[arg(long, value_name = "REVISION")]
    to: Option<u64>,
    #[command(flatten)]
    sign: Sign,
}

impl Rollback {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let history = self.sign.history(&self.document)?;
        let earlier = earlier(&history, self.to).with_context(|| {
            let held: Vec<_> = history
                .revisions
                .iter()
                .map(|held| held.revision.to_string())
                .collect();
            match (self.to, held.is_empty()) {
                (_, true) => format!("there is no document {}", self.document),
                (Some(to), _) => format!("revision {to} is not held, only {}", held.join(", ")),
                (None, _) => "there is no earlier revision".to_owned(),
            }
        })?;
        let body = (!earlier.deleted).then(|| earlier.body.clone());
        self.sign.make(vec![Change {
            key: self.document,
            body,
        }])
    }
}

/// The revision asked for, or the one before the newest.
fn earlier(history: &view::History, to: Option<u64>) -> Option<&view::Revision> {
    let mut winners = history.revisions.iter().filter(|held| !held.lost);
    match to {
        Some(to) => winners.find(|held| held.revision == to),
        None => winners.nth(1),
    }
}
