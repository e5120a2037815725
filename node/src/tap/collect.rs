//! The end that asks: one tap, and a task for each node that may have something to show.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use serde::{Deserialize, Serialize};
use starling_gossip::{NodeName, ServiceName};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Interval, interval, sleep, timeout};

use super::call::Call;
use super::filter::{Filter, Wanted};
use super::serve::NOT_HERE;
use super::targets::{NODES_MAX, targets};
use super::{Batch, PATH, Question};
use crate::admin::view::Refused;
use crate::control::ControlError;
use crate::host::Host;
use crate::pass::{self, PassError, Wish};
use crate::random;

/// What somebody asks this agent for.
#[derive(Debug, Clone)]
pub struct Ask {
    pub pass: String,
    pub wanted: Wanted,
    /// Only these nodes; all if there are none.
    pub nodes: Vec<String>,
}

/// A tap that is open. Dropping it closes it.
#[derive(Debug)]
pub struct Tap(mpsc::Receiver<Vec<News>>);

/// What is told of a tap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum News {
    /// A call ended.
    Call {
        /// Whose agent tells.
        node: String,
        #[serde(flatten)]
        call: Box<Call>,
    },
    /// Calls that are not shown.
    Missing {
        node: String,
        /// By the rate.
        left_out: u64,
        /// Because they came faster than they were fetched.
        lost: u64,
    },
    /// Which nodes are asked, and whether they answer. First, and whenever that changes.
    Nodes {
        nodes: Vec<Asked>,
        /// Nodes that are not asked because there are too many.
        unasked: usize,
    },
    /// There will be no more.
    End { why: String },
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    pub node: String,
    /// `asked`, `answers` or `silent`.
    pub state: String,
    /// Why it is silent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// What came of one question.
struct Said {
    node: NodeName,
    batch: Result<Batch, String>,
}

/// What asks while the tap is open.
struct Collector {
    host: Arc<Host>,
    callee: ServiceName,
    filter: Filter,
    question: Arc<Question>,
    only: BTreeSet<NodeName>,
    nodes: BTreeMap<NodeName, Asked>,
    unasked: usize,
    asking: JoinSet<()>,
    said: (mpsc::Sender<Said>, mpsc::Receiver<Said>),
    out: mpsc::Sender<Vec<News>>,
    _place: OwnedSemaphorePermit,
}

/// Nobody takes what there is to tell.
struct Gone;

impl Tap {
    /// Opens a tap, if the pass holds here too; the others judge it by themselves.
    pub fn open(host: &Arc<Host>, ask: Ask) -> Result<Self, Refused> {
        let bad = |error: String| refused(400, error, None);
        let filter = Filter::parse(&ask.wanted).map_err(|error| bad(error.to_string()))?;
        let only = ask.nodes.iter().map(|name| NodeName::parse(name));
        let only = only.collect::<Result<_, _>>();
        let only = only.map_err(|error| bad(format!("not the name of a node: {error}")))?;
        check(host, &ask.pass, &filter).map_err(|refusal| refuse(&refusal))?;
        let place = host.taps.asking.clone().try_acquire_owned();
        let place = place.map_err(|_full| {
            let why = "as many taps as one agent may have are open".to_owned();
            refused(503, why, Some("end one, or ask the agent of another host"))
        })?;
        let id: [u8; 16] =
            random::bytes().map_err(|error| refused(500, error.to_string(), None))?;
        let (out, news) = mpsc::channel(FRAMES_MAX);
        let collector = Collector {
            host: host.clone(),
            callee: filter.callee.clone(),
            filter,
            question: Arc::new(Question {
                pass: ask.pass,
                tap: format!("{:032x}", u128::from_be_bytes(id)),
                wanted: ask.wanted,
                done: false,
            }),
            only,
            nodes: BTreeMap::new(),
            unasked: 0,
            asking: JoinSet::new(),
            said: mpsc::channel(FRAMES_MAX),
            out,
            _place: place,
        };
        host.spawn(collector.run());
        Ok(Self(news))
    }

    /// What there is to tell next; none once it has ended.
    pub async fn next(&mut self) -> Option<Vec<News>> {
        self.0.recv().await
    }
}

impl Collector {
    async fn run(mut self) {
        let host = self.host.clone();
        let ended = tokio::select! {
            ended = self.collect() => ended,
            () = host.drain.cancelled() => return,
        };
        if let Ok(why) = ended {
            let _gone = self.tell(vec![News::End { why }]).await;
        }
        self.asking.abort_all();
        let done = Arc::new(Question {
            done: true,
            ..Question::clone(&self.question)
        });
        let told = self.nodes.into_keys();
        let told = told.map(|node| end(self.host.clone(), node, done.clone()));
        let told = stream::iter(told).buffer_unordered(AT_ONCE);
        host.drain.run_until_cancelled(told.collect::<()>()).await;
    }

    /// Asks until nobody listens, or until the pass no longer holds; then it says why.
    async fn collect(&mut self) -> Result<String, Gone> {
        let mut changes = self.host.membership.changes();
        let mut checks = interval(CHECK_EVERY);
        let mut identities = self.host.identities.changes();
        self.review();
        self.tell_nodes().await?;
        loop {
            let out = self.out.clone();
            let is_news = tokio::select! {
                said = self.said.1.recv() => match said {
                    Some(said) => self.hear(said).await?,
                    None => return Err(Gone),
                },
                changed = changes.changed() => match changed {
                    Ok(()) => self.review(),
                    Err(_ended) => return Err(Gone),
                },
                () = due(&mut checks, &mut identities) => {
                    match check(&self.host, &self.question.pass, &self.filter) {
                        Ok(()) => false,
                        Err(refusal) => return Ok(refusal.to_string()),
                    }
                }
                () = out.closed() => return Err(Gone),
            };
            if is_news {
                self.tell_nodes().await?;
            }
        }
    }

    /// Asks whoever is not asked yet; says whether there is somebody. Who was asked once is asked to the end: a node that
    /// died is a gap, not nobody.
    fn review(&mut self) -> bool {
        let catalogue = self.host.membership.catalogue();
        let (wanted, unasked) = targets(&catalogue, &self.callee, &self.only);
        let mut is_news = self.unasked != unasked;
        self.unasked = unasked;
        for node in wanted {
            if self.nodes.contains_key(&node) || self.nodes.len() >= NODES_MAX {
                continue;
            }
            is_news = true;
            self.nodes.insert(node.clone(), Asked::new(&node, "asked"));
            let (host, question) = (self.host.clone(), self.question.clone());
            let asking = follow(host, node, question, self.said.0.clone());
            self.asking.spawn(asking);
        }
        is_news
    }

    /// Passes on what a node said; says whether its state is another now.
    async fn hear(&mut self, said: Said) -> Result<bool, Gone> {
        let Said { node, batch } = said;
        let now = match &batch {
            Ok(_) => Asked::new(&node, "answers"),
            Err(why) => Asked {
                why: Some(why.clone()),
                ..Asked::new(&node, "silent")
            },
        };
        let is_news = self.nodes.get(&node) != Some(&now);
        if let Ok(batch) = batch {
            let news = news(&node, batch);
            if !news.is_empty() {
                self.tell(news).await?;
            }
        }
        self.nodes.insert(node, now);
        Ok(is_news)
    }

    async fn tell_nodes(&self) -> Result<(), Gone> {
        let nodes = self.nodes.values().cloned().collect();
        let unasked = self.unasked;
        self.tell(vec![News::Nodes { nodes, unasked }]).await
    }

    /// Whoever does not read for long is gone, though the connection may not know.
    async fn tell(&self, news: Vec<News>) -> Result<(), Gone> {
        let told = timeout(READER_WAIT, self.out.send(news)).await;
        told.map_err(|_elapsed| Gone)?.map_err(|_closed| Gone)
    }
}

impl Asked {
    fn new(node: &NodeName, state: &str) -> Self {
        Self {
            node: node.to_string(),
            state: state.to_owned(),
            why: None,
        }
    }
}

/// Asks one node again and again.
async fn follow(
    host: Arc<Host>,
    node: NodeName,
    question: Arc<Question>,
    said: mpsc::Sender<Said>,
) {
    loop {
        let asked = host.control().ask::<Batch>(&node, PATH, &*question).await;
        let pause = asked.as_ref().err().map(pause);
        let batch = asked.map_err(|error| why(&error));
        let node = node.clone();
        if said.send(Said { node, batch }).await.is_err() {
            return;
        }
        if let Some(pause) = pause {
            sleep(pause).await;
        }
    }
}

/// Tells a node that nobody looks any more. It would find out by itself.
async fn end(host: Arc<Host>, node: NodeName, done: Arc<Question>) {
    let asked = host.control().ask::<Batch>(&node, PATH, &*done).await;
    if let Err(error) = asked {
        tracing::debug!(%node, %error, "a node was not told that a tap ended");
    }
}

fn news(node: &NodeName, batch: Batch) -> Vec<News> {
    let Batch {
        calls,
        left_out,
        lost,
    } = batch;
    let name = || node.to_string();
    let calls = calls.into_iter().map(|call| News::Call {
        node: name(),
        call: Box::new(call.of_another()),
    });
    let missing = (left_out > 0 || lost > 0).then(|| News::Missing {
        node: name(),
        left_out,
        lost,
    });
    calls.chain(missing).collect()
}

/// Until the pass has to be judged again: its operator's key may be revoked, and by the clock it ends.
async fn due(checks: &mut Interval, identities: &mut watch::Receiver<u64>) {
    tokio::select! {
        _ = checks.tick() => {}
        Ok(()) = identities.changed() => {}
    }
}

fn check(host: &Host, pass: &str, filter: &Filter) -> Result<(), PassError> {
    let wish = Wish::Tap {
        callee: &filter.callee,
        headers: &filter.show,
    };
    pass::admit(host, pass, &host.node, wish).map(drop)
}

/// A node that refuses has a reason that does not pass soon.
fn pause(error: &ControlError) -> Duration {
    match error.refused() {
        Some(_) => REFUSED_PAUSE,
        None => RETRY_PAUSE,
    }
}

fn why(error: &ControlError) -> String {
    match error.refused() {
        Some(refused) if refused.reason != NOT_HERE => format!("refused: {}", error.told()),
        _ => error.told(),
    }
}

fn refuse(refusal: &PassError) -> Refused {
    refused(403, refusal.to_string(), Some(refusal.hint()))
}

fn refused(status: u16, error: String, hint: Option<&str>) -> Refused {
    Refused {
        status,
        error,
        hint: hint.map(str::to_owned),
    }
}

/// Answers that wait for a reader that is slow; each is 48 KiB at most. Past it the nodes are asked less often, and say what
/// they lost.
const FRAMES_MAX: usize = 16;

/// How often the pass is looked at again here.
const CHECK_EVERY: Duration = Duration::from_secs(2);

/// A reader that stops for that long is gone.
const READER_WAIT: Duration = Duration::from_secs(30);

/// Before a node that cannot be reached is asked again.
const RETRY_PAUSE: Duration = Duration::from_secs(2);

/// Before a node that refused is asked again.
const REFUSED_PAUSE: Duration = Duration::from_secs(10);

/// Nodes told at a time that a tap ended.
const AT_ONCE: usize = 16;
