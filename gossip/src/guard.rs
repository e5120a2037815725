//! What stands between peers and everything else: each frame passes here before any of it has an effect.

mod handshakes;
mod share;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ring::rand::{SecureRandom, SystemRandom};
use tokio::time::Instant;

use self::handshakes::Handshakes;
use self::share::Share;
use crate::carrier::FRAME_BYTES_MAX;
use crate::engine::chitchat_id;
use crate::engine::codec::{Known, Message, Stale};
use crate::metrics::Refusal;
use crate::names::NodeId;
use crate::registry::{Admitted, Registry, Source, Table};
use crate::settings::Clock;
use crate::vetted::{SKEW_S, node_name};
use crate::wire::{Blob, Entry, Frame, LENGTH_BYTES_MAX};

/// Checks what comes in and writes what goes out.
#[derive(Debug)]
pub(crate) struct Guard {
    trust_domain: String,
    registry: Arc<Registry>,
    clock: Clock,
    random: SystemRandom,
    handshakes: Mutex<Handshakes>,
    shares: Mutex<HashMap<Arc<str>, Share>>,
}

/// What remains of a frame, and what is to be done about it.
#[derive(Debug, Default)]
pub(crate) struct Passed {
    /// For chitchat, with the nonce of its handshake.
    pub(crate) message: Option<(u64, Message)>,
    /// Nodes we lack something of: ask the sender. With the hops left if it came as a rumour.
    pub(crate) wanted: BTreeMap<NodeId, Option<u8>>,
    /// What is new to us, with the hops left if it came as a rumour.
    pub(crate) news: Vec<(NodeId, Option<u8>)>,
    /// The version of ours that the sender has.
    pub(crate) acknowledged: Option<u64>,
    /// A life of ours that the present one has to outrank.
    pub(crate) outranked: Option<u64>,
}

impl Guard {
    pub(crate) fn new(trust_domain: &str, registry: Arc<Registry>, clock: Clock) -> Self {
        Self {
            trust_domain: trust_domain.into(),
            registry,
            clock,
            random: SystemRandom::new(),
            handshakes: Mutex::default(),
            shares: Mutex::default(),
        }
    }

    /// Who the peer is, if it is a node of this mesh and within its share.
    pub(crate) fn admit_peer(&self, peer: &Arc<str>, bytes: usize) -> Result<NodeId, Refusal> {
        node_name(peer, &self.trust_domain).ok_or(Refusal::Stranger)?;
        self.take_share(peer, |share, now| {
            share.frames.take(now, 1) && share.bytes.take(now, bytes)
        })?;
        Ok(NodeId::of(peer))
    }

    /// Reads a frame. Parts that do not hold are left out and counted; an error refuses the whole.
    pub(crate) fn inbound(&self, peer: &Arc<str>, frame: &[u8]) -> Result<Passed, Refusal> {
        let sender = self.admit_peer(peer, frame.len())?;
        let frame = Frame::decode(frame)?;
        let mut passed = Passed::default();
        match frame {
            Frame::Syn { nonce, digest } => {
                self.handshakes().answered.open(nonce, Some(sender));
                let digest = self.digest(&digest, &mut passed);
                passed.message = Some((nonce, Message::Syn { digest }));
            }
            Frame::SynAck {
                nonce,
                digest,
                records,
            } => {
                let ours = self.handshakes().opened.close(nonce, None);
                if !ours {
                    return Err(Refusal::NoHandshake);
                }
                let delta = self.records(peer, sender, &records, Source::Relay, &mut passed)?;
                let digest = self.digest(&digest, &mut passed);
                passed.message = Some((nonce, Message::SynAck { digest, delta }));
            }
            Frame::Ack { nonce, records } => {
                let ours = self.handshakes().answered.close(nonce, Some(sender));
                if !ours {
                    return Err(Refusal::NoHandshake);
                }
                let delta = self.records(peer, sender, &records, Source::Relay, &mut passed)?;
                passed.message = Some((nonce, Message::Ack { delta }));
            }
            Frame::Rumour { hops, records } => {
                self.records(peer, sender, &records, Source::Rumour, &mut passed)?;
                let hops = hops.min(HOPS_MAX).checked_sub(1);
                passed.news.iter_mut().for_each(|(_, left)| *left = hops);
                passed.wanted.values_mut().for_each(|left| *left = hops);
            }
        }
        self.registry.seen(sender);
        Ok(passed)
    }

    /// Takes in the records of a frame; returns which versions chitchat may be told of.
    fn records(
        &self,
        peer: &Arc<str>,
        sender: NodeId,
        records: &[Blob],
        source: Source,
        passed: &mut Passed,
    ) -> Result<Vec<Stale>, Refusal> {
        self.take_share(peer, |share, now| share.records.take(now, records.len()))?;
        let mut nodes = Vec::new();
        for Blob(record) in records {
            match self.registry.admit(record, None, sender, source) {
                Ok(Admitted::News(node)) => {
                    passed.news.push((node, None));
                    nodes.push(node);
                }
                // Nobody tells chitchat about ourselves but we.
                Ok(Admitted::Known(node)) if node == self.registry.own => {}
                Ok(Admitted::Known(node)) => nodes.push(node),
                Ok(Admitted::NeedsCredentials(node)) => {
                    passed.wanted.insert(node, None);
                }
                Ok(Admitted::Outranked { generation }) => {
                    Refusal::AboutSelf.count(1);
                    passed.outranked = passed.outranked.max(Some(generation));
                }
                Err(refusal) => refusal.count(1),
            }
        }
        let table = self.registry.table();
        nodes.sort_unstable();
        nodes.dedup();
        Ok(nodes
            .into_iter()
            .filter_map(|node| table.stale(node))
            .collect())
    }

    /// Keeps of a digest what chitchat may hear.
    fn digest(&self, digest: &[Entry], passed: &mut Passed) -> Vec<Known> {
        let now_ms = self.clock.now_ms();
        let table = self.registry.table();
        let mut kept = Vec::new();
        for entry in digest {
            match check_entry(entry, &table, self.registry.own, now_ms) {
                Ok(known) => {
                    if entry.node() == self.registry.own {
                        passed.acknowledged = Some(entry.version);
                    }
                    kept.push(known);
                }
                Err(refusal) => {
                    refusal.count(1);
                    if refusal == Refusal::UnknownNode {
                        passed.wanted.insert(entry.node(), None);
                    }
                }
            }
        }
        kept
    }

    /// Writes what chitchat wants to say. `None` if there is nothing to say or no handshake to say it in.
    pub(crate) fn outbound(&self, message: Message, reply: Option<u64>) -> Option<Vec<u8>> {
        let frame = match message {
            Message::Syn { digest } => {
                let nonce = self.nonce();
                self.handshakes().opened.open(nonce, None);
                Frame::Syn {
                    nonce,
                    digest: self.entries(&digest),
                }
            }
            Message::SynAck { digest, delta } => {
                let digest = self.entries(&digest);
                let room = FRAME_BYTES_MAX - FRAME_HEADER_BYTES - digest.len() * ENTRY_BYTES_MAX;
                Frame::SynAck {
                    nonce: reply?,
                    digest,
                    records: self.fresh(&delta, room),
                }
            }
            Message::Ack { delta } => {
                let room = FRAME_BYTES_MAX - FRAME_HEADER_BYTES;
                Frame::Ack {
                    nonce: reply?,
                    records: self.fresh(&delta, room),
                }
            }
            Message::BadCluster => return None,
        };
        Some(frame.encode())
    }

    /// Of each node only the life we hold a manifest of: former lives, which chitchat keeps for the grace, stay with us.
    fn entries(&self, digest: &[Known]) -> Vec<Entry> {
        let table = self.registry.table();
        let entries: BTreeMap<NodeId, Entry> = digest
            .iter()
            .filter_map(|known| {
                let node = NodeId::parse(&known.id.node_id)?;
                let entry = table.entries.get(&node)?;
                let present = entry.manifest.generation == known.id.generation_id;
                present.then_some((
                    node,
                    Entry {
                        node: node.bytes(),
                        generation: known.id.generation_id,
                        heartbeat: known.heartbeat,
                        version: known.version,
                    },
                ))
            })
            .take(crate::wire::ENTRIES_MAX)
            .collect();
        entries.into_values().collect()
    }

    /// The records the other side lacks, as many as there is room for; the others go with the next exchange.
    fn fresh(&self, delta: &[Stale], room: usize) -> Vec<Blob> {
        let table = self.registry.table();
        let mut left = room;
        delta
            .iter()
            .filter_map(|stale| NodeId::parse(&stale.id.node_id))
            .filter_map(|node| table.entries.get(&node))
            .map_while(|entry| {
                left = left.checked_sub(entry.record.len() + LENGTH_BYTES_MAX)?;
                Some(Blob(entry.record.to_vec()))
            })
            .collect()
    }

    /// Nobody but whom we tell it may know a nonce.
    fn nonce(&self) -> u64 {
        let mut bytes = [0; 8];
        self.random
            .fill(&mut bytes)
            .expect("the system has randomness");
        u64::from_le_bytes(bytes)
    }

    /// Charges the peer for what we send it in answer.
    pub(crate) fn charge(&self, peer: &Arc<str>, bytes: usize) -> Result<(), Refusal> {
        self.take_share(peer, |share, now| share.bytes.take(now, bytes))
    }

    /// Charges the peer for one record with credentials of so many bytes, which cost up to two signatures each 512 bytes.
    pub(crate) fn charge_vouched(
        &self,
        peer: &Arc<str>,
        credentials_bytes: usize,
    ) -> Result<(), Refusal> {
        let checks = 1 + credentials_bytes / CREDENTIALS_PER_CHARGE;
        self.take_share(peer, |share, now| share.records.take(now, checks))
    }

    /// Charges the peer for one document, which costs up to two signatures.
    pub(crate) fn charge_document(&self, peer: &Arc<str>) -> Result<(), Refusal> {
        self.take_share(peer, |share, now| share.records.take(now, 2))
    }

    fn take_share(
        &self,
        peer: &Arc<str>,
        take: impl FnOnce(&mut Share, Instant) -> bool,
    ) -> Result<(), Refusal> {
        let now = Instant::now();
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        if shares.len() >= SHARES_MAX && !shares.contains_key(peer) {
            shares.retain(|_, share| !share.bytes.is_full(now));
            if shares.len() >= SHARES_MAX {
                return Err(Refusal::Rate);
            }
        }
        let share = shares
            .entry(peer.clone())
            .or_insert_with(|| Share::new(now));
        if take(share, now) {
            Ok(())
        } else {
            Err(Refusal::Rate)
        }
    }

    fn handshakes(&self) -> MutexGuard<'_, Handshakes> {
        self.handshakes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Judges one line of a digest.
fn check_entry(entry: &Entry, table: &Table, own: NodeId, now_ms: u64) -> Result<Known, Refusal> {
    let node = entry.node();
    let soon_ms = now_ms + 1000 * SKEW_S;
    if entry.generation > soon_ms {
        return Err(Refusal::Future);
    }
    let Some(held) = table.entries.get(&node) else {
        return Err(Refusal::UnknownNode);
    };
    let manifest = &held.manifest;
    match entry.generation.cmp(&manifest.generation) {
        std::cmp::Ordering::Less => return Err(Refusal::Stale),
        std::cmp::Ordering::Greater if node == own => return Err(Refusal::AboutSelf),
        // A new life that nobody proved to us yet.
        std::cmp::Ordering::Greater => return Err(Refusal::UnknownNode),
        std::cmp::Ordering::Equal => {}
    }
    // chitchat beats once per message, and nobody sends 200 a second.
    let heartbeats_max = (soon_ms - entry.generation) / 5;
    let version_ahead_max = if node == own { 0 } else { VERSION_AHEAD_MAX };
    if entry.heartbeat > heartbeats_max || entry.version > manifest.kv_version + version_ahead_max {
        return Err(Refusal::Inflated);
    }
    let id = chitchat_id(node, manifest.generation, manifest.gossip_addr());
    Ok(Known {
        id,
        heartbeat: entry.heartbeat,
        version: entry.version,
    })
}

impl Table {
    /// The version we hold of a node, as chitchat is to hear of it.
    fn stale(&self, node: NodeId) -> Option<Stale> {
        let manifest = &self.entries.get(&node)?.manifest;
        let id = chitchat_id(node, manifest.generation, manifest.gossip_addr());
        Some(Stale {
            id,
            version: manifest.kv_version,
        })
    }
}

/// Credentials are charged less than they cost, so that the first answer to a newcomer, a full cell with ten services each,
/// is within its sender's share.
const CREDENTIALS_PER_CHARGE: usize = 2048;

/// Peers whose share is remembered. Each needs a certificate of this mesh.
const SHARES_MAX: usize = 1024;

/// How far a version may run ahead of what we have seen signed. It has no effect until it is signed.
const VERSION_AHEAD_MAX: u64 = 1_000_000;

/// A rumour in a mesh of 400 needs eight.
const HOPS_MAX: u8 = 10;

const FRAME_HEADER_BYTES: usize = 64;

/// An id and three numbers.
const ENTRY_BYTES_MAX: usize = 16 + 3 * LENGTH_BYTES_MAX;
