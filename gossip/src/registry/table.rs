//! The table of nodes: what may replace what, and when something is forgotten. Pure: the caller brings clock and proof.

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::Admitted;
use crate::catalogue::Liveness;
use crate::local::{Caps, State};
use crate::metrics::Refusal;
use crate::names::NodeId;
use crate::pulse::Pulse;
use crate::vetted::Vetted;
use crate::wire::manifest::Manifest;

/// One node.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) record: Bytes,
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) vetted: Arc<Vetted>,
    pub(crate) heard_at: Instant,
    /// When it last said something else than how its calls go, and as which of its announcements.
    pub(crate) changed: (Instant, u64),
    pub(crate) pulse: Pulse,
}

#[derive(Default)]
pub(crate) struct Table {
    pub(crate) entries: BTreeMap<NodeId, Entry>,
    /// The newest manifest seen of nodes that are not in `entries`: older ones are not taken in again.
    pub(super) floors: BTreeMap<NodeId, (u64, u64)>,
    /// The lives that another one of the same node replaced lately, oldest first.
    former: VecDeque<(Instant, NodeId)>,
    /// Our own cell.
    pub(super) cell: u32,
}

impl Entry {
    /// Whether its manifest is past its time.
    pub(super) fn expired(&self, now: Instant) -> bool {
        now > self.heard_at + Duration::from_secs(self.manifest.ttl_s.into())
    }

    /// Whether it is believed to be here.
    pub(crate) fn here(&self) -> bool {
        self.manifest.state != State::Left && self.pulse.liveness() != Liveness::Dead
    }

    /// Since when it is gone, if it is.
    fn gone_since(&self) -> Option<Instant> {
        match (self.manifest.state, self.pulse.liveness()) {
            (State::Left, _) => Some(self.heard_at),
            (_, Liveness::Dead) => Some(self.pulse.since()),
            _ => None,
        }
    }
}

impl Table {
    /// Whether everybody who may be here reads manifests that say more than the first version.
    pub(crate) fn extras_are_read(&self) -> bool {
        let mut here = self.entries.values().filter(|entry| entry.here());
        here.all(|entry| Caps(entry.manifest.caps).has(Caps::READS_EXTRAS))
    }

    /// Since when, and as of which announcement, a node says what it says in `manifest`.
    pub(super) fn changed(&self, manifest: &Manifest, now: Instant) -> (Instant, u64) {
        let before = self.entries.get(&manifest.node);
        let same = before.filter(|before| before.manifest.tells_same(manifest));
        same.map_or((now, manifest.sequence), |before| before.changed)
    }

    /// Judges a record that says it is ours. Only what the present life does not outrank is worth a look at its signature.
    pub(super) fn check_own(&self, manifest: &Manifest) -> Result<Option<Admitted>, Refusal> {
        let Some(own) = self.entries.get(&manifest.node) else {
            return Err(Refusal::AboutSelf);
        };
        match manifest.order().cmp(&own.manifest.order()) {
            Ordering::Greater => Ok(None),
            Ordering::Equal if *manifest != *own.manifest => Ok(None),
            _ => Ok(Some(Admitted::Known(manifest.node))),
        }
    }

    /// Whether a proven manifest may take its place; tells if it begins a new life.
    pub(super) fn check_place(
        &self,
        manifest: &Manifest,
        vetted: &Vetted,
        nodes_max: usize,
    ) -> Result<bool, Refusal> {
        let Some(known) = self.entries.get(&manifest.node) else {
            return if self.entries.len() < nodes_max {
                Ok(true)
            } else {
                Err(Refusal::Full)
            };
        };
        if vetted.node.not_before < known.vetted.node.not_before {
            return Err(Refusal::Superseded);
        }
        match manifest.order().cmp(&known.manifest.order()) {
            Ordering::Less => Err(Refusal::Stale),
            Ordering::Equal => Err(Refusal::Fork),
            Ordering::Greater if manifest.generation > known.manifest.generation => Ok(true),
            Ordering::Greater => {
                let grows = manifest.kv_version > known.manifest.kv_version;
                let stays = manifest.gossip_addr() == known.manifest.gossip_addr();
                if grows && stays {
                    Ok(false)
                } else {
                    Err(Refusal::Malformed)
                }
            }
        }
    }

    /// Whether there is room for one more former life of a node. chitchat keeps each in its digest for half of the dead grace and
    /// has room for about 700; past that it panics. They are counted per node too, so that one in a crash loop cannot use up what
    /// the others need.
    pub(super) fn check_former(
        &mut self,
        node: NodeId,
        now: Instant,
        dead_grace: Duration,
    ) -> Result<(), Refusal> {
        let lingers = dead_grace / 2 + NOTICE_TIME;
        while self
            .former
            .front()
            .is_some_and(|(ended, _)| now > *ended + lingers)
        {
            self.former.pop_front();
        }
        let of_this = self
            .former
            .iter()
            .filter(|(_, other)| *other == node)
            .count();
        let all = self.entries.len() + self.former.len();
        if all >= LIVES_MAX || of_this >= LIVES_PER_NODE_MAX {
            return Err(Refusal::Full);
        }
        self.former.push_back((now, node));
        Ok(())
    }

    /// Forgets who is gone for longer than the grace; says whether anyone was.
    pub(super) fn forget(&mut self, now: Instant, own: NodeId, dead_grace: Duration) -> bool {
        let long_gone = |entry: &Entry| {
            entry
                .gone_since()
                .is_some_and(|since| now > since + dead_grace)
        };
        let gone: Vec<NodeId> = self
            .entries
            .iter()
            .filter(|(node, entry)| **node != own && long_gone(entry))
            .map(|(node, _)| *node)
            .collect();
        for node in &gone {
            self.remove(*node);
        }
        !gone.is_empty()
    }

    pub(super) fn remove(&mut self, node: NodeId) {
        let Some(entry) = self.entries.remove(&node) else {
            return;
        };
        if self.floors.len() >= FLOORS_MAX {
            self.floors.pop_first();
        }
        self.floors.insert(node, entry.manifest.order());
    }
}

/// Lives chitchat may know: 400 nodes at present and half as many restarts within five minutes. Its digest of them has 45 KiB,
/// which leaves its deltas the 16 KiB below which it panics.
const LIVES_MAX: usize = 600;

/// Restarts of one node within half of the dead grace. At the limit, a node in a crash loop waits outside.
const LIVES_PER_NODE_MAX: usize = 20;

/// What the failure detector takes to give up a former life, at most.
const NOTICE_TIME: Duration = Duration::from_secs(30);

/// Former nodes whose newest manifest is remembered.
pub(super) const FLOORS_MAX: usize = 4096;
