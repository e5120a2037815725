//! Sets of documents under shuffled histories: partitions, restarts, hosts that join later, operators who are revoked, revoke each
//! other, and thieves who date back. No sockets and no clock: what is exchanged is what nodes list and want, so a thousand
//! histories take seconds. `STARLING_SEED=…` draws one again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fastrand::Rng;

use super::documents::checker;
use crate::Revision;
use crate::documents::operators::Mark;
use crate::documents::system::{KeyStatement, RetentionEntry, Statement, retention_lists};
use crate::documents::{Checker, DocumentKey, Documents, Draft, DraftRow, Standing};
use crate::testing::{Memory, Network, Operator};

/// The calls of this small world; a text grants some and denies some.
const CALLS: u32 = 6;

/// Histories in a run of all tests.
const SEEDS: u64 = 1_000;

struct World {
    rng: Rng,
    network: Memory,
    checker: Checker,
    operators: Vec<Operator>,
    nodes: Vec<Host>,
    /// Which side of a partition each node is on.
    sides: Vec<bool>,
    now: u64,
    begin: u64,
}

/// A node: what it holds, and all that it ever took in.
#[derive(Default)]
struct Host {
    documents: Documents,
    heard: BTreeMap<[u8; 32], Arc<Revision>>,
    /// Whether it changed since it was checked.
    is_changed: bool,
}

impl Host {
    fn take(&mut self, revisions: Vec<Arc<Revision>>) {
        let (documents, news) = self.documents.with(revisions);
        if news.is_empty() {
            return;
        }
        self.is_changed = true;
        self.documents = documents;
        for hash in news {
            let held = self.documents.find(&hash).unwrap().clone();
            self.heard.insert(hash, held);
        }
    }

    /// As from a peer: only what it wants.
    fn pull(&mut self, held: &[Arc<Revision>]) {
        let rows: Vec<_> = held
            .iter()
            .map(|held| (held.key.clone(), held.row()))
            .collect();
        let wanted = self.documents.wants(&rows);
        if wanted.is_empty() {
            return;
        }
        let wanted = held.iter().filter(|held| wanted.contains_key(&held.hash));
        self.take(wanted.cloned().collect());
    }

    /// Whether a call passes.
    fn allows(&self, call: u32) -> bool {
        let is_lost = self
            .documents
            .lost
            .keys()
            .any(|key| key.kind.as_str() == "policy");
        let mut is_granted = false;
        for document in self.documents.entries.values() {
            if document.newest().key.kind.as_str() != "policy" {
                continue;
            }
            let mut texts: Vec<(u32, u32)> = document
                .narrowings()
                .iter()
                .map(|held| masks(held))
                .collect();
            texts.push(document.base().map_or((0, 0), |base| masks(base)));
            if texts.iter().any(|(_, denied)| denied & (1 << call) != 0) {
                return false;
            }
            is_granted |= texts.iter().all(|(granted, _)| granted & (1 << call) != 0);
        }
        is_granted && !is_lost
    }

    /// A denial that this node heard of and that has to stand, found without what is under test but for whose word counts.
    fn must_deny(&self, call: u32) -> Option<&Revision> {
        let operators = &self.documents.operators;
        let is_revoked =
            |held: &Revision| operators.is_revoked(&held.signer.key_hash, held.signer.rank);
        let replaces = |new: &Revision, old: &Revision| {
            let is_above = (new.revision, old.hash) > (old.revision, new.hash);
            let says = new.signer.key_hash == old.signer.key_hash || !is_revoked(new);
            new.key == old.key && new.hash != old.hash && is_above && says
        };
        let policies = self
            .heard
            .values()
            .filter(|held| held.key.kind.as_str() == "policy");
        let mut denials = policies.filter(|held| masks(held).1 & (1 << call) != 0);
        denials
            .find(|held| {
                let is_dropped = is_revoked(held) && operators.mark(&held.hash) == Some(Mark::Drop);
                !is_dropped && !self.heard.values().any(|new| replaces(new, held))
            })
            .map(|held| &**held)
    }

    /// Whether a text that grants a call counts in full here.
    fn is_granted_by_a_good_key(&self, call: u32) -> bool {
        let operators = &self.documents.operators;
        let mut bases = self
            .documents
            .entries
            .values()
            .filter_map(|document| document.base());
        bases.any(|base| {
            let is_good = !operators.is_revoked(&base.signer.key_hash, base.signer.rank);
            is_good && masks(base).0 & (1 << call) != 0
        })
    }

    fn check(&mut self, what: &str) {
        if !std::mem::take(&mut self.is_changed) {
            return;
        }
        for call in 0..CALLS {
            if !self.allows(call) {
                continue;
            }
            if let Some(denial) = self.must_deny(call) {
                panic!(
                    "{what}: call {call} passes in spite of {denial:#?}\n{:#?}",
                    self.view()
                );
            }
            assert!(self.is_granted_by_a_good_key(call), "{what}: call {call}");
        }
    }

    /// What it offers to others.
    fn offered(&self) -> BTreeSet<String> {
        let rooms = ROOMS
            .iter()
            .flat_map(|room| self.documents.behind(room, None, None));
        let shown = |held: &Arc<Revision>| {
            format!(
                "{}@{} {} of {} at {}",
                held.key,
                held.revision,
                held.deleted,
                held.operator(),
                held.issued
            )
        };
        rooms.map(shown).collect()
    }

    /// What has to be the same on all nodes in the end.
    fn view(&self) -> BTreeMap<String, Vec<String>> {
        let mut view = BTreeMap::new();
        for (key, document) in &self.documents.entries {
            let texts = document.base().into_iter().chain(document.narrowings());
            let shown = |held: &Arc<Revision>| {
                format!(
                    "{}@{} of {} {:?}",
                    held.body,
                    held.revision,
                    held.operator(),
                    self.documents.standing(held)
                )
            };
            view.insert(key.to_string(), texts.map(shown).collect());
        }
        for (key, revision) in &self.documents.lost {
            view.insert(format!("{key} lost"), vec![revision.to_string()]);
        }
        view.retain(|_, texts| !texts.is_empty());
        view
    }
}

/// What a text grants and what it denies.
fn masks(held: &Revision) -> (u32, u32) {
    let mut words = held.body.split(' ').map(|word| word.parse().unwrap_or(0));
    (words.next().unwrap_or(0), words.next().unwrap_or(0))
}

impl World {
    fn new(seed: u64) -> Self {
        let network = Memory::new(seed);
        let checker = checker(&network);
        let begin = network.clock().now_s() - 3_000;
        let ranks = [("alice", 1), ("bob", 2), ("carol", 3), ("dave", 3)];
        let kinds = ["policy", "revocation"];
        let operators = ranks
            .map(|(name, rank)| Operator::with(&network, name, &kinds, |grant| grant.rank = rank));
        Self {
            rng: Rng::with_seed(seed),
            checker,
            operators: operators.into(),
            nodes: (0..4).map(|_| Host::default()).collect(),
            sides: vec![true; 4],
            now: begin,
            begin,
            network,
        }
    }

    fn read(&self, packet: &[u8]) -> Vec<Arc<Revision>> {
        self.checker.check(packet).unwrap()
    }

    /// Signs rows that follow on what `node` holds.
    fn signed(
        &mut self,
        node: usize,
        operator: usize,
        rows: Vec<(DocumentKey, Option<String>)>,
        issued: u64,
    ) -> Vec<Arc<Revision>> {
        let documents = &self.nodes[node].documents;
        let kind = rows[0].0.kind.clone();
        let mut rows: Vec<DraftRow> = rows
            .into_iter()
            .map(|(key, body)| DraftRow {
                revision: documents.newest_revision(&key) + 1,
                replaces: documents.get(&key).map(|document| document.newest().hash),
                name: key.name,
                deleted: body.is_none(),
                body: body.unwrap_or_default(),
            })
            .collect();
        rows.sort_by(|a, b| a.name.cmp(&b.name));
        rows.dedup_by(|a, b| a.name == b.name);
        let draft = Draft { kind, issued, rows };
        let packet = self.operators[operator].sign(&draft);
        self.read(&packet)
    }

    fn as_root(&self, node: usize, key: DocumentKey, body: Option<String>) -> Vec<Arc<Revision>> {
        let draft = Draft {
            kind: key.kind.clone(),
            issued: self.now,
            rows: vec![DraftRow {
                revision: self.nodes[node].documents.newest_revision(&key) + 1,
                replaces: None,
                name: key.name,
                deleted: body.is_none(),
                body: body.unwrap_or_default(),
            }],
        };
        let message = draft.to_sign_as_root(self.network.trust_domain());
        self.read(&draft.signed_by_root(self.network.sign_as_root(&message)))
    }

    fn name(&mut self) -> DocumentKey {
        format!("policy/{}", ["x", "y", "z"][self.rng.usize(..3)])
            .parse()
            .unwrap()
    }

    fn text(&mut self) -> String {
        let (granted, denied) = (self.rng.u32(..1 << CALLS), self.rng.u32(..1 << CALLS));
        let sparse = self.rng.u32(..1 << CALLS);
        format!("{granted} {}", denied & sparse)
    }

    fn step(&mut self) {
        self.now += self.rng.u64(1..30);
        let node = self.rng.usize(..self.nodes.len());
        let operator = self.rng.usize(..self.operators.len());
        match self.rng.u32(..100) {
            0..25 => self.write(node, operator),
            25..30 => self.delete(node, operator),
            30..35 => self.bundle(node, operator),
            35..42 => self.thief(node, operator),
            42..50 => self.revoke(node, operator),
            50..53 => self.take_back(node, operator),
            53..56 => self.root(node),
            56..60 => self.list_more(node, operator),
            60..64 => self.sides = self.sides.iter().map(|_| self.rng.bool()).collect(),
            64..68 => self.restart(node),
            68..70 => self.join(),
            _ => self.exchange(node),
        }
        for (at, node) in self.nodes.iter_mut().enumerate() {
            node.check(&format!("n{at}"));
        }
    }

    /// By the way of `submit`: refused where an agent refuses it.
    fn hand_over(&mut self, node: usize, revisions: Vec<Arc<Revision>>) {
        let operators = &self.nodes[node].documents.operators;
        let signer = &revisions[0].signer;
        if !signer.is_root() && operators.is_revoked(&signer.key_hash, signer.rank) {
            return;
        }
        self.nodes[node].take(revisions);
    }

    fn write(&mut self, node: usize, operator: usize) {
        let (name, text) = (self.name(), self.text());
        let revisions = self.signed(node, operator, vec![(name, Some(text))], self.now);
        self.hand_over(node, revisions);
    }

    fn delete(&mut self, node: usize, operator: usize) {
        let name = self.name();
        let revisions = self.signed(node, operator, vec![(name, None)], self.now);
        self.hand_over(node, revisions);
    }

    /// Several under one signature, a deletion among them perhaps.
    fn bundle(&mut self, node: usize, operator: usize) {
        let rows = (0..2)
            .map(|_| {
                let text = self.rng.bool().then(|| self.text());
                (self.name(), text)
            })
            .collect();
        let revisions = self.signed(node, operator, rows, self.now);
        self.hand_over(node, revisions);
    }

    /// What a thief with a key signs and a member brings: any number that its date allows, any date.
    fn thief(&mut self, node: usize, operator: usize) {
        let (name, text) = (self.name(), self.text());
        let issued = self.rng.u64(self.begin..=self.now);
        let draft = Draft {
            kind: name.kind.clone(),
            issued,
            rows: vec![DraftRow {
                name: name.name,
                revision: self.rng.u64(1..12),
                replaces: None,
                deleted: self.rng.u32(..4) == 0,
                body: text,
            }],
        };
        let mut draft = draft;
        if draft.rows[0].deleted {
            draft.rows[0].body.clear();
        }
        let packet = self.operators[operator].sign(&draft);
        let revisions = self.read(&packet);
        self.nodes[node].pull(&revisions);
    }

    /// Revokes a key as the command does: lists of what stays first.
    fn revoke(&mut self, node: usize, operator: usize) {
        let about = self.rng.usize(..self.operators.len());
        let key = self.operators[about].key_hash();
        let own = self.operators[operator].key_hash();
        self.list(node, operator, about);
        let statement = KeyStatement {
            key,
            reason: "lost".into(),
        };
        let document = statement.document(Some(&own));
        let revisions = self.signed(
            node,
            operator,
            vec![(document, Some(statement.to_text()))],
            self.now,
        );
        self.hand_over(node, revisions);
    }

    /// Everything held of a key, some of it dropped.
    fn list(&mut self, node: usize, operator: usize, about: usize) {
        let key = self.operators[about].key_hash();
        let own = self.operators[operator].key_hash();
        let held: Vec<Arc<Revision>> = self.nodes[node].documents.all().cloned().collect();
        let of_key = held.iter().filter(|held| held.signer.key_hash == key);
        let entries: Vec<RetentionEntry> = of_key
            .map(|held| RetentionEntry {
                document: held.key.clone(),
                revision: held.revision,
                hash: held.hash,
                keep: self.rng.u32(..5) > 0,
            })
            .collect();
        for (document, text) in retention_lists(&key, Some(&own), &entries) {
            let revisions = self.signed(node, operator, vec![(document, Some(text))], self.now);
            self.hand_over(node, revisions);
        }
    }

    fn list_more(&mut self, node: usize, operator: usize) {
        let about = self.rng.usize(..self.operators.len());
        self.list(node, operator, about);
    }

    fn take_back(&mut self, node: usize, operator: usize) {
        let own = self.operators[operator].key_hash();
        let about = self.rng.usize(..self.operators.len());
        if about == operator {
            return;
        }
        let key = self.operators[about].key_hash();
        let statement = KeyStatement {
            key,
            reason: String::new(),
        };
        let document = statement.document(Some(&own));
        let revisions = self.signed(node, operator, vec![(document, None)], self.now);
        self.hand_over(node, revisions);
    }

    fn root(&mut self, node: usize) {
        let about = self.rng.usize(..self.operators.len());
        let statement = KeyStatement {
            key: self.operators[about].key_hash(),
            reason: "stolen".into(),
        };
        let body = self.rng.bool().then(|| statement.to_text());
        let revisions = self.as_root(node, statement.document(None), body);
        self.nodes[node].take(revisions);
    }

    /// Everything from the files, in any order.
    fn restart(&mut self, node: usize) {
        let host = &mut self.nodes[node];
        let mut all: Vec<_> = host.documents.all().cloned().collect();
        self.rng.shuffle(&mut all);
        let before = host.view();
        host.documents = Documents::build(all.into_iter(), BTreeMap::new(), BTreeSet::new());
        assert_eq!(before, host.view());
        host.is_changed = true;
    }

    fn join(&mut self) {
        if self.nodes.len() < 7 {
            self.nodes.push(Host::default());
            self.sides.push(self.rng.bool());
        }
    }

    /// One node asks another on its side, for some of the rooms: an exchange may end in between.
    fn exchange(&mut self, node: usize) {
        let other = self.rng.usize(..self.nodes.len());
        if other == node || self.sides[other] != self.sides[node] {
            return;
        }
        let rooms = if self.rng.bool() {
            ROOMS.len()
        } else {
            self.rng.usize(..ROOMS.len())
        };
        self.sync(node, other, rooms);
    }

    fn sync(&mut self, node: usize, other: usize, rooms: usize) {
        for room in &ROOMS[..rooms] {
            let held: Vec<_> = self.nodes[other]
                .documents
                .behind(room, None, None)
                .cloned()
                .collect();
            self.nodes[node].pull(&held);
            self.nodes[node].check(&format!(
                "n{node} in the middle of an exchange, after `{room}`"
            ));
        }
    }

    /// Heals, has the root list what nobody listed, and has all exchange until nothing changes.
    fn settle(&mut self) {
        for _ in 0..8 {
            self.exchange_all();
            let mut unlisted: BTreeMap<[u8; 32], Vec<RetentionEntry>> = BTreeMap::new();
            for host in &self.nodes {
                for held in host.documents.all() {
                    if host.documents.standing(held) == Standing::Unlisted {
                        unlisted
                            .entry(held.signer.key_hash)
                            .or_default()
                            .push(RetentionEntry {
                                document: held.key.clone(),
                                revision: held.revision,
                                hash: held.hash,
                                keep: true,
                            });
                    }
                }
            }
            if unlisted.is_empty() {
                break;
            }
            for (key, mut entries) in unlisted {
                entries.sort();
                entries.dedup();
                // Together with what the root listed before.
                for held in self.nodes[0].documents.all() {
                    if let Some(Statement::Retains {
                        key: about,
                        entries: before,
                    }) = &held.statement
                        && *about == key
                        && held.signer.is_root()
                    {
                        entries.extend(before.iter().cloned());
                    }
                }
                entries.sort();
                entries.dedup();
                for (document, text) in retention_lists(&key, None, &entries) {
                    let revisions = self.as_root(0, document, Some(text));
                    self.nodes[0].take(revisions);
                }
            }
        }
        let first = (self.nodes[0].view(), self.nodes[0].offered());
        for (at, host) in self.nodes.iter().enumerate() {
            assert_eq!(first.0, host.view(), "n{at}");
            assert_eq!(first.1, host.offered(), "n{at}");
        }
    }

    fn exchange_all(&mut self) {
        for _ in 0..6 {
            let before: Vec<_> = self
                .nodes
                .iter()
                .map(|host| host.documents.digest())
                .collect();
            for node in 0..self.nodes.len() {
                for other in 0..self.nodes.len() {
                    if node != other {
                        self.sync(node, other, ROOMS.len());
                    }
                }
            }
            if before
                == self
                    .nodes
                    .iter()
                    .map(|host| host.documents.digest())
                    .collect::<Vec<_>>()
            {
                return;
            }
        }
    }
}

/// In the order in which nodes ask for them.
const ROOMS: [&str; 7] = [
    "root-retention",
    "retention",
    "root-revocation",
    "operator-revocation",
    "revocation",
    "",
    "policy",
];

#[test]
fn a_thousand_histories_end_alike_and_none_opens_what_was_denied() {
    let seeds = std::env::var("STARLING_SEED").ok().map_or_else(
        || {
            let first = fastrand::u64(..);
            (0..SEEDS).map(move |at| first.wrapping_add(at)).collect()
        },
        |seed| vec![seed.parse().expect("STARLING_SEED is a number")],
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let _entered = runtime.enter();
    for seed in seeds {
        let story = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            for _ in 0..60 {
                world.step();
            }
            world.sides.fill(true);
            world.settle();
        });
        if let Err(panic) = story {
            println!("failed under STARLING_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}
