//! `starling rollback`: say again what was said before.

use anyhow::Context;
use clap::Args;
use starling_gossip::DocumentKey;

use super::sign::{Change, Sign};
use super::{chain, out};
use crate::admin::view;

/// Make an earlier revision of a document the newest again
#[derive(Debug, Args)]
pub(super) struct Rollback {
    /// Which one
    #[arg(value_name = "KIND/NAME", value_parser = str::parse::<DocumentKey>)]
    document: DocumentKey,
    /// The revision to go back to, by its number or by its hash. One that the newest did not come from, as `starling history` marks
    /// it, goes by its hash alone [default: the one that the newest replaced]
    #[arg(long, value_name = "REVISION|HASH")]
    to: Option<String>,
    #[command(flatten)]
    sign: Sign,
}

impl Rollback {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let history = self.sign.history(&self.document)?;
        anyhow::ensure!(
            !history.revisions.is_empty(),
            "there is no document {}",
            self.document
        );
        let earlier = earlier(&history, self.to.as_deref())?;
        out::say(&format!(
            "{}@{} as {} signed it, {}",
            self.document,
            earlier.revision,
            earlier.operator,
            chain::short(&earlier.hash)
        ))?;
        let body = (!earlier.deleted).then(|| earlier.body.clone());
        self.sign.make(vec![Change {
            key: self.document,
            body,
            signer: None,
        }])
    }
}

/// The revision asked for, or the one that the newest replaced. A number means the one on the chain: another one of that number
/// may have been made with a stolen key.
fn earlier<'h>(history: &'h view::History, to: Option<&str>) -> anyhow::Result<&'h view::Revision> {
    let chain = chain::chain(history);
    let Some(to) = to else {
        anyhow::ensure!(
            !chain.first().is_some_and(|newest| newest.deleted),
            "it is deleted, and a deletion keeps no history: apply its text again"
        );
        return chain.get(1).copied().context(
            "the revision that the newest one replaced is not held; `starling history` shows what is, and --to HASH takes it",
        );
    };
    let Ok(number) = to.parse::<u64>() else {
        return chain::by_hash(history, to);
    };
    let found = chain.iter().find(|held| held.revision == number);
    let held: Vec<_> = chain.iter().map(|held| held.revision.to_string()).collect();
    found.copied().with_context(|| {
        format!(
            "the newest revision did not come from revision {to}, only from {}; --to HASH takes another",
            held.join(", ")
        )
    })
}
