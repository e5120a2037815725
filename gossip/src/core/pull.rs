//! Asks peers for what they mentioned and we lack.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metrics::counter;
use tokio::time::sleep;

use super::Core;
use crate::carrier::{ANSWER_BYTES_MAX, Answer};
use crate::metrics::{ACCEPTED, Refusal};
use crate::names::NodeId;
use crate::registry::{Admitted, Source};
use crate::wire::manifest::Record;
use crate::wire::{ENTRIES_MAX, Page, Question};

/// What we lack, by the peer that mentioned it. A peer is in here while one task asks it.
#[derive(Debug, Default)]
pub(super) struct Pulls(Mutex<HashMap<Arc<str>, Wants>>);

/// Nodes, with the hops left where it came as a rumour.
type Wants = BTreeMap<NodeId, Option<u8>>;

impl Pulls {
    /// Adds to what is to be asked of `peer`; says whether a task has to be started for it.
    fn add(&self, peer: &Arc<str>, wants: Wants) -> bool {
        let mut pulls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waiting) = pulls.get_mut(peer) {
            let room = ENTRIES_MAX.saturating_sub(waiting.len());
            waiting.extend(wants.into_iter().take(room));
            return false;
        }
        let room = pulls.len() < PULLS_MAX;
        if room {
            pulls.insert(peer.clone(), wants);
        }
        room
    }

    /// What to ask next. `None` ends the task.
    fn next(&self, peer: &Arc<str>) -> Option<Wants> {
        let mut pulls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = pulls.get_mut(peer)?;
        let mut batch = std::mem::take(waiting);
        if batch.is_empty() {
            pulls.remove(peer);
            return None;
        }
        if let Some((&past, _)) = batch.iter().nth(BATCH_MAX) {
            *waiting = batch.split_off(&past);
        }
        Some(batch)
    }
}

impl Core {
    /// Asks `peer`, reached at `from`, for `wants`.
    pub(super) fn pull(self: &Arc<Self>, peer: &Arc<str>, from: SocketAddr, wants: Wants) {
        if !self.pulls.add(peer, wants) {
            return;
        }
        let (core, peer) = (self.clone(), peer.clone());
        self.spawn(async move {
            while let Some(wants) = core.pulls.next(&peer) {
                let missing = core.pull_batch(from, wants).await;
                core.pull_from_owners(missing).await;
                sleep(PULL_PAUSE).await;
            }
        });
    }

    /// Asks whoever is at `from`; returns what it did not have.
    async fn pull_batch(self: &Arc<Self>, from: SocketAddr, mut wants: Wants) -> Wants {
        let nodes = wants.keys().map(NodeId::bytes).collect();
        let answer = self
            .ask(
                from,
                &Question::Nodes { nodes },
                ANSWER_BYTES_MAX,
                PULL_TIME,
            )
            .await;
        let Some(answer) = answer else { return wants };
        let sender = NodeId::of(&answer.peer);
        for (node, is_news) in self.take_page(&answer, Source::Relay).nodes {
            if let Some(hops) = wants.remove(&node).filter(|_| is_news) {
                self.pass_on(node, hops, sender);
            }
        }
        wants
    }

    /// Asks those nodes themselves of which we know, from their last manifest, where they are.
    async fn pull_from_owners(self: &Arc<Self>, missing: Wants) {
        for (node, hops) in missing {
            let addr = self
                .registry
                .table()
                .entries
                .get(&node)
                .map(|entry| entry.manifest.gossip_addr());
            if let Some(addr) = addr.filter(|_| node != self.registry.own) {
                self.pull_batch(addr, BTreeMap::from([(node, hops)])).await;
            }
        }
    }

    /// Takes in a page of records.
    pub(super) fn take_page(&self, answer: &Answer, source: Source) -> Taken {
        let mut taken = Taken::default();
        let sender = NodeId::of(&answer.peer);
        let page = match Page::decode(&answer.bytes) {
            Ok(page) => page,
            Err(refusal) => {
                refusal.count(1);
                return taken;
            }
        };
        taken.more = page.more;
        let last = page
            .records
            .last()
            .and_then(|vouched| Record::decode(&vouched.record.0).ok());
        taken.last = last.map(|(_, manifest)| manifest.node);
        for vouched in page.records {
            if let Err(refusal) = self
                .guard
                .charge_vouched(&answer.peer, vouched.credentials.0.len())
            {
                refusal.count(1);
                break;
            }
            match self.registry.admit(
                &vouched.record.0,
                Some(&vouched.credentials.0),
                sender,
                source,
            ) {
                Ok(Admitted::News(node)) => taken.nodes.push((node, true)),
                Ok(Admitted::Known(node)) => taken.nodes.push((node, false)),
                Ok(Admitted::NeedsCredentials(_)) => Refusal::Credentials.count(1),
                Ok(Admitted::Outranked { generation }) => self.outranked(generation),
                Err(refusal) => refusal.count(1),
            }
        }
        let news = taken.nodes.iter().filter(|(_, is_news)| *is_news).count();
        counter!(ACCEPTED, "way" => "pull").increment(news as u64);
        taken
    }
}

/// What a page brought.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// The nodes of which we have the newest now, and whether it was news.
    pub(super) nodes: Vec<(NodeId, bool)>,
    pub(super) more: bool,
    /// The last node on the page, whatever became of its record.
    pub(super) last: Option<NodeId>,
}

/// Peers asked at once.
const PULLS_MAX: usize = 32;

/// Nodes asked for at once: their records and credentials of usual size (3 KiB) fill a third of an answer.
const BATCH_MAX: usize = 128;

/// How long an answer may take.
const PULL_TIME: Duration = Duration::from_secs(3);

/// Pause before the same peer is asked again, so that one who mentions what it does not have costs little.
const PULL_PAUSE: Duration = Duration::from_millis(100);
