//! Whether the other nodes can read a document, asked before its operator signs it.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::stream::{self, StreamExt};
use serde::{Deserialize, Serialize};
use starling_gossip::documents::BODY_BYTES_MAX;
use starling_gossip::{DocumentKey, Liveness, NodeName, State};
use starling_transport::Leaf;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use crate::admin::view::{Reader, Unsigned};
use crate::control::{Handler, Refused, Who};
use crate::documents::preflight::{self, Program, Text};
use crate::host::Host;
use crate::said;

/// What other nodes may ask.
pub(crate) fn handler() -> Handler {
    Handler::new(READERS, Who::Node, answer)
}

/// Can you read these? Without texts: which build are you?
#[derive(Debug, Serialize, Deserialize)]
struct Question {
    /// Key and body, the body in base64: quoted as JSON it could take six times its length.
    texts: Vec<(String, String)>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Word {
    build: String,
    /// Keys of documents that cannot be read, and why.
    problems: Vec<(String, String)>,
}

async fn answer(host: Arc<Host>, asker: Leaf, question: Question) -> Result<Word, Refused> {
    let texts: Option<Vec<Text>> = question.texts.iter().take(TEXTS_MAX).map(text).collect();
    let texts = texts.ok_or_else(|| Refused::bad_question("these are no documents"))?;
    let mut problems = Vec::new();
    if !texts.is_empty() {
        let name = asker.id.node_name().unwrap_or_default();
        let turn = host.looks.take(name, Instant::now());
        let _turn = turn.ok_or_else(Refused::busy)?;
        // Never closed.
        let Ok(_place) = CHILDREN.acquire().await else {
            return Err(Refused::busy());
        };
        let program = Program::itself();
        problems = preflight::problems(&program, &texts).await;
    }
    Ok(Word {
        build: preflight::build(),
        problems,
    })
}

fn text((key, body): &(String, String)) -> Option<Text> {
    let body = STANDARD.decode(body).ok()?;
    let body = String::from_utf8(body).ok()?;
    (body.len() <= BODY_BYTES_MAX).then_some(Text {
        key: key.parse::<DocumentKey>().ok()?,
        body: body.into(),
    })
}

/// What the nodes of other builds say, as far as they say it in time. Those of this build read what this node reads.
pub(super) async fn ask_all(host: Arc<Host>, unsigned: Vec<Unsigned>) -> Vec<Reader> {
    let texts = unsigned.into_iter().take(TEXTS_MAX);
    let texts = texts.map(|one| {
        (
            format!("{}/{}", one.kind, one.name),
            STANDARD.encode(one.body),
        )
    });
    let question = &Question {
        texts: texts.collect(),
    };
    let catalogue = host.membership.catalogue();
    let members = catalogue.members.values();
    let others = members.filter(|member| {
        let is_here = member.liveness == Liveness::Alive && member.state != State::Left;
        is_here && member.name != catalogue.local
    });
    let others: Vec<_> = others.take(NODES_MAX).map(|one| one.name.clone()).collect();
    let asked = stream::iter(others).map(|node| ask(&host, node, question));
    let answers: Vec<_> = asked.buffered(ASKED_AT_ONCE).collect().await;
    answers.into_iter().flatten().collect()
}

/// `None` if the node can read all of it.
async fn ask(host: &Arc<Host>, node: NodeName, question: &Question) -> Option<Reader> {
    let control = host.control();
    let asked = async {
        let which = Question { texts: Vec::new() };
        let word: Word = control.ask(&node, READERS, &which).await?;
        if word.build == preflight::build() {
            return Ok(word);
        }
        control.ask(&node, READERS, question).await
    };
    let reader = |problems, silent| Reader {
        node: node.to_string(),
        problems,
        silent,
    };
    match timeout(PATIENCE, asked).await {
        Ok(Ok(word)) if word.problems.is_empty() => None,
        Ok(Ok(word)) => {
            let problems = word.problems.iter();
            let problems = problems.map(|(key, why)| (said::word(key), said::quoted(why)));
            Some(reader(problems.collect(), None))
        }
        Ok(Err(error)) => Some(reader(Vec::new(), Some(error.told()))),
        Err(_elapsed) => {
            let silent = Some(format!("no answer within {PATIENCE:?}"));
            Some(reader(Vec::new(), silent))
        }
    }
}

const READERS: &str = "/v1/readers";

/// Documents of one question.
pub(crate) const TEXTS_MAX: usize = 64;

/// Children for peers at a time: what one of them asks costs this host a process.
static CHILDREN: Semaphore = Semaphore::const_new(2);

/// A cell is meant for as many.
const NODES_MAX: usize = 256;

/// Nodes asked at a time.
const ASKED_AT_ONCE: usize = 64;

/// For one node. An operator waits for all of them.
const PATIENCE: Duration = Duration::from_secs(2);
