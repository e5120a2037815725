//! Asking the other nodes, only while somebody looks; and what they said last.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use starling_gossip::{Liveness, NodeName, State};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use super::added_up;
use super::wire::{self, Page, Question};
use crate::admin::view;
use crate::host::Host;
use crate::said::causes;
use crate::telemetry::edges::sketch::Packed;
use crate::telemetry::edges::{Seen, Window};

/// What the other nodes said, and who wants to know.
#[derive(Debug, Default)]
pub struct Survey {
    kept: Mutex<BTreeMap<Window, Looked>>,
    wanted: Notify,
    /// Held by whoever asks, so that two who look do not ask twice.
    asking: tokio::sync::Mutex<()>,
}

/// What there is of a window that somebody looks at.
#[derive(Debug)]
struct Looked {
    at: Instant,
    /// The last time that somebody looked who will look again.
    watched: Option<Instant>,
    answers: BTreeMap<NodeName, Answer>,
    /// What came of the last round, added up, for those who watch.
    drawn: Option<(Instant, view::Edges)>,
}

/// What became of asking a node.
#[derive(Debug, Clone, Default)]
pub(super) struct Answer {
    /// The last answer, and when it came.
    pub(super) said: Option<(Instant, Arc<Seen>)>,
    /// When and why it did not answer since.
    pub(super) failed: Option<(Instant, String)>,
}

impl Answer {
    fn is_older(&self, than: Duration) -> bool {
        let tried = self.said.iter().map(|(at, _)| at);
        let tried = tried.chain(self.failed.iter().map(|(at, _)| at)).max();
        tried.is_none_or(|at| at.elapsed() >= than)
    }
}

impl Survey {
    /// Somebody watches a window, so that the others are asked about it for a while.
    pub(super) fn watch(&self, window: Window) {
        self.look(window, true);
        self.wanted.notify_one();
    }

    /// What came of the last round, unless that is long ago.
    pub(super) fn drawn(&self, window: Window) -> Option<view::Edges> {
        let kept = self.kept();
        let (at, drawn) = kept.get(&window)?.drawn.as_ref()?;
        (at.elapsed() < DRAWN_FOR).then(|| drawn.clone())
    }

    /// What the others said about a window.
    pub(super) fn answers(&self, window: Window) -> BTreeMap<NodeName, Answer> {
        let kept = self.kept();
        let looked = kept.get(&window);
        looked
            .map(|looked| looked.answers.clone())
            .unwrap_or_default()
    }

    /// Asks all nodes that may be here whose last answer is older than `age`, or as many as answer in time.
    pub(super) async fn ask(&self, host: &Arc<Host>, window: Window, age: Duration) {
        self.look(window, false);
        let round = async {
            let _turn = self.asking.lock().await;
            let nodes = self.due(host, window, age);
            let asked = stream::iter(nodes).map(|node| async move {
                let asked = ask(host, &node, window).await;
                (node, asked)
            });
            let mut asked = asked.buffer_unordered(ASKED_AT_ONCE);
            while let Some((node, answer)) = asked.next().await {
                self.take(window, node, answer);
            }
        };
        let _in_time = timeout(ROUND, round).await;
    }

    fn due(&self, host: &Host, window: Window, age: Duration) -> Vec<NodeName> {
        let answers = self.answers(window);
        let catalogue = host.membership.catalogue();
        let members = catalogue.members.values().filter(|member| {
            let is_here = member.liveness != Liveness::Dead && member.state != State::Left;
            is_here && member.name != host.node
        });
        let due = members.filter(|member| {
            let answer = answers.get(&member.name);
            answer.is_none_or(|answer| answer.is_older(age))
        });
        due.map(|member| member.name.clone()).collect()
    }

    fn take(&self, window: Window, node: NodeName, answer: Result<Seen, String>) {
        let mut kept = self.kept();
        let all: usize = kept.values().map(Looked::bytes).sum();
        let Some(looked) = kept.get_mut(&window) else {
            return;
        };
        let now = Instant::now();
        let entry = looked.answers.entry(node).or_default();
        match answer {
            Ok(mut seen) => {
                if all > LATENCY_BYTES_MAX {
                    without_latencies(&mut seen);
                }
                *entry = Answer {
                    said: Some((now, Arc::new(seen))),
                    failed: None,
                };
            }
            Err(why) => entry.failed = Some((now, why)),
        }
    }

    /// Asks while somebody watches, and forgets what nobody looks at. Runs as long as the agent.
    pub async fn keep(host: Arc<Host>) {
        let survey = &host.survey;
        loop {
            let watched = survey.forget(&host);
            let Some(watched) = watched else {
                survey.wanted.notified().await;
                continue;
            };
            for window in watched {
                survey.ask(&host, window, PAUSE).await;
                let drawn = added_up(host.clone(), window).await;
                if let Some(looked) = survey.kept().get_mut(&window) {
                    looked.drawn = Some((Instant::now(), drawn));
                }
            }
            let nodes = host.membership.catalogue().members.len();
            let nodes = u32::try_from(nodes).unwrap_or(u32::MAX);
            sleep(PAUSE.max(nodes * PER_NODE)).await;
        }
    }

    /// Drops what nobody looked at lately, and nodes that nobody knows any more. Returns the windows that are watched;
    /// none if there is nothing to keep.
    fn forget(&self, host: &Host) -> Option<BTreeSet<Window>> {
        let catalogue = host.membership.catalogue();
        let mut kept = self.kept();
        kept.retain(|_, looked| looked.at.elapsed() < KEPT_FOR);
        for looked in kept.values_mut() {
            let answers = &mut looked.answers;
            answers.retain(|node, _| catalogue.members.contains_key(node));
        }
        let lately = |at: Instant| at.elapsed() < WATCHED_FOR;
        let watched = kept.iter();
        let watched = watched.filter(|(_, looked)| looked.watched.is_some_and(lately));
        let watched = watched.map(|(window, _)| *window).collect();
        (!kept.is_empty()).then_some(watched)
    }

    /// Notes that somebody looks at a window.
    fn look(&self, window: Window, watches: bool) {
        let mut kept = self.kept();
        let now = Instant::now();
        let looked = kept.entry(window).or_insert_with(|| Looked {
            at: now,
            watched: None,
            answers: BTreeMap::new(),
            drawn: None,
        });
        looked.at = now;
        if watches {
            looked.watched = Some(now);
        }
    }

    fn kept(&self) -> MutexGuard<'_, BTreeMap<Window, Looked>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Looked {
    /// What the latencies in it take.
    fn bytes(&self) -> usize {
        let said = self
            .answers
            .values()
            .filter_map(|answer| answer.said.as_ref());
        let edges = said.flat_map(|(_, seen)| &seen.edges);
        edges.map(|edge| edge.latency.bytes().len()).sum()
    }
}

/// Asks one node, page by page. An error is for people.
async fn ask(host: &Arc<Host>, node: &NodeName, window: Window) -> Result<Seen, String> {
    let asked = timeout(ONE, async {
        let (mut seen, mut after) = (Seen::default(), None);
        loop {
            let question = Question {
                window: window.as_str().to_owned(),
                after,
            };
            let client = host.control();
            let asked = client.ask_exact::<Page>(node, wire::EDGES, &question).await;
            let page = asked.map_err(|error| causes(&error))?;
            after = page.last().filter(|_| page.more);
            let added = page.add_to(&mut seen);
            added.map_err(|error| format!("node `{node}` answered nonsense: {error}"))?;
            if after.is_none() {
                return Ok(seen);
            }
        }
    });
    let late = || Err(format!("node `{node}` did not answer within {ONE:?}"));
    asked.await.unwrap_or_else(|_elapsed| late())
}

fn without_latencies(seen: &mut Seen) {
    for edge in &mut seen.edges {
        edge.is_thinned |= !edge.latency.is_empty();
        edge.latency = Packed::default();
    }
}

/// Between two rounds while somebody watches.
const PAUSE: Duration = Duration::from_secs(2);

/// In a large mesh rounds come less often: 25 questions a second are what watching costs at most.
const PER_NODE: Duration = Duration::from_millis(40);

/// Questions under way at a time.
const ASKED_AT_ONCE: usize = 16;

/// Time for one node to answer, all pages. One answers in milliseconds from memory.
const ONE: Duration = Duration::from_secs(2);

/// Time for a round. People wait for it, and what did not come by then comes with the next.
const ROUND: Duration = Duration::from_secs(3);

/// A dashboard looks every second. One that did not for this long is gone.
const WATCHED_FOR: Duration = Duration::from_secs(10);

/// Two rounds in the largest mesh; whoever looks after a longer time does not get what was then.
const DRAWN_FOR: Duration = Duration::from_secs(20);

/// What nobody looks at is kept this long, so that a node which dies between two looks leaves its numbers.
const KEPT_FOR: Duration = Duration::from_secs(120);

/// What the latencies of all answers may take; those of answers that come past it are dropped.
const LATENCY_BYTES_MAX: usize = 16 * 1024 * 1024;
