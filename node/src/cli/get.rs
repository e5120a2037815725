//! `starling get`: what operators said for the mesh, and what became of it here.

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use starling_gossip::{DocumentKey, DocumentKind};

use super::ask::{Ask, span};
use super::table::Table;
use super::{chain, out};
use crate::admin::view;
use crate::check::operators;
use crate::documents::file;

/// List the documents of the mesh, or print one
#[derive(Debug, Args)]
pub(super) struct Get {
    /// All documents of a kind, or one document
    #[arg(value_name = "KIND[/NAME]", value_parser = Which::parse)]
    which: Option<Which>,
    /// Print all that is held of one document with its signatures, for `starling apply` elsewhere
    #[arg(long, requires = "which")]
    signed: bool,
    #[command(flatten)]
    ask: Ask,
}

#[derive(Debug, Clone)]
enum Which {
    Kind(DocumentKind),
    One(DocumentKey),
}

impl Which {
    fn parse(text: &str) -> Result<Self, String> {
        if text.contains('/') {
            let key = text.parse().map_err(|error| format!("{error}"))?;
            Ok(Self::One(key))
        } else {
            let kind = DocumentKind::parse(text).map_err(|error| error.to_string())?;
            Ok(Self::Kind(kind))
        }
    }
}

impl Get {
    pub(super) fn run(self) -> anyhow::Result<()> {
        self.ask.repeat(|| self.print())
    }

    fn print(&self) -> anyhow::Result<()> {
        match &self.which {
            Some(Which::One(key)) => {
                let path = format!("/v1/documents/{key}");
                if self.ask.wants_json() {
                    return self
                        .ask
                        .print_once::<view::History>(&path, |_| String::new());
                }
                let history: view::History = self.ask.answer(&path)?;
                if self.signed {
                    out::say(signed(&history)?.trim_end())?;
                    return Ok(());
                }
                out::say(&body(key, &history)?)?;
                Ok(())
            }
            which => {
                let mut documents: Vec<view::Document> = self.ask.answer("/v1/documents")?;
                if let Some(Which::Kind(kind)) = which {
                    documents.retain(|document| document.kind == kind.as_str());
                }
                if self.ask.wants_json() {
                    out::say_json(&serde_json::to_string(&documents)?)?;
                } else {
                    out::say(&render(&documents))?;
                    let operators: Vec<view::Operator> = self.ask.answer("/v1/operators")?;
                    for (name, left_s) in operators::ending_names(&operators) {
                        out::complain(&match left_s {
                            0 => format!("note: no grant of {name} is valid any more"),
                            left_s => {
                                format!("note: the last grant of {name} ends in {}", span(left_s))
                            }
                        });
                    }
                }
                Ok(())
            }
        }
    }
}

/// Everything held, oldest first, each packet once.
fn signed(history: &view::History) -> anyhow::Result<String> {
    let mut packets: Vec<Vec<u8>> = Vec::new();
    for revision in history.revisions.iter().rev() {
        let packet = STANDARD.decode(&revision.signed);
        let packet = packet.context("the agent's answer holds no signed documents")?;
        if !packets.contains(&packet) {
            packets.push(packet);
        }
    }
    Ok(super::signed::to_text(packets.iter().map(Vec::as_slice)))
}

/// The newest text, as it can be edited and applied again.
fn body(key: &DocumentKey, history: &view::History) -> anyhow::Result<String> {
    let newest = chain::newest(history);
    let newest = newest.with_context(|| match history.newest {
        0 => format!("there is no document {key}"),
        _ if history.document.state == view::DROPPED => {
            format!("all that is held of {key} was signed by revoked operators and dropped")
        }
        revision => format!("revision {revision} of {key} is lost here; ask another node"),
    })?;
    anyhow::ensure!(
        !newest.deleted,
        "{key} is deleted since revision {}; `starling history {key}` shows what was before",
        newest.revision
    );
    if let Some(why) = &history.document.why {
        out::complain(&format!("note: {} here: {why}", history.document.state));
    }
    Ok(file::to_text(key, &newest.body).trim_end().to_owned())
}

fn render(documents: &[view::Document]) -> String {
    let mut table = Table::new(["DOCUMENT", "REVISION", "OPERATOR", "ISSUED", "STATE"]);
    let mut notes = Vec::new();
    for document in documents {
        let name = format!("{}/{}", document.kind, document.name);
        let state = match &document.fork {
            None => document.state.clone(),
            Some(_) => format!("{}, fork", document.state),
        };
        table.row([
            name.clone(),
            document.revision.to_string(),
            document.operator.clone(),
            format!("{} ago", span(document.age_s)),
            state,
        ]);
        if let Some(why) = &document.why {
            notes.push(format!("{name} is {}: {why}", document.state));
        }
        if let Some(other) = &document.fork {
            notes.push(format!(
                "{name} is a fork: {other} signed another revision {} at the same time; apply it again to settle it",
                document.revision
            ));
        }
    }
    let table = table.render();
    if notes.is_empty() {
        table
    } else {
        format!("{table}\n\n{}", notes.join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_operator_sees() {
        let good = view::Document {
            kind: "policy".into(),
            name: "orders".into(),
            revision: 4,
            operator: "alice".into(),
            age_s: 3_700,
            state: "in force".into(),
            in_force: Some(4),
            why: None,
            fork: None,
        };
        let held = view::Document {
            name: "web".into(),
            state: "held back".into(),
            why: Some(
                "the agent crashed within a minute of taking it; revision 3 is in force".into(),
            ),
            ..good.clone()
        };
        let fork = view::Document {
            name: "x".into(),
            fork: Some("bob".into()),
            ..good.clone()
        };
        let expected = "\
DOCUMENT       REVISION  OPERATOR  ISSUED     STATE
policy/orders  4         alice     1h 1m ago  in force
policy/web     4         alice     1h 1m ago  held back
policy/x       4         alice     1h 1m ago  in force, fork

policy/web is held back: the agent crashed within a minute of taking it; revision 3 is in force
policy/x is a fork: bob signed another revision 4 at the same time; apply it again to settle it";
        assert_eq!(render(&[good, held, fork]), expected);
    }
}
