//! `starling delete`: take a document back from the whole mesh.

use clap::Args;
use starling_gossip::DocumentKey;

use super::sign::{Change, Sign};

/// Delete a document from the whole mesh; `rollback` brings it back
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
        self.sign.make(vec![Change {
            key: self.document,
            body: None,
            signer: None,
        }])
    }
}
