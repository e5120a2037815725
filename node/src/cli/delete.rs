//! `starling delete`: take a document back from the whole mesh.

use clap::Args;
use starling_gossip::DocumentKey;
use starling_gossip::documents::system::OPERATOR_REVOCATION;

use super::sign::{Change, Sign};
use super::{chain, out};
use crate::admin::view;

/// Delete a document from the whole mesh
///
/// A deletion keeps no history: to bring the document back, apply its text again.
#[derive(Debug, Args)]
pub(super) struct Delete {
    /// Which one
    #[arg(value_name = "KIND/NAME", value_parser = str::parse::<DocumentKey>)]
    document: DocumentKey,
    #[command(flatten)]
    sign: Sign,
}

impl Delete {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let history = self.sign.history(&self.document)?;
        if history.newest == 0 {
            anyhow::bail!("there is no document {}", self.document);
        }
        if let Some(text) = returning(&self.document, &history, &self.sign)? {
            out::say(&text)?;
        }
        self.sign.make(vec![Change {
            key: self.document,
            body: None,
            signer: None,
        }])
    }
}

/// What counts again when a revocation of an operator's key is taken back; nothing for other documents.
fn returning(
    document: &DocumentKey,
    history: &view::History,
    sign: &Sign,
) -> anyhow::Result<Option<String>> {
    let newest = chain::newest(history).filter(|newest| !newest.deleted);
    let Some(newest) = newest.filter(|_| document.kind.as_str() == OPERATOR_REVOCATION) else {
        return Ok(None);
    };
    let key = newest.body.lines().next().unwrap_or_default();
    let key = key.strip_prefix("key ").unwrap_or_default();
    let operators: Vec<view::Operator> = sign.ask("/v1/operators")?;
    let revoked = operators.iter().find(|operator| operator.key == key);
    Ok(revoked.map(show))
}

fn show(operator: &view::Operator) -> String {
    let held = operator.held.iter().filter(|held| !held.deleted);
    let names: Vec<_> = held
        .map(|held| format!("{}@{}", held.document, held.revision))
        .collect();
    match names.is_empty() {
        true => format!(
            "{} ({}) signed nothing that is held here.",
            operator.operator, operator.key
        ),
        false => format!(
            "Unless another revocation of the key stands, all that {} ({}) signed counts again, grants included: {}.",
            operator.operator,
            operator.key,
            names.join(", ")
        ),
    }
}
