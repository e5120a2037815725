//! The manifests we hold: who may enter, and who is believed to be here.

mod table;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;

use self::table::FLOORS_MAX;
pub(crate) use self::table::{Entry, Table};
use crate::local::State;
use crate::metrics::Refusal;
use crate::names::{NodeId, NodeName};
use crate::proof::Verifier;
use crate::pulse::Pulse;
use crate::settings::{Clock, Settings};
use crate::summary::{CallEnd, Summary, SummaryEdge};
use crate::vetted::{Cache, SKEW_S, Vetted};
use crate::wire::Vouched;
use crate::wire::credentials::hash;
use crate::wire::manifest::{Manifest, Record, signed_bytes, trust_domain_hash};

/// Everything verified that we know. Shared by all tasks; its locks are held for moments and never across an await.
pub(crate) struct Registry {
    trust_domain: String,
    trust_domain_hash: [u8; 16],
    /// Our own id.
    pub(crate) own: NodeId,
    clock: Clock,
    verifier: Arc<dyn Verifier>,
    nodes_max: usize,
    dead_grace: Duration,
    /// How long one sign of life counts.
    evidence: Duration,
    table: Mutex<Table>,
    vetted: Mutex<Cache>,
    /// Told whenever the catalogue may have to change.
    pub(crate) changed: Notify,
    /// Told whenever somebody says that it holds other documents than before.
    pub(crate) documents_due: Notify,
}

/// How a record reached us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// From its owner itself.
    Owner,
    /// As a rumour, so it was signed moments ago.
    Rumour,
    /// From somebody who believes that the node is here.
    Believer,
    /// By reconciliation; it may be of any age.
    Relay,
}

/// What became of a record that was not refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admitted {
    /// It is new to us and in the table now.
    News(NodeId),
    /// We have it, or a newer one.
    Known(NodeId),
    /// It may be true, but we lack the credentials it names.
    NeedsCredentials(NodeId),
    /// It is our own, of a life that the present one does not outrank.
    Outranked { generation: u64 },
}

impl Registry {
    pub(crate) fn new(settings: &Settings, own: NodeId, verifier: Arc<dyn Verifier>) -> Self {
        Self {
            trust_domain_hash: trust_domain_hash(&settings.trust_domain),
            trust_domain: settings.trust_domain.clone(),
            own,
            clock: settings.clock.clone(),
            verifier,
            nodes_max: settings.nodes_max,
            dead_grace: settings.dead_grace,
            evidence: EVIDENCE_INTERVALS * settings.interval,
            table: Mutex::default(),
            vetted: Mutex::default(),
            changed: Notify::new(),
            documents_due: Notify::new(),
        }
    }

    /// The table. Callers hold it for moments.
    pub(crate) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn vetted(&self) -> MutexGuard<'_, Cache> {
        self.vetted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a record that `sender` handed us, or says why not. `credentials` are those that came with it, if any did.
    pub(crate) fn admit(
        &self,
        bytes: &[u8],
        credentials: Option<&[u8]>,
        sender: NodeId,
        source: Source,
    ) -> Result<Admitted, Refusal> {
        let (record, manifest) = Record::decode(bytes)?;
        let source = if manifest.node == sender {
            Source::Owner
        } else {
            source
        };
        if let Some(admitted) = self.check_claims(&record, &manifest, source)? {
            return Ok(admitted);
        }
        let Some(vetted) = self.credentials(&manifest, credentials)? else {
            return Ok(Admitted::NeedsCredentials(manifest.node));
        };
        self.check_proof(&record, &manifest, &vetted)?;
        if manifest.node == self.own {
            return Ok(Admitted::Outranked {
                generation: manifest.generation,
            });
        }
        self.insert(bytes, manifest, vetted, source)
    }

    /// Everything that can be refused, or be known, before anything costly is done.
    fn check_claims(
        &self,
        record: &Record,
        manifest: &Manifest,
        source: Source,
    ) -> Result<Option<Admitted>, Refusal> {
        let now_ms = self.clock.now_ms();
        if manifest.trust_domain != self.trust_domain_hash {
            return Err(Refusal::OtherMesh);
        }
        let table = self.table();
        if manifest.node == self.own {
            // Whatever our clock says: it may be the one that is wrong.
            return table.check_own(manifest);
        }
        let soon_ms = now_ms + 1000 * SKEW_S;
        if manifest.generation > soon_ms || manifest.issued > soon_ms / 1000 {
            return Err(Refusal::Future);
        }
        if manifest.cell != table.cell {
            return Err(Refusal::OtherCell);
        }
        let Some(known) = table.entries.get(&manifest.node) else {
            let long_past = manifest.issued + u64::from(manifest.ttl_s) + SKEW_S < now_ms / 1000;
            if long_past && source != Source::Owner {
                return Err(Refusal::Expired);
            }
            let floor = table.floors.get(&manifest.node);
            return match floor {
                Some(floor) if manifest.order() < *floor => Err(Refusal::Stale),
                _ => Ok(None),
            };
        };
        match manifest.order().cmp(&known.manifest.order()) {
            std::cmp::Ordering::Less if manifest.generation < known.manifest.generation => {
                Err(Refusal::Stale)
            }
            std::cmp::Ordering::Less => Ok(Some(Admitted::Known(manifest.node))),
            std::cmp::Ordering::Equal if record.same_manifest(&known.record) => {
                Ok(Some(Admitted::Known(manifest.node)))
            }
            _ => Ok(None),
        }
    }

    /// The checked credentials a manifest names: from the cache, or those that came along. `None` if there are none.
    fn credentials(
        &self,
        manifest: &Manifest,
        along: Option<&[u8]>,
    ) -> Result<Option<Arc<Vetted>>, Refusal> {
        if let Some(vetted) = self.vetted().find(&manifest.credentials) {
            return Ok(Some(vetted));
        }
        let Some(bytes) = along else {
            return Ok(None);
        };
        if hash(bytes) != manifest.credentials {
            return Err(Refusal::Credentials);
        }
        let vetted = Arc::new(Vetted::check(bytes, &self.trust_domain, &*self.verifier)?);
        self.vetted().keep(vetted.clone());
        Ok(Some(vetted))
    }

    fn check_proof(
        &self,
        record: &Record,
        manifest: &Manifest,
        vetted: &Vetted,
    ) -> Result<(), Refusal> {
        if vetted.id != manifest.node || !vetted.node_valid(self.clock.now_s()) {
            return Err(Refusal::Credentials);
        }
        let message = signed_bytes(&self.trust_domain, &record.manifest.0);
        self.verifier
            .verify(&vetted.node, &message, &record.signature.0)
            .map_err(|_signature| Refusal::Signature)
    }

    fn insert(
        &self,
        bytes: &[u8],
        manifest: Manifest,
        vetted: Arc<Vetted>,
        source: Source,
    ) -> Result<Admitted, Refusal> {
        let now = Instant::now();
        let now_s = self.clock.now_s();
        let unproven = manifest
            .services
            .iter()
            .filter(|service| !vetted.service_valid(&service.name, now_s));
        let unproven = unproven.count();
        let node = manifest.node;
        let mut table = self.table();
        let is_new_life = table.check_place(&manifest, &vetted, self.nodes_max)?;
        if is_new_life && table.entries.contains_key(&node) {
            table.check_former(node, now, self.dead_grace)?;
        }
        let evidence = (source != Source::Relay).then_some(self.evidence);
        let changed = table.changed(&manifest, now);
        let before = table.entries.remove(&node);
        if manifest.docs != before.as_ref().and_then(|entry| entry.manifest.docs) {
            self.documents_due.notify_one();
        }
        let before = before.filter(|_| !is_new_life);
        let mut pulse = before.map_or_else(|| Pulse::new(now, evidence), |entry| entry.pulse);
        if let Some(evidence) = evidence {
            pulse.seen(now, evidence);
        }
        pulse.judge(now, false);
        table.floors.remove(&node);
        let record = Bytes::copy_from_slice(bytes);
        table.entries.insert(
            node,
            Entry {
                record,
                manifest: Arc::new(manifest),
                vetted,
                heard_at: now,
                changed,
                pulse,
            },
        );
        drop(table);
        Refusal::Unproven.count(unproven);
        self.changed.notify_one();
        Ok(Admitted::News(node))
    }

    /// Puts our own record in its place.
    pub(crate) fn set_own(&self, record: Bytes, manifest: Manifest, vetted: Arc<Vetted>) {
        let now = Instant::now();
        self.vetted().keep(vetted.clone());
        let mut table = self.table();
        table.cell = manifest.cell;
        let changed = table.changed(&manifest, now);
        let before = table.entries.get(&manifest.node);
        let pulse = before.map(|before| before.pulse.clone());
        let mut pulse = pulse.unwrap_or_else(|| Pulse::new(now, Some(FOREVER)));
        pulse.judge(now, false);
        table.entries.insert(
            manifest.node,
            Entry {
                record,
                manifest: Arc::new(manifest),
                vetted,
                heard_at: now,
                changed,
                pulse,
            },
        );
        drop(table);
        self.changed.notify_one();
    }

    /// The node itself sent us something over its own connection.
    pub(crate) fn seen(&self, node: NodeId) {
        let now = Instant::now();
        if let Some(entry) = self.table().entries.get_mut(&node) {
            entry.pulse.seen(now, self.evidence);
            if entry.pulse.judge(now, false) {
                self.changed.notify_one();
            }
        }
    }

    /// Our own connections to the node fail.
    pub(crate) fn doubt(&self, node: NodeId) {
        let now = Instant::now();
        if node == self.own {
            return;
        }
        if let Some(entry) = self.table().entries.get_mut(&node) {
            entry.pulse.doubt(now);
            entry.pulse.judge(now, false);
            self.changed.notify_one();
        }
    }

    /// A probe of the node went unanswered.
    pub(crate) fn probe_failed(&self, node: NodeId) {
        if let Some(entry) = self.table().entries.get_mut(&node) {
            entry.pulse.probe_failed();
            if entry.pulse.judge(Instant::now(), false) {
                self.changed.notify_one();
            }
        }
    }

    /// Judges everyone anew, given which lives the failure detector holds alive, forgets the long dead, and returns whom to
    /// probe.
    pub(crate) fn review(&self, phi_alive: &[(NodeId, u64)], probe: ProbePlan) -> Vec<NodeId> {
        let now = Instant::now();
        let mut changed = false;
        let mut to_probe = Vec::new();
        let mut table = self.table();
        for (node, entry) in &mut table.entries {
            if *node == self.own {
                continue;
            }
            let life = (*node, entry.manifest.generation);
            entry.pulse.phi(phi_alive.binary_search(&life).is_ok());
            let here = entry.manifest.state != State::Left;
            if here && entry.pulse.take_probe(now, probe.ahead, probe.pause) {
                to_probe.push(*node);
            }
            changed |= entry.pulse.judge(now, entry.expired(now));
        }
        changed |= table.forget(now, self.own, self.dead_grace);
        drop(table);
        if changed {
            self.changed.notify_one();
        }
        to_probe
    }

    /// Checks all credentials again, after the trust bundle or the revocations changed. Nodes that no longer have any are
    /// forgotten. Takes as long as a join.
    pub(crate) fn recheck(&self) {
        self.vetted().clear();
        let all: Vec<(NodeId, Arc<Vetted>)> = self
            .table()
            .entries
            .iter()
            .map(|(node, entry)| (*node, entry.vetted.clone()))
            .collect();
        for (node, before) in all.into_iter().filter(|(node, _)| *node != self.own) {
            let now =
                Vetted::check(&before.bytes, &self.trust_domain, &*self.verifier).map(Arc::new);
            if let Ok(vetted) = &now {
                self.vetted().keep(vetted.clone());
            }
            let mut table = self.table();
            let same = table
                .entries
                .get(&node)
                .is_some_and(|entry| Arc::ptr_eq(&entry.vetted, &before));
            match now {
                Ok(vetted) if same => {
                    table
                        .entries
                        .entry(node)
                        .and_modify(|entry| entry.vetted = vetted);
                }
                Err(_) if same => table.remove(node),
                _ => {}
            }
        }
        self.changed.notify_one();
    }

    /// Sets the newest manifests seen in former lives of ours; older ones are refused.
    pub(crate) fn set_floors(&self, floors: impl Iterator<Item = (NodeId, (u64, u64))>) {
        self.table().floors.extend(floors.take(FLOORS_MAX));
    }

    /// A page of what we know: of `wanted`, or of everyone believed to be here whose id is past `after`.
    pub(crate) fn page(&self, wanted: &Wanted, bytes_max: usize) -> crate::wire::Page {
        let table = self.table();
        let mut page = crate::wire::Page::default();
        let mut bytes = PAGE_HEADER_BYTES;
        let entries: Box<dyn Iterator<Item = &Entry>> = match wanted {
            Wanted::Nodes(nodes) => {
                Box::new(nodes.iter().filter_map(|node| table.entries.get(node)))
            }
            Wanted::After(after) => {
                let past = table
                    .entries
                    .iter()
                    .filter(|(node, _)| after.is_none_or(|after| **node > after));
                Box::new(past.map(|(_, entry)| entry).filter(|entry| entry.here()))
            }
        };
        for entry in entries {
            let vouched = Vouched {
                record: crate::wire::Blob(entry.record.to_vec()),
                credentials: crate::wire::Blob(entry.vetted.bytes.to_vec()),
            };
            bytes += vouched.wire_bytes();
            if bytes > bytes_max {
                page.more = true;
                break;
            }
            page.records.push(vouched);
        }
        page
    }

    /// How the calls of the other nodes go, by their own words, with the age of these. What a node says as the callee counts
    /// only for services that it proved to offer.
    pub(crate) fn summaries(&self) -> Vec<(NodeName, Duration, Summary)> {
        let now_s = self.clock.now_s();
        let table = self.table();
        let others = table.entries.iter().filter(|(node, _)| **node != self.own);
        let said = others.filter_map(|(_, entry)| {
            let mut summary = entry.manifest.summary.clone()?;
            let proven = |edge: &SummaryEdge| {
                edge.end == CallEnd::Caller || entry.vetted.service_valid(&edge.callee, now_s)
            };
            summary.edges.retain(proven);
            Some((entry.vetted.name.clone(), entry.heard_at.elapsed(), summary))
        });
        said.collect()
    }

    /// The id of a node by its name.
    pub(crate) fn find(&self, name: &NodeName) -> Option<NodeId> {
        let table = self.table();
        table
            .entries
            .iter()
            .find(|(_, entry)| entry.vetted.name == *name)
            .map(|(node, _)| *node)
    }
}

impl Record {
    /// Whether another record, encoded, holds the same manifest. Signatures may differ: ECDSA's can be made anew.
    fn same_manifest(&self, other: &[u8]) -> bool {
        Self::decode(other).is_ok_and(|(other, _)| other.manifest == self.manifest)
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry")
            .field("own", &self.own)
            .finish_non_exhaustive()
    }
}

/// Which records go into a page.
#[derive(Debug)]
pub(crate) enum Wanted {
    Nodes(Vec<NodeId>),
    After(Option<NodeId>),
}

/// When to probe.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProbePlan {
    /// How long before the last evidence ends.
    pub(crate) ahead: Duration,
    /// How long after the last probe.
    pub(crate) pause: Duration,
}

/// How long one sign of life counts, in intervals. The failure detector needs about five to see a new node.
const EVIDENCE_INTERVALS: u32 = 10;

/// A page's version, counts and flag.
const PAGE_HEADER_BYTES: usize = 64;

/// Our own evidence that we live does not end.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
